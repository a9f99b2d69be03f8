"""Representational similarity analysis: how a network's dissimilarities of stimuli agree with those of a brain area.

Kriegeskorte, Mur & Bandettini 2008, https://doi.org/10.3389/neuro.06.004.2008; inference as in Schütt et al. 2023,
https://doi.org/10.7554/eLife.82566. Dissimilarities, comparators and noise ceilings are those of rsatoolbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rulezoo import Evaluation, Measurement, hp
from rulezoo_evaluations import brain_data, controls, stimuli
from rulezoo_evaluations.brain_data import BrainDataError, Recording
from rulezoo_evaluations.controls import CONTROLS, GROUPS, NETWORK, Candidate
from rulezoo_evaluations.dissimilarity import (
    COMPARATORS,
    DISSIMILARITIES,
    dissimilarities,
    noise_ceiling,
    similarities,
)
from rulezoo_evaluations.resampling import Matrices, intervals, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rulezoo import TrainedNetwork

    Array = NDArray[np.float64]

_FEWEST = 8  # stimuli: halves of fewer have too few pairs


def measured_dissimilarities(recordings: Sequence[Recording], kind: str) -> tuple[tuple[Path, ...], Array]:
    """The stimuli and the dissimilarities of all subjects, ``(subjects, pairs)``; of responses those of their means.

    Raises:
        BrainDataError: if the recordings have different stimuli.
    """
    first = recordings[0]
    for other in recordings[1:]:
        if other.stimuli != first.stimuli:
            raise BrainDataError(
                f"recordings {first.name!r} and {other.name!r} of {first.area} have different stimuli, so their "
                f"dissimilarities cannot be combined; choose recordings with the same ones, e.g. recordings={first.name}"
            )
    parts = [
        dissimilarities(one.mean_responses, kind)[None] if one.rdms is None else one.rdms
        for one in recordings
    ]
    if len(first.stimuli) < _FEWEST:
        raise BrainDataError(
            f"{first.area} was measured with {len(first.stimuli)} stimuli; rsa needs {_FEWEST} or more"
        )
    return first.stimuli, np.concatenate(parts)


@dataclass(frozen=True)
class RSA(Evaluation):
    """Similarity of the network's dissimilarities to those of a brain area, above the best control.

    The stimuli of the measurement are shown to the network, and the dissimilarities of every pair of them at each
    site are compared with each subject's. ``similarity/SITE`` is the mean over subjects for every site, with a 95 %
    interval; so are ``untrained/SITE``, ``pixels/all`` and ``luminance/all``. They should not be compared by their
    maximum: the best of many sites is best by chance, too.

    The headline ``above_control`` is therefore measured on halves of the stimuli: the site is chosen on one half and
    its similarity measured on the other, both ways, over random splits (``similarity``). The untrained network's
    site is chosen likewise (``untrained``); pixels and luminance are measured on the same halves. The headline is
    ``similarity`` minus the largest of the three controls. It is 0 for a network that is no more like the brain than
    the best of them. A similarity alone would not say so; a ratio to the noise ceiling would hide that controls
    reach much of it.

    The dissimilarity of luminance is always the squared Euclidean distance: a correlation over two numbers is 1 or
    -1.
    """

    headline = "above_control"

    data: str = hp("kriegeskorte92", "name of the folder of brain data below the data folder")
    area: str = hp("human-it", "brain area, as in about.toml")
    recordings: str = hp("all", "recordings of the area, separated by commas; all = every one")
    sites: str = hp("post", "sites of the network, separated by commas, or: post, pre, all")
    comparator: str = hp(
        "rho-a", "measure of similarity between dissimilarities, by rsatoolbox", choices=COMPARATORS
    )
    dissimilarity: str = hp("correlation", "dissimilarity of two stimuli at a site", choices=DISSIMILARITIES)
    draws: int = hp(1000, "bootstrap samples of stimuli and subjects", low=20, high=100_000)
    splits: int = hp(
        100, "random splits of the stimuli on which the site is chosen and measured", low=1, high=10_000
    )
    units: int = hp(16_384, "units to which larger sites and inputs are projected at random", low=64)
    seed: int = hp(0, "seed of bootstrap samples, splits and projections", low=0)

    def skip(self, network: TrainedNetwork) -> str | None:
        """Why not: the inputs are no images, or the weights not finite."""
        return stimuli.why_no_image(network.net.example.shape[1:]) or controls.why_not_finite(network)

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Similarities, controls, intervals and noise ceilings.

        Raises:
            DataMissing: if the brain data, or the data of the task, are missing.
            BrainDataError: if they do not have the documented form.
        """
        brain = brain_data.read(root, self.data)
        recordings = brain.recordings(self.area, self.recordings)
        shown, measured = measured_dissimilarities(recordings, self.dissimilarity)
        pixels, inputs = stimuli.shown_to(network.made_task, root, shown)
        found = list(
            self._dissimilarities(
                controls.candidates(
                    network, pixels, inputs, sites=self.sites, units=self.units, seed=self.seed
                )
            )
        )
        return self._measurement(found, measured, brain_data.digest(recordings))

    def _dissimilarities(self, candidates: Iterator[Candidate]) -> Iterator[tuple[str, str, Array, int]]:
        """Group, site, dissimilarities and number of stimuli without a pattern, of each candidate."""
        for one in candidates:
            kind = "euclidean" if one.group == "luminance" else self.dissimilarity
            flat = int((np.ptp(one.features, axis=1) == 0).sum()) if kind == "correlation" else 0
            yield one.group, one.site, dissimilarities(one.features, kind), flat

    def _measurement(
        self, found: Sequence[tuple[str, str, Array, int]], measured: Array, digest: str
    ) -> Measurement:
        groups = [group for group, *_ in found]
        labels = [f"{_PREFIX.get(group, group)}/{site or 'all'}" for group, site, *_ in found]
        models = np.stack([pairs for *_, pairs, _ in found])
        gen = np.random.default_rng(self.seed)
        matrices = Matrices.of(models, measured, self.comparator)
        plain = split(matrices, groups, self.splits, gen)
        chosen = controls.Chosen(dict(zip(GROUPS, map(float, plain.chosen().mean(0)), strict=True)))
        width = intervals(matrices, groups, plain, self.draws, gen)
        whole = similarities(models, measured, self.comparator)
        lower, upper = noise_ceiling(measured, self.comparator)
        values = {
            **_headline(chosen, width.above),
            "ceiling/lower": lower,
            "ceiling/upper": upper,
        }
        for label, value, half in zip(labels, whole.mean(1), width.models, strict=True):
            values |= {
                label: float(value),
                f"{label}/low": float(value - half),
                f"{label}/high": float(value + half),
            }
        arrays = {
            "labels": np.array(labels),
            "similarities": whole,
            "dissimilarities": models,
            "measured": measured,
        }
        return Measurement(values, arrays, _notes(found, labels, len(measured), chosen), digest)


