"""Angles between feedback's gradients and backprop's on a trained convolutional network: ceilings, and what budgets reach.

A `cifar10-cnn` is trained by backprop and then held still. The first table gives the ceiling of each kind of feedback, at
an unlimited number of perturbations: expectations are replaced by exact means over training examples. The second lets rules
learn their feedback for some updates, from zero, and measures the gradients that they then return. Both give, for each
hidden layer, the angle of the gradient of its weights on batches of validation examples to that of backprop, and its size
relative to backprop's; the first line gives the size of backprop's.

    python benchmarks/feedback_angles.py [--width 0.5] [--examples 20000] [--epochs 4] [--updates 25,100] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, credit, manifold
from rulezoo.discovery.registry import discover
from rulezoo_tasks.vision import CIFAR10CNN

Tensors = dict[str, Tensor]
SITES = ("conv1", "conv2", "conv3", "fc")
FRONT = {"fc": "conv3", "conv3": "conv2", "conv2": "conv1"}  # site → the site in front of its layer
BEHIND = {front: site for site, front in FRONT.items()}
READOUT = "readout.weight"
KEYS = [f"{site}.post" for site in SITES]
WEIGHTS = {site: f"{site}.layer.weight" for site in SITES}
BATCH, BATCHES = 128, 4  # validation examples that angles are measured on
MEAN_OF = 2560  # training examples that a mean Jacobian is averaged over
RULES: list[tuple[str, dict[str, str]]] = [
    ("nmnc", {"rank": "32", "antithetic": "true", "every": "1"}),  # the defaults when the table was made
    ("nmnc", {"rank": "512", "rate": "0.03", "antithetic": "false"}),
    ("nmnc-regression", {}),
    ("weight-mirror", {}),
    ("nmnc-layerwise", {}),
    ("nmnc-layerwise", {"rank": "512"}),
    ("nmnc-layerwise-regression", {}),
]


@dataclass(frozen=True)
class Pass:
    """What the examples of a batch have at the sites.

    Attributes:
        activity: site → activity behind it, ``(b, *shape)``.
        gates: site → 1 for the units in front of pooling and rectification whose activity reaches the site, else 0.
        output: ``(b, 10)``.
    """

    activity: Tensors
    gates: Tensors
    output: Tensor


@dataclass(frozen=True)
class Trained:
    """The network, its parameters and its data."""

    net: Net
    task: CIFAR10CNN
    params: Tensors
    train: Batch
    batches: list[Batch]

    def run(self, x: Tensor) -> Pass:
        """A forward pass that notes the gates."""
        activity, gates, h = {}, {}, x
        for site in SITES:
            weight, bias = self.params[WEIGHTS[site]], self.params[f"{site}.layer.bias"]
            if site == "fc":
                pre = F.linear(h.flatten(1), weight, bias)
                h, gates[site] = F.relu(pre), (pre > 0).to(pre)
            else:
                pre = F.conv2d(h, weight, bias, padding=1)
                h, which = F.max_pool2d(F.relu(pre), 2, return_indices=True)
                routes = torch.zeros_like(pre).flatten(2).scatter_(2, which.flatten(2), 1.0).view_as(pre)
                gates[site] = routes * (pre > 0)
            activity[site] = h
        return Pass(activity, gates, F.linear(h, self.params[READOUT], self.params["readout.bias"]))

    def back(self, signal: Tensor, site: str, gate: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """A signal behind a site → behind the site in front, through gates and the layer's weight."""
        if site == "fc":
            return (signal * gate @ weights[WEIGHTS[site]]).view(len(signal), *self.shape("conv3"))
        spread = signal.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return F.conv_transpose2d(spread * gate, weights[WEIGHTS[site]], padding=1)

    def chain(self, error: Tensor, gates: Tensors, weights: Mapping[str, Tensor] | None = None) -> Tensors:
        """The signal at every site, layer by layer: backprop's, with the true gates and weights."""
        weights = self.params if weights is None else weights
        signals = {"fc": error @ weights[READOUT]}
        for site, front in FRONT.items():
            signals[front] = self.back(signals[site], site, gates[site], weights)
        return signals

    def shape(self, site: str) -> tuple[int, ...]:
        """Of the activity of one example."""
        return self.net.visits[f"{site}.post"].shape

    def error(self, batch: Batch) -> Tensor:
        """Gradient of the mean loss with respect to the output."""
        with torch.no_grad():
            output = self.net.run(self.params, batch.x)
        return credit.output_error(self.task.loss, output, batch.y)[0]


