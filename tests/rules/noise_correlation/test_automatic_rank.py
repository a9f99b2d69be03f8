"""The automatic rank. Float64; J is a fixed matrix, so that responses are linear, and its energies are known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site
from rulezoo.measures import theory
from rulezoo_plugins.noise_correlation.automatic_rank import (
    AT_FIRST,
    ENOUGH,
    EXPLORING,
    USUAL,
    Adaptive,
    Explorers,
    Regions,
    explorers,
    varying,
)
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation
from rulezoo_plugins.shared.subspaces import Everywhere, Span

UNITS, COLUMNS, OUTPUTS = 24, 12, 3
OUTSIDE = 3  # the region behind those of columns 1-4, 5-8 and 9-12
SILENT = 6  # units that do not vary, where a test wants some
ENERGY = torch.tensor(0.7, dtype=torch.float64)
NOBODY = Explorers(0, 0)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def basis():
    return torch.linalg.qr(randn(UNITS, COLUMNS)).Q


@pytest.fixture
def jacobian():
    return randn(OUTPUTS, UNITS, seed=1)


def that_vary(silent=0):
    return (torch.arange(UNITS) >= silent).double()


def adaptive(basis, columns=COLUMNS, isotropic=0.0, exploring=NOBODY, rows=8, silent=0):
    used = (torch.arange(COLUMNS) < columns).double()
    isotropic = torch.tensor(isotropic, dtype=torch.float64)
    return Adaptive(Regions(basis, that_vary(silent)), used, isotropic, exploring, rows)


# --------------------------------------------------------------------------------------------------------------------
# Where the examples are perturbed


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_without_explorers_it_is_one_of_the_two_plain_subspaces(basis, jacobian, estimator):
    z = randn(8, UNITS + COLUMNS, seed=2)
    for space, plain, mine, rank in [
        (adaptive(basis), Span(basis), z[:, UNITS:], COLUMNS),
        (adaptive(basis, columns=4), Span(basis * (torch.arange(COLUMNS) < 4)), z[:, UNITS:], 4),
        (adaptive(basis, isotropic=1.0), Everywhere(UNITS), z[:, :UNITS], UNITS),
    ]:
        assert float(space.rank) == pytest.approx(rank)
        xi = plain.perturbation(mine, ENERGY)
        torch.testing.assert_close(space.perturbation(z, ENERGY), xi)
        change = xi @ jacobian.T
        torch.testing.assert_close(
            space.jacobian(z, change, ENERGY, estimator), plain.jacobian(mine, change, ENERGY, estimator)
        )


def test_units_that_do_not_vary_are_left_alone(basis, jacobian):
    """Their part of the Jacobian is not estimated, and with noise on a basis the rest is exact."""
    activity = torch.relu(randn(9, UNITS, seed=5))
    activity[:, [2, 7]] = torch.tensor([0.0, 3.0], dtype=torch.float64)  # silent; the same for every example
    units = varying(activity)
    assert [int(i) for i in (units == 0).nonzero()] == [2, 7]
    space = replace(adaptive(basis, isotropic=1.0, rows=UNITS), regions=Regions(basis, units))
    assert float(space.rank) == UNITS - 2
    z = torch.cat([UNITS**0.5 * torch.eye(UNITS, dtype=torch.float64), randn(UNITS, COLUMNS)], 1)
    xi = space.perturbation(z, ENERGY)
    assert not xi[:, [2, 7]].any()
    torch.testing.assert_close(space.jacobian(z, xi @ jacobian.T, ENERGY, "correlation"), jacobian * units)


@pytest.mark.parametrize("region", range(OUTSIDE + 1))
@pytest.mark.parametrize("silent", [0, SILENT])
@pytest.mark.parametrize("isotropic", [0.0, 1.0])
def test_every_perturbation_has_the_same_energy(basis, region, silent, isotropic):
    """E‖ξ‖² from an orthonormal set of coordinates, where the sum over the set is exact."""
    made = adaptive(basis, 4, isotropic, Explorers(1, region), rows=2, silent=silent)
    total = torch.zeros(2, dtype=torch.float64)
    for e in torch.eye(made.coordinates, dtype=torch.float64):
        total += made.perturbation(e.expand(2, -1), ENERGY).square().sum(1)
    torch.testing.assert_close(total, ENERGY.expand(2))


def test_explorers_go_where_they_are_sent_and_the_rest_where_it_pays(basis):
    z = randn(8, UNITS + COLUMNS, seed=3)

    def energies(region):
        xi = adaptive(basis, columns=4, exploring=Explorers(3, region)).perturbation(z, ENERGY)
        return (xi @ basis).square(), (xi - xi @ basis @ basis.T).square().sum(1)

    inside, outside = energies(1)  # directions 5 to 8
    assert (inside[:3, 4:8] > 0).all()
    assert not inside[:3, [0, 1, 2, 3, 8, 9, 10, 11]].max() > 1e-20
    assert (inside[3:, :4] > 0).all()
    assert not inside[3:, 4:].max() > 1e-20
    assert not outside.max() > 1e-20
    inside, outside = energies(OUTSIDE)
    assert not inside[:3].max() > 1e-20
    assert (outside[:3] > 1e-3).all()


@pytest.mark.parametrize(("columns", "regions"), [(1, 2), (4, 2), (5, 3), (12, 4), (16, 4), (17, 5)])
def test_regions_cover_every_column_once(columns, regions):
    space = Regions(torch.eye(UNITS, columns, dtype=torch.float64), that_vary())
    covered = torch.stack([space.columns(region) for region in range(space.count)])
    assert space.count == regions
    assert covered.sum(0).tolist() == [1] * columns
    assert not covered[-1].any()
    torch.testing.assert_close(space.dimensions()[:-1], covered.sum(1)[:-1])
    assert float(space.dimensions().sum()) == pytest.approx(UNITS)
    for region in range(space.count - 1):
        expected = covered[: region + 1].sum(0)
        assert torch.equal(space.up_to(torch.tensor(region)), expected)


# --------------------------------------------------------------------------------------------------------------------
# What the explorers hear


def test_the_energies_that_are_heard_are_those_of_the_jacobian(basis, jacobian):
    """E‖dy‖²/s² = ‖J V‖². 3,000 explorers an energy; ‖dy‖²/s² scatters by at most sqrt(2) of its mean: 2.6 %, times 4."""
    regions = Regions(basis, that_vary(SILENT))
    own = torch.linalg.qr(torch.cat([basis[:SILENT] * 0, basis[SILENT:]])).Q
    regions = replace(regions, basis=own)  # as activity has it: no direction in silent units
    known = regions.no_evidence()
    for region in range(regions.count):
        space = replace(adaptive(own, exploring=Explorers(3000, region), rows=3000), regions=regions)
        xi = space.perturbation(randn(3000, UNITS + COLUMNS, seed=region), ENERGY)
        known = space.with_responses(known, xi @ jacobian.T, ENERGY)
    for region in range(OUTSIDE):
        exact = float((jacobian @ own * regions.columns(region)).square().sum())
        assert known[0, region] == pytest.approx(exact, rel=0.11)
    rest = float(jacobian[:, SILENT:].square().sum() - (jacobian @ own).square().sum())
    assert known[0, OUTSIDE] == pytest.approx(rest, rel=0.11)


def test_what_is_heard_is_averaged_over_explorers(basis):
    space = adaptive(basis, exploring=Explorers(2, 1), rows=4)
    scale = (ENERGY / 4).sqrt()
    first, second = torch.full((4, 1), 1.0).double(), torch.full((4, 1), 3.0).double()
    known = space.with_responses(space.regions.no_evidence(), first * scale, ENERGY)
    known = space.with_responses(known, second * scale, ENERGY)
    assert known[:, 1].tolist() == pytest.approx([(1 + 1 + 9 + 9) / 4, 4])
    assert not known[:, [0, 2, 3]].any()


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_explorers_of_directions_in_use_tell_of_the_jacobian(basis, jacobian, estimator):
    """A set of noise that is orthogonal, half of it in one region: the estimate is exact."""
    count = 4
    space = adaptive(basis, columns=8, exploring=Explorers(count, 1), rows=count + 8)
    inside = torch.zeros(count + 8, COLUMNS, dtype=torch.float64)
    inside[:count, 4:8] = count**0.5 * torch.eye(4, dtype=torch.float64)
    inside[count:, :8] = 8**0.5 * torch.eye(8, dtype=torch.float64)
    z = torch.cat([randn(count + 8, UNITS), inside], 1)
    change = space.perturbation(z, ENERGY) @ jacobian.T
    used = basis[:, :8]
    torch.testing.assert_close(space.jacobian(z, change, ENERGY, estimator), jacobian @ used @ used.T)


@pytest.mark.parametrize("region", [2, OUTSIDE])
@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_explorers_of_other_directions_do_not_disturb(basis, jacobian, region, estimator):
    z = randn(8, UNITS + COLUMNS, seed=7)
    space = adaptive(basis, columns=8, exploring=Explorers(3, region))
    change = space.perturbation(z, ENERGY) @ jacobian.T
    alone = adaptive(basis, columns=8, rows=5)
    torch.testing.assert_close(
        space.jacobian(z, change, ENERGY, estimator), alone.jacobian(z[3:], change[3:], ENERGY, estimator)
    )


# --------------------------------------------------------------------------------------------------------------------
# What is made of it


def heard(energies, explorers=ENOUGH):
    energies = torch.tensor(energies, dtype=torch.float64)
    return torch.stack([energies, torch.full_like(energies, explorers)])


@pytest.mark.parametrize("k", [2.0, 10.0, 30.0, 100.0, 1000.0])
def test_the_best_rank_is_the_one_of_the_theory(basis, k):
    columns, isotropic = Regions(basis, that_vary()).best(heard([1.0, 0.3, 0.1, 0.6]), k)
    worth = {d: theory.squared_cosine(d, k, alpha) for d, alpha in ((4, 0.5), (8, 0.65), (12, 0.7))}
    best = max(worth, key=worth.get)
    assert int(columns.sum()) == best
    assert bool(isotropic) == (theory.squared_cosine(UNITS, k) > worth[best])


def usual(d):
    return d / (d + USUAL)


def test_before_anything_is_heard_the_usual_course_is_taken(basis):
    regions = Regions(basis, that_vary())
    cumulative = regions.shares(regions.no_evidence()).cumsum(0).tolist()
    assert cumulative == pytest.approx([usual(4), usual(8), usual(12), 1])


def test_one_region_alone_tells_nothing(basis):
    """Only ratios do."""
    regions = Regions(basis, that_vary())
    known = regions.no_evidence()
    known[:, 0] = torch.tensor([100.0, 300.0])
    torch.testing.assert_close(regions.shares(known), regions.shares(regions.no_evidence()))


def test_the_prior_fades_with_the_number_of_explorers(basis):
    """All are heard alike, all energy in the first region: its share goes from the prior's to 1 in a straight line."""
    regions = Regions(basis, that_vary())
    shares = [
        float(regions.shares(heard([2.0, 0, 0, 0], n))[0]) for n in (0, ENOUGH / 4, ENOUGH / 2, ENOUGH, 300)
    ]
    assert shares == pytest.approx([usual(4) + w * (1 - usual(4)) for w in (0, 1 / 4, 1 / 2, 1, 1)])


