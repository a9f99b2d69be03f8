import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from rulezoo import MeasurementError, Net, add_sites
from rulezoo.testing import tiny_net
from rulezoo_evaluations.ntk import (
    TangentKernel,
    centred_alignment,
    compared,
    cosine,
    entropy_rank,
    output_directions,
    over_examples,
    participation_ratio,
    spectrum,
    tangent_kernel,
)

NETS = ("mlp", "cnn", "rnn", "rnn-every-step")


def slow_kernel(run, params, x, directions):
    """The explicit Jacobian by autograd, one output of one example after the other, and a loop over pairs."""
    rows = []
    for example in x:
        for direction in directions:
            leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
            output = (run(leaves, example[None]).flatten() * direction).sum()
            grads = torch.autograd.grad(
                output, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.flatten() for g in grads]))
    n, k = len(x), len(directions)
    kernel = torch.empty(n * k, n * k, dtype=torch.float64)
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            kernel[i, j] = (a * b).sum()
    return kernel.view(n, k, n, k)


def read(module, x):
    net = Net(module, x)
    values = net.values_of(net.module)
    return net.bind(values.fixed, values.statistics, training=False), values.params


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("most_bytes", [1, 20_000, 1 << 30], ids=["row by row", "some rows", "at once"])
def test_the_kernel_equals_that_of_the_explicit_jacobian(name, most_bytes):
    net = tiny_net(name).net.evaluation()
    params, x = net.init_params(), tiny_net(name).batch(5).x
    directions = torch.eye(net.output_width, dtype=torch.float64)
    found = tangent_kernel(net, params, x, directions, most_bytes)
    torch.testing.assert_close(found, slow_kernel(net.run, params, x, directions), rtol=1e-10, atol=1e-12)


def test_running_statistics_are_used_and_frozen_parameters_are_left_out():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)
    ).double()
    module[0].weight.requires_grad_(False)
    module(3 * torch.randn(50, 4, dtype=torch.float64) + 1)
    x = torch.randn(6, 4, dtype=torch.float64)
    net, params = read(add_sites(module), x)
    module.eval()

    def plain(values, one):
        return torch.func.functional_call(module, values, (one,))

    directions = torch.eye(2, dtype=torch.float64)
    found = tangent_kernel(net, params, x, directions)
    assert "0.weight" not in params
    torch.testing.assert_close(found, slow_kernel(plain, params, x, directions), rtol=1e-10, atol=1e-12)


def test_random_directions_estimate_the_mean_over_outputs():
    """The mean over 200 draws of 3 of 7 directions is within 4 standard errors of the mean over all outputs."""
    torch.manual_seed(1)
    x = torch.randn(4, 5, dtype=torch.float64)
    net, params = read(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7)).double(), x)
    whole = over_examples(tangent_kernel(net, params, x, torch.eye(7, dtype=torch.float64)))
    drawn = torch.stack(
        [
            over_examples(tangent_kernel(net, params, x, output_directions(7, 3, seed).double()))
            for seed in range(200)
        ]
    )
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - whole).abs() < 4 * error).all()
    assert torch.equal(output_directions(7, 7, 0), torch.eye(7))


def test_ranks_of_known_spectra():
    flat, one = torch.ones(12, dtype=torch.float64), torch.eye(12, dtype=torch.float64)[0]
    assert entropy_rank(flat) == pytest.approx(12)
    assert participation_ratio(flat) == pytest.approx(12)
    assert entropy_rank(one) == pytest.approx(1)
    assert participation_ratio(one) == pytest.approx(1)
    shares = np.array([0.5, 0.3, 0.2])
    assert entropy_rank(torch.tensor(7 * shares)) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert participation_ratio(torch.tensor(7 * shares)) == pytest.approx(1 / (shares**2).sum())


def test_the_spectrum_is_that_of_the_matrix():
    net = tiny_net("mlp").net.evaluation()
    kernel = tangent_kernel(
        net, net.init_params(), tiny_net("mlp").batch(2).x, torch.eye(3, dtype=torch.float64)
    )
    singular = np.linalg.svd(kernel.reshape(6, 6).numpy(), compute_uv=False)
    np.testing.assert_allclose(spectrum(kernel).numpy(), singular, atol=1e-10)


