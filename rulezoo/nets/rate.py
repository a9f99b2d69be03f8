"""Recurrent networks of rate units: leaky units, and gated recurrent units.

`LeakyRNN`, with a leak α = Δt/τ, input u and rates x, which start at 0:

    x_t = (1 − α) x_{t−1} + α φ(W_rec x_{t−1} + W_in u_t + b)

This is τ dx/dt = −x + φ(…) in steps of Δt, the rate network of Yang, Joglekar, Song, Newsome & Wang 2019
(doi:10.1038/s41593-018-0310-2, Methods) without its noise. In Song, Yang & Wang 2016 (doi:10.1371/journal.pcbi.1004792)
the current leaks, not the rate: φ there is applied to the leaky sum.

`GRU`, the gated recurrent unit of Cho et al. 2014 (arXiv:1406.1078) as `torch.nn.GRU` computes it, with the reset gate on
the product of state and weights:

    r_t = σ(W_ir u_t + b_ir + W_hr h_{t−1} + b_hr)              reset gate
    z_t = σ(W_iz u_t + b_iz + W_hz h_{t−1} + b_hz)              update gate
    n_t = tanh(W_in u_t + b_in + r_t (W_hn h_{t−1} + b_hn))     candidate
    h_t = (1 − z_t) n_t + z_t h_{t−1}

`torch.nn.RNN` and `torch.nn.GRU` are one call of torch for a whole sequence, so that no site can be put into them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rulezoo.net import Site


class _Recurrent(nn.Module):
    """A layer that is unrolled over time, and a linear read-out ``w_out`` if there is one."""

    def __init__(self, width: int, n_out: int | None, *, every_step: bool) -> None:
        super().__init__()
        if n_out is None and every_step:
            raise ValueError("every_step=True reads out at every step, and n_out=None is without a read-out")
        self.width, self.every_step = width, every_step
        self.recurrent = Site("recurrent", unrolled=True)
        self.pre = Site("pre", unrolled=True)
        self.hidden = Site("post", unrolled=True)
        self.w_out = None if n_out is None else nn.Linear(width, n_out)

    def drives(self, x: Tensor) -> Tensor:
        """What the input ``(batch, time, n_in)`` contributes at each step, ``(batch, time, …)``."""
        raise NotImplementedError

    def update(self, drive: Tensor, state: Tensor) -> Tensor:
        """The next state, ``(batch, width)``, in front of the site ``hidden``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The read-out of ``x``, ``(batch, time, n_in)``: ``(batch, n_out)``, or ``(batch, time, n_out)``.

        Without a read-out it returns the states, ``(batch, time, width)``.
        """
        state = x.new_zeros(len(x), self.width)
        states = []
        for drive in self.drives(x).unbind(1):  # one product for the whole sequence
            state = self.hidden(self.update(drive, state))
            states.append(state)
        if self.w_out is None:
            return torch.stack(states, 1)
        output: Tensor = self.w_out(torch.stack(states, 1) if self.every_step else state)
        return output


class LeakyRNN(_Recurrent):
    """A leaky recurrent network: ``x[t] = (1 - leak) x[t-1] + leak φ(W_rec x[t-1] + W_in u[t] + b)``, ``x[-1] = 0``.

    Its sites are visited once per step: ``recurrent``, the edge from ``x[t-1]`` into ``w_rec``; ``pre``, the argument of φ;
    ``hidden``, the rates ``x[t]`` as the leak, the next step and the read-out see them.

    Args:
        n_in: units of the input.
        width: hidden units.
        n_out: units of the read-out; ``None`` = no read-out: the network returns its rates at every step.
        leak: α, the share of a rate that is new at each step, in (0, 1].
        every_step: read out at every step, not only after the last.
        activation: φ, a function of torch that acts on each unit, e.g. `torch.tanh` or `torch.relu`.
    """

    def __init__(
        self,
        n_in: int,
        width: int,
        n_out: int | None,
        leak: float,
        *,
        every_step: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        if not 0 < leak <= 1:
            raise ValueError(
                f"leak must be above 0 and at most 1, the share of a rate that is new at each step, got {leak}"
            )
        super().__init__(width, n_out, every_step=every_step)
        self.leak, self.activation = leak, activation
        self.w_in = nn.Linear(n_in, width)
        self.w_rec = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.w_rec.weight)  # neither amplifies nor forgets, whatever the number of steps

    def drives(self, x: Tensor) -> Tensor:
        """W_in u + b, ``(batch, time, width)``."""
        drives: Tensor = self.w_in(x)
        return drives

    def update(self, drive: Tensor, state: Tensor) -> Tensor:
        """One step of the equation."""
        pre = self.pre(self.w_rec(self.recurrent(state)) + drive)
        return (1 - self.leak) * state + self.leak * self.activation(pre)


class GRU(_Recurrent):
    """A layer of gated recurrent units, unrolled; with the same weights it computes what `torch.nn.GRU` computes.

    ``w_in.weight`` and ``w_in.bias`` are the ``weight_ih_l0`` and ``bias_ih_l0`` of `torch.nn.GRU`, ``w_rec`` the
    ``…_hh_l0``: three blocks of ``width`` rows, for the reset gate, the update gate and the candidate.

    Its sites are visited once per step: ``recurrent``, the edge from ``h[t-1]`` into ``w_rec``; ``gates``, of kind ``pre``,
    the arguments of both σ, ``(batch, 2 * width)``; ``pre``, the argument of tanh; ``hidden``, the state ``h[t]``.

    Args:
        n_in: units of the input.
        width: hidden units.
        n_out: units of the read-out; ``None`` = no read-out: the network returns its states at every step.
        every_step: read out at every step, not only after the last.
    """

    def __init__(self, n_in: int, width: int, n_out: int | None, *, every_step: bool = False) -> None:
        super().__init__(width, n_out, every_step=every_step)
        self.gates = Site("pre", unrolled=True)
        self.w_in, self.w_rec = nn.Linear(n_in, 3 * width), nn.Linear(width, 3 * width)
        for parameter in (*self.w_in.parameters(), *self.w_rec.parameters()):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)  # as torch.nn.GRU

    def drives(self, x: Tensor) -> Tensor:
        """What the input adds to the arguments of both gates and of the candidate, ``(batch, time, 3 * width)``."""
        drives: Tensor = self.w_in(x)
        return drives

    def update(self, drive: Tensor, state: Tensor) -> Tensor:
        """One step of the equations."""
        own, gates = self.w_rec(self.recurrent(state)), 2 * self.width
        reset, kept = torch.sigmoid(self.gates(drive[:, :gates] + own[:, :gates])).chunk(2, -1)
        candidate = torch.tanh(self.pre(drive[:, gates:] + reset * own[:, gates:]))
        return (1 - kept) * candidate + kept * state
