"""What the tasks with class labels share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from rulezoo import Task


@dataclass(frozen=True)
class Classification(Task):
    """Ten balanced classes: cross-entropy, and the share of right answers.

    Outputs are ``(batch, 10)``, targets int64 of shape ``(batch,)``.
    """

    metric: ClassVar[str] = "accuracy"
    chance: ClassVar[float] = 0.1
    targets: ClassVar[Literal["labels", "numbers"] | None] = "labels"
    classes: ClassVar[int | None] = 10

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each example in nats, ``(batch,)``."""
        return F.cross_entropy(output, target, reduction="none")

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """1 where the largest output is the target, else 0, ``(batch,)``."""
        return (output.argmax(-1) == target).to(output.dtype)
