"""Noise correlation, fed with noise of which the answer is known.

Noise is an argument of the step, so the estimator can be tested without chance: a basis instead of random vectors
gives the Jacobian exactly. The twin of every Jacobian is automatic differentiation of one example at a time, through an
offset at the site.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site, State, credit, manifold
from rulezoo.measures import theory
from rulezoo_plugins.noise_correlation.rules import (
    ManifoldNoiseCorrelation,
    NoiseCorrelation,
    RandomSubspaceNoiseCorrelation,
    rank_by_size,
)
from rulezoo_plugins.shared.state_size import gigabytes

EXACT = 1e-10  # of the largest entry, in float64
DERIVATIVE = {"rate": 1.0, "response": "derivative"}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_equal(got, wanted, tolerance=EXACT):
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))


def jacobians(net, params, x, key):
    """``(batch, o, n)``: one example at a time."""

    def output(offset, example):
        def tap(k, h):
            return h + offset.view_as(h) if k == key else h

        return net.run(params, example[None], tap).flatten()

    zero = x.new_zeros(net.visits[key].width)
    return torch.stack([torch.func.jacrev(output)(zero, example) for example in x])


def every_direction(net, keys, batch):
    """Noise of which ``E z zᵀ = 1`` holds exactly for each example: visit → ``(K, n)``.

    Row r perturbs example r mod batch, so example i meets each basis vector once, and zeros where a site has fewer units
    than the widest.
    """
    widths = {key: net.visits[key].width for key in keys}
    vectors = max(widths.values())
    rows = vectors * batch
    direction = torch.arange(rows) // batch
    eye = {key: torch.eye(vectors, n, dtype=torch.float64) for key, n in widths.items()}
    return {key: vectors**0.5 * eye[key][direction] for key in keys}


def learnt(rule, tiny, noise, batch, state=None, params=None, t=0):
    """The feedback after one step: visit → ``(o, n)``."""
    params = tiny.params() if params is None else params
    state = rule.init(tiny.net, params, batch, seeded(0)) if state is None else state
    after = rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t).state
    return {key: after.buffers[f"feedback.{key}"] for key in tiny.net.keys("post")}


def basis_of(tiny, state, key):
    return state.buffers[f"basis.{tiny.net.visits[key].site}"]


def per_example(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")


def lone(batch, copies):
    """One example, again and again: its Jacobian is the mean Jacobian."""
    return Batch(*(part[:1].repeat(copies, *[1] * (part.ndim - 1)) for part in batch))


# --------------------------------------------------------------------------------------------------------------------
# What is estimated


def test_a_basis_as_noise_gives_the_mean_jacobian_of_every_site(tiny):
    batch = tiny.batch(5)
    rule = NoiseCorrelation(**DERIVATIVE)
    noise = every_direction(tiny.net, tiny.net.keys("post"), 5)

    feedback = learnt(rule, tiny, noise, batch)

    for key, b in feedback.items():
        assert_equal(b, jacobians(tiny.net, tiny.params(), batch.x, key).mean(0))


def test_one_site_alone_may_be_perturbed(tiny):
    """``perturbations`` = units × examples; the feedback of other sites is left as it is."""
    batch, key = tiny.batch(4), tiny.net.keys("post")[0]

    feedback = learnt(NoiseCorrelation(**DERIVATIVE), tiny, every_direction(tiny.net, [key], 4), batch)

    assert_equal(feedback.pop(key), jacobians(tiny.net, tiny.params(), batch.x, key).mean(0))
    assert not any(b.any() for b in feedback.values())


@pytest.mark.parametrize(("antithetic", "order"), [(True, 2), (False, 1)])
def test_finite_differences_err_by_a_power_of_sigma(mlp, antithetic, order):
    """One hundredth of σ, so 1e-2 of the error one-sided and 1e-4 antithetic."""
    batch = mlp.batch(4)
    noise = every_direction(mlp.net, mlp.net.keys("post"), 4)
    true = jacobians(mlp.net, mlp.params(), batch.x, "post1").mean(0)

    def error(sigma):
        rule = NoiseCorrelation(rate=1.0, sigma=sigma, antithetic=antithetic)
        return float((learnt(rule, mlp, noise, batch)["post1"] - true).norm() / true.norm())

    assert error(1e-2) / error(1e-4) == pytest.approx(100.0**order, rel=0.1)
    assert error(1e-4) < 1e-3


def test_with_identical_examples_the_step_is_backprop(tiny):
    """The mean Jacobian is then everyone's, and Jᵀe the true gradient at the site."""
    batch, params = lone(tiny.batch(), 3), tiny.params()
    rule = NoiseCorrelation(**DERIVATIVE)
    state = rule.init(tiny.net, params, batch, seeded(0))

    step = rule.step(
        tiny.net, tiny.task.loss, params, state, batch, every_direction(tiny.net, tiny.net.keys("post"), 3), 0
    )

    true, mean = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    for name, grad in true.items():
        assert_equal(step.grads[name], grad)
    assert torch.equal(step.loss, mean)


