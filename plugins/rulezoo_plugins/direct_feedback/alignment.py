"""Direct feedback alignment: the output's error reaches every site through random weights of its own.

Nøkland 2016 (arXiv:1609.01596): δ_l = (B_l e) ⊙ φ'(s_l), B_l fixed and random. One forward pass, whose graph is cut
behind every post-activation site, so no layer waits for the layers above it.

On a recurrent network the visits of a site share one B. Where the output has an error at every time step, a visit
hears the error of its own step; where it has one at the end, every visit hears that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class DirectFeedbackAlignment(LearningRule):
    """Fixed random feedback from the output to every post-activation site."""

    scale: float = hp(
        1.0,
        "size of the feedback weights, in units of 1/sqrt(units of the site)",
        low=1e-6,
        search=(0.1, 10),
        log=True,
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs somewhere to send the error."""
        return (
            None
            if net.keys("post")
            else "direct feedback needs sites of kind 'post', and this network has none"
        )

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Draw one feedback matrix ``(errors heard, units)`` for each site."""
        buffers = {}
        for site in dict.fromkeys(net.visits[key].site for key in net.keys("post")):
            shape = len(_heard_by(net, site, torch.zeros(1, *net.output_shape))[0][0]), _width(net, site)
            dtype = net.memory_dtype(*_visits(net, site))
            drawn = torch.randn(shape, generator=gen, dtype=dtype, device=gen.device)
            buffers[f"feedback.{site}"] = self.scale / shape[1] ** 0.5 * drawn.to(batch.x.device)
        return State(buffers=buffers)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals = {}
        for site in dict.fromkeys(net.visits[key].site for key in cut.sites):
            feedback = state.buffers[f"feedback.{site}"]
            for key, heard in zip(_visits(net, site), _heard_by(net, site, error), strict=True):
                signals[key] = (heard @ feedback).view_as(cut.sites[key])
        return Step(cut.pull(error, signals), state, mean)


def _visits(net: Net, site: str) -> list[str]:
    return [key for key in net.keys("post") if net.visits[key].site == site]


def _width(net: Net, site: str) -> int:
    return net.visits[_visits(net, site)[0]].width


def _heard_by(net: Net, site: str, error: Tensor) -> list[Tensor]:
    """The error that each visit of a site hears, ``(batch, errors heard)``."""
    visits = _visits(net, site)
    if error.ndim == 3 and error.shape[1] == len(visits):  # (batch, time, out), one visit a step
        return list(error.unbind(1))
    return [credit.rows(error)] * len(visits)
