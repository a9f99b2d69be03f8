"""Each criterion on hand-made runs: supported, not supported, inconclusive, and without some of them."""

import math

import msgspec
import pytest

from rulezoo.claims.advantage import Advantage, crossover
from rulezoo.claims.alignment import Alignment, alignment
from rulezoo.claims.growth import Growth, slope
from rulezoo.claims.not_worse import NotWorse
from rulezoo.claims.standing import Standing
from rulezoo.results.records import Cost, Probe

JITTER = (-0.004, 0.002, 0.0, -0.001, 0.003)  # between seeds, so that intervals have a width


# --------------------------------------------------------------------------------------------------------------------
# Alignment


def aligned(alpha, chance=0.25, random=0.25):
    return {"conv": {"alpha": alpha, "chance": chance, "alpha_random": random, "units": 128.0, "rank": 32.0}}


@pytest.mark.parametrize(
    ("untrained", "trained", "random", "word"),
    [
        (0.25, 0.6, 0.25, "supported"),
        (0.25, 0.27, 0.25, "not supported"),  # it hardly rises
        (0.55, 0.6, 0.25, "not supported"),  # it was there before training
        (0.25, 0.6, 0.58, "not supported"),  # any subspace would do
    ],
)
def test_alignment(arm, record, evidence, untrained, trained, random, word):
    one = arm(at=0.0, probes=2)
    runs = {
        seed: record(one, seed, probes=[aligned(untrained), aligned(trained + jitter, random=random)])
        for seed, jitter in enumerate(JITTER)
    }
    assert Alignment(decays=(0.0,)).judge(evidence((one, runs))).word == word


def test_alignment_is_asked_for_at_every_decay(arm, record, evidence):
    def runs(one, trained):
        return one, {seed: record(one, seed, probes=[aligned(0.25), aligned(trained)]) for seed in one.seeds}

    good, bad = runs(arm(at=0.0), 0.6), runs(arm(at=0.5), 0.25)
    assert Alignment(decays=(0.0,)).judge(evidence(good, bad)).word == "supported"
    assert Alignment(decays=(0.0, 0.5)).judge(evidence(good, bad)).word == "not supported"
    assert Alignment(decays=(0.0, 0.1)).judge(evidence(good, bad)).word == "inconclusive"  # there is no 0.1


def test_alignment_with_scattered_seeds_is_inconclusive(arm, record, evidence):
    one = arm(probes=2, seeds=range(3))
    runs = {s: record(one, s, probes=[aligned(0.25), aligned(a)]) for s, a in enumerate((0.3, 0.6, 0.9))}
    assert Alignment(decays=(0.0,)).judge(evidence((one, runs))).word == "inconclusive"


def test_alignment_is_zero_at_chance_and_one_when_contained():
    sites = {
        **aligned(1.0),
        "all": {"alpha": 1.0, "chance": 1.0},
    }  # where the manifold is everything says nothing
    assert alignment(Probe(step=0, epoch=0.0, sites=sites)) == 1
    assert alignment(Probe(step=0, epoch=0.0, sites=aligned(0.25))) == 0
    assert math.isnan(alignment(None))


# --------------------------------------------------------------------------------------------------------------------
# Growth

GROWTH = Growth({"d90": "d90"})


@pytest.mark.parametrize(
    ("exponent", "noise", "word"),
    [(0.2, 0.01, "supported"), (0.9, 0.01, "not supported"), (0.45, 0.3, "inconclusive")],
)
def test_growth(arm, record, evidence, exponent, noise, word):
    pairs = []
    for width in (0.25, 0.5, 1.0, 2.0, 4.0):
        one = arm(at=width, probes=1)
        runs = {}
        for seed, offset in enumerate((-2, -1, 0, 1, 2)):
            n = 1024 * width
            sites = {"conv": {"units": n, "d90": 5 * n ** (exponent + noise * offset)}}
            runs[seed] = record(one, seed, probes=sites)
        pairs.append((one, runs))
    found = evidence(*pairs)
    assert GROWTH.judge(found).word == word
    assert GROWTH._mean_exponent(found, "d90").mean == pytest.approx(exponent)


def test_a_slope_needs_three_widths():
    points = [(x, 2 - 0.7 * x) for x in (0.0, 1.0, 5.0)]
    assert slope(points) == pytest.approx(-0.7)
    assert math.isnan(slope([*points[:2], points[0]]))


# --------------------------------------------------------------------------------------------------------------------
# Advantage

ADVANTAGE = Advantage("ours", "theirs", budget=8, degrees=10, widest=2, rate="rate")
UNITS = {"conv1": 8192.0, "conv2": 4096.0, "fc": 256.0}


