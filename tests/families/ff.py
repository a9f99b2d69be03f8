"""The forward-forward algorithm (Hinton 2022), with the label as a pattern laid over the input."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class ForwardForward(LearningRule):
    """Every layer makes its activity large for an input with its true label, small with a wrong one; no read-out."""

    threshold: float = hp(1.0, "goodness between true and wrong", low=0)
    size: float = hp(1.0, "size of the label's pattern", low=1e-6)

    def skip(self, net, task):
        if task.targets != "labels" or net.output_shape != (task.classes,):
            return "it needs labels as targets, and one answer that names a class"
        return None if net.keys("post") else "it needs sites of kind 'post', and this network has none"

    def init(self, net, params, batch, gen):
        return State(buffers={"labels": self.size * net.normal((net.output_width, *batch.x.shape[1:]), gen)})

    def noise(self, net, state, batch, gen, t):
        return {"wrong": torch.randint(1, net.output_width, batch.y.shape, generator=gen, device=gen.device)}

    def goodness(self, net, params, x):
        """Key → goodness of the site, ``(batch,)``. Nothing but the direction of its activity goes on."""
        good = {}

        def tap(key, h):
            if key not in net.keys("post"):
                return h
            good[key] = credit.rows(h).square().mean(1)
            size = credit.rows(h.detach()).square().mean(1, keepdim=True).sqrt()
            return (credit.rows(h.detach()) / (size + 1e-4)).view_as(h)

        net.run(params, x, tap)
        return good

    def predict(self, net, params, state, x):
        every = (x.unsqueeze(1) + state.buffers["labels"]).flatten(0, 1)
        return sum(self.goodness(net, params, every).values()).view(len(x), -1)

    def step(self, net, loss, params, state, batch, noise, t):
        labels, wrong = state.buffers["labels"], (batch.y + noise["wrong"]) % net.output_width
        x = torch.cat([batch.x + labels[batch.y], batch.x + labels[wrong]])

        def local(p):
            pairs = (g.view(2, -1) for g in self.goodness(net, p, x).values())
            off = ((self.threshold - true, false - self.threshold) for true, false in pairs)
            return sum(F.softplus(torch.cat(one)).sum() for one in off) / len(batch.x)

        grads = credit.grad(local, params)
        return Step({name: g for name, g in grads.items() if name not in net.readout}, state, None)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=False,
        signal="neuron-specific",
        perturbation=False,
        phases=1,
    )
    return [
        RuleSpec("forward-forward", f"{__name__}:ForwardForward", "Two forward passes.", plausibility=tags)
    ]
