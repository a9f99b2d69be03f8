"""What is measured is never of lower precision than what it is measured in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is if that is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
