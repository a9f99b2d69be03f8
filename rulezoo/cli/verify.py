"""``rulezoo verify``."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import log, names
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.testing import TaskNet
    from rulezoo.testing.verify import Report

_QUIET = 30.0  # seconds after which a line says how far it is, where no terminal shows it

Progress = Callable[[int, int, str], None]


def _options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    options = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} must have the form OPTION=VALUE, such as rank=64")
        options[name] = text
    return options


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("One rule, about a minute", "rulezoo verify nmnc"),
        ("The rules of a file, also on a real task", "rulezoo verify my_rule.py --on digits-cnn"),
    ),
)
@click.argument("targets", metavar="NAME|FILE...", nargs=-1, required=True)
@click.option("--on", "tasks", metavar="TASK", multiple=True, callback=names,
              help="Task on whose network and data rules and evaluations are checked as well: minutes; may be repeated.")  # fmt: skip
@click.option("-o", "options", metavar="[TASK.]OPTION=VALUE", multiple=True, callback=_options,
              help="Option of the rule, task or evaluation, such as rank=64, or of a task of --on, such as cifar10-cnn.width=0.25; "
              "may be repeated.")  # fmt: skip
@click.option("--data", "root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets, for tasks and evaluations.")  # fmt: skip
@click.option("--download", is_flag=True, help="Download missing data sets into --data.")
@click.option("--out", metavar="DIR", type=UserPath(file_okay=False, path_type=Path),
              help="Folder of results in which to store the outcome for rules, for the leaderboard.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), metavar="N",
              help="Seed of the sizes, names and data of the networks that are drawn to check a rule on.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="Format of the output.")  # fmt: skip
@click.pass_context
def verify(
    ctx: click.Context,
    targets: Sequence[str],
    tasks: list[str],
    options: dict[str, str],
    root: Path | None,
    download: bool,
    out: Path | None,
    seed: int,
    form: str,
) -> None:
    """Check that a plugin is what it declares to be.

    Runs the conformance suite (rulezoo.testing) on rules, tasks, evaluations and claims by name, on every rule ("all"), or
    on all of a Python file. Of a rule: is it pure and reproducible, does it learn, is it backprop in disguise, does it do what it declares? For each
    mark of plausibility the report says whether it was verified. With --on, rules are checked on real tasks, too, and
    trained there for a few hundred steps: does their score come from training? Of an evaluation: is it pure, does it leave the
    network as it is, has it a number or a reason? Of a claim: can its runs be planned?

    Exit code: 0 if all checks passed, 1 if a check failed, 2 if the command cannot be carried out, 3 if a rule or task
    was not examined, because the rule skips every network or the task's data are missing.
    """
    from rulezoo.testing import verify as suite

    subjects = list(dict.fromkeys(one for target in targets for one in suite.subjects(target)))
    own, others = _sorted(options, tasks)
    if tasks and not any(subject.kind in ("rule", "evaluation") for subject in subjects):
        named = ", ".join(f"{subject.name!r} is a {subject.kind}" for subject in subjects)
        raise UserError(f"--on is for rules and evaluations, and {named}; leave --on out")
    files = list(dict.fromkeys(file for subject in subjects for file in subject.files))
    on = _networks(tasks, others, root, files, download=download)
    if out and any(subject.kind == "rule" for subject in subjects):
        _expect_writable(out)
    reports = []
    for place, subject in enumerate(subjects):
        with _progress() as progress, _threads(None if on else 1):
            report = suite.verify(
                subject, own, root=root, seed=seed, on=on, report=progress, download=download
            )
        reports.append(report)
        if form == "text":
            echo("\n" * bool(place) + "\n".join(suite.lines(report)))
        if out:
            _store(report, out)
    if form == "json":
        echo(json.dumps([report.as_dict() for report in reports], indent=2))
    ctx.exit(suite.exit_code(reports))


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Limit torch's threads; ``None`` = leave them as they are.

    The suite's own networks are tiny: threads would wait for one another longer than they compute, on a busy machine for
    minutes.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _expect_writable(out: Path) -> None:
    """See, before anything is checked, that outcomes can be stored."""
    from rulezoo.results.store import Store

    folder = Store(out).root
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {str(out)!r} ({error.strerror}); give --out a folder that can be written"
        ) from error


def _store(report: Report, out: Path) -> None:
    from rulezoo.results import verifications
    from rulezoo.results.store import Store
    from rulezoo.testing.verification import verification

    if report.subject.kind != "rule":
        log(
            f"the outcome for {report.subject.kind} {report.subject.name} is not stored: the leaderboard shows those of rules"
        )
        return
    log(f"stored: {verifications.put(Store(out), verification(report))}")


def _sorted(
    options: Mapping[str, str], tasks: Sequence[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The options of what is verified, and those of each task of ``--on``."""
    own: dict[str, str] = {}
    others: dict[str, dict[str, str]] = {task: {} for task in tasks}
    for name, text in options.items():
        task, dot, option = name.rpartition(".")
        if dot and task not in others:
            known = f"the tasks are {', '.join(tasks)}" if tasks else f"add --on {task}"
            raise UserError(f"-o {name}: {task!r} is no task of --on; {known}")
        (others[task] if dot else own)[option] = text
    return own, others


def _networks(
    tasks: Sequence[str],
    options: Mapping[str, Mapping[str, str]],
    root: Path | None,
    files: Sequence[Path],
    *,
    download: bool,
) -> list[TaskNet]:
    """The networks of tasks, after they passed the check that precedes every comparison.

    Raises:
        TaskError: if a task cannot be trained on.
        DataMissing: if its data are missing; the exit code is that of what was not examined.
    """
    if not tasks:
        return []
    from rulezoo.comparison.inspection import TaskError, inspect, refusal
    from rulezoo.task import DataMissing
    from rulezoo.testing import task_net
    from rulezoo.testing.verify import NOT_EXAMINED

    on = [task_net(task, options[task], root=root, files=files) for task in tasks]
    examined = inspect([(task, options[task]) for task in tasks], root, download=download, files=files)
    for task, found in zip(tasks, examined, strict=True):
        if problem := refusal(task, options[task], found):
            raise TaskError(f"{problem}; `rulezoo verify {task}` checks it in full")
        if found.missing is not None:
            missing = DataMissing(found.missing)
            missing.exit_code = NOT_EXAMINED
            raise missing
    return on


@contextmanager
def _progress() -> Iterator[Progress]:
    """Shows which check is under way: in place on a terminal, else in a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status("checking…") as status:
            yield lambda done, total, check: status.update(Text(f"check {done + 1} of {total}: {check}"))
        return
    last = time.monotonic()

    def report(done: int, total: int, check: str) -> None:
        nonlocal last
        if time.monotonic() - last > _QUIET:
            log(f"check {done + 1} of {total}: {check}")
            last = time.monotonic()

    yield report
