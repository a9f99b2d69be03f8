"""The leaderboard as a value: one line a rule, families of tests, ties, and its statistics against slow twins in float64."""

import itertools
import json
import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from rulezoo import seeding
from rulezoo.leaderboard import plausibility, ranking, stats, summary
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.overview import build
from rulezoo.specs import Plausibility, TaskSpec, Variant
from rulezoo.tuning.records import Tried, Tuned

from .test_board import NMNC, run, runs, spec

properties = settings(deadline=None, max_examples=30, derandomize=True)

BACKPROP = [
    *runs("backprop", [0.90, 0.92, 0.88, 0.91, 0.89]),
    *runs("backprop", [0.8, 0.82, 0.78, 0.8, 0.8], "digits-rnn"),
]
WORSE = [
    *runs("worse", [0.5, 0.6, 0.55, 0.52, 0.58]),
    *runs("worse", [0.6, 0.62, 0.58, 0.6, 0.6], "digits-rnn"),
]


def tuning(rule, scores, task="digits-cnn", trials=8, **chosen):
    """Runs of what a tuning chose, and its conclusion; the default won where no option is given."""
    asked = {"rule_options": {"lr": chosen.get("lr")}}
    records = runs(rule, scores, task, asked=asked, changed=list(chosen))
    trial = Tried(set=chosen, runs=[], status="ok", validation=0.5)
    made = Tuned(
        asked=records[0].asked, given={}, n=trials, trials=[trial], best=0, seeds=[1000], sampler="random"
    )
    return records, made


def kept(rule, records):
    """The conclusions of tunings that kept the default of a rule on every task of its records."""
    first = {run.asked.task: run for run in records if run.asked.rule == rule}
    trial = Tried(set={}, runs=[], status="ok", validation=0.5)
    return [
        Tuned(asked=run.asked, given={}, n=8, trials=[trial], best=0, seeds=[1000], sampler="random")
        for run in first.values()
    ]


def both():
    """Backprop and ``same`` keep their defaults, ``other`` is tuned on each task."""
    same = [
        *runs("same", [0.7, 0.72, 0.69, 0.7, 0.71]),
        *runs("same", [0.6, 0.62, 0.6, 0.61, 0.6], "digits-rnn"),
    ]
    defaults = [
        *BACKPROP,
        *WORSE,
        *same,
        *runs("other", [0.4, 0.42, 0.4, 0.4, 0.41]),
        *runs("other", [0.3] * 5, "digits-rnn"),
    ]
    cnn, on_cnn = tuning("other", [0.8, 0.82, 0.8, 0.79, 0.81], lr=0.1)
    rnn, on_rnn = tuning("other", [0.7, 0.71, 0.7, 0.69, 0.72], "digits-rnn", lr=0.2)
    return [*defaults, *cnn, *rnn], [on_cnn, on_rnn, *kept("backprop", BACKPROP), *kept("same", same)]


def line(found, label):
    (one,) = [one for one in found.lines if one.label == label]
    return one


# One line a rule


def test_a_rule_has_one_line_with_its_default_and_its_tuned_setting():
    records, tunings = both()
    found = build(records, tunings=tunings)
    assert sorted(one.label for one in found.lines) == ["backprop", "other", "same", "worse"]
    other = line(found, "other")
    assert (other.default.ruleset, other.tuned.ruleset, other.kept) == ("default", "tuned-8", "")
    assert [cell.mean for cell in other.default.cells] == pytest.approx([0.406, 0.3])
    assert [cell.mean for cell in other.tuned.cells] == pytest.approx([0.804, 0.704])
    assert [cell.setting for cell in other.tuned.cells] == ["lr=0.1", "lr=0.2"]


