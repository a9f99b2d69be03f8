"""The executor of this machine with its device, number of jobs and threads, chosen where the user chose none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.comparison.plan import choose_device

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Executor
    from rulezoo.results.records import Device

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  #: variables that limit torch's threads


@dataclass(frozen=True)
class ExecutorSetup:
    """An executor, the device of its jobs and their number of threads.

    Attributes:
        executor: does the jobs.
        device: where they compute.
        threads: torch's threads in each process.
    """

    executor: Executor
    device: Device
    threads: int


def this_machine(
    device: str = "auto",
    jobs: int | None = None,
    *,
    gpus: str | None = None,
    per_gpu: int | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
) -> ExecutorSetup:
    """The executor of this machine.

    Args:
        device: ``auto`` = the GPU where there is one.
        jobs: maximum number of jobs at the same time; ``None`` = one for each core, or ``per_gpu`` for each GPU.
        gpus: number or list of the GPUs to share out; ``None`` = the first.
        per_gpu: jobs at the same time on each GPU.
        time_limit: wall seconds after which a job is ended.
        memory_limit: bytes of memory above which a job is ended; ``None`` = an equal share of what is free.

    Raises:
        UserError: if the device or a GPU does not exist.
    """
    from rulezoo.executors.local import Local

    chosen = _gpus(gpus) if gpus else ()
    on = choose_device("cuda" if chosen or per_gpu else device)
    number = jobs or (cores() if on == "cpu" else max(1, len(chosen)) * (per_gpu or 1))
    return ExecutorSetup(Local(number, time_limit, chosen, memory_limit), on, _threads(number, os.environ))


def _gpus(wanted: str) -> tuple[str, ...]:
    import torch

    from rulezoo.executors.gpus import chosen

    return chosen(wanted, torch.cuda.device_count(), os.environ)


def _threads(jobs: int, environ: Mapping[str, str]) -> int:
    """An equal share of the cores for each job, but no more threads than the environment allows."""
    allowed = [environ.get(name, "").partition(",")[0].strip() for name in THREADS]
    return max(1, min([cores() // jobs, *(int(word) for word in allowed if word.isdecimal() and int(word))]))


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a cluster gives a job fewer than the node has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
