"""The automatic rank of NMNC: as many directions of the manifold as pay at the given budget, or all units.

Letters: K perturbed examples, n units, d columns of a basis U (n × d), o outputs; s, the standard deviation of one
coordinate of the noise; z, standard normal coordinates; dy, changes of the output.

The method is ours. The theory gives the squared cosine between an estimate from K_eff independent perturbations and the
true gradient as α(d) / (1 + (d + 1)/K_eff) in d directions that hold the share α(d) of the Jacobian's energy, and as
1 / (1 + (n + 1)/K_eff) in all of them (`rulezoo.measures.theory`, equations 1, 2 and 9). The share is estimated without
any gradient. The space is divided into regions: directions 1-4, 5-8, 9-16 and so on of the manifold, and what lies
outside of it. A few examples, the explorers, are perturbed in one region at a time. With noise of standard deviation s
in each direction of an orthonormal basis V of a region,

    E‖dy‖² / s² = ‖J V‖²,

averaged over examples, is the region's energy. α(d) is the sum over the regions up to d, divided by that of all.

- **Prior.** Until `ENOUGH` explorers have been perturbed in a region, its energy is mixed with that of α(d) = d/(d + 10), a
  common course in trained networks, by the number of explorers.
- Evidence is averaged over up to `MEMORY` explorers of a region, also across updates of the manifold.
- A region without dimensions (columns of zeros, or nothing outside of the manifold) has no energy, and no prior.
- Only units that vary from example to example count: a rectified unit that never varies is silent, no error reaches its
  weights, and its part of the Jacobian is of no use.
- Explorers of directions in use enter the estimate of the Jacobian like the other examples.
- Differences of J between examples (equation 7) are neglected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import manifold
from rulezoo_plugins.shared.subspaces import related

MEMORY = 300.0  # explorers over which an energy is averaged
ENOUGH = 20  # explorers of a region after which the prior does not count: an energy is known to some 30 %
USUAL = 10.0  # directions that hold half of the Jacobian's energy, by the prior
FIRST = 4  # directions in the first region; each further one doubles what is covered
EXPLORING = 1 / 8  # share of the perturbed examples that explore
AT_FIRST = 1 / 2  # the same until there were ENOUGH explorers of every region


@dataclass(frozen=True)
class Explorers:
    """Which of the perturbed examples explore, and where.

    Attributes:
        count: how many of the first.
        region: the number of the region.
    """

    count: int
    region: int


def explorers(rows: int, update: int, regions: int) -> Explorers:
    """A share of the perturbed examples of each update; where they are too few for that, one of them in some updates.

    Args:
        rows: K.
        update: number of the update of the feedback.
        regions: how many there are, which take turns.
    """
    pause, count = _schedule(AT_FIRST, rows)
    learning = pause * regions * math.ceil(ENOUGH / count)  # updates at the beginning
    first_turn = 0
    if update >= learning:
        first_turn, update = learning // pause, update - learning
        pause, count = _schedule(EXPLORING, rows)
    turn, waiting = divmod(update, pause)
    return Explorers(0 if waiting else count, (first_turn + turn) % regions)


def _schedule(share: float, rows: int) -> tuple[int, int]:
    """Updates from one to the next in which examples explore, and how many do."""
    return max(1, round(1 / (share * rows))), max(1, int(share * rows))


@dataclass(frozen=True)
class Regions:
    """A basis ``(n, d)``, whose columns of zeros do not count, and the units that vary: 1 for them and 0 for the others, ``(n,)``.

    The regions of its columns come first; the last one is what the units that vary span outside of it.
    """

    basis: Tensor
    varying: Tensor

    @property
    def count(self) -> int:
        """How many regions there are, those without dimensions included."""
        return len(self._ends) + 1

    @property
    def _ends(self) -> list[int]:
        """The last column of each region of columns: 4, 8, 16, … and d."""
        columns = self.basis.shape[1]
        doublings = max(0, math.ceil(math.log2(columns / FIRST)))
        return [min(FIRST * 2**i, columns) for i in range(doublings + 1)]

    def columns(self, region: int) -> Tensor:
        """1 for the columns of a region and 0 for the others, ``(d,)``; none are in the last region."""
        ends = [0, *self._ends, self._ends[-1]]
        return self._between(ends[region], ends[region + 1])

    def up_to(self, region: Tensor) -> Tensor:
        """The same for the columns of all regions up to one, a scalar tensor."""
        ends = torch.tensor(self._ends, device=self.basis.device)
        return (torch.arange(self.basis.shape[1], device=self.basis.device) < ends[region]).to(self.basis)

    def _between(self, first: int, end: int) -> Tensor:
        columns = self.basis.new_zeros(self.basis.shape[1])
        columns[first:end] = 1
        return columns

    @property
    def units(self) -> Tensor:
        """How many units vary, a scalar."""
        return self.varying.sum()

    def dimensions(self) -> Tensor:
        """Of each region, ``(regions,)``."""
        within = self.basis.square().sum(0)
        parts = [(within * self.columns(region)).sum() for region in range(self.count - 1)]
        held = (self.varying[:, None] * self.basis).square().sum()
        return torch.stack([*parts, (self.units - held).clamp_min(0)])

    def outside(self, z: Tensor) -> Tensor:
        """Coordinates of the units ``(K, n)``, without what lies in the manifold."""
        own = z * self.varying
        return own - (own @ self.basis) @ self.basis.mT

    def scale(self, region: int, energy: Tensor) -> Tensor:
        """Standard deviation of one coordinate of noise of that energy in a region."""
        return (energy / self.dimensions()[region].clamp_min(1)).sqrt()

    def no_evidence(self) -> Tensor:
        """The evidence before the first explorer: mean energy of each region and number of explorers, ``(2, regions)``."""
        return self.basis.new_zeros(2, self.count)

    def shares(self, evidence: Tensor) -> Tensor:
        """Share of each region in the Jacobian's energy, from the evidence and the prior, ``(regions,)``."""
        dimensions = self.dimensions()
        energy, explorers = evidence
        exists = (dimensions > 0.5).to(evidence)
        within = dimensions[:-1].cumsum(0)
        alpha = torch.cat([within.new_zeros(1), within / (within + USUAL), within.new_ones(1)])
        tiny = torch.finfo(evidence.dtype).tiny
        prior = alpha.diff() * exists
        prior = prior / prior.sum().clamp_min(tiny)
        weight = (explorers / ENOUGH).clamp_max(1) * exists
        measured, expected = (weight * energy).sum(), (weight * prior).sum()
        # Only ratios of energies count: the explored regions have, together, the share that the prior gives them.
        total = measured / expected.clamp_min(tiny)
        mixed = weight * energy / total.clamp_min(tiny) + (1 - weight) * prior
        return torch.where((measured > 0) & (expected > 0), mixed, prior)

    def best(self, evidence: Tensor, k: float) -> tuple[Tensor, Tensor]:
        """How many leading directions to perturb, and whether to perturb all units that vary instead.

        Args:
            evidence: see `no_evidence`.
            k: K_eff.

        Returns:
            1 for the columns to use and 0 for the others, ``(d,)``; 1 where perturbing all units pays, a scalar.
        """
        ranks = self.dimensions()[:-1].cumsum(0)
        worth = self.shares(evidence)[:-1].cumsum(0).clamp_max(1) / (1 + (ranks + 1) / k)
        isotropic = worth.max() < 1 / (1 + (self.units + 1) / k)
        return self.up_to(worth.argmax(0)), isotropic.to(evidence)


