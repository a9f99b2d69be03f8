"""MNIST for a few hundred updates, in the settings of two notebooks of a library for predictive coding.

https://github.com/thebuckleylab/jpc, examples ``jpc_from_scratch`` and ``epc`` with their printed output, one network
each: pixels standardised with mean 0.1307 and sd 0.3081; weights and biases uniform in ±1/√inputs; half the squared
distance to the one-hot label; Adam, learning rate 0.001, batches of 64.

- ``jpc_from_scratch``: 784-300-300-10, tanh; 20 steps of activities with a rate of 0.1 on the energy's mean over the
  batch without its factor ½, which is 0.2/64 = 0.003125 on each example's energy; 500 updates.
- ``epc``: ten layers of weights, 128 rectified units in each hidden layer, whose prediction errors are those of the
  drive, in front of the nonlinearity; 10 steps of errors with a rate of 0.5 on the mean, which is 0.5/64 = 0.0078125;
  300 updates. There, the output has an error of its own that relaxes, too, which scales the output's error for all layers.

Deviations: 1,000 training images are held out, since every task has a validation part; the updates go once through the
first images of a fixed shuffle, in an order of the seed's. The notebooks leave out the last 16 test images.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, Site, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import MNIST
from rulezoo_tasks.public_settings import dense, first, parts

_HELD_OUT = 1_000
_EXAMPLES = "training examples, the first of a fixed order"


@dataclass(frozen=True)
class _SquaredError(Classification):
    """Inputs ``(batch, 1, 28, 28)``, standardised; outputs ``(batch, 10)``, near 1 for the class and 0 for others."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=64, lr=1e-3, optimizer="Adam")

    examples: int

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The first training images of a fixed shuffle, the last 1,000 for validation, the test images."""
        data = parts(MNIST, root, download=download, held_out=_HELD_OUT, mean=(0.1307,), sd=(0.3081,))
        return first(data, self.examples)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Half the squared distance to the one-hot label, ``(batch,)``."""
        return (output - F.one_hot(target, output.shape[-1]).to(output.dtype)).square().sum(-1) / 2


@dataclass(frozen=True)
class MNISTSquaredMLP(_SquaredError):
    """MNIST, 784-300-300-10, tanh. Published, one network after 500 updates: predictive coding 93.76 %."""

    examples: int = hp(32_000, _EXAMPLES, low=64)

    def network(self) -> nn.Module:
        """Two hidden layers of 300 tanh units."""
        return dense((784, 300, 300, 10), nn.Tanh)


@dataclass(frozen=True)
class MNISTDeepMLP(_SquaredError):
    """MNIST, nine hidden layers of 128 units. Published, one network after 300 updates: error-based predictive coding 91.61 %."""

    examples: int = hp(19_200, _EXAMPLES, low=64)

    def network(self) -> nn.Module:
        """Hidden layers with a ``post`` site on their drive, which the next layer rectifies."""
        layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise((784, *(128,) * 9, 10))]
        modules: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for i, layer in enumerate(layers[:-1], 1):
            parts: dict[str, nn.Module] = {} if i == 1 else {"relu": nn.ReLU()}
            modules[f"fc{i}"] = nn.Sequential(OrderedDict(parts, layer=layer, post=Site("post")))
        return nn.Sequential(OrderedDict(modules, relu=nn.ReLU(), readout=layers[-1]))