def contest(arm, record, gain, less, task="a-task", budgets=(8.0,), **fields):
    """Arms of both series whose scores and angles differ by so much; ``less`` by site, or for each budget."""
    pairs = []
    for budget in budgets:
        angles = less(budget) if callable(less) else less
        for label, sign in (("ours", 1), ("theirs", 0)):
            one = arm(label, budget, rule=label, task=task, probes=1)
            runs = {}
            for seed, jitter in enumerate(JITTER):
                sites = {
                    site: {
                        "units": n,
                        "angle": 80 - sign * (angles[site] + 100 * jitter),
                        "rank": 32.0,
                        "alpha_mean_gradient": 0.5,
                        "spread": 1.0,
                    }
                    for site, n in UNITS.items()
                }
                runs[seed] = record(one, seed, test=0.4 + sign * (gain + jitter), probes=sites, **fields)
            pairs.append((one, runs))
    return pairs


@pytest.mark.parametrize(
    ("gain", "word"), [(0.05, "supported"), (-0.05, "not supported"), (0.001, "inconclusive")]
)
@pytest.mark.parametrize("conv2", [15, -15])
def test_advantage_rests_on_the_score_whatever_the_angles_are(arm, record, evidence, gain, conv2, word):
    pairs = contest(arm, record, gain, {"conv1": 20, "conv2": conv2, "fc": -5})
    assert ADVANTAGE.judge(evidence(*pairs)).word == word


@pytest.mark.parametrize(
    ("conv1", "conv2", "fc", "held"),
    [
        (20, 15, -5, [True, True]),  # the narrow site is no part
        (20, 5, 15, [True, False]),
        (20, 10.1, 15, [True, None]),
    ],
)
def test_angles_are_a_part_of_their_own_that_is_not_judged(arm, record, evidence, conv1, conv2, fc, held):
    verdict = ADVANTAGE.judge(
        evidence(*contest(arm, record, 0.05, {"conv1": conv1, "conv2": conv2, "fc": fc}))
    )
    assert [(part.kind, part.judged) for part in verdict.parts] == [
        ("score", True),
        ("angle", False),
        ("angle", False),
    ]
    assert [part.holds for part in verdict.parts[1:]] == held
    assert verdict.text() == f"supported (score 1 of 1; also reported: angle {held.count(True)} of 2)"


def test_advantage_rests_on_the_budget_that_was_named(arm, record, evidence):
    good = contest(arm, record, 0.05, dict.fromkeys(UNITS, 15))
    bad = contest(arm, record, -0.05, dict.fromkeys(UNITS, -15), budgets=(200.0,))
    assert ADVANTAGE.judge(evidence(*good, *bad)).word == "supported"


def test_advantage_is_asked_for_on_every_task(arm, record, evidence):
    good = contest(arm, record, 0.05, dict.fromkeys(UNITS, 15))
    bad = contest(arm, record, -0.05, dict.fromkeys(UNITS, 15), task="b-task")
    assert ADVANTAGE.judge(evidence(*good, *bad)).word == "not supported"


def test_advantage_without_runs_of_the_rival_is_inconclusive(arm, record, evidence):
    ours = contest(arm, record, 0.05, dict.fromkeys(UNITS, 15))[:1]
    assert ADVANTAGE.judge(evidence(*ours)).word == "inconclusive"


def test_runs_that_diverged_have_no_angles_and_decide_nothing(arm, record, evidence):
    pairs = contest(arm, record, 0.05, dict.fromkeys(UNITS, 15), status="diverged")
    verdict = ADVANTAGE.judge(evidence(*pairs))
    assert verdict.word == "inconclusive"  # both are at chance
    assert {part.holds for part in verdict.parts} == {None}


def test_the_crossover_is_predicted_and_observed(arm, record, evidence):
    def less(budget):  # between 8 and 32 at fc, nowhere at conv1, and below the smallest budget at conv2
        return {"conv1": 10.0, "conv2": -10.0, "fc": 10.0 if budget <= 8 else -10.0}

    found = evidence(*contest(arm, record, 0.01, less, budgets=(2.0, 8.0, 32.0)))
    rows = {row[0]: row[1:] for row in ADVANTAGE._crossover_table(found, "a-task").rows}
    # K* = (α(n+1) − (d+1)) / (1−α), each example being worth (2−η)/η = 19 of them: (128.5 − 33)/0.5/19 at 256 units
    assert rows["angle at fc"] == ("256", "32", "0.50", "10", "16")
    assert rows["angle at conv1"][-2:] == ("428", "above 32")
    assert rows["angle at conv2"][-1] == "below 2"
    assert rows["test score"][-2:] == ("—", "above 32")
    (note,) = ADVANTAGE.judge(found).notes
    assert "test score, observed above 32;" in note
    assert "fc predicted 10, observed 16" in note


def test_the_crossover_of_the_score_lies_where_the_mean_difference_changes_its_sign(arm, record, evidence):
    low = contest(arm, record, 0.02, dict.fromkeys(UNITS, 15), budgets=(2.0,))
    high = contest(arm, record, -0.02, dict.fromkeys(UNITS, 15), budgets=(8.0,))
    rows = {row[0]: row for row in ADVANTAGE._crossover_table(evidence(*low, *high), "a-task").rows}
    assert rows["test score"][-1] == "4"