@dataclass(frozen=True)
class Adaptive:
    """The leading columns of a basis or all units that vary, whichever pays, while some examples explore.

    Attributes:
        regions: the basis, ``(n, d)``, and the units that vary.
        columns: 1 for the columns in use and 0 for the others, ``(d,)``.
        isotropic: 1 where perturbing all units pays, else 0; a scalar.
        explorers: the first of the examples.
        rows: K.
    """

    regions: Regions
    columns: Tensor
    isotropic: Tensor
    explorers: Explorers
    rows: int

    @property
    def coordinates(self) -> int:
        """Those of all units, and those of the basis."""
        return sum(self.regions.basis.shape)

    @property
    def rank(self) -> Tensor:
        """How many directions are perturbed: those of the columns in use, or all units that vary."""
        inside = manifold.dimensions(self.regions.basis * self.columns)
        return torch.lerp(inside, self.regions.units, self.isotropic)

    @property
    def told(self) -> float:
        """Not when all examples explore."""
        return float(self.explorers.count < self.rows)

    def perturbation(self, z: Tensor, energy: Tensor) -> Tensor:
        """See `Subspace`."""
        units, _ = self._split(z)
        first = self.explorers.count
        inside = self._inside(z, energy) @ self.regions.basis.mT
        exploring, rest = inside[:first], inside[first:]
        if self.explorers.region == self.regions.count - 1:
            exploring = self.regions.outside(units[:first]) * self.regions.scale(-1, energy)
        free = units[first:] * self.regions.varying * self._free_scale(energy)
        return torch.cat([exploring, rest + self.isotropic * free])

    def jacobian(self, z: Tensor, change: Tensor, energy: Tensor, estimator: str) -> Tensor:
        """See `Subspace`."""
        basis, first = self.regions.basis, self.explorers.count
        in_use = self.columns * basis.square().sum(0)  # directions that are not perturbed explain no response
        felt = self._inside(z, energy) * in_use
        if estimator == "least-squares":
            inside = related(change, felt, estimator)
        else:
            variance = self._scales(energy).square().sum(0)
            inside = change.mT @ felt / variance.clamp_min(torch.finfo(variance.dtype).tiny) * (variance > 0)
        units = (self._split(z)[0] * self.regions.varying)[first:]
        if not len(units):
            return inside @ basis.mT
        everywhere = related(change[first:], units, estimator) / self._free_scale(energy)
        return torch.lerp(inside @ basis.mT, everywhere, self.isotropic)

    def with_responses(self, evidence: Tensor, change: Tensor, energy: Tensor) -> Tensor:
        """The evidence with the responses of this update's explorers, see `Regions.no_evidence`."""
        count, region = self.explorers.count, self.explorers.region
        if not count:
            return evidence
        scale = self.regions.scale(region, energy).clamp_min(torch.finfo(change.dtype).tiny)
        power = (change[:count] / scale).square().sum(1).mean()
        explored = (evidence[1, region] + count).clamp_max(MEMORY)
        mean = torch.lerp(evidence[0, region], power, (count / explored).clamp_max(1))
        own = torch.arange(self.regions.count, device=evidence.device) == region
        return torch.where(own, torch.stack([mean, explored])[:, None], evidence)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates of all units ``(K, n)`` and those of the basis ``(K, d)``."""
        n = len(self.regions.basis)
        return z[:, :n], z[:, n:]

    def _inside(self, z: Tensor, energy: Tensor) -> Tensor:
        """Noise in the coordinates of the basis, ``(K, d)``."""
        return self._split(z)[1] * self._scales(energy)

    def _scales(self, energy: Tensor) -> Tensor:
        """Standard deviation of each coordinate of the basis, ``(K, d)``."""
        basis, count, region = self.regions.basis, self.explorers.count, self.explorers.region
        exploring = self.regions.columns(region) * self.regions.scale(region, energy)
        used = manifold.dimensions(basis * self.columns).clamp_min(1)
        rest = (1 - self.isotropic) * self.columns * (energy / used).sqrt()
        return torch.cat([exploring.expand(count, -1), rest.expand(self.rows - count, -1)])

    def _free_scale(self, energy: Tensor) -> Tensor:
        """Standard deviation of one unit's noise where all units that vary are perturbed."""
        return (energy / self.regions.units.clamp_min(1)).sqrt()


def varying(activity: Tensor) -> Tensor:
    """1 for the units that vary between some activities ``(N, n)`` and 0 for the others, ``(n,)``."""
    return (activity.amax(0) > activity.amin(0)).to(activity)
