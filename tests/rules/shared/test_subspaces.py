"""Where a site is perturbed. Float64; J is a fixed matrix, so that responses are linear."""

import pytest
import torch

from rulezoo_plugins.shared.subspaces import Everywhere, Span

UNITS, COLUMNS, OUTPUTS = 24, 12, 3
ENERGY = torch.tensor(0.7, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("space", [Everywhere(UNITS), Span(torch.linalg.qr(randn(UNITS, COLUMNS)).Q)])
def test_every_perturbation_has_the_same_energy(space):
    """E‖ξ‖² from an orthonormal set of coordinates, where the sum over the set is exact."""
    total = space.perturbation(torch.eye(space.coordinates, dtype=torch.float64), ENERGY).square().sum()
    torch.testing.assert_close(total, ENERGY)


@pytest.mark.parametrize("estimator", ["correlation", "least-squares"])
def test_from_noise_on_a_basis_the_jacobian_is_exact(estimator):
    basis, jacobian = torch.linalg.qr(randn(UNITS, COLUMNS)).Q, randn(OUTPUTS, UNITS, seed=1)
    for space, expected in [(Everywhere(UNITS), jacobian), (Span(basis), jacobian @ basis @ basis.T)]:
        z = space.coordinates**0.5 * torch.eye(space.coordinates, dtype=torch.float64)
        change = space.perturbation(z, ENERGY) @ jacobian.T
        torch.testing.assert_close(space.jacobian(z, change, ENERGY, estimator), expected)
