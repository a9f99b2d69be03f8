"""Every rule, on networks and tasks that many cannot serve: a sentence that says what it needs and what there is, or a step that works."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, nets
from rulezoo.discovery.registry import discover
from rulezoo.testing import TinyTask
from rulezoo.testing.nets import TinyCNN

EXAMPLES, CLASSES = 6, 3
RULES = [name for name, found in discover().rules.items() if found.distribution == "rulezoo"]


@dataclass(frozen=True)
class Numbers(TinyTask):
    """A regression: no labels, and a loss that is no cross-entropy."""

    targets: ClassVar[Any] = "numbers"
    classes: ClassVar[Any] = None

    def loss(self, output, target):
        return (output - target).square().mean(-1)


@dataclass(frozen=True)
class Undeclared(TinyTask):
    """Targets that are not declared, as those of a task with a label at every step."""

    targets: ClassVar[Any] = None
    classes: ClassVar[Any] = None

    def loss(self, output, target):
        if output.ndim == 2:
            return F.cross_entropy(output, target, reduction="none")
        each = F.cross_entropy(
            output.flatten(0, 1), target.repeat_interleave(output.shape[1]), reduction="none"
        )
        return each.view(output.shape[:2]).mean(1)


def hidden(n_in, n_out):
    return nn.Linear(n_in, n_out), Site("pre"), nn.Tanh(), Site("post")


def mlp():
    return nn.Sequential(*hidden(5, 8), *hidden(8, 7), nn.Linear(7, CLASSES))


def flat():
    return torch.randn(EXAMPLES, 5)


def steps():
    return torch.randn(EXAMPLES, 4, 3)


CASES = {  # what is special → network, inputs, task
    "regression": (mlp, flat, Numbers("mlp")),
    "undeclared targets": (mlp, flat, Undeclared("mlp")),
    "no sites": (lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES)), flat, TinyTask("mlp")),
    "no read-out": (lambda: nn.Sequential(*hidden(5, 8), *hidden(8, CLASSES)), flat, TinyTask("mlp")),
    "no pre sites": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), Site("post"), nn.Linear(8, CLASSES)), flat, TinyTask("mlp"),
    ),
    "batch normalisation": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), Site("pre"), nn.ReLU(), Site("post"), nn.Linear(8, CLASSES)),
        flat, TinyTask("mlp"),
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), *hidden(20, 8), nn.Linear(8, CLASSES)),
        lambda: torch.randint(9, (EXAMPLES, 5)), TinyTask("mlp"),
    ),
    "skip connection": (TinyCNN, lambda: torch.randn(EXAMPLES, 1, 6, 6), TinyTask("cnn")),
    "leaky": (lambda: nets.LeakyRNN(3, 6, CLASSES, 0.5), steps, TinyTask("rnn")),
    "answers at every step": (
        lambda: nets.LeakyRNN(3, 6, CLASSES, 0.5, every_step=True), steps, Undeclared("rnn-every-step"),
    ),
    "gated": (lambda: nets.GRU(3, 6, CLASSES), steps, TinyTask("rnn")),
    "spiking": (lambda: nets.SpikingNetwork((3, 6, 5, CLASSES)), lambda: steps().gt(0).float(), TinyTask("snn")),
}  # fmt: skip
MUST_SKIP = {  # a few that are certain
    "regression": {"forward-forward", "direct-random-target-projection"},
    "undeclared targets": {"forward-forward", "direct-random-target-projection"},
    "no sites": {
        "node-perturbation",
        "nmnc",
        "predictive-coding",
        "local-prediction",
        "pepita",
        "direct-feedback-alignment",
    },
    "no read-out": {"frozen", "softhebb", "oja", "sanger", "pepita", "self-contrastive-forward-forward"},
    "gated": {"ndfa", "rflo", "e-prop", "rflo-nmnc", "spiking-e-prop"},
    "spiking": {"rflo", "equilibrium-propagation", "lagged-nmnc"},
    "answers at every step": {"local-similarity", "local-prediction"},
}
# Sentences that name what is needed, and not what was found. They stand in modules of rules, where a change of wording would make
# stored results stale; they are mended when those modules change for another reason.
WITHOUT_A_FINDING = {
    "each site of kind 'post' needs a site of kind 'pre' in front of it, on what decides on a spike",
    (
        "interneurons mirror the layer behind: it needs dense layers in a chain, each hidden one with a site of kind 'pre' and one "
        "of kind 'post' behind it, of the same units, and no other trained parameters"
    ),
    "it needs a site of kind 'pre' and one of kind 'post' behind every hidden layer",
    "it needs hidden layers that are linear or convolutional, without groups and with a plain weight",
    "a local head predicts the outputs of all time steps, which the activity of one does not determine",
}
FOUND = re.compile(  # words of what this network or task has
    r"\b(this (network|task|one|recurrent network)|here|the network has|(and|site) (site )?'[\w.\[\]]+'|has (none|\d)|its neurons|"
    r"and no (site|parameter)|(no|every) parameter lies|and layer '\w+' is|with one hidden site)"
)
VERB = re.compile(
    r"\b(is|are|has|have|needs?|must|goes|go|projects?|compares?|predicts?|perturbs?|would|takes?|travels?|relaxes|adds?|lies)\b"
)


@cache
def made(case):
    torch.manual_seed(0)
    module, x, task = CASES[case]
    x = x()
    return Net(module(), x), x, task


@cache
def reason(rule, case):
    net, _, task = made(case)
    return discover_rule(rule).skip(net, task)


@cache
def discover_rule(name):
    return discover().make_rule(name, {})


EVERY = pytest.mark.parametrize("case", CASES)


@EVERY
def test_a_reason_is_a_sentence_of_what_is_needed_and_what_there_is(case):
    said = {rule: why for rule in RULES if (why := reason(rule, case)) is not None}
    for rule, why in said.items():
        assert isinstance(why, str), (rule, why)
        assert len(why.split()) >= 8, (rule, why)
        assert why == " ".join(why.split()), (rule, why)
        assert not why.endswith((".", ",", ";", ":")), (rule, why)  # it is continued by others
        assert not re.search(r"\bNone\b|Error|Traceback|<.*>|object at", why), (rule, why)
        assert VERB.search(why), (rule, why)
        assert FOUND.search(why) or why in WITHOUT_A_FINDING, (rule, why)
    assert MUST_SKIP.get(case, set()) <= said.keys()


def test_the_sentences_without_a_finding_are_all_in_use():
    used = {reason(rule, case) for case in CASES for rule in RULES}
    assert used >= WITHOUT_A_FINDING


def test_a_sentence_that_names_no_finding_is_seen():
    assert not any(map(FOUND.search, WITHOUT_A_FINDING))
    assert not FOUND.search("it needs labels of classes")
    assert FOUND.search("it needs labels of classes, and this task has numbers as targets")


@pytest.mark.slow
@EVERY
def test_a_rule_that_does_not_skip_takes_a_finite_step(case):
    """Backprop's loss is the same for all of them: what is computed is the network and the task that were asked for."""
    net, x, task = made(case)
    gen = torch.Generator().manual_seed(1)
    y = (
        torch.randn(EXAMPLES, CLASSES, generator=gen)
        if isinstance(task, Numbers)
        else torch.arange(EXAMPLES) % CLASSES
    )
    batch, params, broken = Batch(x, y), net.init_params(), {}
    for name in RULES:
        rule = discover_rule(name)
        if rule.skip(net, task) is not None:
            continue
        try:
            state = rule.init(net, params, batch, gen)
            step = rule.step(net, task.loss, params, state, batch, rule.noise(net, state, batch, gen, 0), 0)
        except Exception as error:  # noqa: BLE001  each is reported with its rule
            broken[name] = f"{type(error).__name__}: {error}"
            continue
        if not step.grads or not all(torch.isfinite(grad).all() for grad in step.grads.values()):
            broken[name] = "gradients are missing or not finite"
    assert broken == {}
