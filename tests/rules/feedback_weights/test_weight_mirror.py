"""Weight mirror, fed with noise of which the answer is known, and held to the closed forms of its error.

Noise is an argument of the step: an orthonormal basis instead of random vectors must give the weight itself.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, State, credit
from rulezoo.measures import theory
from rulezoo.testing import tiny_net
from rulezoo_plugins.feedback_weights.weight_mirror import LayerwiseManifoldNoiseCorrelation, WeightMirror
from rulezoo_plugins.shared.in_manifold import spread_rows
from rulezoo_plugins.shared.state_size import gigabytes

EXACT = 1e-10  # of the largest entry, in float64
ISOTROPIC = WeightMirror()
MANIFOLD = LayerwiseManifoldNoiseCorrelation(rank=5, samples=40)

FIRST = {"fc1.weight", "conv1.weight", "w_in.weight"}  # fed by the input alone: no error passes them


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_equal(got, wanted, tolerance=EXACT):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            got[name], tensor, rtol=0, atol=tolerance * float(tensor.abs().max()), msg=name
        )


def begin(rule, tiny, seed=0):
    params, batch = tiny.params(seed), tiny.batch(seed=seed)
    return params, batch, rule.init(tiny.net, params, batch, seeded(seed))


def after(rule, tiny, params, batch, state, noise, t=0):
    return rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.buffers.items() if key.startswith(prefix)}


def orthonormal_noise(dimensions):
    """As many vectors as dimensions, of which ``mean(z zᵀ) = 1`` holds exactly: weight → ``(d, d)``."""
    return {name: d**0.5 * torch.linalg.qr(randn(d, d)).Q for name, d in dimensions.items()}


def on_manifold(params, state):
    """W P of every layer, written out."""
    return {
        name: (params[name].flatten(1) @ basis @ basis.T).view_as(params[name])
        for name, basis in part(state, "basis.").items()
    }


# --------------------------------------------------------------------------------------------------------------------
# What is learnt


def test_orthonormal_noise_mirrors_every_weight_exactly_and_the_step_is_backprop(tiny):
    params, batch, state = begin(ISOTROPIC, tiny)
    wanted = {name: p for name, p in params.items() if p.ndim > 1 and name not in FIRST}
    noise = orthonormal_noise({name: p[0].numel() for name, p in wanted.items()})

    step = after(ISOTROPIC, tiny, params, batch, state, noise)

    assert_equal(part(step.state, "feedback."), wanted)
    true, mean = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    assert_equal(step.grads, true)
    assert torch.equal(step.loss, mean)


def test_orthonormal_noise_in_the_manifold_mirrors_the_weight_on_the_manifold_exactly(tiny):
    params, batch, state = begin(MANIFOLD, tiny)
    noise = orthonormal_noise({name: basis.shape[1] for name, basis in part(state, "basis.").items()})

    step = after(MANIFOLD, tiny, params, batch, state, noise)

    wanted = on_manifold(params, state)
    assert_equal(part(step.state, "feedback."), wanted)
    grads, _ = credit.through_feedback(tiny.net, tiny.task.loss, params, wanted, *batch)
    assert_equal(step.grads, grads)


def test_the_estimate_written_out(tiny):
    """One noise vector after the other through torch's own layers, and its outer product with the response."""
    params, batch, state = begin(ISOTROPIC, tiny)
    noise = replace(ISOTROPIC, perturbations=6).noise(tiny.net, state, batch, seeded(1), 0)

    feedback = part(after(ISOTROPIC, tiny, params, batch, state, noise).state, "feedback.")

    wanted = {}
    for name, z in noise.items():
        weight = params[name]
        products = []
        for vector in z:
            driven = vector.view(1, *weight.shape[1:])
            response = (F.conv2d if weight.ndim == 4 else F.linear)(driven, weight)
            products.append(response.view(-1, *[1] * (weight.ndim - 1)) * driven)
        wanted[name] = torch.stack(products).mean(0)
    assert_equal(feedback, wanted)


