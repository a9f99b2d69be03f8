"""Which stored runs belong to a study, and what is read from them."""

import math
from dataclasses import replace

import msgspec
import pytest

from rulezoo.claims.design import Study, Tuning
from rulezoo.claims.evidence import EVERY_PARAMETER, at_end, belongs, gather, paired, score, sites

OPTIONS = {"lr": "1e-3", "perturbations": "8"}


@pytest.fixture
def asked(arm):
    return arm(options=OPTIONS, task_options={"width": "0.5"}, epochs=6, probes=1)


PROBED = {"conv": {"units": 10.0}}


def test_a_run_of_the_arm_belongs(asked, record):
    assert belongs(record=record(asked, 0, probes=PROBED), arm=asked)


@pytest.mark.parametrize(
    "other",
    [
        {"rule": "another-rule"},
        {"task": "another-task"},
        {"rule_options": {"lr": 0.003, "perturbations": 8}},
        {"rule_options": {"lr": 0.001}, "changed": ["lr"]},
        {"task_options": {"width": 1.0}},
        {"budget": {"epochs": 7}},
        {"seed": 5},
        {
            "changed": ["lr", "perturbations", "sigma"],
            "rule_options": {"lr": 0.001, "perturbations": 8, "sigma": 0.2},
        },
        {"probes": ()},
    ],
)
def test_another_run_does_not(asked, record, other):
    made = record(asked, other.pop("seed", 0), **({"probes": PROBED} | other))
    assert not belongs(record=made, arm=asked)


def test_words_are_read_as_options_are(arm, record):
    asked = arm(options={"rank": "auto", "rate": "none", "together": "true"})
    values = {"rank": "auto", "rate": None, "together": True}
    made = replace(asked, options={})
    assert belongs(record=record(made, 0, rule_options=values, changed=list(values)), arm=asked)


def test_a_text_may_look_like_a_number(arm, record):
    asked = arm(options={"recordings": "210325"})
    made = replace(asked, options={})
    for value, does in (("210325", True), ("210326", False), (210325, True)):
        run = record(made, 0, rule_options={"recordings": value}, changed=["recordings"])
        assert belongs(record=run, arm=asked) is does


def test_what_is_missing_is_counted(asked, record):
    study = Study((asked,), "", "")
    runs = [record(asked, seed, probes=PROBED) for seed in (0, 1)]
    runs += [record(asked, 2, status="interrupted"), record(asked, 3, status="diverged")]
    found = gather(study, runs)
    assert (found.done, found.planned, found.complete) == (3, 5, False)
    assert list(found.of()) == [0, 1, 3]
    assert gather(study, runs, device="cuda").done == 0


def test_the_newest_answer_counts(asked, record):
    old, new = (record(asked, 0, test=t, probes=PROBED, rule_version=v) for t, v in ((0.9, 1), (0.2, 2)))
    for order in ([old, new], [new, old]):
        assert score(gather(Study((asked,), "", ""), order).of()[0]) == 0.2


@pytest.fixture
def tuned(arm):
    """A study with one tuning of three values, and its candidates."""
    tuning = Tuning("ours", arm(seeds=[1000, 1001]), "lr", ("1e-3", "1e-2", "1e-1"))
    return Study((arm(tuned="ours", seeds=[0]),), "", "", (tuning,)), tuning.candidates


def test_the_best_mean_on_validation_data_wins(tuned, record):
    study, candidates = tuned
    validation = [
        (0.5, 0.6),
        (0.9, 0.4),
        (0.9, None),
    ]  # the last one's second run diverged: it counts as chance, 0.1
    runs = [
        record(one, seed, validation=v, test=1 - (v or 0)) if v else record(one, seed, status="diverged")
        for one, scores in zip(candidates, validation, strict=True)
        for seed, v in zip(one.seeds, scores, strict=True)
    ]
    found = gather(study, runs)
    assert found.chosen == {"ours": "1e-2"}
    assert found.tried["ours"] == pytest.approx({"1e-3": 0.55, "1e-2": 0.65, "1e-1": 0.5})
    assert [a.options for a in found.runs] == [{"lr": "1e-2"}]
    assert (found.done, found.planned) == (6, 7)


def test_nothing_is_chosen_before_the_whole_grid_is_there(tuned, record):
    study, candidates = tuned
    found = gather(study, [record(one, 1000) for one in candidates])
    assert (found.chosen, found.runs, found.done, found.planned) == ({}, {}, 3, 7)


def test_failures_count_as_chance_and_refusals_not_at_all(arm, record):
    one = arm()
    assert score(record(one, 0, status="diverged")) == 0.1
    assert math.isnan(score(record(one, 0, status="skipped")))
    runs = {0: record(one, 0, test=0.9), 1: record(one, 1, status="skipped")}
    others = {0: record(one, 0, test=0.5), 1: record(one, 1, test=0.2), 2: record(one, 2, test=0.7)}
    found = paired(runs, others, score)
    assert (found.mean, found.n) == (pytest.approx(0.4), 1)


def test_numbers_of_the_last_probe(arm, record):
    before, after = (
        {"a": {"units": 2.0, "angle": 80.0}},
        {"a": {"units": 2.0, "angle": None}, "b": {"units": 9.0}},
    )
    made = record(arm(), 0, probes=[before, after])
    assert sites([made]) == ["b", "a"]
    assert at_end("b", "units")(made) == 9
    assert math.isnan(at_end("a", "angle")(made))
    assert math.isnan(at_end("b", "units")(msgspec.structs.replace(made, status="diverged")))


def test_the_word_for_every_parameter_is_that_of_the_probes():
    from rulezoo.measures.probes import ALL

    assert EVERY_PARAMETER == ALL
