"""Linear models from features of the stimuli to responses, and the ceiling that noise sets to their predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]

METHODS = ("ridge", "pls")
_ALPHAS = np.logspace(-4, 4, 17)  # of features whose mean squared norm is 1
_HALVINGS = 100  # random halves of the repeats
_FEWEST = 10  # stimuli with two repeats, without which a ceiling is not known


def rotated(features: Array) -> Array:
    """The features in coordinates of their span, at most as many as stimuli, and scaled to a common size.

    Inner products, and so the predictions of ridge regression and PLS, are those of the features themselves, centred
    over all stimuli and divided by one number: ridge penalties mean the same for every site.
    """
    centred = features - features.mean(0)
    if centred.shape[1] > len(centred):
        value, vector = np.linalg.eigh(centred @ centred.T)
        keep = value > value[-1] * 1e-12
        centred = vector[:, keep] * np.sqrt(value[keep])
    size = np.sqrt(np.square(centred).sum() / len(centred))
    return np.asarray(centred / size) if size > 0 else centred[:, :1]


def folds(stimuli_n: int, number: int, seed: int) -> list[tuple[Index, Index]]:
    """Training and test stimuli of each fold; every stimulus is tested once."""
    from sklearn.model_selection import KFold

    return list(KFold(number, shuffle=True, random_state=seed).split(np.arange(stimuli_n)))


def predictions(
    features: Array, responses: Array, train: Index, test: Index, *, method: str, components: int
) -> Array:
    """Predicted responses to the test stimuli, ``(stimuli, neurons)``, from a model fitted to the training stimuli.

    Args:
        features: ``(stimuli, units)``, as from `rotated`.
        responses: ``(stimuli, neurons)``.
        train: indices of stimuli.
        test: indices of stimuli.
        method: ``"ridge"``, whose penalty is chosen for each neuron by leave-one-out within the training stimuli; or
            ``"pls"``.
        components: of PLS, at most.
    """
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.linear_model import RidgeCV

    if method == "ridge":
        model = RidgeCV(_ALPHAS, alpha_per_target=True)
    else:
        most = min(components, features.shape[1], len(train) - 1)
        model = PLSRegression(most, scale=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y residual is constant")  # fewer components suffice
        model.fit(features[train], responses[train])
    return np.asarray(model.predict(features[test])).reshape(len(test), -1)


def correlations(one: Array, other: Array) -> Array:
    """Pearson's r of each column, ``(columns,)``; 0 where one of the two is constant."""
    one, other = one - one.mean(0), other - other.mean(0)
    size = np.sqrt(np.square(one).sum(0) * np.square(other).sum(0))
    tiny = size <= np.finfo(float).eps
    return np.asarray(np.where(tiny, 0.0, (one * other).sum(0) / np.where(tiny, 1.0, size)))


def held_out(
    features: Array, responses: Array, parts: Sequence[tuple[Index, Index]], *, method: str, components: int
) -> Array:
    """Correlation of predicted and measured responses in each fold, ``(folds, neurons)``.

    Within a fold: predictions pooled over folds would be correlated with the responses through the means of the
    training sets, which are low where those of the test sets are high.
    """
    return np.stack(
        [
            correlations(
                predictions(features, responses, train, test, method=method, components=components),
                responses[test],
            )
            for train, test in parts
        ]
    )


def reliability(responses: Array, seed: int, halvings: int = _HALVINGS) -> Array | None:
    """Reliability of the mean over repeats of each neuron, ``(neurons,)`` in [0, 1]; ``None`` without repeats.

    The mean correlation over stimuli of two random halves of the repeats, extended to all repeats by Spearman and
    Brown's formula. The largest correlation that a noiseless prediction can have with the mean response is its
    square root.

    Args:
        responses: ``(repeats, stimuli, neurons)``, NaN where a stimulus was repeated less often.
        seed: of the halves.
        halvings: number of random halves.
    """
    count = (~np.isnan(responses)).sum(0)
    usable = count >= 2
    if (usable.sum(0) < _FEWEST).any():
        return None
    half = count // 2
    gen = np.random.default_rng(seed)
    found = np.zeros(count.shape[1])
    for _ in range(halvings):
        first, second = _two_halves(responses, half, gen)
        for neuron in range(count.shape[1]):
            rows = usable[:, neuron]
            found[neuron] += correlations(first[rows][:, [neuron]], second[rows][:, [neuron]])[0]
    found /= halvings
    times = np.where(usable, count, 0).sum(0) / np.where(usable, half, 0).sum(0)
    return np.asarray(np.clip(times * found / (1 + (times - 1) * found), 0.0, 1.0))


def _two_halves(responses: Array, half: NDArray[np.int_], gen: np.random.Generator) -> tuple[Array, Array]:
    """Means of two disjoint random sets of ``half`` repeats each; neurons with equal repeats share them."""
    order = gen.random(responses.shape[:2])[..., None] + np.where(np.isnan(responses), 2.0, 0.0)
    rank = order.argsort(0).argsort(0)
    sums = [
        np.where(where, np.nan_to_num(responses), 0.0).sum(0)
        for where in (rank < half, (rank >= half) & (rank < 2 * half))
    ]
    size = np.maximum(half, 1)
    return sums[0] / size, sums[1] / size
