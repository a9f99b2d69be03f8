"""How many dimensions activity has, and how two subspaces lie to each other.

Linear dimension: participation ratio (Gao et al. 2017, https://doi.org/10.1101/214262) and the number of principal
components that hold 90, 95 and 99 % of the variance. Intrinsic dimension of a curved manifold: twoNN (Facco, d'Errico,
Rodriguez, Laio 2017, https://doi.org/10.1038/s41598-017-11873-y; on networks Ansuini et al. 2019,
https://arxiv.org/abs/1905.12784; its maximum-likelihood form Denti et al. 2022,
https://doi.org/10.1038/s41598-022-20991-1). Principal angles: Björck and Golub 1973, by ``scipy.linalg``.

``x`` is always ``(samples, units)``, one row of activity per example, and is centred here; it is not modified, and
the arithmetic is in float64. All of it depends on the number of samples: compare at equal numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Block",
    "LinearDimension",
    "PrincipalAngles",
    "TwoNN",
    "components_for",
    "linear_dimension",
    "participation_ratio",
    "principal_angles",
    "spectrum",
    "two_nn",
    "two_nn_blocks",
]

Array = NDArray[np.float64]

_TWO_NN_NEEDS = "twoNN needs points with two neighbours at different distances: give it more samples"
_ROUNDING = 1e-9  # relative, so that nine of ten equal components hold 90 % although 0.1 has no exact float


@dataclass(frozen=True)
class LinearDimension:
    """Dimension by variance along principal components.

    Attributes:
        participation_ratio: (Σλ)²/Σλ², from 1 to the number of units.
        d90: components that hold at least 90 % of the variance.
        d95: the same for 95 %.
        d99: the same for 99 %.
        samples: how many there were; no dimension exceeds samples − 1.
    """

    participation_ratio: float
    d90: int
    d95: int
    d99: int
    samples: int


@dataclass(frozen=True)
class TwoNN:
    """Intrinsic dimension by the ratio of distances to the two nearest neighbours.

    Attributes:
        fit: slope through the origin of −log(1−F) on log μ, over the lowest part of the ratios.
        mle: N/Σ log μ over all ratios; standard error about mle/√N, and 1/N too large on average.
        samples: N, points that were used.
        dropped: samples that were not: further copies of a sample, and points with both neighbours at one distance.
    """

    fit: float
    mle: float
    samples: int
    dropped: int


@dataclass(frozen=True)
class Block:
    """twoNN on disjoint subsamples of one size: how the estimate depends on the scale at which it looks.

    Attributes:
        size: samples in each block (some have one more).
        fits: `TwoNN.fit` of each block.
    """

    size: int
    fits: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over blocks."""
        return float(np.mean(self.fits))

    @property
    def sd(self) -> float:
        """Standard deviation over blocks; nan for a single one."""
        return float(np.std(self.fits, ddof=1)) if len(self.fits) > 1 else math.nan


@dataclass(frozen=True)
class PrincipalAngles:
    """How two subspaces of the same space lie to each other.

    Attributes:
        degrees: as many angles as the smaller subspace has dimensions, from 0 to 90, smallest first.
        chance: what `overlap` is on average if either subspace is random: the larger dimension over that of the space.
    """

    degrees: tuple[float, ...]
    chance: float

    @property
    def overlap(self) -> float:
        """Mean squared cosine: the share of the smaller subspace that lies in the larger, 1 if it is contained."""
        return float(np.mean(np.cos(np.radians(self.degrees)) ** 2))


def spectrum(x: NDArray[Any]) -> Array:
    """Eigenvalues of the covariance of ``x``, ``(min(samples, units),)``, largest first, divisor samples − 1.

    Taken from the smaller of the two Gram matrices: 4,096 samples of a map of 16,384 units are no problem.

    Raises:
        ValueError: if ``x`` is not a finite matrix of two samples or more, or all samples are the same.
    """
    centred = _centred(x, samples=2)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    eigenvalues: Array = np.linalg.eigvalsh(gram)[::-1] / (len(centred) - 1)
    return eigenvalues.clip(min=0)  # rounding leaves zeros a little below zero


def participation_ratio(eigenvalues: NDArray[Any]) -> float:
    """(Σλ)²/Σλ² of a covariance's eigenvalues: d for d equal ones.

    N samples of d equal directions give about d/(1 + (d+1)/N), so it saturates at N.

    Raises:
        ValueError: if an eigenvalue is negative or not finite, or none is positive.
    """
    values = _variances(eigenvalues)
    return float(values.sum() ** 2 / (values**2).sum())


