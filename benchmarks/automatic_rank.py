"""The rank that NMNC chooses with ``rank=auto``, on networks whose manifold and Jacobian are known.

A linear network has a site of 192 units. Activity lies in all directions of a random basis, with variances that fall,
and the Jacobian has a planted share of its energy, α(d), in the first d of them. The rule takes steps on batches of
random inputs, and no weight changes. At the end of each interval between two manifolds the choice is compared with the
best fixed rank (4, 8, 16, …) and with vanilla noise correlation (VNC), by the squared cosine of equation (9),
α(d)/(1 + (d + 1)/K), where α is the true share in the manifold that the rule found, and K the perturbations
between two updates of the manifold. The exploring examples are charged for: K of the automatic rank is smaller by their share.

    python benchmarks/automatic_rank.py [--updates 1000] [--seeds 0,1,2] [--json FILE] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rulezoo import Batch, Net, Site
from rulezoo.measures import theory
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation

UNITS, OUTPUTS, BATCH = 192, 10, 64
BUDGETS = (2, 8, 32, 128)
EXPLORING = 1 / 8  # share of the perturbed examples
RANKS = (4, 8, 16, 32, 64, 128, 192)
# Share of the Jacobian's energy in the first d directions of activity.
COURSES: dict[str, Callable[[Tensor], Tensor]] = {
    "all in 16": lambda d: (d / 16).clamp_max(1),
    "95 % in 16": lambda d: torch.where(d <= 16, 0.95 * d / 16, 0.95 + 0.05 * (d - 16) / (UNITS - 16)),
    "80 % in 32": lambda d: torch.where(d <= 32, 0.8 * d / 32, 0.8 + 0.2 * (d - 32) / (UNITS - 32)),
    "d/(d + 10)": lambda d: d / (d + 10) * (UNITS + 10) / UNITS,
    "none (d/n)": lambda d: d / UNITS,
}


class Planted(NamedTuple):
    """A network whose Jacobian at its site is known, ``(outputs, units)``."""

    net: Net
    params: dict[str, Tensor]
    jacobian: Tensor
    gen: torch.Generator

    def batch(self) -> Batch:
        """Random inputs; the targets do not matter."""
        x = torch.randn(BATCH, UNITS, generator=self.gen)
        return Batch(x, torch.zeros(BATCH, dtype=torch.long))


def planted(course: Callable[[Tensor], Tensor], seed: int) -> Planted:
    """Variances of activity fall like 1/rank², so that principal components are close to the basis."""
    gen = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(UNITS, UNITS, generator=gen)).Q
    shares = course(torch.arange(UNITS + 1.0)).diff()
    rows = torch.randn(OUTPUTS, UNITS, generator=gen)
    jacobian = rows / rows.norm(dim=0) * shares.clamp_min(0).sqrt() @ basis.mT
    module = nn.Sequential(nn.Linear(UNITS, UNITS), Site(), nn.Linear(UNITS, OUTPUTS))
    net = Net(module, torch.zeros(2, UNITS))
    params = {name: torch.zeros_like(p) for name, p in net.init_params().items()}
    params["0.weight"] = basis * torch.arange(1, UNITS + 1.0).reciprocal()
    params["2.weight"] = jacobian
    return Planted(net, params, jacobian, gen)


def loss(output: Tensor, target: Tensor) -> Tensor:
    return output.square().sum(1)


class Choice(NamedTuple):
    """What was chosen at one moment, and what it is worth (squared cosines)."""

    rank: float
    worth: float
    best_rank: int
    best: float


def choices(course: str, budget: int, updates: int, seed: int, exploring: float) -> list[Choice]:
    """One for each manifold after the first."""
    rule = ManifoldNoiseCorrelation(rank="auto", perturbations=budget)
    net = planted(COURSES[course], seed)
    state = rule.init(net.net, net.params, net.batch(), net.gen)
    k, found = budget * rule.refresh, []
    for t in range(updates + 1):
        batch = net.batch()
        noise = rule.noise(net.net, state, batch, net.gen, t)
        step = rule.step(net.net, loss, net.params, state, batch, noise, t)
        state = step.state
        if t and t % rule.refresh == 0:
            alpha = (net.jacobian @ state.buffers["basis.1"]).square().sum(0).cumsum(
                0
            ) / net.jacobian.square().sum()
            worth = {d: float(theory.squared_cosine(d, k, float(alpha[d - 1]))) for d in RANKS[:-1]}
            worth[UNITS] = float(theory.squared_cosine(UNITS, k))
            rank, charged = float(step.logs["rank.1"]), (1 - exploring) * k
            share = 1.0 if rank > UNITS - 0.5 else float(alpha[round(rank) - 1])
            best = max(worth, key=lambda d: worth[d])
            found.append(Choice(rank, float(theory.squared_cosine(rank, charged, share)), best, worth[best]))
    return found


def angle(worth: float) -> float:
    """In degrees."""
    return math.degrees(math.acos(math.sqrt(min(worth, 1.0))))


def row(course: str, budget: int, updates: int, seeds: Sequence[int], exploring: float) -> dict[str, Any]:
    """The choices of some seeds, all moments and the last one."""
    runs = [choices(course, budget, updates, seed, exploring) for seed in seeds]
    every, last = [one for run in runs for one in run], [run[-1] for run in runs]
    excess = [angle(one.worth) - angle(one.best) for one in every]
    return {
        "course": course,
        "budget": budget,
        "best rank": statistics.median(one.best_rank for one in every),
        "ranks": sorted({round(one.rank) for one in every}),
        "last ranks": sorted({round(one.rank) for one in last}),
        "last excess": max(angle(one.worth) - angle(one.best) for one in last),
        "best angle": statistics.mean(angle(one.best) for one in every),
        "angle": statistics.mean(angle(one.worth) for one in every),
        "largest excess": max(excess),
        "VNC": angle(float(theory.squared_cosine(UNITS, 100 * budget))),
    }


def report(
    rows: list[dict[str, Any]], before: list[dict[str, Any]] | None, updates: int, seeds: list[int]
) -> str:
    """The table, with the choices of an earlier version in front where they are given."""
    head = ["α(d)", "perturbations", "best rank", "angle of the best", "angle of VNC"]
    parts = [("before: ", before), ("", rows)] if before else [("", rows)]
    head += [
        f"{name}{word}"
        for name, _ in parts
        for word in ("ranks chosen", "angle", "largest excess", "largest excess of the last choice")
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for number, one in enumerate(rows):
        cells = [one["course"], one["budget"], f"{one['best rank']:g}"]
        cells += [f"{one['best angle']:.1f}", f"{one['VNC']:.1f}"]
        for _, part in parts:
            own = part[number]
            cells += [", ".join(map(str, own["ranks"])), f"{own['angle']:.1f}"]
            cells += [f"{own['largest excess']:+.1f}", f"{own['last excess']:+.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return (
        "# The automatic rank on networks with a known manifold\n\n"
        f"{UNITS} units; {updates} updates, a choice after every 100; seeds {', '.join(map(str, seeds))}. Angles in degrees, "
        "by the closed form, at the number of perturbations between two updates of the manifold; *angle* is the mean "
        "over choices and seeds, *largest excess* the most by which one choice is worse than the best of VNC and the fixed "
        "ranks.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--exploring", type=float, default=EXPLORING, help="share of the examples that explores"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--before", type=Path, help="numbers of an earlier version, for the table")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    chosen = parser.parse_args()
    seeds = [int(word) for word in chosen.seeds.split(",")]
    torch.set_num_threads(1)
    rows = [
        row(course, budget, chosen.updates, seeds, chosen.exploring)
        for course in COURSES
        for budget in BUDGETS
    ]
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    before = json.loads(chosen.before.read_text(encoding="utf-8")) if chosen.before else None
    text = report(rows, before, chosen.updates, seeds)
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