def test_two_looks_do_not_overthrow_the_prior():
    """By chance nothing was heard in the manifold; in the old version this perturbed all units for good."""
    basis = torch.eye(192, 128, dtype=torch.float64)
    regions = Regions(basis, torch.ones(192, dtype=torch.float64))
    known = heard([0.0] * 6 + [5.0], explorers=2)
    columns, isotropic = regions.best(known, 200.0)
    assert 32 <= int(columns.sum()) <= 64
    assert not isotropic


@pytest.mark.parametrize("explorers", [0, 3, 300])
def test_a_region_without_dimensions_has_no_energy(basis, explorers):
    """Columns of zeros: activity varies in 6 directions; heard or not, the prior is shared by the others."""
    basis = basis * (torch.arange(COLUMNS) < 6)
    regions = Regions(basis, that_vary())
    known = heard([3.0, 1.0, 0.0, 1.0], explorers)
    shares = regions.shares(known)
    assert float(shares[2]) == 0
    assert float(shares.sum()) == pytest.approx(1)
    known[:, 2] = 0  # and nothing depends on whether zeros were heard
    torch.testing.assert_close(regions.shares(known), shares)
    if not explorers:
        assert shares.tolist() == pytest.approx([usual(4), usual(6) - usual(4), 0, 1 - usual(6)])


