"""The protocols themselves: fair, large enough, and possible with the rules there are."""

import pytest

from rulezoo.claims.advantage import Advantage
from rulezoo.claims.installed import installed
from rulezoo.claims.not_worse import NotWorse
from rulezoo.discovery.registry import discover

REGISTRY = discover()
CLAIMS = {
    claim.name: claim
    for claim in installed(REGISTRY)[0]
    if REGISTRY.claims[claim.name].distribution == "rulezoo"
}

STUDIES = [(claim, profile) for claim in CLAIMS.values() for profile in claim.profiles]
every_study = pytest.mark.parametrize(
    ("claim", "profile"), STUDIES, ids=[f"{claim.name}-{profile}" for claim, profile in STUDIES]
)


@every_study
def test_every_study_can_be_planned(claim, profile):
    from rulezoo.claims.running import cells
    from rulezoo.comparison.request import Request

    study = claim.studies[profile]
    provisional = study.resolved({tuning.name: tuning.values[0] for tuning in study.tunings})
    candidates = [arm for tuning in study.tunings for arm in tuning.candidates]
    made = cells([*candidates, *provisional], REGISTRY, Request(device="cpu"))
    assert sum(len(cell.asked) for cell in made) == study.runs  # nothing is asked twice


@every_study
def test_there_are_three_seeds_or_more_and_none_of_them_tunes(claim, profile):
    study = claim.studies[profile]
    for arm in study.arms:
        assert len(arm.seeds) >= 3
        assert arm.probes
    judging = {seed for arm in study.arms for seed in arm.seeds}
    assert not judging & {seed for tuning in study.tunings for seed in tuning.arm.seeds}


@every_study
def test_what_is_compared_is_tuned_alike(claim, profile):
    study = claim.studies[profile]
    by_task = {}
    for tuning in study.tunings:
        arm = tuning.arm
        alike = tuning.option, tuning.values, arm.seeds, arm.epochs, tuple(arm.task_options.items())
        by_task.setdefault(arm.task, set()).add(alike)
    assert all(len(kinds) == 1 for kinds in by_task.values())
    tuned = {arm.tuned for arm in study.arms if arm.options.get("lr") != "0"}  # an untrained network
    assert tuned <= {""} or tuned == {tuning.name for tuning in study.tunings}


@every_study
def test_budgets_span_far_and_are_the_same_for_all(claim, profile):
    if not isinstance(claim.criterion, Advantage | NotWorse):
        return
    study = claim.studies[profile]
    for task in {arm.task for arm in study.arms}:
        budgets = {}
        for arm in study.arms:
            if arm.task == task and arm.at:
                assert arm.options["perturbations"] == f"{arm.at:g}"
                budgets.setdefault(arm.label, []).append((arm.at, arm.seeds))
        first, *others = budgets.values()
        assert len(first) >= 4
        span = 100 if isinstance(claim.criterion, Advantage) else 64  # the automatic rank is compared at four
        assert max(first)[0] >= span * min(first)[0]
        assert all(other == first for other in others)


@every_study
def test_reduced_data_are_called_reduced(claim, profile):
    assert claim.studies[profile].scale.startswith("reduced") == (profile == "quick")


def test_the_claims_and_their_order():
    assert list(CLAIMS) == [
        "alignment", "dimension", "cifar", "rnn", "imagenet", "primate", "width", "gap", "auto", "mirror",
    ]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_has_all_profiles(claim):
    assert claim.profiles == ("quick", "standard", "full")


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_spec_has_the_statement_of_its_claim(claim):
    assert REGISTRY.claims[claim.name].spec.summary == claim.statement


@pytest.mark.parametrize("name", ["cifar", "rnn", "mirror"])
def test_a_criterion_that_was_changed_after_the_runs_says_so(name):
    assert CLAIMS[name].changes.startswith("2026-11-30, after the quick profile had been run:")
    assert "No threshold, protocol or run was changed" in CLAIMS[name].changes
    assert REGISTRY.claims[name].spec.version == 2
