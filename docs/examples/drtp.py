# drtp.py: direct random target projection (Frenkel, Lefebvre & Bol 2021): no error travels, the target does
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class TargetProjection(LearningRule):
    """Every site is told the label through fixed random weights, at once: no layer waits for the error."""

    gain: float = hp(1.0, "size of the teaching signal", low=1e-6, search=(0.01, 10), log=True)

    def skip(self, net, task):
        return None if net.keys("post") else "it needs sites of kind 'post', and this network has none"

    def init(self, net, params, batch, gen):
        outputs, keys = torch.Size(net.output_shape).numel(), net.keys("post")
        draw = {key: torch.rand(outputs, net.visits[key].width, generator=gen) * 2 - 1 for key in keys}
        dtype, device = net.memory_dtype(), batch.x.device
        return State(buffers={key: b.to(device, dtype) / b.shape[1] ** 0.5 for key, b in draw.items()})

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        y = batch.y if batch.y.is_floating_point() else F.one_hot(batch.y, cut.output.shape[-1])
        told = self.gain * credit.rows(y).to(net.memory_dtype()) / len(y)
        signals = {key: (told @ state.buffers[key]).view_as(h) for key, h in cut.sites.items()}
        return Step(cut.pull(error, signals), state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False, backward_pass=False, update_locking=False, signal="vector", perturbation=False,
        past_storage=False,
    )  # fmt: skip
    return [RuleSpec("drtp", f"{__name__}:TargetProjection", "The target, not the error.", plausibility=tags)]
