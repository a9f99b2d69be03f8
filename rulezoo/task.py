"""The contract of a task: data with a fixed split, a network, a loss per example, a score and a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple

from typing_extensions import TypeVar

from rulezoo.errors import UserError
from rulezoo.options import Configurable, Value, as_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rulezoo.source import Draw, Source

X_co = TypeVar("X_co", covariant=True, default="Tensor")
"""Kind of the inputs: a tensor, or a `rulezoo.datasets.Source`."""


class DataMissing(UserError, FileNotFoundError):
    """The data of a task are not there; the message says what was looked for, where, and how to get it."""


class Split(NamedTuple, Generic[X_co]):
    """One part of the data: inputs ``x`` of shape ``(examples, ...)``, targets ``y`` of shape ``(examples, ...)``.

    ``x`` is a tensor, or a `rulezoo.datasets.Source` that reads examples when they are needed.
    """

    x: X_co
    y: Tensor


class Data(NamedTuple, Generic[X_co]):
    """The three parts. Rules learn on ``train``; choices are made on ``validation``; ``test`` is read once."""

    train: Split[X_co]
    validation: Split[X_co]
    test: Split[X_co]


TorchOptions = Mapping[str, Value | Sequence[int | float]]
"""Options of a class of torch by name, as its constructor takes them."""

SHORT_OPTIMIZERS = ("adam", "sgd")
SHORT_SCHEDULES = ("constant", "cosine")
_FIRST = ("epochs", "batch", "lr", "optimizer", "weight_decay", "schedule")  # always part of a run's identity
_NESTED = ("optimizer", "schedule")  # each has options, in the field <name>_options


@dataclass(frozen=True)
class Budget:
    """How long and with what optimiser every rule is trained on a task.

    Attributes:
        epochs: passes through the training data.
        batch: examples in a minibatch; a shorter last one is dropped.
        lr: learning rate, unless the rule has its own.
        optimizer: the name of an optimiser of `torch.optim`, e.g. ``"SGD"`` or ``"RMSprop"``; or ``"adam"``, which is
            ``AdamW``, or ``"sgd"``, which is ``SGD`` with momentum 0.9.
        weight_decay: the optimiser's ``weight_decay``, unless the rule has its own; 0 is passed on, too, whatever torch's
            default.
        schedule: the learning rate through training: ``"constant"``; ``"cosine"``, which ends at zero; or the name of a
            schedule of `torch.optim.lr_scheduler`, e.g. ``"MultiStepLR"``. It starts from ``lr``, or has its peak there.
        optimizer_options: further options of the optimiser, e.g. ``{"momentum": 0.9, "nesterov": True}``.
        schedule_options: options of the schedule, e.g. ``{"milestones": [80, 120]}``. ``T_max`` of CosineAnnealingLR,
            ``total_iters`` of PolynomialLR and ``total_steps`` of OneCycleLR are the length of the training after warm-up
            unless they are given.
        schedule_per: whether the schedule takes a step per training ``"step"`` or per ``"epoch"``, in which its options count.
        warmup_steps: training steps in which the learning rate rises linearly to the schedule's first value; the
            schedule starts, and counts, behind them.
        warmup_epochs: the same in epochs; one of the two.
        clip_norm: largest norm of all gradients of a network together, for each seed on its own; larger ones are scaled
            down to it. ``None`` = no clipping.
        evaluation_batch: largest number of examples that are evaluated at once.
    """

    epochs: int
    batch: int
    lr: float
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    optimizer_options: TorchOptions = field(default_factory=dict, hash=False)
    schedule_options: TorchOptions = field(default_factory=dict, hash=False)
    schedule_per: Literal["step", "epoch"] = "step"
    warmup_steps: int = 0
    warmup_epochs: int = 0
    clip_norm: float | None = None
    evaluation_batch: int = 1024

    def flat(self) -> dict[str, Value]:
        """Every field by name; options of torch as ``optimizer.momentum``, with sequences as text: ``80,120``."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("_options")}
        nested = {
            f"{owner}.{name}": _flat(value)
            for owner in _NESTED
            for name, value in sorted(getattr(self, f"{owner}_options").items())
        }
        return {**plain, **nested}

    def resolved(self) -> dict[str, Value]:
        """What goes into a run's identity: `flat` without the fields that are newer than protocol 1 and have their default.

        So the identities of runs that were stored before those fields existed are still the same.
        """
        defaults = {f.name: f.default for f in fields(self)}
        return {
            name: value
            for name, value in self.flat().items()
            if name in _FIRST or name not in defaults or value != defaults[name]
        }


def _flat(value: Any) -> Value:  # noqa: ANN401
    if not isinstance(value, list | tuple):
        return value  # type: ignore[no-any-return]
    return ",".join(
        as_text(int(one) if isinstance(one, float) and one.is_integer() else one) for one in value
    )


@dataclass(frozen=True)
class Task(Configurable):
    """Base of every task; its dataclass fields, if any, are its options, declared with `rulezoo.hp`.

    Class attributes:
        budget: `Budget` of every rule.
        metric: the name of the score, for tables.
        chance: the score of an untrained network.
        targets: what targets are, for rules that use them otherwise than through the loss: ``"labels"``, integers from 0
            to ``classes`` - 1; ``"numbers"``, floating-point numbers of the output's shape; ``None`` = not declared, so
            that such a rule skips the task.
        classes: how many different labels there are; ``None`` = not declared.
    """

    budget: ClassVar[Budget]
    metric: ClassVar[str] = "accuracy"
    chance: ClassVar[float]
    targets: ClassVar[Literal["labels", "numbers"] | None] = None
    classes: ClassVar[int | None] = None

    def data(self, root: Path | None, *, download: bool = False) -> Data[Tensor | Source]:
        """The data, as inputs that `prepare` takes and integer or float32 targets, on the CPU; the same at every call.

        Args:
            root: the folder of ``--data`` or ``$RULEZOO_DATA``, or ``None``.
            download: whether files may be fetched when they are not there.

        Raises:
            DataMissing: if they are not there and may not be, or cannot be, fetched.
        """
        raise NotImplementedError(f"{type(self).__name__} must define data()")

    def prepare(self, x: Tensor, draw: Draw | None) -> Tensor:
        """The network's inputs for stored examples ``x``: type, standardising, augmentation. By default ``x`` itself.

        It runs on the device, and what it returns for an example depends on that example and its random numbers alone.

        Args:
            x: stored examples, ``(batch, ...)``.
            draw: random numbers for each example, which depend on the seed, the epoch and the example, the same for
                every rule; ``None`` for evaluation.
        """
        return x

    def network(self) -> nn.Module:
        """A new network with `rulezoo.Site` modules, initialised from torch's global generator.

        The runner seeds that generator, and puts it back afterwards.
        """
        raise NotImplementedError(f"{type(self).__name__} must define network()")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each example, of shape ``(batch,)``."""
        raise NotImplementedError(f"{type(self).__name__} must define loss()")

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """The score of each example, of shape ``(batch,)``; higher is better, `chance` is what guessing gets."""
        raise NotImplementedError(f"{type(self).__name__} must define score()")
