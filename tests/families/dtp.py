"""Difference target propagation (Lee et al. 2015), with a learned inverse of the read-out, too."""

from dataclasses import dataclass
from itertools import pairwise

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp


def inverse(weight, above):
    """An affine map; row 0 of the weight is the bias."""
    return credit.rows(above) @ weight[1:] + weight[0]


@dataclass(frozen=True)
class TargetPropagation(LearningRule):
    """Targets travel down through learned inverses of the blocks; each block moves its output towards its target."""

    size: float = hp(1.0, "distance of the output's target, in units of the error", low=1e-6)
    sigma: float = hp(0.1, "noise around which inverses are learned, relative to the activity", low=0)
    inverse_rate: float = hp(1.0, "factor on the learning rate of the inverses", low=0)

    def skip(self, net, task):
        chain = net.keys("post") and not net.keys("recurrent")
        return None if chain else "it needs sites of kind 'post' one after the other, without recurrence"

    def rates(self, net):
        return {f"rule.{key}": self.inverse_rate for key in net.keys("post")}

    def init(self, net, params, batch, gen):
        widths = pairwise([*(net.visits[key].width for key in net.keys("post")), net.output_width])
        sizes = dict(zip(net.keys("post"), widths, strict=True))
        return State({key: net.normal((1 + n, m), gen) / n**0.5 for key, (m, n) in sizes.items()})

    def noise(self, net, state, batch, gen, t):
        return {key: net.normal((len(batch.x), *net.visits[key].shape), gen) for key in net.keys("post")}

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals, above, change = {}, cut.output, -self.size * len(batch.x) * error
        for key, h in reversed(cut.sites.items()):
            w = state.params[key]
            lower = (inverse(w, above + change) - inverse(w, above)).view_as(h)
            signals[key], above, change = -lower / len(batch.x), h, lower
        noisy = {k: h + self.sigma * h.square().mean().sqrt() * noise[k] for k, h in cut.sites.items()}
        sites, output = credit.blocks(net, params, batch.x, noisy)
        behind = dict(zip(noisy, [*[sites[key] for key in noisy][1:], output], strict=True))

        def reconstruction(weights):
            off = {k: inverse(w, behind[k]) - credit.rows(noisy[k]) for k, w in weights.items()}
            return sum(error.square().sum() for error in off.values()) / 2 / len(batch.x)

        learned = credit.grad(reconstruction, state.params)
        return Step(cut.pull(error, signals) | {f"rule.{k}": g for k, g in learned.items()}, state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False,
        backward_pass=True,  # targets travel from layer to layer, though no gradient does
        update_locking=True,
        signal="neuron-specific",
        perturbation=True,
        phases=2,  # targets down, and the blocks again at noisy activity
    )
    return [
        RuleSpec("dtp", f"{__name__}:TargetPropagation", "Targets by learned inverses.", plausibility=tags)
    ]
