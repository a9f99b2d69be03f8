"""Forward gradients: their mean over an orthonormal basis, and over many draws, is the gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rulezoo import State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.forward_gradients.rules import (
    ActivityForwardGradient,
    FeatureForwardGradient,
    LocalForwardGradient,
    WeightForwardGradient,
)
from rulezoo_plugins.local_losses.rules import LocalPrediction


def gradient(tiny):
    return credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())[0]


def step(rule, tiny, noise):
    return rule.step(tiny.net, tiny.task.loss, tiny.params(), State(), tiny.batch(), noise, 0)


def split(rows, shapes):
    """Rows of a matrix as tensors of these shapes, ``(draws, *shape)`` each."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = rows.split(sizes, 1)
    return {name: part.view(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def assert_equal(grads, expected, rtol=1e-9):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=1e-12, msg=name)


def test_over_an_orthonormal_basis_of_the_weights_it_sums_to_the_gradient(tiny):
    shapes = tiny.net.shapes
    width = sum(torch.Size(shape).numel() for shape in shapes.values())
    basis = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]

    grads = step(WeightForwardGradient(draws=width), tiny, split(basis, shapes)).grads

    assert_equal({name: width * g for name, g in grads.items()}, gradient(tiny), rtol=1e-7)


def test_one_draw_of_the_weights_written_out(mlp):
    gen = torch.Generator().manual_seed(3)
    rule = WeightForwardGradient()
    noise = rule.noise(mlp.net, State(), mlp.batch(), gen, 0)
    true = gradient(mlp)
    slope = sum((true[name] * z[0]).sum() for name, z in noise.items())

    result = step(rule, mlp, noise)

    assert_equal(result.grads, {name: slope * z[0].double() for name, z in noise.items()}, rtol=1e-7)
    torch.testing.assert_close(
        result.loss, mlp.task.loss(mlp.net.run(mlp.params(), mlp.batch().x), mlp.batch().y).mean()
    )


@pytest.mark.parametrize("together", [True, False])
def test_over_an_orthonormal_basis_of_the_activities_it_sums_to_the_gradient(tiny, together):
    batch = tiny.batch()
    shapes = {key: tuple(tiny.net.visits[key].shape) for key in tiny.net.keys("post")}
    width = sum(torch.Size(shape).numel() for shape in shapes.values())
    basis = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    noise = {
        key: z.unsqueeze(1).expand(-1, len(batch.x), *z.shape[1:]) for key, z in split(basis, shapes).items()
    }
    true, hidden = gradient(tiny), [name for name in tiny.params() if name not in tiny.net.readout]

    grads = step(ActivityForwardGradient(draws=width, together=together), tiny, noise).grads

    assert_equal(
        {name: width * grads[name] for name in hidden}, {name: true[name] for name in hidden}, rtol=1e-7
    )
    readout = tiny.net.readout
    assert_equal({name: grads[name] for name in readout}, {name: true[name] for name in readout})