def test_where_the_manifold_holds_all_units_that_vary_nothing_is_outside():
    basis = torch.cat([torch.zeros(COLUMNS, COLUMNS), torch.eye(COLUMNS)]).double()
    regions = Regions(basis, that_vary(COLUMNS))
    shares = regions.shares(heard([1.0, 1.0, 2.0, 0.0]))
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.25, 0.5, 0]).double())
    columns, isotropic = regions.best(heard([1.0, 1.0, 2.0, 0.0]), 1000.0)
    assert (int(columns.sum()), int(isotropic)) == (COLUMNS, 0)


# --------------------------------------------------------------------------------------------------------------------
# The budget, and who explores


@pytest.mark.parametrize(
    ("options", "memory"), [({}, 100), ({"refresh": 10}, 19), ({"every": 5}, 20), ({"rate": 0.01}, 199)]
)
def test_the_budget_is_what_is_heard_while_a_manifold_stays_or_while_the_average_remembers(options, memory):
    """Steps between two manifolds, or (2 - rate)/rate by equation (8), whichever is more."""
    options = {"every": 1, **options}
    assert ManifoldNoiseCorrelation(rank="auto", **options)._memory == pytest.approx(memory)


BUDGETS = [  # rows of a site × updates, of which seven eighths do not explore
    ({}, 6 * 100),  # 12 examples shared by 2 sites × 100 steps to the next manifold
    ({"perturbations": 2}, 2 * 100),
    ({"perturbations": 8, "refresh": 10}, 8 * 19),  # × (2 - 0.1)/0.1 updates that the average remembers
    ({"perturbations": 4, "every": 5}, 4 * 20),  # × 100/5 updates to the next manifold
    ({"perturbations": 1, "rate": 0.01}, 199),  # × (2 - 0.01)/0.01
]
NEAR = 0.02  # how far from the budget at which two choices are worth the same, as a fraction


