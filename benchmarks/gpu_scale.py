"""What one GPU does with many seeds: throughput, utilisation, every rule's step against backprop, and what limits it.

    python benchmarks/gpu_scale.py [--tasks digits-cnn,alexnet,resnet18] [--seeds 1,4,16,64] [--markdown FILE]
    python benchmarks/gpu_scale.py --device cpu --quick        # its own check, on any machine

``alexnet`` and ``resnet18`` are the networks of the Tiny-ImageNet tasks on random images of 64 px with 100 classes; every
other name is a task. Without a GPU the script says so and ends. A group of seeds that does not fit is left out, and
said. It begins nothing after ``--minutes``, and says what it left out; what was measured is written after each task.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from rulezoo import Budget, Data, Split, Task, add_sites, hp
from rulezoo.discovery.registry import Registry, discover
from rulezoo.rule import Batch
from rulezoo.training.trainer import Trainer, build
from rulezoo_tasks.architectures import alexnet, resnet18
from rulezoo_tasks.classification import Classification

BUSY = 0.7  # share of the time in which the GPU computes, above which it is what limits
TARGET = (16, 10.0)  # so many seeds together are to take at most a tenth of their time one by one
SCALED = (
    "backprop",
    "feedback-alignment",
    "usf",
    "direct-feedback-alignment",
    "weight-mirror",
    "noise-correlation",
    "nmnc",
)  # rules that are timed on large networks
GAIN = 1.5  # a step may take so much longer with four times the seeds, and the GPU still has room


@dataclass(frozen=True)
class RandomImages(Classification):
    """Random images of 3×64×64 with random labels of 100 classes, for AlexNet."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=128, lr=1e-3)
    classes: ClassVar[int | None] = 100
    chance: ClassVar[float] = 0.01

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        gen = torch.Generator().manual_seed(0)
        x, y = torch.randn(256, 3, 64, 64, generator=gen), torch.randint(100, (256,), generator=gen)
        return Data(*(Split(x, y) for _ in range(3)))

    width: float = hp(1.0, "factor on the width of every hidden layer", low=0.01)

    def network(self) -> nn.Module:
        return add_sites(alexnet(100, 64, self.width))


@dataclass(frozen=True)
class RandomImagesResNet18(RandomImages):
    """The same for ResNet-18."""

    def network(self) -> nn.Module:
        return add_sites(resnet18(100, 64, self.width))


OWN: dict[str, type[RandomImages]] = {"alexnet": RandomImages, "resnet18": RandomImagesResNet18}
FEW, NARROW = 8, 0.1  # examples and width, to see that the script works


class Deadline:
    """Ends a list of measurements in time."""

    def __init__(self, minutes: float) -> None:
        self.end, self.left_out = time.monotonic() + 60 * minutes, list[str]()

    def allows(self, what: str) -> bool:
        """Whether there is time for it; if not, it is noted."""
        if time.monotonic() < self.end:
            return True
        self.left_out.append(what)
        return False


class Point(NamedTuple):
    """One number of seeds, trained by one rule.

    Attributes:
        seeds: how many together.
        step: seconds of a step of all of them.
        busy: share of the time in which the device computed, or ``None`` where that cannot be known.
        memory: peak, in MB, or ``None``.
    """

    seeds: int
    step: float
    busy: float | None
    memory: float | None

    @property
    def throughput(self) -> float:
        """Steps of one seed in a second."""
        return self.seeds / self.step


def limit(points: Sequence[Point]) -> str:
    """A sentence on what limits the largest group, from how the step grew and how busy the device was."""
    last = points[-1]
    if last.busy is not None and last.busy >= BUSY:
        return f"at {last.seeds} seeds the GPU computes {last.busy:.0%} of the time: its arithmetic or memory limits"
    if len(points) > 1:
        before = points[-2]
        growth, more = last.step / before.step, last.seeds / before.seeds
        if growth <= GAIN * more / 4:
            return (
                f"a step of {last.seeds} seeds takes {growth:.2f} times that of {before.seeds}: the host, which "
                "launches kernels one by one, limits; more seeds would be nearly free, and --compile launches fewer"
            )
    return f"at {last.seeds} seeds the step grows with the seeds: the device limits, or its memory does"


def trainer(registry: Registry, rule: str, task: Task, data: Batch, seeds: int) -> Callable[[], object]:
    net, values = build(task, range(seeds), data.x[:2], data.x.device)
    size = min(task.budget.batch, len(data.x))
    which = torch.arange(size, device=data.x.device).expand(seeds, -1)
    batch = Batch(data.x[which], data.y[which])
    made = Trainer(
        registry.make_rule(rule, {}), net, task.loss, values, batch, range(seeds), task.budget, 10**6
    )
    return lambda: made.step(batch)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - started) / steps


