"""NMNC by regression, written out in loops, and held to the closed forms of its error."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rulezoo import State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.feedback_weights.weight_mirror import LayerwiseManifoldNoiseCorrelation
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation
from rulezoo_plugins.noise_regression.delta import step_size
from rulezoo_plugins.noise_regression.direct import NoiseRegression
from rulezoo_plugins.noise_regression.layerwise import LayerwiseNoiseRegression

EXACT = 1e-10  # of the largest entry, in float64
LAYERWISE = LayerwiseNoiseRegression(rank=5, samples=40, refresh=3)
DIRECT = NoiseRegression(rank=4, samples=24, refresh=3, perturbations=10)


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


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.buffers.items() if key.startswith(prefix)}


def begin(rule, tiny, *, scale=0.3):
    """Parameters, a batch, and a state whose feedback is not zero."""
    params, batch = tiny.params(), tiny.batch()
    state = rule.init(tiny.net, params, batch, seeded(0))
    drawn = {
        key: scale * randn(*value.shape, seed=i)
        for i, (key, value) in enumerate(sorted(state.buffers.items()))
        if key.startswith("feedback.")
    }
    return params, batch, State(state.params, state.buffers | drawn)


def after(rule, tiny, params, batch, state, t, noise=None):
    noise = rule.noise(tiny.net, state, batch, seeded(50 + t), t) if noise is None else noise
    return noise, rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)


def through_layer(weight, vector):
    """What a layer answers to one input or patch, by torch's own layer."""
    driven = vector.view(1, *weight.shape[1:])
    return (F.conv2d if weight.ndim == 4 else F.linear)(driven, weight).flatten()


# --------------------------------------------------------------------------------------------------------------------
# The step


@pytest.mark.parametrize(
    ("rate", "examples", "dimensions", "wanted"),
    [(1.0, 4, 5, 0.4), (0.5, 4, 5, 0.2), (1.0, 1, 0, 0.5), (1.0, 10, 0.0, 10 / 11)],
)
def test_the_step_is_the_budget_over_budget_and_dimensions(rate, examples, dimensions, wanted):
    assert step_size(rate, examples, dimensions) == pytest.approx(wanted, rel=1e-12)


# --------------------------------------------------------------------------------------------------------------------
# Layerwise


