"""Predictive coding, held to its energy written out by hand, and to its limits."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, State, credit
from rulezoo_plugins.predictive_coding.rules import (
    ErrorBasedPredictiveCoding,
    FixedPredictionCoding,
    IncrementalPredictiveCoding,
    PredictiveCoding,
)

RULES = [PredictiveCoding, FixedPredictionCoding, IncrementalPredictiveCoding, ErrorBasedPredictiveCoding]


def first(rule, tiny, params=None, batch=None):
    params, batch = params or tiny.params(), batch or tiny.batch()
    return rule.step(tiny.net, tiny.task.loss, params, State(), batch, {}, 0).grads


def assert_equal(grads, expected, rtol=1e-9):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=1e-13, msg=name)


def cosine(some, others, names):
    flat = (torch.cat([one[name].flatten() for name in names]) for one in (some, others))
    return torch.cosine_similarity(*flat, dim=0).item()


def hidden(tiny):
    return [name for name in tiny.params() if name not in tiny.net.readout]


# The energy of a perceptron, written out --------------------------------------------------------------------------


def predicted(params, x, x1, x2):
    f1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    f2 = torch.tanh(x1 @ params["fc2.weight"].T + params["fc2.bias"])
    return f1, f2, x2 @ params["readout.weight"].T + params["readout.bias"]


def energy(params, x, y, x1, x2):
    f1, f2, output = predicted(params, x, x1, x2)
    return (
        ((x1 - f1) ** 2).sum() / 2 + ((x2 - f2) ** 2).sum() / 2 + F.cross_entropy(output, y, reduction="sum")
    )


def at_rest(params, x):
    f1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    return f1, torch.tanh(f1 @ params["fc2.weight"].T + params["fc2.bias"])


def slopes_of_activities(params, x, y, x1, x2):
    return torch.func.grad(energy, argnums=(3, 4))(params, x, y, x1, x2)


def slopes_of_weights(params, x, y, x1, x2):
    return {name: g / len(x) for name, g in torch.func.grad(energy)(params, x, y, x1, x2).items()}


def relaxed(params, x, y, steps, rate):
    x1, x2 = at_rest(params, x)
    for _ in range(steps):
        d1, d2 = slopes_of_activities(params, x, y, x1, x2)
        x1, x2 = x1 - rate * d1, x2 - rate * d2
    return x1, x2


def test_relaxing_written_out(mlp):
    params, (x, y) = mlp.params(), mlp.batch()

    grads = first(PredictiveCoding(steps=7, rate=0.3), mlp)

    assert_equal(grads, slopes_of_weights(params, x, y, *relaxed(params, x, y, 7, 0.3)))


def test_incremental_written_out(mlp):
    params, (x, y) = mlp.params(), mlp.batch()
    lr, now = 0.05, dict(params)
    x1, x2 = at_rest(params, x)
    for _ in range(6):
        d1, d2 = slopes_of_activities(now, x, y, x1, x2)
        moved = {name: now[name] - lr * g for name, g in slopes_of_weights(now, x, y, x1, x2).items()}
        x1, x2, now = x1 - 0.3 * d1, x2 - 0.3 * d2, moved

    grads = first(IncrementalPredictiveCoding(steps=6, rate=0.3, weight_rate=lr), mlp)

    assert_equal({name: params[name] - lr * g for name, g in grads.items()}, now)


def test_error_based_written_out(mlp):
    params, (x, y) = mlp.params(), mlp.batch()

    def states(e1, e2):
        x1 = e1 + torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
        return x1, e2 + torch.tanh(x1 @ params["fc2.weight"].T + params["fc2.bias"])

    def in_errors(e1, e2):
        return energy(params, x, y, *states(e1, e2))

    e1, e2 = (torch.zeros_like(h) for h in at_rest(params, x))
    for _ in range(7):
        d1, d2 = torch.func.grad(in_errors, argnums=(0, 1))(e1, e2)
        e1, e2 = e1 - 0.3 * d1, e2 - 0.3 * d2

    grads = first(ErrorBasedPredictiveCoding(steps=7, rate=0.3), mlp)

    assert_equal(grads, slopes_of_weights(params, x, y, *states(e1, e2)))


def test_fixed_predictions_written_out(mlp):
    params, (x, y) = mlp.params(), mlp.batch()
    h1, h2 = at_rest(params, x)
    output = h2 @ params["readout.weight"].T + params["readout.bias"]
    top = output.softmax(1) - F.one_hot(y, 3)
    e1, e2 = torch.zeros_like(h1), torch.zeros_like(h2)
    for _ in range(5):
        down = (e2 * (1 - h2**2)) @ params["fc2.weight"]
        e1, e2 = e1 + 0.3 * (down - e1), e2 + 0.3 * (top @ params["readout.weight"] - e2)
    d1, d2, n = e1 * (1 - h1**2), e2 * (1 - h2**2), len(x)

    grads = first(FixedPredictionCoding(steps=5, rate=0.3), mlp)

    assert_equal(
        grads,
        {
            "fc1.weight": d1.T @ x / n,
            "fc1.bias": d1.sum(0) / n,
            "fc2.weight": d2.T @ h1 / n,
            "fc2.bias": d2.sum(0) / n,
            "readout.weight": top.T @ h2 / n,
            "readout.bias": top.sum(0) / n,
        },
    )


# Limits --------------------------------------------------------------------------------------------------------------


def test_fixed_predictions_are_backprop_once_every_site_has_heard_the_error(tiny):
    true, _ = credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())
    sites = len(tiny.net.keys("post"))

    assert_equal(first(FixedPredictionCoding(rate=1, steps=sites), tiny), true)
    short = first(FixedPredictionCoding(rate=1, steps=sites - 1), tiny)
    assert cosine(short, true, true) < 1 - 1e-6, "a site has not heard the error after one step less"


@pytest.mark.parametrize("rule", [PredictiveCoding, ErrorBasedPredictiveCoding])
def test_where_errors_are_small_relaxing_gives_the_direction_of_backprop(tiny, rule):
    """With ε L in place of L the errors are of order ε, and the relaxed energy's slope is ε ∂L/∂W + O(ε²)."""
    true, _ = credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())
    off = {}
    for size in (1e-2, 1e-3):

        def small(output, y, size=size):
            return size * tiny.task.loss(output, y)

        relaxing = rule(steps=400, rate=0.2)
        grads = relaxing.step(tiny.net, small, tiny.params(), State(), tiny.batch(), {}, 0).grads
        distance = sum(((grads[n] / size - true[n]) ** 2).sum() for n in true) ** 0.5
        off[size] = (distance / sum((g**2).sum() for g in true.values()) ** 0.5).item()
    assert off[1e-3] < 0.01
    assert off[1e-2] / off[1e-3] == pytest.approx(10, rel=0.2), (
        "the difference is of first order in the error"
    )


