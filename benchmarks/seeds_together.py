"""What it takes to train S seeds together, as a ratio to training them one by one.

Both sides train with the runner's own `Trainer`, optimiser included, and are sampled in turn (together, alone,
together, …) in one process, so that a change of the machine's speed meets both alike. Times are the processor time of
one thread, page faults included, or the wall clock's where there are more threads. 1 means that nothing is gained; the
target for 16 seeds of digits-cnn is a half. With ``--whole`` a sample is no ten steps, but the task's whole training
by the runner: evaluation, the reference's steps and the making of the networks as well.

    python benchmarks/seeds_together.py [--samples 7] [--seeds 1,4,16] [--markdown FILE]
    python benchmarks/seeds_together.py --whole --threads 2 --seeds 16
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

from rulezoo import Data, Task
from rulezoo.discovery.registry import discover
from rulezoo.rule import Batch, LearningRule
from rulezoo.training import allocator, runner
from rulezoo.training.run import RunRequest
from rulezoo.training.trainer import Trainer, build

TARGET = ("digits-cnn", 16, 0.5)
STEPS = 10  # of all seeds in a sample: the longest schedule among the rules


Times = tuple[float, float]  # seconds of processor and of wall time


class Row(NamedTuple):
    """Seconds of a step, or of the training, of one seed."""

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
    net, values = build(task, seeds, x[:2], x.device)
    which = torch.arange(task.budget.batch, device=x.device).expand(len(seeds), -1) % len(x)
    first = Batch(x[which], y[which])
    trainer = Trainer(rule, net, task.loss, values, first, seeds, task.budget, 10**6)

    def step() -> None:
        trainer.step(Batch(x[which], y[which]))

    return step


def trainings(
    rule: LearningRule, task: Task, data: Data, groups: Sequence[Sequence[int]]
) -> Callable[[], None]:
    """Trains groups of seeds, one after the other, from the beginning to the test."""

    def train() -> None:
        for seeds in groups:
            for _, outcome in runner.run(
                RunRequest(rule, task, seeds, task.budget, data, data.train.x.device)
            ):
                if (outcome.status, outcome.seeds_together) != ("ok", len(seeds)):
                    raise RuntimeError(f"seeds {seeds}: {outcome.status} {outcome.reason}")

    return train


def timed(work: Callable[[], None], times: int) -> Times:
    """Seconds that it takes once."""
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        work()
    return (time.process_time() - processor) / times, (time.perf_counter() - wall) / times


def steps_of(
    name: str, rule: LearningRule, task: Task, data: Data, seeds: int, samples: int, steps: int
) -> Row:
    """Steps of one rule."""
    together = stepper(rule, task, *data.train, range(seeds))
    alone = stepper(rule, task, *data.train, [0])
    times = in_turn(lambda: timed(together, steps), lambda: timed(alone, steps * min(seeds, 4)), samples)
    return row(name, seeds, *times, of_all=1)


def trainings_of(name: str, rule: LearningRule, task: Task, data: Data, seeds: int, samples: int) -> Row:
    """Whole trainings by one rule."""
    together = trainings(rule, task, data, [range(seeds)])
    alone = trainings(rule, task, data, [[seed] for seed in range(seeds)])
    return row(
        name, seeds, *in_turn(lambda: timed(together, 1), lambda: timed(alone, 1), samples), of_all=seeds
    )


def in_turn(together: Callable[[], Times], alone: Callable[[], Times], samples: int) -> tuple[Times, Times]:
    """Medians over samples that alternate between the two; the first of each is a warm-up."""
    found = [(together(), alone()) for _ in range(samples + 1)][1:]
    sides = zip(*found, strict=True)
    one, other = ([statistics.median(clock) for clock in zip(*side, strict=True)] for side in sides)
    return (one[0], one[1]), (other[0], other[1])


def row(name: str, seeds: int, together: Times, alone: Times, of_all: int) -> Row:
    """Seconds of one seed; ``together`` took those of all, ``alone`` those of ``of_all`` seeds."""
    clock = 1 if torch.get_num_threads() > 1 else 0
    ratio = (together[1] / seeds) / (alone[1] / of_all)
    return Row(name, seeds, together[clock] / seeds, alone[clock] / of_all, ratio)


def table(task: str, rows: Sequence[Row]) -> str:
    """Markdown; the target stands beside what it is about."""
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
    parser.add_argument("--whole", action="store_true", help="train to the end, by the runner")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    allocator.prepare()
    registry = discover()
    task = registry.make_task(chosen.task, dict(option.split("=", 1) for option in chosen.option))
    data = task.data(chosen.data)
    rows = []
    for name in chosen.rules.split(","):
        rule = registry.make_rule(name, {})
        for seeds in map(int, chosen.seeds.split(",")):
            what = (name, rule, task, data, seeds, chosen.samples)
            rows.append(trainings_of(*what) if chosen.whole else steps_of(*what, chosen.steps))
    head = f"torch {torch.__version__}, Python {platform.python_version()}, cpu, {chosen.threads} threads"
    sample = f"whole trainings of {task.budget.epochs} epochs" if chosen.whole else f"{chosen.steps} steps"
    how = f"median of {chosen.samples} samples of {sample}, in turn"
    options = "".join(f", {option}" for option in chosen.option)
    text = f"## {chosen.task}{options}, batch {task.budget.batch}\n\n{head}; {how}.\n\n{table(chosen.task, rows)}\n"
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(f"# Seeds together\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
