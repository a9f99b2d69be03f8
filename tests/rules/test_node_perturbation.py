"""Node perturbation, fed with noise of which the answer is known, and held to the closed forms of its error.

Noise is an argument of the step: a basis instead of random vectors must give the gradient at every site exactly, up to
the finite difference.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site, State, credit, manifold
from rulezoo.measures import theory
from rulezoo.testing import tiny_net
from rulezoo_plugins.node_perturbation.rules import ManifoldNodePerturbation, NodePerturbation

# Antithetic differences leave an error of order sigma², far above the rounding of float64 at this sigma.
SIGMA = 1e-4
CLOSE = 1e-6  # of the largest entry
EXACT = 1e-10  # where both sides take the same differences

ISOTROPIC = NodePerturbation(sigma=SIGMA)
MANIFOLD = ManifoldNodePerturbation(sigma=SIGMA, rank=3, samples=40)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_equal(got, wanted, tolerance=CLOSE):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            got[name], tensor, rtol=0, atol=tolerance * float(tensor.abs().max()), msg=name
        )


def begin(rule, tiny, size=12):
    params, batch = tiny.params(), tiny.batch(size)
    return params, batch, rule.init(tiny.net, params, batch, seeded(0))


def grads(rule, tiny, params, batch, state, noise):
    return rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, 0).grads


def basis_as_noise(dimensions, batch, *, together=False):
    """Noise with ``mean_k(z zᵀ) = 1`` for every example: visit → ``(K, batch, d)``.

    ``together``: the basis is of the space of all visits at once, so that no response is due to two of them.
    """
    draws = sum(dimensions.values()) if together else max(dimensions.values())
    noise, before = {}, 0
    for key, d in dimensions.items():
        rows = torch.zeros(draws, d, dtype=torch.float64)
        rows[before : before + d] = draws**0.5 * torch.linalg.qr(randn(d, d)).Q
        noise[key] = rows[:, None].expand(draws, batch, d)
        before += d if together else 0
    return noise


def with_signals(tiny, params, batch, signals):
    """What every parameter is taught by given teaching signals."""
    cut = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post"))
    error, _ = credit.output_error(tiny.task.loss, cut.output, batch.y)
    return cut.pull(error, signals)


def true_signals(tiny, params, batch):
    return credit.site_gradients(tiny.net, tiny.task.loss, params, *batch, tiny.net.keys("post"))


def projected(tiny, state, signals):
    """P g at every site, written out."""
    found = {}
    for key, g in signals.items():
        basis = state.buffers[f"basis.{tiny.net.visits[key].site}"]
        found[key] = (g.flatten(1) @ basis @ basis.T).view_as(g)
    return found


# --------------------------------------------------------------------------------------------------------------------
# What is estimated


@pytest.mark.parametrize("together", [False, True])
def test_noise_on_a_basis_gives_backprop(tiny, together):
    params, batch, state = begin(ISOTROPIC, tiny)
    widths = {key: tiny.net.visits[key].width for key in tiny.net.keys("post")}
    noise = basis_as_noise(widths, len(batch.x), together=together)
    rule = replace(ISOTROPIC, draws=len(next(iter(noise.values()))), together=together)

    step = rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, 0)

    true, mean = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    assert_equal(step.grads, true)
    assert torch.equal(step.loss, mean)


@pytest.mark.parametrize("together", [False, True])
def test_noise_on_a_basis_of_the_manifold_gives_the_gradient_on_the_manifold(tiny, together):
    params, batch, state = begin(MANIFOLD, tiny)
    columns = {
        key: state.buffers[f"basis.{tiny.net.visits[key].site}"].shape[1] for key in tiny.net.keys("post")
    }
    noise = basis_as_noise(columns, len(batch.x), together=together)
    rule = replace(MANIFOLD, draws=len(next(iter(noise.values()))), together=together)

    got = grads(rule, tiny, params, batch, state, noise)

    inside = projected(tiny, state, true_signals(tiny, params, batch))
    assert_equal(got, with_signals(tiny, params, batch, inside))


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_the_estimate_written_out(tiny, together, antithetic):
    """One example, one draw, one site after the other."""
    rule = replace(ISOTROPIC, sigma=0.3, draws=2, together=together, antithetic=antithetic)
    params, batch, state = begin(rule, tiny, size=3)
    noise = rule.noise(tiny.net, state, batch, seeded(1), 0)
    activity = credit.cut(tiny.net, params, batch.x, list(noise)).sites
    scale = {key: 0.3 * h.square().mean().sqrt() for key, h in activity.items()}

    def loss(i, k, sign, keys):
        def tap(key, h):
            return h + sign * scale[key] * noise[key][k, i].view_as(h) if key in keys else h

        return tiny.task.loss(tiny.net.run(params, batch.x[i : i + 1], tap), batch.y[i : i + 1])[0]

    signals = {key: torch.zeros_like(h) for key, h in activity.items()}
    for key, signal in signals.items():
        felt = set(signals) if together else {key}
        for i in range(3):
            for k in range(2):
                other = -loss(i, k, -1, felt) if antithetic else -loss(i, k, 0, felt)
                change = (loss(i, k, 1, felt) + other) / (2 if antithetic else 1)
                xi = scale[key] * noise[key][k, i].view_as(signal[i])
                signal[i] += change * xi / scale[key] ** 2 / (2 * 3)  # two draws, a mean over three examples

    assert_equal(
        grads(rule, tiny, params, batch, state, noise), with_signals(tiny, params, batch, signals), EXACT
    )


@pytest.mark.parametrize(
    ("rule", "antithetic"),
    [(ISOTROPIC, True), (ISOTROPIC, False), (MANIFOLD, True)],
    ids=["isotropic", "one-sided", "manifold"],
)
def test_the_estimate_is_unbiased_and_its_error_is_that_of_the_closed_form(rule, antithetic):
    """Equations (1) and (2) for one draw, K = 1, one site at a time.

    Budget: 20,000 independent estimates of one example's gradient at a site of 7 units. The mean squared error has
    a standard error near 2 % and is held to 8 %; the bias to 1.6 times its expected size.
    """
    repeats = 20_000
    tiny = tiny_net("mlp")
    params, batch, state = begin(rule, tiny)
    rule = replace(rule, draws=1, antithetic=antithetic)
    one = Batch(batch.x[:1], batch.y[:1])
    drawn = replace(rule, draws=repeats).noise(tiny.net, state, one, seeded(1), 0)

    def estimate(noise):  # the gradient of fc2's bias is the signal at post2, times the slope of tanh
        return grads(rule, tiny, params, one, state, noise)["fc2.bias"]

    found = torch.func.vmap(estimate)({key: z[:, None] for key, z in drawn.items()})

    true = true_signals(tiny, params, one)
    slope = 1 - credit.cut(tiny.net, params, one.x, ["post2"]).sites["post2"][0] ** 2
    g = true["post2"][0]
    inside = projected(tiny, state, true)["post2"][0] if "basis.post2" in state.buffers else g
    d = rule.rank if isinstance(rule, ManifoldNodePerturbation) else 7
    alpha = float(inside.square().sum() / g.square().sum())
    signal = found / slope
    error = float((signal - g).square().sum(1).mean() / g.square().sum())
    assert error == pytest.approx(theory.relative_error(d=d, k=1, alpha=alpha), rel=0.08)
    bias = float((signal.mean(0) - inside).norm() / inside.norm())
    assert bias < 1.6 * theory.relative_error(d=d, k=repeats) ** 0.5


def test_noise_at_all_sites_together_adds_the_variance_of_equation_6():
    """The same budget, at the first site: the second site's share of the response is noise to it."""
    repeats = 20_000
    tiny = tiny_net("mlp")
    params, batch, state = begin(ISOTROPIC, tiny)
    rule = replace(ISOTROPIC, together=True)
    one = Batch(batch.x[:1], batch.y[:1])
    drawn = replace(rule, draws=repeats).noise(tiny.net, state, one, seeded(1), 0)

    found = torch.func.vmap(lambda z: grads(rule, tiny, params, one, state, z)["fc1.bias"])(
        {key: z[:, None] for key, z in drawn.items()}
    )

    true = true_signals(tiny, params, one)
    activity = credit.cut(tiny.net, params, one.x, ["post1", "post2"]).sites
    g = true["post1"][0]
    variance = {key: float(manifold.noise_scale(h, SIGMA) ** 2) for key, h in activity.items()}
    own, others = (variance[key] * float(true[key].square().sum()) for key in ("post1", "post2"))
    wanted = theory.relative_error(d=8, k=1) + theory.cross_talk(d=8, k=1, own=own, others=others)
    error = (found / (1 - activity["post1"][0] ** 2) - g).square().sum(1).mean() / g.square().sum()
    assert wanted > 1.2 * theory.relative_error(d=8, k=1)
    assert float(error) == pytest.approx(wanted, rel=0.08)