def test_a_crossover_in_words():
    assert crossover([]) == "—"
    assert crossover([(2, 1.0), (8, 2.0)]) == "above 8"
    assert crossover([(2, -1.0), (8, 2.0), (32, 1.0)]) == "above 32"
    assert crossover([(2, -1.0), (8, -2.0)]) == "below 2"
    assert crossover([(2, 1.0), (8, -1.0)]) == "4"


def test_sizes_stand_next_to_angles(arm, record, evidence):
    one, other = arm("ours", 8.0, probes=1), arm("theirs", 8.0, rule="other", probes=1)
    sites = {"conv": {"units": 64.0, "angle": 89.0, "norm_ratio": 3.1e-9}}
    table = ADVANTAGE._angles(
        evidence(
            (one, {seed: record(one, seed, probes=sites) for seed in one.seeds}),
            (
                other,
                {
                    seed: record(other, seed, probes={"conv": {"units": 64.0, "angle": 89.0}})
                    for seed in other.seeds
                },
            ),
        ),
        "a-task",
    )
    assert table.head[-2:] == (
        "size of the signal of ours ÷ true gradient",
        "size of the signal of theirs ÷ true gradient",
    )
    assert table.rows[0][-2:] == ("×3.1e-09", "—")


def test_the_size_of_the_true_gradient_is_shown_where_it_was_measured(arm, record, evidence):
    one = arm("ours", 8.0, probes=1)
    sites = {"conv": {"units": 64.0, "angle": 89.0, "norm_ratio": 1.0, "gradient_norm": 2.5e-9}}
    found = evidence((one, {seed: record(one, seed, probes=sites) for seed in one.seeds}))
    table = ADVANTAGE._angles(found, "a-task")
    assert table.head[-2:] == ("size of the true gradient, ours", "size of the true gradient, theirs")
    assert table.rows[0][-2:] == ("2.5e-09", "—")


# --------------------------------------------------------------------------------------------------------------------
# Standing, and not worse


def scored(arm, record, scores, at=0.0):
    """Label → mean score; one arm each."""
    pairs = []
    for label, mean in scores.items():
        one = arm(label, at, rule=f"rule-{len(pairs)}")
        pairs.append((one, {seed: record(one, seed, test=mean + j) for seed, j in enumerate(JITTER)}))
    return pairs


@pytest.mark.parametrize(("fa", "word"), [(0.4, "supported"), (0.6, "not supported"), (0.5, "inconclusive")])
def test_standing(arm, record, evidence, fa, word):
    criterion = Standing("NMNC", ("VNC", "FA"), "backprop")
    pairs = scored(arm, record, {"backprop": 0.7, "NMNC": 0.5, "VNC": 0.3})
    one = arm("FA", rule="fa")
    pairs.append((one, {seed: record(one, seed, test=fa - j) for seed, j in enumerate(JITTER)}))
    assert criterion.judge(evidence(*pairs)).word == word
    assert criterion.judge(evidence(*pairs[:-1])).word == "inconclusive"  # a rival without runs


def test_the_gap_to_the_top_is_in_the_table(arm, record, evidence):
    table = Standing("NMNC", ("VNC",), "backprop").tables(
        evidence(*scored(arm, record, {"backprop": 0.7, "NMNC": 0.55}))
    )[0]
    assert [row[2] for row in table.rows] == ["", "15.0 [15.0, 15.0]"]


def test_the_cost_of_a_step_is_in_the_table(arm, record, evidence):
    pairs = scored(arm, record, {"backprop": 0.7, "NMNC": 0.55})
    cost = Cost(step_ms=3.0, backprop_step_ms=2.0, ratio=1.5)
    timed = {seed: msgspec.structs.replace(run, cost=cost) for seed, run in pairs[1][1].items()}
    table = Standing("NMNC", (), "backprop").tables(evidence(pairs[0], (pairs[1][0], timed)))[0]
    where = table.head.index("cost of a step")
    assert table.rows[1][where] == "×1.5"


@pytest.mark.parametrize(
    ("vnc", "fixed", "word"),
    [(0.40, 0.45, "supported"), (0.52, 0.40, "not supported"), (0.40, 0.52, "not supported")],
)
def test_not_worse_is_held_against_the_best_at_every_budget(arm, record, evidence, vnc, fixed, word):
    easy = scored(arm, record, {"auto": 0.9, "VNC": 0.8, "rank 16": 0.7}, at=2.0)
    hard = scored(arm, record, {"auto": 0.5, "VNC": vnc, "rank 16": fixed}, at=8.0)
    assert NotWorse("auto").judge(evidence(*easy, *hard)).word == word


def test_not_worse_with_scattered_seeds_is_inconclusive(arm, record, evidence):
    ours, best = arm("auto"), arm("VNC", rule="vnc")
    runs = {seed: record(ours, seed, test=0.48 + 20 * j) for seed, j in enumerate(JITTER)}
    others = {seed: record(best, seed, test=0.5) for seed in best.seeds}
    assert NotWorse("auto").judge(evidence((ours, runs), (best, others))).word == "inconclusive"
