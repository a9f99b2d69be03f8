"""Choosing a site fairly, and intervals: random halves of the stimuli, and the bootstrap over stimuli and subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rulezoo_evaluations import controls
from rulezoo_evaluations.dissimilarity import similarities, square, upper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LEVEL = 0.95  # of intervals
_SPLITS = 4  # of each bootstrap sample
_LEAST = 3  # different stimuli in each half: three pairs


class Matrices(NamedTuple):
    """Square dissimilarities of models and subjects, ``(…, stimuli, stimuli)``, with NaN on the diagonal.

    So the pair of a stimulus with itself, where resampling has drawn it twice, is left out of a comparison.
    """

    models: Array
    measured: Array
    comparator: str

    @classmethod
    def of(cls, models: Array, measured: Array, comparator: str) -> Matrices:
        """From dissimilarities of pairs."""
        both = [np.stack([square(one) for one in some]) for some in (models, measured)]
        for some in both:
            some[:, range(some.shape[1]), range(some.shape[1])] = np.nan
        return cls(both[0], both[1], comparator)

    def among(self, chosen: NDArray[np.intp]) -> Array:
        """Similarities over these stimuli, which may be drawn more than once: ``(models, subjects)``."""
        chosen = np.sort(chosen)
        rows, columns = upper(len(chosen))
        pick = (..., chosen[rows], chosen[columns])
        return similarities(self.models[pick], self.measured[pick], self.comparator)


def halves(drawn: NDArray[np.intp], gen: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two random halves of the stimuli; all copies of one that was drawn more than once are in the same half."""
    order = gen.permutation(np.unique(drawn))
    first = np.isin(drawn, order[: len(order) // 2])
    return drawn[first], drawn[~first]


def resampled(stimuli: int, gen: np.random.Generator) -> NDArray[np.intp]:
    """A bootstrap sample with enough different stimuli for halves with pairs to compare."""
    while True:
        drawn = gen.integers(0, stimuli, stimuli)
        if len(np.unique(drawn)) >= 2 * _LEAST:
            return drawn


@dataclass(frozen=True)
class Split:
    """Similarities in two halves of the stimuli, ``(..., 2, models, subjects)``."""

    groups: tuple[str, ...]
    similarities: Array

    def chosen(self, subjects: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Value of each of `GROUPS`, chosen in one half and measured in the other, both ways: ``(..., groups)``."""
        averages = self.similarities[..., subjects].mean(-1)
        first, second = averages[..., 0, :], averages[..., 1, :]
        ways = [
            controls.report_chosen(self.groups, first, second),
            controls.report_chosen(self.groups, second, first),
        ]
        return np.asarray(np.mean(ways, 0))

    def above(self, subjects: NDArray[np.intp] | slice = slice(None)) -> Array:
        """The network's value minus that of each control, ``(..., controls)``."""
        chosen = self.chosen(subjects)
        return np.asarray(chosen[..., [0]] - chosen[..., 1:])


def split(
    matrices: Matrices,
    groups: Sequence[str],
    repetitions: int,
    gen: np.random.Generator,
    drawn: NDArray[np.intp] | None = None,
) -> Split:
    """Similarities in random halves, ``(repetitions, 2, models, subjects)``.

    Args:
        matrices: of models and subjects.
        groups: of each model.
        repetitions: number of random splits.
        gen: random numbers.
        drawn: the stimuli that are split, which may be drawn more than once; ``None`` = all of them.
    """
    if drawn is None:
        drawn = np.arange(matrices.measured.shape[-1])
    found = [[matrices.among(part) for part in halves(drawn, gen)] for _ in range(repetitions)]
    return Split(tuple(groups), np.array(found))


class Variances(NamedTuple):
    """Variance of each quantity over bootstrap samples, ``(quantities,)``.

    Attributes:
        both: where stimuli and subjects were resampled.
        subjects: where only subjects were.
        patterns: where only stimuli were.
    """

    both: Array
    subjects: Array
    patterns: Array

    def half_widths(self, *, subjects: int, stimuli: int) -> Array:
        """Half the width of the 95 % interval of each quantity, ``(quantities,)``.

        The two-factor bootstrap of rsatoolbox: resampling stimuli and subjects at once overestimates the variance,
        which is corrected by the variances of resampling one of them; Student's t with the smaller number minus 1 as
        degrees of freedom. With one subject, an interval over stimuli.

        Args:
            subjects: number of subjects.
            stimuli: number of stimuli.
        """
        from rsatoolbox.util.inference_util import extract_variances
        from scipy.stats import t

        if subjects < 2:
            variances = extract_variances(self.patterns, nc_included=False, n_pattern=stimuli)[0]
            freedom = stimuli - 1
        else:
            three = np.stack([np.diag(one) for one in self])
            variances = extract_variances(three, nc_included=False, n_rdm=subjects, n_pattern=stimuli)[0]
            freedom = min(subjects, stimuli) - 1
        return np.asarray(np.sqrt(np.maximum(variances, 0.0)) * t.ppf((1 + _LEVEL) / 2, freedom))


class Intervals(NamedTuple):
    """Half-widths of 95 % intervals: of each model's similarity, and of the network minus each control."""

    models: Array
    above: Array


def intervals(
    matrices: Matrices, groups: Sequence[str], plain: Split, draws: int, gen: np.random.Generator
) -> Intervals:
    """Bootstrap over stimuli and subjects, ``draws`` samples each.

    Args:
        matrices: of models and subjects.
        groups: of each model.
        plain: random splits of all stimuli.
        draws: number of bootstrap samples.
        gen: random numbers.
    """
    stimuli, subjects = matrices.measured.shape[-1], len(matrices.measured)
    drawn = [resampled(stimuli, gen) for _ in range(draws)]
    picks = gen.integers(0, subjects, (draws, subjects))
    whole = matrices.among(np.arange(stimuli))
    models = _variances(whole, np.array([matrices.among(one) for one in drawn]), picks)
    above = _variances_above(plain, [split(matrices, groups, _SPLITS, gen, one) for one in drawn], picks)
    return Intervals(*(one.half_widths(subjects=subjects, stimuli=stimuli) for one in (models, above)))


def _variances(whole: Array, drawn: Array, picks: NDArray[np.intp]) -> Variances:
    """Of each model's mean similarity.

    Args:
        whole: similarities over all stimuli, ``(models, subjects)``.
        drawn: over bootstrap samples of the stimuli, ``(draws, models, subjects)``.
        picks: bootstrap samples of the subjects, ``(draws, subjects)``.
    """
    both = [one[:, pick].mean(-1) for one, pick in zip(drawn, picks, strict=True)]
    subjects = [whole[:, pick].mean(-1) for pick in picks]
    return Variances(*(np.var(some, axis=0, ddof=1) for some in (both, subjects, drawn.mean(-1))))


def _variances_above(plain: Split, drawn: Sequence[Split], picks: NDArray[np.intp]) -> Variances:
    """Of the network's value above each control.

    A single random split adds much variance, and the value itself is an average over many. So the variance within the
    splits of a bootstrap sample is subtracted from that of their mean, as rsatoolbox does for cross-validation.

    Args:
        plain: splits of all stimuli.
        drawn: for each bootstrap sample of the stimuli a few splits.
        picks: bootstrap samples of the subjects, ``(draws, subjects)``.
    """
    both = np.array(
        [one.above(pick) for one, pick in zip(drawn, picks, strict=True)]
    )  # (draws, splits, controls)
    patterns = np.array([one.above() for one in drawn])
    subjects = np.array([plain.above(pick).mean(0) for pick in picks])
    return Variances(_between(both), np.var(subjects, axis=0, ddof=1), _between(patterns))


def _between(found: Array) -> Array:
    """Variance over samples of what averages over all splits, from a few of them, ``(samples, splits, quantities)``."""
    splits = found.shape[1]
    within = np.var(found, axis=1, ddof=1).mean(0)
    return np.asarray(np.maximum(np.var(found.mean(1), axis=0, ddof=1) - within / splits, 0.0))
