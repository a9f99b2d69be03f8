"""The contract of a learning rule: a frozen value with a pure step.

Nothing is hidden: parameters are a dictionary of tensors, a rule's memory is a `State`, randomness is drawn in
`LearningRule.noise` alone and handed to `LearningRule.step` as an argument. That is what lets the runner train many
seeds in one ``torch.func.vmap``, resume a run bit for bit, and test a stochastic rule exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rulezoo.options import Configurable, hp

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rulezoo.net import Net
    from rulezoo.task import Task

    Tensors = dict[str, Tensor]
    Loss = Callable[[Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """One minibatch: ``x`` of shape ``(batch, ...)`` and its targets ``y`` of shape ``(batch, ...)``."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class State:
    """A rule's memory between steps: tensors only, the same keys, shapes and dtypes after every step.

    Attributes:
        params: tensors that the rule owns and the runner's optimiser trains (their gradients are returned under
            the key ``rule.<name>``).
        buffers: everything else: feedback weights, bases, recent activity.
    """

    params: Tensors = field(default_factory=dict)
    buffers: Tensors = field(default_factory=dict)


class Step(NamedTuple):
    """What one step returns.

    Attributes:
        grads: parameter name → the direction that the optimiser descends, of the parameter's shape. A parameter
            that is left out is left alone: no momentum and no weight decay reach it.
        state: the rule's memory for the next step.
        loss: mean loss of the batch before the update, a scalar; ``None`` where the rule does not compute it. The curve
            has no training loss for such a step.
        logs: scalars worth a curve.
        updates: parameter name → what is added to the parameter as it is, past the optimiser: no learning rate, no
            momentum and no weight decay reach it. A parameter gets a gradient or an update, not both.
    """

    grads: Tensors
    state: State
    loss: Tensor | None
    logs: Tensors = {}  # noqa: RUF012  never written to
    updates: Tensors = {}  # noqa: RUF012


def directions(step: Step) -> Tensors:
    """The directions in which a step descends: its gradients, and its updates with the sign turned round."""
    return {**step.grads, **{name: -update for name, update in step.updates.items()}}


@dataclass(frozen=True)
class LearningRule(Configurable):
    """Base of every rule; its dataclass fields are its hyper-parameters, declared with `rulezoo.hp`.

    Only `step` must be written. ``t`` is the number of the step from 0, a Python integer: a schedule such as "every
    tenth step" is an ordinary ``if``, outside of vmap and compilation.
    """

    vmappable: ClassVar[bool] = True
    #: Whether ``weight_decay`` is that of the whole training, in place of the optimiser's own: a step shrinks the parameters
    #: that get a gradient by the factor exp(-weight_decay * s / S), where s is its learning rate and S is the sum of those of
    #: all steps. Training then shrinks them by exp(-weight_decay), whatever the optimiser, learning rate and number of steps.
    decoupled_decay: ClassVar[bool] = False

    # Tuning searches it around the task's, see `rulezoo.tuning.space`.
    lr: float | None = hp(None, "learning rate; none = the task's", low=0)
    weight_decay: float | None = hp(None, "weight decay per step of the optimiser; none = the task's", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """A sentence saying why the rule cannot serve this network and task, or ``None`` when it can."""
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The memory before the first step.

        Args:
            net: the network.
            params: its initial parameters.
            batch: the first minibatch of training, for rules that start from a look at activity.
            gen: the only source of randomness; a generator on the CPU.
        """
        return State()

    def rates(self, net: Net) -> dict[str, float]:
        """Factors on the learning rate by parameter name, ``rule.<name>`` for the rule's own; 1 where there is none.

        They multiply whatever the budget's learning rate and schedule give, under every optimiser.
        """
        return {}

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """The random numbers of step ``t``, drawn from ``gen`` on its device; their shapes may depend on ``t`` only."""
        return {}

    def step(
        self, net: Net, loss: Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """One pure step: no argument is modified, and the same arguments give the same result.

        Args:
            net: the network.
            loss: ``loss(output, target)``, per example, of shape ``(batch,)``; a step descends its mean.
            params: the network's parameters.
            state: what `init` or the last step returned.
            batch: the minibatch.
            noise: what `noise` drew for this step.
            t: the number of the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The network's output for ``x``; override it where a rule reads its answer elsewhere."""
        return net.run(params, x)
