r"""PEPITA: present the error to perturb the input to modulate activity.

Dellaferrera & Kreiman 2022 (arXiv:2201.11665), algorithm 1. Two forward passes: the standard pass of the input x gives the
activities h_l and the error e at the output; the modulated pass, of x + F e with a fixed random matrix F, gives h_l'. Then

    ΔW_l ∝ −(h_l − h_l') h_{l−1}'ᵀ for hidden layers, with h_0' = x + F e,
    ΔW_L ∝ −e' h_{L−1}'ᵀ for the read-out, with the error e' of the modulated pass.

No derivative of a nonlinearity is involved. In a convolutional layer the product is averaged over positions. To first order in
F it is feedback alignment in which the feedback weights are products of the forward weights and F (Srinivasan, Mignacco,
Sorbaro, Refinetti, Cooper, Kreiman & Dellaferrera 2024, arXiv:2302.05440).

F is uniform in ±``size``·√(6/inputs), as in the authors' code. The same dropout is used in both passes.

Deviations: e is the gradient of the task's loss with respect to the output, which is softmax minus one-hot for cross-entropy,
as in the paper. h_l is the activity at the ``post`` site of a layer; a skip connection that joins in front of the site is part
of it. Where pooling lies between the ``pre`` and the ``post`` site, the difference of the pooled activity is returned to the
units through the derivative of what lies between. Biases, which the paper does not have, learn like a weight from a
presynaptic activity of 1. Under plain SGD, as in the paper, F is so small that hidden layers learn much more slowly than the
read-out; an adaptive optimiser makes them equally fast, and ``hidden_rate`` undoes that.

Accuracy on validation data (mean of 2 seeds) of digits-mlp is 91.7 % by default and 93.9 % with ``hidden_rate=0.3``, where
`frozen` has 84.2 %. On digits-cnn, two convolutions and a dense layer, no value is above `frozen` (82.5 %): 77.5 % by default, 82.2 %
with ``hidden_rate=0.003``, 66.1 % with 0.1; with momentum SGD, the paper's optimiser, 70.6 % (`frozen` 72.5 %). The paper's
convolutional networks have one convolution and the read-out (``Net1conv1fcXL`` in github.com/GiorgiaD/PEPITA). In such a network of 16
channels it is 94.2 % on the digits with ``hidden_rate=0.1`` (`frozen` 93.4 %).
In bfloat16 a few bits are left of h_l − h_l'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Pepita(LearningRule):
    """The error modulates the input; hidden layers learn from the change of activity that this causes."""

    lr: float | None = hp(0.01, "learning rate; none = the task's", low=0)
    size: float = hp(
        0.05, "size of the projection of the error to the input", low=1e-6, search=(0.005, 1), log=True
    )
    hidden_rate: float = hp(
        0.03,
        "learning rate of hidden layers, relative to that of the read-out",
        low=1e-6,
        search=(1e-3, 1),
        log=True,
    )

    def rates(self, net: Net) -> dict[str, float]:
        """Hidden layers learn with a rate of their own."""
        return {name: self.hidden_rate for name in net.shapes if name not in net.readout}

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs hidden layers with a ``pre`` and a ``post`` site, in series, and inputs to which an error can be added."""
        if not net.keys("post"):
            return "it needs sites of kind 'post', whose activity changes, and this network has none"
        if net.keys("recurrent"):
            return "it is defined for networks whose layers are in series, and this one is recurrent"
        if not net.example.is_floating_point():
            return f"it adds the error to inputs, which must be real numbers, and here they are {net.example.dtype}"
        if not net.readout:
            return "its read-out learns from the error itself, and this network has no parameters behind the last site"
        hidden = [layer for layer in net.layers if not {*layer.parameters} <= net.readout]
        if any(len(layer.pre) != 1 or len(layer.post) != 1 for layer in hidden):
            return "it needs a site of kind 'pre' and one of kind 'post' behind every hidden layer"
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The fixed random projection F of the error to the input, ``(outputs, inputs)``."""
        inputs = batch.x[0].numel()
        drawn = torch.rand((net.output_width, inputs), generator=gen, dtype=net.memory_dtype())
        limit = self.size * (6 / inputs) ** 0.5
        return State(buffers={"F": (limit * (2 * drawn - 1)).to(net.example.device)})

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        size = len(batch.x)
        sites, output = credit.blocks(net, params, batch.x, {})
        error, mean = credit.output_error(loss, output, batch.y)
        added = size * credit.rows(error) @ state.buffers["F"]
        modulated = batch.x + added.view_as(batch.x).to(batch.x.dtype)

        unpooled = self._unpooled(net)
        second = credit.cut(net, params, modulated, {*net.keys("post"), *unpooled})
        changes = {key: (sites[key] - second.sites[key]) / size for key in net.keys("post")}
        changes |= {pre: changes[post] for pre, post in unpooled.items()}
        own, _ = credit.output_error(loss, second.output, batch.y)
        grads = second.pull(own, changes)
        for name, positions in self._positions(net).items():
            grads[name] = grads[name] / positions
        return Step(grads, state, mean)

    def _unpooled(self, net: Net) -> dict[str, str]:
        """The ``pre`` site of each layer whose ``post`` site has as many units → that ``post`` site."""
        pairs = [(layer.pre[0], layer.post[0]) for layer in net.layers if layer.pre and layer.post]
        return {pre: post for pre, post in pairs if net.visits[pre].shape == net.visits[post].shape}

    def _positions(self, net: Net) -> dict[str, int]:
        """Parameter of a hidden convolution → number of positions at its ``post`` site."""
        layers = [one for one in net.layers if one.operation == "convolution" and one.post]
        shapes = {name: net.visits[one.post[0]].shape for one in layers for name in one.parameters}
        return {name: torch.Size(shape[1:]).numel() for name, shape in shapes.items()}
