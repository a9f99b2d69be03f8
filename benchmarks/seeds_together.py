"""What it takes to train S seeds together, as a ratio to training them one by one.

Both sides train with the runner's own `Trainer`, optimiser included, and are sampled in turn (together, alone,
together, …) in one process, so that a change of the machine's speed meets both alike. Times are the processor time of
one thread, page faults included, or the wall clock's where there are more threads. 1 means that nothing is gained; the
target for 16 seeds of digits-cnn is a half.

    python benchmarks/seeds_together.py [--samples 7] [--seeds 1,4,16] [--markdown FILE]
    python benchmarks/seeds_together.py --task cifar10-cnn -o width=0.5 --seeds 4 --rules backprop
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
from torch import Tensor

from rulezoo import Task
from rulezoo.allocator import keep_freed_memory
from rulezoo.registry import discover
from rulezoo.rule import Batch, LearningRule
from rulezoo.training import Trainer, build

TARGET = ("digits-cnn", 16, 0.5)
STEPS = 10  # of all seeds in a sample: the longest schedule among the rules


class Row(NamedTuple):
    """Seconds of a step of one seed."""

    rule: str
    seeds: int
    together: float
    alone: float
    wall_ratio: float

    @property
    def ratio(self) -> float:
        return self.together / self.alone


def stepper(rule: LearningRule, task: Task, x: Tensor, y: Tensor, seeds: Sequence[int]) -> Callable[[], None]:
    """Takes one step of all seeds: the same examples again and again, a place of its own in memory for each seed."""
    net, params = build(task, seeds, x[:1], x.device)
    which = torch.arange(task.budget.batch, device=x.device).expand(len(seeds), -1) % len(x)
    first = Batch(x[which], y[which])
    trainer = Trainer(rule, net, task.loss, params, first, seeds, task.budget, 10**6)

    def step() -> None:
        trainer.step(Batch(x[which], y[which]))

    return step


def timed(step: Callable[[], None], steps: int) -> tuple[float, float]:
    """Seconds of processor and of wall time of a step."""
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    return (time.process_time() - processor) / steps, (time.perf_counter() - wall) / steps


def measure(
    name: str, rule: LearningRule, task: Task, data: Batch, seeds: int, samples: int, steps: int
) -> Row:
    """One rule: medians over samples that alternate between together and alone."""
    together = stepper(rule, task, data.x, data.y, range(seeds))
    alone = stepper(rule, task, data.x, data.y, [0])
    found: dict[str, list[tuple[float, float]]] = {"together": [], "alone": []}
    for sample in range(samples + 1):
        for label, step, count in (("together", together, steps), ("alone", alone, steps * min(seeds, 4))):
            times = timed(step, count)
            if sample:  # the first is a warm-up
                found[label].append(times)
    (a, b), (c, d) = (
        [statistics.median(clock) for clock in zip(*found[label], strict=True)]
        for label in ("together", "alone")
    )
    if torch.get_num_threads() > 1:
        return Row(name, seeds, b / seeds, d, b / seeds / d)
    return Row(name, seeds, a / seeds, c, b / seeds / d)


def table(task: str, rows: Sequence[Row]) -> str:
    lines = ["| rule | seeds | together, ms per seed | alone, ms | ratio | ratio of wall times | target |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        wanted, seeds, most = TARGET
        mark = (
            ""
            if (task, r.seeds) != (wanted, seeds)
            else f"≤ {most:.2f} {'met' if r.ratio <= most else 'MISSED'}"
        )
        lines.append(
            f"| {r.rule} | {r.seeds} | {1e3 * r.together:.2f} | {1e3 * r.alone:.2f} | {r.ratio:.2f} | {r.wall_ratio:.2f} | {mark} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="digits-cnn")
    parser.add_argument(
        "-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="of the task"
    )
    parser.add_argument("--rules", default="backprop,feedback-alignment,nmnc")
    parser.add_argument("--seeds", default="1,4,16")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    registry = discover()
    task = registry.make_task(chosen.task, dict(option.split("=", 1) for option in chosen.option))
    data = Batch(*task.data(chosen.data).train)
    rows = [
        measure(name, registry.make_rule(name, {}), task, data, int(seeds), chosen.samples, chosen.steps)
        for name in chosen.rules.split(",")
        for seeds in chosen.seeds.split(",")
    ]
    head = f"torch {torch.__version__}, Python {platform.python_version()}, cpu, {chosen.threads} threads"
    how = f"median of {chosen.samples} samples of {chosen.steps} steps, in turn"
    options = "".join(f", {option}" for option in chosen.option)
    text = f"### {chosen.task}{options}, batch {task.budget.batch}\n\n{head}; {how}.\n\n{table(chosen.task, rows)}\n"
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(f"# Seeds together\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
