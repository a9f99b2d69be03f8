"""The neural manifold: the linear subspace in which a site's activity lives, from principal component analysis.

Kang, Richards and Sabatini 2026 (arXiv 2601.02636) restrict perturbations to the manifold on which activity lives;
the subspace that spans it at layer l is called U_l here as there, an orthonormal basis of shape ``(units, rank)``.

Letters: N recent activities, n units, d basis vectors. Never is an n × n matrix formed when n > N: the N × N Gram
matrix has the same non-zero eigenvalues as the covariance, and its eigenvectors give the basis (Gram PCA).

Conventions and deviations:
- A basis always has d columns, so that its shape is known before the data are. A direction without variance is a
  column of zeros: the manifold of the data has fewer dimensions than were asked for, and no perturbation goes there.
- Eigenvectors have arbitrary signs. Here the entry of largest size in each column is positive, so that runs that are
  resumed, or trained together, keep the same basis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo.options import OptionError, hp
from rulezoo.rule import LearningRule

Tensors = dict[str, Tensor]


def principal_basis(activity: Tensor, rank: int, *, variance: float = 1.0, centred: bool = True) -> Tensor:
    """Orthonormal basis of the leading principal directions of recent activity.

    Args:
        activity: ``(N, n)``, one row per example (and visit).
        rank: d, the number of columns, at most ``n``.
        variance: keep only as many directions as explain this fraction of the variance.
        centred: subtract the mean activity first; else the mean direction counts as variance.

    Returns:
        ``(n, d)``: orthonormal columns of decreasing variance, then columns of zeros.

    Raises:
        ValueError: if ``rank`` is not between 1 and n, or ``variance`` not in (0, 1].
    """
    samples, units = activity.shape
    if not 1 <= rank <= units:
        raise ValueError(f"rank must lie between 1 and the {units} units of the site, got {rank}")
    if not 0 < variance <= 1:
        raise ValueError(f"variance must lie in (0, 1], got {variance}")
    rows = activity - activity.mean(0) if centred else activity
    values, directions = _gram_pca(rows, rank) if samples < units else _covariance_pca(rows, rank)
    basis = _orthonormal(directions)
    return _fixed_signs(basis) * _kept(values, _rounding(values, activity), variance)[:rank].to(basis.dtype)


def _gram_pca(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues in decreasing order, and the first directions, ``(n, rank)``; for N < n."""
    values, vectors = torch.linalg.eigh((rows @ rows.mT).double())  # (N,), (N, N), increasing
    values = values.flip(-1).clamp_min(0)
    leading = vectors.flip(-1)[:, :rank].to(rows.dtype)
    directions = rows.mT @ leading  # (n, min(rank, N)), of length sqrt(value)
    missing = rank - directions.shape[1]
    if missing > 0:  # more columns than activities: no direction is left to fill them
        directions = torch.nn.functional.pad(directions, (0, missing))
        values = torch.nn.functional.pad(values, (0, missing))
    lengths = values[:rank].sqrt().to(rows.dtype)
    return values, directions / lengths.clamp_min(torch.finfo(rows.dtype).tiny)


