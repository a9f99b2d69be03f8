"""Perturbations, held to their equations by loops, and to the gradient by an orthonormal basis in place of the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, OptionError, Site, State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.perturbations.rules import (
    ActivityNodePerturbation,
    DecorrelatedNodePerturbation,
    WeightPerturbation,
)

RULES = [WeightPerturbation, ActivityNodePerturbation, DecorrelatedNodePerturbation]
SMALL = 1e-5  # size of the noise in a limit: differences are off by its square, and by rounding over it


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def begun(rule, tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, batch, rule.init(tiny.net, params, batch, gen())


def step(rule, tiny, noise, state=None):
    params, batch, first = begun(rule, tiny)
    return rule.step(tiny.net, tiny.task.loss, params, state or first, batch, noise, 0)


def gradient(tiny):
    return credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())[0]


def hidden(net):
    return {name: shape for name, shape in net.shapes.items() if name not in net.readout}


def split(rows, shapes):
    """Rows of a matrix as tensors of these shapes, ``(rows, *shape)`` each."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = rows.split(sizes, 1)
    return {name: part.view(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def basis_of(shapes):
    width = sum(torch.Size(shape).numel() for shape in shapes.values())
    return torch.linalg.qr(torch.randn(width, width, generator=gen(5), dtype=torch.float64))[0]


def assert_equal(grads, expected, rtol=1e-9, atol=1e-12):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=atol, msg=name)


# Weight perturbation -------------------------------------------------------------------------------------------------


def loss_of(params, x, y):
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    return F.cross_entropy(h2 @ params["readout.weight"].T + params["readout.bias"], y)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("noise_per", ["example", "batch"])
def test_weight_perturbation_by_loops(mlp, antithetic, noise_per):
    rule = WeightPerturbation(sigma=0.1, draws=2, antithetic=antithetic, noise_per=noise_per)
    params, batch, state = begun(rule, mlp)
    noise = rule.noise(mlp.net, state, batch, gen(3), 0)
    expected = {name: torch.zeros_like(params[name]) for name in hidden(mlp.net)}
    examples = len(batch.x) if noise_per == "example" else 1
    for draw in range(2):
        for n in range(examples):
            x, y = (part[n : n + 1] if noise_per == "example" else part for part in batch)
            xi = {name: 0.1 * noise[name][draw, n] for name in expected}
            ahead = loss_of({**params, **{k: params[k] + v for k, v in xi.items()}}, x, y)
            behind = loss_of({**params, **{k: params[k] - v for k, v in xi.items()}}, x, y)
            change = (ahead - behind) / 2 if antithetic else ahead - loss_of(params, x, y)
            for name in expected:
                expected[name] += change * xi[name] / 0.1**2 / (2 * examples)

    result = step(rule, mlp, noise)

    assert_equal({name: result.grads[name] for name in expected}, expected)
    assert_equal(
        {n: result.grads[n] for n in mlp.net.readout}, {n: gradient(mlp)[n] for n in mlp.net.readout}
    )
    torch.testing.assert_close(result.loss, loss_of(params, *batch))


@pytest.mark.parametrize("noise_per", ["example", "batch"])
def test_over_an_orthonormal_basis_of_the_weights_it_sums_to_the_gradient(tiny, noise_per):
    shapes = hidden(tiny.net)
    basis, examples = split(basis_of(shapes), shapes), len(tiny.batch().x) if noise_per == "example" else 1
    noise = {name: z[:, None].expand(-1, examples, *z.shape[1:]) for name, z in basis.items()}
    draws = len(next(iter(basis.values())))

    grads = step(WeightPerturbation(sigma=SMALL, draws=draws, noise_per=noise_per), tiny, noise).grads

    true = gradient(tiny)
    assert_equal({n: draws * grads[n] for n in shapes}, {n: true[n] for n in shapes}, rtol=1e-4, atol=1e-6)


def test_every_example_has_noise_of_its_own(mlp):
    rule = WeightPerturbation(draws=3)
    drawn = rule.noise(mlp.net, State(), mlp.batch(), gen(), 0)
    shared = replace(rule, noise_per="batch").noise(mlp.net, State(), mlp.batch(), gen(), 0)

    assert drawn.keys() == shared.keys() == hidden(mlp.net).keys()
    assert {z.shape[:2] for z in drawn.values()} == {(3, len(mlp.batch().x))}
    assert {z.shape[:2] for z in shared.values()} == {(3, 1)}


# Activity-based node perturbation ------------------------------------------------------------------------------------


def test_activity_perturbation_by_loops(mlp):
    rule = ActivityNodePerturbation(sigma=0.3)
    params, (x, y), state = begun(rule, mlp)
    noise = rule.noise(mlp.net, state, mlp.batch(), gen(3), 0)
    a1 = x @ params["fc1.weight"].T + params["fc1.bias"]
    a2 = torch.tanh(a1) @ params["fc2.weight"].T + params["fc2.bias"]
    out = torch.tanh(a2) @ params["readout.weight"].T + params["readout.bias"]
    n1 = a1 + 0.3 * a1.square().mean().sqrt() * noise["pre1"]
    n2 = torch.tanh(n1) @ params["fc2.weight"].T + params["fc2.bias"]
    n2 = n2 + 0.3 * a2.square().mean().sqrt() * noise["pre2"]
    noisy = torch.tanh(n2) @ params["readout.weight"].T + params["readout.bias"]
    expected = {name: torch.zeros_like(params[name]) for name in hidden(mlp.net)}
    for n in range(len(x)):
        d1, d2 = n1[n] - a1[n], n2[n] - a2[n]
        change = F.cross_entropy(noisy[n], y[n]) - F.cross_entropy(out[n], y[n])
        factor = (8 + 7) * change / (d1 @ d1 + d2 @ d2) / len(x)
        expected["fc1.weight"] += factor * torch.outer(d1, x[n])
        expected["fc1.bias"] += factor * d1
        expected["fc2.weight"] += factor * torch.outer(d2, torch.tanh(a1[n]))
        expected["fc2.bias"] += factor * d2

    grads = step(rule, mlp, noise).grads

    assert_equal({name: grads[name] for name in expected}, expected, rtol=1e-7)
    assert_equal({n: grads[n] for n in mlp.net.readout}, {n: gradient(mlp)[n] for n in mlp.net.readout})


def test_where_the_last_hidden_layer_alone_is_perturbed_its_mean_over_a_basis_is_the_gradient(mlp):
    rule, true, total = ActivityNodePerturbation(sigma=SMALL), gradient(mlp), {}
    for direction in basis_of({"pre2": (7,)}):
        noise = {
            "pre1": torch.zeros(len(mlp.batch().x), 8).double(),
            "pre2": direction.expand(len(mlp.batch().x), 7),
        }
        for name, g in step(rule, mlp, noise).grads.items():
            total[name] = total.get(name, 0) + g / (8 + 7)  # the number of all units, N

    names = ("fc2.weight", "fc2.bias")
    assert_equal({n: total[n] for n in names}, {n: true[n] for n in names}, rtol=1e-3, atol=1e-5)
    assert not total["fc1.weight"].any()


def test_in_a_linear_network_with_a_linear_loss_the_size_of_the_noise_does_not_matter():
    net, params, batch = linear_net()

    def linear_loss(output, y):
        return output.sum(1) * y

    noise = ActivityNodePerturbation().noise(net, State(), batch, gen(2), 0)
    small, large = (
        ActivityNodePerturbation(sigma=sigma).step(net, linear_loss, params, State(), batch, noise, 0).grads
        for sigma in (0.01, 10.0)
    )

    assert_equal(large, small, rtol=1e-7)


def linear_net():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 6),
        Site("pre"),
        Site("post"),
        nn.Linear(6, 5),
        Site("pre"),
        Site("post"),
        nn.Linear(5, 2),
    ).double()
    x = torch.randn(16, 4, generator=gen(1), dtype=torch.float64)
    net = Net(module, x)
    return net, net.init_params(), Batch(x, torch.randn(16, generator=gen(4), dtype=torch.float64))


