import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from rulezoo.leaderboard import stats
from rulezoo.leaderboard.scores import standings
from rulezoo.leaderboard.stats import Counts, Run, Scores

properties = settings(deadline=None, max_examples=30, derandomize=True)


def table(scores, chance=0.0, status=None, reference="backprop"):
    """``{rule: [[score of each seed] of each task]}`` → Scores; tasks are a, b, …, seeds 0, 1, …"""
    values = np.array(list(scores.values()), dtype=float)
    tasks = tuple("abcdefg"[: values.shape[1]])
    chances = dict(zip(tasks, np.broadcast_to(chance, len(tasks)).tolist(), strict=True))
    status = np.full(values.shape, "finished", dtype="<U8") if status is None else status
    return Scores(tuple(scores), tasks, tuple(range(values.shape[2])), values, status, chances, reference)


def with_status(scores, *entries):
    """The same with ``(rule, task, seed, status)`` for some entries, whose score becomes NaN."""
    status, values = scores.status.astype("<U8"), scores.values.copy()
    for rule, task, seed, word in entries:
        at = scores.rules.index(rule), scores.tasks.index(task), seed
        status[at], values[at] = word, np.nan
    return dataclasses.replace(scores, status=status, values=values)


def row(scores, rule, **options):
    return next(r for r in stats.summarise(scores, **options).rows if r.rule == rule)


