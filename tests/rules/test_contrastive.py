"""Contrastive Hebbian learning and dual propagation, written out by hand, and held to backprop at small nudges."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, Site, State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.contrastive.rules import ContrastiveHebbianLearning, DualPropagation
from rulezoo_tasks.networks import ConvNet

RULES = [ContrastiveHebbianLearning, DualPropagation]


def first(rule, net, params, batch):
    return rule.step(net, tiny_net("mlp").task.loss, params, State(), batch, {}, 0)


def of_tiny(rule, tiny, seed=0):
    return first(rule, tiny.net, tiny.params(seed), tiny.batch())


@pytest.fixture
def pooled():
    """Two convolutions with rectifiers, both pooled, and a dense layer: the network, parameters, a batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ConvNet((1, 6, 6), (4, 5), pool=(True, True), hidden=7, classes=3).double()
    net = Net(module, torch.zeros(2, 1, 6, 6).double())
    return net, {n: p.detach() for n, p in module.named_parameters()}, tiny_net("cnn").batch()


def assert_equal(grads, expected, rtol=1e-9, atol=1e-12):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=atol, msg=name)


def hidden_part(grads, net):
    return torch.cat([g.flatten() for name, g in grads.items() if name not in net.readout])


def distance(some, others):
    size = sum((g**2).sum() for g in others.values()).sqrt()
    return (sum(((some[n] - others[n]) ** 2).sum() for n in others).sqrt() / size).item()


def angle(some, others, net):
    cosine = torch.cosine_similarity(hidden_part(some, net), hidden_part(others, net), dim=0)
    return math.degrees(math.acos(min(1.0, cosine.item())))


# A perceptron, written out layer by layer and example by example ---------------------------------------------------


def forward(p, x):
    x1 = torch.tanh(p["fc1.weight"] @ x + p["fc1.bias"])
    return x1, torch.tanh(p["fc2.weight"] @ x1 + p["fc2.bias"])


def output_of(p, x2):
    return p["readout.weight"] @ x2 + p["readout.bias"]


def error_of(p, x2, y):
    return torch.softmax(output_of(p, x2), 0) - F.one_hot(y, 3)


def hebbian(x, x1, x2, out):
    """Correlations of what each weight connects, of one example."""
    return {
        "fc1.weight": torch.outer(x1, x),
        "fc1.bias": x1,
        "fc2.weight": torch.outer(x2, x1),
        "fc2.bias": x2,
        "readout.weight": torch.outer(out, x2),
        "readout.bias": out,
    }


def settled(p, x, x1, x2, steps, gamma, ceiling, clamped=None):
    for _ in range(steps):
        out = output_of(p, x2) if clamped is None else clamped
        x1, x2 = (
            torch.tanh(p["fc1.weight"] @ x + p["fc1.bias"] + gamma * p["fc2.weight"].T @ x2).clamp(
                max=ceiling
            ),
            torch.tanh(p["fc2.weight"] @ x1 + p["fc2.bias"] + gamma * p["readout.weight"].T @ out).clamp(
                max=ceiling
            ),
        )
    return x1, x2


@pytest.mark.parametrize("ceiling", [1.0, 0.3])
def test_contrastive_hebbian_learning_written_out(mlp, ceiling):
    p, batch, gamma = mlp.params(seed=1), mlp.batch(), 0.4
    scales = {"fc1": gamma**-2, "fc2": gamma**-1, "readout": 1.0}
    grads, outputs = {name: torch.zeros_like(v) for name, v in p.items()}, []
    for x, y in zip(*batch, strict=True):
        free = settled(p, x, *forward(p, x), 5, gamma, ceiling)
        out = output_of(p, free[1])
        outputs.append(out)
        target = out - error_of(p, free[1], y)
        clamped = settled(p, x, *free, 5, gamma, ceiling, target)
        without, with_target = hebbian(x, *free, out), hebbian(x, *clamped, target)
        for name in grads:
            scale = scales[name.split(".")[0]] / len(batch.x)
            grads[name] += scale * (without[name] - with_target[name])
    rule = ContrastiveHebbianLearning(steps=5, feedback=gamma, ceiling=ceiling)

    result = first(rule, mlp.net, p, batch)

    assert_equal(result.grads, grads)
    torch.testing.assert_close(result.loss, F.cross_entropy(torch.stack(outputs), batch.y))
    torch.testing.assert_close(rule.predict(mlp.net, p, State(), batch.x), torch.stack(outputs))


def test_for_a_squared_error_the_output_is_clamped_at_the_target(mlp):
    p, (x, _), gamma = mlp.params(), mlp.batch(), 0.4
    target = torch.linspace(-1, 1, 36).double().view(12, 3)
    rule = ContrastiveHebbianLearning(steps=5, feedback=gamma, ceiling=1.0)
    grads = rule.step(
        mlp.net, lambda o, y: ((o - y) ** 2).sum(1) / 2, p, State(), mlp.batch()._replace(y=target), {}, 0
    ).grads

    expected = torch.zeros(3, 7).double()
    for one, wanted in zip(x, target, strict=True):
        free = settled(p, one, *forward(p, one), 5, gamma, 1.0)
        clamped = settled(p, one, *free, 5, gamma, 1.0, wanted)
        expected += (torch.outer(output_of(p, free[1]), free[1]) - torch.outer(wanted, clamped[1])) / 12
    torch.testing.assert_close(grads["readout.weight"], expected)


