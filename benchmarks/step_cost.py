"""Time of a training step of every rule, as a ratio to plain autograd backprop.

Small networks are measured with batches of random images of 32 px, and rules on schedules; AlexNet at 64 px and ResNet-20
with the rules as they are by default.

All variants are sampled in turn (A B C … A B C …) in one process, so that a change of the machine's speed meets all of
them alike; the ratio of medians is what is reported. A sample is one cycle of the rule's schedule, so that a rule
that updates its feedback every tenth step is charged a tenth of it. A step is the rule's noise and gradient; the
optimiser's part is the same for all and left out.

``--seeds S`` takes the steps of S seeds in one vmap, and tells them per seed. ``--compile`` lets torch.compile take
them (minutes at first); what it cannot take is said to be not compiled. ``--memory`` measures, in place of times, the
most memory that a step needs above what is held between two steps: on a CPU each variant in a process of its own, on a
GPU by torch's own counter.

    python benchmarks/step_cost.py [--threads 2] [--samples 9] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import alexnet, resnet20
from torch import Tensor, nn

from rulezoo import Batch, Budget, LearningRule, Net
from rulezoo.discovery.registry import discover
from rulezoo.training import allocator
from rulezoo.training.trainer import Trainer
from rulezoo_tasks.networks import MLP, ConvNet

BATCH = 128
BUDGET = Budget(epochs=1, batch=BATCH, lr=1e-3)
PLAIN = "plain autograd"
Variants = Mapping[str, tuple[str, dict[str, str], float | None]]  # label → rule, options, target
# Two-sided noise in every step, and a rank of 32: the defaults when the tables were made.
_FORMER_VNC = {"antithetic": "true", "every": "1"}
_FORMER = {**_FORMER_VNC, "rank": "32"}
_ONE_SIDED_VNC, _ONE_SIDED = ({**former, "antithetic": "false"} for former in (_FORMER_VNC, _FORMER))

SMALL: Variants = {
    "backprop": ("backprop", {}, 1.05),
    "frozen": ("frozen", {}, None),
    "feedback-alignment": ("feedback-alignment", {}, 1.15),
    "usf": ("usf", {}, None),
    "brsf": ("brsf", {}, None),
    "frsf": ("frsf", {}, None),
    "direct-feedback-alignment": ("direct-feedback-alignment", {}, 0.90),
    "noise-correlation, feedback every 10": (
        "noise-correlation",
        {**_ONE_SIDED_VNC, "every": "10"},
        1.0,
    ),
    "nmnc, feedback every 10": ("nmnc", {**_ONE_SIDED, "every": "10"}, 1.0),
    "noise-correlation, feedback every step": ("noise-correlation", _ONE_SIDED_VNC, 1.5),
    "nmnc, feedback every step": ("nmnc", _ONE_SIDED, 1.5),
    "noise-correlation, every step, antithetic": ("noise-correlation", _FORMER_VNC, None),
    "nmnc, every step, antithetic": ("nmnc", _FORMER, None),
}
LARGE: Variants = {
    "backprop": ("backprop", {}, 1.05),
    "feedback-alignment": ("feedback-alignment", {}, 1.10),
    "usf": ("usf", {}, 1.10),
    "brsf": ("brsf", {}, 1.10),
    "frsf": ("frsf", {}, 1.10),
    "direct-feedback-alignment": ("direct-feedback-alignment", {}, 0.90),
    "weight-mirror": ("weight-mirror", {}, None),
    "nmnc-layerwise": ("nmnc-layerwise", {}, None),
    "noise-correlation": ("noise-correlation", _FORMER_VNC, None),
    "nmnc": ("nmnc", _FORMER, None),
    "nmnc, one-sided": ("nmnc", _ONE_SIDED, None),
}


@dataclass(frozen=True)
class Setting:
    """What is measured on one network.

    Attributes:
        make: the network.
        size: height and width of an image.
        classes: outputs.
        variants: rules and options.
        cycle: steps in a sample, at least the longest schedule among the variants.
        first: number of the first step. Rules in the manifold keep activity in their first steps, at the price of a
            forward pass for layerwise ones, and then not before the next refresh.
    """

    make: Callable[[], nn.Module]
    size: int = 32
    classes: int = 10
    variants: Variants = field(default_factory=lambda: SMALL)
    cycle: int = 10
    first: int = 0


NETWORKS: dict[str, Setting] = {
    "conv32-64-128 + fc256": Setting(
        lambda: ConvNet((3, 32, 32), (32, 64, 128), (True, True, True), 256, 10)
    ),
    "MLP 3072-512-256-10": Setting(lambda: MLP((3072, 512, 256, 10))),
    "AlexNet, 64 px, 100 classes": Setting(alexnet, 64, 100, LARGE, cycle=1, first=20),
    "ResNet-20, 32 px": Setting(resnet20, variants=LARGE, cycle=2, first=20),
}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


class Stepper:
    """One rule in training on random data, without an optimiser; `cycle` takes the next steps."""

    def __init__(
        self,
        rule: LearningRule,
        net: Net,
        batch: Batch,
        setting: Setting,
        seeds: int = 1,
        compiled: bool = False,
    ) -> None:
        self.steps = setting.cycle
        batches = Batch(*(part.expand(seeds, *part.shape).clone() for part in batch))
        values = [net.values_of(net.module) for _ in range(seeds)]
        self.trainer = Trainer(
            rule, net, loss, values, batches, range(seeds), BUDGET, 10**6, compiled=compiled
        )
        self.trainer.t = setting.first
        self.batches = batches

    def cycle(self) -> None:
        for _ in range(self.steps):
            # The gradients are let go at once, as plain autograd lets go of its own before the next step.
            self.trainer.gradients(self.batches)
            self.trainer.t += 1


def plain(module: nn.Module, batch: Batch, steps: int) -> Callable[[], None]:
    """The unit: an ordinary module, an ordinary loss, ``backward()``."""

    def cycle() -> None:
        for _ in range(steps):
            F.cross_entropy(module(batch.x), batch.y).backward()
            module.zero_grad()  # nobody holds gradients between two steps

    return cycle


def begun(setting: Setting, device: torch.device) -> tuple[nn.Module, Net, Batch]:
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, setting.size, setting.size, device=device)
    batch = Batch(x, torch.randint(setting.classes, (BATCH,), device=device))
    return setting.make().to(device), Net(setting.make().to(device), batch.x), batch


def stepper(setting: Setting, label: str, net: Net, batch: Batch, seeds: int, compiled: bool) -> Stepper:
    name, options, _ = setting.variants[label]
    return Stepper(discover().make_rule(name, options), net, batch, setting, seeds, compiled)


def measure(
    setting: Setting, samples: int, device: torch.device, seeds: int, compiled: bool
) -> dict[str, float]:
    """Median seconds of a step of one seed: ``plain autograd`` and every variant; NaN if it was to be compiled in vain."""
    module, net, batch = begun(setting, device)
    cycles = {PLAIN: plain(module, batch, setting.cycle)}
    steppers = {label: stepper(setting, label, net, batch, seeds, compiled) for label in setting.variants}
    cycles |= {label: one.cycle for label, one in steppers.items()}
    taken: dict[str, list[float]] = {label: [] for label in cycles}
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for sample in range(samples + 1):
        for label, cycle in cycles.items():
            started = clock()
            cycle()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if sample:  # the first is a warm-up
                taken[label].append((clock() - started) / setting.cycle / (1 if label == PLAIN else seeds))
    found = {label: statistics.median(times) for label, times in taken.items()}
    if compiled:
        found |= {label: math.nan for label, one in steppers.items() if not one.trainer.compiled}
    return found


def memory(network: str, label: str, device: torch.device, seeds: int) -> float:
    """MB above what is held between two steps, at the worst moment of one cycle in this process."""
    setting = NETWORKS[network]
    module, net, batch = begun(setting, device)
    if label == PLAIN:
        cycle = plain(module, batch, setting.cycle)
    else:
        cycle = stepper(setting, label, net, batch, seeds, False).cycle
    cycle()  # a warm-up: libraries are loaded, kernels are made
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        cycle()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak, see proc(5)
    held = resident("VmRSS")
    cycle()
    return resident("VmHWM") - held


def resident(what: str) -> float:
    """MB of this process in memory: ``VmRSS`` now, ``VmHWM`` at the peak."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if what in line
    )
    return int(line.split()[1]) / 2**10


