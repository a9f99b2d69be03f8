"""What is tried next: optuna's tree-structured Parzen estimator, told of every earlier trial.

Nothing is remembered between two calls. The same past gives the same proposals, so that a tuning
resumes from its
stored trials and from nothing else.

Bergstra, Bardenet, Bengio & Kégl (2011), https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.options import Value
from rulezoo.tuning.space import Space, legible

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from rulezoo.tuning.records import Tried

ROUND = 4  #: trials that are proposed together, so that they can run together; not a matter of the machine


@dataclass(frozen=True)
class Past:
    """An earlier trial: every option of the space with its value, and what came of it."""

    values: Mapping[str, Value]
    tried: Tried


def name() -> str:
    """The sampler with its version, e.g. ``optuna 5.0.0 TPESampler``."""
    import optuna

    return f"optuna {optuna.__version__} {optuna.samplers.TPESampler.__name__}"


def propose(space: Space, past: Sequence[Past], count: int, seed: int) -> list[dict[str, Value]]:
    """``count`` proposals; asked for fewer, the same ones come first.

    Args:
        space: what may be tried.
        past: the trials so far; at random while there are fewer than `ROUND`.
        count: how many.
        seed: of the sampler.
    """
    import optuna

    if not space:
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would greet every study on stderr
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=ROUND)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_frozen_trial(space, one) for one in past])
    asked = [study.ask(dict(space)).params for _ in range(count)]
    return [{option: legible(value, space[option]) for option, value in one.items()} for one in asked]


def _frozen_trial(space: Space, past: Past) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    params = {option: past.values[option] for option in space}
    if past.tried.validation is not None:
        return create_trial(params=params, distributions=dict(space), value=past.tried.validation)
    # optuna ranks what was given up below what was finished, and lowest what was given up before anything was seen.
    seen = {1: past.tried.halfway} if past.tried.status == "pruned" and past.tried.halfway is not None else {}
    return create_trial(
        params=params, distributions=dict(space), state=TrialState.PRUNED, intermediate_values=seen
    )