def test_errors_and_activities_relax_to_the_same_equilibrium(mlp):
    by_activities = first(PredictiveCoding(steps=3000, rate=0.2), mlp)
    by_errors = first(ErrorBasedPredictiveCoding(steps=3000, rate=0.2), mlp)

    assert_equal(by_errors, by_activities, rtol=1e-7)


def test_incremental_with_weights_at_rest_sums_the_slopes_of_relaxing(mlp):
    each = [first(PredictiveCoding(steps=k, rate=0.3), mlp) for k in range(1, 5)]
    start = slopes_of_weights(mlp.params(), *mlp.batch(), *at_rest(mlp.params(), mlp.batch().x))

    summed = first(IncrementalPredictiveCoding(steps=5, rate=0.3, weight_rate=0), mlp)

    assert_equal(summed, {name: start[name] + sum(one[name] for one in each) for name in start})


def test_the_energy_falls_at_every_step(mlp):
    params, (x, y) = mlp.params(), mlp.batch()
    energies = [energy(params, x, y, *relaxed(params, x, y, steps, 0.1)).item() for steps in range(30)]

    assert all(after < before for before, after in pairwise(energies))


@pytest.mark.parametrize("rule", RULES)
def test_none_is_backprop_by_default(tiny, rule):
    true, _ = credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())

    assert 0 < cosine(first(rule(), tiny), true, hidden(tiny)) < 0.9999


def test_a_network_without_activities_to_relax_is_skipped_in_a_sentence(mlp):
    bare = Net(nn.Linear(5, 3), torch.zeros(2, 5))
    for rule in RULES:
        assert "needs sites of kind 'post'" in rule().skip(bare, mlp.task)
