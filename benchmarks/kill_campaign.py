"""SIGKILL at random moments of a comparison, hundreds of times; then its store must be that of an undisturbed one.

The comparison tunes its rules and keeps checkpoints all the time. The same command is given again whenever it has ended;
it trains again what was killed (`--retry`). At random moments each of those that are there may be a victim: the runner (the
command itself), the server that processes are forked from, the supervisors of trainings, their workers. Most of these
moments are such that a training is under way; the others hit what starts or ends. After some kills a round is left alone until it has finished, and is compared record by record: the same runs, with the same numbers
bit for bit, but for times. A trial that was killed counts as failed for as long as its command goes on, so that rules may
be trained with another winner, too: these records are more than were asked for, and are counted.

    python benchmarks/kill_campaign.py [--kills 200] [--minutes 28] [--seed 0] [--markdown FILE]
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
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
import torch

from rulezoo.results.store import Store
from rulezoo.tuning.records import trials_of

PLUGIN = """
from rulezoo import TaskSpec, hookimpl

@hookimpl
def rulezoo_tasks():
    return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""
RULES = ("backprop", "nmnc")
WORDS = (
    "--tasks", "tiny", "--seeds", "2", "--tune", "5", "--epochs", "60", "--jobs", "4", "--device", "cpu",
    "--checkpoint", "0.02",
)  # fmt: skip
RETRY = ("--retry", "killed,crashed,error")
KINDS = {
    "runner": 0.12,
    "server": 0.2,
    "supervisor": 0.3,
    "worker": 0.6,
}  # and how likely each is to be a victim
ANY = 0.15  # of the moments may be such that no training is under way
PAUSE = (0.05, 1.0)  # seconds between two kills
ROUND = 70  # kills of one comparison
LIMIT = 240.0  # seconds for a command that nobody disturbs
LEGEND = """Columns runner to worker: SIGKILLs of that kind of process. Records more: of trials that followed a killed one,
and of winners that were none in the end. Other bar: trials given up in one comparison and not in the other, for the bar
is made of the trials before, and equal as far as both went. Equal: but for these, every record of the undisturbed comparison is there with the same
numbers, bit for bit; no record is damaged, no process, lock or checkpoint is left, no command ended in a traceback."""
MARK = "RULEZOO_KILL_CAMPAIGN"  # in the environment of all processes of a campaign


@dataclass
class Round:
    kills: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)
    more: int = 0
    bars: int = 0


class Campaign:
    def __init__(self, folder, kills, minutes, seed):
        self.folder, self.kills = folder, kills
        self.deadline = time.monotonic() + 60 * minutes
        self.rng = random.Random(seed)
        self.token = uuid.uuid4().hex
        self.plugin = folder / "tiny.py"
        self.plugin.write_text(PLUGIN, encoding="utf-8")

    def run(self):
        """The undisturbed comparison, then rounds until there were kills enough or the time is over."""
        whole = Round()
        self._until_done(self.folder / "whole", whole, 0)
        if whole.troubles:
            sys.exit(f"the undisturbed comparison did not end well: {whole.troubles}")
        expected = results(self.folder / "whole")
        rounds = []
        while sum(one.kills.total() for one in rounds) < self.kills and time.monotonic() < self.deadline:
            left = self.kills - sum(one.kills.total() for one in rounds)
            rounds.append(one := Round())
            begin = time.monotonic()
            out = self.folder / f"round{len(rounds)}"
            self._until_done(out, one, min(ROUND, left))
            one.seconds = time.monotonic() - begin
            compare(out, expected, one)
            print(
                f"round {len(rounds)}: {dict(one.kills)}, {one.troubles or 'equal'}",
                file=sys.stderr,
                flush=True,
            )
        return expected, whole, rounds

    def _until_done(self, out, one, kills):
        """Give the command again and again, until it has ended well and there were so many kills."""
        for _ in range(10 * ROUND):
            code, said, disturbed = self._command(out, one, kills)
            if "Traceback" in said:
                one.troubles.append(f"a traceback: {said[said.index('Traceback') :][-1500:]}")
            if code == 0 and not disturbed and one.kills.total() >= kills:
                break
            if code not in (0, 1, -9) and not (code == 2 and disturbed):  # the check of a task was killed
                one.troubles.append(f"exit code {code}: {said[-300:]}")
                break
        else:
            one.troubles.append("the command does not come to an end")
        if left := self._family(30.0):
            one.troubles.append(f"processes are left: {left}")

    def _command(self, out, one, kills):
        """Once; its exit code, what it said on stderr, and whether somebody was killed."""
        one.commands += 1
        before, log = one.kills.total(), self.folder / "stderr"
        command = [
            sys.executable,
            "-P",
            "-m",
            "rulezoo",
            "--plugin",
            self.plugin,
            "compare",
            "--rules",
            ",".join(RULES),
        ]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, *WORDS, *RETRY, "--out", out],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, MARK: self.token, "OMP_NUM_THREADS": "1"},
            )
        limit = time.monotonic() + LIMIT + 2 * PAUSE[1] * kills
        while process.poll() is None:
            if one.kills.total() < kills:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.rng.uniform(*PAUSE))
                    continue
                one.kills.update(self._kill(process))
            else:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
            if time.monotonic() > limit:
                one.troubles.append(f"a command took more than {LIMIT:g} s")
                process.kill()
        return process.returncode, log.read_text(errors="replace"), one.kills.total() > before

    def _kill(self, process):
        """Kill some of those who are there, in any order; what they were."""
        killed = []
        with suppress(psutil.Error):
            runner = psutil.Process(process.pid)
            servers = [one for one in runner.children() if "forkserver" in " ".join(one.cmdline())]
            supervisors = [one for server in servers for one in server.children()]
            workers = [one for supervisor in supervisors for one in supervisor.children()]
            if not workers and self.rng.random() > ANY:
                return killed
            there = zip(KINDS, ([runner], servers, supervisors, workers), strict=True)
            victims = [
                (kind, one) for kind, all_of in there for one in all_of if self.rng.random() < KINDS[kind]
            ]
            for kind, one in self.rng.sample(victims, len(victims)):
                with suppress(psutil.Error):
                    one.kill()
                    killed.append(kind)
        return killed

    def _family(self, patience):
        """The processes of the campaign that are still there after so many seconds."""
        deadline = time.monotonic() + patience
        while left := [one for one in psutil.process_iter() if self._is_ours(one)]:
            if time.monotonic() > deadline:
                return [" ".join(one.cmdline())[:80] for one in left]
            time.sleep(0.1)
        return []

    def _is_ours(self, process):
        with suppress(psutil.Error):
            return process.environ().get(MARK) == self.token and process.status() != psutil.STATUS_ZOMBIE
        return False


