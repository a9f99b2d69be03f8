"""Robustness of a network's answers to noise, gradient attacks and corruptions of its inputs.

Sizes are in units of the raw image, whose values are from 0 to 1, not of the standardised input. The controls for
gradient masking are those of Athalye, Carlini & Wagner 2018, https://arxiv.org/abs/1802.00420, and Carlini et al. 2019,
https://arxiv.org/abs/1902.06705.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rulezoo import Data, Evaluation, Measurement, MeasurementError, Task, hp
from rulezoo_evaluations import attacks
from rulezoo_evaluations.classifiers import Array, not_a_classifier, some
from rulezoo_evaluations.corruptions import CORRUPTIONS

if TYPE_CHECKING:
    from rulezoo import TrainedNetwork, datasets

_NOISE = 0x6E6F697365  # a number for the purpose of the random numbers
_SMALLEST_IMAGE = 8  # pixels
_TOLERANCE = 0.02  # of an accuracy, for the controls
_LARGEST_MARGIN = 20.0  # of the largest output over the second; exp(-87) is the smallest number of float32


# Units -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelRange:
    """What stored inputs have in place of 0 and of 1; it broadcasts over examples."""

    low: Tensor
    high: Tensor

    def to_unit(self, stored: Tensor) -> Tensor:
        """Stored inputs as numbers from 0 to 1; those outside of the range are clipped."""
        return ((stored.float() - self.low) / (self.high - self.low)).clamp(0, 1)

    def from_unit(self, unit: Tensor) -> Tensor:
        """Numbers from 0 to 1 as stored inputs, in float32."""
        return self.low + unit * (self.high - self.low)


def pixel_range(data: Data[Tensor | datasets.Source], task: str) -> PixelRange:
    """The range of stored inputs: 0 to 255 for bytes, else from the least to the largest value of all parts of the data.

    For ``(examples, channels, height, width)`` it is that of each channel, so it undoes a standardisation by channel:
    where every channel has black and white pixels, 1 is 255 grey levels.

    Raises:
        MeasurementError: if it is not known.
    """
    dtype = data.train.x.dtype
    if dtype == torch.uint8:
        return PixelRange(torch.tensor(0.0), torch.tensor(255.0))
    if not dtype.is_floating_point:
        raise MeasurementError(
            f"the inputs of the task {task} are stored as {dtype}, which has no range of pixels; expected uint8 or "
            "floating-point numbers"
        )
    parts = [part.x for part in data if isinstance(part.x, Tensor)]
    if len(parts) < len(data):
        raise MeasurementError(
            f"the inputs of the task {task} are read from a source of {dtype}, whose range is not known; store "
            "images as uint8"
        )
    axes = [0, 2, 3] if parts[0].ndim == 4 else list(range(parts[0].ndim))
    low = torch.stack([x.amin(axes, keepdim=True)[0] for x in parts]).amin(0).float()
    high = torch.stack([x.amax(axes, keepdim=True)[0] for x in parts]).amax(0).float()
    if not (high > low).all():
        raise MeasurementError(
            f"the inputs of the task {task} are constant in a channel, so they have no range"
        )
    return PixelRange(low, high)


class UnitModel(nn.Module):
    """A network of raw images in [0, 1]: what it is given is turned into what is stored, prepared, and passed on."""

    def __init__(self, model: nn.Module, pixels: PixelRange, task: Task) -> None:
        super().__init__()
        self.model = model
        self.pixels, self.task = pixels, task

    def forward(self, unit: Tensor) -> Tensor:
        """Outputs ``(batch, classes)`` for ``(batch, ...)`` in [0, 1]."""
        output: Tensor = self.model(self.task.prepare(self.pixels.from_unit(unit), None))
        return output


class Unsaturated(nn.Module):
    """A model whose outputs are divided by a number, so that no margin of an answer is above `_LARGEST_MARGIN`.

    Answers stay as they are. Where outputs are large, the softmax is 0 and 1 in float32 and its cross-entropy has no
    gradient: an attack would stop there, and the network would seem robust.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model = model
        largest = max(float(_margins(model, part).max()) for part in torch.split(x, attacks.BATCH))
        self.scale = max(1.0, largest / _LARGEST_MARGIN)

    def forward(self, unit: Tensor) -> Tensor:
        """Outputs ``(batch, classes)``."""
        output: Tensor = self.model(unit)
        return output / self.scale


def _margins(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        largest: Tensor = model(x).topk(2).values
    return largest[:, 0] - largest[:, 1]


def is_image(shape: Sequence[int]) -> bool:
    """Whether inputs of that shape are taken as images: ``(height, width)`` or 1 or 3 channels of it, 8 pixels or more."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))) and min(
        shape[-2:]
    ) >= _SMALLEST_IMAGE


# What is measured ------------------------------------------------------------------------------------------------------


def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether each answer is right, ``(examples,)``."""
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(-1) for part in torch.split(x, attacks.BATCH)])
    return answers == y


