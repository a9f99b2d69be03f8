"""Where a site is perturbed, and what the responses then say of the Jacobian.

Three answers to "in which subspace": everywhere (vanilla noise correlation), in the span of a basis (NMNC), or in as
many directions of a basis as pay at the given budget (NMNC with ``rank=auto``). All spend the same energy.

Letters: K perturbed examples, n units, d columns of a basis U (n × d), o outputs; s, the standard deviation of one
coordinate of the noise; z, standard normal coordinates; dy, changes of the output.

The automatic rank is ours. The theory gives the squared cosine between an estimate from K_eff independent
perturbations and the true gradient as α(d) / (1 + (d + 1)/K_eff) in d directions that hold the share α(d) of the
Jacobian's energy, and as 1 / (1 + (n + 1)/K_eff) in all of them (`rulezoo.measures.theory`, equations 1, 2 and 9). The share is
estimated without any gradient: a few examples, the explorers, are perturbed in one band of directions at a time,
directions 1-4, 5-8, 9-16 and so on, or everywhere. With noise of standard deviation s per coordinate in a band of
orthonormal directions V,

    E‖dy‖² / s² = ‖J V‖²,

averaged over examples, and α(d) is the sum over the bands up to d, divided by what is heard everywhere. "Everywhere" is
in all units that vary from example to example: a rectified unit that never varies is silent, no error reaches its
weights, and its part of the Jacobian is of no use. That J differs between examples (equation 7) is left out of account.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Units:
    """Some of the units alike: ``chosen`` is 1 for them and 0 for the others, ``(n,)``."""

    chosen: Tensor

    @property
    def coordinates(self) -> int:
        """One for each unit."""
        return len(self.chosen)

    @property
    def count(self) -> Tensor:
        """How many are chosen, a scalar."""
        return self.chosen.sum()

    @property
    def told(self) -> float:
        """Always."""
        return 1.0

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """See `Subspace`."""
        return self.scale(energy) * z * self.chosen

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """See `Subspace`."""
        return related(change, z * self.chosen, estimator) / self.scale(energy)

    def scale(self, energy: Tensor) -> Tensor:
        """Standard deviation of one coordinate."""
        return (energy / self.count.clamp_min(1)).sqrt()


def varying(activity: Tensor) -> Tensor:
    """1 for the units that vary between some activities ``(N, n)`` and 0 for the others, ``(n,)``."""
    return (activity.amax(0) > activity.amin(0)).to(activity)


@dataclass(frozen=True)
class Explorers:
    """Which of the perturbed examples explore, and where.

    Attributes:
        everywhere: how many of the first are perturbed in all units that vary.
        in_band: how many of the next are perturbed in one band.
        band: the number of that band.
    """

    everywhere: int
    in_band: int
    band: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.everywhere + self.in_band


@dataclass(frozen=True)
class Hedged:
    """The leading columns of a basis or all units that vary, whichever pays, while some examples explore.

    Attributes:
        basis: ``(n, d)``.
        units: those that vary.
        columns: 1 for the columns in use and 0 for the others, ``(d,)``.
        isotropic: 1 where perturbing the units pays, else 0; a scalar.
        explorers: the first of the examples.
        rows: K.
    """

    basis: Tensor
    units: Units
    columns: Tensor
    isotropic: Tensor
    explorers: Explorers
    rows: int

    @property
    def coordinates(self) -> int:
        """Those of all units, and those of the basis."""
        return sum(self.basis.shape)

    @property
    def rank(self) -> Tensor:
        """How many directions are perturbed: those of the columns in use, or all units that vary."""
        return torch.lerp(manifold.dimensions(self.basis * self.columns), self.units.count, self.isotropic)

    @property
    def told(self) -> Tensor | float:
        """Not when all explore, but for what is heard from the units."""
        return 1.0 if self.explorers.count < self.rows else self.isotropic * bool(self.explorers.everywhere)

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """See `Subspace`."""
        outside, inside = self.split(z)
        band = band_columns(self.basis, self.explorers.band)
        kinds = torch.tensor(
            [self.explorers.everywhere, self.explorers.in_band, self.rows - self.explorers.count]
        )
        everywhere, in_band, rest = (
            torch.eye(3, dtype=z.dtype).repeat_interleave(kinds, 0).to(z.device)[:, :, None].unbind(1)
        )  # (K, 1) each: 1 for the examples of a kind
        used = in_band * band * spread(self.basis, band, energy) + rest * (
            1 - self.isotropic
        ) * self.columns * spread(self.basis, self.columns, energy)
        free = everywhere + rest * self.isotropic
        return free * self.units.perturbation(outside, energy) + (used * inside) @ self.basis.mT

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """See `Subspace`. Explorers tell of J where they are perturbed like the others; else they would add noise."""
        outside, inside = self.split(z)
        first = self.explorers.count if self.explorers.count < self.rows else 0
        in_use = Span(self.basis * self.columns).jacobian(inside[first:], change[first:], energy, estimator)
        free = [slice(0, self.explorers.everywhere), slice(self.explorers.count, None)]
        z_free, change_free = (torch.cat([v[part] for part in free]) for v in (outside, change))
        if not len(z_free):
            return in_use
        everywhere = self.units.jacobian(z_free, change_free, energy, estimator)
        return torch.lerp(in_use, everywhere, self.isotropic)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates of all units ``(K, n)`` and those of the basis ``(K, d)``."""
        return z[:, : len(self.basis)], z[:, len(self.basis) :]

    def heard(self, known: Tensor, change: Tensor, energy: Tensor) -> Tensor:
        """Average what the explorers heard into what is ``known``, see `unknown`."""
        parts = (
            (bands(self.basis), slice(0, self.explorers.everywhere), self.units.scale(energy)),
            (
                self.explorers.band,
                slice(self.explorers.everywhere, self.explorers.count),
                spread(self.basis, band_columns(self.basis, self.explorers.band), energy),
            ),
        )
        known = known.clone()
        for place, rows, scale in parts:
            responses = change[rows]
            if not len(responses):
                continue
            power = (responses / scale.clamp_min(torch.finfo(change.dtype).tiny)).square().sum(1).mean()
            count = (known[1, place] + len(responses)).clamp_max(MEMORY)
            mean = torch.lerp(known[0, place], power, (len(responses) / count).clamp_max(1))
            known = known.index_put(
                (torch.tensor([0, 1]), torch.tensor([place, place])), torch.stack([mean, count])
            )
        return known


