"""Gradient attacks on images in [0, 1], by the Adversarial Robustness Toolbox (the extra ``robustness``).

FGSM: Goodfellow, Shlens & Szegedy 2015, https://arxiv.org/abs/1412.6572. PGD: Madry et al. 2018,
https://arxiv.org/abs/1706.06083. Toolbox: Nicolae et al. 2018, https://arxiv.org/abs/1807.01069.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCH = 256
_STEP = 2.5  # a step of PGD is this share of the way that its steps would have to go


def missing() -> str | None:
    """Why there are no attacks, in a sentence; ``None`` where the toolbox is installed."""
    if importlib.util.find_spec("art") is None:
        return "gradient attacks need the package adversarial-robustness-toolbox; pip install 'rulezoo[robustness]'"
    return None


def classifier(model: nn.Module, x: Tensor, classes: int) -> Any:  # noqa: ANN401  the toolbox has no types
    """A model of images in [0, 1] as the toolbox takes it."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if x.device.type == "cuda" else "cpu",
    )


def fgsm(attacked: Any, x: Tensor, y: Tensor, epsilon: float) -> Tensor:  # noqa: ANN401
    """One step of the size ``epsilon`` along the sign of the gradient."""
    from art.attacks.evasion import FastGradientMethod

    return _made(FastGradientMethod(attacked, norm=np.inf, eps=epsilon, batch_size=BATCH), x, y)


def pgd(attacked: Any, x: Tensor, y: Tensor, epsilon: float, norm: float, steps: int, seed: int) -> Tensor:  # noqa: ANN401
    """Steps along the gradient, from a random point, within the ball of radius ``epsilon`` in the norm (2 or inf)."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    attack = ProjectedGradientDescentPyTorch(
        attacked,
        norm=norm,
        eps=epsilon,
        eps_step=_STEP * epsilon / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=BATCH,
        verbose=False,
    )
    with _numpy_seeded(seed):
        return _made(attack, x, y)


def _made(attack: Any, x: Tensor, y: Tensor) -> Tensor:  # noqa: ANN401
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator, which the toolbox draws from, with a seed; afterwards as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
