"""Online rules for recurrent networks: an eligibility trace at every synapse, times an error that is heard now.

- RFLO, random-feedback local online learning: Murray 2019, eLife 8:e43299, doi:10.7554/eLife.43299.
- E-prop: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, doi:10.1038/s41467-020-17236-y.
- RFLO with learnt feedback: the feedback is found by noise correlation (Kang, Richards, Sabatini 2026,
  arXiv:2601.02636), the credit through time is the trace's. A combination of ours.

In a leaky network h_t = (1 - a) h_{t-1} + a φ(u_t), u_t = W h_{t-1} + …, y_t = V h_t, all of them are

    p_ij(t) = (1 - a) p_ij(t-1) + a φ'(u_i(t)) h_j(t-1),        ΔW_ij ∝ - Σ_t (Bᵀ e_t)_i p_ij(t),

an error at the end being the case e_t = 0 before. The read-out learns by its exact gradient.

What makes them differ is B alone: fixed and random (RFLO; also "random e-prop"), the read-out's own V ("symmetric
e-prop"), or learnt. E-prop's trace follows the hidden state of a neuron and cuts whatever passes through the observable
state of neurons, a neuron's synapse on itself (W_ii) included. Here the leaky h_i is both, and the factor
∂h_i(t)/∂h_i(t-1) that e-prop keeps is the leak, 1 - a: its trace is RFLO's, *exactly*. The two part ways in spiking or
adaptive neurons, whose hidden state has more dimensions. (Keeping W_ii as well gives SnAp-1, Menick et al. 2021.)

How it is computed: one trace for each synapse and example would fill the memory. Summed in the other order, the trace
fades the error instead of the activity: with q_t = Bᵀ e_t,

    Σ_t q_t p(t) = Σ_s v_s ∂h_s/∂W |_{h_{s-1} fixed},        v_s = Σ_{t ≥ s} (1 - a)^{t - s} q_t.

This is the same update to the last digit, which a test holds against traces written out; and nothing but the leak, a
known number for each neuron, is used to go through time. Letters: b batch, T steps, o numbers in one answer, n units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.recurrent.lagged_noise_correlation import KickedInManifold, KickedNoiseCorrelation
from rulezoo_plugins.shared.unrolled import course, why_no_course

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class RFLO(LearningRule):
    """Eligibility traces through the leak, and fixed random feedback."""

    scale: float = hp(
        1.0, "size of random feedback weights, in units of 1/sqrt(units of the state)",
        low=1e-6, search=(0.1, 10), log=True,
    )  # fmt: skip

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs recurrent edges to cut, and a constant leak."""
        return why_not_online(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The ``leak`` ``(n,)``, and ``feedback`` ``(o, n)``, drawn."""
        trial = course(net)
        shape = trial.outputs, net.visits[trial.visits[0]].width
        dtype, device = net.memory_dtype(*trial.visits), batch.x.device
        drawn = torch.randn(shape, generator=gen, dtype=dtype, device=gen.device)
        feedback = self.scale / shape[1] ** 0.5 * drawn.to(device)
        return State(buffers={"leak": _leak(net).to(device, dtype), "feedback": feedback})

    def feedback(self, net: Net, params: Tensors, state: State) -> Tensor:
        """B, ``(o, n)``."""
        return state.buffers["feedback"]

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, course(net).visits)
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals = traced_signals(net, error, self.feedback(net, params, state), state.buffers["leak"])
        return Step(cut.pull(error, signals), state, mean)


@dataclass(frozen=True)
class EProp(RFLO):
    """The same traces, and by default the read-out's own weights as feedback."""

    mode: str = hp(
        "symmetric", "feedback through the weights of the read-out, or fixed random ones: then it is RFLO",
        choices=("symmetric", "random"), search=("symmetric", "random"),
    )  # fmt: skip

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a linear read-out, too, where its weights are the feedback."""
        reason = super().skip(net, task)
        if reason is None and self.mode == "symmetric" and _read_out(net) is None:
            return "symmetric feedback is the weight of a read-out of one linear layer, and this one is not"
        return reason

    def feedback(self, net: Net, params: Tensors, state: State) -> Tensor:
        """B, ``(o, n)``."""
        name = _read_out(net) if self.mode == "symmetric" else None
        return super().feedback(net, params, state) if name is None else params[name]


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
        """Needs recurrent edges to cut, and a constant leak."""
        return why_not_online(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds the ``leak`` ``(n,)``."""
        state = super().init(net, params, batch, gen)
        dtype = net.memory_dtype(*course(net).visits)
        return State(state.params, {**state.buffers, "leak": _leak(net).to(batch.x.device, dtype)})

    def signals(self, net: Net, error: Tensor, state: State) -> Tensors:
        """See `KickedNoiseCorrelation.signals`."""
        feedback = state.buffers[f"feedback.{course(net).site}"]
        return traced_signals(net, error, feedback[0], state.buffers["leak"])


@dataclass(frozen=True)
class LearntManifoldRFLO(LearntRFLO, KickedInManifold):
    """The same, from kicks in the principal subspace of recent states."""


def traced_signals(net: Net, error: Tensor, feedback: Tensor, leak: Tensor) -> Tensors:
    """What eligibility traces make of the errors: v_s, visit → ``(b, n)``.

    Args:
        net: the network.
        error: ``(b, *net.output_shape)``.
        feedback: B, ``(o, n)``.
        leak: what remains of a neuron's state after one step, 1 - a, ``(n,)``.
    """
    trial = course(net)
    heard = (trial.in_time(error) @ feedback).unbind(1)  # q_t
    signals: Tensors = {}
    fading = torch.zeros_like(heard[0])
    for key, q in zip(reversed(trial.visits), reversed(heard), strict=True):
        fading = q + leak * fading
        signals[key] = fading
    return signals


def why_not_online(net: Net) -> str | None:
    """A sentence if no eligibility trace follows from the network, else ``None``."""
    if not net.keys("recurrent"):
        return "nothing recurs: the network has no site of kind 'recurrent', an edge that could be cut"
    if (reason := why_no_course(net)) is not None:
        return reason
    if _remembers_elsewhere(net):
        return (
            "the past must reach a step through the site of kind 'post' alone, and here something else carries it, "
            "such as the membrane potential of spiking neurons; put the site on that state"
        )
    params = net.init_params()
    others = {name: 1.5 * p + 0.1 for name, p in params.items()}
    leaks = torch.cat([_own_memory(net, p, sign) for p in (params, others) for sign in (1, -1)])
    if not torch.allclose(leaks, leaks[:1]):
        return "without its recurrent edges a neuron must forget at a constant rate, and here the rate varies"
    return None


@torch.no_grad()
def _remembers_elsewhere(net: Net) -> bool:
    """Whether the last state depends on the first input even if all states and recurrent edges before it are held.

    Seen where the input's second axis is time, one visit of the state for each step.
    """
    visits, x, params = net.keys("post"), net.example, net.init_params()
    if x.ndim < 2 or x.shape[1] != len(visits):
        return False
    held: Tensors = {}
    net.run(params, x, lambda key, activity: held.setdefault(key, activity))

    def last(first: Tensor) -> Tensor:
        seen: Tensors = {}

        def hold(key: str, activity: Tensor) -> Tensor:
            seen[key] = activity
            return held[key]

        net.run(params, torch.cat([first.unsqueeze(1), x[:, 1:]], 1), hold)
        return seen[visits[-1]]

    others = (torch.zeros_like(x[:, 0]), 3 * x[:, 0] if x.is_floating_point() else x[:, -1])
    return any(not torch.allclose(last(first), held[visits[-1]]) for first in others)


def _leak(net: Net) -> Tensor:
    """What remains of each neuron's state after a step, ``(n,)``; ask `why_not_online` first."""
    return _own_memory(net, net.init_params(), 1)[0]


def _own_memory(net: Net, params: Tensors, sign: int) -> Tensor:
    """∂h_i(t)/∂h_i(t-1) with the recurrent edges cut, ``(T - 1, n)``, on the network's example.

    Args:
        net: the network.
        params: its parameters.
        sign: of every second neuron in the probe. Two signs give one answer only where neurons do not mix.
    """
    visits = net.keys("post")
    probe = torch.ones_like(net.zeros(visits[0], 1)[0].flatten())
    probe[1::2] = sign

    def states(offsets: Tensors) -> Tensors:
        seen: Tensors = {}

        def tap(key: str, activity: Tensor) -> Tensor:
            if key not in offsets:
                return activity.detach() if net.visits[key].kind == "recurrent" else activity
            seen[key] = credit.rows(activity)
            return activity.detach() + offsets[key].view_as(activity)

        net.run(params, net.example[:1], tap)
        return seen

    silent = {key: credit.rows(net.zeros(key, 1)) for key in visits}
    seen, pull = torch.func.vjp(states, silent)[:2]
    (remains,) = pull({key: probe.expand_as(state) for key, state in seen.items()})
    return torch.cat([remains[key] for key in visits[:-1]]) * probe


def _read_out(net: Net) -> str | None:
    """Name of the one weight between the state and an answer, or ``None`` where there is no such weight."""
    trial = course(net)
    weights = [name for name in net.readout if len(net.shapes[name]) > 1]
    wanted = trial.outputs, net.visits[trial.visits[0]].width
    if len(weights) != 1 or net.shapes[weights[0]] != wanted:
        return None
    return weights[0] if weights[0] in credit.feedback_layers(net, net.init_params()) else None