@pytest.mark.parametrize(("options", "heard"), BUDGETS)
@pytest.mark.parametrize("more", [True, False])
def test_the_rank_is_chosen_for_the_budget_by_its_definition(options, heard, more):
    """Half of the energy in 4 directions, α in 8 or more: (1 + 9/K)/α = (1 + 5/K)/0.5 at the K that is asked for."""
    rule = ManifoldNoiseCorrelation(rank="auto", **{"every": 1, **options})
    even = (1 - EXPLORING) * heard * (1 - NEAR if more else 1 + NEAR)
    share = 0.5 * (1 + 9 / even) / (1 + 5 / even)
    space = chosen(rule, [0.5, share - 0.5, 0, 0, 1 - share])
    assert int(space.columns.sum()) == (8 if more else 4)


@pytest.mark.parametrize(("options", "heard"), BUDGETS)
@pytest.mark.parametrize("more", [True, False])
def test_all_units_are_perturbed_for_the_budget_by_its_definition(options, heard, more):
    """The share α in 4 of 22 directions and the rest outside of them: α/(1 + 5/K) = 1/(1 + 25/K)."""
    rule = ManifoldNoiseCorrelation(rank="auto", **{"every": 1, **options})
    even = (1 - EXPLORING) * heard * (1 - NEAR if more else 1 + NEAR)
    share = (1 + 5 / even) / (1 + (UNITS + 1) / even)
    space = chosen(rule, [share, 0, 0, 0, 1 - share])
    assert int(space.columns.sum()) == 4
    assert bool(space.isotropic) == more


