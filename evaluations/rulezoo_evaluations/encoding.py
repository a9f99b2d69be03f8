"""Encoding models: how well the responses of neurons are predicted from the units of a network.

Yamins et al. 2014, https://doi.org/10.1073/pnas.1403112111; Schrimpf et al. 2018 (Brain-Score),
https://doi.org/10.1101/407007.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rulezoo import Evaluation, Measurement, hp
from rulezoo_evaluations import brain_data, controls, stimuli
from rulezoo_evaluations.brain_data import BrainDataError, Recording
from rulezoo_evaluations.controls import CONTROLS, GROUPS, NETWORK, Candidate
from rulezoo_evaluations.prediction import METHODS, folds, held_out, reliability, rotated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rulezoo import TrainedNetwork

    Array = NDArray[np.float64]

_LEVEL = 0.95  # of intervals


class Encoded(NamedTuple):
    """What was predicted of one recording.

    Attributes:
        groups: group of each candidate.
        scores: held-out correlation, ``(candidates, folds, neurons)``.
        ceiling: largest correlation of a noiseless prediction, ``(neurons,)``; ``None`` without repeats.
        reliable: neurons whose ceiling is large enough to divide by.
    """

    groups: tuple[str, ...]
    scores: Array
    ceiling: Array | None
    reliable: NDArray[np.bool_]

    def normalised(self, scores: Array) -> Array:
        """Scores ``(..., neurons)`` of the reliable neurons, divided by their ceilings."""
        if self.ceiling is None:
            raise ValueError("a recording without repeats has no ceiling")
        return np.asarray(scores[..., self.reliable] / self.ceiling[self.reliable])

    def chosen(self) -> Array:
        """For each of `GROUPS` the held-out correlation of every neuron, ``(groups, neurons)``.

        In each fold that of the candidate which is best on average in the other folds.
        """
        number = self.scores.shape[1]
        found = []
        for fold in range(number):
            others = np.delete(self.scores, fold, axis=1).mean((1, 2))
            report = self.scores[:, fold].T  # (neurons, candidates)
            found.append(controls.report_chosen(self.groups, np.broadcast_to(others, report.shape), report).T)
        return np.asarray(np.mean(found, 0))


def encode(
    recording: Recording,
    candidates: Iterator[Candidate],
    *,
    method: str,
    components: int,
    number: int,
    least: float,
    seed: int,
) -> tuple[Encoded, list[str]]:
    """Predict a recording from every candidate; also the labels of the candidates."""
    responses = recording.mean_responses
    parts = folds(len(responses), number, seed)
    labels, groups, scores = [], [], []
    for one in candidates:
        labels.append(f"{'r' if one.group == NETWORK else one.group}/{one.site or 'all'}")
        groups.append(one.group)
        scores.append(held_out(rotated(one.features), responses, parts, method=method, components=components))
    repeated = recording.responses
    reliable = None if repeated is None else reliability(repeated, seed)
    if reliable is None:
        return Encoded(tuple(groups), np.stack(scores), None, np.zeros(responses.shape[1], bool)), labels
    return Encoded(tuple(groups), np.stack(scores), np.sqrt(reliable), reliable >= least), labels


def over_subjects(values: Sequence[float], subjects: Sequence[str]) -> float:
    """The mean over subjects of the means over their recordings; NaN for none."""
    by_subject: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        by_subject.setdefault(subject, []).append(value)
    return float(np.mean([np.mean(some) for some in by_subject.values()])) if by_subject else float("nan")


def _average(found: Sequence[Array], subjects: Sequence[str]) -> Array:
    """`over_subjects` of arrays ``(groups, neurons)``, averaged over neurons: ``(groups,)``."""
    means = [one.mean(1) for one in found]
    return np.array(
        [over_subjects([float(one[row]) for one in means], subjects) for row in range(len(means[0]))]
    )


def interval(found: Sequence[Array], subjects: Sequence[str], draws: int, gen: np.random.Generator) -> Array:
    """95 % interval of network minus each control, ``(2, controls)``: bootstrap over the neurons of each recording."""
    samples = []
    for _ in range(draws):
        drawn = [one[:, gen.integers(0, one.shape[1], one.shape[1])] for one in found]
        average = _average(drawn, subjects)
        samples.append(average[0] - average[1:])
    tail = (1 - _LEVEL) / 2
    return np.asarray(np.quantile(samples, (tail, 1 - tail), axis=0))


@dataclass(frozen=True)
class Encoding(Evaluation):
    """Held-out correlation of predicted with recorded responses, above the best control.

    A linear model from the units of a site to every neuron is fitted to some of the stimuli and tested on the
    others, in folds. ``r/SITE`` is the mean over neurons of Pearson's r on held-out stimuli; ``normalised/SITE`` the
    same divided by each neuron's ceiling, the square root of the split-half reliability (Spearman-Brown) of its mean
    response, over the neurons of recordings with repeats that reach ``reliability``. Recordings are averaged within
    a subject, then over subjects.

    The headline ``above_control`` is ``r`` minus the largest of ``pixels``, ``luminance`` and ``untrained``, in
    units of r. ``r`` is of the site that is best in the other folds, and so is that of the untrained network: the
    best of many sites is best by chance, too. It is not divided by the ceiling, so that it means the same where
    there are no repeats; ``normalised`` is reported alongside. An r alone would not say whether anything was learned: pixels
    and random weights predict many neurons.

    The interval is over the neurons that were recorded, not over animals.
    """

    headline = "above_control"

    data: str = hp("v4-cowley", "name of the folder of brain data below the data folder")
    area: str = hp("v4", "brain area, as in about.toml")
    recordings: str = hp("all", "recordings of the area, separated by commas; all = every one")
    sites: str = hp("post", "sites of the network, separated by commas, or: post, pre, all")
    method: str = hp("ridge", "linear model", choices=METHODS)
    components: int = hp(25, "components of PLS", low=1)
    folds: int = hp(5, "parts of the stimuli, each of which is held out once", low=2, high=100)
    reliability: float = hp(
        0.2, "least split-half reliability of a neuron that is divided by its ceiling", low=0.01, high=1
    )
    draws: int = hp(1000, "bootstrap samples of neurons", low=20, high=100_000)
    units: int = hp(16_384, "units to which larger sites and inputs are projected at random", low=64)
    seed: int = hp(0, "seed of folds, halves, bootstrap samples and projections", low=0)

    def skip(self, network: TrainedNetwork) -> str | None:
        """Why not: the inputs are no images, or the weights not finite."""
        return stimuli.why_no_image(network.net.example.shape[1:]) or controls.why_not_finite(network)

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Held-out correlations, controls and ceilings.

        Raises:
            DataMissing: if the brain data, or the data of the task, are missing.
            BrainDataError: if they do not have the documented form.
        """
        recordings = brain_data.read(root, self.data).recordings(self.area, self.recordings)
        for one in recordings:
            if len(one.mean_responses) < 2 * self.folds:
                raise BrainDataError(
                    f"recording {one.name!r} has {len(one.stimuli)} stimuli, too few for {self.folds} folds of two or more; "
                    "set folds to a smaller number"
                )
        found: list[Encoded] = []
        labels: list[str] = []
        for one in recordings:
            pixels, inputs = stimuli.shown_to(network.made_task, root, one.stimuli)
            some = controls.candidates(
                network, pixels, inputs, sites=self.sites, units=self.units, seed=self.seed
            )
            encoded, labels = encode(
                one,
                some,
                method=self.method,
                components=self.components,
                number=self.folds,
                least=self.reliability,
                seed=self.seed,
            )
            found.append(encoded)
        return self._measurement(recordings, found, labels)

    def _measurement(
        self, recordings: Sequence[Recording], found: Sequence[Encoded], labels: Sequence[str]
    ) -> Measurement:
        subjects = [one.subjects[0] for one in recordings]
        chosen = [one.chosen() for one in found]
        average = controls.Chosen(dict(zip(GROUPS, map(float, _average(chosen, subjects)), strict=True)))
        gen = np.random.default_rng(self.seed)
        low, high = interval(chosen, subjects, self.draws, gen)
        values = _headline(average, low, high)
        for number, label in enumerate(labels):
            values[label] = over_subjects([float(one.scores[number].mean()) for one in found], subjects)
        arrays: dict[str, np.ndarray] = {"labels": np.array(labels)}
        for recording, one, best in zip(recordings, found, chosen, strict=True):
            values |= _of_one(recording.name, best)
            arrays[f"scores/{recording.name}"] = one.scores.mean(1)
            if one.ceiling is not None:
                arrays[f"ceiling/{recording.name}"] = one.ceiling
        normalised, notes = _normalised(recordings, found, chosen, labels, self.reliability)
        notes |= {
            "backprop": controls.BACKPROP,
            "above_control": f"the best control is {average.best_control}",
        }
        return Measurement(values | normalised, arrays, notes, brain_data.digest(recordings))