def test_alignment_equals_the_explicit_centring_and_has_its_limits():
    gen = torch.Generator().manual_seed(0)
    a = torch.randn(20, 20, generator=gen, dtype=torch.float64)
    kernel, y = a @ a.T, torch.nn.functional.one_hot(torch.arange(20) % 4).double()
    h = torch.eye(20, dtype=torch.float64) - 1 / 20
    one, other = h @ kernel @ h, h @ y @ y.T @ h
    slow = float((one * other).sum() / ((one**2).sum() * (other**2).sum()) ** 0.5)
    assert centred_alignment(kernel, y) == pytest.approx(slow, rel=1e-12)
    assert centred_alignment(y @ y.T + 5, y) == pytest.approx(1)  # a constant is centred away
    assert abs(centred_alignment(torch.eye(20, dtype=torch.float64), y)) < 0.5
    assert math.isnan(centred_alignment(torch.ones(20, 20, dtype=torch.float64), y))


def test_the_kernel_of_a_linear_network_does_not_change_in_training():
    torch.manual_seed(0)
    x, y = torch.randn(30, 6, dtype=torch.float64), torch.arange(30) % 3
    module = nn.Sequential(nn.Linear(6, 3)).double()
    net, before = read(module, x)
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    after = net.values_of(module).params
    assert (after["0.weight"] - before["0.weight"]).norm() > 0.5 * before["0.weight"].norm()
    kernels = [tangent_kernel(net, p, x, torch.eye(3, dtype=torch.float64)) for p in (before, after)]
    torch.testing.assert_close(*kernels, rtol=1e-12, atol=1e-12)
    gram = x @ x.T + 1
    torch.testing.assert_close(over_examples(kernels[0]), gram, rtol=1e-12, atol=1e-12)
    values = compared(*kernels, nn.functional.one_hot(y)).values
    assert values["distance"] == pytest.approx(0, abs=1e-12)
    assert values["alignment"] == values["alignment/untrained"]


def test_distance_ignores_size_and_sees_shape():
    net = tiny_net("mlp").net.evaluation()
    kernel = tangent_kernel(
        net, net.init_params(), tiny_net("mlp").batch(2).x, torch.eye(3, dtype=torch.float64)
    )
    assert cosine(kernel, 7 * kernel) == pytest.approx(1)
    assert compared(kernel, 7 * kernel, torch.eye(2)).values["distance"] == pytest.approx(0, abs=1e-12)
    assert compared(kernel, 7 * kernel, torch.eye(2)).values["trace"] == pytest.approx(
        7 * compared(kernel, kernel, torch.eye(2)).values["trace"]
    )
    halves = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    halves[0, 0, 0, 0] = 1
    others = torch.zeros_like(halves)
    others[1, 1, 1, 1] = 1
    assert compared(halves, others, torch.eye(2)).values["distance"] == pytest.approx(1)


def test_it_measures_a_network_the_same_each_time(stripes):
    evaluation = TangentKernel(examples=12)
    assert evaluation.skip(stripes) is None
    first, second = (evaluation.measure(stripes, None) for _ in range(2))
    assert first.values == second.values
    assert first.values.keys() >= {TangentKernel.headline}
    assert first.arrays["kernel"].shape == (12, 12)
    assert first.arrays["spectrum-untrained"].shape == (36,)
    assert first.values["alignment"] > first.values["alignment/untrained"] + 0.05
    assert 0.01 < first.values["distance"] < 1
    untrained = evaluation.measure(stripes.untrained(), None)
    assert untrained.values["distance"] == pytest.approx(0, abs=1e-6)
    assert untrained.values["alignment"] == first.values["alignment/untrained"]


def test_numbers_are_targets_too(no_labels):
    assert TangentKernel().skip(no_labels) is None
    assert TangentKernel(examples=5).measure(no_labels, None).values["alignment"] > 0
    silent = dataclasses.replace(no_labels, made_task=Undeclared())
    assert "does not declare its targets" in TangentKernel().skip(silent)


class Undeclared:
    targets = None


def test_constant_and_broken_kernels():
    nothing = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    found = compared(nothing, nothing, torch.eye(2))
    assert math.isnan(found.values["alignment"])
    assert math.isnan(found.values["effective-rank"])
    assert "constant" in found.notes["distance"]
    with pytest.raises(MeasurementError, match="the trained network is not finite"):
        compared(nothing, nothing * math.nan, torch.eye(2))