def chosen(rule, energies):
    """What the rule perturbs at a site of 24 units: the energies of directions 1-4, 5-8, 9-16, 17-22, and outside."""
    batch = Batch(randn(12, 5), torch.arange(12) % OUTPUTS)
    layers = [nn.Linear(5, UNITS), nn.Tanh(), Site(), nn.Linear(UNITS, UNITS), nn.Tanh(), Site()]
    net = Net(nn.Sequential(*layers, nn.Linear(UNITS, OUTPUTS)).double(), batch.x)
    gen = torch.Generator().manual_seed(0)
    state = rule.init(net, net.init_params(), batch, gen)
    known = torch.stack([torch.tensor(energies), torch.full((5,), 300.0)]).to(state.buffers["energy.2"])
    basis = torch.eye(UNITS, dtype=torch.float64) * (torch.arange(UNITS) < 22)
    state = replace(state, buffers=state.buffers | {"energy.2": known, "basis.2": basis})
    rows = len(rule.noise(net, state, batch, gen, 0)["2"])
    return rule.subspace(net, state, "2", rows, 0)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8, 40, 200])
@pytest.mark.parametrize("regions", [2, 4, 8])
def test_more_explore_until_all_regions_were_heard_and_every_region_has_its_turn(rows, regions):
    longest = 8 * regions * (ENOUGH + 50)
    rounds = [explorers(rows, update, regions) for update in range(longest)]
    totals, first = [0] * regions, None
    for update, one in enumerate(rounds):
        totals[one.region] += one.count
        if first is None and min(totals) >= ENOUGH:
            first = update + 1
    share = sum(one.count for one in rounds[:first]) / (rows * first)
    # Whole examples and whole turns: of three rows a half is a third.
    assert AT_FIRST / 1.6 <= share <= AT_FIRST * 1.6
    later = rounds[first + 8 :]
    assert sum(one.count for one in later) / (rows * len(later)) == pytest.approx(EXPLORING, rel=0.35)
    assert max(totals) <= 1.5 * min(totals) + max(one.count for one in rounds)


def test_the_feedback_is_left_alone_where_all_explore(basis):
    assert adaptive(basis, exploring=Explorers(2, 1), rows=3).told == 1
    assert adaptive(basis, exploring=Explorers(3, 1), rows=3).told == 0


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("region", range(OUTSIDE + 1))
@pytest.mark.parametrize("isotropic", [0.0, 1.0])
@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_where_all_explore_the_estimate_is_finite(basis, jacobian, rows, region, isotropic, estimator):
    """Also where no weight is given to it: zero times NaN is NaN."""
    space = adaptive(basis, isotropic=isotropic, exploring=Explorers(rows, region), rows=rows)
    z = randn(rows, UNITS + COLUMNS, seed=4)
    estimate = space.jacobian(z, space.perturbation(z, ENERGY) @ jacobian.T, ENERGY, estimator)
    assert estimate.shape == jacobian.shape
    assert estimate.isfinite().all()


@pytest.mark.parametrize("perturbations", [1, 2, 3])
@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_with_few_perturbations_the_feedback_stays_finite_and_rests_while_all_explore(
    mlp, perturbations, estimator
):
    rule = ManifoldNoiseCorrelation(rank="auto", perturbations=perturbations, estimator=estimator, every=1)
    batch, params = mlp.batch(), mlp.params()
    gen = torch.Generator().manual_seed(0)
    state = rule.init(mlp.net, params, batch, gen)
    for t in range(48):
        noise = rule.noise(mlp.net, state, batch, gen, t)
        after = rule.step(mlp.net, mlp.task.loss, params, state, batch, noise, t).state
        assert all(buffer.isfinite().all() for buffer in after.buffers.values()), f"step {t}"
        for key in mlp.net.keys("post"):
            space = rule.subspace(mlp.net, state, key, perturbations, t)
            same = torch.equal(after.buffers[f"feedback.{key}"], state.buffers[f"feedback.{key}"])
            assert same == (space.explorers.count == perturbations), f"step {t}"
        state = after


