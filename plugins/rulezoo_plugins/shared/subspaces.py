"""Where a site is perturbed, and what the responses then say of the Jacobian.

Everywhere (vanilla noise correlation), or in the span of a basis (NMNC); `rulezoo_plugins.noise_correlation.automatic_rank` has a third
answer. All spend the same energy.

Letters: K perturbed examples, n units, d columns of a basis U (n × d), o outputs; s, the standard deviation of one
coordinate of the noise; z, standard normal coordinates; dy, changes of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rulezoo import manifold


class Subspace(Protocol):
    """How one site is perturbed. ``energy`` is E‖ξ‖², a scalar."""

    @property
    def coordinates(self) -> int:
        """How many normal numbers one perturbation takes."""

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """Coordinates ``(K, coordinates)`` → ξ ``(K, n)``."""

    @property
    def told(self) -> Tensor | float:
        """1 when the responses tell of the Jacobian in the subspace, 0 when they do not."""

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """Estimate of the mean Jacobian, ``(o, n)``, from the changes ``(K, o)`` of the output."""


@dataclass(frozen=True)
class Everywhere:
    """All n directions alike."""

    units: int

    @property
    def coordinates(self) -> int:
        """One for each unit."""
        return self.units

    @property
    def told(self) -> float:
        """Always."""
        return 1.0

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """See `Subspace`."""
        return (energy / self.units).sqrt() * z

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """See `Subspace`."""
        return related(change, z, estimator) / (energy / self.units).sqrt()


@dataclass(frozen=True)
class Span:
    """The span of an orthonormal basis ``(n, d)``, whose columns of zeros do not count."""

    basis: Tensor

    @property
    def coordinates(self) -> int:
        """One for each column."""
        return self.basis.shape[1]

    @property
    def told(self) -> float:
        """Always."""
        return 1.0

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """See `Subspace`."""
        return self._scale(energy) * z @ self.basis.mT

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """See `Subspace`."""
        return self.coefficients(z, change, energy, estimator) @ self.basis.mT

    def coefficients(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """The same in the coordinates of the basis, ``(o, d)``."""
        felt = z * self.basis.square().sum(0)  # what is not perturbed explains no response
        return related(change, felt, estimator) / self._scale(energy)

    def _scale(self, energy: Tensor) -> Tensor:
        return (energy / manifold.dimensions(self.basis).clamp_min(1)).sqrt()


def related(change: Tensor, z: Tensor, estimator: str) -> Tensor:
    """How the output answers to each coordinate: changes ``(K, o)``, coordinates ``(K, d)`` → ``(o, d)``."""
    if estimator == "least-squares":
        solved: Tensor = torch.linalg.pinv(z) @ change
        return solved.mT
    return change.mT @ z / len(z)