_PREFIX = {NETWORK: "similarity"}


def _headline(chosen: controls.Chosen, widths: Array) -> dict[str, float]:
    best = chosen.best_control
    above, half = chosen.above(best), float(widths[CONTROLS.index(best)])
    values = {"above_control": above, "above_control/low": above - half, "above_control/high": above + half}
    values["similarity"] = chosen.values[NETWORK]
    for control, width in zip(CONTROLS, map(float, widths), strict=True):
        values[control] = chosen.values[control]
        above = chosen.above(control)
        values |= {
            f"above_{control}": above,
            f"above_{control}/low": above - width,
            f"above_{control}/high": above + width,
        }
    return values


def _notes(
    found: Sequence[tuple[str, str, Array, int]],
    labels: Sequence[str],
    subjects: int,
    chosen: controls.Chosen,
) -> dict[str, str]:
    notes = {"backprop": controls.BACKPROP, "above_control": f"the best control is {chosen.best_control}"}
    if subjects < 2:
        reason = "one subject: a noise ceiling needs two or more, and intervals are over stimuli only"
        notes |= {"ceiling/lower": reason, "ceiling/upper": reason}
    for label, (*_, flat) in zip(labels, found, strict=True):
        if flat:
            notes[label] = (
                f"{flat} stimuli to which all units respond alike: their correlation distance is taken as 1"
            )
    return notes