def test_a_tuning_that_kept_the_default_makes_no_setting_and_no_test():
    records, tunings = both()
    found = build(records, tunings=tunings)
    same, worse = line(found, "same"), line(found, "worse")
    assert (same.tuned, same.kept, worse.tuned, worse.kept) == (None, "tuned-8", None, "")
    default, tuned = found.rankings
    assert (default.tests, tuned.tests) == (3, 1), "only what differs from a default is tested again"
    assert list(tuned.settings) == ["backprop", "other", "same"], "it takes part in the ranking nevertheless"
    assert tuned.settings["same"].difference == default.settings["same"].difference
    assert render(found, "csv").count("\nsame,") == 2, "one line for each task"
    assert render(found, "md").count("= default") == 3, "two lines, and the legend"
    content = json.loads(render(found, "json"))
    assert content["rankings"][1]["ranks"]["same"]["value"] == 3


def test_a_family_of_tests_is_corrected_for_its_own_size():
    records, tunings = both()
    default, tuned = build(records, tunings=tunings).rankings
    assert (default.smallest_p, tuned.smallest_p) == (3 * 2 / 2**10, 2 / 2**10)
    assert tuned.settings["other"].difference.p == 2 / 2**10
    assert default.settings["other"].difference.p == 3 * 2 / 2**10


def test_tuned_settings_are_compared_with_tuned_backprop():
    records, tunings = both()
    better, on_cnn = tuning("backprop", [0.95, 0.96, 0.94, 0.95, 0.95], lr=0.5)
    _, on_rnn = tunings[2:4]
    tunings = [*tunings[:2], on_cnn, on_rnn, *tunings[4:]]
    found = build([*records, *better], tunings=tunings)
    tuned = found.tuned
    assert (tuned.reference, tuned.tuned_reference) == ("backprop", True)
    assert tuned.tests == 2, "what kept its default has another distance now"
    same = line(found, "same")
    assert same.kept == "tuned-8"
    assert same.tuned.percent.value < same.default.percent.value
    assert "tuned settings are relative to tuned backprop" in render(found, "md")


def test_without_tuned_backprop_its_default_is_the_reference():
    records, tunings = both()
    found = build(records, tunings=tunings[:2])
    assert (found.tuned.reference, found.tuned.tuned_reference) == ("backprop", False)
    assert line(found, "backprop").tuned is None
    assert line(found, "other").tuned.percent.value > line(found, "other").default.percent.value


def test_options_that_the_user_set_and_other_versions_make_lines_of_their_own():
    given = runs("a", [0.6, 0.6], asked={"rule_options": {"lr": 0.1}}, changed=["lr"])
    old = runs("b", [0.6, 0.6], asked={"rule_version": 2})
    found = build(
        [*runs("backprop", [0.9, 0.9]), *runs("a", [0.5, 0.5]), *given, *runs("b", [0.5, 0.5]), *old]
    )
    assert {(one.label, one.variant) for one in found.lines} == {
        ("backprop", ""),
        ("a", ""),
        ("a lr=0.1", "lr=0.1"),
        ("b v1", "v1"),
        ("b v2", "v2"),
    }
    assert line(found, "a lr=0.1").default.ruleset == "set"


def test_a_second_tuning_of_a_rule_is_a_line_of_its_own():
    eight, one = tuning("a", [0.7, 0.7], lr=0.1)
    three, other = tuning("a", [0.6, 0.6], lr=0.2, trials=3)
    records = [*runs("backprop", [0.9, 0.9]), *runs("a", [0.5, 0.5]), *eight, *three]
    found = build(records, tunings=[one, other])
    assert [one.name for one in found.rankings] == ["default", "tuned-8", "tuned-3"]
    assert line(found, "a").tuned.ruleset == "tuned-8"
    assert (line(found, "a tuned-3").default, line(found, "a tuned-3").tuned.ruleset) == (None, "tuned-3")


def test_a_tuning_may_keep_what_a_longer_one_changes():
    default = runs("a", [0.5, 0.5])
    eight, one = tuning("a", [0.7, 0.7], lr=0.1)
    other = Tuned(
        asked=default[0].asked, given={}, n=3, trials=[Tried(set={}, runs=[], status="ok", validation=0.5)], best=0,
        seeds=[1000], sampler="random",
    )  # fmt: skip
    found = build([*runs("backprop", [0.9, 0.9]), *default, *eight], tunings=[one, other])
    a = line(found, "a")
    assert (a.default.cells[0].mean, a.tuned.cells[0].mean, a.kept) == (0.5, 0.7, "")
    assert len(found.lines) == 2


