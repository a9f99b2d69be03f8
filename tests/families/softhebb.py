"""Soft winner-take-all Hebbian features without an error (Journé et al. 2023), and a linear read-out."""

from dataclasses import dataclass

import torch

from rulezoo import LearningRule, Plausibility, RuleSpec, Step, credit, hookimpl, hp


@dataclass(frozen=True)
class SoftHebb(LearningRule):
    """Units of a layer compete by a softmax of their drives; each moves to the input as far as it wins."""

    sharp: float = hp(30.0, "inverse temperature of the competition", low=1e-6, search=(1, 100), log=True)
    rate: float = hp(0.1, "learning rate of the Hebbian updates", low=0, search=(0.01, 1), log=True)

    def skip(self, net, task):
        plain = credit.feedback_layers(net, net.init_params())
        if not net.keys("post") or any(not layer.plain or {*layer.weights} - plain for layer in net.layers):
            return "it needs sites of kind 'post', and linear or convolution layers with a plain weight"
        return None

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y, only=net.readout)
        hidden = {layer.weights[0]: layer.parameters for layer in net.layers}
        hidden = {name: own for name, own in hidden.items() if name in own and name not in net.readout}
        updates = {}
        for name, rows in credit.layer_inputs(net, params, batch.x, hidden).items():
            w, centre = params[name].flatten(1), rows.mean(0)
            x = torch.nn.functional.normalize(rows - centre, dim=1)
            u = x @ w.T
            y = torch.softmax(self.sharp * u, dim=1) / len(rows)
            updates[name] = self.rate * (y.T @ x - (y * u).sum(0)[:, None] * w).view_as(params[name])
            for bias in {*hidden[name]} - {name}:  # drives are centred, as by the paper's BatchNorm
                updates[bias] = -self.rate * (w @ centre + params[bias])
        return Step(grads, state, mean, updates=updates)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=False,
        signal="none",
        perturbation=False,
    )
    return [RuleSpec("softhebb", f"{__name__}:SoftHebb", "Hebbian competition.", plausibility=tags)]
