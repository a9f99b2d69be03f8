"""Time of a training step of every rule, as a ratio to plain autograd backprop.

All variants are sampled in turn (A B C … A B C …) in one process, so that a change of the machine's speed meets all of
them alike; the ratio of medians is what is reported. A sample is one cycle of the rule's schedule, so that a rule
that updates its feedback every tenth step is charged a tenth of it. A step is the rule's noise and gradient; the
optimiser's part is the same for all and left out.

    python benchmarks/step_cost.py [--threads 2] [--samples 9] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Batch, LearningRule, Net
from rulezoo.registry import discover
from rulezoo_tasks.networks import MLP, ConvNet

BATCH = 128
CYCLE = 10  # steps in a sample: the longest schedule among the variants
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv32-64-128 + fc256": lambda: ConvNet((3, 32, 32), (32, 64, 128), (True, True, True), 256, 10),
    "MLP 3072-512-256-10": lambda: MLP((3072, 512, 256, 10)),
}
VARIANTS: dict[str, tuple[str, dict[str, str], float | None]] = {  # label → rule, options, target
    "backprop": ("backprop", {}, 1.05),
    "frozen": ("frozen", {}, None),
    "feedback-alignment": ("feedback-alignment", {}, 1.15),
    "usf": ("usf", {}, None),
    "brsf": ("brsf", {}, None),
    "frsf": ("frsf", {}, None),
    "direct-feedback-alignment": ("direct-feedback-alignment", {}, 0.90),
    "noise-correlation, feedback every 10": (
        "noise-correlation",
        {"every": "10", "antithetic": "false"},
        1.0,
    ),
    "nmnc, feedback every 10": ("nmnc", {"every": "10", "antithetic": "false"}, 1.0),
    "noise-correlation, feedback every step": ("noise-correlation", {"antithetic": "false"}, 1.5),
    "nmnc, feedback every step": ("nmnc", {"antithetic": "false"}, 1.5),
    "noise-correlation, every step, antithetic": ("noise-correlation", {}, None),
    "nmnc, every step, antithetic": ("nmnc", {}, None),
}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


class Stepper:
    """One rule in training on random data, without an optimiser; `cycle` takes the next `CYCLE` steps."""

    def __init__(self, rule: LearningRule, net: Net, batch: Batch) -> None:
        self.rule, self.net, self.batch = rule, net, batch
        self.params = net.init_params()
        self.state = rule.init(net, self.params, batch, torch.Generator().manual_seed(0))
        self.gen = torch.Generator(batch.x.device).manual_seed(1)
        self.t = 0

    def cycle(self) -> None:
        for _ in range(CYCLE):
            noise = self.rule.noise(self.net, self.state, self.batch, self.gen, self.t)
            # The gradients are let go at once, as plain autograd lets go of its own before the next step.
            self.state = self.rule.step(
                self.net, loss, self.params, self.state, self.batch, noise, self.t
            ).state
            self.t += 1


def plain(module: nn.Module, batch: Batch) -> Callable[[], None]:
    """The unit: an ordinary module, an ordinary loss, ``backward()``."""

    def cycle() -> None:
        for _ in range(CYCLE):
            module.zero_grad()
            F.cross_entropy(module(batch.x), batch.y).backward()

    return cycle


def measure(make: Callable[[], nn.Module], samples: int, device: torch.device) -> dict[str, float]:
    """Median seconds of a step: ``plain autograd`` and every variant."""
    torch.manual_seed(0)
    batch = Batch(torch.randn(BATCH, 3, 32, 32, device=device), torch.randint(10, (BATCH,), device=device))
    module = make().to(device)
    net = Net(make().to(device), batch.x)
    registry = discover()
    cycles = {"plain autograd": plain(module, batch)}
    for label, (name, options, _) in VARIANTS.items():
        cycles[label] = Stepper(registry.make_rule(name, options), net, batch).cycle
    taken: dict[str, list[float]] = {label: [] for label in cycles}
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for sample in range(samples + 1):
        for label, cycle in cycles.items():
            started = clock()
            cycle()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if sample:  # the first is a warm-up
                taken[label].append((clock() - started) / CYCLE)
    return {label: statistics.median(times) for label, times in taken.items()}


def table(network: str, seconds: dict[str, float]) -> str:
    unit = seconds["plain autograd"]
    lines = [
        f"### {network}, batch {BATCH}",
        "",
        "| variant | ratio to plain autograd | target |",
        "|---|---|---|",
    ]
    for label, value in seconds.items():
        target = VARIANTS[label][2] if label in VARIANTS else None
        mark = "" if target is None else f"≤ {target:.2f} {'met' if value / unit <= target else 'MISSED'}"
        lines.append(f"| {label} | {value / unit:.2f} | {mark} |")
    return "\n".join([*lines, "", f"plain autograd: {1e3 * unit:.1f} ms"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", help="write the tables to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    head = f"torch {torch.__version__}, Python {platform.python_version()}, {device.type}, {chosen.threads} threads"
    parts = [f"# Step cost\n\n{head}; median of {chosen.samples} samples of {CYCLE} steps, sampled in turn."]
    for network, make in NETWORKS.items():
        parts.append(table(network, measure(make, chosen.samples, device)))
        print(parts[-1], flush=True)
    if chosen.markdown:
        with open(chosen.markdown, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