def test_the_signal_is_the_mean_jacobian_times_each_examples_error(mlp):
    """Written out for the first layer; examples differ, so this is not backprop."""
    batch, params = mlp.batch(5), mlp.params()
    rule = NoiseCorrelation(**DERIVATIVE)
    state = rule.init(mlp.net, params, batch, seeded(0))

    grads = rule.step(
        mlp.net, mlp.task.loss, params, state, batch, every_direction(mlp.net, ["post1", "post2"], 5), 0
    ).grads

    error, _ = credit.output_error(mlp.task.loss, mlp.net.run(params, batch.x), batch.y)
    signal = error @ jacobians(mlp.net, params, batch.x, "post1").mean(0)
    h1 = torch.tanh(batch.x @ params["fc1.weight"].T + params["fc1.bias"])
    assert_equal(grads["fc1.weight"], (signal * (1 - h1**2)).T @ batch.x)
    assert not torch.allclose(
        grads["fc1.weight"], credit.backprop(mlp.net, mlp.task.loss, params, *batch)[0]["fc1.weight"]
    )


@pytest.mark.parametrize("together", [False, True])
def test_an_estimate_from_any_noise_written_out(mlp, together):
    """Correlation, row by row: (1/K) Σ_k dy_k z_kᵀ / √v. Together, every site hears the responses to the others."""
    batch, params = mlp.batch(4), mlp.params()
    keys, rows = ["post1", "post2"], 6  # more rows than examples: they are gone through again
    noise = {key: randn(rows, mlp.net.visits[key].width, seed=seed) for seed, key in enumerate(keys)}
    rule = NoiseCorrelation(**DERIVATIVE, together=together, perturbations=rows)

    feedback = learnt(rule, mlp, noise, batch)

    true = {key: jacobians(mlp.net, params, batch.x, key) for key in keys}
    sites = credit.cut(mlp.net, params, batch.x, keys).sites
    scale = {key: 0.1 * float(sites[key].square().mean().sqrt()) for key in keys}
    for block, key in enumerate(keys):
        wanted = torch.zeros_like(feedback[key])
        for row in range(rows):
            example = row % 4 if together else (block * rows + row) % 4
            heard = keys if together else [key]
            response = sum(scale[k] * true[k][example] @ noise[k][row] for k in heard)
            wanted += torch.outer(response, noise[key][row]) / scale[key] / rows
        assert_equal(feedback[key], wanted)


# --------------------------------------------------------------------------------------------------------------------
# Finite differences on a network whose response is known


class Quadratic(nn.Module):
    """y = W (h + h²), h = V x behind a site: its response has a linear and a quadratic term, and no more."""

    def __init__(self):
        super().__init__()
        self.hidden, self.site, self.readout = nn.Linear(4, 6), Site(), nn.Linear(6, 3)

    def forward(self, x):
        h = self.site(self.hidden(x))
        return self.readout(h + h**2)


def test_antithetic_noise_cancels_the_even_order_exactly():
    torch.manual_seed(0)
    x, y = randn(5, 4), torch.zeros(5, dtype=torch.long)
    net = Net(Quadratic().double(), x)
    params = net.init_params()
    noise = {"site": randn(5, 6, seed=1)}

    def feedback(**options):
        rule = NoiseCorrelation(rate=1.0, sigma=0.5, **options)
        state = rule.init(net, params, Batch(x, y), seeded(0))
        step = rule.step(net, lambda o, t: o.square().sum(1), params, state, Batch(x, y), noise, 0)
        return step.state.buffers["feedback.site"]

    h = x @ params["hidden.weight"].T + params["hidden.bias"]
    scale = 0.5 * h.square().mean().sqrt()
    even = ((scale * noise["site"]) ** 2 @ params["readout.weight"].T).T @ noise["site"] / 5 / scale

    assert_equal(feedback(antithetic=True), feedback(response="derivative"))
    assert_equal(feedback(antithetic=False) - feedback(antithetic=True), even)
    assert even.abs().max() > 0.1  # that there was something to cancel


@pytest.mark.parametrize("rule", [NoiseCorrelation(), ManifoldNoiseCorrelation(rank=4)], ids=["nc", "nmnc"])
def test_the_energy_of_the_noise_is_that_of_the_activity_whatever_the_subspace(tiny, rule, monkeypatch):
    """E‖ξ‖² = σ² n RMS(x)², measured on what the network saw, with noise of which E z zᵀ = 1 holds exactly."""
    rule = replace(rule, sigma=0.3, antithetic=False)
    batch, params = tiny.batch(8), tiny.params()
    state = rule.init(tiny.net, params, batch, seeded(0))
    clean = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post")).sites
    d = {key: z.shape[1] for key, z in rule.noise(tiny.net, state, batch, seeded(0), 0).items()}
    seen = perturbations_seen(tiny, rule, params, state, batch, {k: n**0.5 * torch.eye(n, dtype=torch.float64)
                                                                 for k, n in d.items()}, clean, monkeypatch)  # fmt: skip

    for key, energy in seen.items():
        wanted = 0.3**2 * clean[key].square().mean() * tiny.net.visits[key].width
        torch.testing.assert_close(energy, wanted, rtol=1e-9, atol=0)


