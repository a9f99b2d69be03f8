"""What the tasks in the settings of public code share: pixels and parts of their data, and dense networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from rulezoo import Data, Site, Split
from rulezoo_tasks.images import Source

_SEED = 0


def parts(
    source: Source,
    root: Path | None,
    *,
    download: bool,
    held_out: int,
    mean: Sequence[float] = (0.0,),
    sd: Sequence[float] = (1.0,),
) -> Data:
    """Training images in a fixed shuffle, the last ``held_out`` of them (at most half) for validation; the test images.

    Pixels are fractions of white, minus ``mean``, divided by ``sd``, each a number for every channel.
    """
    original, test = source.read(root, download=download)
    order = torch.randperm(len(original.y), generator=torch.Generator().manual_seed(_SEED))
    count = min(held_out, len(order) // 2)

    def part(x: Tensor, y: Tensor) -> Split:
        pixels = x.float().div_(255)
        return Split(pixels.sub_(_per_channel(mean)).div_(_per_channel(sd)).contiguous(), y)

    train, validation = order[:-count], order[-count:]
    return Data(
        train=part(original.x[train], original.y[train]),
        validation=part(original.x[validation], original.y[validation]),
        test=part(test.x, test.y),
    )


def first(data: Data, examples: int | None) -> Data:
    """The same data with the first ``examples`` of the training part; ``None`` = all."""
    return data._replace(train=Split(data.train.x[:examples], data.train.y[:examples]))


def drawn(data: Data, examples: int) -> Data:
    """The same data with ``examples`` training examples drawn with replacement, always the same."""
    generator = torch.Generator().manual_seed(_SEED)
    index = torch.randint(len(data.train.y), (examples,), generator=generator)
    return data._replace(train=Split(data.train.x[index], data.train.y[index]))


def dense(
    widths: Sequence[int],
    activation: Callable[[], nn.Module],
    init: Callable[[nn.Linear], None] | None = None,
    *,
    bias: bool = True,
    dropout: float = 0.0,
    unit_feedback: bool = False,
) -> nn.Sequential:
    """Dense hidden layers ``fc1``, ``fc2``, …, each with a ``pre`` and a ``post`` site, and a linear ``readout``.

    Args:
        widths: units of the input, of each hidden layer, and of the output.
        activation: makes the nonlinearity of a hidden layer.
        init: sets the weights and biases of a layer in place; ``None`` = as torch draws them.
        bias: whether layers have biases.
        dropout: share of hidden units that are silent in training, behind their site.
        unit_feedback: a ``post`` site carries the activity times √units, and the next layer has the activity itself. Direct
            feedback weights with a standard deviation of 1/√units then reach the activity with one of 1.
    """
    layers = [nn.Linear(n_in, n_out, bias=bias) for n_in, n_out in pairwise(widths)]
    for layer in layers:
        if init is not None:
            init(layer)
    modules: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for i, layer in enumerate(layers[:-1], 1):
        hidden: dict[str, nn.Module] = {"layer": layer, "pre": Site("pre"), "activation": activation()}
        if unit_feedback:
            factor = layer.out_features**0.5
            hidden |= {"scaled": _Times(factor), "post": Site("post"), "activity": _Times(1 / factor)}
        else:
            hidden["post"] = Site("post")
        modules[f"fc{i}"] = nn.Sequential(OrderedDict(hidden))
        if dropout:
            modules[f"dropout{i}"] = nn.Dropout(dropout)
    return nn.Sequential(OrderedDict(modules, readout=layers[-1]))


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def _per_channel(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers).view(-1, 1, 1)
