"""The options of ``rulezoo compare`` and ``rulezoo tune`` that say what is compared, and the request they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import names
from rulezoo.comparison import seeds
from rulezoo.comparison.request import CHECKPOINT, DEVICES, Request, RequestError
from rulezoo.results.freshness import RETRY
from rulezoo.results.records import Precision

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
            raise click.BadParameter(f"{value!r} must read NAME.OPTION=VALUE, like nmnc.rank=64")
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
                f"{value!r} must read NAME=VALUE, like optimizer=SGD or optimizer.momentum=0.9"
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
                 help="An option of a rule, a task or an evaluation, like nmnc.rank=64; `rulezoo show NAME` lists them. Several "
                 "values, like nmnc.rank=4,16,64, are a grid: each is compared. An option that takes any text reads "
                 "commas as part of it; write its grid as a list in a study file."),
    "budget": click.option("-b", "--budget", "budget", metavar="NAME=VALUE", multiple=True, callback=_budget,
                 help="Part of the budget of every task, for all rules: lr, batch, optimizer=SGD, "
                 "optimizer.momentum=0.9, schedule=MultiStepLR, schedule.milestones=80,120, clip_norm, …"),
    "epochs": click.option("--epochs", type=click.IntRange(min=1),
                 help="Passes through the training data.  [default: the task's]"),
}  # fmt: skip
_HOW: _Options = {
    "device": click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True,
                 help="Where to compute; auto is the GPU when there is one."),
    "precision": click.option("--precision", type=click.Choice(get_args(Precision)), default="float32",
                 show_default=True,
                 help="Floating-point precision; bfloat16 is torch's autocast, and another run than float32."),
    "compiled": click.option("--compile", "compiled", is_flag=True,
                 help="Let torch.compile take the training step: minutes at first, then faster steps."),
    "together": click.option("--together", type=click.IntRange(min=1), metavar="N",
                 help="Maximum number of seeds of a rule on a task that are trained together; 1 = one by one.  "
                 "[default: all that the memory holds]"),
}  # fmt: skip
_KEPT: _Options = {
    "probes": click.option("--probe", "probes", type=click.IntRange(min=0), default=0, show_default=True,
                 metavar="N",
                 help="Measure angles to backprop, alignment and dimensions at N points of training; not timed."),
    "keep_weights": click.option("--keep-weights", is_flag=True,
                 help="Store the trained weights of each run alongside its record."),
    "keep_memory": click.option("--keep-memory", is_flag=True,
                 help="Store what each rule keeps between steps, such as feedback weights, too."),
    "evaluations": click.option("--evaluate", "evaluations", metavar="A,B", multiple=True, callback=names,
                 help="Evaluate the trained networks, or 'all'; keeps the weights. `rulezoo list evaluations` lists "
                 "what there is."),
    "checkpoint": click.option("--checkpoint", type=click.FloatRange(min=0), default=CHECKPOINT, show_default=True,
                 metavar="SECONDS",
                 help="Checkpoint every N seconds, to resume after an interruption; 0 = never."),
    "retry": click.option("--retry", metavar="WHICH", multiple=True, callback=_retry,
                 help="Run again what is stored: failed, stale (its code has changed), all, or statuses such as "
                 "timeout,killed. Old records stay until there are new ones."),
    "data": click.option("--data", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
                 type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets."),
    "download": click.option("--download", is_flag=True,
                 help="Download missing data sets into the folder of data sets."),
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


def request_of(ctx: click.Context, given: Mapping[str, Any], stated: Mapping[str, Any]) -> Request:
    """The request that the options of a command make.

    Args:
        ctx: of the command.
        given: name of each option → its value, defaults included.
        stated: fields of a request that a study file states, which what is given on the command line overrides.
    """
    fields = dict(stated)
    for name, value in given.items():
        if name not in fields or ctx.get_parameter_source(name) in _GIVEN:
            fields[name] = value
    return Request(**fields)