@pytest.mark.parametrize("status", ["interrupted", "skipped", "diverged"])
@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_a_leaderboard_without_any_score_is_written(status, form):
    records = [run("a", seed=s, status=status, reason="because") for s in range(2)]
    assert "because" in render(build(records), form)


def test_tuned_runs_without_a_default_are_a_line():
    records, one = tuning("a", [0.7, 0.7], lr=0.1)
    found = build([*runs("backprop", [0.9, 0.9]), *records], tunings=[one])
    assert (line(found, "a").default, line(found, "a").tuned.ruleset) == (None, "tuned-8")
    assert "| → **70.0" not in render(build(records, tunings=[one]), "md"), "no arrow without a default"


def test_only_lines_with_all_runs_are_ranked_and_have_a_percentage():
    found = build([*BACKPROP, *runs("a", [0.95] * 5)])
    a = line(found, "a").default
    assert (a.percent, a.difference, a.rank) == (None, None, None)
    assert a.gap == "5 missing of 10 planned runs"
    assert [one.label for one in found.lines] == ["backprop", "a"]


def test_the_cost_is_the_median_over_tasks():
    costs = {"t1": 1.0, "t2": 2.0, "t3": 7.0}
    records = [run("a", task, test=0.5, cost=cost) for task, cost in costs.items()]
    assert line(build(records), "a").default.cost == 2.0


def test_equal_rules_share_a_rank():
    found = build([*runs("backprop", [0.9, 0.9]), *runs("a", [0.5, 0.6]), *runs("b", [0.6, 0.5])])
    ranks = {one.label: (one.default.rank.value, one.default.rank.tied) for one in found.lines}
    assert ranks == {"backprop": (1, False), "a": (2, True), "b": (2, True)}


# The order of the tasks


def test_feedforward_tasks_come_before_recurrent_ones():
    tags = {
        "a-rnn": ("rnn",),
        "b-cnn": ("cnn", "vision"),
        "a-cnn": ("cnn",),
        "z-mlp": ("mlp",),
        "a-snn": ("snn",),
    }
    specs = {name: TaskSpec(name, "m:C", "A task.", tags=of) for name, of in tags.items()}
    records = [run("a", task, test=0.5) for task in (*tags, "a-foreign")]
    in_order = ["z-mlp", "a-cnn", "b-cnn", "a-rnn", "a-snn", "a-foreign"]
    assert [column.task for column in build(records, task_specs=specs).columns] == in_order
    given = ["a-snn", "z-mlp"]
    assert [column.task for column in build(records, tasks=given, task_specs=specs).columns] == given


# Ties with the best


def cell(scores, chance=0.1):
    made = [ranking.Run(seed, score, "ok", "", None) for seed, score in scores.items()]
    counted = [chance if score is None else score for score in scores.values()]
    return ranking.Cell(
        n=len(made),
        failed=list(scores.values()).count(None),
        mean=sum(counted) / len(counted),
        runs=tuple(made),
    )


def tied(cells, chance=0.1):
    """The twin: Student's t interval of the paired differences to the highest mean, in plain Python."""
    highest = max(cells, key=lambda name: cells[name].mean)
    found = set()
    for name, one in cells.items():
        pairs = [
            (chance if a.score is None else a.score) - (chance if b.score is None else b.score)
            for a, b in itertools.product(cells[highest].runs, one.runs)
            if a.seed == b.seed
        ]
        mean = math.fsum(pairs) / len(pairs)
        sd = math.sqrt(math.fsum((d - mean) ** 2 for d in pairs) / (len(pairs) - 1))
        reach = oracle.t.ppf(0.975, len(pairs) - 1) * sd / math.sqrt(len(pairs))
        if mean - reach <= 1e-12 and not all(run.score is None for run in one.runs):
            found.add(name)
    return found


