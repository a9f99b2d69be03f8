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

import torch
from torch import Tensor


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
