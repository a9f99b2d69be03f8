r"""Hebbian learning: weights follow the correlation of what a unit receives with what it responds, without any error.

With x an input of a layer minus its mean over the batch, w_k the weights of unit k and u_k = w_k·x:

- `SoftHebb`: Moraitis, Toichkin, Journé, Chua & Guo 2022 (doi:10.1088/2634-4386/aca710) for one layer; Journé, Garcia
  Rodriguez, Guo & Moraitis 2023 (arXiv:2209.11883) for deep and convolutional networks. Units compete softly,
  y = softmax(u/τ), and
      Δw_k = η_k y_k (x − u_k w_k),    η_k = η |‖w_k‖ − 1|^power.
  With ``anti``, all units but the winner learn with −y_k (Journé et al.). ``power=0`` and ``anti=false`` give the rule of
  Moraitis et al. Weights converge to length 1.
- `Oja`: ΔW = η (E[u xᵀ] − M W) with M = E[u uᵀ] (``coupling=subspace``; Oja 1989, doi:10.1142/S0129065789000475): the rows of W
  come to span the principal subspace. With the diagonal of E[u uᵀ] (``coupling=none``; Oja 1982, doi:10.1007/BF00275687) each
  unit finds the first principal direction by itself.
- `Sanger`: the generalised Hebbian algorithm, with the lower triangle of E[u uᵀ] (Sanger 1989,
  doi:10.1016/0893-6080(89)90044-0): the rows of W become the principal components in their order. They do so if η falls,
  with a sum without bound: η_t = η / (1 + t / ``halving``).

Inputs of a convolution are its patches; the units at one position compete, and updates are averaged over positions.

Deviations: inputs are centred over the batch; biases follow the mean, b → −w·E[x], so that the drives of the network are those
of the rule. SoftHebb: inputs are also scaled to unit length in the update (in Moraitis et al. they are; in Journé et al. batch
normalisation of the layer's input takes this place), and the change is the mean over a batch, not scaled by its
largest element. Networks keep their own nonlinearity and pooling. Oja and Sanger: η is in units of 1/E[‖x‖²], which makes the
step independent of the size of the inputs, and a layer may be one of several with a nonlinearity behind it. Everywhere the
read-out is trained together with the hidden layers, by the gradient of the loss; other hidden parameters
(normalisation layers, for example) do not learn.

With more units than inputs, Sanger's last units have nothing left to learn from and fall silent; of Oja's subspace rule none do.
Components of small variance are small inputs of the read-out, which therefore has a learning rate of its own by default.
Accuracy on validation data of digits-cnn (mean of 2 seeds; `frozen` 82.5 %): 73.6 % with constant η = 0.05 and the task's
learning rate, 82.5 % with η = 0.2, ``halving=40`` and the task's learning rate, 89.2 % by default; Oja 93.6 %. With a constant
η the later components still turn when the learning rate of the read-out has gone to 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, Layer, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]
_SILENT = 1e-12  # least squared length of all inputs together: a silent layer is left alone


@dataclass(frozen=True)
class _Hebbian(LearningRule):
    rate: float = hp(0.5, "learning rate of the Hebbian updates", low=0, search=(0.01, 1), log=True)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs hidden layers whose units have one weight vector each, and a read-out."""
        if not net.readout:
            return "it needs a read-out to train, and no parameter lies behind the last site"
        if net.keys("recurrent"):
            return "a unit's drive must come from one layer, and in this recurrent network it comes from two"
        if not _hidden(net) or any(not _is_served(net, layer) for layer in _hidden(net)):
            return "it needs hidden layers that are linear or convolutional, without groups and with a plain weight"
        return None

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        layers = {one.weights[0]: one.parameters for one in _hidden(net)}
        layers = {name: own for name, own in layers.items() if name in own}

        def mean_loss(readout: Tensors) -> tuple[Tensor, Tensors]:
            inputs, output = credit.run_with_inputs(net, {**params, **readout}, batch.x, layers)
            return loss(output, batch.y).mean(), inputs

        (mean, inputs), pull = credit.value_and_pull(mean_loss, {n: params[n] for n in sorted(net.readout)})
        grads = pull((torch.ones_like(mean), {name: torch.zeros_like(x) for name, x in inputs.items()}))
        updates: Tensors = {}
        for name, x in inputs.items():
            w, centre = params[name].flatten(1), x.mean(0)
            updates[name] = self._rate(t) * self._change(w, x - centre).view_as(params[name])
            for bias in {*layers[name]} - {name}:
                updates[bias] = -self.rate * (w @ centre + params[bias])
        return Step(grads, state, mean, updates=updates)

    def _change(self, w: Tensor, x: Tensor) -> Tensor:
        """What the weights ``(units, n)`` change by, for centred inputs ``(rows, n)``."""
        raise NotImplementedError

    def _rate(self, t: int) -> float:
        """The learning rate at step ``t``."""
        return self.rate