def trained(args: argparse.Namespace) -> Trained:
    """A network after training by backprop with Adam."""
    task = CIFAR10CNN(width=args.width, examples=args.examples)
    data = task.data(args.data)
    torch.manual_seed(args.seed)
    net = Net(task.network(), data.train.x[:2])
    params = {name: p.requires_grad_() for name, p in net.init_params().items()}
    optimizer = torch.optim.Adam(params.values(), lr=1e-3)
    steps = args.examples // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, args.epochs * steps))
    gen = torch.Generator().manual_seed(args.seed + 1)
    for _ in range(args.epochs):
        for which in torch.randperm(args.examples, generator=gen)[: steps * BATCH].view(steps, BATCH):
            loss = task.loss(net.run(params, data.train.x[which]), data.train.y[which]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    held = {name: p.detach() for name, p in params.items()}
    validation = data.validation
    with torch.no_grad():
        right = task.score(net.run(held, validation.x[:1000]), validation.y[:1000]).mean()
    print(f"backprop, {args.epochs} epochs: {float(right):.1%} of 1,000 validation images", file=sys.stderr)
    batches = [
        Batch(validation.x[i : i + BATCH], validation.y[i : i + BATCH])
        for i in range(0, BATCHES * BATCH, BATCH)
    ]
    return Trained(net, task, held, Batch(data.train.x, data.train.y), batches)


# --------------------------------------------------------------------------------------------------------------------
# Ceilings


@dataclass(frozen=True)
class Means:
    """Exact means over training examples.

    Attributes:
        jacobian: site → mean Jacobian of the output, ``(10, n)``.
        gates: site → mean gates.
        bases: site → principal directions of the activity behind it, ``(n, 512)`` or fewer.
        centre, scale: site → mean activity ``(n,)``, and the standard deviation of the principal coordinates.
        modulated: site → regression of Jacobians on 1 and the leading coordinates of the next site: by their number.
    """

    jacobian: Tensors
    gates: Tensors
    bases: Tensors
    centre: Tensors
    scale: Tensors
    modulated: dict[int, Tensors]

    def coordinates(self, site: str, activity: Tensor, number: int) -> Tensor:
        """1 and the leading coordinates of the activity behind a site, standardised: ``(b, 1 + number)``."""
        z = (
            (activity.flatten(1) - self.centre[site])
            @ self.bases[site][:, :number]
            / self.scale[site][:number]
        )
        return torch.cat([torch.ones(len(z), 1), z], 1)


COORDINATES = (8, 32)
RIDGE = 0.05  # of the regression of Jacobians, on standardised coordinates


def means(one: Trained) -> Means:
    """Passes through `MEAN_OF` training examples."""
    x, part = one.train.x[:MEAN_OF], 256
    passes = [one.run(piece) for piece in x.split(part)]
    rows = {site: torch.cat([p.activity[site].flatten(1) for p in passes]) for site in SITES}
    bases = {site: manifold.principal_basis(r[:1536], min(512, *r[:1536].shape)) for site, r in rows.items()}
    centre = {site: r.mean(0) for site, r in rows.items()}
    scale = {site: ((r - centre[site]) @ bases[site]).std(0).clamp_min(1e-6) for site, r in rows.items()}
    plain = Means({}, {}, bases, centre, scale, {})
    most = max(COORDINATES)
    products = {site: torch.zeros(1 + most, 10, rows[site].shape[1]) for site in BEHIND}
    second = {site: torch.zeros(1 + most, 1 + most) for site in BEHIND}
    for p in passes:
        phi = {s: plain.coordinates(b, p.activity[b], most) for s, b in BEHIND.items()}
        for site, f in phi.items():
            second[site] += f.T @ f / len(x)
        for k in range(10):
            signals = one.chain(torch.eye(10)[k].expand(len(p.output), 10), p.gates)
            for site, f in phi.items():
                products[site][:, k] += f.T @ signals[site].flatten(1) / len(x)
    ridge = RIDGE * torch.eye(1 + most)
    ridge[0, 0] = 0
    modulated = {
        m: {
            site: torch.linalg.solve((a + ridge)[: m + 1, : m + 1], products[site][: m + 1].flatten(1)).view(
                m + 1, 10, -1
            )
            for site, a in second.items()
        }
        for m in COORDINATES
    }
    jacobian = {site: product[0] for site, product in products.items()} | {"fc": one.params[READOUT]}
    gates = {site: torch.cat([p.gates[site] for p in passes]).mean(0) for site in SITES}
    return replace(plain, jacobian=jacobian, gates=gates, modulated=modulated)


Feedback = Callable[[Pass, Tensor], Tensors]  # a pass and the error at the output → signals


def direct(one: Trained, m: Means, rank: int | None, p: Pass, e: Tensor) -> Tensors:
    """The mean Jacobian, all of it or on the manifold."""
    signals = {}
    for site in SITES:
        signal = e @ m.jacobian[site]
        if rank is not None:
            basis = m.bases[site][:, :rank]
            signal = signal @ basis @ basis.T
        signals[site] = signal.view(len(e), *one.shape(site))
    return signals


def direct_and_layers(one: Trained, m: Means, layers: int, p: Pass, e: Tensor) -> Tensors:
    """Direct feedback to the site so many layers behind; from there through exact weights and each example's gates."""
    known, order = direct(one, m, None, p, e), [*SITES, "output"]
    signals = {}
    for i, site in enumerate(SITES):
        at = min(i + layers, len(SITES))
        signal = e if order[at] == "output" else known[order[at]]
        for k in range(at, i, -1):
            if order[k] == "output":
                signal = signal @ one.params[READOUT]
            else:
                signal = one.back(signal, order[k], p.gates[order[k]], one.params)
        signals[site] = signal
    return signals


def mean_gates(one: Trained, m: Means, inner: tuple[str, ...], p: Pass, e: Tensor) -> Tensors:
    """The mean Jacobian of every block of layers, chained through the gates of each example at the sites between blocks.

    Within a block of two layers the mean over examples meets one factor that differs between them, the gates of the site
    inside; so its mean Jacobian has the mean gates there. In longer blocks their correlations are left out.
    """
    return one.chain(e, {s: m.gates[s].expand_as(g) if s in inner else g for s, g in p.gates.items()})


def on_manifold(one: Trained, rank: int, p: Pass, e: Tensor, *, found: dict[int, Tensors]) -> Tensors:
    """Every weight on the principal subspace of its layer's input (patches, for a convolution), chained through gates."""
    if rank not in found:
        names = [WEIGHTS[site] for site in FRONT] + [READOUT]
        inputs = credit.layer_inputs(one.net, one.params, one.train.x[:512], names)
        gen = torch.Generator().manual_seed(0)
        found[rank] = {}
        for name, rows in inputs.items():
            some = rows[torch.randperm(len(rows), generator=gen)[:4096]]
            weight = one.params[name].flatten(1)
            basis = manifold.principal_basis(some, min(rank, *some.shape))
            found[rank][name] = (weight @ basis @ basis.T).view_as(one.params[name])
    return one.chain(e, p.gates, found[rank])


def modulated(one: Trained, m: Means, number: int, p: Pass, e: Tensor) -> Tensors:
    """Direct feedback that is linear in the leading coordinates of the activity at the next site."""
    signals = {"fc": e @ one.params[READOUT]}
    for site, b in m.modulated[number].items():
        phi = m.coordinates(BEHIND[site], p.activity[BEHIND[site]], number)
        signals[site] = ((phi[:, :, None] * e[:, None]).flatten(1) @ b.flatten(0, 1)).view(
            len(e), *one.shape(site)
        )
    return signals


def own(one: Trained, m: Means, rank: int, k: int, shrunk: bool, p: Pass, e: Tensor) -> Tensors:
    """Direct feedback on the manifold and what each example's own K perturbations add to it, shrunk by K/(K + d + 1)."""
    known, true = direct(one, m, rank, p, e), one.chain(e, p.gates)
    gen = torch.Generator().manual_seed(3)
    for site in SITES:
        basis = m.bases[site][:, :rank]
        d = basis.shape[1]
        missing = (true[site] - known[site]).flatten(1) @ basis
        z = torch.randn(k, len(e), d, generator=gen)
        estimate = (z * (z * missing).sum(2, keepdim=True)).mean(0) @ basis.T
        known[site] = known[site] + (k / (k + d + 1) if shrunk else 1.0) * estimate.view_as(known[site])
    return known


def ceilings(one: Trained) -> dict[str, Feedback]:
    """The kinds of feedback by what a table calls them."""
    m = means(one)
    found: dict[int, Tensors] = {}
    kinds: dict[str, Feedback] = {"direct: mean Jacobian": partial(direct, one, m, None)}
    for rank in (32, 128, 512):
        kinds[f"direct, manifold of rank {rank}"] = partial(direct, one, m, rank)
    for layers in (1, 2):
        kinds[f"direct to {layers} layer(s) behind, then layerwise"] = partial(
            direct_and_layers, one, m, layers
        )
    kinds["blocks conv1-conv3, conv3-output"] = partial(mean_gates, one, m, ("conv2", "fc"))
    kinds["blocks conv1-fc, fc-output"] = partial(mean_gates, one, m, ("conv2", "conv3"))
    for rank in (32, 128, 256, 512):
        kinds[f"layerwise, manifold of rank {rank}"] = partial(on_manifold, one, rank, found=found)
    for number in COORDINATES:
        kinds[f"direct, linear in {number} coordinates of the next site"] = partial(modulated, one, m, number)
    for k, shrunk in ((1, True), (1, False), (32, True)):
        told = "optimally shrunk" if shrunk else "unbiased"
        kinds[f"direct of rank 128 and {k} own perturbation(s), {told}"] = partial(
            own, one, m, 128, k, shrunk
        )
    return kinds


# --------------------------------------------------------------------------------------------------------------------
# Measurement


@dataclass(frozen=True)
class Row:
    """A line of a table: angles in degrees and relative sizes, by site."""

    label: str
    angles: dict[str, float]
    sizes: dict[str, float]

    def __str__(self) -> str:
        numbers = [f"{self.angles[s]:.0f}° (×{self.sizes[s]:.2f})" for s in SITES]
        return f"| {self.label} | {' | '.join(numbers)} |"


def compared(label: str, grads: list[Tensors], true: list[Tensors]) -> Row:
    """The mean angle over batches, and the mean of relative sizes."""
    angles, sizes = {}, {}
    for site, name in WEIGHTS.items():
        pairs = [
            (got[name].flatten(), wanted[name].flatten()) for got, wanted in zip(grads, true, strict=True)
        ]
        cosines = [float(F.cosine_similarity(a, b, dim=0).clamp(-1, 1)) for a, b in pairs]
        angles[site] = sum(math.degrees(math.acos(c)) for c in cosines) / len(cosines)
        sizes[site] = sum(float(a.norm() / b.norm()) for a, b in pairs) / len(pairs)
    return Row(label, angles, sizes)


def ceiling_rows(one: Trained, true: list[Tensors]) -> list[Row]:
    rows = []
    for label, feedback in ceilings(one).items():
        grads = []
        for batch in one.batches:
            error = one.error(batch)
            signals = feedback(one.run(batch.x), error)
            cut = credit.cut(one.net, one.params, batch.x, KEYS)
            grads.append(cut.pull(error, {f"{site}.post": signal for site, signal in signals.items()}))
        rows.append(compared(label, grads, true))
        print(rows[-1], file=sys.stderr)
    return rows


def gradients(one: Trained, rule: LearningRule, state: State) -> list[Tensors]:
    """What a rule returns with the feedback as it is."""
    still = replace(rule, every=10**9)
    return [
        still.step(one.net, one.task.loss, one.params, state, batch, {}, 1).grads for batch in one.batches
    ]


def budget_rows(one: Trained, true: list[Tensors], updates: list[int], seed: int) -> list[Row]:
    zoo, rows = discover(), []
    for name, options in RULES:
        rule = zoo.make_rule(name, options)
        gen, order = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
        examples = len(one.train.x)
        state = rule.init(one.net, one.params, Batch(one.train.x[:BATCH], one.train.y[:BATCH]), gen)
        started = time.process_time()
        for t in range(max(updates)):
            which = torch.randint(examples, (BATCH,), generator=order)
            batch = Batch(one.train.x[which], one.train.y[which])
            noise = rule.noise(one.net, state, batch, gen, t)
            state = rule.step(one.net, one.task.loss, one.params, state, batch, noise, t).state
            if t + 1 in updates:
                told = ", ".join([name, *(f"{key}={value}" for key, value in options.items())])
                rows.append(compared(f"{told}: {t + 1} updates", gradients(one, rule, state), true))
                seconds = (time.process_time() - started) / (t + 1)
                print(rows[-1], f"{seconds:.2f} s for each step", file=sys.stderr)
    return rows


def text(args: argparse.Namespace, one: Trained, true: list[Tensors], tables: dict[str, list[Row]]) -> str:
    sizes = [f"{sum(float(g[WEIGHTS[s]].norm()) for g in true) / len(true):.2g}" for s in SITES]
    told = ", ".join(f"{site} {size}" for site, size in zip(SITES, sizes, strict=True))
    setting = (
        f"`cifar10-cnn`, width {args.width:g}, {args.examples} examples, {args.epochs} epochs of backprop, seed {args.seed}; "
        f"{BATCHES} batches of {BATCH} validation images. Angle of the gradient of each hidden layer's weights, and its size "
        f"relative to backprop's. Sizes of backprop's: {told}."
    )
    parts = ["# Angles of feedback to backprop", setting]
    for title, rows in tables.items():
        parts += [
            f"## {title}",
            "\n".join([f"| feedback | {' | '.join(SITES)} |", "|---|" + "---|" * 4, *map(str, rows)]),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--updates", default="25,100", help="Updates of feedback after which rules are measured."
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("RULEZOO_DATA"))
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    one = trained(args)
    true = [credit.backprop(one.net, one.task.loss, one.params, *batch)[0] for batch in one.batches]
    tables = {
        "Ceilings: any number of perturbations": ceiling_rows(one, true),
        "Rules after some updates of their feedback, from zero": budget_rows(
            one, true, [int(n) for n in args.updates.split(",")], args.seed
        ),
    }
    table = text(args, one, true, tables)
    print(table)
    if args.markdown:
        args.markdown.write_text(table)


if __name__ == "__main__":
    main()
