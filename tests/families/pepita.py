"""Present the error to perturb the input to modulate activity (Dellaferrera & Kreiman 2022)."""

from dataclasses import dataclass

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class Pepita(LearningRule):
    """The error is added to the input through fixed weights; a layer learns from what changes in a second pass."""

    lr: float | None = hp(0.005, "learning rate; larger ones are unstable", low=0)
    size: float = hp(0.05, "size of the projection to the input", low=1e-6, search=(0.005, 1), log=True)

    def skip(self, net, task):
        feedforward = net.keys("post") and not net.keys("recurrent") and net.example.is_floating_point()
        return None if feedforward else "it needs sites of kind 'post', no recurrence, and inputs to add to"

    def init(self, net, params, batch, gen):
        inputs = batch.x[0].numel()
        return State(
            buffers={"F": self.size * (12 / inputs) ** 0.5 * net.normal((net.output_width, inputs), gen)}
        )

    def step(self, net, loss, params, state, batch, noise, t):
        clean = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, clean.output, batch.y)
        pushed = len(batch.x) * credit.rows(error) @ state.buffers["F"]
        second = credit.cut(net, params, batch.x + pushed.view_as(batch.x), net.keys("post"))
        signals = {key: (h - second.sites[key]) / len(batch.x) for key, h in clean.sites.items()}
        return Step(second.pull(error, signals), state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=True,
        signal="vector",
        perturbation=True,
        phases=1,
    )
    return [RuleSpec("pepita", f"{__name__}:Pepita", "The error modulates the input.", plausibility=tags)]
