"""How long a large store takes to be shown: 1,000 runs of 40 rules, as a table and as a site.

    python benchmarks/board_scale.py

Writes a synthetic store into a temporary folder (40 made-up rules, 5 tasks, 5 seeds, curves of 20 points, probes at
three moments on one task) and prints seconds, of the clock and of the processor; the two differ on a busy machine.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rulezoo.results.records import Answered, Asked, Cost, Hardware, Plugin, Point, Probe, Record
from rulezoo.results.store import Store

RULES, TASKS, SEEDS, POINTS = 40, 5, 5, 20
ANSWERED = Answered(
    packages={"rulezoo": "0.1.0"},
    rule_plugin=Plugin(distribution="rulezoo"),
    task_plugin=Plugin(distribution="rulezoo"),
    hardware=Hardware(cpu="a processor", cores=8, threads=1),
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seeds_together=SEEDS,
    mode="vmap",
)
COMMANDS = {
    "the table in a terminal": [],
    "Markdown": ["--format", "md"],
    "the site": ["--html", "SITE"],
}


def record(rule: str, task: str, seed: int, rng: random.Random) -> Record:
    """A run with a curve that rises to its score."""
    score = min(0.99, max(0.1, rng.gauss(0.5 + len(rule) % 5 / 10, 0.05)))
    sites = {f"layer{i}.post": {"angle": 90 * rng.random(), "alpha": rng.random()} for i in range(4)}
    probes = [Probe(step=s, epoch=s, sites=sites, weights={"*": {"angle": 50.0}}) for s in (0, 10, 20)]
    return Record(
        asked=Asked(
            protocol=1, rule=rule, rule_version=1, rule_options={"lr": None, "sigma": 0.1}, task=task, task_version=1,
            task_options={"width": 1.0}, budget={"epochs": POINTS, "lr": 0.01}, seed=seed, device="cpu",
        ),
        answered=ANSWERED,
        status="ok",
        scores={"validation": score, "test": score},
        chance=0.1,
        metric="accuracy",
        curve=[
            Point(step=e, epoch=e, train_loss=1 / e, validation=score * (1 - 0.5**e)) for e in range(1, POINTS + 1)
        ],
        cost=Cost(step_ms=1.0, backprop_step_ms=1.0, ratio=0.5 + 3 * rng.random()),
        probes=probes if task == "task-0" else [],
    )  # fmt: skip


def main() -> None:
    rng = random.Random(0)
    rules = ["backprop", "frozen", *(f"rule-{k}" for k in range(RULES - 2))]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        for rule in rules:
            for k in range(TASKS):
                for seed in range(SEEDS):
                    store.put(record(rule, f"task-{k}", seed, rng))
        print(f"{RULES * TASKS * SEEDS} runs of {RULES} rules on {TASKS} tasks")
        for what, options in COMMANDS.items():
            words = [str(Path(folder) / "site") if word == "SITE" else word for word in options]
            command = [sys.executable, "-m", "rulezoo", "leaderboard", "--out", str(store.root), *words]
            clock, processor = time.perf_counter(), _children()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            spent = time.perf_counter() - clock, _children() - processor
            print(f"{what:>24}: {spent[0]:5.2f} s of the clock, {spent[1]:5.2f} s of the processor")


def _children() -> float:
    """Seconds of processor time of the processes that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