def busy(step: Callable[[], object], steps: int, device: torch.device) -> float | None:
    """Time in kernels over time in all; the profiler's own cost makes it a lower bound."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        taken = seconds(step, steps, device) * steps
    return min(1.0, sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6 / taken)


def scale(
    registry: Registry,
    rule: str,
    task: Task,
    data: Batch,
    groups: Sequence[int],
    samples: int,
    steps: int,
    deadline: Deadline,
) -> list[Point]:
    """One rule, group by group, until one does not fit."""
    points: list[Point] = []
    device = data.x.device
    for seeds in groups:
        if points and not deadline.allows(f"{rule} with {seeds} seeds"):
            break
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            step = trainer(registry, rule, task, data, seeds)
            seconds(step, steps, device)  # a warm-up
            step_seconds = statistics.median(seconds(step, steps, device) for _ in range(samples))
            share = busy(step, steps, device)
        except torch.OutOfMemoryError:
            print(f"{rule}: {seeds} seeds do not fit on this GPU")
            break
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
        points.append(Point(seeds, step_seconds, share, peak))
    return points


def ratios(
    registry: Registry,
    rules: Sequence[str],
    task: Task,
    data: Batch,
    seeds: int,
    samples: int,
    steps: int,
    deadline: Deadline,
) -> dict[str, float | str]:
    """Every rule's step over backprop's, sampled in turn with it; a sentence where there is none."""
    found: dict[str, float | str] = {}
    reference = trainer(registry, "backprop", task, data, seeds)
    net, _ = build(task, [0], data.x[:2], data.x.device)
    for rule in rules:
        if not deadline.allows(f"{rule} with {seeds} seeds"):
            break
        reason = registry.make_rule(rule, {}).skip(net, task)
        if reason is None and not registry.make_rule(rule, {}).vmappable and seeds > 1:
            reason = "one seed at a time"
        if reason is not None:
            found[rule] = reason
            continue
        try:
            step = trainer(registry, rule, task, data, seeds)
            pairs = [
                (seconds(step, steps, data.x.device), seconds(reference, steps, data.x.device))
                for _ in range(samples + 1)
            ]
        except torch.OutOfMemoryError:
            found[rule] = "does not fit"
            continue
        found[rule] = statistics.median(a / b for a, b in pairs[1:])
    return found


def told(points: Sequence[Point]) -> str:
    lines = [
        "| seeds | step, ms | seed-steps per second | over one seed | target | GPU busy | memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in points:
        share = "" if p.busy is None else f"{p.busy:.0%}"
        held = "" if p.memory is None else f"{p.memory:.0f}"
        gain = p.throughput / points[0].throughput
        seeds, least = TARGET
        mark = f"≥ {least:.0f}× {'met' if gain >= least else 'MISSED'}" if p.seeds == seeds else ""
        lines.append(
            f"| {p.seeds} | {1e3 * p.step:.2f} | {p.throughput:.0f} | {gain:.1f}× | {mark} | {share} | {held} |"
        )
    return "\n".join(lines)


def table(found: dict[str, float | str], seeds: int) -> str:
    rows = [f"| {rule} | {r if isinstance(r, str) else f'{r:.2f}'} |" for rule, r in found.items()]
    return "\n".join([f"| rule, {seeds} seeds | step over backprop's |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tasks", default="digits-cnn,alexnet,resnet18", help="A,B")
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing is begun later")
    parser.add_argument("--seeds", default="1,4,16,64")
    parser.add_argument("--rules", default="", help="A,B  [default: all]")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that the script works")
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, too")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(
            "torch finds no GPU on this machine: nothing was measured. `--device cpu --quick` checks the script."
        )
        return
    groups = [int(n) for n in chosen.seeds.split(",")]
    samples, steps = chosen.samples, chosen.steps
    if chosen.quick:
        groups, samples, steps = groups[:2], 1, 1
    device, deadline = torch.device(chosen.device), Deadline(chosen.minutes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    text = "\n\n".join(
        [
            "# One device, many seeds",
            f"torch {torch.__version__}, Python {platform.python_version()}, {name}; median of {samples} samples of {steps} steps.",
        ]
    )
    print(text)
    rules = chosen.rules.split(",") if chosen.rules else []
    tasks = chosen.tasks.split(",")
    for part in parts(
        tasks, rules, groups, samples, steps, device, deadline, chosen.data, quick=chosen.quick
    ):
        print("\n" + part, flush=True)
        text += "\n\n" + part
        if chosen.markdown:
            chosen.markdown.write_text(text + "\n", encoding="utf-8")


def parts(
    tasks: Sequence[str],
    rules: Sequence[str],
    groups: Sequence[int],
    samples: int,
    steps: int,
    device: torch.device,
    deadline: Deadline,
    root: Path | None,
    *,
    quick: bool,
) -> Iterator[str]:
    """The tables, one after the other."""
    registry = discover()
    for name in tasks:
        if not deadline.allows(name):
            continue
        task = OWN[name](width=NARROW if quick else 1.0) if name in OWN else registry.make_task(name, {})
        data = Batch(*(part[: FEW if quick else None].to(device) for part in task.data(root).train))
        points = scale(registry, "backprop", task, data, groups, samples, steps, deadline)
        if not points:
            yield f"## {name}\n\nNot even one seed fits."
            continue
        yield f"## {name}: backprop\n\n{told(points)}\n\n{limit(points)}."
        chosen = rules or (SCALED if name in OWN else list(registry.rules))
        for seeds in dict.fromkeys((1, min(16, points[-1].seeds))):
            found = ratios(registry, chosen, task, data, seeds, samples, steps, deadline)
            yield f"## {name}: every rule, {seeds} together\n\n{table(found, seeds)}"
    if deadline.left_out:
        yield f"Left out for lack of time: {', '.join(deadline.left_out)}."


if __name__ == "__main__":
    main()
