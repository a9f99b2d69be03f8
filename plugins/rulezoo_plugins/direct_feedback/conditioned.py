"""Conditioned direct feedback alignment (nDFA): updates are divided by second moments of activity and error.

Safaai, Reddy & Sabatini 2026, Conditioned Direct Feedback Alignment via Activity and Error Geometry; this follows the
README and the preregistered settings of its public code (github.com/KempnerInstitute/conditioned-dfa). Let G be the
update of direct feedback alignment for the weight of a hidden layer, the mean of δ aᵀ over the batch, with a the layer's
input and δ = (Bᵀ e) ⊙ φ'(s) an example's error at its output. With A and E the means of a aᵀ and δ δᵀ over the batch,

    activity nDFA: G (A + λ_A)⁻¹        error nDFA: (E + λ_E)⁻¹ G        K-nDFA: (E + λ_E)⁻¹ G (A + λ_A)⁻¹.

Then G is scaled to the norm that it had before (``match_norm``). Biases, normalisation and the read-out are not
conditioned. The limit of large damping is direct feedback alignment.

Choices: moments are those of the current batch, as in the code. The input of a convolution is each of its patches, of
channels × kernel numbers, and δ that of each position; on a recurrent network the rows of all time steps count. A layer
with fewer rows than inputs is conditioned in the space of the rows, which gives the same numbers: G (A + λ)⁻¹ =
(G − G aᵀ (a aᵀ + r λ)⁻¹ a) / λ for r rows a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, Layer, Net, State, Step, Task, credit, hp
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.direct_feedback.visits import received

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class ConditionedDirectFeedback(DirectFeedbackAlignment):
    """Direct feedback alignment with updates in units of the spread of activity, of error, or of both."""

    condition: str = hp("both", "what the updates are conditioned by", choices=("activity", "error", "both"))
    activity_damping: float = hp(
        0.3, "what is added to the second moment of a layer's input", low=1e-9, search=(0.03, 3), log=True
    )
    error_damping: float = hp(
        0.1, "what is added to the second moment of a layer's error, of the loss of one example", low=1e-9,
        search=(0.003, 3), log=True,
    )  # fmt: skip
    match_norm: bool = hp(True, "scale a conditioned update to the norm that it had before")

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs sites, and hidden layers whose inputs and errors can be read."""
        if reason := super().skip(net, task):
            return reason
        hidden = _hidden(net)
        odd = next(
            (one.name for one in net.layers if _is_hidden(net, one) and one not in hidden.values()), None
        )
        if odd is not None or not hidden:
            what = f"layer {odd!r} is not" if odd is not None else "there is none"
            return f"conditioning needs hidden layers that are linear or convolutional with a plain weight, and {what}"
        blind = next((name for name, layer in hidden.items() if not layer.pre), None)
        if blind is not None and self.condition != "activity":
            return (
                f"conditioning by the error needs a site of kind 'pre' behind every hidden layer, and {blind!r} has none; "
                "set condition=activity"
            )
        split = next((name for name, layer in hidden.items() if len(_sites(net, layer)) > 1), None)
        if split is not None and self.condition != "activity":
            return (
                "conditioning by the error needs one site of kind 'pre' for all outputs of a hidden layer, and "
                f"{split!r} has {len(_sites(net, hidden[split]))}; set condition=activity"
            )
        return None

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        hidden, by_error = _hidden(net), self.condition != "activity"
        observed = [key for layer in hidden.values() for key in layer.pre] if by_error else []
        grads, errors, mean = _direct_feedback(net, loss, params, state, batch, observed)
        inputs = credit.layer_inputs(net, params, batch.x, hidden) if self.condition != "error" else {}
        for name, layer in hidden.items():
            update = raw = grads[name].flatten(1)
            if name in inputs:
                update = divided(update, inputs[name].to(update.dtype), self.activity_damping)
            if by_error:
                rows = torch.cat([_positions(layer, errors[key]) for key in layer.pre])
                of_one = len(batch.x) * rows.to(update.dtype)
                update = divided(update.mT, of_one, self.error_damping).mT
            if self.match_norm:
                update = update * (raw.norm() / update.norm().clamp(min=torch.finfo(update.dtype).tiny))
            grads[name] = update.view_as(grads[name])
        return Step(grads, state, mean)


def divided(update: Tensor, rows: Tensor, damping: float) -> Tensor:
    """``update @ (rowsᵀ rows / len(rows) + damping)⁻¹`` for ``(m, n)`` and ``(r, n)``, by the smaller of two systems."""
    r, n = rows.shape
    if n <= r:
        moment = rows.mT @ rows / r + damping * torch.eye(n, dtype=rows.dtype, device=rows.device)
        solved: Tensor = torch.linalg.solve(moment, update.mT)
        return solved.mT
    inner = rows @ rows.mT + r * damping * torch.eye(r, dtype=rows.dtype, device=rows.device)
    within: Tensor = update @ rows.mT @ torch.linalg.solve(inner, rows)
    return (update - within) / damping


def _direct_feedback(
    net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, observed: list[str]
) -> tuple[Tensors, Tensors, Tensor]:
    """The gradients of direct feedback alignment; the errors at the sites ``observed``; the mean loss."""
    cuts = set(net.keys("post"))

    def forward(at: tuple[Tensors, Tensors]) -> tuple[Tensor, Tensors]:
        p, offsets = at
        sites: Tensors = {}

        def tap(key: str, h: Tensor) -> Tensor:
            if key in cuts:
                sites[key] = h
                return h.detach()
            return h + offsets[key] if key in offsets else h

        return net.run(p, batch.x, tap), sites

    offsets = {key: net.zeros(key, len(batch.x)) for key in observed}
    (output, sites), pull = credit.value_and_pull(forward, (params, offsets))
    error, mean = credit.output_error(loss, output, batch.y)
    signals = {
        key: (rows @ state.buffers[f"feedback.{net.visits[key].site}"])
        .view_as(sites[key])
        .to(sites[key].dtype)
        for key, rows in received(net, error).items()
    }
    grads, errors = pull((error.to(output.dtype), signals))
    return grads, errors, mean


def _sites(net: Net, layer: Layer) -> set[str]:
    """Names of the sites of kind ``pre`` behind a layer; a recurrent network visits each of them at every step."""
    return {net.visits[key].site for key in layer.pre}


def _is_hidden(net: Net, layer: Layer) -> bool:
    return any(name in net.shapes and name not in net.readout for name in layer.weights)


def _hidden(net: Net) -> dict[str, Layer]:
    """Weight → its layer, for the trained linear and convolution layers in front of the last site."""
    layers = (one for one in net.layers if one.plain and one.operation in ("linear", "convolution"))
    return {one.weights[0]: one for one in layers if _is_hidden(net, one)}


def _positions(layer: Layer, error: Tensor) -> Tensor:
    """The errors at a layer's output, ``(rows, outputs)``: of every example and position or time step."""
    return (error.movedim(1, -1) if layer.operation == "convolution" else error).flatten(0, -2)