def dyads(p, x, y, steps, beta):
    x1, x2 = forward(p, x)
    d1, d2 = torch.zeros_like(x1), torch.zeros_like(x2)
    for _ in range(steps):
        a1, a2 = p["fc1.weight"] @ x + p["fc1.bias"], p["fc2.weight"] @ x1 + p["fc2.bias"]
        b1, b2 = p["fc2.weight"].T @ d2, p["readout.weight"].T @ (-beta * error_of(p, x2, y))
        up = torch.tanh(a1 + b1 / 2), torch.tanh(a2 + b2 / 2)
        down = torch.tanh(a1 - b1 / 2), torch.tanh(a2 - b2 / 2)
        (d1, d2), (x1, x2) = zip(*((u - v, (u + v) / 2) for u, v in zip(up, down, strict=True)), strict=True)
    return x1, x2, d1, d2


@pytest.mark.parametrize(("steps", "beta"), [(2, 1.0), (3, 5.0), (7, 5.0)])
def test_dual_propagation_written_out(mlp, steps, beta):
    p, batch = mlp.params(seed=1), mlp.batch()
    grads = {name: torch.zeros_like(v) for name, v in p.items()}
    for x, y in zip(*batch, strict=True):
        x1, x2, d1, d2 = dyads(p, x, y, steps, beta)
        error = error_of(p, x2, y)
        one = {
            "fc1.weight": -torch.outer(d1, x) / beta,
            "fc1.bias": -d1 / beta,
            "fc2.weight": -torch.outer(d2, x1) / beta,
            "fc2.bias": -d2 / beta,
            "readout.weight": torch.outer(error, x2),
            "readout.bias": error,
        }
        grads = {name: grads[name] + g / len(batch.x) for name, g in one.items()}

    result = first(DualPropagation(steps=steps, beta=beta), mlp.net, p, batch)

    assert_equal(result.grads, grads)
    torch.testing.assert_close(result.loss, F.cross_entropy(mlp.net.run(p, batch.x), batch.y))


# Limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "option", "sizes", "order"),
    [
        (partial(ContrastiveHebbianLearning, ceiling=1.0), "feedback", (2e-3, 1e-3), 1),
        (DualPropagation, "beta", (0.2, 0.1), 2),
    ],
)
def test_the_difference_from_backprop_is_of_first_order_in_feedback_and_of_second_in_the_nudge(
    mlp, rule, option, sizes, order
):
    true, _ = credit.backprop(mlp.net, mlp.task.loss, mlp.params(), *mlp.batch())
    off = [distance(of_tiny(rule(**{option: size}), mlp).grads, true) for size in sizes]

    assert off[1] < 1e-3
    assert off[0] / off[1] == pytest.approx(2**order, rel=0.02)


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [
        (ContrastiveHebbianLearning(feedback=1e-3, ceiling=100), 2e-3),
        (ContrastiveHebbianLearning(feedback=1e-3, ceiling=100, steps=6), 2e-3),
        (DualPropagation(beta=1e-4), 1e-9),
        (DualPropagation(beta=1e-4, steps=3), 1e-9),
    ],
)
def test_with_pooled_rectifiers_the_limit_is_backprop(pooled, rule, tolerance):
    net, params, batch = pooled
    true, _ = credit.backprop(net, tiny_net("cnn").task.loss, params, *batch)

    assert rule.skip(net, None) is None
    assert distance(first(rule, net, params, batch).grads, true) < tolerance


def test_by_default_the_angle_to_backprop_is_above_zero_and_below_forty_five_degrees(mlp, pooled):
    net, params, batch = pooled
    for one, p, b in ((mlp.net, mlp.params(), mlp.batch()), (net, params, batch)):
        true, _ = credit.backprop(one, mlp.task.loss, p, *b)
        for rule in RULES:
            assert 0.1 < angle(first(rule(), one, p, b).grads, true, one) < 45


def test_a_larger_nudge_takes_a_difference_in_place_of_the_derivative(mlp):
    """With a nudge that drives the units of the last layer to both bounds, the difference no longer grows with it."""
    large, larger = (
        of_tiny(DualPropagation(beta=beta, steps=2), mlp).grads["fc2.bias"] for beta in (1e4, 2e4)
    )
    torch.testing.assert_close(2 * larger, large, rtol=1e-3, atol=0)


# What they serve -----------------------------------------------------------------------------------------------------


def net_of(*modules):
    return Net(nn.Sequential(*modules), torch.randn(2, 5))


class Branches(nn.Module):
    """Two hidden layers side by side."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.readout = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)
        self.post1, self.post2 = Site("post"), Site("post")

    def forward(self, x):
        return self.readout(self.post1(self.one(x).relu()) + self.post2(self.other(x).relu()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: net_of(nn.Linear(5, 3)), "sites of kind 'post', and this network has none"),
        (lambda: tiny_net("rnn").net, "for one input, and this network has time steps"),
        (lambda: tiny_net("cnn").net, "'post2' is not an activation function of the drive of one layer"),
    ],
)
def test_what_they_cannot_serve_is_skipped_in_a_sentence(rule, make, message):
    assert message in rule().skip(make(), None)


@pytest.mark.parametrize("rule", RULES)
def test_feedback_that_cannot_reach_every_layer_is_refused(mlp, rule):
    short = rule(steps=1).skip(mlp.net, None)
    assert "does not reach the first of the 2 layers in 1 steps; set steps to 2 or more" in short
    assert rule(steps=2).skip(mlp.net, None) is None
    assert all(g.any() for g in of_tiny(rule(steps=2), mlp).grads.values())


def test_layers_side_by_side_are_served_by_dual_propagation_alone():
    net = Net(Branches().double(), torch.randn(2, 5).double())
    params, batch = net.init_params(), tiny_net("mlp").batch()
    true, _ = credit.backprop(net, tiny_net("mlp").task.loss, params, *batch)

    assert "the layers here are fed by" in ContrastiveHebbianLearning().skip(net, None)
    assert DualPropagation().skip(net, None) is None
    assert distance(first(DualPropagation(beta=1e-4), net, params, batch).grads, true) < 1e-9
