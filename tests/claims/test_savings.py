"""How many times fewer perturbations: interpolation, bounds, verdicts, growth with width; and criteria joined by `Every`."""

import math
from dataclasses import replace

import pytest

from rulezoo.claims.advantage import Advantage
from rulezoo.claims.every import Every
from rulezoo.claims.growing_savings import GrowingSavings
from rulezoo.claims.savings import Savings, budget_of, factor, savings
from rulezoo.measures.site_theory import SiteTheory

BUDGETS = (1.0, 4.0, 16.0, 64.0)
SEEDS = (0, 1, 2)


def sites(angle, **numbers):
    return {"fc": {"angle": angle, "units": 128.0, "gradient_norm": 0.5, "norm_ratio": 2.0, **numbers}}


def of_theory(k, n):
    """The angle that n perturbed units give."""
    return SiteTheory(n, 1, 0.5).angle(k, manifold=False)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (80.0, (1.0, False)),
        (70.0, (2.0, False)),
        (60.0, (4.0, False)),
        (50.0, (8.0, False)),
        (85.0, (1.0, True)),
        (30.0, (16.0, True)),
    ],
)
def test_a_budget_is_interpolated_and_never_extrapolated(angle, expected):
    budget, bound = budget_of(angle, [(1, 80.0), (4, 60.0), (16, 40.0)])
    assert (pytest.approx(budget), bound) == expected


def test_without_a_curve_or_an_angle_there_is_no_budget():
    assert math.isnan(budget_of(70.0, [])[0])
    assert math.isnan(budget_of(math.nan, [(1, 80.0)])[0])


def test_the_saving_is_that_of_theory(arm, record):
    """Ours perturbs 16 of 128 units: with angles as theory has them, k is (128 + 1)/(16 + 1) at every budget."""
    ours = {seed: record(arm("ours", 4.0), seed, probes=sites(of_theory(4, 16))) for seed in SEEDS}
    theirs = {
        k: {seed: record(arm("theirs", k), seed, probes=sites(of_theory(k, 128))) for seed in SEEDS}
        for k in (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0)
    }
    found = factor([savings(ours, theirs, 4.0, "fc")])
    assert found.mean == pytest.approx(129 / 17, rel=0.02)  # the interpolation is linear in the logarithm
    assert found.n == 3


@pytest.fixture
def mirror(arm, record, evidence):
    """Evidence in which ours needs ``k`` times fewer perturbations, with some scatter between seeds."""

    def make(k, scatter=0.05):
        def runs(label, b, factor):
            one = arm(label, b, seeds=SEEDS, options={"perturbations": f"{b:g}"})
            angle = {seed: 80 - 10 * math.log2(b * factor * (1 + scatter * (seed - 1))) for seed in SEEDS}
            return one, {seed: record(one, seed, probes=sites(angle[seed])) for seed in SEEDS}

        pairs = [runs(label, b, k if label == "ours" else 1) for b in BUDGETS for label in ("ours", "theirs")]
        frozen = arm("frozen", seeds=SEEDS)
        return evidence(*pairs, (frozen, {seed: record(frozen, seed, probes=sites(90.0)) for seed in SEEDS}))

    return make


CRITERION = Savings("ours", "theirs", 4, {"dense layers": ("fc",)}, "noise vectors", rank=32, averaged=1)


@pytest.mark.parametrize(("k", "word"), [(3.0, "supported"), (1 / 3, "not supported"), (1.0, "inconclusive")])
def test_savings(mirror, k, word):
    found = mirror(k)
    verdict = CRITERION.judge(found)
    assert verdict.word == word
    judged = [part for part in verdict.parts if part.judged]
    assert [part.kind for part in judged] == ["perturbations"]
    assert f"k of dense layers: {k:.2f}×" in judged[0].text
    scores = [part for part in verdict.parts if not part.judged]
    assert [part.kind for part in scores] == ["score"]


def test_a_larger_angle_at_the_smallest_budget_refutes(mirror):
    """There no budget of theirs is small enough to find k below 1."""
    at_smallest = replace(CRITERION, budget=1.0)
    found = mirror(1 / 3)
    factors = at_smallest.tables(found)[0]
    assert factors.rows[0][3] == "×1 [×1, ×1] *"
    assert at_smallest.judge(found).word == "not supported"
    assert at_smallest.judge(mirror(1.0)).word == "inconclusive"


def test_tables_of_savings_show_sizes_and_references(mirror):
    factors, angles, references = CRITERION.tables(mirror(3.0))
    row = dict(zip(factors.head, factors.rows[1], strict=True))
    assert row["noise vectors"] == "4"
    assert row["k measured"].startswith("×3 [")
    assert "ours, size of the true gradient" in angles.head
    assert [line[0] for line in references.rows] == ["frozen"]
    assert "size of the true gradient" in references.head