def results(out):
    """(whether a trial, key) → record, without what differs from one time to the next."""
    found = {}
    for store in (Store(out), trials_of(Store(out))):
        reading = store.read()
        assert not reading.damaged, reading.damaged
        for record in reading.records:
            answered = msgspec.structs.replace(record.answered, started="", finished="")
            found[store.root != out, record.asked.key] = msgspec.structs.replace(
                record, cost=None, answered=answered
            )
    return found


def compare(out, expected, one):
    """Say in the round what is not as it should be."""
    try:
        found = results(out)
    except AssertionError as error:
        one.troubles.append(f"damaged records: {error}")
        return
    if missing := expected.keys() - found.keys():
        one.troubles.append(f"{len(missing)} records are missing")
    for key in expected.keys() & found.keys():
        if key[0] and given_up_in_one(found[key], expected[key]):
            one.bars += 1
        elif found[key] != expected[key]:
            record = found[key]
            name = f"{record.asked.rule} seed {record.asked.seed} {record.status} {record.reason or ''}"
            one.troubles.append(f"{'trial' if key[0] else 'run'} {name} differs")
    one.more = len(found.keys() - expected.keys())
    for kind in (".checkpoints", ".locks"):
        left = [
            path.name for path in out.rglob(f"{kind}/*") if not path.name.startswith((".", "comparison-"))
        ]
        if len(left) > one.more:
            one.troubles.append(f"{len(left)} files are left in {kind}")


def given_up_in_one(found, expected):
    """Whether a trial was given up in one comparison or in both, and is the same as far as both went.

    The bar is made of the trials before it, and one that was killed is none of them while its command goes on. Which
    trial wins does not depend on it: what counts is the bar that follows from the trials as they are in the end.
    """
    if "pruned" not in {found.status, expected.status} or {found.status, expected.status} - {"ok", "pruned"}:
        return False
    both = min(len(found.curve), len(expected.curve))
    return both > 0 and found.curve[:both] == expected.curve[:both]


def written(expected, whole, rounds, kills, minutes):
    """The table, and whether all is well."""
    killed = sum((one.kills for one in rounds), Counter())
    well = killed.total() >= kills and not any(one.troubles for one in [whole, *rounds])
    runs, trials = (sum(trial is which for trial, _ in expected) for which in (False, True))
    command = f"rulezoo compare --rules {','.join(RULES)} {' '.join(WORDS)}"
    lines = [
        f"# Killed at random moments\n\n`{command}`: {runs} runs, and {trials} of trials.\n",
        f"| round | {' | '.join(KINDS)} | commands | s | records more | other bar | store |",
        f"| ---: | {'---: | ' * len(KINDS)}---: | ---: | ---: | ---: | --- |",
    ]
    for number, one in enumerate(rounds, start=1):
        lines.append(
            row(number, [one], "; ".join(one.troubles).replace("|", "/").replace("\n", " ") or "equal")
        )
    lines.append(row("all", rounds, "equal" if well else "NOT AS IT SHOULD BE"))
    machine = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}"
    target = f"Target: {kills} kills, no round begun after {minutes:g} minutes, all equal"
    met = "met" if well else "MISSED"
    lines.append(
        f"\n{LEGEND}\n\n{target}: {met} ({killed.total()} kills). {machine}, {os.cpu_count()} cores."
    )
    return "\n".join(lines) + "\n", well


def row(name, rounds, verdict):
    killed = sum((one.kills for one in rounds), Counter())
    cells = [name, *(killed[kind] for kind in KINDS), sum(one.commands for one in rounds)]
    cells += [
        f"{sum(one.seconds for one in rounds):.0f}",
        sum(one.more for one in rounds),
        sum(one.bars for one in rounds),
        verdict,
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        campaign = Campaign(Path(folder), arguments.kills, arguments.minutes, arguments.seed)
        text, well = written(*campaign.run(), arguments.kills, arguments.minutes)
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    sys.exit(not well)


if __name__ == "__main__":
    main()
