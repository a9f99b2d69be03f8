"""The step size of the delta rule on Gaussian noise."""

from __future__ import annotations

from torch import Tensor


def step_size(rate: float, examples: int, dimensions: Tensor | float) -> Tensor | float:
    """μ = rate · K / (K + d + 1), for K examples of Gaussian noise in d dimensions.

    The error of a noiseless linear regression shrinks fastest for ``rate=1``, by 1 - K/(K + d + 1) in expected square, and
    grows from ``rate=2`` on.
    """
    return rate * examples / (examples + dimensions + 1)
