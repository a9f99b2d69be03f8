"""Jacobians against jacrev, and alignment against its definition, in float64; then the limits where truth is known."""

from __future__ import annotations

import math

import pytest
import torch

from rulezoo.manifold import principal_basis
from rulezoo.measures import geometry, theory
from rulezoo.measures.geometry import Alignment

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


def orthonormal(n, d, seed=0):
    return torch.linalg.qr(normal(n, d, seed=seed)).Q


def aligned(jacobian, error, basis, chunk=100):
    alignment = Alignment(basis, gen())
    for j, e in zip(jacobian.split(chunk), error.split(chunk), strict=True):
        alignment.add(j, e)
    return alignment.numbers()


# Angles --------------------------------------------------------------------------------------------------------------


def test_an_angle_is_exact_however_small_the_angle_and_whatever_the_lengths():
    degrees = torch.tensor([1e-9, 1.0, 60.0, 90.0, 179.999999, 180.0], dtype=torch.float64)
    a = torch.zeros(6, 3, dtype=torch.float64)
    a[:, 0] = 1e-200
    b = 1e200 * torch.stack(
        [degrees.deg2rad().cos(), degrees.deg2rad().sin(), torch.zeros(6, dtype=torch.float64)], 1
    )
    torch.testing.assert_close(geometry.angles(a, b), degrees, rtol=1e-12, atol=1e-13)


def test_no_angle_with_what_is_zero():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert geometry.angles(rows, rows.flip(0)).isnan().all()


# Jacobians -----------------------------------------------------------------------------------------------------------


def test_jacobians_are_those_of_jacrev_one_example_at_a_time(tiny):
    net, params, batch = tiny.net, tiny.params(), tiny.batch(5)
    found = geometry.jacobians(net, params, batch.x, geometry.visits_of_sites(net))
    assert list(found) == list(dict.fromkeys(net.visits[key].site for key in net.keys("post")))
    for key in net.keys("post"):
        visit = net.visits[key]
        place = geometry.visits_of_sites(net)[visit.site].index(key)
        for b in range(5):

            def output(offset, key=key, b=b):
                return net.run(
                    params, batch.x[b : b + 1], lambda k, h: h + offset if k == key else h
                ).flatten()

            naive = torch.func.jacrev(output)(torch.zeros(1, *visit.shape, dtype=torch.float64))
            torch.testing.assert_close(found[visit.site][b, :, place], naive.flatten(1), **EXACT)


def test_visits_are_grouped_by_site_and_other_kinds_left_out(tiny):
    sites = geometry.visits_of_sites(tiny.net)
    assert sorted(key for keys in sites.values() for key in keys) == sorted(tiny.net.keys("post"))
    assert geometry.visits_of_sites(tiny.net, "pre").keys().isdisjoint(sites)


# Alignment against its definition ------------------------------------------------------------------------------------


@pytest.fixture
def case():
    """Jacobians ``(b, o, v, n)`` with two visits, errors, and a basis."""
    return normal(20, 3, 2, 9), normal(20, 3, seed=1), orthonormal(9, 4, seed=2)


def test_shares_are_those_of_the_definition(case):
    jacobian, error, basis = case
    numbers = aligned(*case)
    projector = basis @ basis.T
    inside = sum((j[o, v] @ projector).square().sum() for j in jacobian for o in range(3) for v in range(2))
    gradients = [sum(e[o] * j[o] for o in range(3)) for j, e in zip(jacobian, error, strict=True)]  # (v, n)
    through_mean = [sum(e[o] * jacobian.mean(0)[o] for o in range(3)) for e in error]
    expected = {
        "units": 9,
        "rank": 4,
        "alpha": inside / jacobian.square().sum(),
        "chance": 4 / 9,
        "margin": inside / jacobian.square().sum() - 4 / 9,
        "gradient_norm": (sum(g.square().sum() for g in gradients) / 20) ** 0.5,
        "alpha_gradient": sum((g @ projector).square().sum() for g in gradients)
        / sum(g.square().sum() for g in gradients),
        "alpha_mean_gradient": sum((g @ projector).square().sum() for g in through_mean)
        / sum(g.square().sum() for g in through_mean),
    }
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(float(value), rel=1e-10), name


def test_ceiling_and_spread_are_those_of_the_theory(case):
    jacobian, error, basis = case
    numbers = aligned(jacobian, error, basis)
    flat = jacobian.flatten(2)
    assert numbers["ceiling"] == pytest.approx(float(theory.ceiling_angle(flat, error).mean()), rel=1e-10)
    energy = (error @ flat.mean(0)).square().sum(1)  # spread is pooled over errors, by their energy
    spread = (theory.jacobian_spread(flat, error) * energy).sum() / energy.sum()
    assert numbers["spread"] == pytest.approx(float(spread), rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 7])
