"""The two baselines: the exact gradient, and learning by the read-out alone.

Rumelhart, Hinton, Williams 1986; Werbos 1990 for recurrent networks. `Frozen` is a control, not a published rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Backprop(LearningRule):
    """The exact gradient of the mean loss; on a recurrent network, through all time steps."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class Frozen(LearningRule):
    """The exact gradient for the parameters behind the last site, and none for the others."""

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a read-out to train, and something else to freeze."""
        if not net.readout:
            return "no parameter lies behind the last site, so nothing would learn"
        if len(net.readout) == len(net.shapes):
            return "every parameter lies behind the last site, so nothing would be frozen"
        return None

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y, only=net.readout)
        return Step(grads, state, mean)
