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


def halves(stimuli: int, gen: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two random halves of the stimuli."""
    order = gen.permutation(stimuli)
    return order[: stimuli // 2], order[stimuli // 2 :]


def _draw(members: NDArray[np.intp], gen: np.random.Generator) -> NDArray[np.intp]:
    """A bootstrap sample with at least three different stimuli."""
    while True:
        drawn = gen.choice(members, len(members))
        if len(np.unique(drawn)) >= 3:
            return drawn


@dataclass(frozen=True)
class Split:
    """Similarities in two halves of the stimuli, ``(repetitions, 2, models, subjects)``."""

    groups: tuple[str, ...]
    similarities: Array

    def chosen(self, subjects: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Value of each of `GROUPS` in each repetition: chosen in one half, measured in the other, both ways."""
        first, second = self.similarities[..., subjects].mean(-1).swapaxes(0, 1)
        ways = [
            controls.report_chosen(self.groups, first, second),
            controls.report_chosen(self.groups, second, first),
        ]
        return np.asarray(np.mean(ways, 0))


def split(
    matrices: Matrices, groups: Sequence[str], repetitions: int, gen: np.random.Generator, *, resample: bool
) -> Split:
    """Similarities in random halves of the stimuli.

    Args:
        matrices: of models and subjects.
        groups: of each model.
        repetitions: number of random splits.
        gen: random numbers.
        resample: whether each half is a bootstrap sample of its stimuli.
    """
    number = matrices.measured.shape[-1]
    found = []
    for _ in range(repetitions):
        parts = halves(number, gen)
        found.append([matrices.among(_draw(part, gen) if resample else part) for part in parts])
    return Split(tuple(groups), np.array(found))


def half_widths(both: Array, subjects: Array, patterns: Array, *, subjects_n: int, stimuli_n: int) -> Array:
    """Half the width of the 95 % interval of each quantity, from bootstrap samples ``(samples, quantities)``.

    The two-factor bootstrap of rsatoolbox: resampling stimuli and subjects at once overestimates the variance, which
    is corrected by the variances of resampling one of them; Student's t with the smaller number minus 1 as degrees
    of freedom. With one subject, an interval over stimuli.

    Args:
        both: stimuli and subjects were resampled.
        subjects: only subjects were.
        patterns: only stimuli were.
        subjects_n: number of subjects.
        stimuli_n: number of stimuli.
    """
    from rsatoolbox.util.inference_util import extract_variances
    from scipy.stats import t

    if subjects_n < 2:
        single = np.atleast_2d(np.cov(patterns.T))
        variances = extract_variances(single, nc_included=False, n_pattern=stimuli_n)[0]
        freedom = stimuli_n - 1
    else:
        three = np.stack([np.atleast_2d(np.cov(some.T)) for some in (both, subjects, patterns)])
        variances = extract_variances(three, nc_included=False, n_rdm=subjects_n, n_pattern=stimuli_n)[0]
        freedom = min(subjects_n, stimuli_n) - 1
    return np.asarray(np.sqrt(np.maximum(variances, 0.0)) * t.ppf((1 + _LEVEL) / 2, freedom))


def _averages(found: Array, gen: np.random.Generator) -> Array:
    """Mean over bootstrap samples of subjects: ``(samples, models, subjects)`` → ``(samples, models)``."""
    subjects = found.shape[-1]
    drawn = gen.integers(0, subjects, (len(found), 1, subjects))
    return np.asarray(np.take_along_axis(found, drawn, -1).mean(-1))


class Intervals(NamedTuple):
    """Half-widths of 95 % intervals: of each model's similarity, and of the network minus each control."""

    models: Array
    above: Array


def intervals(
    matrices: Matrices, groups: Sequence[str], plain: Split, draws: int, gen: np.random.Generator
) -> Intervals:
    """Bootstrap over stimuli and subjects, ``draws`` samples each."""
    stimuli_n, subjects_n = matrices.measured.shape[-1], len(matrices.measured)
    everything = np.arange(stimuli_n)
    whole = matrices.among(everything)
    drawn = np.array([matrices.among(_draw(everything, gen)) for _ in range(draws)])
    repeated = np.broadcast_to(whole, drawn.shape)
    models = half_widths(
        _averages(drawn, gen),
        _averages(repeated, gen),
        drawn.mean(-1),
        subjects_n=subjects_n,
        stimuli_n=stimuli_n,
    )
    resampled = split(matrices, groups, draws, gen, resample=True)
    picks = gen.integers(0, subjects_n, (draws, subjects_n))
    both = [
        _above(Split(resampled.groups, resampled.similarities[[number]]).chosen(pick)[0])
        for number, pick in enumerate(picks)
    ]
    subjects = [_above(plain.chosen(pick).mean(0)) for pick in picks]
    above = half_widths(
        np.array(both),
        np.array(subjects),
        _above(resampled.chosen()),
        subjects_n=subjects_n,
        stimuli_n=stimuli_n,
    )
    return Intervals(models, above)


def _above(chosen: Array) -> Array:
    """The network's value minus that of each control, ``(..., controls)``."""
    return np.asarray(chosen[..., [0]] - chosen[..., 1:])
