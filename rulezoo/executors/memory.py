"""How much memory there is, and how much a process takes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_GROUP = Path(
    "/sys/fs/cgroup"
)  # a container's own limit, where there is one; the machine's memory tells nothing of it
_SHARE = 0.9  # of what is free, for the trainings together: the rest is for all else
_LEAST = 2 * 10**9  # bytes: a process that has done nothing but import torch has half a gigabyte


def share(jobs: int) -> int:
    """Bytes that each of N jobs at the same time may take: an equal share of what is free, or a little.

    On many cores an equal share can be less than any training needs. Not all take so much at the same time.
    """
    import psutil

    return max(_LEAST, int(_SHARE * min(psutil.virtual_memory().available, _left_in_container()) / jobs))


def resident(pid: int) -> int:
    """Bytes that a process holds in memory for itself; 0 when it is gone.

    Pages of mapped files are left out where the system tells them apart (Linux): it takes them back when it needs memory,
    so a run that maps data larger than the memory does not hold them.
    """
    import psutil

    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    held: int = info.rss - getattr(info, "shared", 0)
    return held


def in_words(size: float) -> str:
    """A size in GB, which are 10⁹ bytes."""
    return f"{size / 1e9:.2g} GB"


def _left_in_container() -> float:
    with suppress(OSError, ValueError):  # "max", or not a container
        limit = int((_GROUP / "memory.max").read_text())
        return limit - int((_GROUP / "memory.current").read_text())
    return float("inf")
