"""A map seen in patches: one number for each channel and square of positions, in place of one for each unit.

Feedback from o outputs to every unit of a convolutional map takes o × units numbers, 1 GB for 1,000 classes and a map
of 262,144 units. The patch form perturbs, observes and teaches a map in m coordinates only. With E the orthonormal
``(n, m)`` matrix whose columns are constant on one patch of one channel and zero elsewhere, a perturbation is ξ = E c,
activity is seen as Eᵀ x, and a teaching signal s ∈ ℝᵐ reaches the units as E s. Feedback, basis and recent activity
all have m columns, a quarter of n for patches of 2 × 2.

- ``side=1``: E is the identity, and the form is the full one.
- A side of the map's height and width or more: one feedback for each channel, the channel form.
- Sites without positions (vectors of units) are seen as they are.
- What the signal loses is the part of the Jacobian that differs within a patch; the chain from the site to the weights
  (non-linearity, pooling, the convolution's own input) is exact.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Net, credit

MAP = 3  # axes of a map: channels, height, width


@dataclass(frozen=True)
class Patches:
    """A site's activity in m coordinates.

    Attributes:
        shape: of one example's activity: ``(n,)``, or ``(channels, *positions)``.
        side: of the squares of positions that share a coordinate.
    """

    shape: tuple[int, ...]
    side: int

    @property
    def units(self) -> int:
        """m, the number of coordinates."""
        return math.prod(self._grid) if self._coarse else math.prod(self.shape)

    def reduce(self, activity: Tensor) -> Tensor:
        """Eᵀ x of activities ``(b, *shape)``: ``(b, m)``."""
        if not self._coarse:
            return credit.rows(activity)
        missing = [(0, -size % self.side) for size in self.shape[1:]]
        summed = F.pad(activity, list(itertools.chain(*reversed(missing))))  # F.pad begins with the last axis
        for axis in range(2, summed.ndim):
            summed = torch.unflatten(summed, axis, (-1, self.side)).sum(axis + 1)
        return credit.rows(summed / self._lengths(summed))

    def expand(self, coordinates: Tensor) -> Tensor:
        """E c of coordinates ``(b, m)``: ``(b, *shape)``."""
        if not self._coarse:
            return coordinates.view(-1, *self.shape)
        spread = coordinates.view(-1, *self._grid)
        spread = spread / self._lengths(spread)
        for axis, size in enumerate(self.shape[1:], start=2):
            spread = spread.repeat_interleave(self.side, axis).narrow(axis, 0, size)
        return spread

    @property
    def _coarse(self) -> bool:
        return len(self.shape) >= MAP and self.side > 1

    @property
    def _grid(self) -> tuple[int, ...]:
        return (self.shape[0], *(-(-size // self.side) for size in self.shape[1:]))

    def _lengths(self, like: Tensor) -> Tensor:
        """Square root of the number of positions in each patch, ``(1, 1, *grid)``; those at the edge may be smaller."""
        counts = torch.ones((), dtype=like.dtype, device=like.device)
        for size, patches in zip(self.shape[1:], self._grid[1:], strict=True):
            first = torch.arange(patches, dtype=like.dtype, device=like.device) * self.side
            counts = counts.unsqueeze(-1) * (size - first).clamp_max(self.side)
        return counts.sqrt()[None, None]


def patches_of(net: Net, key: str, side: int) -> Patches:
    """How a visit of a site is seen."""
    return Patches(tuple(net.visits[key].shape), side)
