"""What came out of a training of one seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rulezoo.results.records import Probe

if TYPE_CHECKING:
    from torch import Tensor

    from rulezoo.net import Tensors


@dataclass(frozen=True)
class Evaluation:
    """A point of the curve: step, epoch, mean training loss since the last point, validation score, the rule's logs.

    The training loss is ``None`` where the rule computed none since the last point.
    """

    step: int
    epoch: int
    train_loss: float | None
    validation: float
    logs: dict[str, float]


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of a network after training; all of it on the CPU.

    Attributes:
        example: two inputs as the network takes them.
        weights: the ``state_dict`` of the plain model; ``None`` where only the memory is kept.
        memory: the rule's memory, ``params.<name>`` and ``buffers.<name>``; ``None`` where it is not kept.
    """

    example: Tensor
    weights: Tensors | None
    memory: Tensors | None


@dataclass(frozen=True)
class Outcome:
    """What came out of one seed.

    Attributes:
        status: how it ended.
        reason: a sentence, unless it ended well.
        traceback: of an error.
        scores: ``validation`` and, unless the run is a trial, ``test`` at the end.
        curve: one `Evaluation` an epoch.
        step_seconds: mean wall time of a training step of the whole group, or ``None``.
        backprop_seconds: mean wall time of a step of plain backprop, sampled in turn.
        parameters: how many the network has.
        seeds_together: how many seeds were trained in one vmap.
        compiled: whether `torch.compile` took the rule's step; it cannot take every one.
        peak_bytes: peak memory on a GPU.
        block_depth: layers in series that an error reached one through another, see `rulezoo.measures.locality`;
            ``None`` where it could not be measured.
        probes: what was measured from outside, see `rulezoo.measures.probes`.
        kept: the network after training, where it ended well and was asked for.
    """

    status: Literal["ok", "diverged", "error", "skipped", "pruned", "oom_host", "oom_gpu"]
    reason: str | None = None
    traceback: str | None = None
    scores: dict[str, float] | None = None
    curve: tuple[Evaluation, ...] = ()
    step_seconds: float | None = None
    backprop_seconds: float | None = None
    parameters: int | None = None
    seeds_together: int = 1
    compiled: bool = False
    peak_bytes: int | None = None
    block_depth: int | None = None
    probes: tuple[Probe, ...] = ()
    kept: Kept | None = field(default=None, repr=False, compare=False)
