"""What it takes to train several seeds of a relaxing rule together, as a ratio to training them one by one.

A relaxing rule makes tens of small passes in a step, whose cost on one network is mostly that of starting operations; so it
gains more by `torch.func.vmap` over seeds than a rule with one pass. Both sides are sampled in turn, by the same code as
in ``seeds_together.py``. The goal is at most a half for four seeds.

    python benchmarks/relaxing_together.py [--task digits-cnn -o width=0.25] [--rules A,B] [--samples 5] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from seeds_together import Row, steps_of

from rulezoo import Net
from rulezoo.discovery.registry import discover
from rulezoo.training import allocator

GOAL = 0.5
FAMILIES = ("predictive coding", "equilibrium propagation", "contrastive Hebbian learning")


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line for each rule."""
    lines = [
        f"| rule | together, ms per seed | one by one, ms | ratio | goal: ≤ {GOAL:.2f} |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "met" if row.ratio <= GOAL else "missed"
        lines.append(
            f"| {row.rule} | {1e3 * row.together:.1f} | {1e3 * row.alone:.1f} | {row.ratio:.2f} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    registry = discover()
    relaxing = [name for name, spec in registry.specs().items() if spec.family in FAMILIES]
    parser.add_argument("--task", default="digits-cnn")
    parser.add_argument(
        "-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="of the task"
    )
    parser.add_argument("--batch", type=int, help="examples in a step; by default those of the task's budget")
    parser.add_argument("--rules", default=",".join(relaxing))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="in a sample")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--markdown", type=Path, help="add the table to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    allocator.prepare()
    task = registry.make_task(chosen.task, dict(option.split("=", 1) for option in chosen.option))
    if chosen.batch:
        object.__setattr__(task, "budget", dataclasses.replace(task.budget, batch=chosen.batch))
    data = task.data(chosen.data)
    net, rows = Net(task.network(), data.train.x[:2]), []
    for name in chosen.rules.split(","):
        rule = registry.make_rule(name, {})
        if reason := rule.skip(net, task):
            print(f"{name} is left out: {reason}")
            continue
        rows.append(steps_of(name, rule, task, data, chosen.seeds, chosen.samples, chosen.steps))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    title = ", ".join((chosen.task, *chosen.option, f"batch {task.budget.batch}, {chosen.seeds} seeds"))
    how = f"median of {chosen.samples} samples of {chosen.steps} steps, in turn"
    place = f"torch {torch.__version__}, Python {platform.python_version()}, cpu, {chosen.threads} threads"
    text = f"## {title}\n\n{place}; {how}.\n\n{table(rows)}\n"
    print(f"\n{text}")
    if chosen.markdown:
        with chosen.markdown.open("a", encoding="utf-8") as page:
            page.write(f"\n{text}")


if __name__ == "__main__":
    main()
