"""Equilibrium propagation, cross-entropy form, three phases (Scellier & Bengio 2017; Laborieux et al. 2021)."""

from dataclasses import dataclass

from rulezoo import LearningRule, Plausibility, RuleSpec, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class EquilibriumPropagation(LearningRule):
    """A network of an energy, with the same weights up and down; two nudged phases differ by what is to be learned."""

    free: int = hp(20, "steps of the free phase", low=1)
    nudged: int = hp(6, "steps of each nudged phase", low=1)
    beta: float = hp(0.5, "size of the nudge", low=1e-6, search=(0.05, 2), log=True)

    def skip(self, net, task):
        pre, post = ([net.visits[key].shape for key in net.keys(kind)] for kind in ("pre", "post"))
        if not post or pre != post or net.keys("recurrent"):
            return (
                "it needs one 'pre' and one 'post' site of the same shape at every layer, and no recurrence"
            )
        return None

    def phi(self, net, params, s, x, nudge=lambda output: 0):
        """The primitive function of the dynamics, and the output."""
        sites, output = credit.blocks(net, params, x, s)
        drives = (sites[key] for key in net.keys("pre"))
        return sum((h * u).sum() for h, u in zip(s.values(), drives, strict=True)) - nudge(output), output

    def settle(self, net, params, s, x, steps, nudge=lambda output: 0):
        for _ in range(steps):
            s = credit.grad(lambda s: self.phi(net, params, s, x, nudge)[0], s)
            s = {key: h.clamp(0, 1) for key, h in s.items()}
        return s

    def rest(self, net, params, x):
        zeros = {key: net.zeros(key, len(x)) for key in net.keys("post")}
        return self.settle(net, params, zeros, x, self.free)

    def predict(self, net, params, state, x):
        return self.phi(net, params, self.rest(net, params, x), x)[1]

    def step(self, net, loss, params, state, batch, noise, t):
        rest = self.rest(net, params, batch.x)
        mean = loss(self.phi(net, params, rest, batch.x)[1], batch.y).mean()

        def slope(beta):
            nudge = lambda output: beta * loss(output, batch.y).sum()
            s = self.settle(net, params, rest, batch.x, self.nudged, nudge)
            return credit.grad(lambda p: self.phi(net, p, s, batch.x, nudge)[0], params)

        up, down, scale = slope(self.beta), slope(-self.beta), 2 * self.beta * len(batch.x)
        return Step({name: (down[name] - up[name]) / scale for name in params}, state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=True,
        backward_pass=False,
        update_locking=True,
        signal="neuron-specific",
        perturbation=False,
        phases=68,  # a pass and its pull-back for each of 32 steps of relaxation and two slopes, and one for the loss
    )
    return [RuleSpec("eqprop", f"{__name__}:EquilibriumPropagation", "Equilibria.", plausibility=tags)]