@dataclass(frozen=True)
class SoftHebb(_Hebbian):
    """Units compete softly for inputs, and move towards those that they win."""

    sharp: float = hp(50.0, "inverse temperature 1/τ of the competition", low=1e-6, search=(1, 100), log=True)
    anti: bool = hp(False, "all units but the winner of an input move away from it")
    power: float = hp(
        0.5, "power by which learning slows down as the length of a weight vector nears 1", low=0
    )

    def _change(self, w: Tensor, x: Tensor) -> Tensor:
        x = F.normalize(x, dim=1)
        u = x @ w.T
        y = torch.softmax(self.sharp * u, dim=1)
        if self.anti:
            y = torch.where(u == u.amax(1, keepdim=True), y, -y)
        change = (y.T @ x - (y * u).sum(0)[:, None] * w) / len(x)
        slower: Tensor = (w.norm(dim=1, keepdim=True) - 1).abs().pow(self.power)
        return change * slower


@dataclass(frozen=True)
class _Principal(_Hebbian):
    """What a unit learns from is its input minus what units explain of it."""

    def _change(self, w: Tensor, x: Tensor) -> Tensor:
        u = x @ w.T
        return (u.T @ x - self._explaining(u.T @ u) @ w) / x.square().sum().clamp_min(_SILENT)

    def _explaining(self, correlations: Tensor) -> Tensor:
        """Of the correlations ``(units, units)`` those with units that explain the input of the unit of the row."""
        raise NotImplementedError


@dataclass(frozen=True)
class Oja(_Principal):
    """Units find the principal subspace of their inputs, or each the first principal direction."""

    coupling: str = hp(
        "subspace",
        "what explains the input of a unit: all units (subspace), or it alone (none)",
        choices=("subspace", "none"),
    )

    def _explaining(self, correlations: Tensor) -> Tensor:
        return correlations if self.coupling == "subspace" else correlations.diag().diag()


@dataclass(frozen=True)
class Sanger(_Principal):
    """Units find the principal components of their inputs in order: a unit and those in front of it explain its input."""

    lr: float | None = hp(0.03, "learning rate; none = the task's", low=0)
    rate: float = hp(0.2, "learning rate of the Hebbian updates at first", low=0, search=(0.01, 1), log=True)
    halving: float = hp(
        50.0,
        "number of steps after which the learning rate of the Hebbian updates is half of that at first",
        low=1e-6,
        search=(10, 1000),
        log=True,
    )

    def _rate(self, t: int) -> float:
        return self.rate / (1 + t / self.halving)

    def _explaining(self, correlations: Tensor) -> Tensor:
        return correlations.tril()


def _hidden(net: Net) -> list[Layer]:
    return [layer for layer in net.layers if not {*layer.weights} & net.readout]


def _is_served(net: Net, layer: Layer) -> bool:
    if not layer.plain or layer.operation not in ("linear", "convolution"):
        return False
    module = net.module.get_submodule(layer.weights[0].rpartition(".")[0])
    return getattr(module, "groups", 1) == 1
