"""Rules of families that are not built in, as strangers would write them: they keep every promise, and they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rulezoo import Budget
from rulezoo.testing import TinyTask, parametrize_rule_checks, parametrize_task_checks, verify
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build

FILES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_"))
SUBJECTS = [subject for path in FILES for subject in verify.subjects(str(path))]
RULES = {subject.name: subject.found.spec for subject in SUBJECTS if subject.kind == "rule"}
TASKS = {subject.name: subject.found.spec for subject in SUBJECTS if subject.kind == "task"}
CPU = torch.device("cpu")
TOGETHER = 1e-9  # of tensors in float64: batched kernels add up in another order


pytestmark = pytest.mark.slow


@parametrize_rule_checks(RULES.values())
def test_a_rule_keeps_every_promise(check):
    check()


@parametrize_task_checks(TASKS.values())
def test_a_task_keeps_every_promise(check):
    check()


class Tiny(TinyTask):
    """A tiny task in float64."""

    def network(self):
        return super().network().double()


def trained(rule, task, data, seeds, epochs, batch, lr=1e-2):
    """The trainer after some epochs, by Adam."""
    net, values = build(task, seeds, data.train.x[:2], CPU)
    batches = Batches(data.train, batch, seeds)
    order = [which for epoch in range(epochs) for which in batches.epoch(epoch).unbind(1)]
    budget = Budget(epochs, batch, lr, schedule="cosine")
    trainer = Trainer(rule, net, task.loss, values, batches.take(order[0]), seeds, budget, len(order))
    for which in order:
        trainer.step(batches.take(which))
    return trainer


def on_double(data):
    return type(data)(*(part._replace(x=part.x.double()) for part in data))


@pytest.mark.parametrize("kind", ["mlp", "rnn"])
@pytest.mark.parametrize("name", RULES)
def test_seeds_are_trained_and_evaluated_together_as_each_alone(name, kind):
    rule, task = RULES[name].load()(), Tiny(kind)
    data = on_double(task.data())
    net, _ = build(task, [0], data.train.x[:2], CPU)
    if reason := rule.skip(net, task):
        pytest.skip(reason)
    together = trained(rule, task, data, [0, 3, 5], epochs=1, batch=16)
    for place, seed in enumerate([0, 3, 5]):
        alone = trained(rule, task, data, [seed], epochs=1, batch=16)

        for key, tensor in alone.trained.items():
            torch.testing.assert_close(together.trained[key][place], tensor, rtol=TOGETHER, atol=TOGETHER)
        x = data.test.x
        torch.testing.assert_close(
            together.predict(x)[place], alone.predict(x)[0], rtol=TOGETHER, atol=TOGETHER
        )