def test_with_a_basis_of_every_direction_the_manifold_form_is_the_isotropic_one(tiny):
    """Equal for noise that is turned into the basis, hence equal in law: the noise is isotropic."""
    params, batch, state = begin(MANIFOLD, tiny)
    complete = {}
    for name, basis in state.buffers.items():
        if name.startswith("basis."):
            complete[name] = torch.linalg.qr(randn(len(basis), len(basis))).Q
    state = State(buffers=state.buffers | complete)
    noise = MANIFOLD.noise(tiny.net, state, batch, seeded(1), 0)
    turned = {key: z @ complete[f"basis.{tiny.net.visits[key].site}"].T for key, z in noise.items()}

    got = grads(MANIFOLD, tiny, params, batch, state, noise)

    assert_equal(got, grads(ISOTROPIC, tiny, params, batch, State(), turned))


@pytest.mark.parametrize("rule", [ISOTROPIC, MANIFOLD], ids=["isotropic", "manifold"])
def test_the_energy_of_the_noise_is_the_same_in_every_subspace(rule):
    """E‖ξ‖² = σ² n RMS(x)², seen by a network whose output is its activity. 8,000 draws: 3 % is five standard errors."""
    rule = replace(rule, sigma=0.5, draws=200)
    x = randn(40, 5)
    net = Net(nn.Sequential(nn.Linear(5, 6), Site()).double(), x)
    params, batch, outputs = net.init_params(), Batch(x, x), []

    def loss(output, _):
        outputs.append(output)
        return output.sum(1)

    state = rule.init(net, params, batch, seeded(0))
    rule.step(net, loss, params, state, batch, rule.noise(net, state, batch, seeded(1), 0), 0)

    xi = (outputs[-2] - outputs[-1]) / 2
    energy = 0.25 * 6 * float(net.run(params, x).square().mean())
    assert float(xi.square().sum(1).mean()) == pytest.approx(energy, rel=0.03)
    assert torch.linalg.matrix_rank(xi, rtol=1e-9) == (
        6 if rule.__class__ is NodePerturbation else MANIFOLD.rank
    )


