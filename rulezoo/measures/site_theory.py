"""The closed forms of `rulezoo.measures.theory` for one site: angles from budgets, budgets from angles, the crossover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rulezoo.measures import theory


@dataclass(frozen=True)
class SiteTheory:
    """A site whose units are perturbed all together (vanilla noise correlation), or within a manifold (NMNC).

    Attributes:
        units: n, number of units.
        rank: d, dimensions of the manifold.
        alpha: share of the mean gradient's energy in the manifold, in [0, 1].
        rho: E‖g(x)‖²/‖E g(x)‖², at least 1; 1 = all examples have the same Jacobian.
        ceiling: degrees between the gradient of an example and that through the mean Jacobian; 0 = no ceiling.

    Raises:
        ValueError: if a number is not possible; the message names it.
    """

    units: float
    rank: float
    alpha: float
    rho: float = 1.0
    ceiling: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.units < math.inf:
            raise ValueError(f"the number of units must be 1 or more, got {self.units:g}")
        if not 1 <= self.rank <= self.units:
            raise ValueError(
                f"the rank of the manifold must be from 1 to the number of units, {self.units:g}, got {self.rank:g}"
            )
        if not 0 <= self.alpha <= 1 + 1e-6:
            raise ValueError(
                f"alpha, the share of the gradient in the manifold, must be from 0 to 1, got {self.alpha:g}"
            )
        if not 1 - 1e-6 <= self.rho < math.inf:
            raise ValueError(
                f"rho, the spread of gradients over examples, must be 1 or more, got {self.rho:g}"
            )
        if not 0 <= self.ceiling < 90:
            raise ValueError(f"the ceiling must be an angle from 0 to below 90 degrees, got {self.ceiling:g}")

    def angle(self, k: float, *, manifold: bool) -> float:
        """Predicted angle to the true gradient, in degrees, from ``k`` effective perturbations: (1), (2) and (7)."""
        d, alpha = self._perturbed(manifold=manifold)
        return theory.predicted_angle(d, k, alpha, self.ceiling, self.rho)

    def perturbations(self, angle: float, *, manifold: bool) -> float:
        """Effective perturbations for an angle in degrees; infinite where no number of them reaches it."""
        d, alpha = self._perturbed(manifold=manifold)
        return theory.needed_perturbations(angle, d, alpha, self.ceiling, self.rho)

    def smallest_angle(self, *, manifold: bool) -> float:
        """The angle that is left at an infinite number of perturbations, in degrees."""
        return self.angle(math.inf, manifold=manifold)

    @property
    def crossover(self) -> float:
        """Equation (3): effective perturbations up to which the manifold has the smaller angle.

        0 = at no budget; infinite = at every budget.
        """
        if self.alpha >= 1:
            return math.inf if self.rank < self.units else 0.0
        return max(0.0, theory.crossover_budget(self.alpha, self.rank, self.units, self.rho))

    def _perturbed(self, *, manifold: bool) -> tuple[float, float]:
        return (self.rank, min(self.alpha, 1.0)) if manifold else (self.units, 1.0)


def averaging(rate: float | None) -> float:
    """Equation (8): effective perturbations for each perturbation of an update; ``rate`` ``None`` = no running average.

    Raises:
        ValueError: if the rate is not possible.
    """
    if rate is None:
        return 1.0
    if not 0 < rate <= 1:
        raise ValueError(f"the rate of the running average must be above 0 and at most 1, got {rate:g}")
    return theory.effective_perturbations(1.0, rate)


def best_for_budget(sites: Sequence[SiteTheory], k: float) -> SiteTheory | None:
    """Equation (9): of the same site with several ranks, the one with the smallest angle; ``None`` = all units have."""
    best = min(sites, key=lambda one: one.angle(k, manifold=True))
    return best if best.angle(k, manifold=True) < best.angle(k, manifold=False) else None
