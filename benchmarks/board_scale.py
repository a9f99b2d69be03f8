"""How the time and memory of the commands that read a store grow with the number of records.

    python benchmarks/board_scale.py                       # 1,000, 10,000 and 100,000 records; prints the table
    python benchmarks/board_scale.py --records 1000,10000

Writes synthetic stores into a temporary folder (40 made-up rules, each with as many variants as it takes, on 5 tasks with 5
seeds; curves of 20 points, probes at three moments on one task) and runs each command on each of them. The exponent is the
slope of processor time against records on logarithmic axes, by least squares, the time for a store of 25 records subtracted:
1 is linear. The report is written for at most 20,000 records.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rulezoo.results.provenance import cpu
from rulezoo.results.records import Cost, Hardware, Plugin, Point, Probe, Provenance, Record, RunSpec
from rulezoo.results.store import Store, _encode

RULES, TASKS, SEEDS, POINTS = 40, 5, 5, 20
RECORDS = (1_000, 10_000, 100_000)
REPORT = 20_000  # records of the largest report
ANSWERED = Provenance(
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
    "leaderboard": ["leaderboard"],
    "leaderboard --format csv": ["leaderboard", "--format", "csv"],
    "status": ["status"],
    "leaderboard --html": ["leaderboard", "--html", "REPORT"],
}
TARGETS = {("leaderboard", 100_000): 15.0, ("leaderboard --html", REPORT): 60.0}  # seconds of processor time


class Used(NamedTuple):
    """What a command took."""

    wall: float
    processor: float
    megabytes: float


def record(rule: str, task: str, seed: int, variant: int, rng: random.Random) -> Record:
    """A run with a curve that rises to its score."""
    score = min(0.99, max(0.1, rng.gauss(0.5 + len(rule) % 5 / 10, 0.05)))
    sites = {f"layer{i}.post": {"angle": 90 * rng.random(), "alpha": rng.random()} for i in range(4)}
    probes = [Probe(step=s, epoch=s, sites=sites, weights={"*": {"angle": 50.0}}) for s in (0, 10, 20)]
    return Record(
        asked=RunSpec(
            protocol=1, rule=rule, rule_version=1, rule_options={"lr": None, "sigma": 0.1 + variant}, task=task,
            task_version=1, task_options={"width": 1.0}, budget={"epochs": POINTS, "lr": 0.01}, seed=seed, device="cpu",
        ),
        answered=ANSWERED,
        status="ok",
        changed=["sigma"] if variant else [],
        scores={"validation": score, "test": score},
        chance=0.1,
        metric="accuracy",
        curve=[
            Point(step=e, epoch=e, train_loss=1 / e, validation=score * (1 - 0.5**e)) for e in range(1, POINTS + 1)
        ],
        cost=Cost(step_ms=1.0, backprop_step_ms=1.0, ratio=0.5 + 3 * rng.random()),
        probes=probes if task == "task-0" else [],
    )  # fmt: skip


def fill(store: Store, records: int) -> None:
    """Write so many records; without the store's care for a loss of power, which takes milliseconds for each."""
    rng = random.Random(0)
    rules = ["backprop", "frozen", *(f"rule-{k}" for k in range(RULES - 2))]
    for row in range(records // (TASKS * SEEDS)):
        variant, which = divmod(row, RULES)
        for k in range(TASKS):
            for seed in range(SEEDS):
                one = record(rules[which], f"task-{k}", seed, variant, rng)
                path = store.path(one.asked)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_encode(one))


def used_by(words: list[str], store: Store, report: Path) -> Used:
    """Run a command in a process of its own."""
    words = [str(report) if word == "REPORT" else word for word in words]
    command = [sys.executable, "-m", "rulezoo", *words, "--out", str(store.root)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Used(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak)


def exponent(used: dict[int, Used], start: float) -> float:
    """The slope of processor time against records, on logarithmic axes."""
    x = np.log(list(used))
    y = np.log([max(one.processor - start, 1e-3) for one in used.values()])
    return float(np.polyfit(x, y, 1)[0])


def measure(sizes: list[int]) -> dict[str, dict[int, Used]]:
    """Command → records → what it took; 25 records stand for the start."""
    found: dict[str, dict[int, Used]] = {name: {} for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({TASKS * SEEDS, *sizes, min(REPORT, max(sizes))}):
            store = Store(Path(folder) / str(size))
            fill(store, size)
            for name, words in COMMANDS.items():
                report = name == "leaderboard --html"
                if size <= REPORT if report else size in (TASKS * SEEDS, *sizes):
                    found[name][size] = used_by(words, store, Path(folder) / f"report-{size}")
    return found


def table(found: dict[str, dict[int, Used]]) -> str:
    """The table, in Markdown, and how it compares with the targets."""
    lines = [
        "# Time and memory of the leaderboard",
        "",
        "| command | records | wall s | processor s | peak MB | exponent |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, by_size in found.items():
        start = by_size[TASKS * SEEDS].processor
        sizes = {size: one for size, one in by_size.items() if size > TASKS * SEEDS}
        for size, one in by_size.items():
            slope = f"{exponent(sizes, start):.2f}" if size == max(sizes) and len(sizes) > 1 else ""
            lines.append(
                f"| `{name}` | {size:,} | {one.wall:.1f} | {one.processor:.1f} | {one.megabytes:.0f} | {slope} |"
            )
    lines.append("")
    for (name, size), most in TARGETS.items():
        if size in found[name]:
            took = found[name][size].processor
            met = "met" if took < most else "missed"
            lines.append(
                f"Target: `{name}` with {size:,} records takes less than {most:.0f} s of processor time: {met}, {took:.1f} s."
            )
    lines.append("")
    lines.append(
        f"{RULES} rules with their variants on {TASKS} tasks, {SEEDS} seeds. {cpu()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load {os.getloadavg()[0]:.1f} at the end."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", default=",".join(map(str, RECORDS)), help="Numbers of records, A,B,C.")
    print(table(measure([int(word) for word in parser.parse_args().records.split(",")])))


if __name__ == "__main__":
    main()
