"""Equilibrium propagation, held to its energy written out by hand, and to backpropagation through its relaxation."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, Site, State, credit
from rulezoo.testing import TinyTask, tiny_net
from rulezoo_plugins.equilibrium.rules import EquilibriumPropagation, SymmetricEquilibriumPropagation
from rulezoo_tasks.networks import ConvNet

RULES = [EquilibriumPropagation, SymmetricEquilibriumPropagation]
SETTLED = {"free": 200, "nudged": 200, "rate": 0.9}


class Pooled(NamedTuple):
    """Two convolutions, both pooled, and a dense layer, on the images of the tiny network."""

    name: str
    net: Net
    task: TinyTask

    def params(self):
        return drawn_params()

    def batch(self):
        return tiny_net("cnn").batch()


@cache
def drawn_params():
    """Made once: a module cannot be made within a transform of torch.func, where some tests ask for them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ConvNet((1, 6, 6), (4, 5), pool=(True, True), hidden=7, classes=3).double()
    return {name: 0.8 * p.detach() for name, p in module.named_parameters()}


@cache
def network(name):
    if name == "mlp":
        return tiny_net("mlp")
    module = ConvNet((1, 6, 6), (4, 5), pool=(True, True), hidden=7, classes=3).double()
    return Pooled("cnn", Net(module, torch.zeros(2, 1, 6, 6).double()), TinyTask("cnn"))


@pytest.fixture(params=["mlp", "cnn"])
def layered(request):
    return network(request.param)


def first(rule, tiny, params=None, sign=1.0):
    params, noise = params or tiny.params(), {"direction": torch.tensor([sign]).double()}
    return rule.step(tiny.net, tiny.task.loss, params, State(), tiny.batch(), noise, 0)


def assert_equal(grads, expected, rtol=1e-9, atol=1e-12):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=atol, msg=name)


def norm(grads):
    return sum((g**2).sum() for g in grads.values()).sqrt().item()


def distance(some, others):
    return norm({name: some[name] - others[name] for name in others}) / norm(others)


# A perceptron, written out layer by layer and example by example ---------------------------------------------------


def relaxed_by_hand(p, x, y, s1, s2, steps, beta, rate):
    """The states of one example after some steps."""
    for _ in range(steps):
        error = torch.softmax(p["readout.weight"] @ s2 + p["readout.bias"], 0) - F.one_hot(y, 3)
        input1 = p["fc1.weight"] @ x + p["fc1.bias"] + p["fc2.weight"].T @ s2
        input2 = p["fc2.weight"] @ s1 + p["fc2.bias"] - beta * p["readout.weight"].T @ error
        s1, s2 = (torch.clamp((1 - rate) * s + rate * u, 0, 1) for s, u in ((s1, input1), (s2, input2)))
    return s1, s2


def slopes_by_hand(p, x, y, s1, s2, beta):
    """∂E/∂W of one example."""
    error = torch.softmax(p["readout.weight"] @ s2 + p["readout.bias"], 0) - F.one_hot(y, 3)
    return {
        "fc1.weight": -torch.outer(s1, x),
        "fc1.bias": -s1,
        "fc2.weight": -torch.outer(s2, s1),
        "fc2.bias": -s2,
        "readout.weight": beta * torch.outer(error, s2),
        "readout.bias": beta * error,
    }


def written_out(p, batch, betas, free, nudged, rate):
    """The mean over examples of the difference of slopes at two nudges, and the outputs of the free phase."""
    grads, outputs = {name: torch.zeros_like(v) for name, v in p.items()}, []
    for x, y in zip(*batch, strict=True):
        rest = relaxed_by_hand(p, x, y, torch.zeros(8).double(), torch.zeros(7).double(), free, 0.0, rate)
        outputs.append(p["readout.weight"] @ rest[1] + p["readout.bias"])
        slopes = []
        for beta in betas:
            s = relaxed_by_hand(p, x, y, *rest, nudged, beta, rate) if beta else rest
            slopes.append(slopes_by_hand(p, x, y, *s, beta))
        for name in grads:
            grads[name] += (slopes[0][name] - slopes[1][name]) / (betas[0] - betas[1]) / len(batch.x)
    return grads, torch.stack(outputs)


@pytest.mark.parametrize(
    ("rule", "options", "sign", "betas"),
    [
        (RULES[0], {}, 1.0, (0.3, 0.0)),
        (RULES[0], {}, -1.0, (-0.3, 0.0)),
        (RULES[0], {"sign": "positive"}, -1.0, (0.3, 0.0)),
        (RULES[1], {}, 1.0, (0.3, -0.3)),
    ],
)
@pytest.mark.parametrize("rate", [1.0, 0.6])
def test_written_out(mlp, rule, options, sign, betas, rate):
    params, batch = mlp.params(seed=1), mlp.batch()
    one = rule(free=7, nudged=4, beta=0.3, rate=rate, **options)

    result = first(one, mlp, params, sign)

    grads, outputs = written_out(params, batch, betas, 7, 4, rate)
    assert_equal(result.grads, grads)
    torch.testing.assert_close(result.loss, F.cross_entropy(outputs, batch.y))
    torch.testing.assert_close(one.predict(mlp.net, params, State(), batch.x), outputs)