@properties
@given(
    st.lists(
        st.lists(st.sampled_from([None, 0.25, 0.5, 0.625, 0.75]), min_size=4, max_size=4),
        min_size=2,
        max_size=5,
    )
)
def test_ties_with_the_best_are_those_of_the_twin(scores):
    cells = {f"r{k}": cell(dict(enumerate(of))) for k, of in enumerate(scores)}
    if all(score is None for of in scores for score in of):
        assert ranking.ties(cells, 0.1) == set()
    elif cells[max(cells, key=lambda name: cells[name].mean)].failed < 4:
        assert ranking.ties(cells, 0.1) == tied(cells)


def test_every_tie_with_the_best_is_marked_in_every_form():
    top = [0.90, 0.92, 0.88, 0.91, 0.89]
    near, far = [0.89, 0.93, 0.87, 0.91, 0.88], [0.80, 0.82, 0.78, 0.81, 0.79]
    found = build([*runs("top", top), *runs("near", near), *runs("far", far)])
    assert {one.label: one.default.cells[0].best for one in found.lines} == {
        "top": True,
        "near": True,
        "far": False,
    }
    text = render(found, "md")
    assert ("**90.0 ± 1.6**" in text, "**89.6 ± 2.4**" in text, "**80.0" in text) == (True, True, False)


def test_one_seed_ties_with_equal_scores_only():
    found = build([*runs("a", [0.9]), *runs("b", [0.9]), *runs("c", [0.89])])
    assert {one.label: one.default.cells[0].best for one in found.lines} == {"a": True, "b": True, "c": False}


# Twins of the statistics


def normalised(rule, reference, chance=0.1):
    """Task → normalised scores of the seeds, of ``{task: scores}``."""
    units = {task: math.fsum(of) / len(of) - chance for task, of in reference.items()}
    return {task: [(score - chance) / units[task] for score in of] for task, of in rule.items()}


def iqm(values):
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return math.fsum(middle) / len(middle)


REFERENCE = {"a": [0.9, 0.92, 0.88, 0.91, 0.89], "b": [0.8, 0.82, 0.78, 0.81, 0.8]}
RULE = {"a": [0.5, 0.7, 0.55, 0.62, 0.6], "b": [0.6, 0.72, 0.58, 0.7, 0.66]}
WEAKER = {"a": [0.3, 0.35, 0.91, 0.32, 0.31], "b": [0.7, 0.3, 0.2, 0.4, 0.3]}


def records(**rules):
    return [
        one for rule, of in rules.items() for task, scores in of.items() for one in runs(rule, scores, task)
    ]


def test_the_percentage_and_its_interval_are_those_of_the_twin():
    found = line(build(records(backprop=REFERENCE, rule=RULE)), "rule").default.percent
    x = normalised(RULE, REFERENCE)
    uniform = np.random.default_rng(seeding.number(0, "joint", "a", "b", 0, 1, 2, 3, 4)).random(
        (2, stats.RESAMPLES, 5)
    )
    resampled = sorted(
        iqm([x[task][int(u * 5)] for t, task in enumerate("ab") for u in uniform[t, b]])
        for b in range(stats.RESAMPLES)
    )
    reach = oracle.t.ppf(0.975, 2 * 4) * math.sqrt(5 / 4)
    tail = oracle.norm.sf(reach)
    low, high = (resampled[math.ceil(q * stats.RESAMPLES) - 1] for q in (tail, 1 - tail))
    assert found.value == pytest.approx(100 * iqm([*x["a"], *x["b"]]), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), rel=1e-12)


def test_the_difference_and_its_interval_are_those_of_the_twin():
    one = line(build(records(backprop=REFERENCE, rule=RULE)), "rule").default.difference
    x, y = normalised(RULE, REFERENCE), normalised(REFERENCE, REFERENCE)
    d = [[100 * (a - b) for a, b in zip(x[task], y[task], strict=True)] for task in "ab"]
    means = [math.fsum(of) / 5 for of in d]
    errors = [math.fsum((v - m) ** 2 for v in of) / 4 / 5 / 4 for of, m in zip(d, means, strict=True)]
    freedom = sum(errors) ** 2 / sum(e**2 / 4 for e in errors)
    reach = oracle.t.ppf(0.975, freedom) * math.sqrt(sum(errors))
    mean = sum(means) / 2
    assert (one.points.value, one.points.low, one.points.high) == pytest.approx(
        (mean, mean - reach, mean + reach), rel=1e-9
    )
    assert (one.sign, one.pairs) == ("worse", 10)