def _covariance_pca(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same from the n × n covariance; for n ≤ N."""
    values, vectors = torch.linalg.eigh((rows.mT @ rows).double())
    return values.flip(-1).clamp_min(0), vectors.flip(-1)[:, :rank].to(rows.dtype)


def _orthonormal(directions: Tensor) -> Tensor:
    """Gram PCA in float32 loses orthogonality where the variance is small; one QR brings it back, column by column."""
    q: Tensor = torch.linalg.qr(directions).Q
    return q


def _fixed_signs(basis: Tensor) -> Tensor:
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))  # (1, d)
    return basis * torch.where(largest < 0, -1.0, 1.0).to(basis.dtype)


def _rounding(values: Tensor, activity: Tensor) -> Tensor:
    """The eigenvalue below which there is no variance: that of rounding in the product, or in the mean."""
    eps = torch.finfo(activity.dtype).eps
    return torch.maximum(values[:1] * len(activity) * eps, activity.square().sum() * (4 * eps) ** 2)


def _kept(values: Tensor, floor: Tensor, variance: float) -> Tensor:
    """True for the directions that are kept, in decreasing order of variance."""
    before = values.cumsum(0) - values  # variance explained by the directions before this one
    return (values > floor) & (before < variance * values.sum())


def dimensions(basis: Tensor) -> Tensor:
    """Number of directions that a basis really spans, a scalar tensor (columns of zeros do not count)."""
    return basis.square().sum()


# --------------------------------------------------------------------------------------------------------------------
# Rules that perturb in the manifold


def noise_energy(activity: Tensor, sigma: float) -> Tensor:
    """E‖ξ‖² = σ² n RMS(x)², the energy of a perturbation, whatever the subspace that it lies in.

    Args:
        activity: x, ``(batch, *shape)`` of n units.
        sigma: σ, the size of the noise as a fraction of the activity's.

    Returns:
        A scalar. A silent site is perturbed as if it had a little activity, so that it can still be heard.
    """
    return sigma**2 * activity[0].numel() * activity.square().mean().clamp_min(_SILENT**2)


def noise_scale(activity: Tensor, sigma: float, basis: Tensor | None = None) -> Tensor:
    """Standard deviation √v of one coordinate of noise of that energy, isotropic in the span of a basis ``(n, d)``.

    Without a basis the noise is isotropic in all n directions.
    """
    perturbed = activity[0].numel() if basis is None else dimensions(basis).clamp_min(1)
    return (noise_energy(activity, sigma) / perturbed).sqrt()


_SILENT = 1e-3  # RMS activity, below which a site counts as silent


@dataclass(frozen=True)
class InManifold(LearningRule):
    """Mixin of rules that follow the manifolds of some activities, by any names.

    The state holds, for every name, ``basis.<name>`` of shape ``(n, d)`` and recent activity, ``recent.<name>.<slot>``
    of shape ``(rows, n)``. A slot holds one step's activity as it is; steps that no refresh will ask for are not kept.
    """

    rank: int | float = hp(32, "dimensions of the manifold, or (below 1) the fraction of variance it explains",
                           low=1e-6, search=(8, 16, 32, 64, 128))  # fmt: skip
    samples: int = hp(512, "recent activities from which the manifold is found", low=2)
    refresh: int = hp(100, "find the manifold anew every so many steps", low=1)
    centred: bool = hp(True, "subtract the mean activity before finding the manifold")

    def __post_init__(self) -> None:
        """Refuse a rank like 2.5, which is neither a number of dimensions nor a fraction."""
        super().__post_init__()
        if isinstance(self.rank, float) and self.rank > 1:
            raise OptionError(f"rank must be a whole number, or a fraction below 1, got {self.rank!r}")

    def first_manifold(self, activity: Tensors) -> Tensors:
        """The buffers to start with, from the activity ``(rows, n)`` of every name."""
        buffers: Tensors = {}
        for name, rows in activity.items():
            thinned = _thinned(rows, self.samples)
            for slot in range(min(self.refresh, -(-self.samples // len(thinned)))):
                buffers[f"recent.{name}.{slot}"] = thinned
            buffers[f"basis.{name}"] = self._basis_of([thinned])
        return buffers

    def followed_manifold(self, buffers: Tensors, t: int, look: Callable[[], Tensors]) -> Tensors:
        """The buffers after step ``t`` took notice of its activity, which ``look()`` returns if it is asked to."""
        buffers = dict(buffers)
        slots: dict[str, int] = {}
        for name in [key.removeprefix("basis.") for key in buffers if key.startswith("basis.")]:
            recent = [value for key, value in buffers.items() if key.startswith(f"recent.{name}.")]
            if t == len(recent) or (t > len(recent) and t % self.refresh == 0):
                buffers[f"basis.{name}"] = self._basis_of(recent)
            slot = self._slot(t, len(recent))
            if slot is not None:
                slots[name] = slot
        activity = look() if slots else {}
        for name, slot in slots.items():
            kept = buffers[f"recent.{name}.{slot}"]
            rows = _thinned(activity[name], self.samples)[: len(kept)]
            buffers[f"recent.{name}.{slot}"] = torch.cat([rows, kept[len(rows) :]])
        return buffers

    def _slot(self, t: int, slots: int) -> int | None:
        """Where step ``t`` is kept: the first steps of all, then the last ones before every refresh."""
        if t < slots:
            return t
        slot = t % self.refresh - (self.refresh - slots)
        return slot if slot >= 0 else None

    def columns(self, units: int) -> tuple[int, float]:
        """Columns of the basis of a manifold in ``units`` dimensions, and the share of variance they must explain."""
        if self.rank < 1:
            return min(units, self.samples), self.rank
        return min(int(self.rank), units), 1.0

    def _basis_of(self, recent: list[Tensor]) -> Tensor:
        rows = torch.cat(recent)
        columns, variance = self.columns(rows.shape[1])
        return principal_basis(rows, columns, variance=variance, centred=self.centred)


def _thinned(rows: Tensor, most: int) -> Tensor:
    """At most ``most`` rows, spread over all by the golden ratio: an even stride would meet one column of an image."""
    if len(rows) <= most:
        return rows
    golden = (5**0.5 - 1) / 2
    spread = torch.arange(most, dtype=torch.float64, device=rows.device) * golden % 1
    return rows[(spread * len(rows)).long()]