def test_states_reach_both_bounds(mlp):
    """Or the tests above would not see them."""
    params = {name: 4 * v for name, v in mlp.params(seed=1).items()}
    one = EquilibriumPropagation(free=7, nudged=4, beta=0.3)

    grads, _ = written_out(params, mlp.batch(), (0.3, 0.0), 7, 4, 1.0)

    assert_equal(first(one, mlp, params).grads, grads)
    states = torch.stack(
        [relaxed_by_hand(params, x, mlp.batch().y[0], torch.zeros(8).double(), torch.zeros(7).double(), 7, 0, 1)[0]
         for x in mlp.batch().x]
    )  # fmt: skip
    assert (states == 0).any()
    assert (states == 1).any()
    assert ((states > 0) & (states < 1)).any()


# The energy of both networks, as a function ------------------------------------------------------------------------


def phi(kind, p, x, states):
    """Φ, summed over the batch, with the pooled drives of the convolutional network."""
    if kind == "mlp":
        below, layers = (x, states[0]), ["fc1", "fc2"]
        drives = [F.linear(h, p[f"{n}.weight"], p[f"{n}.bias"]) for h, n in zip(below, layers, strict=True)]
    else:
        drives = [
            F.max_pool2d(F.conv2d(h, p[f"{n}.layer.weight"], p[f"{n}.layer.bias"], padding=1), 2)
            for h, n in ((x, "conv1"), (states[0], "conv2"))
        ]
        drives.append(F.linear(states[1].flatten(1), p["fc.layer.weight"], p["fc.layer.bias"]))
    return sum((s * d).sum() for s, d in zip(states, drives, strict=True))


def loss_of(p, y, states, reduction="sum"):
    output = F.linear(states[-1], p["readout.weight"], p["readout.bias"])
    return F.cross_entropy(output, y, reduction=reduction)


def energy(kind, p, x, y, states, beta):
    size = sum((s**2).sum() for s in states) / 2
    return size - phi(kind, p, x, states) + beta * loss_of(p, y, states)


def moved(kind, p, x, y, states, beta, rate):
    slopes = torch.func.grad(energy, argnums=4)(kind, p, x, y, states, beta)
    return [(s - rate * slope).clamp(0, 1) for s, slope in zip(states, slopes, strict=True)]


def states_along(tiny, beta, steps, rate, start=None):
    x, y = tiny.batch()
    states = [start or [tiny.net.zeros(key, len(x)) for key in tiny.net.keys("post")]]
    for _ in range(steps):
        states.append(moved(tiny.name, tiny.params(), x, y, states[-1], beta, rate))
    return states


@cache
def settled(name):
    """The free equilibrium."""
    return states_along(network(name), 0.0, SETTLED["free"], SETTLED["rate"])[-1]


@cache
def through_time(name, steps):
    """The gradient of the mean loss through the last steps of the free phase, by autograd."""
    (x, y), params, start = network(name).batch(), network(name).params(), settled(name)

    def final(p):
        s = start
        for _ in range(steps):
            s = moved(name, p, x, y, s, 0.0, SETTLED["rate"])
        return loss_of(p, y, s, "mean")

    return torch.func.grad(final)(params)


@pytest.mark.parametrize("steps", [3, 4, 20])
@pytest.mark.parametrize("rule", RULES)
def test_updates_are_the_gradients_of_backprop_through_the_relaxation(layered, rule, steps):
    """The gradient-descending updates of Ernoult et al. 2019: after each number of steps of the second phase."""
    one = rule(**{**SETTLED, "nudged": steps}, beta=1e-6)

    assert distance(first(one, layered).grads, through_time(layered.name, steps)) < 1e-4


def test_the_relaxation_has_an_equilibrium_within(layered):
    """Or backprop through it would mean nothing."""
    before = settled(layered.name)
    after = moved(layered.name, layered.params(), *layered.batch(), before, 0.0, SETTLED["rate"])

    assert max((a - b).abs().max() for a, b in zip(before, after, strict=True)) < 1e-12
    assert all(((s > 0) & (s < 1)).any() for s in after)


def test_the_mean_over_both_signs_of_the_nudge_is_the_symmetric_form(layered):
    ahead, back = (first(RULES[0](), layered, sign=sign).grads for sign in (1.0, -1.0))

    assert_equal({name: (g + back[name]) / 2 for name, g in ahead.items()}, first(RULES[1](), layered).grads)
    assert distance(ahead, back) > 0.1


def test_the_sign_of_the_nudge_is_drawn_for_each_batch(mlp):
    gen = torch.Generator().manual_seed(0)
    signs = [
        RULES[0]().noise(mlp.net, State(), mlp.batch(), gen, t)["direction"].sign().item() for t in range(400)
    ]

    assert set(signs) == {1.0, -1.0}
    assert abs(sum(signs)) < 80  # four standard deviations of a sum of 400 fair signs
    assert RULES[0](sign="positive").noise(mlp.net, State(), mlp.batch(), gen, 0) == {}