def _headline(chosen: controls.Chosen, low: Array, high: Array) -> dict[str, float]:
    values = {"r": chosen.values[NETWORK]}
    for number, control in enumerate(CONTROLS):
        values[control] = chosen.values[control]
        values |= {
            f"above_{control}": chosen.above(control),
            f"above_{control}/low": float(low[number]),
            f"above_{control}/high": float(high[number]),
        }
    best = chosen.best_control
    above = {f"above_control{end}": values[f"above_{best}{end}"] for end in ("", "/low", "/high")}
    return above | values


def _of_one(name: str, chosen: Array) -> dict[str, float]:
    """The headline and what it is made of, for one recording."""
    values = dict(zip(GROUPS, map(float, chosen.mean(1)), strict=True))
    one = controls.Chosen(values)
    return {f"{name}/above_control": one.above(one.best_control), f"{name}/r": values[NETWORK]} | {
        f"{name}/{control}": values[control] for control in CONTROLS
    }


def _normalised(
    recordings: Sequence[Recording],
    found: Sequence[Encoded],
    chosen: Sequence[Array],
    labels: Sequence[str],
    least: float,
) -> tuple[dict[str, float], dict[str, str]]:
    """What is divided by ceilings, and the notes on it."""
    known = [number for number, one in enumerate(found) if one.ceiling is not None and one.reliable.any()]
    names = ["normalised", *(f"normalised_{control}" for control in CONTROLS), "ceiling"]
    per_site = [f"normalised/{label.removeprefix('r/')}" for label in labels if label.startswith("r/")]
    if not known:
        reason = f"no recording has repeats and a neuron whose split-half reliability is {least:g} or more"
        return dict.fromkeys([*names, *per_site], float("nan")), dict.fromkeys([*names, *per_site], reason)
    subjects = [recordings[number].subjects[0] for number in known]
    best = _average([found[number].normalised(chosen[number]) for number in known], subjects)
    values: dict[str, float] = dict(zip(names, map(float, best), strict=False))
    values["ceiling"] = over_subjects([_mean_ceiling(found[number]) for number in known], subjects)
    for number, label in enumerate(labels):
        if label.startswith("r/"):
            each = [float(found[one].normalised(found[one].scores[number].mean(0)).mean()) for one in known]
            values[f"normalised/{label.removeprefix('r/')}"] = over_subjects(each, subjects)
    return values, {"ceiling": _ceiling_note(recordings, found, known, least)}


def _mean_ceiling(one: Encoded) -> float:
    return float("nan") if one.ceiling is None else float(one.ceiling[one.reliable].mean())


def _ceiling_note(
    recordings: Sequence[Recording], found: Sequence[Encoded], known: Sequence[int], least: float
) -> str:
    said = [
        f"{recordings[number].name} ({found[number].reliable.sum()} of {len(found[number].reliable)} neurons)"
        for number in known
    ]
    return (
        f"normalised values are over recordings with repeats and neurons with a reliability of {least:g} or more: "
        f"{', '.join(said)}"
    )
