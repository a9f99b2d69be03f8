"""Tasks of cognitive neuroscience from neurogym, as supervised learning of recurrent networks.

Molano-Mazón et al. 2022, NeuroGym: An open resource for developing and sharing neuroscience tasks,
https://doi.org/10.31234/osf.io/aqc9n; the package is https://github.com/neurogym/neurogym.

An environment is run trial by trial. Its observations are the inputs, and its ground truth, the right action at each step,
is the target. Only the period in which the subject has to answer counts: the mask. All trials are generated once from fixed
seeds, so every rule learns from the same ones. Inputs carry a little noise, because many environments have only a handful of
different trials without it: validation and test would then repeat the training data.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, OptionError, Split, Task, hp, nets

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = -1  #: the target of a step that does not count
WHOLE = "trial"  #: in place of a period: every step of a trial
_DECISION = "decision"
_SEEDS = (20220101, 20220102, 20220103)  # of train, validation and test
_PARTS = (4, 1, 2)  # sizes of train, validation and test, in quarters of the training data
_KEPT = 8  # configurations whose trials are held in memory


class Trial(NamedTuple):
    """One trial: observations ``(time, units)``, and the right action at each step that counts, else `IGNORED`."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


class Setting(NamedTuple):
    """What trials are made of; see the options of `Neurogym`."""

    env: str
    arguments: str
    dt: int | None
    period: str | None


@lru_cache
def spaces(setting: Setting) -> tuple[int, int]:
    """Units of the observation and number of actions, after one trial was made to see that the environment serves.

    Raises:
        OptionError: if it does not.
    """
    env = _made(setting)
    import gymnasium  # which neurogym brings

    actions = env.unwrapped.action_space
    if not isinstance(actions, gymnasium.spaces.Discrete):
        raise OptionError(
            f"env must have one action from a finite set at each step, and {setting.env} has {actions}; choose an environment "
            "with discrete actions"
        )
    return _trial(env, setting).x.shape[1], int(actions.n)


