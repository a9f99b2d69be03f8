"""The contract of a task: data with a fixed split, a network, a loss per example, a score and a budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NamedTuple

from typing_extensions import TypeVar

from rulezoo.errors import UserError
from rulezoo.options import Configurable

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


@dataclass(frozen=True)
class Budget:
    """How long and with what optimiser every rule is trained on a task.

    Attributes:
        epochs: passes through the training data.
        batch: examples in a minibatch; a shorter last one is dropped.
        lr: learning rate, unless the rule has its own.
        optimizer: ``"adam"``, or ``"sgd"`` with momentum 0.9.
        weight_decay: added to the gradient times the weight (SGD) or decoupled (Adam), unless the rule has its own.
        schedule: the learning rate through training: ``"constant"``, or ``"cosine"`` down to zero.
    """

    epochs: int
    batch: int
    lr: float
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"


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
