"""Forward gradients: their mean over an orthonormal basis, and over many draws, is the gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rulezoo import State, credit
from rulezoo_plugins.forward_gradients.rules import ActivityForwardGradient, WeightForwardGradient


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


def test_over_an_orthonormal_basis_of_the_activities_it_sums_to_the_gradient(tiny):
    batch = tiny.batch()
    shapes = {key: tuple(tiny.net.visits[key].shape) for key in tiny.net.keys("post")}
    width = sum(torch.Size(shape).numel() for shape in shapes.values())
    basis = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    noise = {
        key: z.unsqueeze(1).expand(-1, len(batch.x), *z.shape[1:]) for key, z in split(basis, shapes).items()
    }
    true, hidden = gradient(tiny), [name for name in tiny.params() if name not in tiny.net.readout]

    grads = step(ActivityForwardGradient(draws=width), tiny, noise).grads

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
