"""The networks of the built-in tasks: plain torch modules with sites.

Every hidden layer has a ``pre`` site on its drive and a ``post`` site on what the next layer sees; the read-out has
none. None of them normalises over the batch, so a network is a pure function of its parameters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rulezoo import Site


def _hidden(layer: nn.Module, *, pool: bool = False) -> nn.Sequential:
    """A layer with ReLU and its two sites; ``pool`` halves height and width in front of the ``post`` site."""
    parts: dict[str, nn.Module] = {"layer": layer, "pre": Site("pre"), "relu": nn.ReLU()}
    if pool:
        parts["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(OrderedDict(parts, post=Site("post")))


class MLP(nn.Sequential):
    """Dense ReLU layers ``fc1``, ``fc2``, … and a linear ``readout``; the input is flattened.

    Args:
        widths: units of the input, of each hidden layer, and of the output.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        *hidden, outputs = widths
        layers = {
            f"fc{i}": _hidden(nn.Linear(n_in, n_out)) for i, (n_in, n_out) in enumerate(pairwise(hidden), 1)
        }
        super().__init__(OrderedDict(flatten=nn.Flatten(), **layers, readout=nn.Linear(hidden[-1], outputs)))


class ConvNet(nn.Sequential):
    """Blocks ``conv1``, ``conv2``, … of a 3×3 convolution, ReLU and perhaps pooling; a dense ``fc``; a ``readout``.

    Args:
        in_shape: ``(channels, height, width)`` of an image.
        channels: channels of each convolution.
        pool: for each convolution, whether a 2×2 max-pooling follows.
        hidden: units of the dense layer.
        classes: units of the read-out.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        channels: Sequence[int],
        pool: Sequence[bool],
        hidden: int,
        classes: int,
    ) -> None:
        depth, height, width = in_shape
        blocks: dict[str, nn.Module] = {}
        for i, (n_out, pooled) in enumerate(zip(channels, pool, strict=True), 1):
            blocks[f"conv{i}"] = _hidden(nn.Conv2d(depth, n_out, 3, padding=1), pool=pooled)
            depth = n_out
            if pooled:
                height, width = height // 2, width // 2
        super().__init__(
            OrderedDict(
                **blocks,
                flatten=nn.Flatten(),
                fc=_hidden(nn.Linear(depth * height * width, hidden)),
                readout=nn.Linear(hidden, classes),
            )
        )


class LeakyRNN(nn.Module):
    """A leaky recurrent network: ``h[t] = (1 - leak) h[t-1] + leak * tanh(W_rec h[t-1] + W_in x[t] + b)``, ``h[-1] = 0``.

    Its sites are visited once per step: ``recurrent``, the edge from ``h[t-1]`` into ``W_rec``; ``pre``, the argument
    of tanh; ``hidden``, the state ``h[t]`` as the leak, the next step and the read-out see it.

    Args:
        n_in: units of the input.
        width: hidden units.
        n_out: units of the read-out.
        leak: the share of the state that is new at each step, in (0, 1].
        every_step: read out at every step, not only at the last.
    """

    def __init__(self, n_in: int, width: int, n_out: int, leak: float, *, every_step: bool) -> None:
        super().__init__()
        self.width = width
        self.leak = leak
        self.every_step = every_step
        self.w_in = nn.Linear(n_in, width)
        self.w_rec = nn.Linear(width, width, bias=False)
        self.w_out = nn.Linear(width, n_out)
        self.recurrent = Site("recurrent", unrolled=True)
        self.pre = Site("pre", unrolled=True)
        self.hidden = Site("post", unrolled=True)
        nn.init.orthogonal_(self.w_rec.weight)  # neither amplifies nor forgets, whatever the number of steps

    def forward(self, x: Tensor) -> Tensor:
        """The read-out of ``x``, ``(batch, time, n_in)``: ``(batch, n_out)``, or ``(batch, time, n_out)``."""
        h = x.new_zeros(len(x), self.width)
        states = []
        for drive in self.w_in(x).unbind(1):  # one product for the whole sequence
            pre = self.pre(self.w_rec(self.recurrent(h)) + drive)
            h = self.hidden((1 - self.leak) * h + self.leak * torch.tanh(pre))
            states.append(h)
        output: Tensor = self.w_out(torch.stack(states, 1) if self.every_step else h)
        return output
