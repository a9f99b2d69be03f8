"""The conformance suite of evaluations and claims: what is sound passes, and each kind of unsound one fails its check."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rulezoo import DataMissing, Evaluation, Measurement, claims, hp
from rulezoo.cli import cli
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.testing import check_claim, check_evaluation


@dataclass(frozen=True)
class Sound(Evaluation):
    """Numbers from the weights, an array, and a value that is not known."""

    headline: ClassVar[str] = "size"
    seed: int = hp(0, "seed of the noise", low=0)

    def measure(self, network, root):
        gen = torch.Generator().manual_seed(self.seed)
        size = sum(float(p.norm()) for p in network.params.values()) + float(torch.rand(1, generator=gen))
        return Measurement(
            {"size": size, "odd": math.nan}, {"sizes": np.array([size, np.nan])}, {"odd": "not known"}
        )


class Random(Sound):
    def measure(self, network, root):
        return Measurement({"size": float(torch.rand(1))})


class RandomArray(Sound):
    def measure(self, network, root):
        return Measurement({"size": 1.0}, {"noise": np.random.rand(3)})  # noqa: NPY002


class Meddling(Sound):
    def measure(self, network, root):
        with torch.no_grad():
            next(iter(network.params.values())).mul_(1.5)
        return Measurement({"size": 1.0})


class Headless(Sound):
    headline: ClassVar[str] = "nothing"


class Picky(Sound):
    def skip(self, network):
        return "it is for large networks only"


class Mumbling(Sound):
    def skip(self, network):
        return "no"


class Needy(Sound):
    def measure(self, network, root):
        raise DataMissing("the recordings are not in /nowhere")


class Scored(Sound):
    def measure(self, network, root):
        return Measurement({"size": network.scores["test"]})


def outcomes(subject):
    return {result.check: result for result in check_evaluation(subject)}


def test_a_sound_evaluation_passes_every_check():
    found = outcomes(Sound())
    assert {result.outcome for name, result in found.items() if name != "evaluation_spec"} == {"passed"}
    assert found["values"].measured == "8 values on 4 networks, 4 with a reason in place of a number"
    assert found["headline"].measured == "size, higher is better"
    assert found["applies"].measured == "on mlp, cnn, rnn, rnn-every-step"


@pytest.mark.parametrize(
    ("subject", "check", "outcome", "reason"),
    [
        (Random, "repeatable", "failed", "in a second measurement; draw random numbers from a generator"),
        (RandomArray, "repeatable", "failed", "the array 'noise' is not the same in a second measurement"),
        (Meddling, "network_unmodified", "failed", "the network on mlp, after a measurement: "),
        (Headless, "values", "failed", "the measurement has no value 'nothing', which is the headline"),
        (Picky, "applies", "not examined", "skips every network that it was to be checked on (mlp: it is for"),
        (Mumbling, "applies", "failed", "skip() must say why in a sentence, got 'no'"),
        (Needy, "applies", "not examined", "the data are not here: the recordings are not in /nowhere"),
        (Scored, "other_network", "failed", "on the untrained network of mlp: KeyError: 'test'"),
    ],
)  # fmt: skip
def test_each_unsound_one_fails_the_check_that_is_about_it(subject, check, outcome, reason):
    found = outcomes(subject())
    assert found[check].outcome == outcome
    assert reason in found[check].message
    others = {"Headless": ("applies", "repeatable", "network_unmodified", "other_network")}
    also = others.get(subject.__name__, ())
    failed = {name for name, result in found.items() if result.outcome in ("failed", "not examined")}
    assert failed <= {check, *also}


def test_verify_takes_evaluations_by_name_by_file_and_on_tasks(plugin):
    run = CliRunner().invoke
    done = run(cli, ["verify", "size"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].startswith("size (evaluation, evaluations_of_tests.py sha256:")
    assert "size keeps every promise" in done.output
    assert run(cli, ["verify", "odd"]).exit_code == 1
    done = run(cli, ["verify", "size", "--on", "tiny", "-o", "power=3"])
    assert done.exit_code == 0, done.output
    assert "on mlp, cnn, rnn, rnn-every-step, tiny" in done.output
    assert run(cli, ["verify", "odd", "-o", "how=missing"]).exit_code == 3


def test_every_claim_that_comes_with_rulezoo_can_be_planned():
    registry = discover()
    assert registry.claims
    for found in registry.claims.values():
        results = check_claim(found.spec, zoo=registry)
        assert {one.outcome for one in results} == {"passed"}, [one.message for one in results]


@dataclass(frozen=True)
class _Spec:
    """A spec whose claim is not in a module."""

    made: claims.Claim = field(hash=False)
    name: str = "alignment"
    summary: str = "x"
    target: str = "m:CLAIM"

    def load(self):
        return self.made


@pytest.mark.parametrize(
    ("change", "check", "reason"),
    [
        ({"rule": "bakprop"}, "runs", "unknown rule 'bakprop'; did you mean 'backprop'?"),
        ({"task": "digits-cn"}, "runs", "unknown task 'digits-cn'"),
        ({"options": {"weight_decy": "1"}}, "runs", "has no option 'weight_decy'; did you mean 'weight_decay'?"),
    ],
)  # fmt: skip
def test_a_claim_whose_runs_cannot_be_planned_says_which_arm(change, check, reason):
    claim = discover().claim("alignment")
    study = claim.studies["quick"]
    arms = (replace(study.arms[0], **change), *study.arms[1:])
    broken = replace(claim, studies={"quick": replace(study, arms=arms)})
    found = {one.check: one for one in check_claim(_Spec(broken))}
    assert found[check].outcome == "failed"
    assert "of the quick profile" in found[check].message
    assert reason in found[check].message
    assert found["claim_spec"].outcome == "passed"
    other = {one.check: one for one in check_claim(_Spec(claim, name="other"))}
    assert "the claim is called 'alignment', and its spec 'other'" in other["claim_spec"].message


def test_verify_takes_claims_and_refuses_options_for_them(monkeypatch):
    monkeypatch.delenv(FILES, raising=False)
    run = CliRunner().invoke
    done = run(cli, ["verify", "alignment"])
    assert done.exit_code == 0, done.output
    assert "alignment (claim, rulezoo" in done.output
    done = run(cli, ["verify", "alignment", "-o", "rank=3"])
    assert done.exit_code == 2
    assert "claim 'alignment' has no options; leave -o out" in done.stderr
    done = run(cli, ["verify", "alignment", "--on", "digits-cnn"])
    assert "--on is for rules and evaluations, and 'alignment' is a claim; leave --on out" in done.stderr
