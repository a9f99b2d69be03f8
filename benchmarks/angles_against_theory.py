"""Angles of noise correlation and NMNC on a trained network, measured and predicted by the closed forms.

A multilayer perceptron learns the digits by backprop and is then held still, while each rule estimates its feedback at
three budgets of perturbations until its running average is steady. The angle of its teaching signal with the true
gradient, as the mean over validation examples, is held against `rulezoo.measures.theory.predicted_angle`, given what is measured
of the network alone: the share alpha of the mean gradient in the manifold, the ceiling set by the mean Jacobian, and
the spread rho of Jacobians. The prediction in brackets leaves the last two out, as if every example had the mean
Jacobian. Exits with 1 when a prediction is off by more than the tolerance.

    python benchmarks/angles_against_theory.py [--weight-decay 0] [--seed 0] [--rank 32] [--sigma 0.1] [--epochs 10]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rulezoo import Batch, Budget, Net, State
from rulezoo.measures import theory
from rulezoo.measures.geometry import jacobians, visits_of_sites
from rulezoo.measures.probes import Prober
from rulezoo.net import Tensors, Values
from rulezoo.seeding import generator
from rulezoo.task import Data, Split
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation, NoiseCorrelation
from rulezoo_tasks.digits import DigitsCNN
from rulezoo_tasks.networks import MLP

BUDGETS = [
    (1, 0.05),
    (4, 0.05),
    (64, 0.1),
]  # perturbations per site and update, rate: 39, 156 and 1,216 in effect
TOLERANCE = 4.0  # degrees
SETTLED = 6.0  # updates before the first measurement, in units of 1/rate: what is left of the start is 0.2 %
READINGS = 12  # measurements, 2/rate updates apart, that are averaged


@dataclass(frozen=True)
class DigitsMLP(DigitsCNN):
    """The digits, by 512 and 256 dense units with He's initial weights.

    With torch's smaller ones training leaves nothing outside the manifold (alpha 0.93 and 0.96), and the theory would
    have little to tell.
    """

    def network(self) -> nn.Module:
        mlp = MLP((64, 512, 256, 10))
        for module in mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return mlp


class Row(NamedTuple):
    """One line of the table."""

    rule: str
    site: str
    d: int
    k: float
    alpha: float
    ceiling: float
    rho: float
    measured: float
    predicted: float
    plain: float


def trained(task: DigitsMLP, data: Data, epochs: int, weight_decay: float, seed: int) -> tuple[Net, Tensors]:
    """The network and its parameters after training by backprop."""
    budget = Budget(epochs=epochs, batch=64, lr=0.05, optimizer="sgd", weight_decay=weight_decay)
    net, (values,) = build(task, [seed], data.train.x[:2].float(), torch.device("cpu"))
    net = Net(net.module.double(), data.train.x[:1])
    batches = Batches(data.train, budget.batch, [seed])
    first = batches.take(batches.epoch(0)[:, 0])
    double = [Values({name: p.double() for name, p in values.params.items()}, {}, {})]
    trainer = Trainer(Backprop(), net, task.loss, double, first, [seed], budget, epochs * batches.per_epoch)
    for epoch in range(epochs):
        for which in batches.epoch(epoch).unbind(1):
            trainer.step(batches.take(which))
    output = trainer.predict(data.test.x)[0]
    accuracy = task.score(output, data.test.y).mean().item()
    print(f"backprop, {epochs} epochs, weight decay {weight_decay:g}: {accuracy:.1%} on the test data")
    return net, trainer.params


class Settled(NamedTuple):
    """Angles that were measured, and the rule's memory at the end."""

    angles: dict[str, float]
    state: State


def settle(
    rule: NoiseCorrelation, net: Net, task: DigitsMLP, params: Tensors, data: Data, prober: Prober, seed: int
) -> Settled:
    """Let a rule estimate its feedback on a network that is held still; mean angle of every site."""
    batches = Batches(data.train, 64, [seed])
    first = batches.take(batches.epoch(0)[:, 0])
    state = rule.init(net, params, Batch(first.x[0], first.y[0]), generator(seed, "init"))
    gen = generator(seed, "noise")
    still = replace(rule, every=10**9)  # measures with the feedback as it is
    settled, apart = round(SETTLED / rule.rate), round(2 / rule.rate)
    readings: dict[str, list[float]] = {}
    t = 0
    for epoch in range(10**9):
        for which in batches.epoch(epoch).unbind(1):
            x, y = (part[0] for part in batches.take(which))
            batch = Batch(x, y)
            state = rule.step(
                net, task.loss, params, state, batch, rule.noise(net, state, batch, gen, t), t
            ).state
            t += 1
            if t >= settled and (t - settled) % apart == 0:
                probe = prober.probe(still, params, state, 1, seed, geometry=False)
                for site, numbers in probe.sites.items():
                    readings.setdefault(site, []).append(numbers["angle"])
            if t == settled + (READINGS - 1) * apart:
                return Settled({site: sum(found) / len(found) for site, found in readings.items()}, state)
    raise AssertionError


