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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def principal_basis(
    activity: Tensor | Sequence[Tensor], rank: int, *, variance: float = 1.0, centred: bool = True
) -> Tensor:
    """Orthonormal basis of the leading principal directions of recent activity.

    A site of more than some ten thousand units is passed through in chunks of units, so that no second copy of its
    activity is made.

    Args:
        activity: ``(N, n)``, one row per example (and visit); or several such, whose rows are taken together.
        rank: d, the number of columns, at most ``n``.
        variance: keep only as many directions as explain this fraction of the variance.
        centred: subtract the mean activity first; else the mean direction counts as variance.

    Returns:
        ``(n, d)``: orthonormal columns of decreasing variance, then columns of zeros.

    Raises:
        ValueError: if ``rank`` is not between 1 and n, or ``variance`` not in (0, 1].
    """
    recent = _Recent([activity] if isinstance(activity, Tensor) else list(activity), centred)
    if not 1 <= rank <= recent.units:
        raise ValueError(f"rank must lie between 1 and the {recent.units} units of the site, got {rank}")
    if not 0 < variance <= 1:
        raise ValueError(f"variance must lie in (0, 1], got {variance}")
    pca = _gram_pca if recent.samples < recent.units else _covariance_pca
    values, directions = pca(recent, rank)
    basis = _orthonormal(directions)
    return _fixed_signs(basis) * _kept(values, _rounding(values, recent), variance)[:rank].to(basis.dtype)


@dataclass(frozen=True)
class _Recent:
    """Recent activities of a site, ``(N, n)`` in several parts, read in chunks of units."""

    parts: Sequence[Tensor]
    centred: bool

    @property
    def samples(self) -> int:
        """N."""
        return sum(map(len, self.parts))

    @property
    def units(self) -> int:
        """N."""
        return self.parts[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the activity."""
        return self.parts[0].dtype

    def raw(self) -> Iterator[Tensor]:
        """Activity as it is, ``(N, units of a chunk)``."""
        width = max(1, _CHUNK // self.samples)
        for first in range(0, self.units, width):
            yield torch.cat([part[:, first : first + width] for part in self.parts])

    def chunks(self) -> Iterator[Tensor]:
        """Activity without its mean, if it is to be centred, ``(N, units of a chunk)``."""
        for chunk in self.raw():
            yield chunk - chunk.mean(0) if self.centred else chunk

    def energy(self) -> Tensor:
        """Sum of squares of the activity as it is, a scalar."""
        return _total(chunk.square().sum() for chunk in self.raw())


def _total(terms: Iterator[Tensor]) -> Tensor:
    """The sum, one term after the other."""
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def _gram_pca(recent: _Recent, rank: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues in decreasing order, and the first directions, ``(n, rank)``; for N < n."""
    gram = _total(rows @ rows.mT for rows in recent.chunks())
    values, vectors = torch.linalg.eigh(gram.double())  # (N,), (N, N), increasing
    values = values.flip(-1).clamp_min(0)
    leading = vectors.flip(-1)[:, :rank].to(recent.dtype)
    directions = torch.cat([rows.mT @ leading for rows in recent.chunks()])  # (n, min(rank, N)), √value long
    missing = rank - directions.shape[1]
    if missing > 0:  # more columns than activities: no direction is left to fill them
        directions = torch.nn.functional.pad(directions, (0, missing))
        values = torch.nn.functional.pad(values, (0, missing))
    lengths = values[:rank].sqrt().to(recent.dtype)
    return values, directions / lengths.clamp_min(torch.finfo(recent.dtype).tiny)


def _covariance_pca(recent: _Recent, rank: int) -> tuple[Tensor, Tensor]:
    """The same from the n × n covariance; for n ≤ N."""
    rows = torch.cat(list(recent.chunks()), 1)
    values, vectors = torch.linalg.eigh((rows.mT @ rows).double())
    return values.flip(-1).clamp_min(0), vectors.flip(-1)[:, :rank].to(rows.dtype)


def _orthonormal(directions: Tensor) -> Tensor:
    """Gram PCA in float32 loses orthogonality where the variance is small; one QR brings it back, column by column."""
    q: Tensor = torch.linalg.qr(directions).Q
    return q


def _fixed_signs(basis: Tensor) -> Tensor:
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))  # (1, d)
    return basis * torch.where(largest < 0, -1.0, 1.0).to(basis.dtype)


def _rounding(values: Tensor, recent: _Recent) -> Tensor:
    """The eigenvalue below which there is no variance: that of rounding in the product, or in the mean."""
    eps = torch.finfo(recent.dtype).eps
    return torch.maximum(values[:1] * recent.samples * eps, recent.energy() * (4 * eps) ** 2)


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


_CHUNK = 2**23  # activities in a chunk: 32 MB in float32
_SILENT = 1e-3  # RMS activity, below which a site counts as silent
