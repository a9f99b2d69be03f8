"""Forward gradient by activity perturbation (Ren, Kornblith, Liao & Hinton 2023), with the global loss."""

from dataclasses import dataclass

import torch

from rulezoo import LearningRule, Plausibility, RuleSpec, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class ForwardGradient(LearningRule):
    """A random direction of the activity, times the derivative of the loss along it."""

    draws: int = hp(1, "directions per step", low=1)

    def skip(self, net, task):
        return None if net.keys("post") else "it needs sites of kind 'post', and this network has none"

    def noise(self, net, state, batch, gen, t):
        shapes = {key: (self.draws, len(batch.x), *net.visits[key].shape) for key in net.keys("post")}
        return {key: net.normal(shape, gen) for key, shape in shapes.items()}

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        zeros = {key: torch.zeros_like(h) for key, h in cut.sites.items()}

        def losses(off):
            return loss(net.run(params, batch.x, lambda k, h: h + off[k] if k in off else h), batch.y)

        def told(v):
            _, change = credit.value_and_derivative(losses, zeros, v)
            return {k: torch.einsum("b,b...->b...", change, z) for k, z in v.items()}

        signals = torch.func.vmap(told)(noise)
        return Step(cut.pull(error, {k: s.mean(0) / len(batch.x) for k, s in signals.items()}), state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=True,
        signal="scalar",
        perturbation=True,
        phases=1,
    )
    return [RuleSpec("forward-gradient", f"{__name__}:ForwardGradient", "Forward mode.", plausibility=tags)]