def test_an_automatic_rank_cannot_listen_to_all_sites_at_once():
    with pytest.raises(OptionError, match="together must be false with rank=auto"):
        ManifoldNoiseCorrelation(rank="auto", together=True)


# --------------------------------------------------------------------------------------------------------------------
# Networks with known manifolds

WIDE = 192
FIXED = (4, 8, 16, 32, 64, 128)
# In 200 updates at 2 perturbations every one of 8 regions is heard from 20 explorers or more, and its energy is known to some
# 30 %.
UPDATES = 200
EXCESS = (
    3.0  # degrees: exploring costs an eighth of the perturbations, up to 2°, and the rest is sampling error
)


def planted(held, directions, seed):
    """A linear network; the share ``held`` of the Jacobian's energy lies evenly in that many directions of activity."""
    gen = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(WIDE, WIDE, generator=gen)).Q
    inside = torch.arange(WIDE) < directions
    shares = torch.where(inside, held / directions, (1 - held) / (WIDE - directions))
    rows = torch.randn(10, WIDE, generator=gen)
    jacobian = rows / rows.norm(dim=0) * shares.sqrt() @ basis.T
    net = Net(nn.Sequential(nn.Linear(WIDE, WIDE), Site(), nn.Linear(WIDE, 10)), torch.zeros(2, WIDE))
    params = {name: torch.zeros_like(p) for name, p in net.init_params().items()}
    # Ten times as much variance in the directions that hold the Jacobian: PCA finds them from a batch, in no order.
    spread = torch.where(inside, 1.0, 0.1) * torch.linspace(1, 0.7, WIDE)
    return net, {**params, "0.weight": basis * spread, "2.weight": jacobian}, jacobian, gen


@pytest.mark.parametrize("perturbations", [2, 8, 32, 128])
@pytest.mark.parametrize(("held", "directions"), [(1.0, 16), (0.95, 32), (16 / WIDE, 16)])
def test_the_rank_is_within_a_region_of_the_right_one_and_costs_no_angle(perturbations, held, directions):
    net, params, jacobian, gen = planted(held, directions, seed=100)
    rule = ManifoldNoiseCorrelation(rank="auto", perturbations=perturbations, every=1)

    def batch():
        return Batch(torch.randn(64, WIDE, generator=gen), torch.zeros(64, dtype=torch.long))

    state = rule.init(net, params, batch(), gen)
    for t in range(UPDATES + 1):
        drawn = batch()
        noise = rule.noise(net, state, drawn, gen, t)
        step = rule.step(net, lambda y, _: y.square().sum(1), params, state, drawn, noise, t)
        state = step.state

    rank, k = float(step.logs["rank.1"]), 100 * perturbations
    alpha = (jacobian @ state.buffers["basis.1"]).square().sum(0).cumsum(0) / jacobian.square().sum()
    worth = {d: float(theory.squared_cosine(d, k, float(alpha[d - 1]))) for d in FIXED}
    worth[WIDE] = float(theory.squared_cosine(WIDE, k))
    share = 1.0 if rank > WIDE - 0.5 else float(alpha[round(rank) - 1])
    own = float(theory.squared_cosine(rank, (1 - EXPLORING) * k, share))
    right = max(worth, key=worth.get)

    assert degrees(own) <= degrees(worth[right]) + EXCESS
    # Where several ranks are worth about the same, none of them is wrong.
    as_good = [d for d, value in worth.items() if degrees(value) <= degrees(worth[right]) + 0.5]
    assert min(as_good) / 2 <= rank <= 2 * max(as_good)


def degrees(squared_cosine):
    return math.degrees(math.acos(math.sqrt(min(squared_cosine, 1.0))))
