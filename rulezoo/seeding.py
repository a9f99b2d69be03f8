"""Random generators as a function of (seed, purpose), so that nothing depends on the order of runs.

The purposes ``init`` (initial weights), ``order`` (order of the training examples) and ``dropout`` (its masks) do not
include the rule's name: every rule meets the same networks, batches and masks, and comparisons between rules are paired.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rulezoo.task import Task


def number(seed: int, *purpose: str | int) -> int:
    """A number below 2**63 that depends on the seed and every word of the purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose of one seed."""
    import torch

    return torch.Generator(device).manual_seed(number(seed, *purpose))


def initial_network(task: Task, seed: int) -> nn.Module:
    """The task's network with the initial weights of a seed, on the CPU: the same for every rule and device."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number(seed, "init"))  # of the CPU alone, as forked above
        return task.network()
