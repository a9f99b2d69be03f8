"""The options of ``rulezoo compare`` and ``rulezoo tune`` that say what is compared, and the request they make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from rulezoo import __version__
from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import log, names
from rulezoo.comparison import seeds, study_files
from rulezoo.comparison.plan import is_grid, resolved
from rulezoo.comparison.request import CHECKPOINT, DEVICES, Request, RequestError
from rulezoo.discovery.registry import Found, Registry
from rulezoo.errors import UserError
from rulezoo.results.freshness import RETRY
from rulezoo.results.records import Precision

MOST_RUNS = 1000  #: largest number of runs of a grid that is started without asking
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def seeds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Callback of an option with seeds; see `rulezoo.comparison.seeds.read`."""
    try:
        return None if value is None else seeds.read(value)
    except RequestError as error:
        raise click.BadParameter(str(error)) from error


def options_of(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Callback of an option that holds options of plugins: ``nmnc.rank=64`` → ``{"nmnc": {"rank": "64"}}``."""
    options: dict[str, dict[str, str]] = {}
    for value in values:
        left, equals, text = value.partition("=")
        name, dot, option = left.rpartition(".")
        if not (equals and dot and name and option):
            raise click.BadParameter(f"{value!r} must have the form NAME.OPTION=VALUE, such as nmnc.rank=64")
        before = options.setdefault(name, {}).setdefault(option, text)
        if before != text:
            raise click.BadParameter(
                f"{left} is given twice, as {before!r} and as {text!r}; give it once, and several values as "
                f"{left}=A,B"
            )
    return options


def _budget(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    budget: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (equals and name):
            raise click.BadParameter(
                f"{value!r} must have the form NAME=VALUE, such as optimizer=SGD or optimizer.momentum=0.9"
            )
        before = budget.setdefault(name, text)
        if before != text:
            raise click.BadParameter(f"{name} is given twice, as {before!r} and as {text!r}; give it once")
    return budget


def _retry(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[str]:
    words = names(ctx, param, values)
    for word in words:
        if word not in RETRY:
            raise click.BadParameter(f"{word!r} is none of {', '.join(RETRY)}")
    return words


_Options = dict[str, Callable[[Callable[..., None]], Callable[..., None]]]
"""Field of `Request` → the decorator that gives a command its option."""

_WHAT: _Options = {
    "rules": click.option("--rules", metavar="A,B", multiple=True, callback=names,
                 help="Rules to compare, or 'all'.  [default: those of the standard comparison]"),
    "tasks": click.option("--tasks", metavar="A,B", multiple=True, callback=names,
                 help="Tasks to compare them on, or 'all'.  [default: those of the standard comparison]"),
    "seeds": click.option("--seeds", callback=seeds_of, metavar="N|A-B|A,B", default="3", show_default=True,
                 help="Seeds of the runs of each rule on each task: 5 = seeds 0 to 4, 5-9 = seeds 5 to 9, 0,3,7 = "
                 "these."),
    "trials": click.option("--tune", "trials", type=click.IntRange(min=2), metavar="N",
                 help="Tune every rule on every task with N trials, and compare its default with the best of them."),
    "options": click.option("-o", "options", metavar="NAME.OPTION=VALUE", multiple=True, callback=options_of,
                 help="Option of a rule, a task or an evaluation, such as nmnc.rank=64; `rulezoo show NAME` lists them. Several "
                 "values, such as nmnc.rank=4,16,64, form a grid, and every combination is compared. In an option that "
                 "takes any text, commas are part of it; write its grid as a list in a study file."),
    "budget": click.option("-b", "--budget", "budget", metavar="NAME=VALUE", multiple=True, callback=_budget,
                 help="Part of the budget of every task, for all rules: lr, batch, optimizer=SGD, "
                 "optimizer.momentum=0.9, schedule=MultiStepLR, schedule.milestones=80,120, clip_norm, …"),
    "epochs": click.option("--epochs", type=click.IntRange(min=1),
                 metavar="N", help="Number of passes through the training data.  [default: the task's]"),
}  # fmt: skip
_HOW: _Options = {
    "device": click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True,
                 help="Device to compute on; auto is the GPU if there is one."),
    "precision": click.option("--precision", type=click.Choice(get_args(Precision)), default="float32",
                 show_default=True,
                 help="Floating-point precision; bfloat16 is torch's autocast. Runs of different precision are different runs."),
    "compiled": click.option("--compile", "compiled", is_flag=True,
                 help="Compile training steps with torch.compile: minutes at the start, faster steps afterwards."),
    "together": click.option("--together", type=click.IntRange(min=1), metavar="N",
                 help="Maximum number of seeds trained together; 1 = one by one.  [default: all that fit into memory]"),
}  # fmt: skip
retry_option = click.option(
    "--retry",
    metavar="WHICH",
    multiple=True,
    callback=_retry,
    help="Stored runs to run again: failed, stale (their code has changed), all, or statuses such as timeout,killed. Old "
    "records stay until new ones replace them.",
)
_KEPT: _Options = {
    "probes": click.option("--probe", "probes", type=click.IntRange(min=0), default=0, show_default=True,
                 metavar="N",
                 help="Number of points in training at which angles to backprop, alignment and dimensions are measured; not "
                 "timed."),
    "keep_weights": click.option("--keep-weights", is_flag=True,
                 help="Store the trained weights of each run alongside its record."),
    "keep_memory": click.option("--keep-memory", is_flag=True,
                 help="Store each rule's memory as well, such as feedback weights."),
    "evaluations": click.option("--evaluate", "evaluations", metavar="A,B", multiple=True, callback=names,
                 help="Evaluations of the trained networks, or 'all'; implies --keep-weights. `rulezoo list evaluations` "
                 "lists them."),
    "checkpoint": click.option("--checkpoint", type=click.FloatRange(min=0), default=CHECKPOINT, show_default=True,
                 metavar="SECONDS",
                 help="Seconds between checkpoints, from which an interrupted run resumes; 0 = none."),
    "retry": retry_option,
    "data": click.option("--data", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
                 type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets."),
    "download": click.option("--download", is_flag=True,
                 help="Download missing data sets into --data."),
}  # fmt: skip
_STUDY: _Options = {
    "config": click.option("--config", metavar="FILE",
                 type=UserPath(exists=True, dir_okay=False, path_type=Path),
                 help="Study file (TOML) to read the request from; options of the command override it."),
    "save_config": click.option("--save-config", metavar="FILE",
                 type=UserPath(dir_okay=False, path_type=Path),
                 help="Study file to write the request to, with the versions of rulezoo, torch and plugins."),
    "yes": click.option("--yes", is_flag=True, help=f"Run a grid of more than {MOST_RUNS:,} runs without confirmation."),
}  # fmt: skip


def what_options(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of what is compared and where, but for these fields of a request."""
    return _with({**_WHAT, **_HOW}, without)


def kept_options(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of what is measured, kept and read, but for these fields of a request."""
    return _with(_KEPT, without)


def _with(options: _Options, without: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        for name, option in reversed(options.items()):
            command = command if name in without else option(command)
        return command

    return decorated


def study_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that read and write a study file, of what is asked."""
    return _with(_STUDY, ())(command)


def request_of(ctx: click.Context, given: Mapping[str, Any], config: Path | None) -> Request:
    """The request that a study file and the options of a command make; the options override the file.

    Args:
        ctx: of the command.
        given: field of a request → the value of its option, defaults included.
        config: the study file, if there is one.
    """
    stated = {} if config is None else _stated(config)
    fields = dict(stated)
    for name, value in given.items():
        if name not in stated:
            fields[name] = value
        elif ctx.get_parameter_source(name) in _GIVEN:
            fields[name] = _merged(name, stated[name], value)
    return Request(**fields)


def _merged(name: str, stated: Any, given: Any) -> Any:  # noqa: ANN401  a field of any kind
    """What is given; of options and the budget, only those that are given are replaced."""
    if name == "options":
        return {
            owner: {**stated.get(owner, {}), **given.get(owner, {})}
            for owner in dict.fromkeys([*stated, *given])
        }
    return {**stated, **given} if name == "budget" else given


def _stated(config: Path) -> Mapping[str, Any]:
    study = study_files.read(config)
    here = versions()
    for name, version in study.versions.items():
        if name in here and here[name] != version:
            log(f"{config} was written with {name} {version}, and this is {name} {here[name]}")
    return study.fields


def check_size(request: Request, found: Registry, *, yes: bool) -> None:
    """Ask before a large grid is run.

    Raises:
        UserError: if there is nobody to ask, or the answer is no.
    """
    from rulezoo.tuning.comparing import number_of_runs

    if yes or (runs := number_of_runs(request, found)) <= MOST_RUNS or not is_grid(found, request):
        return
    if not _can_ask():
        raise UserError(
            f"the grid has {runs:,} runs, more than {MOST_RUNS:,}; give fewer values, or --yes to run all of them "
            "(--dry-run shows what they take)"
        )
    if not click.confirm(f"The grid has {runs:,} runs. Run them?", err=True):
        raise UserError(f"the grid of {runs:,} runs was not started; --dry-run shows what the runs take")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def save(path: Path, ctx: click.Context, request: Request, found: Registry) -> None:
    """Write a study file; the names of rules and tasks are those of the standard comparison where none were given.

    A folder of data sets that only the environment names is left out: it belongs to the machine, not to the study.
    """
    named = resolved(found, request)
    asked = replace(request, rules=named.rules, tasks=named.tasks, options=named.options)
    if ctx.get_parameter_source("data") is ParameterSource.ENVIRONMENT:
        asked = replace(asked, data=None)
    study_files.write(path, asked, versions(named, found))


def versions(request: Request | None = None, found: Registry | None = None) -> dict[str, str]:
    """The versions of rulezoo, of torch, and of the plugins that offer the rules and tasks of a request."""
    from importlib.metadata import version

    offers: list[Found[Any]] = []
    if request and found:
        offers = [*map(found.rule, request.rules), *map(found.task, request.tasks)]
    plugins = {one.distribution: one.version for one in offers}
    return {**plugins, "rulezoo": __version__, "torch": version("torch")}
