"""The rules that learn feedback weights, trained on the digits with their defaults: near backprop in every respect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rulezoo import credit
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.feedback_weights.kolen_pollack import KolenPollack
from rulezoo_plugins.feedback_weights.weight_mirror import WeightMirror
from rulezoo_tasks.digits import DigitsCNN

SEEDS = (0, 1)
# Seen with nine seeds: no angle above 12°; accuracy one point below backprop's in the mean.
ANGLE = 15.0  # degrees, mean over the seeds
POINTS = 0.02


def trained(rule):
    """The trainer after a task's whole budget, and the accuracy on the test data of each seed."""
    task = DigitsCNN()
    budget = (
        task.budget if rule.weight_decay is None else replace(task.budget, weight_decay=rule.weight_decay)
    )
    data = task.data(None)
    net, params = build(task, SEEDS, data.train.x[:1], torch.device("cpu"))
    batches = Batches(data.train, budget.batch, SEEDS)
    order = [batches.epoch(number)[:, i] for number in range(budget.epochs) for i in range(batches.per_epoch)]
    trainer = Trainer(rule, net, task.loss, params, batches.take(order[0]), SEEDS, budget, len(order))
    for which in order:
        trainer.step(batches.take(which))
    scores = torch.stack([task.score(y, data.test.y).mean() for y in trainer.predict(data.test.x)])
    return trainer, task, data.train, scores


def angles(trainer, task, x, y):
    """Angle of every hidden weight's gradient to backprop's, in degrees, mean over the seeds."""

    def gradients(params, feedback):
        got, _ = credit.through_feedback(trainer.net, task.loss, params, feedback, x, y)
        true, _ = credit.backprop(trainer.net, task.loss, params, x, y)
        return got, true

    feedback = {
        name.removeprefix("feedback."): b
        for name, b in (trainer.state.params | trainer.state.buffers).items()
        if name.startswith("feedback.")
    }
    got, true = torch.func.vmap(gradients)(trainer.params, feedback)
    hidden = [name for name, p in true.items() if p.ndim > 2 and name not in trainer.net.readout]
    cosines = {name: torch.cosine_similarity(got[name].flatten(1), true[name].flatten(1)) for name in hidden}
    return {name: float(cosine.clamp(-1, 1).acos().rad2deg().mean()) for name, cosine in cosines.items()}


@pytest.fixture(scope="module")
def backprop_score():
    return trained(Backprop())[3].mean()


@pytest.mark.slow
@pytest.mark.parametrize("rule", [WeightMirror(), KolenPollack()], ids=["weight-mirror", "kolen-pollack"])
def test_defaults_come_near_backprop_on_the_digits(rule, backprop_score):
    trainer, task, train, scores = trained(rule)

    found = angles(trainer, task, train.x[:256], train.y[:256])

    assert set(found) == {"conv1.layer.weight", "conv2.layer.weight", "fc.layer.weight"}
    assert max(found.values()) < ANGLE, found
    assert scores.mean() > backprop_score - POINTS
