"""Corruptions of images after Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261, at five levels of severity.

The severities are those of CIFAR-10-C, their set of corrupted images of 32 px. Deviations: brightness is added to every
channel, not to the value of HSV, so that grey images have it, too; a blur's width is in units of 1/32 of the image's
height; pixels are averaged over whole pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEVERITIES = 5
_SIDE = 32  # pixels, for which the severities are meant

Corruption = Callable[[Tensor], Tensor]


def _blur(width: float, x: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    sigma = width * x.shape[-2] / _SIDE
    size = 2 * math.ceil(4 * sigma) + 1
    blurred: Tensor = functional.gaussian_blur(x, [size, size], [sigma, sigma])
    return blurred


def _brightness(amount: float, x: Tensor) -> Tensor:
    return (x + amount).clamp(0, 1)


def _contrast(factor: float, x: Tensor) -> Tensor:
    mean = x.mean((-2, -1), keepdim=True)
    return ((x - mean) * factor + mean).clamp(0, 1)


def _jpeg(quality: float, x: Tensor) -> Tensor:
    stored = (x.cpu() * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    images = np.stack([_through_jpeg(image, int(quality)) for image in stored])
    return torch.from_numpy(images).reshape(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1).to(x) / 255


def _through_jpeg(image: np.ndarray[Any, Any], quality: int) -> np.ndarray[Any, Any]:
    """A uint8 image ``(height, width, channels)`` after it was written and read as JPEG."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pixelate(share: float, x: Tensor) -> Tensor:
    size = [max(1, int(share * side)) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, size, mode="area"), x.shape[-2:], mode="nearest-exact")


CORRUPTIONS: dict[str, tuple[Corruption, ...]] = {
    name: tuple(partial(function, level) for level in levels)
    for name, function, levels in (
        ("blur", _blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
        ("brightness", _brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
        ("contrast", _contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
        ("jpeg", _jpeg, (80, 65, 58, 50, 40)),
        ("pixelate", _pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    )
}
"""Name → the corruption at each severity, of images ``(n, channels, height, width)`` in [0, 1]."""