@pytest.mark.parametrize("name", ["fc2.weight", "conv2.weight"])
def test_the_error_of_isotropic_noise_is_that_of_equation_1(name):
    """Budget: 2,000 estimates of K = 16 vectors. The mean squared error then has a standard error near 1 %."""
    perturbations, repeats, tolerance = 16, 2000, 0.05
    weight, _, estimates = many_estimates(ISOTROPIC, name, perturbations, repeats)

    error = (estimates - weight).square().flatten(1).sum(1).mean() / weight.square().sum()

    n = weight[0].numel()
    assert float(error) == pytest.approx(theory.relative_error(d=n, k=perturbations), rel=tolerance)
    bias = (estimates.mean(0) - weight).norm() / weight.norm()
    assert float(bias) < 1.5 * theory.relative_error(d=n, k=perturbations * repeats) ** 0.5


@pytest.mark.parametrize("name", ["fc2.weight", "conv2.weight"])
def test_the_error_of_noise_in_the_manifold_is_that_of_equation_2(name):
    """The same budget. What converges is W P, and W itself stays as far away as its share outside of the manifold."""
    perturbations, repeats, tolerance = 16, 2000, 0.05
    weight, state, estimates = many_estimates(MANIFOLD, name, perturbations, repeats)
    inside = on_manifold({name: weight}, State(buffers={f"basis.{name}": state.buffers[f"basis.{name}"]}))[
        name
    ]

    error = (estimates - weight).square().flatten(1).sum(1).mean() / weight.square().sum()

    alpha = float(inside.square().sum() / weight.square().sum())
    wanted = theory.relative_error(d=MANIFOLD.rank, k=perturbations, alpha=alpha)
    assert 0.05 < alpha < 0.95
    assert float(error) == pytest.approx(wanted, rel=tolerance)
    bias = (estimates.mean(0) - inside).norm() / inside.norm()
    assert float(bias) < 1.5 * theory.relative_error(d=MANIFOLD.rank, k=perturbations * repeats) ** 0.5


def many_estimates(rule, name, perturbations, repeats):
    """A weight, the state, and feedback weights learnt from independent noise: ``(repeats, *weight.shape)``."""
    tiny = tiny_net("mlp" if name.startswith("fc") else "cnn")
    params, batch, state = begin(rule, tiny)
    drawn = replace(rule, perturbations=perturbations * repeats).noise(tiny.net, state, batch, seeded(3), 0)
    noise = {key: z.unflatten(0, (repeats, perturbations)) for key, z in drawn.items()}

    def estimate(noise):
        return after(rule, tiny, params, batch, state, noise).state.buffers[f"feedback.{name}"]

    return params[name], state, torch.func.vmap(estimate)(noise)


def test_with_a_basis_of_every_direction_the_manifold_form_is_the_isotropic_one(tiny):
    """Equal for noise that is turned into the basis, hence equal in law: the noise is isotropic."""
    params, batch, state = begin(MANIFOLD, tiny)
    complete = {
        f"basis.{name}": torch.linalg.qr(randn(len(basis), len(basis))).Q
        for name, basis in part(state, "basis.").items()
    }
    state = State(buffers=state.buffers | complete)
    noise = MANIFOLD.noise(tiny.net, state, batch, seeded(1), 0)
    turned = {name: z @ complete[f"basis.{name}"].T for name, z in noise.items()}

    got = after(MANIFOLD, tiny, params, batch, state, noise)

    plain = State(buffers={k: v for k, v in state.buffers.items() if k.startswith("feedback.")})
    wanted = after(ISOTROPIC, tiny, params, batch, plain, turned)
    assert_equal(part(got.state, "feedback."), part(wanted.state, "feedback."))
    assert_equal(got.grads, wanted.grads)


