"""What rules for recurrent networks need to know of time: when the state is visited, and when the network answers.

Letters: b batch, t steps from 0 to T - 1, o numbers in one answer, n units of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Net, credit


@dataclass(frozen=True)
class Course:
    """The course of one trial in a network with a single recurrent layer.

    Attributes:
        site: name of the site that holds the state.
        visits: the keys of its visits, one for each of the T steps.
        outputs: o, the numbers in one answer.
        every_step: the network answers at every step; else once, after the last one.
    """

    site: str
    visits: tuple[str, ...]
    outputs: int
    every_step: bool

    @property
    def steps(self) -> int:
        """T."""
        return len(self.visits)

    def in_time(self, answers: Tensor) -> Tensor:
        """Outputs, or errors of outputs, by the step to which they belong.

        Args:
            answers: ``(b, *net.output_shape)``.

        Returns:
            ``(b, T, o)``; zero at steps without an answer.
        """
        if self.every_step:
            return answers.flatten(2) if answers.ndim > 2 else answers.unsqueeze(-1)
        return F.pad(credit.rows(answers).unsqueeze(1), (0, 0, self.steps - 1, 0))

    def answered(self, device: torch.device) -> Tensor:
        """Whether the network answers at a step, ``(T,)``."""
        last = torch.arange(self.steps, device=device) == self.steps - 1
        return torch.ones_like(last) if self.every_step else last


def course(net: Net) -> Course:
    """The course of a trial; ask `why_no_course` first.

    An output of shape ``(T, o)`` is taken for an answer at every step, any other for an answer after the last.
    """
    visits = tuple(net.keys("post"))
    shape = net.output_shape
    every_step = len(shape) == 2 and shape[0] == len(visits)
    outputs = torch.Size(shape[1:] if every_step else shape).numel()
    return Course(net.visits[visits[0]].site, visits, outputs, every_step)


def why_no_course(net: Net) -> str | None:
    """A sentence if the network is not a single layer that is visited at every time step, else ``None``."""
    visits = net.keys("post")
    sites = sorted({net.visits[key].site for key in visits})
    if not any(key.endswith("]") for key in visits):
        return "nothing recurs: the network has no site of kind 'post' that is visited at every time step"
    if len(sites) > 1:
        return f"only networks with one recurrent layer are served, and this one has sites {', '.join(sites)}"
    if len(visits) < 2:
        return "nothing recurs: the input has a single time step"
    shape = net.visits[visits[0]].shape
    return None if len(shape) == 1 else f"the state must be a vector of units, and this one has shape {shape}"