MEMORY = 300.0  # explorers over which an energy is averaged
USUAL = 10.0  # directions that hold half of the Jacobian's energy, as long as nothing is known
FIRST_BAND = 4  # directions in the first band; each further one doubles what is covered


def bands(basis: Tensor) -> int:
    """How many bands the columns of a basis make: up to 4, 8, 16, … and the last column."""
    return 1 + max(0, math.ceil(math.log2(basis.shape[1] / FIRST_BAND)))


def band_columns(basis: Tensor, band: int) -> Tensor:
    """1 for the columns of a band and 0 for the others, ``(d,)``."""
    end = FIRST_BAND * 2**band
    columns = torch.zeros(basis.shape[1], dtype=basis.dtype, device=basis.device)
    columns[end // 2 if band else 0 : end] = 1
    return columns


def spread(basis: Tensor, columns: Tensor, energy: Tensor) -> Tensor:
    """Standard deviation of one coordinate of noise in some columns of a basis, those of zeros not counted."""
    return (energy / (basis.square().sum(0) * columns).sum().clamp_min(1)).sqrt()


def unknown(basis: Tensor) -> Tensor:
    """What is known at first: energies and from how many explorers, by band and, last, of all units: ``(2, bands + 1)``."""
    return basis.new_zeros(2, bands(basis) + 1)


def related(change: Tensor, z: Tensor, estimator: str) -> Tensor:
    """How the output answers to each coordinate: changes ``(K, o)``, coordinates ``(K, d)`` → ``(o, d)``."""
    if estimator == "least-squares":
        solved: Tensor = torch.linalg.pinv(z) @ change
        return solved.mT
    return change.mT @ z / len(z)


def best_rank(
    known: Tensor, basis: Tensor, units: Tensor, k_inside: float, k_outside: float
) -> tuple[Tensor, Tensor]:
    """How many leading directions to perturb, and whether to perturb all units that vary instead.

    Args:
        known: see `unknown`.
        basis: ``(n, d)``.
        units: how many vary, a scalar.
        k_inside: K_eff where the manifold is perturbed.
        k_outside: K_eff where the units are.

    Returns:
        1 for the columns to use and 0 for the others, ``(d,)``; 1 where perturbing the units pays, a scalar. Until
        every band has been heard, α(d) is taken for d/(d + 10), a common course in trained networks.
    """
    columns = basis.shape[1]
    energy, everywhere = known[0, :-1], known[0, -1].clamp_min(torch.finfo(known.dtype).tiny)
    ranks = torch.tensor([min(FIRST_BAND * 2**b, columns) for b in range(len(energy))], device=known.device)
    heard = (energy.cumsum(0) / everywhere).clamp_max(1)
    share = torch.where((known[1] > 0).all(), heard, ranks / (ranks + USUAL))
    worth = share / (1 + (ranks + 1) / k_inside)
    rank = ranks.gather(0, worth.argmax(0, keepdim=True))
    isotropic = worth.max() <= 1 / (1 + (units + 1) / k_outside)
    used = torch.arange(columns, device=known.device) < rank
    return used.to(known), isotropic.to(known)