@properties
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_the_interval_of_a_difference_on_one_task_is_that_of_scipy(differences):
    found = stats.difference(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
    if np.std(differences) > 1e-6:
        known = oracle.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-6, abs=1e-9)


def test_intervals_of_three_differences_cover():
    # 4,000 draws of 3 normal differences; Student's interval covers 95 %, with a standard error of 0.34 %: 3 of them.
    # Their range covers 75 %.
    draws = np.random.default_rng(3).normal(size=(4000, 3))
    found = [stats.difference(dict(enumerate(of)), {0: 0.0, 1: 0.0, 2: 0.0}) for of in draws]
    assert 0.94 < np.mean([one.low <= 0 <= one.high for one in found]) < 0.96


def test_p_is_that_of_all_sign_patterns_corrected_after_holm():
    found = build(records(backprop=REFERENCE, rule=RULE, weaker=WEAKER))
    p = {}
    for name, of in (("rule", RULE), ("weaker", WEAKER)):
        x, y = normalised(of, REFERENCE), normalised(REFERENCE, REFERENCE)
        d = [a - b for task in "ab" for a, b in zip(x[task], y[task], strict=True)]
        sums = [
            abs(math.fsum(s * v for s, v in zip(signs, d, strict=True)))
            for signs in itertools.product((1, -1), repeat=10)
        ]
        p[name] = sum(total >= abs(math.fsum(d)) - 1e-12 for total in sums) / 2**10
    first, second = sorted(p, key=p.__getitem__)
    known = {first: min(1, 2 * p[first]), second: min(1, max(2 * p[first], p[second]))}
    assert {
        one.label: one.default.difference.p for one in found.lines if one.default.difference
    } == pytest.approx(known)


@pytest.mark.parametrize("pairs", range(1, 14))
def test_the_smallest_p_is_that_of_differences_in_one_direction(pairs):
    assert stats.smallest_p(pairs) == stats.sign_flip(np.full(pairs, 0.3), seed=0) == 2 / 2**pairs


def test_the_smallest_p_of_many_pairs_is_that_of_a_sample_of_sign_patterns():
    assert stats.smallest_p(40) == stats.sign_flip(np.ones(40), seed=0) == 1 / 10_000


@properties
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6),
    st.sampled_from(["min", "average"]),
)
def test_ranks_are_those_of_scipy(values, ties):
    assert stats._ranks(np.array(values, dtype=float), ties) == pytest.approx(
        oracle.rankdata(values, method=ties, axis=0)
    )


def test_a_tuning_of_one_task_is_ranked_on_that_task():
    defaults = [*BACKPROP, *WORSE]
    chosen, one = tuning("worse", [0.7, 0.72, 0.7, 0.69, 0.7], lr=0.1)
    found = build([*defaults, *chosen], tunings=[one])
    assert found.tuned.settings["worse"].rank.value == 2
    assert found.tuned.settings["worse"].difference.pairs == 5
    assert found.rankings[0].pairs == 10


@pytest.mark.parametrize(
    ("low", "high", "method", "expected"),
    [
        (0.1, 2, "t", "better"),
        (-2, -0.1, "t", "worse"),
        (-1, 2, "t", "equal"),
        (0, 2, "t", "equal"),
        (1, 1, "none", "unknown"),
    ],
)
def test_the_sign_goes_by_the_interval(low, high, method, expected):
    assert ranking.sign(stats.Estimate((low + high) / 2, low, high, method)) == expected


# Sentences


