"""What the checks of a rule need of a network: tiny ones have it, and those of tasks."""

from __future__ import annotations

from typing import Protocol

import torch

from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch
from rulezoo.task import Task


class Network(Protocol):
    """A network with everything that a step needs."""

    def __hash__(self) -> int:
        """Some of what is measured on a network is remembered."""

    @property
    def name(self) -> str:
        """By which reports call it."""

    @property
    def net(self) -> Net:
        """The network."""

    @property
    def task(self) -> Task:
        """Its task; ``task.loss`` is a loss per example."""

    def params(self, seed: int = 0) -> Tensors:
        """Initial parameters, the same for the same seed."""

    def batch(self, size: int = 12, seed: int = 0) -> Batch:
        """``size`` examples, the same for the same seed."""

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Network:
        """The same network in another type, or elsewhere."""