def generator(seed: int) -> torch.Generator:
    """Random numbers for noise: not those of ``manual_seed(seed)``, with which a task may have drawn its data."""
    (number,) = np.random.SeedSequence([_NOISE, seed]).generate_state(1)
    return torch.Generator().manual_seed(int(number))


def halving(largest: float, levels: int) -> list[float]:
    """So many sizes in ascending order, each half of the next one."""
    return [largest / 2**k for k in reversed(range(levels))]


def half_size(sizes: Array, accuracy: Array) -> float:
    """The size at which accuracy first falls to half of that without perturbation, interpolated over log size.

    Args:
        sizes: ascending, the first is 0.
        accuracy: at each; NaN is returned where it is never so low.
    """
    half = accuracy[0] / 2
    below = np.flatnonzero(accuracy <= half)
    if accuracy[0] <= 0 or not len(below):
        return math.nan
    k = int(below[0])
    if k == 1:  # nothing between 0 and the least size but a straight line
        return float(sizes[1] * (accuracy[0] - half) / (accuracy[0] - accuracy[1]))
    t = (accuracy[k - 1] - half) / (accuracy[k - 1] - accuracy[k])
    return float(sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** t)


@dataclass(frozen=True)
class Robustness(Evaluation):
    """Accuracy on a part of the test inputs under noise, gradient attacks, and corruptions of images."""

    headline: ClassVar[str] = "pgd-linf"
    higher_is_better: ClassVar[bool | None] = True

    examples: int = hp(500, "test examples, drawn at random", low=1)
    epsilon: float = hp(
        0.25, "largest L∞ size of a perturbation, in units of the pixel range", low=1e-6, high=1
    )
    epsilon_l2: float = hp(
        4.0, "largest L2 size of a perturbation of a whole input, in the same units", low=1e-6, high=1e3
    )
    noise: float = hp(
        0.5, "largest standard deviation of Gaussian noise, in the same units", low=1e-6, high=10
    )
    levels: int = hp(7, "sizes of each kind, each half of the next", low=1, high=20)
    steps: int = hp(20, "steps of PGD", low=1, high=1000)
    seed: int = hp(
        0, "seed of the examples, the noise, and the starting points of PGD", low=0, high=2**31 - 1
    )

    def skip(self, network: TrainedNetwork) -> str | None:
        """Tasks without classes or with inputs that are no numbers on a scale."""
        if not network.net.example.dtype.is_floating_point:
            return f"the inputs of the task {network.task} are {network.net.example.dtype}, which have no small changes"
        return not_a_classifier(network) or attacks.missing()

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Accuracy at each size: what is attacked is the plain model, whatever rule has trained it."""
        task, device = network.made_task, network.net.example.device
        data = task.data(root)
        chosen = some(len(data.test.y), self.examples, self.seed)
        stored = data.test.x[chosen] if isinstance(data.test.x, Tensor) else data.test.x.read(chosen)
        pixels = pixel_range(data, network.task)
        pixels = PixelRange(pixels.low.to(device), pixels.high.to(device))
        model = UnitModel(network.model().to(device).requires_grad_(False), pixels, task)
        x, y = pixels.to_unit(stored.to(device)), data.test.y[chosen].to(device)
        _check_units(model, x, task.prepare(stored.to(device), None), network.task)
        return self.of(model, x, y)

    def of(self, model: nn.Module, x: Tensor, y: Tensor) -> Measurement:
        """The measurement for a model in evaluation mode of inputs in [0, 1], ``(examples, ...)``, and their labels."""
        model = Unsaturated(model, x)
        right = correct(model, x, y)
        curves = self._noise(model, x, y, right) | self._attacks(model, x[right], y[right], len(y))
        arrays = {name: np.array(curve) for name, curve in curves.items()}
        arrays |= {
            "sizes-linf": np.array([0.0, *halving(self.epsilon, self.levels)]),
            "sizes-l2": np.array([0.0, *halving(self.epsilon_l2, self.levels)]),
            "sizes-gaussian": np.array([0.0, *halving(self.noise, self.levels)]),
        }
        values = {name: float(curve[1:].mean()) for name, curve in arrays.items() if name in curves}
        values["clean"] = float(right.double().mean())
        for norm in ("linf", "l2"):
            values[f"half-size-{norm}"] = half_size(arrays[f"sizes-{norm}"], arrays[f"pgd-{norm}"])
        if is_image(x.shape[1:]):
            corrupted = corrupted_accuracy(model, x, y)
            arrays |= corrupted
            values |= {name: float(curve.mean()) for name, curve in corrupted.items()}
            values["corruptions"] = float(np.mean([curve.mean() for curve in corrupted.values()]))
        values["zero-gradients"] = zero_gradients(model, x[right], y[right])
        values |= masking(arrays)
        return Measurement(values, arrays, _notes(values))

    def _noise(self, model: nn.Module, x: Tensor, y: Tensor, right: Tensor) -> dict[str, list[float]]:
        """Accuracy under Gaussian noise, and under random signs of each L∞ size."""
        gen = generator(self.seed)
        clean = float(right.double().mean())
        gaussian = torch.randn(x.shape, generator=gen).to(x)
        signs = torch.randint(2, x.shape, generator=gen).to(x) * 2 - 1

        def accuracy(noise: Tensor, size: float) -> float:
            return float(correct(model, (x + size * noise).clamp(0, 1), y).double().mean())

        return {
            "gaussian": [clean, *(accuracy(gaussian, sd) for sd in halving(self.noise, self.levels))],
            "random-signs": [clean, *(accuracy(signs, size) for size in halving(self.epsilon, self.levels))],
        }

    def _attacks(self, model: nn.Module, x: Tensor, y: Tensor, number: int) -> dict[str, list[float]]:
        """Accuracy under each attack: the share of ``number`` of the ``x`` (answered rightly) that withstand it."""
        clean = len(x) / number
        if not len(x):
            return {name: [0.0] * (self.levels + 1) for name in ("fgsm-linf", "pgd-linf", "pgd-l2")}
        attacked = attacks.classifier(model, x, int(_classes(model, x)))

        def curve(attack: Callable[[float], Tensor], largest: float) -> list[float]:
            withstood = (correct(model, attack(size), y).sum() for size in halving(largest, self.levels))
            return [clean, *(float(w) / number for w in withstood)]

        def pgd(norm: float) -> Callable[[float], Tensor]:
            return lambda size: attacks.pgd(attacked, x, y, size, norm, self.steps, self.seed)

        return {
            "fgsm-linf": curve(lambda size: attacks.fgsm(attacked, x, y, size), self.epsilon),
            "pgd-linf": curve(pgd(np.inf), self.epsilon),
            "pgd-l2": curve(pgd(2), self.epsilon_l2),
        }


def corrupted_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Array]:
    """Accuracy at each severity by corruption, for images in [0, 1] with or without an axis of channels."""
    images = x if x.ndim == 4 else x[:, None]
    return {
        name: np.array(
            [float(correct(model, corrupt(images).view(x.shape), y).double().mean()) for corrupt in levels]
        )
        for name, levels in CORRUPTIONS.items()
    }


def zero_gradients(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of inputs at which the loss has no gradient at all, so that an attack does not know where to go."""
    zero = 0
    for images, labels in zip(torch.split(x, attacks.BATCH), torch.split(y, attacks.BATCH), strict=True):
        images = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
        zero += int((gradient.flatten(1) == 0).all(1).sum())
    return zero / max(1, len(x))