@pytest.mark.parametrize("rule", [ISOTROPIC, replace(MANIFOLD, rank=18)], ids=["isotropic", "manifold"])
def test_the_filters_of_a_grouped_strided_convolution_are_mirrored_too(rule):
    """Every group's filters see patches of 2 x 3 x 3; the 162 patches of the batch span that space."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten()
    )
    batch = Batch(randn(9, 2, 9, 9), randn(9, 1))
    net = Net(module.double(), batch.x)
    params = net.init_params()
    state = rule.init(net, params, batch, seeded(0))

    step = rule.step(
        net, lambda y, _: y.square().sum(1), params, state, batch, orthonormal_noise({"2.weight": 18}), 0
    )

    assert_equal(part(step.state, "feedback."), {"2.weight": params["2.weight"]})


# --------------------------------------------------------------------------------------------------------------------
# The other options of noise correlation: one-sided noise, and least squares


def layer_rows(tiny, params, batch, name, rows):
    """Inputs of a layer, as many as there are noise vectors."""
    (every,) = credit.layer_inputs(tiny.net, params, batch.x, [name]).values()
    return (
        every[spread_rows(len(every), rows)] if len(every) >= rows else every[torch.arange(rows) % len(every)]
    )


@pytest.mark.parametrize("rule", [ISOTROPIC, MANIFOLD], ids=["isotropic", "manifold"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_the_response_to_noise_on_top_of_the_layers_input_written_out(tiny, rule, antithetic):
    """Row by row through the layer. In the difference of x ± ξ the input cancels, so that any size gives the same."""
    rule = replace(rule, antithetic=antithetic, sigma=0.7, perturbations=6)
    params, batch, state = begin(rule, tiny)
    noise = rule.noise(tiny.net, state, batch, seeded(1), 0)

    feedback = part(after(rule, tiny, params, batch, state, noise).state, "feedback.")

    wanted = {}
    for name, z in noise.items():
        weight = params[name].flatten(1)
        basis = rule.basis(state, name)
        x = layer_rows(tiny, params, batch, name, 6)
        d = z.shape[1] if basis is None else int(basis.square().sum().round())
        size = 0.7 * (x.square().mean() * x.shape[1] / d).sqrt()  # E‖ξ‖² = σ² n RMS(x)²
        products = []
        for row, coordinates in zip(x, z, strict=True):
            xi = size * (coordinates if basis is None else basis @ coordinates)
            response = weight @ (row + xi)
            if antithetic:
                response = (response - weight @ (row - xi)) / 2
            products.append(torch.outer(response, xi) / size**2)
        wanted[name] = torch.stack(products).mean(0).view_as(params[name])
    assert_equal(feedback, wanted, 1e-9)


def test_one_sided_noise_has_no_bias_and_an_error_that_falls_with_its_size(mlp):
    """Budget: 200,000 vectors. Without the input's response the error would be the same for every size."""
    errors = []
    for sigma in (0.1, 1.0):
        rule = replace(ISOTROPIC, antithetic=False, sigma=sigma, perturbations=200_000)
        params, batch, state = begin(rule, mlp)
        noise = rule.noise(mlp.net, state, batch, seeded(1), 0)
        got = after(rule, mlp, params, batch, state, noise).state.buffers["feedback.fc2.weight"]
        errors.append(float((got - params["fc2.weight"]).norm() / params["fc2.weight"].norm()))

    # The error of K vectors is (n + 1 + r)/K, r = n ‖W x‖² / (σ² ‖x‖² ‖W‖²) of the input on top: some 1/σ².
    assert errors[0] < 0.15
    assert 5 < errors[0] / errors[1] < 11


def test_least_squares_recovers_the_weight_from_as_many_vectors_as_inputs(tiny):
    rule = replace(ISOTROPIC, estimator="least-squares", perturbations=80)
    params, batch, state = begin(rule, tiny)
    noise = rule.noise(tiny.net, state, batch, seeded(1), 0)

    step = after(rule, tiny, params, batch, state, noise)

    learnt = part(step.state, "feedback.")
    assert max(params[name][0].numel() for name in learnt) <= 80
    assert_equal(learnt, {name: params[name] for name in learnt}, 1e-8)


def test_least_squares_in_the_manifold_recovers_the_weight_on_it_from_as_many_vectors_as_dimensions(tiny):
    rule = replace(MANIFOLD, estimator="least-squares", perturbations=5)
    params, batch, state = begin(rule, tiny)
    noise = rule.noise(tiny.net, state, batch, seeded(1), 0)

    learnt = part(after(rule, tiny, params, batch, state, noise).state, "feedback.")

    assert_equal(learnt, on_manifold(params, state), 1e-8)


