"""The empirical neural tangent kernel before and after training: its spectrum, its fit to the labels, its change.

Θ[(i, a), (j, b)] = ⟨∂f_a(x_i)/∂θ, ∂f_b(x_j)/∂θ⟩ for the outputs f of a network and its trainable parameters θ. Jacot, Gabriel &
Hongler 2018, https://arxiv.org/abs/1806.07572; kernel distance: Fort et al. 2020, https://arxiv.org/abs/2010.15110; centred
alignment: Cortes, Mohri & Rostamizadeh 2012, https://jmlr.org/papers/v13/cortes12a.html; effective rank: Roy & Vetterli 2007,
EUSIPCO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.func import grad, vmap

from rulezoo import Evaluation, Measurement, MeasurementError, Net, hp
from rulezoo_evaluations.classifiers import some

if TYPE_CHECKING:
    from rulezoo import TrainedNetwork

    Tensors = dict[str, Tensor]

_BYTES = 1 << 31  # of the gradients that are held
_PIECES = 8  # parts in which they are computed


# The kernel ------------------------------------------------------------------------------------------------------------


def tangent_kernel(
    net: Net, params: Tensors, x: Tensor, directions: Tensor, most_bytes: int = _BYTES
) -> Tensor:
    """Θ for inputs and directions of the output, float64 ``(n, k, n, k)`` on the CPU.

    Gradients of as many rows as fit are held; those of the rows behind them are computed in turn, a few at a time, again
    for each block of the kernel.

    Args:
        net: the network in evaluation mode.
        params: its trainable parameters.
        x: inputs, ``(n, ...)``.
        directions: ``(k, width)``: the gradient is that of each direction's product with the flattened output; the identity
            for all outputs.
        most_bytes: of the gradients that are held.
    """
    n, k = len(x), len(directions)
    per_row = sum(p.numel() * p.element_size() for p in params.values())
    piece = max(1, most_bytes // _PIECES // per_row)
    rows = torch.arange(n * k)
    kernel = torch.empty(n * k, n * k, dtype=torch.float64)
    for block in torch.split(rows, piece * _PIECES):
        held = [p.new_empty(len(block), p.numel()) for p in params.values()]
        for columns in torch.split(rows[block[0] :], piece):
            right = _gradients(net, params, x[columns // k], directions[columns % k])
            known = columns[-1] + 1 - block[0]  # rows of the block whose gradients are known by now
            if known <= len(block):
                for own, more in zip(held, right, strict=True):
                    own[known - len(columns) : known] = more
            upto = block[:known]
            products = [(a[:known] @ b.T).double() for a, b in zip(held, right, strict=True)]
            found = torch.stack(products).sum(0).cpu()
            kernel[upto[:, None], columns], kernel[columns[:, None], upto] = found, found.T
    return kernel.view(n, k, n, k)


def _gradients(net: Net, params: Tensors, x: Tensor, directions: Tensor) -> list[Tensor]:
    """The gradient of each example's output in its direction: one matrix ``(rows, numbers)`` for each parameter."""

    def along(values: Tensors, one: Tensor, direction: Tensor) -> Tensor:
        return net.run(values, one[None]).flatten() @ direction

    found = vmap(grad(along), (None, 0, 0))(params, x, directions.to(x.device))
    return [gradient.flatten(1) for gradient in found.values()]