def test_one_draw_of_the_activities_written_out(mlp):
    params, (x, y), rule = mlp.params(), mlp.batch(), ActivityForwardGradient()
    noise = rule.noise(mlp.net, State(), mlp.batch(), torch.Generator().manual_seed(3), 0)
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    error = (h2 @ params["readout.weight"].T + params["readout.bias"]).softmax(1) - F.one_hot(y, 3)
    g2 = error @ params["readout.weight"]
    g1 = (g2 * (1 - h2**2)) @ params["fc2.weight"]
    z1, z2 = (noise[key][0].double() for key in mlp.net.keys("post"))
    slope = ((g1 * z1).sum(1) + (g2 * z2).sum(1))[:, None]  # of each example's own loss
    d1, d2 = slope * z1 * (1 - h1**2) / len(x), slope * z2 * (1 - h2**2) / len(x)

    grads = step(rule, mlp, noise).grads

    assert_equal(
        {name: grads[name] for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")},
        {"fc1.weight": d1.T @ x, "fc1.bias": d1.sum(0), "fc2.weight": d2.T @ h1, "fc2.bias": d2.sum(0)},
        rtol=1e-7,
    )


@pytest.mark.parametrize("rule", [WeightForwardGradient(draws=4000), ActivityForwardGradient(draws=4000)])
def test_over_many_draws_its_mean_is_near_the_gradient(mlp, rule):
    noise = rule.noise(mlp.net, State(), mlp.batch(), torch.Generator().manual_seed(0), 0)

    grads, true = step(rule, mlp, noise).grads, gradient(mlp)

    flat = [torch.cat([one[name].flatten() for name in true]) for one in (grads, true)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.97
    torch.testing.assert_close(flat[0].norm(), flat[1].norm(), rtol=0.1, atol=0)


# Guesses made of features --------------------------------------------------------------------------------------------


def hidden_of(tiny):
    return [name for name in tiny.params() if name not in tiny.net.readout]


def test_over_a_basis_of_the_features_it_sums_to_the_projection_of_the_gradient(mlp):
    """U Uᵀ ∂L/∂h, with U the leading left singular vectors of the activity of the batch, which is not centred."""
    params, (x, y), d = mlp.params(), mlp.batch(), 3
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    error = (h2 @ params["readout.weight"].T + params["readout.bias"]).softmax(1) - F.one_hot(y, 3)
    g2 = error @ params["readout.weight"]
    g1 = (g2 * (1 - h2**2)) @ params["fc2.weight"]
    u1, u2 = (torch.linalg.svd(h.T)[0][:, :d] for h in (h1, h2))
    d1, d2 = g1 @ u1 @ u1.T * (1 - h1**2) / len(x), g2 @ u2 @ u2.T * (1 - h2**2) / len(x)
    one = torch.eye(d, dtype=torch.float64)[:, None].expand(d, len(x), d)

    grads = step(FeatureForwardGradient(draws=d, rank=d), mlp, {"post1": one, "post2": one}).grads

    expected = {"fc1.weight": d1.T @ x, "fc1.bias": d1.sum(0), "fc2.weight": d2.T @ h1, "fc2.bias": d2.sum(0)}
    assert_equal({name: d * grads[name] for name in expected}, expected, rtol=1e-7)
    assert_equal({n: grads[n] for n in mlp.net.readout}, {n: gradient(mlp)[n] for n in mlp.net.readout})


def test_where_the_features_span_the_site_the_projection_is_the_gradient(mlp):
    widths = {"post1": 8, "post2": 7}
    noise = {}
    for key, n in widths.items():  # the basis of one site after the other, and zeros in place of the other
        before = sum(list(widths.values())[: list(widths).index(key)])
        coordinates = torch.zeros(15, n, dtype=torch.float64)
        coordinates[before : before + n] = torch.eye(n, dtype=torch.float64)
        noise[key] = coordinates[:, None].expand(15, len(mlp.batch().x), n)

    grads, true = step(FeatureForwardGradient(draws=15, rank=64), mlp, noise).grads, gradient(mlp)

    assert_equal({n: 15 * grads[n] for n in hidden_of(mlp)}, {n: true[n] for n in hidden_of(mlp)}, rtol=1e-7)


def test_coordinates_of_features_are_as_many_as_the_rank_or_the_units(mlp):
    noise = FeatureForwardGradient(draws=2, rank=7).noise(mlp.net, State(), mlp.batch(), torch.Generator(), 0)
    assert {key: tuple(c.shape) for key, c in noise.items()} == {
        "post1": (2, len(mlp.batch().x), 7),
        "post2": (2, len(mlp.batch().x), 7),
    }
    assert FeatureForwardGradient(rank=8).noise(mlp.net, State(), mlp.batch(), torch.Generator(), 0)[
        "post2"
    ].shape == (1, len(mlp.batch().x), 7)


# Local losses --------------------------------------------------------------------------------------------------------


def local_start(rule, tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, batch, rule.init(tiny.net, params, batch, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("groups", [1, 3, 100])
def test_local_forward_gradient_by_loops(mlp, groups):
    rule = LocalForwardGradient(draws=2, groups=groups)
    params, batch, state = local_start(rule, mlp)
    x, y = batch
    noise = rule.noise(mlp.net, state, batch, torch.Generator().manual_seed(3), 0)
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    deltas, heads = {}, {}
    for site, h in (("post1", h1), ("post2", h2)):
        head = state.params[f"prediction.{site}"]
        error = (h @ head[1:] + head[0]).softmax(1) - F.one_hot(y, 3)
        true, n, signal = error @ head[1:].T, h.shape[1], torch.zeros_like(h)
        count = min(groups, n)
        for b in range(len(x)):
            for draw in range(2):
                z = noise[site][draw, b]
                for g in range(count):
                    own = [i for i in range(n) if i * count // n == g]
                    slope = sum(true[b, i] * z[i] for i in own)
                    for i in own:
                        signal[b, i] += slope * z[i] / 2 / len(x)
        deltas[site] = signal * (1 - h**2)
        heads[f"rule.prediction.{site}"] = torch.cat([error.mean(0)[None], h.T @ error / len(x)])

    result = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, 0)

    expected = {
        "fc1.weight": deltas["post1"].T @ x, "fc1.bias": deltas["post1"].sum(0),
        "fc2.weight": deltas["post2"].T @ h1, "fc2.bias": deltas["post2"].sum(0), **heads,
    }  # fmt: skip
    assert_equal({name: result.grads[name] for name in expected}, expected, rtol=1e-7)
    assert_equal(
        {n: result.grads[n] for n in mlp.net.readout}, {n: gradient(mlp)[n] for n in mlp.net.readout}
    )
    torch.testing.assert_close(
        result.loss, mlp.task.loss(mlp.net.run(params, x), y).mean(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("kind", ["mlp", "cnn", "rnn"])
def test_over_a_basis_of_each_group_it_is_local_prediction(kind):
    """With signs in place of numbers, every unit of a group of its own finds its derivative exactly."""
    tiny = tiny_net(kind)
    rule = LocalForwardGradient(groups=10_000)
    params, batch, state = local_start(rule, tiny)
    noise = rule.noise(tiny.net, state, batch, torch.Generator().manual_seed(0), 0)
    signs = {key: z.sign() for key, z in noise.items()}

    grads = rule.step(tiny.net, tiny.task.loss, params, state, batch, signs, 0).grads

    assert_equal(
        grads, LocalPrediction().step(tiny.net, tiny.task.loss, params, state, batch, {}, 0).grads, rtol=1e-7
    )


def test_more_groups_leave_less_variance(mlp):
    errors = {}
    for groups in (1, 8):
        rule = LocalForwardGradient(groups=groups, draws=50)
        params, batch, state = local_start(rule, mlp)
        noise = rule.noise(mlp.net, state, batch, torch.Generator().manual_seed(0), 0)
        got = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, 0).grads
        true = LocalPrediction().step(mlp.net, mlp.task.loss, params, state, batch, {}, 0).grads
        errors[groups] = sum((got[n] - true[n]).square().sum() for n in hidden_of(mlp))
    assert errors[8] < 0.6 * errors[1]
