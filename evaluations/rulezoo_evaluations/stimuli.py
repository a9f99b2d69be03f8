"""The stimuli of an experiment as a network sees them: as stored examples of its task, prepared for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rulezoo import Task
from rulezoo_evaluations.brain_data import BrainDataError

if TYPE_CHECKING:
    from rulezoo import datasets

_CHANNELS = {1: "L", 3: "RGB"}
_LEAST = 4  # pixels in height and width of what may be called an image
_SAMPLE = 4096  # stored examples of a source whose range is looked at
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def why_no_image(shape: Sequence[int]) -> str | None:
    """A sentence, if inputs of this shape (without the batch) are no images with channels."""
    if len(shape) == 3 and shape[0] in _CHANNELS and min(shape[1:]) >= _LEAST:
        return None
    return (
        f"the network's inputs have the shape {tuple(shape)} and are not images; stimuli can be shown to networks whose "
        "inputs have the shape (1, height, width) or (3, height, width)"
    )


def pixels(paths: Sequence[Path], shape: Sequence[int]) -> Tensor:
    """The images, uint8 ``(images, channels, height, width)``.

    Each is converted to grey (Rec. 601 luma) or colour, scaled with antialiasing so that it just covers the shape,
    and its middle is cut out.
    """
    return torch.stack([_pixels(path, tuple(shape)) for path in paths])


def _pixels(path: Path, shape: tuple[int, ...]) -> Tensor:
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode}, expected 8 bits per channel")
            image.load()
            plain = image.convert(_CHANNELS[channels])
    except Exception as error:  # noqa: BLE001  bad images raise a dozen kinds
        raise BrainDataError(f"cannot read the stimulus {path}: {error}") from None
    scale = max(height / plain.height, width / plain.width)
    size = max(width, round(plain.width * scale)), max(height, round(plain.height * scale))
    if size != plain.size:
        plain = plain.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    array = np.array(plain.crop((left, top, left + width, top + height)))
    return torch.from_numpy(array).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def stored(shown: Tensor, examples: Tensor | datasets.Source) -> Tensor:
    """Pixels as a task stores its examples, so that its ``prepare`` takes them.

    Where a task stores bytes these are the pixels. Where it stores floating-point numbers, which are an affine
    function of the pixels in each channel (``x / 255``, or standardised), the smallest and the largest stored number
    of a channel are black and white.

    Args:
        shown: uint8 ``(images, channels, height, width)``.
        examples: stored training examples of the task.
    """
    if isinstance(examples, Tensor):
        sample = examples
    else:
        sample = examples.read(torch.arange(min(len(examples), _SAMPLE)))
    if sample.dtype == torch.uint8:
        return shown
    if not sample.dtype.is_floating_point:
        raise BrainDataError(
            f"stimuli cannot be shown: the task stores its examples as {sample.dtype}; expected uint8 or floating point"
        )
    black, white = sample.amin((0, 2, 3), keepdim=True), sample.amax((0, 2, 3), keepdim=True)
    return (black + (white - black) * (shown.to(black.dtype) / 255)).to(sample.dtype)


def shown_to(task: Task, root: Path | None, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Pixels and the inputs of the network, both ``(images, …)``.

    Raises:
        BrainDataError: if the task's examples are no images, or a stimulus cannot be read.
        DataMissing: if the data of the task are missing: they say how pixels are stored.
    """
    examples = task.data(root).train.x
    shape = tuple(examples.shape[1:]) if isinstance(examples, Tensor) else tuple(examples.shape)
    if sentence := why_no_image(shape):
        raise BrainDataError(f"stimuli cannot be shown: {sentence}")
    shown = pixels(paths, shape)
    return shown, task.prepare(stored(shown, examples), None)


def luminance(shown: Tensor) -> Tensor:
    """Mean luma and contrast (its SD over the image) of each image, ``(images, 2)``, in [0, 1] and float64.

    Rec. 601 luma of the pixel values as they are: how the display turned them into light is not known.
    """
    plain = shown.double() / 255
    weights = torch.tensor(_LUMA if plain.shape[1] == 3 else (1.0,), dtype=plain.dtype)
    luma = torch.einsum("nchw,c->nhw", plain, weights).flatten(1)
    return torch.stack([luma.mean(1), luma.std(1, correction=0)], 1)