def components_for(eigenvalues: NDArray[Any], fraction: float) -> int:
    """The fewest principal components that hold at least ``fraction``, in (0, 1], of the variance.

    Raises:
        ValueError: if the fraction is out of range, an eigenvalue is negative or not finite, or none is positive.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction of the variance must be in (0, 1], got {fraction}")
    held = np.cumsum(np.sort(_variances(eigenvalues))[::-1])
    return int(np.searchsorted(held / held[-1], fraction - _ROUNDING)) + 1


def linear_dimension(x: NDArray[Any]) -> LinearDimension:
    """Participation ratio, d90, d95 and d99 of ``x``, ``(samples, units)``.

    Raises:
        ValueError: if ``x`` is not a finite matrix of two samples or more, or all samples are the same.
    """
    eigenvalues = spectrum(x)
    d90, d95, d99 = (components_for(eigenvalues, fraction) for fraction in (0.90, 0.95, 0.99))
    return LinearDimension(participation_ratio(eigenvalues), d90, d95, d99, samples=len(x))


def two_nn(x: NDArray[Any], fraction: float = 0.9) -> TwoNN:
    """Intrinsic dimension of ``x``, ``(samples, units)``, by twoNN.

    The ratio μ of the distances to the second and to the first neighbour follows F(μ) = 1 − μ⁻ᵈ where density is
    constant over the two neighbours, whatever the density is.

    Args:
        x: activity.
        fraction: share of the ratios, the lowest, that the fit uses, in (0, 1); the largest are the least reliable.

    Raises:
        ValueError: if ``x`` is not a finite matrix of three samples or more, fewer than three samples differ, fewer
            than two points can be used, or the fraction is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction of the ratios must be in (0, 1), got {fraction}")
    first, second = _two_nearest(_centred(x, samples=3))
    usable = (first > 0) & (second > first)
    log_mu = np.log(np.sort(second[usable] / first[usable]))
    n = len(log_mu)
    kept = int(fraction * n)
    if kept < 1:
        raise ValueError(
            f"x has {n} usable points among {len(first)} different ones: the others have both neighbours at one "
            f"distance, as on a grid; {_TWO_NN_NEEDS}"
        )
    lowest, survival = log_mu[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    fit = float(lowest @ survival / (lowest @ lowest))
    return TwoNN(fit, mle=float(n / log_mu.sum()), samples=n, dropped=len(x) - n)


def two_nn_blocks(
    x: NDArray[Any], rng: np.random.Generator, smallest: int = 64, fraction: float = 0.9
) -> tuple[Block, ...]:
    """Block analysis: twoNN on all samples, then on random halves, quarters and so on, each within the one before.

    An estimate that holds over sizes is one to trust; one that rises with the size is seeing noise, at small
    distances, around a manifold of fewer dimensions.

    Args:
        x: activity, ``(samples, units)``.
        rng: shuffles the samples.
        smallest: no block has fewer samples than this, at least 3.
        fraction: as for `two_nn`.

    Returns:
        One `Block` per size, all samples first.

    Raises:
        ValueError: as `two_nn` does, or if there are fewer samples than ``smallest``.
    """
    if not 3 <= smallest <= len(x):
        raise ValueError(f"smallest must be from 3 to the {len(x)} samples of x, got {smallest}")
    parts = [rng.permutation(len(x))]
    blocks = []
    while min(map(len, parts)) >= smallest:
        fits = tuple(two_nn(x[part], fraction).fit for part in parts)
        blocks.append(Block(min(map(len, parts)), fits))
        parts = [half for part in parts for half in np.array_split(part, 2)]
    return tuple(blocks)


def principal_angles(a: NDArray[Any], b: NDArray[Any]) -> PrincipalAngles:
    """Principal angles between the spans of the columns of ``a``, ``(n, p)``, and of ``b``, ``(n, q)``.

    Raises:
        ValueError: if one is not a finite matrix with independent columns, or they differ in rows.
    """
    from scipy.linalg import subspace_angles

    a, b = _basis("a", a), _basis("b", b)
    if len(a) != len(b):
        raise ValueError(f"a and b must have equally many rows, got {a.shape} and {b.shape}")
    degrees = np.degrees(subspace_angles(a, b))[::-1]
    return PrincipalAngles(tuple(map(float, degrees)), chance=max(a.shape[1], b.shape[1]) / len(a))


def _centred(x: NDArray[Any], samples: int) -> Array:
    values = _finite_matrix("x", x, "(samples, units)")
    if len(values) < samples:
        raise ValueError(f"x must have at least {samples} samples (rows), got shape {values.shape}")
    if (values == values[0]).all():
        raise ValueError(f"x has no variance: its {len(values)} samples are all the same; is the site dead?")
    centred: Array = values - values.mean(axis=0)
    return centred


def _finite_matrix(name: str, x: NDArray[Any], shape: str) -> Array:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} must be a matrix {shape}, got shape {values.shape}; flatten what is more")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(values))} inf or nan")
    return values


def _variances(eigenvalues: NDArray[Any]) -> Array:
    values = np.asarray(eigenvalues, dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ValueError(f"eigenvalues must be finite and not negative, with one above zero, got {values}")
    return values


def _basis(name: str, columns: NDArray[Any]) -> Array:
    values = _finite_matrix(name, columns, "(n, dimensions)")
    rank = np.linalg.matrix_rank(values)
    if rank < values.shape[1]:
        raise ValueError(
            f"{name} must have independent columns, got rank {rank} of {values.shape[1]} columns"
        )
    return values


def _two_nearest(x: Array) -> tuple[Array, Array]:
    """Distances from each row to the nearest other row and to the next; equal rows count as one."""
    first, second = _neighbour_distances(x)
    if first.all():
        return first, second
    different = np.unique(x, axis=0)  # slow on wide data, so only where it is needed
    if len(different) < 3:
        raise ValueError(f"x has {len(different)} different samples of {len(x)}; {_TWO_NN_NEEDS}")
    return _neighbour_distances(different)


def _neighbour_distances(x: Array) -> tuple[Array, Array]:
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(return_distance=False)
    # scikit-learn's distances are differences of squared norms in high dimension, which leaves duplicates apart.
    one, other = (np.linalg.norm(x - x[neighbours[:, j]], axis=1) for j in (0, 1))
    return np.minimum(one, other), np.maximum(one, other)
