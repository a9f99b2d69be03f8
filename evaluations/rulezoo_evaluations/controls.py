"""What a similarity to the brain is measured against, and how the site of a network is chosen.

A network that resembles a brain area need not have learned anything: pixels alone, the brightness of an image, or
the architecture with random weights may resemble it as much. So every such number is shown with the same number for

- **pixels**: the inputs of the network, at its resolution;
- **luminance**: mean and contrast of each image, two numbers;
- **untrained**: the network with the initial weights of the same seed;
- **backprop at equal score**: a stored backprop run of the same task whose test score is nearest, because a rule
  that has learned less is expected to differ from a brain more (or less) for that reason alone. It needs other runs,
  so it is no part of the measurement of one network; `at_equal_score` finds it in a table of measurements.

The best of many sites exceeds the best of one control by chance. So the site is chosen on one part of the data and
measured on another (`Chosen`), for the untrained network in the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rulezoo import OptionError
from rulezoo_evaluations.stimuli import luminance

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from rulezoo import TrainedNetwork

    Array = NDArray[np.float64]

NETWORK = "network"
CONTROLS = ("pixels", "luminance", "untrained")
GROUPS = (NETWORK, *CONTROLS)
BACKPROP = (
    "the control 'backprop at equal score' is missing: it needs other runs; evaluate stored backprop runs of the task as "
    "well, and compare with the one whose test score is nearest (docs/brain-data.md)"
)
_BATCH = 128  # stimuli whose activities are in memory at once


@dataclass(frozen=True)
class Candidate:
    """Features of the stimuli, from which a similarity is computed.

    Attributes:
        group: one of `GROUPS`.
        site: key of the site; empty for pixels and luminance.
        features: ``(stimuli, units)``, float64.
    """

    group: str
    site: str
    features: Array

    @property
    def label(self) -> str:
        """The group and the site, for notes and tables."""
        return f"{self.group}/{self.site}" if self.site else self.group


def candidates(
    network: TrainedNetwork, shown: Tensor, inputs: Tensor, *, sites: str, units: int, seed: int
) -> Iterator[Candidate]:
    """The sites of the network, those of the untrained network, pixels and luminance; one at a time.

    Args:
        network: the trained network.
        shown: pixels of the stimuli, uint8.
        inputs: the stimuli as inputs of the network.
        sites: see `chosen_sites`.
        units: a site or an input with more units is projected to so many at random (a sparse projection, which
            preserves distances to about ``sqrt(2 / units)``), the same for the trained and the untrained network.
        seed: of the projections.
    """
    keys = chosen_sites(network, sites)
    for group, one in ((NETWORK, network), ("untrained", network.untrained())):
        for key, features in activities(one, inputs, keys, units=units, seed=seed).items():
            yield Candidate(group, key, features)
    yield Candidate("pixels", "", _projected(_flat(inputs), units, seed).astype(np.float64))
    yield Candidate("luminance", "", standardised(luminance(shown).numpy()))


def chosen_sites(network: TrainedNetwork, sites: str) -> list[str]:
    """Keys of the sites that were asked for.

    Args:
        network: whose sites.
        sites: keys separated by commas; ``"all"``, or ``"post"`` or ``"pre"`` for every site of that kind, in the order
            of the forward pass.

    Raises:
        OptionError: if the network has no such site.
    """
    known = list(network.net.visits)
    if sites in ("all", "post", "pre"):
        return (
            known
            if sites == "all"
            else [key for key, visit in network.net.visits.items() if visit.kind == sites]
        )
    chosen = [name.strip() for name in sites.split(",")]
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise OptionError(f"the network has no site {name!r}; {hint}it has {', '.join(known)}")
    return chosen


def activities(
    network: TrainedNetwork, inputs: Tensor, keys: Sequence[str], *, units: int, seed: int
) -> dict[str, Array]:
    """The activity at each of these sites, ``(stimuli, units)``, float64; sites with more units are projected."""
    found: dict[str, list[NDArray[Any]]] = {key: [] for key in keys}
    for part in inputs.tensor_split(max(1, -(-len(inputs) // _BATCH))):
        active = network.activities(part)
        for key in keys:
            found[key].append(_projected(_flat(active[key]), units, seed))
    return {key: np.concatenate(some).astype(np.float64) for key, some in found.items()}


def _flat(activity: Tensor) -> NDArray[Any]:
    return activity.detach().float().cpu().flatten(1).numpy()


def _projected(features: NDArray[Any], units: int, seed: int) -> NDArray[Any]:
    if features.shape[1] <= units:
        return features
    from sklearn.random_projection import SparseRandomProjection

    return np.asarray(SparseRandomProjection(units, random_state=seed).fit_transform(features))


def standardised(features: Array) -> Array:
    """Each column with mean 0 and SD 1 over the stimuli; a constant one is 0."""
    centred = features - features.mean(0)
    sd = centred.std(0)
    return np.asarray(centred / np.where(sd > 0, sd, 1.0))


def why_not_finite(network: TrainedNetwork) -> str | None:
    """A sentence, if a weight of the network is NaN or infinite."""
    for name, value in network.params.items():
        if not bool(torch.isfinite(value).all()):
            return f"the weights {name!r} are not finite: the run diverged"
    return None


@dataclass(frozen=True)
class Chosen:
    """A value for each of `GROUPS`, whose candidate was chosen on other data.

    Attributes:
        values: group → value.
    """

    values: Mapping[str, float]

    @property
    def best_control(self) -> str:
        """The control with the largest value."""
        return max(CONTROLS, key=lambda control: self.values[control])

    def above(self, control: str) -> float:
        """The value of the network minus that of a control."""
        return self.values[NETWORK] - self.values[control]


def report_chosen(groups: Sequence[str], choice: Array, report: Array) -> Array:
    """For each of `GROUPS`, what ``report`` says of the candidate that ``choice`` ranks first.

    Args:
        groups: the group of each candidate.
        choice: a number for each candidate, from one part of the data: ``(..., candidates)``.
        report: a number for each candidate, from another part: ``(..., candidates)``.

    Returns:
        ``(..., groups)``, in the order of `GROUPS`.
    """
    columns = []
    for group in GROUPS:
        members = [number for number, one in enumerate(groups) if one == group]
        best = choice[..., members].argmax(-1, keepdims=True)
        columns.append(np.take_along_axis(report[..., members], best, -1)[..., 0])
    return np.stack(columns, -1)


def at_equal_score(
    frame: pd.DataFrame, value: str, *, score: str, reference: str = "backprop"
) -> pd.DataFrame:
    """Each row with the row of the reference rule, on the same task, whose score is nearest.

    Args:
        frame: a row for each run, with columns ``rule``, ``task``, ``seed``.
        value: the column to compare, e.g. ``"above_control"``.
        score: the column with the test score.
        reference: the rule to compare with.

    Returns:
        The rows of other rules with columns ``reference_seed``, ``reference_score``, ``reference_value`` and
        ``difference`` (value minus that of the reference); they are missing where the task has no run of the
        reference.
    """
    import pandas as pd

    references = frame[frame["rule"] == reference].dropna(subset=[score, value])
    rows = []
    for _, row in frame[frame["rule"] != reference].iterrows():
        same = references[references["task"] == row["task"]]
        if len(same):
            nearest = same.loc[(same[score] - row[score]).abs().idxmin()]
            row = pd.concat([row, pd.Series(_against(row, nearest, value, score))])
        rows.append(row)
    added = ["reference_seed", "reference_score", "reference_value", "difference"]
    columns = list(dict.fromkeys([*frame.columns, *added]))
    return pd.DataFrame(rows, columns=columns).reset_index(drop=True)


def _against(row: pd.Series[Any], nearest: pd.Series[Any], value: str, score: str) -> dict[str, Any]:
    return {
        "reference_seed": nearest["seed"],
        "reference_score": nearest[score],
        "reference_value": nearest[value],
        "difference": row[value] - nearest[value],
    }
