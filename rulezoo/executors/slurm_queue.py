"""What SLURM's queue says of jobs, what its words mean for a record, and how jobs are taken out of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.comparison.executor import Unreachable

if TYPE_CHECKING:
    from rulezoo.executors.attempt import Failure
    from rulezoo.results.records import Status

PATIENCE = 600.0  # seconds for which SLURM may not answer while its jobs go on
_ANSWER = 60.0  # seconds for one answer
_COLUMNS = "JobArrayID:|,State:|,exit_code:|"
_MEMORY = re.compile(
    r"^s(?:lurmstepd|run)\S* error: .*?(\w*(?:oom.kill|out of memory|exceeded \w* ?memory limit).*)",
    re.IGNORECASE | re.MULTILINE,
)
_TAIL = 2**14  # bytes of a log that are looked through
ENDED: Mapping[str, Status] = {  # SLURM's words for what is over; everything else may still become something
    "COMPLETED": "crashed",  # without a word
    "FAILED": "crashed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "oom_host",
    "NODE_FAIL": "killed",
    "BOOT_FAIL": "killed",
    "CANCELLED": "killed",
    "PREEMPTED": "killed",
    "REVOKED": "killed",
}


@dataclass(frozen=True)
class State:
    """What SLURM knows of a job: its word for it, and the status that the job's script ended with, as wait(2) has it."""

    word: str
    code: int


def exit_reason(state: State | None, log: Path) -> Failure:
    """How a job ended that did not say so itself: a status, and a sentence.

    Args:
        state: what SLURM knows of it.
        log: what SLURM and the job wrote on stderr: not every version has a word of its own for a lack of memory.
    """
    if state is None:
        return "killed", "SLURM does not know its job any more"
    status, code = ENDED[state.word], state.code >> 8
    if status == "crashed" and code > 128:  # as shells say it
        if found := _MEMORY.search(_end_of(log)):
            return "oom_host", f"SLURM ended its job: {found[1]}"
        return "killed", f"its process was ended by signal {code - 128}"
    if status == "crashed":
        return "crashed", f"its process ended without a word, with exit code {code}"
    return status, f"SLURM ended its job: {state.word}"


def _end_of(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read().decode(errors="replace")
    return ""


def states(name: str) -> dict[str, State]:
    """What SLURM knows of the jobs of that name: number → state. It soon forgets those that are over.

    Raises:
        Unreachable: if it does not answer.
    """
    # Not `sacct`, which submitit would ask: it needs a data base that not every cluster has.
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        "--me",
        f"--name={name}",
        f"--Format={_COLUMNS}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"`squeue` did not answer: {error}") from error
    if done.returncode:
        raise Unreachable(
            f"SLURM has not answered for {PATIENCE / 60:g} minutes; `squeue` said: {done.stderr.strip()}; the jobs "
            f"named {name} were cancelled if SLURM hears that, and the same command resumes from what is stored"
        )
    rows = (line.split("|") for line in done.stdout.splitlines() if line.strip())
    return {number.strip(): State(word.strip(), int(code)) for number, word, code, *_ in rows}


def cancel(name: str) -> bool:
    """Cancel the jobs of that name; whether SLURM heard it."""
    command = ["scancel", "--me", f"--name={name}"]
    try:
        return not subprocess.run(command, capture_output=True, timeout=_ANSWER, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False