def perturbations_seen(tiny, rule, params, state, batch, noise, clean, monkeypatch):
    """Mean of ‖ξ‖² over the rows of a site, one site at a time."""
    energies, given = {}, []
    enter = credit.from_sites
    monkeypatch.setattr(credit, "from_sites", lambda *args: given.append(args[2]) or enter(*args))
    for key, z in noise.items():
        given.clear()
        rule.step(tiny.net, tiny.task.loss, params, state, batch, {key: z}, 0)
        (noisy,) = given
        rows = torch.arange(len(z)) % len(batch.x)
        assert list(noisy) == [key]
        energies[key] = (noisy[key] - clean[key][rows]).flatten(1).square().sum(1).mean()
    return energies


def test_a_silent_site_is_still_perturbed_and_gives_finite_feedback():
    x, y = randn(4, 5), torch.zeros(4, dtype=torch.long)
    net = Net(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Site(), nn.Linear(6, 3)).double(), x)
    params = {
        **net.init_params(),
        "0.bias": torch.full((6,), -100.0, dtype=torch.float64),
    }  # no unit is ever active
    rule = NoiseCorrelation(rate=1.0)
    state = rule.init(net, params, Batch(x, y), seeded(0))
    noise = {"2": 6**0.5 * torch.eye(6, dtype=torch.float64)}

    step = rule.step(net, lambda o, t: o.square().sum(1), params, state, Batch(x, y), noise, 0)

    assert_equal(step.state.buffers["feedback.2"], params["3.weight"])


# --------------------------------------------------------------------------------------------------------------------
# Least squares


def test_least_squares_recovers_the_jacobian_from_as_many_perturbations_as_units(tiny):
    batch = lone(tiny.batch(), 2)
    rule = NoiseCorrelation(**DERIVATIVE, estimator="least-squares")
    width = max(tiny.net.visits[key].width for key in tiny.net.keys("post"))
    noise = {
        key: randn(width, tiny.net.visits[key].width, seed=i) for i, key in enumerate(tiny.net.keys("post"))
    }

    for key, b in learnt(rule, tiny, noise, batch).items():
        assert_equal(
            b, jacobians(tiny.net, tiny.params(), batch.x[:1], key)[0], 1e-8
        )  # condition number of z


def test_least_squares_in_the_manifold_recovers_what_it_spans(tiny):
    """d perturbations are enough, though there are n units; columns of zeros (here 3 or more) are no unknowns."""
    params, batch = tiny.params(), lone(tiny.batch(), 2)
    rule = ManifoldNoiseCorrelation(**DERIVATIVE, estimator="least-squares", rank=6)
    lively = (
        tiny.batch(4) if not tiny.name.startswith("rnn") else tiny.batch(1)
    )  # few examples: few dimensions
    state = rule.init(tiny.net, params, lively, seeded(0))
    bases = {key: basis_of(tiny, state, key) for key in tiny.net.keys("post")}
    d = round(float(manifold.dimensions(next(iter(bases.values())))))
    assert d == 3
    noise = {key: randn(d, 6, seed=i) for i, key in enumerate(bases)}

    for key, b in learnt(rule, tiny, noise, batch, state).items():
        projected = jacobians(tiny.net, params, batch.x[:1], key)[0] @ bases[key] @ bases[key].T
        assert_equal(b, projected, 1e-8)


# --------------------------------------------------------------------------------------------------------------------
# The manifold


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
@pytest.mark.parametrize("tiny", ["mlp", "rnn", "rnn-every-step"], indirect=True)
def test_a_manifold_of_full_width_is_no_manifold(tiny, estimator):
    """The same vectors ξ: noise z in a basis U of full rank is noise z Uᵀ without one, and of the same law."""
    batch, params = tiny.batch(40), tiny.params()
    nmnc = ManifoldNoiseCorrelation(rate=1.0, rank=100, estimator=estimator, sigma=0.2)
    vanilla = NoiseCorrelation(rate=1.0, estimator=estimator, sigma=0.2)
    state = nmnc.init(tiny.net, params, batch, seeded(0))
    noise = nmnc.noise(tiny.net, state, batch, seeded(1), 0)
    bases = {key: basis_of(tiny, state, key) for key in noise}
    for key, u in bases.items():
        assert_equal(u @ u.T, torch.eye(tiny.net.visits[key].width, dtype=torch.float64))

    inside = learnt(nmnc, tiny, noise, batch, state)
    outside = learnt(vanilla, tiny, {key: z @ bases[key].T for key, z in noise.items()}, batch)

    for key, b in inside.items():
        assert_equal(b, outside[key], 1e-9)


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_the_estimate_lies_in_the_span_of_the_basis(tiny, estimator):
    batch, params = tiny.batch(), tiny.params()
    rule = ManifoldNoiseCorrelation(rank=3, estimator=estimator)
    state = rule.init(tiny.net, params, batch, seeded(0))
    noise = rule.noise(tiny.net, state, batch, seeded(1), 0)

    for key, b in learnt(rule, tiny, noise, batch, state).items():
        u = basis_of(tiny, state, key)
        assert u.shape == (tiny.net.visits[key].width, 3)
        assert b.any()
        assert float((b - b @ u @ u.T).norm() / b.norm()) < 1e-10