@lru_cache(maxsize=_KEPT)
def parts(setting: Setting, trials: int, noise: float) -> Data:
    """Training, validation and test trials, padded at their ends to the longest of them.

    Args:
        setting: of the trials.
        trials: in the training part; a quarter of it for validation and a half for the test.
        noise: sd of the noise that is added to every input.
    """
    sizes = (max(1, trials * quarters // 4) for quarters in _PARTS)
    drawn = [list(_drawn(setting, n, noise, seed)) for n, seed in zip(sizes, _SEEDS, strict=True)]
    steps = max(len(trial.y) for part in drawn for trial in part)
    return Data(*(_padded(part, steps) for part in drawn))


def _drawn(setting: Setting, trials: int, noise: float, seed: int) -> Iterator[Trial]:
    env, gen = _made(setting), np.random.RandomState(seed)
    _seed(env, seed)
    for _ in range(trials):
        trial = _trial(env, setting)
        yield trial._replace(x=trial.x + noise * gen.standard_normal(trial.x.shape).astype(np.float32))


def _seed(env: Any, seed: int) -> None:  # noqa: ANN401
    """Seed an environment and its wrappers: one that chooses among environments has random numbers of its own."""
    with _quiet():
        while env is not env.unwrapped:
            if hasattr(type(env), "seed"):
                env.seed(seed)
            env = env.env
        env.seed(seed)


def _padded(trials: list[Trial], steps: int) -> Split:
    x = torch.zeros(len(trials), steps, trials[0].x.shape[1])
    y = torch.full((len(trials), steps), IGNORED)
    for i, trial in enumerate(trials):
        x[i, : len(trial.y)], y[i, : len(trial.y)] = torch.from_numpy(trial.x), torch.from_numpy(trial.y)
    return Split(x, y)


def _made(setting: Setting) -> Any:  # noqa: ANN401  neurogym is not annotated
    """A new environment, at the outermost wrapper that makes trials.

    Raises:
        OptionError: if there is none of that name, or it cannot be made with the arguments.
    """
    with _quiet():
        from neurogym.core import TrialEnv, TrialWrapper
        from neurogym.envs.registration import ALL_EXTENDED_ENVS, make
    import gymnasium

    if setting.env not in ALL_EXTENDED_ENVS:
        near = difflib.get_close_matches(setting.env, list(ALL_EXTENDED_ENVS))
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"there are {', '.join(sorted(ALL_EXTENDED_ENVS))}"
        )
        raise OptionError(f"env must be an environment of neurogym, got {setting.env!r}; {hint}")
    arguments = {**read_arguments(setting.arguments), **({} if setting.dt is None else {"dt": setting.dt})}
    with _quiet():
        try:
            env = make(setting.env, **arguments)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise OptionError(
                f"env {setting.env} cannot be made with arguments={setting.arguments} and dt={setting.dt}: {error}"
            ) from error
    while isinstance(env, gymnasium.Wrapper) and not isinstance(env, TrialWrapper):
        env = env.env
    if not isinstance(env, TrialEnv | TrialWrapper):
        raise OptionError(f"env must be an environment with trials, and {setting.env} has none")
    return env


def read_arguments(text: str) -> Mapping[str, Any]:
    """The arguments of an environment from their JSON text.

    Raises:
        OptionError: if it is no JSON object, or sets the time step, which is an option of its own.
    """
    try:
        read = json.loads(text)
    except json.JSONDecodeError as error:
        raise OptionError(f"arguments must be a JSON object, got {text!r}: {error}") from error
    if not isinstance(read, dict):
        raise OptionError(f'arguments must be a JSON object, like {{"sigma": 0.5}}, got {text!r}')
    if "dt" in read:
        raise OptionError("arguments must not contain dt, which is an option of the task; set that")
    return read


def _trial(env: Any, setting: Setting) -> Trial:  # noqa: ANN401
    """The next trial of an environment.

    Raises:
        OptionError: if the environment names no right actions, or the period is none of its own.
    """
    with _quiet():
        env.new_trial()
    inner = env.unwrapped
    observed, truth = getattr(inner, "ob", None), getattr(inner, "gt", None)
    if observed is None or truth is None:
        raise OptionError(
            f"env must name the right action at each step, and {setting.env} does not: it is for reinforcement learning; "
            "choose an environment for supervised learning"
        )
    x = np.asarray(observed, dtype=np.float32).reshape(len(observed), math.prod(np.shape(observed)[1:]))
    y = np.full(len(x), IGNORED, dtype=np.int64)
    counted = _counted(inner, setting)
    y[counted] = np.asarray(truth)[counted].astype(np.int64)
    if not (y != IGNORED).any():
        raise OptionError(
            f"dt is {inner.dt:g} ms, and the period in which {setting.env} is answered lasts less than that; use a smaller one"
        )
    return Trial(x, y)


def _counted(env: Any, setting: Setting) -> slice:  # noqa: ANN401
    """The steps that count."""
    begins, ends = env.start_ind, env.end_ind
    last = _DECISION if _DECISION in ends else max(ends, key=ends.__getitem__)
    period = last if setting.period is None else setting.period
    if period == WHOLE:
        return slice(None)
    if period not in ends:
        raise OptionError(
            f"period must be one of {setting.env}: {', '.join(ends)}, or {WHOLE!r} for all of a trial, got {period!r}"
        )
    return slice(begins[period], ends[period])


@contextmanager
def _quiet() -> Iterator[None]:
    """Gymnasium warns of what does not concern us: rendering, and attributes that neurogym reads through wrappers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Neurogym(Task):
    """An environment of neurogym, answered by a recurrent network.

    Inputs are ``(batch, steps, observations)``, outputs ``(batch, steps, actions)``; targets are int64 ``(batch, steps)``,
    the right action at each step that counts and -1 elsewhere. Loss and score are averages over the steps that count.
    """

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    env: str = hp("PerceptualDecisionMaking-v0", "environment of neurogym; it is part of the task's name")
    trials: int = hp(
        2000, "training trials; a quarter of it for validation, a half for the test", low=4, high=1_000_000
    )
    dt: int | None = hp(
        None, "duration of a time step in ms; none = the environment's own", low=1, high=10_000
    )
    period: str | None = hp(
        None, "period in which answers count, or 'trial' for all of it; none = 'decision', or the last one"
    )
    noise: float = hp(0.1, "standard deviation of the noise that is added to every input", low=0, high=100)
    arguments: str = hp(
        "{}", 'further arguments of the environment, a JSON object such as {"timing": {"delay": 500}}'
    )
    cell: str = hp("leaky", "recurrent units of the network", choices=("leaky", "gru"))
    width: int = hp(64, "hidden units", low=1)
    leak: float = hp(0.2, "share of the state of leaky units that is new at each step", low=0.01, high=1)

    def __post_init__(self) -> None:
        """Refuse an environment that cannot be used."""
        super().__post_init__()
        spaces(self.setting)

    @property
    def setting(self) -> Setting:
        """What trials are made of."""
        return Setting(self.env, self.arguments, self.dt, self.period)

    @property
    def chance(self) -> float:  # type: ignore[override]
        """The score of the best answer that is the same at every step of every trial, on the training trials."""
        labels = parts(self.setting, self.trials, self.noise).train.y
        actions = range(spaces(self.setting)[1])
        return max(float(_share((labels == action), labels).mean()) for action in actions)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The trials, from fixed seeds; ``root`` and ``download`` are not needed."""
        made = parts(self.setting, self.trials, self.noise)
        return Data(*(Split(part.x.clone(), part.y.clone()) for part in made))

    def network(self) -> nn.Module:
        """A recurrent network that answers at every step."""
        n_in, n_out = spaces(self.setting)
        if self.cell == "gru":
            return nets.GRU(n_in, self.width, n_out, every_step=True)
        return nets.LeakyRNN(n_in, self.width, n_out, self.leak, every_step=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy in nats, averaged over the steps that count, ``(batch,)``."""
        each = F.cross_entropy(output.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        return _share(each.view(target.shape), target)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of the steps that count at which the largest output is the right action, ``(batch,)``."""
        return _share((output.argmax(-1) == target), target).to(output.dtype)


def _share(values: Tensor, target: Tensor) -> Tensor:
    """Means over the steps that count, ``(batch,)``; values ``(batch, steps)`` are 0 or false at the others."""
    values = values if values.is_floating_point() else values.double()
    return values.sum(1) / (target != IGNORED).sum(1)
