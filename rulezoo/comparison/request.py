"""What is asked of a comparison, as one value: the command line, a study file and a Python call all make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from rulezoo.errors import UserError, did_you_mean
from rulezoo.results.freshness import RETRY
from rulezoo.results.records import Precision

Options = Mapping[str, Mapping[str, str | tuple[str, ...]]]
"""Name of a rule or task → option → its value as the user wrote it; a tuple holds the values of a grid."""

CHECKPOINT = 60.0  #: default number of seconds between two checkpoints of a run
MOST_SEEDS = 10_000  #: largest number of seeds of a comparison
DEVICES = ("auto", "cpu", "cuda", "mps")
_SEED_LIMIT = 2**53  # whole numbers beyond it are not exact in JSON


class RequestError(UserError, ValueError):
    """A value that a request cannot hold; the message names the field, the value and what was expected."""


@dataclass(frozen=True)
class Request:
    """Everything that is asked of a comparison.

    Attributes:
        rules: names; empty = the rules of the standard comparison, ``("all",)`` = all.
        tasks: names; likewise.
        seeds: the seed of each run of a rule on a task.
        options: options of rules and tasks; several values of an option are a grid, whose product is compared.
        budget: what is set of the budget of every task, for all rules, as the user wrote it.
        epochs: passes through the training data, in place of the task's own number.
        device: where to compute; ``auto`` = the GPU where there is one.
        precision: floating-point precision.
        compiled: let `torch.compile` take the training step.
        together: maximum number of seeds trained together; ``None`` = as many as the memory holds.
        probes: number of points of training at which the rules are probed.
        checkpoint: seconds between two checkpoints of a run; 0 = none.
        threads: torch's threads in each process; ``None`` = torch or the executor decides.
        trials: number of trials of a tuning of every rule on every task; ``None`` = no tuning.
        retry: which stored runs are run again, words of `rulezoo.results.freshness.RETRY`.
        data: folder of data sets.
        download: whether missing data sets may be downloaded into it.
        keep_weights: store the trained weights of each run.
        keep_memory: store the state that the rule keeps between steps, too.
        evaluations: names of the evaluations of each trained network.

    Raises:
        RequestError: if a value cannot be used.
    """

    rules: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    options: Options = field(default_factory=dict, hash=False)
    budget: Mapping[str, str] = field(default_factory=dict, hash=False)
    epochs: int | None = None
    device: str = "auto"
    precision: Precision = "float32"
    compiled: bool = False
    together: int | None = None
    probes: int = 0
    checkpoint: float = CHECKPOINT
    threads: int | None = None
    trials: int | None = None
    retry: tuple[str, ...] = ()
    data: Path | None = None
    download: bool = False
    keep_weights: bool = False
    keep_memory: bool = False
    evaluations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rules", "tasks", "retry", "evaluations"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        _check_seeds(self.seeds)
        for name, (expected, allowed) in _EXPECTED.items():
            if not allowed(value := getattr(self, name)):
                raise RequestError(f"{name} must be {expected}, got {value!r}")
        for word in self.retry:
            if word not in RETRY:
                hint = did_you_mean(word, RETRY) or f"expected any of {', '.join(RETRY)}"
                raise RequestError(f"retry: unknown word {word!r}; {hint}")

    def of_cell(
        self, rule: str, rule_options: Mapping[str, str], task: str, task_options: Mapping[str, str]
    ) -> Request:
        """The part that concerns one rule with these options on one task with these options."""
        options = {task: dict(task_options), rule: dict(rule_options)}
        return replace(self, rules=(rule,), tasks=(task,), options=options)

    def of_trial(self, seeds: Sequence[int]) -> Request:
        """The same for a trial of a tuning: other seeds, and nothing but its score is kept."""
        return replace(
            self, seeds=tuple(seeds), probes=0, keep_weights=False, keep_memory=False, evaluations=()
        )


def _whole(low: int, *, optional: bool) -> tuple[str, Callable[[Any], bool]]:
    words = f"a whole number, {low} or more" + (", or None" if optional else "")

    def allowed(value: object) -> bool:
        if value is None:
            return optional
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return words, allowed


def _one_of(words: Sequence[str]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: value in words


_FLAG: tuple[str, Callable[[Any], bool]] = ("true or false", lambda value: isinstance(value, bool))
_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "epochs": _whole(1, optional=True),
    "device": _one_of(DEVICES),
    "precision": _one_of(get_args(Precision)),
    "compiled": _FLAG,
    "together": _whole(1, optional=True),
    "probes": _whole(0, optional=False),
    "checkpoint": (
        "a number of seconds, 0 or more",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value >= 0,
    ),
    "threads": _whole(1, optional=True),
    "trials": _whole(2, optional=True),
    "data": ("a folder (a path), or None", lambda value: value is None or isinstance(value, Path)),
    "download": _FLAG,
    "keep_weights": _FLAG,
    "keep_memory": _FLAG,
}


def _names(field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RequestError(f"{field} must be a list of names, got {value!r}")
    for name in value:
        if not isinstance(name, str):
            raise RequestError(f"{field} must be a list of names, and {name!r} is not a name")
    return tuple(dict.fromkeys(value))


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if not seeds:
        raise RequestError("seeds must hold at least one seed, got none")
    if len(seeds) > MOST_SEEDS:
        raise RequestError(f"seeds must be {MOST_SEEDS:,} at most, got {len(seeds):,}")
    known: set[int] = set()
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < _SEED_LIMIT:
            raise RequestError(f"a seed must be a whole number from 0 to {_SEED_LIMIT - 1}, got {seed!r}")
        if seed in known:
            raise RequestError(f"seed {seed} is given twice; give each seed once")
        known.add(seed)