def test_noise_in_the_basis_gives_the_projected_jacobian(tiny):
    batch, params = tiny.batch(4), tiny.params()
    rule = ManifoldNoiseCorrelation(**DERIVATIVE, rank=3)
    state = rule.init(tiny.net, params, batch, seeded(0))
    rows = torch.arange(3 * 4) // 4
    noise = {key: 3**0.5 * torch.eye(3, dtype=torch.float64)[rows] for key in tiny.net.keys("post")}

    for key, b in learnt(rule, tiny, noise, batch, state).items():
        u = basis_of(tiny, state, key)
        assert_equal(b, jacobians(tiny.net, params, batch.x, key).mean(0) @ u @ u.T)


@pytest.mark.parametrize("tiny", ["rnn"], indirect=True)
def test_visits_share_a_manifold_and_have_a_feedback_each(tiny):
    """The manifold is that of the states of all steps, pooled."""
    batch, params = tiny.batch(), tiny.params()
    rule = ManifoldNoiseCorrelation(rank=3)
    state = rule.init(tiny.net, params, batch, seeded(0))

    states = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post")).sites
    assert torch.equal(
        state.buffers["basis.hidden"], manifold.principal_basis(torch.cat(list(states.values())), 3)
    )
    assert [name for name in state.buffers if name.startswith("feedback.")] == [
        f"feedback.hidden[{t}]" for t in range(4)
    ]


def test_a_fraction_of_the_variance_may_stand_for_the_rank(mlp):
    batch, params = mlp.batch(30), mlp.params()
    rule = ManifoldNoiseCorrelation(rank=0.8)
    state = rule.init(mlp.net, params, batch, seeded(0))

    h1 = credit.cut(mlp.net, params, batch.x, ["post1"]).sites["post1"]
    variances = torch.linalg.eigvalsh(torch.cov(h1.T)).flip(0)
    wanted = int((variances.cumsum(0) / variances.sum() < 0.8).sum()) + 1
    assert float(manifold.dimensions(state.buffers["basis.post1"])) == pytest.approx(wanted)
    assert 1 < wanted < 8


# --------------------------------------------------------------------------------------------------------------------
# Schedules


def walk(rule, tiny, steps, size=4):
    """The state after each step, the noise and the activity of each; parameters drift, so that activity does."""
    params = tiny.params()
    state = rule.init(tiny.net, params, tiny.batch(size, seed=77), seeded(0))
    gen, history = seeded(1), [(state, {}, {})]
    for t in range(steps):
        batch = tiny.batch(size, seed=t)
        noise = rule.noise(tiny.net, state, batch, gen, t)
        sites = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post")).sites
        state = rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t).state
        history.append((state, noise, sites))
        params = {name: p + 0.01 * randn(*p.shape, seed=t) for name, p in params.items()}
    return history


@pytest.mark.parametrize(("units", "rank"), [(3, 1), (4, 1), (128, 32), (511, 127), (512, 128), (8192, 128)])
def test_the_default_rank_is_a_quarter_of_the_units_and_at_most_128(units, rank):
    assert rank_by_size(units) == rank
    assert ManifoldNoiseCorrelation().columns(units) == (rank, 1.0)