def test_it_does_not_matter_how_the_examples_come(case, chunk):
    at_once, by_chunks = aligned(*case), aligned(*case, chunk=chunk)
    assert at_once.keys() == by_chunks.keys()
    for name, value in at_once.items():
        assert by_chunks[name] == pytest.approx(value, rel=1e-9), name


# Limits --------------------------------------------------------------------------------------------------------------


def test_a_random_subspace_holds_the_share_of_its_dimensions():
    """2,000 bases; the share of one direction is Beta(d/2, (n-d)/2), and 4 standard errors are allowed."""
    n, d, draws = 24, 6, 2000
    row = normal(n)
    row /= row.norm()
    generator = gen(1)
    shares = torch.stack(
        [(row @ geometry.random_basis(n, d, generator, row)).square().sum() for _ in range(draws)]
    )
    variance = 2 * d * (n - d) / (n**2 * (n + 2))
    assert shares.mean().item() == pytest.approx(d / n, abs=4 * math.sqrt(variance / draws))
    assert shares.var().item() == pytest.approx(variance, rel=0.2)


def test_the_control_is_measured_in_another_subspace_of_the_same_dimension():
    basis = orthonormal(40, 5, seed=3)
    jacobian = (normal(30, 2, 5) @ basis.T)[:, :, None]  # (30, 2, 1, 40), all of it inside
    numbers = aligned(jacobian, normal(30, 2, seed=4), basis)
    assert numbers["alpha"] == pytest.approx(1, abs=1e-12)
    assert numbers["alpha_random"] == pytest.approx(5 / 40, abs=0.15)
    assert numbers["row_angle_largest"] == pytest.approx(0, abs=1e-5)


def test_a_layer_that_reads_the_manifold_alone_is_aligned_with_it(mlp):
    batch, params = mlp.batch(40), mlp.params()
    activity = {}
    mlp.net.run(params, batch.x, lambda key, h: activity.setdefault(key, h))
    basis = principal_basis(activity["post2"], 4)
    params = params | {"readout.weight": params["readout.weight"] @ basis @ basis.T}
    jacobian = geometry.jacobians(mlp.net, params, batch.x, {"post2": ["post2"]})["post2"]
    numbers = aligned(jacobian, normal(40, 3), basis)
    assert numbers["alpha"] == pytest.approx(1, abs=1e-12)
    assert numbers["row_angle_largest"] == pytest.approx(0, abs=1e-5)
    assert numbers["ceiling"] == pytest.approx(0, abs=1e-9)  # behind the last site the network is linear
    assert numbers["spread"] == pytest.approx(1, abs=1e-12)


def test_a_manifold_of_all_units_holds_everything():
    numbers = aligned(normal(6, 2, 1, 5), normal(6, 2, seed=1), torch.eye(5, dtype=torch.float64))
    assert numbers["alpha"] == pytest.approx(1)
    assert numbers["margin"] == pytest.approx(0)


def test_principal_angles_that_are_known():
    """Rows in the plane of axes 0 and 1; the manifold is axis 0 and a direction 30° above axis 1."""
    rows = torch.zeros(50, 6, dtype=torch.float64)
    rows[:, :2] = normal(50, 2)
    basis = torch.zeros(6, 2, dtype=torch.float64)
    basis[0, 0] = 1
    basis[1, 1], basis[2, 1] = math.cos(math.pi / 6), math.sin(math.pi / 6)
    smallest, largest = geometry.row_angles(rows, basis)
    assert smallest == pytest.approx(0, abs=1e-5)
    assert largest == pytest.approx(30)


def test_row_angles_are_of_the_leading_row_space():
    rows = torch.cat([5 * normal(60, 3), 0.01 * normal(60, 3, seed=1)], 1)
    basis = torch.eye(6, dtype=torch.float64)[:, :3]
    assert max(geometry.row_angles(rows, basis)) < 1
    assert len(geometry.row_angles(rows, torch.eye(6, dtype=torch.float64), top=2)) == 2


def test_the_row_space_is_not_centred():
    """Every example has the same Jacobian, as behind the last site."""
    rows = torch.eye(6, dtype=torch.float64)[:2].repeat(9, 1)
    assert geometry.row_angles(rows, torch.eye(6, dtype=torch.float64)[:, 1:4]) == pytest.approx((0, 90))


def test_a_silent_site_has_no_manifold():
    numbers = aligned(normal(6, 2, 1, 5), normal(6, 2, seed=1), torch.zeros(5, 3, dtype=torch.float64))
    assert numbers["rank"] == 0
    assert numbers["alpha"] == 0
    assert math.isnan(numbers["row_angle_median"])


def test_a_site_that_nothing_listens_to_has_no_shares():
    numbers = aligned(torch.zeros(6, 2, 1, 5), torch.ones(6, 2), torch.eye(5))
    assert all(math.isnan(numbers[name]) for name in ("alpha", "alpha_gradient", "ceiling", "spread"))
    assert numbers["gradient_norm"] == 0
