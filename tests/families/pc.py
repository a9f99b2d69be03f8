"""Predictive coding (Whittington & Bogacz 2017; fixed prediction: Millidge, Tschantz & Buckley 2022)."""

from dataclasses import dataclass

from rulezoo import LearningRule, Limit, Plausibility, RuleSpec, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class PredictiveCoding(LearningRule):
    """Activities are free variables that relax under local prediction errors; weights then descend these errors."""

    mode: str = hp("relax", "whether predictions move with the activities", choices=("relax", "fixed"))
    steps: int = hp(20, "steps of relaxation", low=1)
    rate: float = hp(0.1, "size of a step of relaxation", low=1e-6, search=(0.01, 1), log=True)

    def skip(self, net, task):
        return None if net.keys("post") else "it needs sites of kind 'post', and this network has none"

    def step(self, net, loss, params, state, batch, noise, t):
        clean = credit.blocks(net, params, batch.x, {})
        x = start = {key: clean.sites[key] for key in net.keys("post")}

        def predictions(at):
            sites, output = credit.blocks(net, at[1], batch.x, at[0])
            return {key: sites[key] for key in x}, output

        for _ in range(self.steps + 1):
            at = x if self.mode == "relax" else start
            (predicted, output), pull = credit.value_and_pull(predictions, (at, params))
            error, _ = credit.output_error(loss, output, batch.y)
            e = {key: h - x[key] for key, h in predicted.items()}
            back, grads = pull((e, len(batch.x) * error))
            x = {key: h - self.rate * (back[key] - e[key]) for key, h in x.items()}
        mean = loss(clean.output, batch.y).mean()
        return Step({name: g / len(batch.x) for name, g in grads.items()}, state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=True,
        backward_pass=False,
        update_locking=True,
        signal="neuron-specific",
        perturbation=False,
        phases=42,  # a pass and its pull-back for each step of relaxation, and for the update
    )
    limit = Limit(("mode=fixed", "rate=1", "steps=20"), "backprop")
    return [
        RuleSpec(
            "pc", f"{__name__}:PredictiveCoding", "Prediction errors.", plausibility=tags, limits=(limit,)
        )
    ]