def test_the_sentence_says_which_rule_is_best_how_far_at_what_cost_how_plausible_and_how_sure():
    found = build(
        [*(run("backprop", t, s, x, cost=1.0) for t, of in REFERENCE.items() for s, x in enumerate(of)),
         *(run("nmnc", t, s, x, cost=2.25) for t, of in RULE.items() for s, x in enumerate(of)),
         *records(weaker=WEAKER)],
        specs={"nmnc": spec(NMNC)},
    )  # fmt: skip
    text = summary.sentence(found)
    one = line(found, "nmnc").default
    assert text.startswith(f"Best of 2 rules on 2 tasks: nmnc. It reaches {one.percent.value:.1f} % [")
    assert "(p = 0.004, smallest possible 0.004)" in text
    assert "A training step takes ×2.25 the time of backprop's." in text
    assert "Implausible features: update locking, perturbation and extra phases." in text
    assert "Rank 2 of 3, backprop included, 95 % CI [2, 3]." in text
    assert "Warning" not in text
    for form in ("table", "md", "latex", "json"):
        assert text[:30] in render(found, form, width=200)


def test_a_warning_says_that_nothing_could_be_significant():
    found = build(
        [*runs("backprop", [0.9, 0.91, 0.92]), *runs("a", [0.3, 0.31, 0.3]), *runs("b", [0.2, 0.3, 0.2])]
    )
    (text,) = summary.warnings(found)
    assert text == (
        "Warning: no difference to backprop can be significant here, as 3 pairs of task and seed and 2 tested rules allow "
        "no p below 0.500; more seeds would."
    )
    assert text in summary.sentence(found)
    assert summary.warnings(build(records(backprop=REFERENCE, rule=RULE))) == []


def test_the_best_tuned_setting_is_named_with_its_tuning():
    made, tunings = both()
    assert summary.sentence(build(made, tunings=tunings)).startswith(
        "Best of 2 rules on 2 tasks: other (tuned-8). "
    )


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ([], ""),
        (runs("backprop", [0.9]), "Only backprop has results, so there is nothing to compare."),
        ([*BACKPROP, *runs("a", [0.5])], "No rule other than backprop has every run that backprop has, so none is ranked."),
        (runs("a", [0.5]), "One rule on 1 task: a. There is no backprop above chance to compare with."),
        ([*runs("a", [0.5]), *runs("b", [0.4])], "Best of 2 rules on 1 task: a. Its mean rank is 1.0. There is no backprop above chance"),
        ([*runs("backprop", [0.9]), *runs("a", [0.5])], "One rule on 1 task: a. It reaches 50.0 % of backprop, a difference of −50.0 "),
    ],
)  # fmt: skip
def test_the_sentence_without_a_comparison(made, text):
    assert summary.sentence(build(made)).startswith(text)
    assert bool(text) == bool(summary.sentence(build(made)))


# Plausibility in the words of the field


def test_every_mark_has_a_name_and_a_meaning():
    assert {one.field for one in plausibility.FEATURES} == {field.name for field in fields(Plausibility)}
    assert len({one.letter for one in plausibility.FEATURES}) == len(plausibility.FEATURES)
    assert all("_" not in one.name for one in plausibility.FEATURES)


@pytest.mark.parametrize(
    ("marks", "field", "shown"),
    [
        ({"weight_transport": "yes"}, "weight_transport", "●"),
        ({"weight_transport": "no"}, "weight_transport", "○"),
        ({"weight_transport": "no/yes"}, "weight_transport", "○/●"),
        ({"phases": "0"}, "phases", "○"),
        ({"phases": "2 per site"}, "phases", "● 2 per site"),
        ({"backward_pass": "within blocks of 3"}, "backward_pass", "within blocks of 3"),
        ({"signal": "none", "hidden_learning": "yes"}, "signal", "none"),
        ({"signal": "none", "hidden_learning": "no"}, "signal", "fixed"),
        ({}, "past_storage", ""),
    ],
)
def test_a_filled_mark_always_is_an_implausible_feature(marks, field, shown):
    assert plausibility.symbol(marks, field) == shown
    assert plausibility.symbol(marks, field, [field, "hidden_learning"]) == (f"{shown}✓" if shown else "")
    name = plausibility.name(field)
    has = any(found.startswith(name) for found in plausibility.implausible(marks))
    assert has == ("●" in shown or "within" in shown)


def test_a_variant_is_told_in_the_same_words():
    one = Variant(("mode=random",), {"weight_transport": False, "backward_pass": True, "phases": 2})
    assert plausibility.variant(one) == (
        "with mode=random: weight transport no, sequential backward pass yes, extra phases 2"
    )