@pytest.mark.parametrize(
    "rule", [ManifoldNoiseCorrelation(), RandomSubspaceNoiseCorrelation()], ids=["nmnc", "random"]
)
def test_every_site_has_the_default_rank_of_its_size(rule, tiny):
    buffers = rule.init(tiny.net, tiny.params(), tiny.batch(12), seeded(0)).buffers
    for key in tiny.net.keys("post"):
        basis = buffers[f"basis.{tiny.net.visits[key].site}"]
        assert basis.shape == (tiny.net.visits[key].width, max(tiny.net.visits[key].width // 4, 1))
    assert rule.state_size(tiny.net) < replace(rule, rank=4096).state_size(tiny.net)


def test_the_feedback_is_a_running_average_of_the_estimates(mlp):
    """B ← (1 - rate) B + rate Ĵ, from zero; with rate = 1 it is the estimate itself."""
    averaged = walk(NoiseCorrelation(rate=0.3, every=1), mlp, 4)
    estimates = walk(NoiseCorrelation(rate=1.0, every=1), mlp, 4)
    wanted = torch.zeros(3, 8, dtype=torch.float64)

    assert not averaged[0][0].buffers["feedback.post1"].any()
    for (after, *_), (estimate, *_) in zip(averaged[1:], estimates[1:], strict=True):
        wanted = 0.7 * wanted + 0.3 * estimate.buffers["feedback.post1"]
        assert_equal(after.buffers["feedback.post1"], wanted)


def test_feedback_is_updated_every_so_many_steps_and_costs_nothing_in_between(mlp, monkeypatch):
    passes = []
    run = Net.run
    monkeypatch.setattr(Net, "run", lambda *args: passes.append(1) or run(*args))
    rule, params, batch = NoiseCorrelation(every=3, antithetic=True), mlp.params(), mlp.batch()
    state, gen, updated, counts = rule.init(mlp.net, params, batch, seeded(0)), seeded(1), [], []
    noise = rule.noise(mlp.net, state, batch, gen, 0)
    rule.step(
        mlp.net, mlp.task.loss, params, state, batch, noise, 0
    )  # whether passes can be cut short is seen once

    for t in range(7):
        passes.clear()
        noise = rule.noise(mlp.net, state, batch, gen, t)
        after = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, t).state
        updated.append(not torch.equal(after.buffers["feedback.post1"], state.buffers["feedback.post1"]))
        counts.append(len(passes))
        state = after

    assert updated == [True, False, False, True, False, False, True]
    assert counts == [3, 1, 1, 3, 1, 1, 3]  # clean, +ξ, -ξ


def test_a_noisy_pass_serves_all_sites_with_as_many_examples_as_the_batch(tiny):
    rule, params, batch = NoiseCorrelation(), tiny.params(), tiny.batch(12)
    noise = rule.noise(tiny.net, rule.init(tiny.net, params, batch, seeded(0)), batch, seeded(1), 0)

    assert sum(len(z) for z in noise.values()) == 12
    together = replace(rule, together=True).noise(tiny.net, State(), batch, seeded(1), 0)
    assert all(len(z) == 12 for z in together.values())
    chosen = replace(rule, perturbations=7).noise(tiny.net, State(), batch, seeded(1), 0)
    assert {key: z.shape for key, z in chosen.items()} == {
        key: (7, tiny.net.visits[key].width) for key in tiny.net.keys("post")
    }


@pytest.mark.parametrize("tiny", ["mlp", "rnn"], indirect=True)
@pytest.mark.parametrize(("refresh", "samples"), [(1, 4), (4, 4), (5, 9), (7, 12)])
def test_the_manifold_is_that_of_recent_activity_and_changes_when_it_is_due(tiny, refresh, samples):
    """As soon as there are enough samples, then at every multiple of ``refresh``: from the steps just before it."""
    rule = ManifoldNoiseCorrelation(rank=2, refresh=refresh, samples=samples)
    site = tiny.net.visits[tiny.net.keys("post")[0]].site
    history = walk(rule, tiny, 3 * refresh + 3, size=3)
    bases = [state.buffers[f"basis.{site}"] for state, *_ in history]
    visits = [key for key in tiny.net.keys("post") if tiny.net.visits[key].site == site]
    rows = [torch.cat([sites[key].flatten(1) for key in visits]) for _, _, sites in history[1:]]
    golden = [int((i * (5**0.5 - 1) / 2) % 1 * len(rows[0])) for i in range(samples)]
    rows = [r if len(r) <= samples else r[golden] for r in rows]  # no step fills more than its share
    slots = min(refresh, -(-samples // len(rows[0])))

    changed = [t for t in range(len(rows)) if not torch.equal(bases[t], bases[t + 1])]

    assert changed == [t for t in range(len(rows)) if t == slots or (t > slots and t % refresh == 0)]
    for t in changed:
        if t == slots or t >= 2 * slots:
            recent = manifold.principal_basis(torch.cat(rows[t - slots : t]), 2)
            assert_equal(bases[t + 1] @ bases[t + 1].T, recent @ recent.T, 1e-8)


@pytest.mark.parametrize(
    ("rank", "samples", "dimensions"),
    [(3, 64, (3, 3)), (1000, 64, (16, 12)), (1000, 5, (4, 4))],
    ids=["as asked", "above the width", "above the samples"],
)
def test_a_rank_that_cannot_be_had_is_cut_and_the_log_tells_what_is_left(rank, samples, dimensions):
    """To the units of the site; centred, N recent activities span N - 1 directions."""
    rule = ManifoldNoiseCorrelation(rank=rank, samples=samples, refresh=2)
    batch = Batch(randn(64, 20), torch.arange(64) % 3)
    layers = [nn.Linear(20, 16), nn.Tanh(), Site(), nn.Linear(16, 12), nn.Tanh(), Site(), nn.Linear(12, 3)]
    net = Net(nn.Sequential(*layers).double(), batch.x)
    params = net.init_params()
    state = rule.init(net, params, batch, seeded(0))
    told = []
    for t in range(3):
        noise = rule.noise(net, state, batch, seeded(t), t)
        step = rule.step(net, per_example, params, state, batch, noise, t)
        state = step.state
        told.append({name: float(value) for name, value in step.logs.items()})

    wanted = dict(zip(("dimensions.2", "dimensions.5"), dimensions, strict=True))
    assert told[1] == {}
    assert all(told[t] == pytest.approx(wanted) for t in (0, 2))
    assert all(g.isfinite().all() for g in step.grads.values())


def test_an_automatic_rank_is_logged_with_the_dimensions_it_was_chosen_from(mlp):
    rule = ManifoldNoiseCorrelation(rank="auto", refresh=2)
    (state, _, _), *_ = walk(rule, mlp, 1)
    batch, params = mlp.batch(), mlp.params()
    noise = rule.noise(mlp.net, state, batch, seeded(0), 0)
    logs = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, 0).logs

    sites = {mlp.net.visits[key].site for key in mlp.net.keys("post")}
    assert set(logs) == {f"{word}.{site}" for word in ("dimensions", "rank") for site in sites}
    assert all(1 <= float(logs[f"rank.{site}"]) <= mlp.net.visits[site].width for site in sites)


def test_a_site_whose_activity_does_not_vary_has_no_dimension_and_gets_no_signal():
    """Dead units: no perturbation goes there, the feedback stays zero and finite, the read-out still learns."""
    rule, batch = ManifoldNoiseCorrelation(rank=4), Batch(randn(32, 6), torch.arange(32) % 3)
    net = Net(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Site(), nn.Linear(8, 3)).double(), batch.x)
    params = net.init_params()
    params["0.weight"], params["0.bias"] = torch.zeros_like(params["0.weight"]), params["0.bias"].abs()
    state = rule.init(net, params, batch, seeded(0))
    step = rule.step(net, per_example, params, state, batch, rule.noise(net, state, batch, seeded(1), 0), 0)

    assert float(step.logs["dimensions.2"]) == 0
    assert not step.state.buffers["feedback.2"].any()
    assert not step.grads["0.weight"].any()
    assert step.grads["3.bias"].any()


# --------------------------------------------------------------------------------------------------------------------
# Budget, limits


@pytest.mark.parametrize("rank", [None, 4])
def test_the_error_of_an_estimate_is_the_one_that_theory_predicts(mlp, rank):
    """(n+1)/K and (1-α) + α(d+1)/K, for one example again and again, over the first site's 3 rows of 8.

    512 perturbations a site, the mean over 20 seeds: the mean of an error scatters by about 1/sqrt(20 × 8) = 8 %,
    so 30 % are allowed. Where this fails for one seed of the whole, look at the mean over more seeds first.
    """
    params, batch, k = mlp.params(), lone(mlp.batch(), 4), 512
    options = {"rate": 1.0, "response": "derivative", "perturbations": k}
    rule = NoiseCorrelation(**options) if rank is None else ManifoldNoiseCorrelation(**options, rank=rank)
    state = rule.init(mlp.net, params, mlp.batch(40), seeded(0))
    true = jacobians(mlp.net, params, batch.x[:1], "post1")[0]
    basis = state.buffers.get("basis.post1")
    share = torch.ones(3) if basis is None else (true @ basis).square().sum(1) / true.square().sum(1)

    errors = []
    for seed in range(20):
        noise = rule.noise(mlp.net, state, batch, seeded(seed), 0)
        off = learnt(rule, mlp, noise, batch, state)["post1"] - true
        errors.append(off.square().sum(1) / true.square().sum(1))

    wanted = torch.as_tensor([theory.relative_error(rank or 8, k, float(alpha)) for alpha in share])
    torch.testing.assert_close(torch.stack(errors).mean(0).float(), wanted.float(), rtol=0.3, atol=0)


def test_a_site_of_16384_units_is_served_without_a_square_matrix(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(4, 1, 32, 32), torch.tensor([0, 1, 2, 0])
    layers = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        Site(),
        nn.MaxPool2d(8),
        nn.Flatten(),
        nn.Linear(256, 3),
    ]
    net = Net(nn.Sequential(*layers), x)
    assert net.visits["2"].width == 16_384
    decomposed, eigh = [], torch.linalg.eigh

    def small_eigh(matrix):
        decomposed.append(tuple(matrix.shape))
        assert len(matrix) < 100  # or this test would take hours to fail
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", small_eigh)
    rule, params = ManifoldNoiseCorrelation(rank=8, samples=8, refresh=2), net.init_params()
    state = rule.init(net, params, Batch(x, y), seeded(0))

    for t in range(3):
        noise = rule.noise(net, state, Batch(x, y), seeded(t), t)
        step = rule.step(net, nn.CrossEntropyLoss(reduction="none"), params, state, Batch(x, y), noise, t)
        state = step.state

    assert decomposed == [(4, 4), (8, 8)]  # the first batch, then two steps' activity
    assert max(b.numel() for b in state.buffers.values()) <= 8 * 16_384
    assert all(g.isfinite().all() for g in step.grads.values())
    assert step.grads["0.weight"].any()


@pytest.mark.parametrize("kind", [NoiseCorrelation, ManifoldNoiseCorrelation])
def test_noise_that_drowns_in_rounding_is_refused(kind):
    from rulezoo.testing import tiny_net

    single, double = tiny_net("mlp", torch.float32), tiny_net("mlp")
    rule = kind(sigma=1e-6)

    with pytest.raises(
        OptionError, match=r"sigma=1e-06 drowns in the rounding of torch.float32; use at least 1e-05"
    ):
        rule.init(single.net, single.params(), single.batch(), seeded(0))
    rule.init(double.net, double.params(), double.batch(), seeded(0))
    replace(rule, response="derivative").init(single.net, single.params(), single.batch(), seeded(0))


@pytest.mark.parametrize("rank", [2.5, 0, -1])
def test_a_rank_is_a_whole_number_or_a_fraction(rank):
    with pytest.raises(OptionError, match="rank must be"):
        ManifoldNoiseCorrelation(rank=rank)


def test_a_network_without_post_sites_is_skipped_with_a_reason(mlp):
    net = Net(nn.Sequential(nn.Linear(5, 4), Site("pre"), nn.Linear(4, 3)), mlp.batch().x.float())

    for kind in (NoiseCorrelation, ManifoldNoiseCorrelation):
        assert "needs sites of kind 'post'" in kind().skip(net, mlp.task)
        assert kind().skip(mlp.net, mlp.task) is None


# --------------------------------------------------------------------------------------------------------------------
# Smaller forms: patches of a map, and feedback in the coordinates of the manifold


class Pixels(nn.Module):
    """A convolution to a map of 3 × 4 × 4 (or of 1 × 1) behind a site, and a read-out that bends."""

    def __init__(self, size=4):
        super().__init__()
        self.conv, self.site = (
            nn.Conv2d(2, 3, size if size == 1 else 3, padding=0 if size == 1 else 1),
            Site(),
        )
        self.readout = nn.Linear(3 * size * size, 5)

    def forward(self, x):
        return torch.tanh(self.readout(self.site(torch.tanh(self.conv(x))).flatten(1)))


def squared(output, y):
    return output.square().sum(1)


def pixels(rule, size=4, rows=6):
    torch.manual_seed(0)
    batch = Batch(randn(rows, 2, size, size, seed=3), torch.zeros(rows, dtype=torch.long))
    net = Net(Pixels(size).double(), batch.x)
    params = net.init_params()
    return net, params, batch, rule.init(net, params, batch, seeded(0))


def embedding(patches):
    """E, ``(n, m)``, by its action on every coordinate."""
    return patches.expand(torch.eye(patches.units, dtype=torch.float64)).flatten(1).T


def test_in_patches_white_noise_gives_the_jacobian_on_the_patches_exactly():
    rule = NoiseCorrelation(**DERIVATIVE, patch=2)
    net, params, batch, state = pixels(rule)
    m = 3 * 2 * 2
    noise = {"site": m**0.5 * torch.eye(m, dtype=torch.float64).repeat_interleave(len(batch.x), 0)}

    step = rule.step(net, squared, params, state, batch, noise, 0)

    e = embedding(rule.seen(net, "site"))
    mean = jacobians(net, params, batch.x, "site").mean(0)
    assert_equal(step.state.buffers["feedback.site"], mean @ e)

    # The update is that of the full rule whose feedback is the Jacobian projected on the patches.
    full = NoiseCorrelation(**DERIVATIVE, every=10)
    wanted = full.step(
        net, squared, params, State(buffers={"feedback.site": mean @ e @ e.T}), batch, {}, 1
    ).grads
    for name, grad in wanted.items():
        assert_equal(step.grads[name], grad)


def test_the_energy_of_noise_in_patches_is_that_of_the_activity():
    rule = NoiseCorrelation(sigma=0.3, patch=3, antithetic=False)
    net, params, batch, _ = pixels(rule)
    site = credit.cut(net, params, batch.x, ["site"]).sites["site"]
    space = rule.subspace(net, State(), "site", 12, 0)
    z = 12**0.5 * torch.eye(12, dtype=torch.float64)

    xi = rule.seen(net, "site").expand(space.perturbation(z, manifold.noise_energy(site, 0.3)))

    torch.testing.assert_close(xi.square().flatten(1).sum(1).mean(), 0.3**2 * site.square().mean() * 48)


@pytest.mark.parametrize("rule", [NoiseCorrelation(), ManifoldNoiseCorrelation(rank=2)], ids=["nc", "nmnc"])
def test_patches_of_one_position_are_the_full_form(rule):
    """Whatever the side: the map has one position."""
    results = []
    for side in (1, 4):
        one = replace(rule, patch=side)
        net, params, batch, state = pixels(one, size=1)
        noise = one.noise(net, state, batch, seeded(1), 0)
        results.append(one.step(net, squared, params, state, batch, noise, 0))
    for name, tensor in results[0].state.buffers.items():
        assert torch.equal(results[1].state.buffers[name], tensor)
    for name, grad in results[0].grads.items():
        assert torch.equal(results[1].grads[name], grad)


def test_the_manifold_of_a_map_in_patches_is_that_of_its_coordinates():
    rule = ManifoldNoiseCorrelation(rank=3, patch=2, samples=8, refresh=2)
    net, params, batch, state = pixels(rule)
    e = embedding(rule.seen(net, "site"))
    activity = credit.cut(net, params, batch.x, ["site"]).sites["site"]

    wanted = manifold.principal_basis(activity.flatten(1) @ e, 3)

    assert_equal(state.buffers["basis.site"], wanted)
    step = rule.step(net, squared, params, state, batch, rule.noise(net, state, batch, seeded(1), 0), 0)
    assert step.state.buffers["feedback.site"].shape == (5, 12)
    assert step.state.buffers["recent.site.0"].shape[1] == 12


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_feedback_in_the_coordinates_of_a_manifold_is_the_full_form_while_the_manifold_stays(tiny, estimator):
    full = ManifoldNoiseCorrelation(rank=3, samples=4, refresh=1000, estimator=estimator)
    small = replace(full, feedback="subspace")
    params, batch = tiny.params(), tiny.batch(4)
    states = {rule: rule.init(tiny.net, params, batch, seeded(0)) for rule in (full, small)}
    for t in range(5, 8):
        noise = full.noise(tiny.net, states[full], batch, seeded(t), t)
        steps = {
            rule: rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)
            for rule, state in states.items()
        }
        states = {rule: step.state for rule, step in steps.items()}

    for key in tiny.net.keys("post"):
        coordinates = states[small].buffers[f"feedback.{key}"]
        assert coordinates.shape[1] == 3
        assert_equal(
            coordinates @ basis_of(tiny, states[small], key).T, states[full].buffers[f"feedback.{key}"]
        )
    for name, grad in steps[full].grads.items():
        assert_equal(steps[small].grads[name], grad)