def masking(arrays: dict[str, Array]) -> dict[str, float]:
    """By how much accuracy is where it should not be, if gradients lead an attack; 0 or a few examples is right.

    ``masking-rise``: the largest rise of accuracy under PGD from one size to the next. ``masking-one-step``: the largest
    excess of PGD over FGSM. ``masking-random``: the largest excess of PGD over random signs of the same size.
    """
    linf = arrays["pgd-linf"]
    rises = np.concatenate([np.diff(linf), np.diff(arrays["pgd-l2"]), [0.0]])
    return {
        "masking-rise": float(rises.max()),
        "masking-one-step": float(max(0.0, (linf - arrays["fgsm-linf"]).max())),
        "masking-random": float(max(0.0, (linf - arrays["random-signs"]).max())),
    }


def _classes(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return int(model(x[:1]).shape[-1])


def _check_units(model: UnitModel, x: Tensor, inputs: Tensor, task: str) -> None:
    """See that the network is given the same inputs by way of [0, 1]."""
    again = model.task.prepare(model.pixels.from_unit(x), None)
    if again.shape != inputs.shape or not torch.allclose(again, inputs, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise MeasurementError(
            f"prepare() of the task {task} gives other inputs for floating-point numbers than for what is stored, so "
            "sizes have no unit; let prepare() take both"
        )


def _notes(values: dict[str, float]) -> dict[str, str]:
    notes = {
        name: "accuracy does not fall to half within these sizes"
        for name in ("half-size-linf", "half-size-l2")
        if math.isnan(values[name])
    }
    notes |= {
        name: "gradients may be masked: the attacks are too weak, and accuracy under attack is too high; see "
        "docs/evaluations.md"
        for name in ("masking-rise", "masking-one-step", "masking-random", "zero-gradients")
        if values[name] > _TOLERANCE
    }
    return notes
