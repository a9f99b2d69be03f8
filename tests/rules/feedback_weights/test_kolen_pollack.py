"""Kolen-Pollack: feedback and forward weights grow alike, and decay makes them agree at the rate that is predicted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Budget, Net, State, credit
from rulezoo.net import Values
from rulezoo.options import OptionError
from rulezoo.testing import tiny_net
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.feedback_weights.kolen_pollack import KolenPollack
from rulezoo_tasks.digits import DigitsCNN, DigitsRNN
from rulezoo_tasks.networks import MLP

FIRST = {"fc1.weight", "conv1.weight", "w_in.weight"}  # fed by the input alone: no error passes them
RULE = KolenPollack()
DECAY, LR = 2.0, 0.02


def expect_close(got, wanted):
    """Up to rounding: differences of entries of size one, in float64."""
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-13)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def begin(tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, batch, RULE.init(tiny.net, params, batch, seeded(0))


def test_with_feedback_that_agrees_the_step_is_backprop(tiny):
    params, batch, state = begin(tiny)
    agreed = State(params={name: params[name.removeprefix("feedback.")] for name in state.params})

    step = RULE.step(tiny.net, tiny.task.loss, params, agreed, batch, {}, 0)

    true, mean = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    for name, grad in true.items():
        torch.testing.assert_close(step.grads[name], grad, rtol=1e-9, atol=1e-14)
    assert torch.equal(step.loss, mean)


def test_errors_travel_through_the_feedback_and_both_weights_get_the_same_increment(tiny):
    params, batch, state = begin(tiny)

    step = RULE.step(tiny.net, tiny.task.loss, params, state, batch, {}, 0)

    feedback = {name.removeprefix("feedback."): b for name, b in state.params.items()}
    assert set(feedback) == {name for name, p in params.items() if p.ndim > 1} - FIRST
    wanted, _ = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, *batch)
    for name, grad in wanted.items():
        assert torch.equal(step.grads[name], grad)
    for name in feedback:
        assert torch.equal(step.grads[f"rule.feedback.{name}"], wanted[name])
    assert set(step.grads) == {*params, *(f"rule.feedback.{name}" for name in feedback)}


def test_initial_feedback_is_random_and_of_the_size_of_the_weights_times_scale():
    """2,304 entries: their root mean square has a standard error of 1.5 %."""
    net = Net(
        nn.Sequential(nn.Linear(4, 48), nn.Linear(48, 48)).double(), torch.zeros(1, 4, dtype=torch.float64)
    )
    params = net.init_params()

    feedback = KolenPollack(scale=3.0).init(net, params, None, seeded(0)).params["feedback.1.weight"]

    size = 3 * params["1.weight"].square().mean().sqrt()
    torch.testing.assert_close(feedback.square().mean().sqrt(), size, rtol=0.06, atol=0)
    overlap = torch.cosine_similarity(feedback.flatten(), params["1.weight"].flatten(), dim=0)
    assert abs(float(overlap)) < 0.1  # five standard deviations


# --------------------------------------------------------------------------------------------------------------------
# Decay, under the optimisers that rules are trained with


def trained(optimizer, steps, weight_decay=DECAY, schedule="constant", lr=LR):
    """W - B of every layer before training and after each step; how far each W went, relative to its size."""
    tiny = tiny_net("mlp")
    budget = Budget(1, 8, lr, optimizer=optimizer, weight_decay=weight_decay, schedule=schedule)
    batches = [tiny.batch(8, seed=t) for t in range(steps)]
    first = Batch(batches[0].x[None], batches[0].y[None])
    trainer = Trainer(
        RULE, tiny.net, tiny.task.loss, [Values(tiny.params(), {}, {})], first, [0], budget, steps
    )
    start = {name: p.clone() for name, p in trainer.params.items()}
    layers = [name.removeprefix("feedback.") for name in trainer.state.params]
    seen = {name: [trainer.params[name] - trainer.state.params[f"feedback.{name}"]] for name in layers}
    for x, y in batches:
        trainer.step(Batch(x[None], y[None]))
        for name in layers:
            seen[name].append(trainer.params[name] - trainer.state.params[f"feedback.{name}"])
    moved = {name: float((trainer.params[name] - start[name]).norm() / start[name].norm()) for name in layers}
    return seen, moved


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("lr", [LR, 0.1])
@pytest.mark.parametrize("steps", [20, 40])
def test_training_shrinks_the_difference_by_exp_minus_decay_in_equal_steps(optimizer, lr, steps):
    """Whatever the optimiser, its learning rate and the number of steps."""
    seen, moved = trained(optimizer, steps, lr=lr)

    assert len(seen) == 2
    for name, distances in seen.items():
        assert len(distances) == steps + 1
        for t, distance in enumerate(distances):
            expect_close(distance, distances[0] * math.exp(-DECAY * t / steps))
        assert moved[name] > 0.2  # and all the while the weights learn


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_under_a_schedule_each_step_has_its_share_of_the_decay(optimizer):
    steps = 12
    seen, _ = trained(optimizer, steps, schedule="cosine")

    factors = [(1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]
    for distances in seen.values():
        for t, distance in enumerate(distances):
            expect_close(distance, distances[0] * math.exp(-DECAY * sum(factors[:t]) / sum(factors)))


def test_the_decay_is_that_of_the_papers():
    """ΔW = -η m - λ W under SGD with momentum m, by hand, with λ = 1 - exp(-decay / steps) and no learning rate in it."""
    tiny, steps = tiny_net("mlp"), 5
    batches = [tiny.batch(8, seed=t) for t in range(steps)]
    first = Batch(batches[0].x[None], batches[0].y[None])
    budget = Budget(1, 8, LR, optimizer="sgd", weight_decay=DECAY)
    values = [Values(tiny.params(), {}, {})]
    trainer = Trainer(RULE, tiny.net, tiny.task.loss, values, first, [0], budget, steps)
    tensors = {name: p.clone() for name, p in trainer.trained.items()}
    momentum = {name: torch.zeros_like(p) for name, p in tensors.items()}

    for x, y in batches:
        own = {n.removeprefix("rule."): p for n, p in tensors.items() if n.startswith("rule.")}
        params = {n: p for n, p in tensors.items() if not n.startswith("rule.")}
        step = RULE.step(tiny.net, tiny.task.loss, params, State(own), Batch(x, y), {}, 0)
        momentum = {n: 0.9 * m + step.grads[n] for n, m in momentum.items()}
        tensors = {n: p - LR * momentum[n] - (1 - math.exp(-DECAY / steps)) * p for n, p in tensors.items()}
        trainer.step(Batch(x[None], y[None]))

    for name, p in trainer.trained.items():
        expect_close(p, tensors[name])


def test_without_decay_the_difference_stays():
    seen, _ = trained("adam", steps=10, weight_decay=0.0)

    for distances in seen.values():
        expect_close(distances[-1], distances[0])


def test_the_rule_asks_for_decay_by_default():
    assert KolenPollack().weight_decay > 0
    with pytest.raises(OptionError, match="weight_decay must be a number in"):
        KolenPollack(weight_decay=None)  # a task's has another unit


def test_weights_that_no_linear_or_convolution_layer_uses_are_refused():
    transposed = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ConvTranspose1d(2, 1, 3), nn.Flatten(), nn.Linear(6, 2))
    net = Net(transposed, torch.zeros(2, 1, 6))

    assert "'1.weight'" in RULE.skip(net, None)
    assert RULE.skip(tiny_net("rnn").net, None) is None


# --------------------------------------------------------------------------------------------------------------------
# One default for both optimisers


class DigitsMLP(DigitsRNN):
    """The digits by two dense layers of 128 units."""

    def network(self):
        return MLP((64, 128, 128, 10))


TASKS = {"mlp": DigitsMLP(), "cnn": DigitsCNN(width=0.5), "rnn": DigitsRNN()}
LEARNING_RATES = {"adam": 0.01, "sgd": 0.1}  # the best of a few on validation data, over all three tasks
POINTS = (
    0.03  # of accuracy; with five seeds and tuned rates 0.006 (mlp), 0.012 (cnn) and 0.005 (rnn) were seen
)


def accuracy(task, optimizer, seeds=(0, 1, 2)):
    """On test data, after the task's number of epochs with the rule's defaults; the mean over the seeds."""
    lr = LEARNING_RATES[optimizer]
    budget = replace(task.budget, optimizer=optimizer, lr=lr, weight_decay=RULE.weight_decay)
    data = task.data(None)
    net, values = build(task, seeds, data.train.x[:2], torch.device("cpu"))
    batches = Batches(data.train, budget.batch, seeds)
    order = [which for epoch in range(budget.epochs) for which in batches.epoch(epoch).unbind(1)]
    trainer = Trainer(RULE, net, task.loss, values, batches.take(order[0]), seeds, budget, len(order))
    for which in order:
        trainer.step(batches.take(which))
    scores = [task.score(y, data.test.y).mean() for y in trainer.predict(data.test.x)]
    return float(torch.stack(scores).mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_sgd_comes_as_far_as_adam(kind):
    adam, sgd = (accuracy(TASKS[kind], optimizer) for optimizer in ("adam", "sgd"))

    assert min(adam, sgd) > 0.85
    assert abs(adam - sgd) < POINTS, (adam, sgd)