def test_a_saving_outside_of_the_budgets_is_marked_as_a_bound(mirror):
    factors = CRITERION.tables(mirror(3.0))[0]
    by_budget = {row[2]: row[3] for row in factors.rows}
    assert by_budget["64"].endswith("*")  # theirs never has the angle of ours at 64
    assert not by_budget["4"].endswith("*")


WIDTHS = (1.0, 2.0, 4.0)


@pytest.fixture
def widths(arm, record, evidence):
    """Evidence in which the saving is n to a power, on sites of 64, 128 and 256 units."""

    def make(exponent):
        pairs = []
        for width in WIDTHS:
            n = 64 * width
            saved = 2 * width**exponent
            for label, budget in (("ours", 4), ("theirs at 1", 1), ("theirs at 4", 4), ("theirs at 64", 64)):
                one = arm(label, width, seeds=SEEDS)
                effective = budget * (saved if label == "ours" else 1)
                runs = {
                    seed: record(one, seed, probes=sites(80 - 8 * math.log2(effective) + 0.1 * seed, units=n))
                    for seed in SEEDS
                }
                if label == "ours":  # scatter between seeds that theirs does not share
                    runs = {
                        seed: record(
                            one,
                            seed,
                            probes=sites(80 - 8 * math.log2(effective) + 0.3 * seed * width, units=n),
                        )
                        for seed in SEEDS
                    }
                pairs.append((one, runs))
        return evidence(*pairs)

    return make


GROWING = GrowingSavings(
    "ours", 4, {1: "theirs at 1", 4: "theirs at 4", 64: "theirs at 64"}, "perturbations", averaged=1
)


@pytest.mark.parametrize(("exponent", "word"), [(0.8, "supported"), (-0.4, "not supported")])
def test_savings_that_grow_with_width(widths, exponent, word):
    verdict = GROWING.judge(widths(exponent))
    assert verdict.word == word
    assert [part.kind for part in verdict.parts if part.judged] == ["exponent"]
    exponents = GROWING.tables(widths(exponent))[0]
    found = float(exponents.rows[-1][1].split(" ")[0].replace("−", "-"))
    assert found == pytest.approx(exponent, abs=0.08)


def test_the_chart_of_growing_savings_has_measurements(widths):
    chart = GROWING.chart(widths(0.8))
    assert {point.x for point in chart.points if point.panel == "measured"} == {64.0, 128.0, 256.0}


def test_every_joins_parts_tables_and_panels(arm, record, evidence):
    def pair(ours, theirs, gain):
        for label, score in ((ours, 0.5 + gain), (theirs, 0.5)):
            for at in (8.0, 64.0):
                one = arm(label, at, seeds=SEEDS)
                yield one, {s: record(one, s, test=score + s / 1000, probes=sites(60.0)) for s in SEEDS}

    runs = evidence(*pair("a", "b", 0.1), *pair("c", "d", -0.1))
    first, second = (
        Advantage(*labels, budget=8, degrees=10, widest=1, rate="rate", unit=unit, references=())
        for labels, unit in ((("a", "b"), "examples"), (("c", "d"), "vectors"))
    )
    both = Every((("one", first), ("two", second)))
    assert (first.judge(runs).word, second.judge(runs).word) == ("supported", "not supported")
    verdict = both.judge(runs)
    assert verdict.word == "not supported"
    assert verdict.counts() == "score 1 of 2"
    assert all(part.text.startswith(("one, ", "two, ")) for part in verdict.parts)
    assert len(both.tables(runs)) == len(first.tables(runs)) + len(second.tables(runs))
    assert set(both.chart(runs).panels) == {
        f"{name}: {p}" for name in ("one", "two") for p in first.chart(runs).panels
    }
    units = {name.split(":")[0]: unit for name, unit in both.chart(runs).x_of.items()}
    assert units == {"one": "examples", "two": "vectors"}
    assert "(one)" in both.verdict_rule


def test_references_can_be_chosen(arm, record, evidence):
    pairs = []
    for label in ("a", "b", "frozen", "another"):
        one = arm(label, 8.0, seeds=SEEDS)
        pairs.append((one, {s: record(one, s, probes=sites(60.0)) for s in SEEDS}))
    criterion = Advantage("a", "b", budget=8, degrees=10, widest=1, rate="", references=("frozen",))
    scores, _, crossover, references = criterion.tables(evidence(*pairs))
    assert [row[0] for row in scores.rows] == ["8", "frozen"]
    assert [row[0] for row in references.rows] == ["frozen"]
    assert [row[4] for row in crossover.rows] == ["—", "—"]  # no rate: no theory
    assert "theory predicts" not in criterion.verdict_rule