def numbers(value):
    """Every number in a nest of dataclasses, dictionaries, sequences and arrays."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, f.name) for f in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | np.ndarray):
        return [n for part in value for n in numbers(part)]
    return [float(value)] if isinstance(value, int | float | np.number) else []


# --- Golden examples, worked out by hand -------------------------------------------------------------------
# chance: 0 on a, 0.5 on b; the reference's mean: 1 on a, 1 on b.
# So normalised: a unchanged, b = 2 (score - 0.5).
#              a: scores        b: scores         normalised           sorted              interquartile mean
# backprop     0.8, 1.2         1.0, 1.0          .8, 1.2, 1, 1        .8, 1, 1, 1.2       (1 + 1)/2 = 1
# x            0.5, 0.7         0.75, 0.55        .5, .7, .5, .1       .1, .5, .5, .7      (.5 + .5)/2 = .5
# y            0.9, 0.5         failed, 0.8       .9, .5, 0, .6        0, .5, .6, .9       (.5 + .6)/2 = .55
GOLDEN = with_status(
    table(
        {
            "backprop": [[0.8, 1.2], [1.0, 1.0]],
            "x": [[0.5, 0.7], [0.75, 0.55]],
            "y": [[0.9, 0.5], [0.0, 0.8]],
        },
        chance=[0.0, 0.5],
    ),
    ("y", "b", 0, "failed"),
)


def test_golden_interquartile_mean_and_place():
    found = stats.summarise(GOLDEN)
    assert [r.rule for r in found.rows] == ["backprop", "y", "x"]
    assert [r.iqm.value for r in found.rows] == pytest.approx([1.0, 0.55, 0.5])
    assert [r.place.value for r in found.rows] == [1, 2, 3]
    assert found.left_out == {}


def test_golden_interquartile_mean_without_failures():
    # y has three runs left, .5, .6 and .9; a quarter of three is less than one, nothing is cut: 2/3.
    assert row(GOLDEN, "y", failures="exclude").iqm.value == pytest.approx(2 / 3)


def test_golden_mean_rank():
    # Means on a: 1, .6, .7 → ranks 1, 3, 2. On b: 1, .65, (.5 + .8)/2 = .65 → 1, 2.5, 2.5.
    ranks = {r.rule: r.mean_rank.value for r in stats.summarise(GOLDEN, by="mean_rank").rows}
    assert ranks == {"backprop": 1.0, "y": 2.25, "x": 2.75}


def test_golden_probability_of_improvement():
    # On a, y's 0.9 beats 0.8: 1 of 4 pairs. On b nothing beats 1.0. Mean of 1/4 and 0. The reference ties
    # itself.
    chances = {r.rule: r.improvement.value for r in stats.summarise(GOLDEN).rows}
    assert chances == {"backprop": 0.5, "y": 0.125, "x": 0.0}


def test_golden_paired_test():
    # x: differences -.3, -.5, -.5, -.9: all of one sign, 2 of 16 patterns are as extreme.
    # y: .1, -.7, -1, -.4, sum -2; of the patterns, ±2.2 and ±2.0 reach 2: 4 of 16.
    # Holm: the smaller, 2/16, times 2; the larger, 4/16, times 1.
    found = stats.compare(GOLDEN, "backprop")
    assert found.keys() == {"x", "y"}
    assert (found["x"].difference, found["y"].difference) == pytest.approx((-0.55, -0.5))
    assert (found["x"].p, found["y"].p) == (2 / 16, 4 / 16)
    assert (found["x"].p_holm, found["y"].p_holm) == (0.25, 0.25)
    assert (found["x"].pairs, found["x"].exact) == (4, True)


def test_golden_paired_test_without_failures():
    # y's pair with the failed run goes: .1, -.7, -.4; sum -1; ±1.2 and ±1.0 reach it: 4 of 8.
    found = stats.compare(GOLDEN, "backprop", failures="exclude")["y"]
    assert (found.pairs, found.p) == (3, 0.5)


def test_golden_profile():
    shares = stats.profile(GOLDEN, [0.0, 0.5, 0.55, 1.0])
    assert shares["x"].tolist() == [1.0, 0.75, 0.25, 0.0]
    assert shares["y"].tolist() == [1.0, 0.75, 0.5, 0.0]


def test_golden_cell():
    # Mean of 0.5 (failed, at chance) and 0.8; squares of ±.15, over n - 1 = 1: sd = √0.045.
    cell = stats.cells(GOLDEN)["y", "b"]
    assert cell.mean.value == pytest.approx(0.65)
    assert (cell.mean.low, cell.mean.high, cell.mean.method) == (0.5, 0.8, "range")
    assert cell.sd == pytest.approx(math.sqrt(0.045))
    assert (cell.n, str(cell.counts)) == (2, "1/2")
    left = stats.cells(GOLDEN, failures="exclude")["y", "b"]
    assert (left.mean.value, left.mean.method, left.sd, left.n) == (0.8, "none", None, 1)
    assert left.counts == Counts(finished=1, failed=1, missing=0, skipped=0)


def test_golden_holm():
    # .01 x 3 = .03; .03 x 2 = .06; .04 x 1 = .04, but not below the one before: .06.
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_golden_resampled_interval():
    # Two seeds, resampled: means .2, .3 or .4. With one degree of freedom the interval is all that can be
    # had.
    found = row(table({"backprop": [[1.0, 1.0]], "x": [[0.2, 0.4]]}), "x").iqm
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.2, 0.4))


def test_golden_level():
    # 5 runs: Student's t with 4 degrees of freedom is 2.7764 at 97.5 %, times √(5/4) is 3.1041, which a
    # normal number stays within with probability 0.99809. On 4 tasks there are 16 degrees: 2.1199 √(5/4) =
    # 2.3701, 0.98222.
    assert stats._level(5) == pytest.approx(0.99809, abs=1e-5)
    assert stats._level(5, strata=4) == pytest.approx(0.98222, abs=1e-5)


def test_resampling_is_stratified():
    # Seeds agree, tasks do not. Only if tasks were mixed would there be anything to be uncertain about.
    found = row(table({"backprop": np.ones((2, 5)), "x": [[0.25] * 5, [0.75] * 5]}), "x").iqm
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_seeds_are_resampled_together_for_all_rules():
    # x is better than y by a hair on every seed, while seeds differ much: paired, there is no doubt.
    hard = np.linspace(0.1, 0.9, 6)
    scores = table({"backprop": [np.ones(6)], "x": [hard + 0.001], "y": [hard]})
    assert (row(scores, "x").place.low, row(scores, "x").place.high) == (2, 2)
    # The same scores of x in the opposite order of seeds: nobody knows.
    other = table({"backprop": [np.ones(6)], "x": [hard[::-1] + 0.001], "y": [hard]})
    assert (row(other, "x").place.low, row(other, "x").place.high) == (2, 3)


def test_equal_scores_in_another_order_tie():
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last digit.
    found = stats.summarise(table({"backprop": [[1, 1, 1]], "x": [[0.1, 0.2, 0.3]], "y": [[0.3, 0.2, 0.1]]}))
    assert [r.place.value for r in found.rows] == [1, 2, 2]
    assert [r.mean_rank.value for r in found.rows] == [1, 2.5, 2.5]


def test_few_runs_are_flagged():
    assert stats.interval([0.4]) == stats.Estimate(0.4, 0.4, 0.4, "none")
    assert stats.interval([0.2, 0.4, 0.9]).method == "range"
    assert stats.interval([0.7] * 5) == stats.Estimate(0.7, 0.7, 0.7, "range")
    assert stats.interval([0.2, 0.4, 0.9, 0.5]).method == "BCa"
    one_seed = row(table({"backprop": [[1.0]], "x": [[0.5]]}), "x")
    assert (one_seed.iqm, one_seed.place.method) == (stats.Estimate(0.5, 0.5, 0.5, "none"), "none")


def test_where_bca_does_not_exist_it_is_percentile():
    # The spread is so small that the jackknife underflows: BCa's acceleration is 0/0.
    found = stats.interval([0.0, 0.0, 0.0, 1e-200])
    assert found.method == "percentile"
    assert 0 <= found.low <= found.value <= found.high <= 1e-200


# --- What is planned, ranked, normalised ------------------------------------------------------------------
FULL = table(
    {"backprop": [[0.9, 1.0], [0.9, 0.8]], "x": [[0.5, 0.7], [0.4, 0.3]], "y": [[0.6] * 2, [0.2] * 2]}
)


@pytest.mark.parametrize(("status", "words"), [("missing", "1 missing"), ("skipped", "1 skipped")])
def test_incomplete_rules_are_listed_below_without_rank(status, words):
    found = stats.summarise(with_status(FULL, ("x", "b", 1, status)))
    assert [r.rule for r in found.rows] == ["backprop", "y", "x"]
    last = found.rows[-1]
    assert last.unranked == f"{words} of 4 planned runs"
    assert (last.place, last.iqm, last.mean_rank, last.improvement) == (None, None, None, None)
    assert str(last.counts) == "3/4"
    assert found.rows[1].place.value == 2  # the place is among the ranked


def test_failed_runs_leave_a_rule_ranked():
    found = row(with_status(FULL, ("x", "a", 0, "failed"), ("x", "a", 1, "failed")), "x")
    assert (found.unranked, found.place.value, str(found.counts)) == ("", 3, "2/4")


def test_a_task_with_only_excluded_failures_cannot_be_ranked():
    scores = with_status(FULL, ("x", "a", 0, "failed"), ("x", "a", 1, "failed"))
    assert row(scores, "x", failures="exclude").unranked == "no finished run on a"
    assert stats.cells(scores, failures="exclude")["x", "a"].mean is None
    assert "x" not in stats.compare(scores, "backprop", failures="exclude")
    assert "x" not in stats.profile(scores, [0.5], failures="exclude")


def test_runs_beyond_those_of_the_reference_count_in_their_cell_only():
    more = with_status(FULL, ("backprop", "a", 1, "missing"), ("y", "a", 1, "missing"))
    changed = dataclasses.replace(more, values=np.where(more.values == 0.7, -5.0, more.values))
    assert stats.summarise(more) == stats.summarise(changed)
    assert not row(more, "y").unranked
    assert (stats.cells(more)["x", "a"].n, str(stats.cells(more)["x", "a"].counts)) == (2, "2/2")
    assert str(stats.cells(more)["y", "a"].counts) == "1/1"
    assert stats.compare(with_status(FULL, ("backprop", "a", 1, "missing")), "x")["y"].pairs == 3


def test_a_reference_that_does_not_beat_chance_is_no_unit():
    scores = dataclasses.replace(FULL, chance={"a": 0.97, "b": 0.1})
    found = stats.summarise(scores)
    assert found.left_out == {"a": "backprop scores 0.95, which is not above chance (0.97)"}
    # b alone: mean of backprop .85; x (.4 + .3)/2 → (.35 - .1)/.75
    assert row(scores, "x").iqm.value == pytest.approx(0.25 / 0.75)
    # a still counts in the ranks: x and y tie there with 0.6.
    assert row(scores, "x").mean_rank.value == (2.5 + 2) / 2
    assert stats.compare(scores, "backprop")["x"].pairs == 2


@pytest.mark.parametrize("reference", [None, "absent"])
def test_without_a_reference_there_are_ranks_only(reference):
    scores = dataclasses.replace(FULL, reference=reference)
    found = stats.summarise(scores)
    assert found.by == "mean_rank"
    assert [(r.rule, r.place.value, r.mean_rank.value) for r in found.rows] == [
        ("backprop", 1, 1.0),
        ("x", 2, 2.25),
        ("y", 3, 2.75),
    ]
    assert {r.iqm for r in found.rows} == {None}
    assert found.left_out["a"] == f"{reference or 'a reference'} has no finished run"
    assert stats.compare(scores, "x") == {}
    assert stats.profile(scores, [0.5]) == {}


def test_failures_of_the_reference_do_not_lift_the_others():
    before = row(FULL, "x").iqm.value
    failed = with_status(FULL, ("backprop", "b", 0, "failed"))
    # The unit on b was .85, of .9 and .8; now it is .8. Had the failure counted as 0 it were .4, twice the
    # lift.
    after = row(failed, "x").iqm.value
    assert before < after < 1.1 * before
    assert row(failed, "backprop").iqm.value < 1


def test_one_run_left_to_a_rule_takes_away_its_intervals_and_no_others():
    scores = with_status(FULL, ("x", "a", 0, "failed"))
    assert row(scores, "x", failures="exclude").iqm.method == "none"
    assert row(scores, "y", failures="exclude").place.method == "percentile"
    assert row(scores, "y", failures="exclude").iqm == row(FULL, "y").iqm


def test_nothing_gives_nothing():
    empty = Scores.of([], {})
    assert stats.summarise(empty).rows == ()
    assert stats.cells(empty) == {}
    assert stats.profile(empty, [0.5]) == {}
    skipped = Scores.of([Run("x", "a", 0, "skipped")], {"a": 0.1})
    assert stats.summarise(skipped).rows[0].unranked == "no runs"


def test_scores_of_runs():
    runs = [
        Run("backprop", "a", 7, "finished", 0.9),
        Run("x", "a", 7, "failed"),
        Run("x", "a", 3, "finished", 0.4),
    ]
    scores = Scores.of(runs, {"a": 0.1, "unused": 0.5})
    assert (scores.rules, scores.tasks, scores.seeds) == (("backprop", "x"), ("a",), (7, 3))
    assert scores.status.tolist() == [[["finished", "missing"]], [["failed", "finished"]]]
    assert scores.values[0, 0, 0] == 0.9
    assert scores.values[1, 0, 1] == 0.4
    with pytest.raises(ValueError, match="two runs of x on a with seed 3"):
        Scores.of([*runs, Run("x", "a", 3, "finished", 0.5)], {"a": 0.1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rules": ("x", "x", "y")}, "rules must differ"),
        ({"seeds": (0,)}, r"values must have shape \(rules, tasks, seeds\) = \(3, 2, 1\), got \(3, 2, 2\)"),
        ({"status": np.full((3, 2, 2), "ok")}, r"status must be one of .* got \['ok'\]"),
        ({"chance": {"a": 0.1}}, "task b needs a chance level, a number, got None"),
        ({"chance": {"a": 0.1, "b": math.nan}}, "task b needs a chance level"),
        ({"values": np.full((3, 2, 2), np.nan)}, "the score of backprop on a, seed 0, must be a number"),
        ({"values": np.full((3, 2, 2), 1e200)}, "got 1e.200; store such a run as failed"),
    ],
)
def test_scores_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FULL, **change)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match=r"failures must be one of .* got 'worst'"):
        stats.cells(FULL, failures="worst")
    with pytest.raises(ValueError, match="no rule 'z' to compare against; there is backprop, x, y"):
        stats.compare(FULL, "z")
    with pytest.raises(ValueError, match="cannot compare against x, which is not ranked: 1 missing of 4"):
        stats.compare(with_status(FULL, ("x", "a", 0, "missing")), "x")


def test_import_is_light():
    code = "import sys, rulezoo.leaderboard.stats; assert not {'scipy', 'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Properties -------------------------------------------------------------------------------------------
# Scores are multiples of 1/64, so that sums are exact and a shift creates or breaks no tie.
@st.composite
def boards(draw, statuses=("finished", "finished", "finished", "failed")):
    shape = draw(st.integers(1, 4)) + 1, draw(st.integers(1, 3)), draw(st.integers(1, 6))
    size = math.prod(shape)
    values = np.array(draw(st.lists(st.integers(-16, 64), min_size=size, max_size=size))) / 64
    status = np.array(draw(st.lists(st.sampled_from(statuses), min_size=size, max_size=size)))
    rules = ["backprop", "w", "x", "y", "z"][: shape[0]]
    values[status != "finished"] = np.nan if size % 2 else np.inf  # must not be read
    grid = dict(zip(rules, values.reshape(shape), strict=True))
    return table(grid, chance=draw(st.sampled_from([0.0, 0.125])), status=status.reshape(shape))


POLICIES = st.sampled_from(["chance", "exclude"])
STATUSES = ("finished", "finished", "finished", "failed", "missing", "skipped")


def everything(scores, failures):
    found = [stats.summarise(scores, failures=failures), stats.cells(scores, failures=failures)]
    ranked = sorted(r.rule for r in found[0].rows if not r.unranked)
    if ranked:
        found.append(stats.compare(scores, ranked[0], failures=failures))
    shares = stats.profile(scores, [0.0, 0.5, 1.0], failures=failures)
    return [*found, {rule: share.tolist() for rule, share in shares.items()}]


@properties
@given(boards(STATUSES), POLICIES, st.randoms())
def test_the_order_of_rules_tasks_and_seeds_changes_nothing(scores, failures, random):
    order = [random.sample(range(n), n) for n in scores.values.shape]
    named = [
        tuple(names[i] for i in o)
        for names, o in zip((scores.rules, scores.tasks, scores.seeds), order, strict=True)
    ]
    at = np.ix_(*order)
    moved = Scores(*named, scores.values[at], scores.status[at], scores.chance)
    assert everything(moved, failures) == everything(scores, failures)


@properties
@given(boards(STATUSES), POLICIES)
def test_nan_never_leaks_and_intervals_hold_their_value(scores, failures):
    found = everything(scores, failures)
    assert all(map(math.isfinite, numbers(found)))
    estimates = [c.mean for c in found[1].values()]
    for r in found[0].rows:
        estimates += [r.place, r.mean_rank, r.iqm, r.improvement]
    for e in filter(None, estimates):
        assert e.low <= e.value <= e.high


@properties
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_an_interval_holds_the_mean_and_lies_within_the_runs(runs):
    found = stats.interval(runs)
    slack = 1e-12 * max(map(abs, runs))
    assert min(runs) - slack <= found.low <= found.value <= found.high <= max(runs) + slack
    assert found.value == pytest.approx(math.fsum(runs) / len(runs), rel=1e-9, abs=slack)


@properties
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.randoms())
def test_an_interval_does_not_depend_on_the_order_of_runs(runs, random):
    assert stats.interval(random.sample(runs, len(runs))) == stats.interval(runs)


@properties
@given(boards(), POLICIES)
def test_a_twin_of_the_reference_improves_on_it_with_probability_one_half(scores, failures):
    twin = dataclasses.replace(
        scores,
        rules=(*scores.rules, "twin"),
        values=np.concatenate([scores.values, scores.values[:1]]),
        status=np.concatenate([scores.status, scores.status[:1]]),
    )
    mine, its = row(twin, "twin", failures=failures), row(twin, "backprop", failures=failures)
    assert dataclasses.replace(mine, rule="backprop") == its
    if mine.improvement:
        assert numbers(mine.improvement) == pytest.approx([0.5] * 3)
        assert stats.compare(twin, "backprop", failures=failures)["twin"].p == 1


@properties
@given(boards())
def test_a_dominated_rule_changes_nothing_for_the_others(scores):
    before = stats.summarise(scores)
    values = np.where(scores.status == "finished", scores.values, 0.0).min(axis=0, keepdims=True) - 1
    worse = dataclasses.replace(
        scores,
        rules=(*scores.rules, "worse"),
        values=np.concatenate([scores.values, values]),
        status=np.concatenate([scores.status, np.full_like(values, "finished", dtype="<U8")]),
    )
    after = stats.summarise(worse)
    assert after.rows[:-1] == before.rows  # intervals too, to the last digit
    assert after.rows[-1].rule == "worse"


@properties
@given(boards(), st.integers(-64, 64), POLICIES)
def test_a_constant_added_to_scores_and_chance_changes_no_normalised_number(scores, sixtyfourths, failures):
    shift = sixtyfourths / 64
    moved = dataclasses.replace(
        scores, values=scores.values + shift, chance={k: v + shift for k, v in scores.chance.items()}
    )
    before, after = stats.summarise(scores, failures=failures), stats.summarise(moved, failures=failures)
    assert [r.rule for r in before.rows] == [r.rule for r in after.rows]
    assert numbers(before.rows) == pytest.approx(numbers(after.rows), abs=1e-9)
    cells, moved_cells = stats.cells(scores, failures=failures), stats.cells(moved, failures=failures)
    for key, cell in cells.items():
        if cell.mean:
            a, b = cell.mean, moved_cells[key].mean
            assert (b.low - shift, b.high - shift) == pytest.approx((a.low, a.high))
            assert b.method == a.method


@properties
@given(boards())
def test_one_rule_run_anew_leaves_the_intervals_of_the_others(scores):
    values = scores.values.copy()
    values[-1] += 0.25
    anew = dataclasses.replace(scores, values=values)
    for rule in scores.rules[:-1]:
        mine, same = row(scores, rule), row(anew, rule)
        assert (mine.iqm, mine.improvement) == (same.iqm, same.improvement)


# --- Against scipy, and by simulation ---------------------------------------------------------------------
@properties
@given(st.lists(st.integers(-8, 8), min_size=2, max_size=9))
def test_sign_flips_agree_with_scipy(differences):
    d = np.array(differences)
    known = oracle.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert stats.sign_flip(d / 10, seed=0) == pytest.approx(known)  # tenths: ties hold in spite of rounding


def test_sampled_sign_flips_agree_with_all_of_them():
    d = np.random.default_rng(0).normal(0.3, 1.0, 15)
    exact = oracle.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    # 9,999 patterns: the standard error of a share p is √(p (1 - p) / 9999); 4 of them.
    error = math.sqrt(exact * (1 - exact) / stats.PERMUTATIONS)
    sampled = stats.sign_flip(d, seed=1)
    assert sampled != exact
    assert abs(sampled - exact) < 4 * error
    assert stats.sign_flip(np.ones(40), seed=0) == 1 / 10_000  # never 0


def test_the_interval_of_the_interquartile_mean_agrees_with_scipy():
    x = np.sort(np.random.default_rng(0).normal(0.5, 0.1, 40))  # so that no seed may be drawn less often
    found = row(table({"backprop": [np.ones(40)], "x": [x]}), "x").iqm
    known = oracle.bootstrap(
        (x,),
        lambda x, axis: oracle.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        confidence_level=stats._level(40),
        rng=np.random.default_rng(1),
    ).confidence_interval
    # Both are sampled: with 3,000 resamples a bound is known to about 3 % of the width; 3 of these.
    assert (found.low, found.high) == pytest.approx(tuple(known), abs=0.1 * (known.high - known.low))


def test_improvement_agrees_with_mann_whitney():
    rng = np.random.default_rng(0)
    reference, x = rng.integers(50, 60, (2, 1, 9)) / 64
    u = oracle.mannwhitneyu(x[0], reference[0]).statistic
    assert row(table({"backprop": reference, "x": x}), "x").improvement.value == pytest.approx(u / 81)


def test_seeds_are_derived_from_the_design_or_given():
    runs = np.random.default_rng(0).normal(size=8)
    assert stats.interval(runs) == stats.interval(runs)
    assert stats.interval(runs, seed=1) == stats.interval(runs, seed=1) != stats.interval(runs, seed=2)
    scores = table({"backprop": [np.ones(8)], "x": [0.5 + runs / 10]})
    assert stats.summarise(scores) == stats.summarise(scores)
    assert (
        stats.summarise(scores, seed=1) == stats.summarise(scores, seed=1) != stats.summarise(scores, seed=2)
    )


def test_intervals_of_five_runs_cover_nine_times_in_ten():
    # 1,200 draws of 5 normal runs; seen in longer simulations: 91 %, and 86 % for the plain bootstrap. The
    # standard error is √(.91 x .09 / 1200) = 0.8 %: bounds 3 of them away. Should it fail: raise the draws
    # before the bounds.
    rng = np.random.default_rng(5)
    found = [stats.interval(rng.normal(size=5)) for _ in range(1200)]
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    assert 0.886 < covered < 0.96


@pytest.mark.slow
def test_intervals_of_the_interquartile_mean_cover():
    # 300 boards of 4 tasks x 5 seeds, normal about 0.5, the reference at 1 without spread: the true IQM is
    # 0.5. Seen in longer simulations: 96 %, standard error √(.96 x .04 / 300) = 1.1 %. Should it fail: raise
    # the draws first.
    rng = np.random.default_rng(6)
    boards = [table({"backprop": np.ones((4, 5)), "x": rng.normal(0.5, 0.1, (4, 5))}) for _ in range(300)]
    found = [row(scores, "x").iqm for scores in boards]
    assert 0.92 < np.mean([e.low <= 0.5 <= e.high for e in found]) < 0.995


@properties
@given(boards(STATUSES), POLICIES)
def test_standings_without_intervals_have_the_order_and_scores_of_the_summary(scores, failures):
    rows = [row for row in stats.summarise(scores, failures=failures).rows if not row.unranked]
    found = [standing for standing in standings(scores, failures) if not standing.gap]
    assert [standing.rule for standing in found] == [row.rule for row in rows]
    for standing, row in zip(found, rows, strict=True):
        assert (standing.score is None) == (row.iqm is None)
        assert row.iqm is None or standing.score == pytest.approx(row.iqm.value, abs=1e-12)