def output_directions(width: int, most: int, seed: int) -> Tensor:
    """All ``width`` outputs, or ``most`` random orthonormal directions of unit length, ``(k, width)``."""
    if width <= most:
        return torch.eye(width)
    drawn = torch.randn(width, most, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(drawn)[0]
    return orthonormal.T.float()


def over_examples(kernel: Tensor) -> Tensor:
    """The mean over outputs of the kernel of one output, ``(n, n)``: Σ_a Θ[(i, a), (j, a)] / k.

    With random directions in place of all outputs, it is an unbiased estimate of that mean.
    """
    summed: Tensor = torch.einsum("iaja->ij", kernel)
    return summed / kernel.shape[1]


# What is said of it -----------------------------------------------------------------------------------------------------


def spectrum(kernel: Tensor) -> Tensor:
    """Eigenvalues of Θ as a matrix over examples and outputs, the largest first; rounding errors below 0 are 0."""
    n, k = kernel.shape[:2]
    found: Tensor = torch.linalg.eigvalsh(kernel.reshape(n * k, n * k))
    return found.flip(0).clamp_min(0)


def entropy_rank(eigenvalues: Tensor) -> float:
    """The exponential of the entropy of the eigenvalues' shares of their sum: between 1 and their number."""
    shares = eigenvalues / eigenvalues.sum()
    return float(torch.special.entr(shares).sum().exp())


def participation_ratio(eigenvalues: Tensor) -> float:
    """(Σ λ)² / Σ λ²: between 1 and the number of eigenvalues."""
    return float(eigenvalues.sum().square() / eigenvalues.square().sum())


def cosine(one: Tensor, other: Tensor) -> float:
    """⟨A, B⟩ / (‖A‖ ‖B‖) of two kernels, with Frobenius's norm; NaN where one is zero."""
    a, b = one.flatten(), other.flatten()
    norm = a.norm() * b.norm()
    return float((a / a.norm()) @ (b / b.norm())) if norm > 0 else math.nan


def centred_alignment(kernel: Tensor, targets: Tensor) -> float:
    """The alignment of a kernel ``(n, n)`` and of Y Yᵀ, both centred; between −1 and 1.

    Args:
        kernel: over examples.
        targets: ``(n, m)``: one-hot labels, or numbers.
    """
    y = targets.double() - targets.double().mean(0)
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    if centred.norm() <= 1e-12 * kernel.norm():  # the kernel is constant
        return math.nan
    return cosine(centred, y @ y.T)


# The evaluation ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TangentKernel(Evaluation):
    """The tangent kernel for a part of the test inputs, before and after training."""

    headline: ClassVar[str] = "alignment"
    higher_is_better: ClassVar[bool | None] = True

    examples: int = hp(64, "test examples, drawn at random", low=2, high=4096)
    outputs: int = hp(
        10,
        "outputs; of a network with more, that number of random directions of the output",
        low=1,
        high=1000,
    )
    seed: int = hp(0, "seed of the examples and directions", low=0)

    def skip(self, network: TrainedNetwork) -> str | None:
        """Tasks that do not declare what their targets are."""
        if network.made_task.targets is None:
            return f"the task {network.task} does not declare its targets, with which the kernel is to be aligned"
        return None

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Effective rank, alignment and size of both kernels, and the distance of one from the other."""
        test = network.data(root).test
        chosen = some(len(test.y), self.examples, self.seed)
        x, y = test.x[chosen.to(test.y.device)], test.y[chosen.to(test.y.device)].cpu()
        if network.made_task.targets == "labels":
            y = torch.nn.functional.one_hot(y.long(), int(network.made_task.classes or y.max() + 1))
        directions = output_directions(network.net.output_width, self.outputs, self.seed)
        before, after = (
            tangent_kernel(one.net, one.params, x, directions.to(network.net.output_dtype))
            for one in (network.untrained(), network)
        )
        return compared(before, after, y.reshape(len(y), -1))


def compared(before: Tensor, after: Tensor, targets: Tensor) -> Measurement:
    """The measurement for two kernels ``(n, k, n, k)`` and targets ``(n, m)``.

    Raises:
        MeasurementError: if a kernel is not finite.
    """
    values: dict[str, float] = {}
    arrays: dict[str, Any] = {}
    for when, kernel in (("", after), ("/untrained", before)):
        if not kernel.isfinite().all():
            raise MeasurementError(
                f"the tangent kernel of the {'trained' if not when else 'untrained'} network is not finite; it has "
                "probably diverged"
            )
        eigenvalues, small = spectrum(kernel), over_examples(kernel)
        zero = not bool(eigenvalues.sum() > 0)
        values |= {
            f"alignment{when}": centred_alignment(small, targets),
            f"effective-rank{when}": math.nan if zero else entropy_rank(eigenvalues),
            f"participation-ratio{when}": math.nan if zero else participation_ratio(eigenvalues),
            f"trace{when}": float(small.trace() / len(small)),
        }
        arrays |= {f"spectrum{when}": eigenvalues.numpy(), f"kernel{when}": small.numpy()}
    values["distance"] = 1 - cosine(before, after)
    arrays = {name.replace("/", "-"): array for name, array in arrays.items()}
    notes = {
        name: "not determined: a kernel or the targets are constant"
        for name, value in values.items()
        if math.isnan(value)
    }
    return Measurement(values, arrays, notes)
