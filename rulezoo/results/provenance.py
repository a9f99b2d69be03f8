"""The provenance of a run: what computed it, without naming whose machine it was."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulezoo.results.records import Device, Hardware, Mode, Plugin, Provenance

HERE = Path(__file__).resolve().parents[1]  # the package rulezoo
SOURCES = ("rulezoo", "plugins", "tasks", "evaluations", "pyproject.toml")  # what can change a result
FOLDERS = re.compile(r"(?<![\w/:.~…-])(?:[A-Za-z]:)?(?:[\\/][^\s\\/:\"'<>|]+)+(?=[\\/])")


def collect(
    *,
    device: Device,
    rule_plugin: Plugin,
    task_plugin: Plugin,
    started: datetime,
    finished: datetime,
    seeds_together: int,
    mode: Mode,
    rule_code: str | None = None,
    task_code: str | None = None,
    compiled: bool = False,
    data: str | None = None,
) -> Provenance:
    """Collect the provenance of a run: what computed it, and when.

    Args:
        device: where it was computed.
        rule_plugin: the distribution that the rule came from.
        task_plugin: the distribution that the task came from.
        started: a time that knows its zone.
        finished: a time that knows its zone.
        seeds_together: how many seeds were trained in one vmap.
        mode: how they were trained.
        rule_code: fingerprint of the rule's code.
        task_code: fingerprint of the task's.
        compiled: whether `torch.compile` took the step.
        data: digest of the data.
    """
    from rulezoo.results.records import Provenance

    commit, dirty = checkout()
    return Provenance(
        packages=packages(device),
        rule_plugin=rule_plugin,
        task_plugin=task_plugin,
        hardware=hardware(device),
        commit=commit,
        dirty=dirty,
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        finished=finished.astimezone(UTC).isoformat(timespec="seconds"),
        seeds_together=seeds_together,
        mode=mode,
        rule_code=rule_code,
        task_code=task_code,
        compiled=compiled,
        data=data,
    )


def packages(device: Device) -> dict[str, str]:
    """The versions that can change a number, ``cuda`` included where it computes."""
    import torch

    from rulezoo import __version__

    found = {"rulezoo": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    found |= {name: version(name) for name in ("numpy", "scikit-learn", "torchvision")}
    if device == "cuda":
        found["cuda"] = str(torch.version.cuda)
    return found


def hardware(device: Device) -> Hardware:
    """The class of this machine as it computes on ``device``."""
    import torch

    from rulezoo.results.records import Hardware

    gpu = _gpu() if device == "cuda" else cpu() if device == "mps" else None
    return Hardware(cpu=cpu(), cores=_cores(), threads=torch.get_num_threads(), gpu=gpu)


def _gpu() -> str | None:
    """The model of the GPU; none where this process sees none, as one that watches a cluster from outside."""
    import torch

    try:
        return str(torch.cuda.get_device_name())
    except (RuntimeError, AssertionError):
        return None


@functools.cache
def cpu() -> str:
    """The model of the processor, or its architecture where the system does not tell."""
    if sys.platform == "linux":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        return found.group(1).strip() if found else platform.machine()
    if sys.platform == "darwin":
        return _run("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # a cluster gives a job fewer than the node has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def checkout() -> tuple[str | None, bool | None]:
    """Git commit of the checkout that rulezoo runs from, and whether its sources were changed since.

    ``(None, None)`` for an installed copy, even one in a virtual environment inside of somebody's repository.
    Asked once per process: the code that runs is the code that was there at the start.
    """
    git = ("git", "-C", str(HERE.parent))
    if _run(*git, "ls-files", "--error-unmatch", f"{HERE.name}/__init__.py") is None:
        return None, None
    commit = _run(*git, "rev-parse", "HEAD")
    changes = _run(*git, "status", "--porcelain", "--", *SOURCES)
    return commit, None if commit is None or changes is None else bool(changes)


def _run(*command: str) -> str | None:
    # A git hook sets GIT_DIR and the like, which would answer for another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=env, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def anonymous(text: str) -> str:
    """`without_paths`, and without the names of this machine and of the user."""
    text = without_paths(text)
    known = {platform.node(), platform.node().partition(".")[0], Path.home().name}
    for name in sorted(filter(_tells, known), key=len, reverse=True):  # the whole name before its parts
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text


def _tells(name: str) -> bool:
    return len(name) > 2 and name not in ("root", "localhost", "home", "user")


def without_paths(text: str) -> str:
    """``text`` with the folders of absolute paths replaced by ``…``: what is stored may be published.

    The names of files stay: ``File "/home/me/zoo/rulezoo/training/runner.py"`` becomes ``File "…/runner.py"``.
    """
    known = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), *sys.path}
    for folder in sorted(
        known, key=len, reverse=True
    ):  # these may hold blanks, at which the pattern would stop
        if len(folder) > 1:
            text = text.replace(folder, "/…")
    return re.sub(r"(/…)+", "…", FOLDERS.sub("/…", text))