def test_at_full_rank_feedback_in_coordinates_follows_the_full_form_through_a_refresh(mlp):
    """The basis turns, and nothing is lost: both hold the same feedback to every unit."""
    full = ManifoldNoiseCorrelation(rank=100, samples=40, refresh=2)
    histories = [walk(rule, mlp, 5, size=40) for rule in (full, replace(full, feedback="subspace"))]
    (wanted, *_), (got, *_) = (history[-1] for history in histories)
    first, last = (histories[1][i][0].buffers["basis.post1"] for i in (0, -1))

    assert not torch.allclose(first, last)
    for key in ("post1", "post2"):
        assert_equal(got.buffers[f"feedback.{key}"] @ got.buffers[f"basis.{key}"].T, wanted.buffers[f"feedback.{key}"],
                     1e-9)  # fmt: skip


def test_what_lies_outside_of_a_new_manifold_is_forgotten(mlp):
    """B ← B U_old (U_oldᵀ U_new), written out."""
    rule = ManifoldNoiseCorrelation(rank=2, samples=8, refresh=3, every=3, feedback="subspace")
    history = walk(rule, mlp, 6, size=8)
    (before, *_), (after, *_) = history[5], history[6]  # no manifold is new at step 5
    assert torch.equal(before.buffers["basis.post1"], after.buffers["basis.post1"])
    params, batch = mlp.params(5), mlp.batch(8)
    later = rule.step(mlp.net, mlp.task.loss, params, after, batch, {"post1": torch.zeros(4, 2, dtype=torch.float64),
                      "post2": torch.zeros(4, 2, dtype=torch.float64)}, 6).state  # fmt: skip

    old, new = after.buffers["basis.post1"], later.buffers["basis.post1"]
    assert not torch.allclose(old, new)
    carried = after.buffers["feedback.post1"] @ old.T @ new
    assert_equal(
        later.buffers["feedback.post1"], 0.9 * carried
    )  # the running average, of an estimate of zero