@pytest.mark.parametrize(("rule", "order"), [(RULES[0], 1), (RULES[1], 2)])
def test_the_bias_is_of_first_order_in_the_nudge_and_of_second_if_it_is_symmetric(mlp, rule, order):
    true = through_time("mlp", 200)
    off = [distance(first(rule(**SETTLED, beta=beta), mlp).grads, true) for beta in (2e-3, 1e-3)]

    assert off[0] / off[1] == pytest.approx(2**order, rel=0.05)


def test_by_default_the_angle_to_backprop_through_the_relaxation_is_below_forty_degrees(layered):
    true, names = (
        through_time(layered.name, 200),
        [n for n in layered.params() if n not in layered.net.readout],
    )
    cosines = []
    for rule in RULES:
        flat = (torch.cat([g[n].flatten() for n in names]) for g in (first(rule(), layered).grads, true))
        cosines.append(torch.cosine_similarity(*flat, dim=0).item())

    assert all(math.cos(math.radians(40)) < cosine < 0.999 for cosine in cosines)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_energy_falls_at_every_step(layered, beta):
    x, y = layered.batch()
    start = None if beta == 0 else states_along(layered, 0.0, 60, 0.3)[-1]
    states = states_along(layered, beta, 30, 0.3, start)
    energies = [energy(layered.name, layered.params(), x, y, s, beta).item() for s in states]

    assert all(after < before for before, after in pairwise(energies))


@pytest.mark.parametrize("rule", RULES)
def test_neither_is_backprop_through_the_forward_network(layered, rule):
    true, _ = credit.backprop(layered.net, layered.task.loss, layered.params(), *layered.batch())
    names = [n for n in true if n not in layered.net.readout]
    flat = (torch.cat([g[n].flatten() for n in names]) for g in (first(rule(), layered).grads, true))

    assert 0 < torch.cosine_similarity(*flat, dim=0) < 0.9


def test_a_skip_connection_is_a_coupling_of_weight_one():
    tiny = tiny_net("cnn")
    p, (x, y), beta = tiny.params(), tiny.batch(), 0.3

    def phi(p, s1, s2):
        d1 = F.max_pool2d(F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1), 2)
        d2 = s1 + F.conv2d(s1, p["conv2.weight"], p["conv2.bias"], padding=1)
        return (s1 * d1).sum() + (s2 * d2).sum()

    def nudged(p, s1, s2, beta):
        output = F.linear(s2.flatten(1), p["readout.weight"], p["readout.bias"])
        return phi(p, s1, s2) - beta * F.cross_entropy(output, y, reduction="sum")

    def along(s, steps, beta):
        for _ in range(steps):
            s = [u.clamp(0, 1) for u in torch.func.grad(nudged, argnums=(1, 2))(p, *s, beta)]
        return s

    rest = along([tiny.net.zeros(key, len(x)) for key in ("post1", "post2")], 5, 0.0)
    slopes = torch.func.grad(nudged)(p, *along(rest, 3, beta), beta)
    free = torch.func.grad(nudged)(p, *rest, 0.0)

    grads = first(EquilibriumPropagation(free=5, nudged=3, beta=beta), tiny).grads

    assert_equal(grads, {name: (free[name] - slopes[name]) / beta / len(x) for name in p})


# What it serves ------------------------------------------------------------------------------------------------------


def net_of(*modules):
    return Net(nn.Sequential(*modules), torch.randn(2, 5))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: net_of(nn.Linear(5, 3)), "sites of kind 'post', and this network has none"),
        (lambda: tiny_net("rnn").net, "for one input, and this network has time steps"),
        (
            lambda: net_of(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), Site("post"), nn.Linear(4, 3)),
            "this network normalises over the batch",
        ),
        (
            lambda: net_of(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), Site("post"), nn.Linear(4, 3)),
            "in front of '4' there are 2",
        ),
        (lambda: net_of(nn.Linear(5, 4), Site("post"), nn.Linear(4, 3)), "in front of '1' there are 0"),
    ],
)  # fmt: skip
def test_what_it_cannot_serve_is_skipped_in_a_sentence(rule, make, message):
    assert message in rule().skip(make(), None)


@pytest.mark.parametrize("rule", RULES)
def test_a_nudge_that_cannot_reach_every_layer_is_refused(mlp, rule):
    assert "does not reach the first of the 2 layers in 1 steps; set nudged to 2" in rule(nudged=1).skip(
        mlp.net, None
    )
    assert rule(nudged=2).skip(mlp.net, None) is None
    assert all(g.any() for g in first(rule(nudged=2), mlp).grads.values())


@pytest.mark.parametrize("rule", RULES)
def test_all_weights_but_the_read_outs_learn_more_slowly(mlp, rule):
    names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert rule(coupling_rate=0.25).rates(mlp.net) == dict.fromkeys(names, 0.25)
