"""Online rules for recurrent networks: an eligibility trace at every synapse, times an error that is heard now.

- RFLO, random-feedback local online learning: Murray 2019, eLife 8:e43299, doi:10.7554/eLife.43299.
- E-prop: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, doi:10.1038/s41467-020-17236-y.
- RFLO with learnt feedback: the feedback is found by noise correlation (Kang, Richards, Sabatini 2026,
  arXiv:2601.02636), the credit through time is the trace's. A combination of ours.

In a leaky network h_t = (1 - a) h_{t-1} + a φ(u_t), u_t = W h_{t-1} + …, with a linear read-out y_t = V h_t, they are

    p_ij(t) = (1 - a) p_ij(t-1) + a φ'(u_i(t)) h_j(t-1),        ΔW_ij ∝ - Σ_t (Bᵀ e_t)_i p_ij(t),

an error at the end being the case e_t = 0 before. The read-out learns by its exact gradient.

What makes them differ is B alone: fixed and random (RFLO, "random e-prop"), Vᵀ's own V ("symmetric e-prop"), or learnt.
E-prop's trace follows a neuron's hidden state and cuts whatever passes through the observable state of neurons, a
neuron's own synapse on itself (W_ii) included. Here the leaky h_i is the hidden state and also the observable one, and
the factor ∂h_i(t)/∂h_i(t-1) that e-prop keeps is the leak, 1 - a: the trace is RFLO's, *exactly*. The two would part
in spiking or adaptive neurons, whose hidden state has more dimensions. (Keeping W_ii gives SnAp-1, Menick et al. 2021.)

How it is computed: traces need one number for each synapse and example. The sums above are also the gradient of the
loss of a network whose recurrent edges pass values but no gradient, and whose read-out has feedback weights B; that is
what is taken here. It equals the traces exactly, and a test says so. A kept leak is thus no knowledge of the rule's:
it is what is left of the network when its recurrent edges are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.lagged_noise_correlation import KickedNoiseCorrelation
from rulezoo_plugins.noise_correlation import ManifoldNoiseCorrelation
from rulezoo_plugins.unrolled import View, course, why_no_course

Tensors = dict[str, Tensor]


class Severed(View):
    """A network whose recurrent edges pass values but no gradient; all else is that of ``net``."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self._edges = frozenset(net.keys("recurrent"))

    def run(
        self, params: Mapping[str, Tensor], x: Tensor, tap: Callable[[str, Tensor], Tensor] | None = None
    ) -> Tensor:
        """See `Net.run`."""

        def severing(key: str, activity: Tensor) -> Tensor:
            seen = activity if tap is None else tap(key, activity)
            return seen.detach() if key in self._edges else seen

        return super().run(params, x, severing)


def read_out(net: Net) -> str:
    """Name of the one weight between state and output; ask `why_not_online` first."""
    return next(name for name in net.readout if len(net.shapes[name]) > 1)


def why_not_online(net: Net) -> str | None:
    """A sentence if the network has no recurrent edge, or no linear read-out of its state; else ``None``."""
    if not net.keys("recurrent"):
        return "nothing recurs: the network has no site of kind 'recurrent', an edge that could be cut"
    if (reason := why_no_course(net)) is not None:
        return reason
    trial = course(net)
    wanted = (trial.outputs, net.visits[trial.visits[0]].width)
    weights = [name for name in net.readout if len(net.shapes[name]) > 1]
    linear = credit.feedback_layers(net, net.init_params())
    if len(weights) != 1 or weights[0] not in linear or net.shapes[weights[0]] != wanted:
        return "the error comes straight to the state, which needs a read-out of one linear layer, and this one is not"
    return None


@dataclass(frozen=True)
class RFLO(LearningRule):
    """Eligibility traces through the leak, and fixed random feedback."""

    scale: float = hp(
        1.0, "size of the feedback weights, in units of 1/sqrt(units of the state)",
        low=1e-6, search=(0.1, 10), log=True,
    )  # fmt: skip

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a recurrent edge to cut, and a linear read-out."""
        return why_not_online(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Draw ``feedback``, ``(o, n)``."""
        shape = net.shapes[read_out(net)]
        drawn = torch.randn(shape, generator=gen, dtype=batch.x.dtype, device=gen.device).to(batch.x.device)
        return State(buffers={"feedback": self.scale / shape[1] ** 0.5 * drawn})

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        grads, mean = _traced(net, loss, params, state.buffers["feedback"], batch)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class EProp(RFLO):
    """The same traces, and by default the read-out's own weights as feedback."""

    feedback: str = hp(
        "symmetric", "the weights of the read-out, or fixed random ones: then it is RFLO",
        choices=("symmetric", "random"), search=("symmetric", "random"),
    )  # fmt: skip

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        if self.feedback == "random":
            return super().step(net, loss, params, state, batch, noise, t)
        grads, mean = credit.backprop(Severed(net), loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class LearntRFLO(KickedNoiseCorrelation):
    """The same traces, and a feedback learnt from the immediate response to isotropic kicks of the state.

    Where the read-out is linear, the immediate response is that of the read-out itself: the rule comes to know V without
    looking at it, and becomes symmetric e-prop.
    """

    def lags(self, steps: int) -> int:
        """The immediate response alone."""
        return 1

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a recurrent edge to cut, and a linear read-out."""
        return why_not_online(net)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        clean = credit.cut(net, params, batch.x, course(net).visits)  # never pulled: to look at activity only
        state = self.remember(net, state, clean.sites, t)
        if t % self.every == 0:
            state = self._learn_feedback(net, params, batch.x, clean, state, noise, t)
        grads, mean = _traced(net, loss, params, state.buffers[f"feedback.{course(net).site}"][0], batch)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class LearntManifoldRFLO(LearntRFLO, ManifoldNoiseCorrelation):
    """The same, from kicks in the principal subspace of recent states."""


def _traced(
    net: Net, loss: credit.Loss, params: Tensors, feedback: Tensor, batch: Batch
) -> tuple[Tensors, Tensor]:
    """What eligibility traces through the leak and ``feedback`` ``(o, n)`` give; and the mean loss."""
    return credit.through_feedback(Severed(net), loss, params, {read_out(net): feedback}, batch.x, batch.y)