def test_feedback_in_coordinates_and_an_automatic_rank_exclude_each_other():
    with pytest.raises(OptionError, match=r"feedback must be 'units' with rank=auto"):
        ManifoldNoiseCorrelation(rank="auto", feedback="subspace")


@pytest.mark.parametrize(
    "rule",
    [
        NoiseCorrelation(),
        NoiseCorrelation(patch=2),
        ManifoldNoiseCorrelation(rank=2, samples=6),
        ManifoldNoiseCorrelation(rank=2, samples=6, feedback="subspace", patch=2),
        RandomSubspaceNoiseCorrelation(rank=2),
        RandomSubspaceNoiseCorrelation(rank=2, feedback="subspace"),
    ],
)
def test_the_size_of_the_state_is_known_before_it_is_made(rule):
    net, _, _, state = pixels(rule)
    assert rule.state_size(net) == pytest.approx(gigabytes(state.buffers), rel=1e-12)


@pytest.mark.parametrize(
    "rule", [NoiseCorrelation(), ManifoldNoiseCorrelation(rank=2, samples=6)], ids=["nc", "nmnc"]
)
def test_a_network_whose_state_would_not_fit_is_skipped_with_options_that_help(rule):
    net, _, _, state = pixels(rule)
    rule = replace(rule, memory=0.6 * gigabytes(state.buffers))

    reason = rule.skip(net, None)

    assert reason.startswith("the rule's state would take ")
    assert "5 outputs × 48 units, 48 of them at site 'site'" in reason
    found = re.findall(r"([a-z]+)=(\w+) \(", reason)
    assert found
    for name, value in found:
        helped = replace(rule, **{name: int(value) if value.isdigit() else value})
        assert helped.skip(net, None) is None
    assert "raise memory" in replace(rule, memory=1e-12).skip(net, None)
    assert replace(rule, memory=gigabytes(state.buffers)).skip(net, None) is None


