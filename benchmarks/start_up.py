"""What a process of its own adds to a training: the same job in this process and in one of the local executor.

Both are sampled in turn, so that a change of the machine's speed meets both alike. The store is thrown away. The first
job of an executor also waits for the server that processes are forked from, which imports torch; that is told apart.
Wall time includes what other programs on the machine take; the time of the processor does not.

    python benchmarks/start_up.py [--samples 9] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import psutil

from rulezoo.comparison.jobs import Job, work
from rulezoo.comparison.request import Request
from rulezoo.executors.local import Local

TARGET = 0.3  # seconds


class Silent:
    def started(self, job):
        pass

    def progressed(self, job, done, total):
        pass

    def finished(self, job, records):
        assert [record.status for record in records] == ["ok"], records


def spent():
    """Wall seconds, and the processor's on behalf of this process and the jobs that the server has seen end."""
    server = forkserver._forkserver._forkserver_pid
    jobs = psutil.Process(server).cpu_times() if server else None
    used = time.process_time() + (jobs.children_user + jobs.children_system if jobs else 0.0)
    return time.perf_counter(), used


def seconds(run, store, number):
    """Wall and processor seconds of one job that has not been done yet."""
    job = Job(
        Request(
            rules=("backprop",), tasks=("digits-cnn",), seeds=(number,), device="cpu", epochs=1, threads=1
        ),
        store,
    )
    before = spent()
    run(job)
    if run is not work:
        time.sleep(0.2)  # until the server has taken notice; not counted as wall time
    after = spent()
    return after[0] - before[0] - 0.2 * (run is not work), after[1] - before[1]


def measure(samples):
    """Pairs of seconds in this process, in another one, and of the first in another one."""
    here, there = [], []
    executor = Local(jobs=1)

    def elsewhere(job):
        executor.run([job], Silent())

    with tempfile.TemporaryDirectory() as folder:
        stores = Path(folder, "here"), Path(folder, "there")
        seconds(work, stores[0], 1000)  # imports
        first = seconds(elsewhere, stores[1], 1000)
        for number in range(samples):
            here.append(seconds(work, stores[0], number))
            there.append(seconds(elsewhere, stores[1], number))
    return here, there, first


def report(here, there, first):
    def medians(pairs):
        return [statistics.median(values) for values in zip(*pairs, strict=True)]

    added = medians([(b[0] - a[0], b[1] - a[1]) for a, b in zip(here, there, strict=True)])
    rows = [
        ("in this process", medians(here)),
        ("in a process of its own", medians(there)),
        ("added, median of the pairs", added),
    ]
    lines = ["| one epoch of backprop on digits-cnn | wall s | processor s |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {wall:.2f} | {used:.2f} |" for name, (wall, used) in rows]
    lines += [f"| the first one, with the server's start | {first[0]:.2f} | |"]
    verdict = " and ".join(
        f"{what} {'met' if value < TARGET else 'missed'}"
        for what, value in zip(("wall time", "processor time"), added, strict=True)
    )
    machine = (
        f"Python {platform.python_version()}, {platform.machine()}, {len(here)} pairs of samples in turn"
    )
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    said = f"Target: a process adds less than {TARGET} s. By {verdict}. {machine}, {load}."
    return "\n".join([*lines, "", said, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    text = report(*measure(args.samples))
    print(text)
    if args.markdown:
        args.markdown.write_text(f"# What a process of its own costs\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
