"""Where a site is perturbed, and the automatic rank. Float64; J is a fixed matrix, so that responses are linear."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site
from rulezoo.measures import theory
from rulezoo_plugins.noise_correlation import ManifoldNoiseCorrelation
from rulezoo_plugins.subspaces import (
    Everywhere,
    Explorers,
    Hedged,
    Span,
    Units,
    band_columns,
    bands,
    best_rank,
    unknown,
    varying,
)

UNITS, COLUMNS, OUTPUTS = 24, 12, 3
SILENT = 6  # units that do not vary, where a test wants some
ENERGY = torch.tensor(0.7, dtype=torch.float64)
NOBODY = Explorers(0, 0, 0)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def basis():
    return torch.linalg.qr(randn(UNITS, COLUMNS)).Q


@pytest.fixture
def jacobian():
    return randn(OUTPUTS, UNITS, seed=1)


def all_units(silent=0):
    return Units((torch.arange(UNITS) >= silent).double())


def hedged(basis, columns=COLUMNS, isotropic=0.0, explorers=NOBODY, rows=8, silent=0):
    used = (torch.arange(COLUMNS) < columns).double()
    return Hedged(
        basis, all_units(silent), used, torch.tensor(isotropic, dtype=torch.float64), explorers, rows
    )


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_without_explorers_it_is_one_of_the_two_plain_subspaces(basis, jacobian, estimator):
    z = randn(8, UNITS + COLUMNS, seed=2)
    for space, plain, mine, rank in [
        (hedged(basis), Span(basis), z[:, UNITS:], COLUMNS),
        (hedged(basis, columns=5), Span(basis * (torch.arange(COLUMNS) < 5)), z[:, UNITS:], 5),
        (hedged(basis, isotropic=1.0), Everywhere(UNITS), z[:, :UNITS], UNITS),
        (hedged(basis, isotropic=1.0, silent=SILENT), all_units(silent=SILENT), z[:, :UNITS], UNITS - SILENT),
    ]:
        assert float(space.rank) == pytest.approx(rank)
        xi = plain.perturbation(mine, ENERGY)
        torch.testing.assert_close(space.perturbation(z, ENERGY), xi)
        change = xi @ jacobian.T
        torch.testing.assert_close(
            space.jacobian(z, change, ENERGY, estimator), plain.jacobian(mine, change, ENERGY, estimator)
        )


def test_units_that_do_not_vary_are_left_alone(jacobian):
    """Their part of the Jacobian is not estimated, and with noise on a basis the rest is exact."""
    activity = torch.relu(randn(9, UNITS, seed=5))
    activity[:, [2, 7]] = torch.tensor(
        [0.0, 3.0], dtype=torch.float64
    )  # one is silent, one always says the same
    units = Units(varying(activity))
    assert [int(i) for i in (units.chosen == 0).nonzero()] == [2, 7]
    z = UNITS**0.5 * torch.eye(UNITS, dtype=torch.float64)
    xi = units.perturbation(z, ENERGY)
    assert not xi[:, [2, 7]].any()
    estimate = units.jacobian(z, xi @ jacobian.T, ENERGY, "correlation")
    torch.testing.assert_close(estimate, jacobian * units.chosen)


@pytest.mark.parametrize("space", ["everywhere", "units", "span", "hedged"])
def test_every_perturbation_has_the_same_energy(basis, space):
    """E‖ξ‖² from an orthonormal set of coordinates, where the sum over the set is exact."""
    explorers = Explorers(1, 1, 1)
    made = {
        "everywhere": Everywhere(UNITS),
        "units": all_units(silent=5),
        "span": Span(basis),
        "hedged": hedged(basis, columns=5, explorers=explorers, rows=3),
    }[space]
    total = torch.zeros(3, dtype=torch.float64)
    for e in torch.eye(made.coordinates, dtype=torch.float64):
        total += made.perturbation(e.expand(3, -1), ENERGY).square().sum(1)
    torch.testing.assert_close(total, ENERGY.expand(3))


def test_explorers_go_where_they_are_sent_and_the_rest_where_it_pays(basis):
    space = hedged(basis, columns=4, explorers=Explorers(2, 3, 1), rows=8)
    xi = space.perturbation(randn(8, UNITS + COLUMNS, seed=3), ENERGY)
    inside = (xi @ basis).square()
    outside = (xi - xi @ basis @ basis.T).square().sum(1)
    band = band_columns(basis, 1).bool()  # directions 5 to 8
    assert (outside[:2] > 1e-3).all()
    assert (outside[2:] < 1e-20).all()
    assert (inside[2:5][:, ~band] < 1e-20).all()
    assert (inside[2:5][:, band] > 0).all()
    assert (inside[5:, 4:] < 1e-20).all()


def test_bands_cover_every_column_once(basis):
    covered = torch.stack([band_columns(basis, b) for b in range(bands(basis))])
    assert covered.sum(1).tolist() == [4, 4, 4]
    assert covered.sum(0).tolist() == [1] * COLUMNS


def test_the_energies_that_are_heard_are_those_of_the_jacobian(basis, jacobian):
    """E‖dy‖²/s² = ‖J V‖². 3,000 explorers an energy; ‖dy‖²/s² scatters by at most sqrt(2) of its mean: 2.6 %, times 4.

    An average over all explorers, not over the last `MEMORY`: the update is called with all of them at once.
    """
    rows = 6000
    known = unknown(basis)
    for band in range(bands(basis)):
        space = hedged(basis, explorers=Explorers(rows // 2, rows // 2, band), rows=rows, silent=SILENT)
        xi = space.perturbation(randn(rows, UNITS + COLUMNS, seed=band), ENERGY)
        known = space.heard(known, xi @ jacobian.T, ENERGY)
    for band in range(bands(basis)):
        exact = float((jacobian @ basis * band_columns(basis, band)).square().sum())
        assert known[0, band] == pytest.approx(exact, rel=0.11)
    assert known[0, -1] == pytest.approx(float(jacobian[:, SILENT:].square().sum()), rel=0.11)


def test_what_is_heard_is_averaged_over_explorers(basis):
    space = hedged(basis, explorers=Explorers(2, 0, 0), rows=2)
    scale = (ENERGY / UNITS).sqrt()
    first, second = torch.full((2, 1), 1.0), torch.full((2, 1), 3.0)
    known = space.heard(unknown(basis), first.double() * scale, ENERGY)
    known = space.heard(known, second.double() * scale, ENERGY)
    assert known[:, -1].tolist() == pytest.approx([(1 + 1 + 9 + 9) / 4, 4])
    assert (known[:, :-1] == 0).all()


@pytest.mark.parametrize("k", [2.0, 10.0, 30.0, 100.0, 1000.0])
def test_the_best_rank_is_the_one_of_the_theory(basis, k):
    shares = [0.5, 0.65, 0.7]
    known = unknown(basis)
    known[0], known[1] = torch.tensor([0.5, 0.15, 0.05, 1.0]), 1.0
    columns, isotropic = best_rank(known, basis, torch.tensor(16.0), k, k)
    worth = [theory.squared_cosine(d, k, alpha) for d, alpha in zip((4, 8, 12), shares, strict=True)]
    everywhere = theory.squared_cosine(16, k)
    assert int(columns.sum()) == (4, 8, 12)[worth.index(max(worth))]
    assert bool(isotropic) == (everywhere >= max(worth))


@pytest.mark.parametrize(("k", "rank", "isotropic"), [(5.0, 8, 0), (1000.0, 12, 1)])
def test_until_every_band_is_heard_the_usual_course_is_taken(k, rank, isotropic):
    basis = torch.eye(200, COLUMNS, dtype=torch.float64)
    known = unknown(basis)
    known[:, 0] = torch.tensor([100.0, 3.0])  # one band alone tells nothing
    worth = {d: theory.squared_cosine(d, k, d / (d + 10)) for d in (4, 8, 12)}
    assert max(worth, key=worth.get) == rank
    assert (theory.squared_cosine(200, k) > worth[rank]) == bool(isotropic)
    columns, everywhere = best_rank(known, basis, torch.tensor(200.0), k, k)
    assert (int(columns.sum()), int(everywhere)) == (rank, isotropic)


def test_where_both_are_worth_the_same_the_units_are_perturbed(basis):
    """Four units vary and four directions hold all of the energy; explorers everywhere then tell of J, too."""
    known = unknown(basis)
    known[0], known[1] = torch.tensor([1.0, 0.0, 0.0, 1.0]), 1.0
    columns, isotropic = best_rank(known, basis, torch.tensor(4.0), 5.0, 5.0)  # 1/(1 + 5/5), exactly
    assert (int(columns.sum()), int(isotropic)) == (4, 1)


@pytest.mark.parametrize(
    ("options", "memory"), [({}, 100), ({"refresh": 10}, 19), ({"every": 5}, 20), ({"rate": 0.01}, 199)]
)
def test_the_budget_is_what_is_heard_while_a_manifold_stays_or_while_the_average_remembers(options, memory):
    """Steps between two manifolds, or (2 - rate)/rate by equation (8), whichever is more."""
    assert ManifoldNoiseCorrelation(rank="auto", **options)._memory == pytest.approx(memory)


BUDGETS = [  # rows of a site × updates, all of them where the units are perturbed, three quarters in the manifold
    ({}, 450, 600),  # 12 examples shared by 2 sites × 100 steps to the next manifold
    ({"perturbations": 2}, 150, 200),
    ({"perturbations": 8, "refresh": 10}, 114, 152),  # × (2 - 0.1)/0.1 updates that the average remembers
    ({"perturbations": 4, "every": 5}, 60, 80),  # × 100/5 updates to the next manifold
    ({"perturbations": 1, "rate": 0.01}, 149.25, 199),  # × (2 - 0.01)/0.01
]
NEAR = 0.02  # how far from the budget at which two choices are worth the same, as a fraction


@pytest.mark.parametrize(("options", "inside", "outside"), BUDGETS)
@pytest.mark.parametrize("more", [True, False])
def test_the_rank_is_chosen_for_the_budget_by_its_definition(options, inside, outside, more):
    """Half of the energy in 4 directions, α in 8 or more: (1 + 9/K)/α = (1 + 5/K)/0.5 at the K that is asked for."""
    rule = ManifoldNoiseCorrelation(rank="auto", **options)
    even = inside * (1 - NEAR if more else 1 + NEAR)
    share = 0.5 * (1 + 9 / even) / (1 + 5 / even)
    space = chosen(rule, [0.5, share - 0.5, 0, 0, 1])
    assert int(space.columns.sum()) == (8 if more else 4)


@pytest.mark.parametrize(("options", "inside", "outside"), BUDGETS)
@pytest.mark.parametrize("more", [True, False])
def test_all_units_are_perturbed_for_the_budget_by_its_definition(options, inside, outside, more):
    """The share α in 4 directions and none in the others: α/(1 + 5/K) = 1/(1 + 25/K'), each with its own budget."""
    rule = ManifoldNoiseCorrelation(rank="auto", **options)
    even = outside * (1 - NEAR if more else 1 + NEAR)
    share = (1 + 5 / inside) / (1 + (UNITS + 1) / even)
    space = chosen(rule, [share, 0, 0, 0, 1])
    assert int(space.columns.sum()) == 4
    assert bool(space.isotropic) == more


def chosen(rule, energies):
    """What the rule perturbs at a site of 24 units, of which it knows the energies of the bands 4, 8, 16, 24, and all."""
    batch = Batch(randn(12, 5), torch.arange(12) % OUTPUTS)
    layers = [nn.Linear(5, UNITS), nn.Tanh(), Site(), nn.Linear(UNITS, UNITS), nn.Tanh(), Site()]
    net = Net(nn.Sequential(*layers, nn.Linear(UNITS, OUTPUTS)).double(), batch.x)
    gen = torch.Generator().manual_seed(0)
    state = rule.init(net, net.init_params(), batch, gen)
    known = torch.stack([torch.tensor(energies), torch.ones(5)]).to(state.buffers["energy.2"])
    state = replace(state, buffers=state.buffers | {"energy.2": known})
    rows = len(rule.noise(net, state, batch, gen, 0)["2"])
    return rule.subspace(net, state, "2", rows, 0)


@pytest.mark.parametrize(
    ("rows", "exploring"),
    [(1, [1, 0, 0, 0]), (2, [2, 0, 0, 0]), (3, [3, 0, 0, 0]), (4, [1] * 4), (8, [2] * 4), (40, [10] * 4)],
)
def test_a_quarter_explores_and_every_band_and_everywhere_has_its_turn(rows, exploring):
    """Of the examples of each update; where they are too few for that, of the updates."""
    rule = ManifoldNoiseCorrelation(rank="auto")
    rounds = [rule._explorers(rows, t, bands=3) for t in range(16 * 2 * 3)]
    assert [e.count for e in rounds] == exploring * (len(rounds) // 4)
    assert sum(e.count for e in rounds) / (rows * len(rounds)) == pytest.approx(0.25)
    assert {e.band for e in rounds if e.in_band} == {0, 1, 2}
    assert any(e.everywhere for e in rounds)


def test_the_feedback_is_left_alone_where_all_explore_unless_they_explore_everywhere(basis):
    assert hedged(basis, explorers=Explorers(0, 2, 1), rows=3).told == 1
    everyone = Explorers(0, 3, 1)
    assert hedged(basis, explorers=everyone, rows=3).told == 0
    assert hedged(basis, explorers=Explorers(1, 2, 1), rows=3, isotropic=1.0).told == 1
    assert hedged(basis, explorers=everyone, rows=3, isotropic=1.0).told == 0


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("everywhere", [0, 1])
@pytest.mark.parametrize("isotropic", [0.0, 1.0])
@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_where_all_explore_the_estimate_is_finite(basis, jacobian, rows, everywhere, isotropic, estimator):
    """Also where no weight is given to it: zero times NaN is NaN."""
    space = hedged(
        basis, isotropic=isotropic, explorers=Explorers(everywhere, rows - everywhere, 1), rows=rows
    )
    z = randn(rows, UNITS + COLUMNS, seed=4)
    estimate = space.jacobian(z, space.perturbation(z, ENERGY) @ jacobian.T, ENERGY, estimator)
    assert estimate.shape == jacobian.shape
    assert estimate.isfinite().all()


@pytest.mark.parametrize("perturbations", [1, 2, 3])
@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_with_few_perturbations_the_feedback_stays_finite_and_rests_while_all_explore_bands(
    mlp, perturbations, estimator
):
    """64 updates: 16 of them explore, and each band (of at most 2) and all units have several turns among these."""
    rule = ManifoldNoiseCorrelation(rank="auto", perturbations=perturbations, estimator=estimator)
    batch, params = mlp.batch(), mlp.params()
    gen = torch.Generator().manual_seed(0)
    state = rule.init(mlp.net, params, batch, gen)
    rested = set()
    for t in range(64):
        noise = rule.noise(mlp.net, state, batch, gen, t)
        after = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, t).state
        assert all(buffer.isfinite().all() for buffer in after.buffers.values()), f"step {t}"
        for key in mlp.net.keys("post"):
            space = rule.subspace(mlp.net, state, key, perturbations, t)
            heard = t % 4 != 0 or (space.isotropic and space.explorers.everywhere)
            same = torch.equal(after.buffers[f"feedback.{key}"], state.buffers[f"feedback.{key}"])
            assert same == (not heard), f"step {t}"
            rested.add(same)
        state = after
    assert rested == {True, False}


def test_an_automatic_rank_cannot_listen_to_all_sites_at_once():
    with pytest.raises(OptionError, match="together must be false with rank=auto"):
        ManifoldNoiseCorrelation(rank="auto", together=True)