# Decorrelation -------------------------------------------------------------------------------------------------------


def test_three_steps_of_decorrelation_by_loops(mlp):
    rule, plain = DecorrelatedNodePerturbation(decorrelation=0.05), ActivityNodePerturbation()
    params, batch, state = begun(rule, mlp)
    h1 = torch.tanh(batch.x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    inputs = {"fc1.weight": batch.x, "fc2.weight": h1, "readout.weight": h2}
    matrices = {name: torch.eye(x.shape[1], dtype=torch.float64) for name, x in inputs.items()}
    for t in range(3):
        noise = rule.noise(mlp.net, state, batch, gen(t), t)
        result = step(rule, mlp, noise, state)
        expected = step(plain, mlp, noise).grads
        for name, x in inputs.items():
            r = matrices[name]
            expected[name] = expected[name] @ r.T @ r
            correlation = torch.zeros_like(r)
            for row in x:
                star = r @ row
                correlation += (torch.outer(star, star) - torch.diag(star**2)) / len(x)
            matrices[name] = r - 0.05 * correlation @ r
        assert_equal(result.grads, expected)
        state = result.state
        assert_equal(state.buffers, {f"decorrelation.{name}": r for name, r in matrices.items()})


def test_the_gradient_moves_the_product_as_a_step_of_the_inner_weight_would(mlp):
    """A = W R: descending W along g x*ᵀ = g xᵀ Rᵀ moves A by that times R."""
    rule = DecorrelatedNodePerturbation()
    params, batch, state = begun(rule, mlp)
    noise = rule.noise(mlp.net, state, batch, gen(1), 0)
    r = torch.randn(5, 5, generator=gen(7), dtype=torch.float64)
    plain = step(rule, mlp, noise).grads["fc1.weight"]  # g xᵀ

    inner = params["fc1.weight"] @ torch.linalg.inv(r)
    moved = (inner - 0.1 * plain @ r.T) @ r
    state = State(buffers={**state.buffers, "decorrelation.fc1.weight": r})

    got = params["fc1.weight"] - 0.1 * step(rule, mlp, noise, state).grads["fc1.weight"]
    torch.testing.assert_close(got, moved, rtol=1e-7, atol=1e-9)


def whitened(x):
    """Inputs whose correlation matrix (not centred) is the identity."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return x @ vectors / values.sqrt()


def test_white_inputs_are_left_as_they_are(mlp):
    rule = DecorrelatedNodePerturbation(decorrelation=0.05)
    params, (x, y), state = begun(rule, mlp)
    batch = Batch(whitened(x), y)
    noise = rule.noise(mlp.net, state, batch, gen(), 0)

    after = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, 0).state.buffers

    torch.testing.assert_close(
        after["decorrelation.fc1.weight"], torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert not torch.allclose(after["decorrelation.fc2.weight"], torch.eye(8, dtype=torch.float64), atol=1e-3)


def test_correlated_inputs_are_decorrelated(mlp):
    rule = DecorrelatedNodePerturbation(decorrelation=0.02)
    params, batch, state = begun(rule, mlp)
    mixed = batch.x @ torch.randn(5, 5, generator=gen(2), dtype=torch.float64)
    batch = Batch(mixed, batch.y)

    def correlation(state):
        star = mixed @ state.buffers["decorrelation.fc1.weight"].T
        c = star.T @ star / len(star)
        return (c - torch.diag(c.diagonal())).norm() / c.norm()

    before = correlation(state)
    for t in range(500):
        noise = rule.noise(mlp.net, state, batch, gen(t), t)
        state = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, t).state
    assert before > 0.2
    assert correlation(state) < 0.01 * before


# All of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_over_many_draws_its_mean_approaches_the_direction_of_backprop(mlp, rule):
    """The angle falls as one over the root of the number of draws: 400 leave at most half of what 25 leave."""
    one, true = rule(), gradient(mlp)
    names = list(hidden(mlp.net))
    total = {name: torch.zeros_like(true[name]) for name in names}
    angles = {}
    params, batch, state = begun(one, mlp)
    for t in range(1, 401):
        noise = one.noise(mlp.net, state, batch, gen(t), t)
        grads = one.step(mlp.net, mlp.task.loss, params, state, batch, noise, t).grads
        for name in names:
            total[name] += grads[name]
        if t in (25, 400):
            flat = (torch.cat([each[name].flatten() for name in names]) for each in (total, true))
            angles[t] = torch.rad2deg(torch.cosine_similarity(*flat, dim=0).acos()).item()
    assert 1 < angles[400] < 30
    assert angles[400] < 0.6 * angles[25]


def test_networks_that_they_do_not_serve_are_skipped_in_a_sentence(mlp):
    bare = Net(nn.Linear(5, 3), torch.zeros(2, 5))
    for rule, words in ((WeightPerturbation, "kind 'post'"), (ActivityNodePerturbation, "kind 'pre'")):
        assert words in rule().skip(bare, mlp.task)
    no_pre = Net(nn.Sequential(nn.Linear(5, 4), Site("post"), nn.Linear(4, 3)), torch.zeros(2, 5))
    assert "'0.bias' has none behind it" in ActivityNodePerturbation().skip(no_pre, mlp.task)
    normed = Net(
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), Site("post"), nn.Linear(4, 3)), torch.zeros(2, 5)
    )
    assert "set noise_per=batch" in WeightPerturbation().skip(normed, mlp.task)
    assert WeightPerturbation(noise_per="batch").skip(normed, mlp.task) is None
    assert "memory=1e-07 GB" in DecorrelatedNodePerturbation(memory=1e-7).skip(mlp.net, mlp.task)
    assert DecorrelatedNodePerturbation().skip(mlp.net, mlp.task) is None


def test_many_parameters_need_noise_per_batch(mlp, monkeypatch):
    monkeypatch.setattr(WeightPerturbation, "LARGEST", 110)
    assert "it would draw 111 random numbers for each example, more than 110" in WeightPerturbation().skip(
        mlp.net, mlp.task
    )
    monkeypatch.setattr(WeightPerturbation, "LARGEST", 111)
    assert WeightPerturbation().skip(mlp.net, mlp.task) is None


def test_a_weight_that_is_computed_cannot_be_decorrelated(mlp):
    module = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), Site("pre"), Site("post"), nn.Linear(4, 3)
    )
    net = Net(module, torch.zeros(2, 5))
    assert "that of '0' is none" in DecorrelatedNodePerturbation().skip(net, mlp.task)


@pytest.mark.parametrize("rule", RULES)
def test_noise_that_rounding_would_hide_is_refused(rule):
    tiny = tiny_net("mlp")
    params = {name: p.float() for name, p in tiny.params().items()}
    net = Net(tiny.net.module.float(), tiny.batch().x.float())
    with pytest.raises(
        OptionError, match=r"sigma=1e-06 drowns in the rounding of torch.float32; use at least 1e-05"
    ):
        rule(sigma=1e-6).init(net, params, tiny.batch(), gen())
    rule(sigma=2e-5).init(net, params, tiny.batch(), gen())