def memory_in_a_process(network: str, label: str, device: torch.device, seeds: int) -> float:
    """`memory` in a process of its own, whose C library gives back what is freed, so that a peak is one."""
    command = [sys.executable, __file__, "--one", json.dumps([network, label, device.type, seeds])]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def memories(network: str, device: torch.device, seeds: int) -> dict[str, float]:
    labels = (PLAIN, *NETWORKS[network].variants)
    return {label: memory_in_a_process(network, label, device, seeds) for label in labels}


def table(network: str, found: dict[str, float], seeds: int, what: str) -> str:
    unit = found[PLAIN]
    timed = what == "time"
    together = f", {seeds} seeds together" if seeds > 1 else ""
    lines = [
        f"## {network}, batch {BATCH}{together}{'' if timed else ': memory of a step'}",
        "",
        f"| variant | {'' if timed else 'MB | '}ratio to plain autograd | target |",
        f"|---|{'' if timed else '---|'}---|---|",
    ]
    for label, value in found.items():
        targets = {name: target for name, (_, _, target) in NETWORKS[network].variants.items()}
        target = targets.get(label) if timed and seeds == 1 else None
        mark = "" if target is None else f"≤ {target:.2f} {'met' if value / unit <= target else 'MISSED'}"
        ratio = "not compiled" if math.isnan(value) else f"{value / unit:.2f}"
        lines.append(f"| {label} | {'' if timed else f'{value:.0f} | '}{ratio} | {mark} |")
    return "\n".join([*lines, "", f"plain autograd: {1e3 * unit:.1f} ms"] if timed else lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=1, help="trained together")
    parser.add_argument("--compile", action="store_true", help="let torch.compile take the steps")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--markdown", help="write the tables to this file, too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        network, label, kind, seeds = json.loads(chosen.one)
        torch.set_num_threads(1)
        print(memory(network, label, torch.device(kind), seeds))
        return
    torch.set_num_threads(chosen.threads)
    allocator.prepare()
    if (
        chosen.compile
    ):  # all variants are in one process, and have a graph for each kind of step in their schedules
        torch._dynamo.config.recompile_limit = 256
    device = torch.device(chosen.device)
    head = f"torch {torch.__version__}, Python {platform.python_version()}, {device.type}, {chosen.threads} threads"
    compiled = ", compiled where torch.compile can" if chosen.compile else ""
    parts = [f"# Step cost\n\n{head}{compiled}; median of {chosen.samples} samples, sampled in turn."]  # fmt: skip
    for network in chosen.networks:
        if chosen.memory:
            found = memories(network, device, chosen.seeds)
        else:
            found = measure(NETWORKS[network], chosen.samples, device, chosen.seeds, chosen.compile)
        parts.append(table(network, found, chosen.seeds, "memory" if chosen.memory else "time"))
        print(parts[-1], flush=True)
    if chosen.markdown:
        with open(chosen.markdown, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
