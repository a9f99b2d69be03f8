"""Measured angles over the curve of theory: which runs give a point, what is predicted, and the page."""

import pytest

from rulezoo.claims.advantage import Advantage
from rulezoo.claims.design import Claim, Noise, Study
from rulezoo.claims.evidence import gather
from rulezoo.claims.report import Finding, page, render
from rulezoo.claims.theory_page import IN_MANIFOLD, chart, measured, rows, summary, table
from rulezoo.measures import theory

NUMBERS = {
    "units": 512.0, "rank": 32.0, "alpha_mean_gradient": 0.6, "spread": 1.3, "ceiling": 20.0, "angle": 70.0,
}  # fmt: skip


def perturbing(arm, label="ours", at=8.0, **fields):
    return arm(label, at, noise=Noise(at, manifold=label == "ours"), **fields)


@pytest.mark.parametrize("label", ["ours", "theirs"])
def test_the_prediction_is_that_of_the_closed_forms(arm, record, label):
    one = perturbing(arm, label)
    found = measured(record(one, 0, probes=[{"conv": {}}, {"conv": NUMBERS}]), one, "conv")
    k = theory.effective_perturbations(8.0, 0.1, 1)  # the last probe is at step 1
    d, alpha = (32.0, 0.6) if label == "ours" else (512.0, 1.0)
    assert found.k == pytest.approx(k)
    assert found.predicted == pytest.approx(theory.predicted_angle(d, k, alpha, 20.0, 1.3))
    assert found.angle == 70.0


def test_a_point_whose_angle_is_predicted_lies_on_the_curve(arm, record):
    one = perturbing(arm)
    found = measured(record(one, 0, probes={"conv": NUMBERS}), one, "conv")
    exact = {**NUMBERS, "angle": found.predicted}
    on_curve = measured(record(one, 0, probes={"conv": exact}), one, "conv")
    x = on_curve.per_dimension
    assert on_curve.share == pytest.approx(x / (1 + x))
    assert found.share != pytest.approx(x / (1 + x), rel=0.01)


@pytest.mark.parametrize("missing", ["angle", "alpha_mean_gradient", "rank"])
def test_a_site_without_a_number_has_no_point(arm, record, missing):
    one = perturbing(arm)
    numbers = {name: value for name, value in NUMBERS.items() if name != missing}
    assert measured(record(one, 0, probes={"conv": numbers}), one, "conv") is None


def test_only_arms_that_perturb_and_runs_that_ended_well_give_points(arm, record, evidence):
    one, plain = perturbing(arm, seeds=[0, 1]), arm("backprop")
    runs = {0: record(one, 0, probes={"conv": NUMBERS}), 1: record(one, 1, status="diverged")}
    found = list(
        rows("a", "quick", evidence((one, runs), (plain, {0: record(plain, 0, probes={"conv": NUMBERS})})))
    )
    assert [(row.arm.label, row.name, len(row.runs)) for row in found] == [("ours", "conv", 1)]
    assert found[0].difference.mean == pytest.approx(70 - found[0].runs[0].predicted)
    (line,) = table(found).rows
    assert line[:5] == ("a (quick)", "a-task", "conv", "ours", "8")
    assert summary(found).rows[0][:3] == ("a (quick)", IN_MANIFOLD, "1")
    assert [curve.panel for curve in chart(found).curves] == [IN_MANIFOLD]


@pytest.fixture
def finding(arm, record):
    arms = [
        perturbing(arm, label, at, rule=label, probes=1, seeds=[0, 1], options={"perturbations": f"{at:g}"})
        for at in (8.0, 200.0)
        for label in ("ours", "theirs")
    ]
    records = [
        record(one, seed, probes={"conv": {**NUMBERS, "angle": 80.0 if one.label == "theirs" else 70.0}})
        for one in arms
        for seed in one.seeds
    ]
    claim = Claim(
        "a-claim", "Ours is better.", "us", Advantage("ours", "theirs", 8, 10, 1, "rate"),
        {"quick": Study(tuple(arms), "reduced: little", "no time")},
    )  # fmt: skip

    def make(number):
        return Finding(claim, "quick", gather(claim.studies["quick"], records[:number]))

    return make


def test_the_page_has_figure_crossovers_and_every_point(finding):
    files = render([finding(8)])
    text = files["theory.md"].decode()
    assert files["theory.svg"].startswith(b"<?xml")
    assert "(theory.svg)" in text
    assert "**a-claim (quick profile). a-task: crossover, " in text
    assert text.count("| a-claim (quick) | a-task | conv |") == 4
    assert "[Theory and measurements](theory.md)" in page([finding(8)])
    assert render([finding(8)]) == files


def test_there_is_no_page_before_a_study_is_complete(finding):
    assert "theory.md" not in render([finding(7)])


def test_crossovers_that_cannot_be_found_hide_no_page(finding, monkeypatch):
    def fails(self, evidence):
        raise RuntimeError("no")

    monkeypatch.setattr(Advantage, "crossovers", fails)
    text = render([finding(8)])["theory.md"].decode()
    assert "(quick profile). a-task: crossover" not in text
    assert text.count("| a-claim (quick) | a-task | conv |") == 4
