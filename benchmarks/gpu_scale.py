"""What one GPU does with many seeds: throughput, utilisation, every rule's step against backprop, and what limits it.

    python benchmarks/gpu_scale.py [--task digits-cnn] [--seeds 1,4,16,64] [--markdown FILE]
    python benchmarks/gpu_scale.py --device cpu --quick        # its own check, on any machine

Without a GPU it says so and ends. A group of seeds that does not fit is left out, and said.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from rulezoo import Task
from rulezoo.discovery.registry import Registry, discover
from rulezoo.rule import Batch
from rulezoo.training.trainer import Trainer, build

BUSY = 0.7  # share of the time in which the GPU computes, above which it is what limits
TARGET = (16, 10.0)  # so many seeds together are to take at most a tenth of their time one by one
GAIN = 1.5  # a step may take so much longer with four times the seeds, and the GPU still has room


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
    which = torch.arange(task.budget.batch, device=data.x.device).expand(seeds, -1) % len(data.x)
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
    registry: Registry, rule: str, task: Task, data: Batch, groups: Sequence[int], samples: int, steps: int
) -> list[Point]:
    """One rule, group by group, until one does not fit."""
    points = []
    device = data.x.device
    for seeds in groups:
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
    registry: Registry, rules: Sequence[str], task: Task, data: Batch, seeds: int, samples: int, steps: int
) -> dict[str, float | str]:
    """Every rule's step over backprop's, sampled in turn with it; a sentence where there is none."""
    found: dict[str, float | str] = {}
    pace = trainer(registry, "backprop", task, data, seeds)
    net, _ = build(task, [0], data.x[:2], data.x.device)
    for rule in rules:
        reason = registry.make_rule(rule, {}).skip(net, task)
        if reason is None and not registry.make_rule(rule, {}).vmappable and seeds > 1:
            reason = "one seed at a time"
        if reason is not None:
            found[rule] = reason
            continue
        step = trainer(registry, rule, task, data, seeds)
        pairs = [
            (seconds(step, steps, data.x.device), seconds(pace, steps, data.x.device))
            for _ in range(samples + 1)
        ]
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
    parser.add_argument("--task", default="digits-cnn")
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
    device, registry = torch.device(chosen.device), discover()
    task = registry.make_task(chosen.task, {})
    data = Batch(*(part.to(device) for part in task.data(chosen.data).train))
    points = scale(registry, "backprop", task, data, groups, samples, steps)
    rules = chosen.rules.split(",") if chosen.rules else list(registry.rules)
    most = min(16, points[-1].seeds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    text = "\n\n".join(
        [
            f"# One device, many seeds: {chosen.task}",
            f"torch {torch.__version__}, Python {platform.python_version()}, {name}; median of {samples} samples of {steps} steps.",
            f"## Backprop\n\n{told(points)}\n\n{limit(points)}.",
            *(
                f"## Every rule, {n} together\n\n{table(ratios(registry, rules, task, data, n, samples, steps), n)}"
                for n in dict.fromkeys((1, most))
            ),
        ]
    )
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