# --------------------------------------------------------------------------------------------------------------------
# What is followed, and what is refused


def test_a_network_without_sites_is_refused():
    net = Net(nn.Linear(3, 2), torch.zeros(1, 3))

    assert "'post'" in ISOTROPIC.skip(net, None)
    assert (
        ISOTROPIC.skip(Net(nn.Sequential(nn.Linear(3, 2), Site(), nn.Linear(2, 2)), torch.zeros(1, 3)), None)
        is None
    )


def test_noise_that_rounding_would_drown_is_refused():
    tiny = tiny_net("mlp", torch.float32)

    with pytest.raises(OptionError, match=r"sigma=1e-07 drowns .* use at least 1e-05"):
        replace(ISOTROPIC, sigma=1e-7).init(tiny.net, tiny.params(), tiny.batch(), seeded(0))


def test_the_visits_of_a_site_share_one_manifold():
    tiny = tiny_net("rnn")
    rule = ManifoldNodePerturbation(rank=2, samples=48, centred=False)
    params, batch, state = begin(rule, tiny)

    states = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post")).sites
    wanted = torch.linalg.svd(torch.cat(list(states.values()))).Vh[:2].T
    basis = state.buffers["basis.hidden"]
    torch.testing.assert_close(basis @ basis.T, wanted @ wanted.T, rtol=0, atol=1e-9)
    assert {name for name in state.buffers if name.startswith("basis.")} == {"basis.hidden"}
