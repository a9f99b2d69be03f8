"""What a published number is: its score, its source, and what a run of ours must have to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulezoo.options import Value

SEEDS = 3  #: runs of ours that decide about a number, unless it says otherwise


@dataclass(frozen=True)
class Source:
    """Where numbers come from.

    Attributes:
        citation: authors, year, title.
        link: to what was read.
        seeds: how many runs are behind each number; 0 = not told.
        setting: how the networks were trained.
    """

    citation: str
    link: str
    seeds: int
    setting: str


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        rule: our name of the rule.
        data: the data set.
        network: the network and optimiser.
        score: test accuracy, as a fraction of 1.
        source: where it stands.
        task: name of our task on the same data.
        same: whether that task has the same network and training, so that a run of ours can reproduce it.
        budget: fields of the budget that such a run must have; e.g. ``{"epochs": 250}``.
        task_options: options of the task that it must have.
        options: options of the rule that it must have; all others, apart from those of the budget, are the author's defaults.
        spread: half the published interval, or the published standard deviation, as a fraction of 1; 0 = not published.
        runs: how many runs of ours decide.
    """

    rule: str
    data: str
    network: str
    score: float
    source: Source
    task: str = ""
    same: bool = False
    budget: Mapping[str, Value] = field(default_factory=dict, hash=False)
    task_options: Mapping[str, Value] = field(default_factory=dict, hash=False)
    options: Mapping[str, Value] = field(default_factory=dict, hash=False)
    spread: float = 0.0
    runs: int = SEEDS