@pytest.mark.parametrize("examples", [3, 7])
@pytest.mark.parametrize("options", [{}, {"antithetic": True}, {"response": "derivative"}], ids=str)
def test_each_example_is_perturbed_at_one_site_and_answers_for_itself(tiny, examples, options):
    """A pass of each site's examples alone, with noise there, gives the same; also for more examples than the batch has."""
    batch, params = tiny.batch(12), tiny.params()
    rule = NoiseCorrelation(perturbations=examples, **options)
    keys = tiny.net.keys("post")
    cut = credit.cut(tiny.net, params, batch.x, keys)
    xi = {k: 0.1 * randn(examples, *tiny.net.visits[k].shape, seed=i) for i, k in enumerate(keys)}
    found = rule._responses_from_sites(tiny.net, params, batch.x, cut, xi)
    for i, key in enumerate(keys):
        x = batch.x[torch.arange(i * examples, (i + 1) * examples) % 12]

        def output(size, x=x, key=key):
            return tiny.net.run(params, x, lambda k, h: h + size * xi[k] if k == key else h)

        if options.get("response"):
            zero = torch.zeros((), dtype=torch.float64)
            wanted = torch.func.jvp(output, (zero,), (torch.ones_like(zero),))[1]
        elif options:
            wanted = (output(1.0) - output(-1.0)) / 2
        else:
            wanted = output(1.0) - tiny.net.run(params, x)
        torch.testing.assert_close(found[key], credit.rows(wanted), rtol=0, atol=EXACT)