class Network(NamedTuple):
    """What the theory wants to know of a network at one site."""

    jacobians: Tensor  # of the training data, which are perturbed: (examples, out, n)
    gradients: Tensor  # J(x)ᵀe of the examples that are measured: (m, n)
    errors: Tensor  # (m, out)


def known(net: Net, task: DigitsMLP, params: Tensors, data: Data, prober: Prober) -> dict[str, Network]:
    """Exact Jacobians of the training data, and gradients of the measured examples."""
    (batch,) = prober.batches
    output = net.run(params, batch.x).requires_grad_()
    (errors,) = torch.autograd.grad(task.loss(output, batch.y).sum(), output)
    sites = visits_of_sites(net)
    train = jacobians(net, params, data.train.x, sites)
    here = jacobians(net, params, batch.x, sites)
    return {
        site: Network(train[site][:, :, 0], torch.einsum("mo,mon->mn", errors, here[site][:, :, 0]), errors)
        for site in sites
    }


def predict(network: Network, basis: Tensor | None, k: float) -> tuple[float, ...]:
    """d, mean alpha, ceiling and rho, predicted angle, and the prediction without ceiling and rho."""
    mean = network.errors @ network.jacobians.mean(0)  # J̄ᵀe, (m, n)
    if basis is None:
        basis = torch.eye(mean.shape[1], dtype=mean.dtype)
    d = int(basis.square().sum().round())
    alpha = ((mean @ basis).square().sum(1) / mean.square().sum(1)).clamp_max(1)
    cosine = torch.nn.functional.cosine_similarity(network.gradients, mean).clamp(-1, 1)
    ceiling = torch.rad2deg(torch.acos(cosine.clamp_min(0)))
    rho = theory.jacobian_spread(network.jacobians @ basis, network.errors)
    angle = theory.predicted_angle(d, k, alpha, ceiling, rho).mean()
    plain = theory.predicted_angle(d, k, alpha).mean()
    return d, *(value.item() for value in (alpha.mean(), ceiling.mean(), rho.mean(), angle, plain))


def rules(rank: int) -> dict[str, NoiseCorrelation]:
    # The manifold is found once more when there is enough activity, and then held, as the network is.
    return {"VNC": NoiseCorrelation(), "NMNC": ManifoldNoiseCorrelation(rank=rank, refresh=10**9)}


def table(args: argparse.Namespace) -> list[Row]:
    task = DigitsMLP()
    data = Data(*(Split(part.x.double(), part.y) for part in task.data(None)))
    net, params = trained(task, data, args.epochs, args.weight_decay, args.seed)
    prober = Prober(net, task.loss, data, batch=len(data.validation.x))
    networks = known(net, task, params, data, prober)
    rows = []
    for name, rule in rules(args.rank).items():
        for perturbations, rate in BUDGETS:
            here = replace(rule, perturbations=perturbations, rate=rate, sigma=args.sigma)
            k = theory.effective_perturbations(perturbations, rate)
            found = settle(here, net, task, params, data, prober, args.seed)
            for site, angle in found.angles.items():
                numbers = predict(networks[site], found.state.buffers.get(f"basis.{site}"), k)
                d, alpha, ceiling, rho, predicted, plain = numbers
                rows.append(Row(name, site, int(d), k, alpha, ceiling, rho, angle, predicted, plain))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--sigma", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = table(args)
    print("rule  site      d    K_eff   α     ceiling  ρ     measured  predicted  difference")
    for r in sorted(rows, key=lambda r: (r.site, r.k)):
        print(
            f"{r.rule:5} {r.site:9} {r.d:3}  {r.k:6.0f}  {r.alpha:.2f}  {r.ceiling:5.1f}°  {r.rho:5.2f}  "
            f"{r.measured:6.1f}°   {r.predicted:6.1f}° ({r.plain:.0f})   {r.measured - r.predicted:+.1f}°"
        )
    worst = max(abs(r.measured - r.predicted) for r in rows)
    print(f"Largest difference {worst:.1f}°; the tolerance is {TOLERANCE:g}°.")
    return worst > TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
