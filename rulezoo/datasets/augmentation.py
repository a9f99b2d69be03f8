"""What turns stored images into a network's input: augmentation and standardising, for whole batches on the device.

Each takes images ``(batch, channels, height, width)`` of any type. What it returns for an image depends on that image
and its random numbers alone. Each draws for a purpose of its own, so they may be combined in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo.source import Draw, Source

_SAMPLE = 1 << 12  # images that are read at once


def crop(x: Tensor, draw: Draw, size: int | None = None, *, padding: int = 0) -> Tensor:
    """A square or, by default, an image of the same size, from a random position in the image padded with zeros.

    Args:
        x: images.
        draw: random numbers.
        size: height and width of the result; ``None`` = those of ``x``.
        padding: rows and columns of zeros on each side.

    Raises:
        ValueError: if the padded image is smaller than the result.
    """
    height, width = x.shape[-2:] if size is None else (size, size)
    padded = F.pad(x, (padding,) * 4) if padding else x
    down, across = padded.shape[-2] - height, padded.shape[-1] - width
    if down < 0 or across < 0:
        raise ValueError(
            f"a crop of {height}×{width} does not fit into images of {x.shape[-2]}×{x.shape[-1]} with a padding of "
            f"{padding}; choose a smaller size or more padding"
        )
    top = draw.integers("crop: top", down + 1)
    left = draw.integers("crop: left", across + 1)
    windows = padded.unfold(2, height, 1).unfold(
        3, width, 1
    )  # a view: (batch, channels, top, left, height, width)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def flip(x: Tensor, draw: Draw) -> Tensor:
    """The image or its mirror image, left for right, with equal probability."""
    mirrored = draw.integers("flip", 2).view(-1, 1, 1, 1) == 1
    return torch.where(mirrored, x.flip(-1), x)


def resized_crop(
    x: Tensor,
    draw: Draw,
    size: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """A part of the image of random position, area and aspect ratio, resized to a square; float32.

    It draws as torchvision's ``RandomResizedCrop``, except that a part which does not fit is narrowed to the image in
    place of being drawn again, and resizes bilinearly without a low-pass filter.

    Args:
        x: images.
        draw: random numbers.
        size: height and width of the result.
        area: least and largest share of the image's area.
        ratio: least and largest ratio of width to height.
    """
    height, width = x.shape[-2:]
    shares = area[0] + (area[1] - area[0]) * draw.uniform("resized_crop: area")
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draw.uniform("resized_crop: ratio"))
    w = (shares * height * width * aspect).sqrt().clamp(max=width) / width
    h = (shares * height * width / aspect).sqrt().clamp(max=height) / height
    across, down = draw.uniform("resized_crop: position", 2).unbind(1)
    zero = torch.zeros_like(w)
    rows = torch.stack([w, zero, (2 * across - 1) * (1 - w), zero, h, (2 * down - 1) * (1 - h)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), [len(x), x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


def standardise(x: Tensor, mean: Tensor | Sequence[float], sd: Tensor | Sequence[float]) -> Tensor:
    """``(x - mean) / sd`` in float32.

    Args:
        x: images.
        mean: of each channel, in the unit of ``x``: from 0 to 255 for uint8.
        sd: of each channel, likewise.
    """
    mean, sd = (torch.as_tensor(v, dtype=torch.float32, device=x.device).view(-1, 1, 1) for v in (mean, sd))
    return (x.float() - mean) / sd


def moments(images: Tensor | Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel of uint8 images, exact, whatever the number of threads.

    Args:
        images: a tensor ``(examples, channels, height, width)``, or a source of such images, all of which is read.
    """
    counts = torch.zeros((images.shape[-3], 256), dtype=torch.int64)
    for part in _parts(images):
        counts += torch.stack([torch.bincount(c.flatten(), minlength=256) for c in part.transpose(0, 1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    level = torch.arange(256, dtype=torch.float64)
    mean = share @ level
    sd = (share * (level - mean[:, None]).square()).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(sd.tolist())


def _parts(images: Tensor | Source) -> Iterator[Tensor]:
    for index in torch.split(torch.arange(len(images)), _SAMPLE):
        yield images[index] if isinstance(images, Tensor) else images.read(index)