def test_a_network_whose_state_would_not_fit_is_skipped_with_what_helps():
    tiny = tiny_net("cnn")
    rule = LayerwiseManifoldNoiseCorrelation(rank=2, samples=len(tiny.batch().x))
    _, _, state = begin(rule, tiny)
    size = gigabytes(state.buffers)

    assert rule.state_size(tiny.net) == pytest.approx(size, rel=1e-12)
    assert replace(rule, memory=size).skip(tiny.net, tiny.task) is None
    reason = replace(rule, memory=0.6 * size).skip(tiny.net, tiny.task)
    assert f"set samples={rule.samples // 4} (" in reason
    assert replace(rule, memory=0.6 * size, samples=rule.samples // 4).skip(tiny.net, tiny.task) is None
    assert WeightMirror(memory=1e-9).skip(tiny.net, tiny.task).endswith("raise memory")


# --------------------------------------------------------------------------------------------------------------------
# The running average


def test_the_average_is_plain_at_first_and_exponential_later(mlp):
    """Estimates of weights that change from step to step, and the average written out."""
    rule = replace(ISOTROPIC, rate=0.4)
    _, batch, state = begin(rule, mlp)
    estimates, feedback = [], None
    for t in range(5):
        params = mlp.params(seed=t)
        noise = orthonormal_noise({"fc2.weight": 8, "readout.weight": 7})
        estimates.append(params["fc2.weight"])
        state = after(rule, mlp, params, batch, state, noise, t).state
        feedback = estimates[0] if t == 0 else feedback
        if t == 1:
            feedback = (estimates[0] + estimates[1]) / 2
        if t >= 2:  # one third is less than the rate
            feedback = 0.6 * feedback + 0.4 * estimates[t]
        torch.testing.assert_close(state.buffers["feedback.fc2.weight"], feedback, rtol=0, atol=1e-12)


def test_between_updates_nothing_is_drawn_and_the_feedback_rests(mlp):
    rule = replace(ISOTROPIC, every=3)
    params, batch, state = begin(rule, mlp)
    state = after(rule, mlp, params, batch, state, rule.noise(mlp.net, state, batch, seeded(0), 0)).state

    later = after(rule, mlp, mlp.params(1), batch, state, rule.noise(mlp.net, state, batch, seeded(0), 1), 1)

    assert rule.noise(mlp.net, state, batch, seeded(0), 1) == {}
    assert_equal(later.state.buffers, state.buffers, tolerance=0)
    estimate = mlp.params(2)["fc2.weight"]
    noise = orthonormal_noise({"fc2.weight": 8, "readout.weight": 7})
    third = after(rule, mlp, mlp.params(2), batch, state, noise, 3).state.buffers["feedback.fc2.weight"]
    torch.testing.assert_close(
        third, (state.buffers["feedback.fc2.weight"] + estimate) / 2, rtol=0, atol=1e-12
    )


# --------------------------------------------------------------------------------------------------------------------
# The manifold that is followed


def test_the_manifold_of_a_layer_is_that_of_what_it_is_fed_with():
    """After a refresh: the basis spans the inputs of the steps before it."""
    tiny = tiny_net("mlp")
    rule = LayerwiseManifoldNoiseCorrelation(rank=3, samples=24, refresh=4, centred=False)
    params, batch, state = begin(rule, tiny)
    seen = []
    for t in range(5):
        batch = tiny.batch(12, seed=10 + t)
        seen.append(
            torch.tanh(batch.x @ params["fc1.weight"].T + params["fc1.bias"])
        )  # the weights stay as they are
        noise = rule.noise(tiny.net, state, batch, seeded(t), t)
        state = after(rule, tiny, params, batch, state, noise, t).state

    basis = state.buffers["basis.fc2.weight"]

    wanted = torch.linalg.svd(torch.cat(seen[2:4])).Vh[:3].T  # found at step 4 from the two steps before it
    torch.testing.assert_close(basis @ basis.T, wanted @ wanted.T, rtol=0, atol=1e-9)


def test_first_layers_have_no_feedback_and_rest_of_the_state_is_small(tiny):
    _, _, state = begin(MANIFOLD, tiny)

    assert set(part(state, "feedback.")) == set(part(state, "basis."))
    assert not set(part(state, "feedback.")) & FIRST
    assert set(part(state, "feedback.")) | FIRST >= {n for n, p in tiny.params().items() if p.ndim > 1}


def test_weights_that_no_linear_or_convolution_layer_uses_are_refused():
    transposed = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ConvTranspose1d(2, 1, 3), nn.Flatten(), nn.Linear(6, 2))
    normed = nn.Sequential(nn.Linear(6, 5), nn.utils.parametrizations.weight_norm(nn.Linear(5, 2)))

    assert "'1.weight'" in ISOTROPIC.skip(Net(transposed, torch.zeros(2, 1, 6)), None)
    assert "is computed from" in ISOTROPIC.skip(Net(normed, torch.zeros(2, 6)), None)
    assert ISOTROPIC.skip(tiny_net("cnn").net, None) is None
