"""Every layer has a read-out of its own (Nøkland & Eidnes 2019, the prediction loss)."""

from dataclasses import dataclass

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class LocalLosses(LearningRule):
    """A linear head at every site, with the task's own loss; no error leaves its layer."""

    size: float = hp(1.0, "size of the initial heads", low=0)

    def skip(self, net, task):
        if net.keys("recurrent") and len(net.output_shape) > 1:
            return "its heads predict all outputs, which the activity of one time step does not determine"
        return None if net.keys("post") else "it needs sites of kind 'post', and this network has none"

    def init(self, net, params, batch, gen):
        widths = {net.visits[key].site: net.visits[key].width for key in net.keys("post")}
        draw = {site: net.normal((n + 1, net.output_width), gen) / n**0.5 for site, n in widths.items()}
        return State({site: self.size * head for site, head in draw.items()})

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)

        def local(at):
            heads, sites = at
            each = ((heads[net.visits[key].site], credit.rows(h)) for key, h in sites.items())
            guesses = ((h @ head[1:] + head[0]).view_as(cut.output) for head, h in each)
            return sum(loss(guess, batch.y).mean() for guess in guesses)

        heads, signals = credit.grad(local, (state.params, cut.sites))
        return Step(cut.pull(error, signals) | {f"rule.{k}": g for k, g in heads.items()}, state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=True,  # of a head's weight, by which the layer below it learns
        backward_pass=False,
        update_locking=False,
        signal="neuron-specific",
        perturbation=False,
    )
    return [RuleSpec("local-losses", f"{__name__}:LocalLosses", "Greedy heads.", plausibility=tags)]