@pytest.mark.parametrize("options", [{}, {"perturbations": 7, "rate": 0.4}], ids=["default", "options"])
def test_layerwise_regression_written_out(tiny, options):
    """One noise vector after the other through torch's own layers, over steps in which the manifold is found anew."""
    rule = replace(LAYERWISE, **options)
    params, batch, state = begin(rule, tiny)
    feedback = part(state, "feedback.")
    assert feedback
    bases = []
    for t in range(8):
        batch = tiny.batch(seed=t)
        noise, step = after(rule, tiny, params, batch, state, t)
        basis = part(step.state, "basis.")
        assert noise.keys() == basis.keys() == feedback.keys()
        for name, z in noise.items():
            k, d = z.shape
            assert k == options.get("perturbations", max(1, d // 4))
            change = torch.zeros_like(feedback[name].flatten(1))
            for row in z:
                xi = torch.zeros(len(basis[name]), dtype=torch.float64)
                for j in range(d):
                    xi = xi + row[j] * basis[name][:, j]
                missed = through_layer(params[name], xi) - through_layer(feedback[name], xi)
                change = change + torch.outer(missed, xi) / k
            spanned = int((basis[name].norm(dim=0) > 0.5).sum())
            rate = options.get("rate", 1.0) * k / (k + spanned + 1)
            feedback[name] = feedback[name] + rate * change.view_as(feedback[name])
        assert_equal(part(step.state, "feedback."), feedback)
        grads, mean = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, *batch)
        assert_equal(step.grads, grads)
        torch.testing.assert_close(step.loss, mean)
        state = step.state
        bases.append(basis)
        params = {name: p - 0.1 * step.grads[name] for name, p in params.items()}
    assert any(not torch.equal(bases[0][name], bases[-1][name]) for name in feedback)


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("name", ["fc2.weight", "conv2.weight"])
def test_the_error_in_the_manifold_shrinks_as_the_closed_form_says(name, rate):
    """1 - 2μ + μ²s, which is 1 - K/(K + d + 1) for rate 1. Budget: 2,000 updates; the mean has a standard error near 1 %."""
    tiny = tiny_net("mlp" if name.startswith("fc") else "cnn")
    k, d, repeats, tolerance = 3, 5, 2000, 0.05
    rule = replace(LAYERWISE, perturbations=k, rate=rate)
    params, _, state = begin(rule, tiny)
    basis, weight = state.buffers[f"basis.{name}"], params[name].flatten(1)
    before = ((weight - state.buffers[f"feedback.{name}"].flatten(1)) @ basis).square().sum()
    errors = []
    for i in range(repeats):
        z = randn(k, d, seed=i)
        found = rule._regressed(state.buffers[f"feedback.{name}"], params[name], z, basis)
        errors.append(float(((weight - found.flatten(1)) @ basis).square().sum() / before))
    assert basis.shape[1] == d
    mu, s = rate * k / (k + d + 1), 1 + (d + 1) / k
    wanted = 1 - 2 * mu + mu**2 * s
    if rate == 1:
        assert wanted == pytest.approx(1 - k / (k + d + 1), rel=1e-12)
    assert sum(errors) / repeats == pytest.approx(wanted, rel=tolerance)


def test_what_leaves_the_manifold_is_not_forgotten(tiny):
    params, batch, state = begin(LAYERWISE, tiny)
    kept = {}
    for name, basis in part(state, "basis.").items():
        b = state.buffers[f"feedback.{name}"].flatten(1)
        kept[name] = b - b @ basis @ basis.T
    assert any(float(value.norm()) > 0.1 for value in kept.values())

    _, step = after(LAYERWISE, tiny, params, batch, state, 0)

    for name, value in kept.items():
        basis, b = step.state.buffers[f"basis.{name}"], step.state.buffers[f"feedback.{name}"].flatten(1)
        torch.testing.assert_close(b - b @ basis @ basis.T, value, msg=name)


def test_on_a_network_held_still_it_comes_to_backprop_where_the_manifold_is_all(tiny):
    """The exact limit: full rank and many updates. After a single update it is far from backprop."""
    rule = LayerwiseNoiseRegression(samples=400, refresh=10**6, perturbations=32)
    params, batch = tiny.params(), tiny.batch(size=400)
    state = rule.init(tiny.net, params, batch, seeded(0))
    full = {
        k: torch.linalg.qr(randn(len(u), len(u))).Q
        for k, u in state.buffers.items()
        if k.startswith("basis.")
    }
    state = State(state.params, state.buffers | full)
    true, _ = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    steps = []
    for t in range(1, 80):
        _, step = after(rule, tiny, params, batch, state, t)
        state = step.state
        steps.append(step)
    with pytest.raises(AssertionError):
        assert_equal(steps[0].grads, true, 0.05)
    assert_equal(steps[-1].grads, true, 1e-6)


def test_feedback_is_left_alone_between_updates(tiny):
    rule = replace(LAYERWISE, every=4)
    params, batch, state = begin(rule, tiny)
    noise, step = after(rule, tiny, params, batch, state, 6)
    assert noise == {}
    assert_equal(part(step.state, "feedback."), part(state, "feedback."), 0)
    grads, _ = credit.through_feedback(
        tiny.net, tiny.task.loss, params, part(state, "feedback."), batch.x, batch.y
    )
    assert_equal(step.grads, grads)
    assert after(rule, tiny, params, batch, state, 8)[0]


def test_the_correlation_is_layerwise_nmnc(tiny):
    other = LayerwiseManifoldNoiseCorrelation(rank=5, samples=40, refresh=3)
    rule = replace(LAYERWISE, estimator="correlation", rate=0.1)
    assert rule.perturbations == other.perturbations
    params, batch, state = begin(rule, tiny)
    for t in range(5):
        noise, step = after(rule, tiny, params, batch, state, t)
        _, wanted = after(other, tiny, params, batch, state, t, noise)
        assert_equal(step.state.buffers, wanted.state.buffers, 0)
        assert_equal(step.grads, wanted.grads, 0)
        state = step.state


def test_the_dimensions_of_the_manifold_are_logged_when_it_is_found(mlp):
    params, batch, state = begin(LAYERWISE, mlp)
    logs = {t: after(LAYERWISE, mlp, params, batch, state, t)[1].logs for t in (0, 1, 3)}
    assert {t: bool(log) for t, log in logs.items()} == {0: True, 1: False, 3: True}
    assert logs[0].keys() == {"dimensions.fc2.weight", "dimensions.readout.weight"}


# --------------------------------------------------------------------------------------------------------------------
# Direct


def perturbed_output(net, params, x, xi, size):
    """The output with noise on top of the activity at every site."""
    return net.run(params, x, lambda key, h: h + size * xi[key] if key in xi else h).flatten()


@pytest.mark.parametrize(
    "options",
    [{}, {"antithetic": True}, {"rate": 0.8, "sigma": 0.3}, {"response": "derivative"}, {"patch": 2}],
    ids=["default", "antithetic", "rate and sigma", "derivative", "patch"],
)
def test_direct_regression_written_out(tiny, options):
    """One example after the other, with noise at all sites at once, over steps in which the manifold is found anew."""
    rule = replace(DIRECT, **options)
    params, batch, state = begin(rule, tiny)
    feedback = part(state, "feedback.")
    net = tiny.net
    for t in range(7):
        batch = tiny.batch(seed=t)
        noise, step = after(rule, tiny, params, batch, state, t)
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        basis = {key: step.state.buffers[f"basis.{net.visits[key].site}"] for key in feedback}
        dims = {key: int((u.norm(dim=0) > 0.5).sum()) for key, u in basis.items()}
        variance = {
            key: rule.sigma**2 * float(h.square().sum()) / len(h) / dims[key] for key, h in cut.sites.items()
        }
        examples = 10
        change = {key: torch.zeros_like(b) for key, b in feedback.items()}
        for i in range(examples):
            x = batch.x[i % len(batch.x)][None]
            xi = {key: variance[key] ** 0.5 * basis[key] @ z[i] for key, z in noise.items()}
            shown = {key: rule.seen(net, key).expand(v[None]) for key, v in xi.items()}
            output = partial(perturbed_output, net, params, x, shown)
            if rule.response == "derivative":
                h = 1e-5
                dy = (output(h) - output(-h)) / (2 * h)
            else:
                dy = (output(1) - output(-1)) / 2 if rule.antithetic else output(1) - output(0)
            missed = dy - sum(feedback[key] @ v for key, v in xi.items())
            for key, v in xi.items():
                change[key] = change[key] + torch.outer(missed, v) / variance[key] / examples
        rate = rule.rate * examples / (examples + sum(dims.values()) + 1)
        feedback = {key: b + rate * change[key] for key, b in feedback.items()}
        tolerance = 1e-6 if rule.response == "derivative" else 1e-9
        assert_equal(part(step.state, "feedback."), feedback, tolerance)
        error, mean = credit.output_error(tiny.task.loss, cut.output, batch.y)
        signals = {key: rule.seen(net, key).expand(error.flatten(1) @ b) for key, b in feedback.items()}
        assert_equal(step.grads, cut.pull(error, signals), 10 * tolerance)
        torch.testing.assert_close(step.loss, mean)
        state = step.state
        params = {name: p - 0.1 * step.grads[name] for name, p in params.items()}


def jacobians(tiny, params, x):
    """Of every example at every site: key → ``(b, o, n)``."""
    net = tiny.net
    rows = {key: [] for key in net.keys("post")}
    for o in range(net.output_shape[0]):
        pick = lambda y, _, o=o: y[:, o]
        found = credit.site_gradients(net, pick, params, x, x, net.keys("post"))
        for key, g in found.items():
            rows[key].append(len(x) * g.flatten(1))
    return {key: torch.stack(value, 1) for key, value in rows.items()}


def test_the_last_site_is_learnt_exactly_and_the_error_elsewhere_is_that_of_the_closed_form(mlp):
    """Relative error rate/(2 - rate) · (D + 2)/(K + D + 1) · (ρ - 1), at rate 0.2 within 15 %: budget 300 + 600 updates.

    The last hidden layer has the same Jacobian for every example, so ρ = 1 at its site; all of the error is the first's.
    """
    rule = NoiseRegression(
        rank=64, samples=400, refresh=10**6, rate=0.2, perturbations=400, response="derivative"
    )
    params = {name: 2 * p for name, p in mlp.params().items()}
    batch = mlp.batch(size=400)
    state = rule.init(mlp.net, params, batch, seeded(0))
    exact = jacobians(mlp, params, batch.x)
    mean = {key: j.mean(0) for key, j in exact.items()}
    # Whitened by the size of the noise at each site.
    cut = credit.cut(mlp.net, params, batch.x, mlp.net.keys("post"))
    scale = {key: (0.01 * h.square().sum() / len(h) / h.shape[1]) ** 0.5 for key, h in cut.sites.items()}
    spread = sum(float((scale[key] * (exact[key] - mean[key])).square().sum()) / len(batch.x) for key in mean)
    # Few examples at a time, so that the noise of the estimate is not small.
    rule = replace(rule, perturbations=20)
    errors = []
    for t in range(1, 900):
        order = torch.randperm(400, generator=seeded(t))[:20]
        few = batch._replace(x=batch.x[order], y=batch.y[order])
        _, step = after(rule, mlp, params, few, state, t)
        # The sizes of noise are those of a batch; hold them by looking at feedback alone.
        state = step.state
        if t >= 300:
            found = part(state, "feedback.")
            errors.append(sum(float((scale[k] * (found[k] - mean[k])).square().sum()) for k in mean))
    dims = sum(h.shape[1] for h in cut.sites.values())
    wanted = 0.2 / 1.8 * (dims + 2) / (20 + dims + 1) * spread
    assert spread > 0.01 * sum(float((scale[k] * m).square().sum()) for k, m in mean.items())
    assert sum(errors) / len(errors) == pytest.approx(wanted, rel=0.15)


def test_without_spread_the_error_goes_to_zero_where_the_correlation_keeps_its_own():
    """A network of one hidden layer: its Jacobian is the read-out, whatever the example."""
    from torch import nn

    from rulezoo import Batch, Net, Site

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), Site("post"), nn.Linear(9, 3)).double()
    net = Net(module, randn(2, 4))
    params, batch = net.init_params(), Batch(randn(50, 4), torch.arange(50) % 3)
    tiny = SimpleNamespace(
        net=net, task=SimpleNamespace(loss=lambda y, t: F.cross_entropy(y, t, reduction="none"))
    )
    weight = params["3.weight"]
    errors = {}
    for name in ("regression", "correlation"):
        rule = NoiseRegression(estimator=name, rank=9, samples=50, refresh=10**6, rate=0.3)
        state = rule.init(net, params, batch, seeded(0))
        for t in range(1, 150):
            state = after(rule, tiny, params, batch, state, t)[1].state
        errors[name] = float((state.buffers["feedback.2"] - weight).norm() / weight.norm())
    assert errors["regression"] < 1e-6
    assert errors["correlation"] > 0.05


def test_the_correlation_is_nmnc(tiny):
    other = ManifoldNoiseCorrelation(rank=4, samples=24, refresh=3, perturbations=10, together=True, every=1)
    rule = replace(DIRECT, estimator="correlation", rate=0.1)
    params, batch, state = begin(rule, tiny)
    for t in range(5):
        noise, step = after(rule, tiny, params, batch, state, t)
        _, wanted = after(other, tiny, params, batch, state, t, noise)
        assert_equal(step.state.buffers, wanted.state.buffers, 0)
        assert_equal(step.grads, wanted.grads, 0)
        state = step.state


def test_a_network_too_large_is_offered_options_that_the_rule_has(mlp):
    forms = NoiseRegression().smaller_forms()
    assert forms
    for form in forms:
        replace(NoiseRegression(), **form)
