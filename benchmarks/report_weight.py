"""Weight and load time of the report's first page, of two versions of rulezoo, sampled in turn.

    python benchmarks/report_weight.py --before PYTHON     # a Python in which the earlier version is installed

Each version writes the report of the stored leaderboard (13 rules × 2 tasks) and of a synthetic one (40 × 12, 5 seeds, half
of the rules tuned). Then Chromium opens the first page from disk, in a new profile, five times, the versions in turn. Weight:
the bytes of the page and of all files that it loads at once. Load: processor time of the page's main thread (parsing, styles,
layout, scripts) until the end of the load event, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from board_scale import record
from playwright.sync_api import Browser, sync_playwright

from rulezoo.discovery.registry import discover
from rulezoo.results.provenance import cpu
from rulezoo.results.records import Record
from rulezoo.results.store import Store, _encode
from rulezoo.tuning import records as tunings
from rulezoo.tuning.records import Tried, Tuned

RULES, TASKS, SEEDS, REPEATS = 40, 12, 5, 5
PATIENCE = 300_000  # milliseconds
STORED = Path(__file__).resolve().parent.parent / "leaderboard" / "tuned"


class Written(NamedTuple):
    """A report on disk."""

    folder: Path
    processor: float  # seconds


def fill(store: Store) -> None:
    """Write the synthetic leaderboard: every second rule is tuned, the others keep their defaults."""
    rng = random.Random(0)
    for place, rule in enumerate([*discover().rules][:RULES]):
        for k in range(TASKS):
            variants = (0, 1) if place % 2 else (0,)
            runs = [record(rule, f"task-{k:02d}", seed, v, rng) for v in variants for seed in range(SEEDS)]
            for run in runs:
                _put(store, run)
            tunings.put(store, f"{rule}-{k}", _tuning(runs[-1]))


def _put(store: Store, run: Record) -> None:
    path = store.path(run.asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(run))


def _tuning(run: Record) -> Tuned:
    chosen = {"sigma": run.asked.rule_options["sigma"]} if run.changed else {}
    trial = Tried(set=chosen, runs=[], status="ok", validation=0.5)
    return Tuned(asked=run.asked, given={}, n=8, trials=[trial], best=0, seeds=[1000], sampler="random")


def write(python: str, store: Path, folder: Path) -> Written:
    """Write a report in a process of its own."""
    command = [python, "-P", "-m", "rulezoo", "leaderboard", "--out", str(store), "--html", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Written(folder, usage.ru_utime + usage.ru_stime)


def load(browser: Browser, folder: Path) -> tuple[float, int]:
    """Milliseconds of processor time that the first page took, and its bytes."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto((folder / "index.html").as_uri(), timeout=PATIENCE)
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    milliseconds = 1000 * metrics["TaskDuration"]
    context.close()
    files = {url.removeprefix("file://").partition("#")[0] for url in asked if url.startswith("file://")}
    return milliseconds, sum(Path(file).stat().st_size for file in files)


def row(store: str, version: str, written: Written, loads: list[tuple[float, int]]) -> str:
    """A line of the table."""
    total = sum(file.stat().st_size for file in written.folder.rglob("*") if file.is_file())
    median = statistics.median(milliseconds for milliseconds, _ in loads)
    return f"| {store} | {version} | {loads[0][1] / 1000:,.0f} | {median:.0f} | {total / 1e6:.1f} | {written.processor:.1f} |"


def measure(pythons: dict[str, str]) -> list[str]:
    """The lines of the table: every store with every version."""
    lines = []
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        large = Store(Path(temporary) / "large")
        fill(large)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, store in (("13 × 2", STORED), (f"{RULES} × {TASKS}", large.root)):
            written = {
                version: write(python, store, Path(temporary) / f"{store.name}-{version}")
                for version, python in pythons.items()
            }
            loads: dict[str, list[tuple[float, int]]] = {version: [] for version in pythons}
            for _ in range(REPEATS):
                for version, report in written.items():
                    loads[version].append(load(browser, report.folder))
            lines += [row(name, version, written[version], loads[version]) for version in pythons]
        browser.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="Python in which the earlier version is installed.")
    lines = measure({"before": parser.parse_args().before, "after": sys.executable})
    print("# Weight and load time of the report\n")
    print(
        "| rules × tasks | version | first page, kB | load, processor ms | all files, MB | writing, processor s |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    print("\n".join(lines))
    print(
        f"\nMedian of {REPEATS} loads in Chromium from disk, in turn. {cpu()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; load {os.getloadavg()[0]:.1f} at the end."
    )


if __name__ == "__main__":
    main()
