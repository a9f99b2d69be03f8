"""Dissimilarities of stimuli, their comparison and noise ceilings, as rsatoolbox computes them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

COMPARATORS = ("rho-a", "spearman", "tau-a", "corr", "cosine", "corr_cov", "cosine_cov")
DISSIMILARITIES = ("correlation", "euclidean")


def dissimilarities(features: Array, kind: str) -> Array:
    """Dissimilarity of each pair of stimuli, ``(pairs,)``: the upper triangle, row by row.

    Args:
        features: ``(stimuli, units)``.
        kind: ``"correlation"``, 1 - Pearson's r over units; or ``"euclidean"``, the squared distance divided by the
            number of units.

    A stimulus to which all units respond alike has no correlation with another: 1 - r is 1, and 0 between two of
    that kind.
    """
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    flat = np.ptp(features, axis=1) == 0
    if kind == "correlation" and flat.any():
        found = np.ones((len(features), len(features)))
        found[np.ix_(flat, flat)] = 0.0
        if not flat.all() and (~flat).sum() > 1:
            found[np.ix_(~flat, ~flat)] = square(dissimilarities(features[~flat], kind))
        return found[upper(len(found))]
    found = calc_rdm(Dataset(np.array(features, dtype=np.float64)), method=kind)
    return np.asarray(found.get_vectors()[0])


def similarities(models: Array, measured: Array, comparator: str) -> Array:
    """Similarity of every model to every subject, ``(models, subjects)``.

    Args:
        models: dissimilarities, ``(models, pairs)``.
        measured: dissimilarities, ``(subjects, pairs)``; pairs that are NaN in all of them are left out.
        comparator: one of `COMPARATORS`, as rsatoolbox names them.
    """
    from rsatoolbox.rdm import compare

    return np.asarray(compare(models, measured, comparator))


def noise_ceiling(measured: Array, comparator: str) -> tuple[float, float]:
    """Lower and upper bound of the similarity that the best model could have, ``(lower, upper)``.

    Mean similarity of a subject to the others pooled, and to all subjects pooled (Nili et al. 2014,
    https://doi.org/10.1371/journal.pcbi.1003553). NaN with one subject.
    """
    from rsatoolbox.inference import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs

    if len(measured) < 2:
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Noise ceiling for tau"
        )  # pooled ranks are no exact optimum there
        lower, upper = boot_noise_ceiling(RDMs(measured), method=comparator)
    return float(lower), float(upper)


def upper(stimuli: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pairs of stimuli, in the order of dissimilarities."""
    return np.triu_indices(stimuli, 1)


def square(pairs: Array) -> Array:
    """The symmetric matrix of dissimilarities of pairs, with a diagonal of 0."""
    from scipy.spatial.distance import squareform

    return np.asarray(squareform(pairs, checks=False))
