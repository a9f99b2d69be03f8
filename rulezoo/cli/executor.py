"""Who does the jobs: the options of the commands that train, and the executor that they ask for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.executors.machine import Workers
    from rulezoo.results.records import Device

EXECUTORS = ("local", "slurm", "ray")


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; ``None`` or empty = nothing said."""

    executor: str = "local"
    jobs: int | None = None
    gpus: str | None = None
    per_gpu: int | None = None
    time_limit: float | None = None
    memory_limit: float | None = None
    slurm: tuple[tuple[str, str], ...] = ()
    ray_address: str | None = None


def _pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    for name, equals, word in pairs:
        if not (name and equals and word):
            raise click.BadParameter(f"{name + equals + word!r} must read KEY=VALUE, like partition=long")
    return tuple((name, word) for name, _, word in pairs)


_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(EXECUTORS),
        default="local",
        show_default=True,
        help="Who trains: this machine, a SLURM cluster, or a Ray cluster.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Trainings at the same time.  [default: on this machine one for each processor core, and on a GPU "
        "--per-gpu; elsewhere as many as there is room for]",
    ),
    click.option(
        "--gpus",
        metavar="N|I,J,…",
        help="Share out so many GPUs of this machine, or these.  [default: the first]",
    ),
    click.option(
        "--per-gpu",
        type=click.IntRange(min=1),
        metavar="N",
        help="Trainings at the same time on each GPU.  [default: 1]",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="End a training that takes longer, and record it as timed out.",
    ),
    click.option(
        "--memory-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="End a training that takes more, and record it as out of memory; seeds that are trained together are "
        "then tried in halves.  [default: an equal share of what is free on this machine, or on Ray's node]",
    ),
    click.option(
        "--slurm",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_pairs,
        help="Ask SLURM for it: partition, account, qos, constraint, time (minutes), resumes, cpus, memory "
        "(GB), gpus; may be repeated.",
    ),
    click.option(
        "--ray-address",
        metavar="HOST:PORT",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="The Ray cluster, or 'auto'.  [default: one on this machine, for as long as it takes]",
    ),
)


def executor_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, together in its argument ``wanted``."""

    @functools.wraps(command)
    def collected(**given: Any) -> None:  # noqa: ANN401  handed on as they are
        wanted = Wanted(**{field.name: given.pop(field.name) for field in fields(Wanted)})
        command(wanted=wanted, **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


def workers(wanted: Wanted, device: str) -> Workers:
    """The executor that was asked for.

    Args:
        wanted: by the command's options.
        device: by its ``--device``.

    Raises:
        UserError: if an option does not go with it, what it needs is not installed, or a device is not there.
    """
    _fitting(wanted, device)
    return {"local": _local, "slurm": _slurm, "ray": _ray}[wanted.executor](wanted, device)


def _fitting(wanted: Wanted, device: str) -> None:
    given = {
        "--gpus": (wanted.gpus, ("local",)),
        "--per-gpu": (wanted.per_gpu, ("local", "ray")),
        "--memory-limit": (wanted.memory_limit, ("local", "ray")),
        "--slurm": (wanted.slurm, ("slurm",)),
    }
    for option, (value, executors) in given.items():
        if value and wanted.executor not in executors:
            raise UserError(f"{option} goes with --executor {' or '.join(executors)}, not {wanted.executor}")
    if (wanted.gpus or wanted.per_gpu) and device not in ("auto", "cuda"):
        raise UserError(f"--gpus and --per-gpu are for --device cuda, not {device}")


def _local(wanted: Wanted, wish: str) -> Workers:
    from rulezoo.executors.machine import this_machine

    return this_machine(
        wish,
        wanted.jobs,
        gpus=wanted.gpus,
        per_gpu=wanted.per_gpu,
        time_limit=wanted.time_limit,
        memory_limit=_bytes(wanted.memory_limit),
    )


def _slurm(wanted: Wanted, wish: str) -> Workers:
    _installed("submitit", "slurm")
    from rulezoo.executors.machine import Workers
    from rulezoo.executors.slurm import Slurm
    from rulezoo.executors.slurm_request import Request

    words = dict(wanted.slurm)
    if wanted.time_limit is not None:
        if "time" in words:
            raise UserError("--time-limit and --slurm time=… say the same; give one (time= may be resumed)")
        words |= {"time": str(max(1, -(-int(wanted.time_limit) // 60))), "resumes": "0"}
    request = Request.of(words)
    device = _elsewhere(wish, gpu=bool(request.gpus), ask="--slurm gpus=1")
    return Workers(Slurm(request, wanted.jobs), device, request.cpus)


def _ray(wanted: Wanted, wish: str) -> Workers:
    _installed("ray", "ray")
    from rulezoo.executors.machine import Workers
    from rulezoo.executors.ray import Ray

    device = _elsewhere(wish, gpu=bool(wanted.per_gpu), ask="--per-gpu 1")
    executor = Ray(
        address=wanted.ray_address,
        jobs=wanted.jobs,
        per_gpu=wanted.per_gpu if device == "cuda" else None,
        time_limit=wanted.time_limit,
        memory_limit=_bytes(wanted.memory_limit),
    )
    return Workers(executor, device, 1)


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(1e9 * gigabytes)


def _elsewhere(device: str, *, gpu: bool, ask: str) -> Device:
    """The device on machines that this one knows nothing of: a GPU where one is asked for."""
    if device == "mps":
        raise UserError("--device mps goes with --executor local")
    if device == "cuda" and not gpu:
        raise UserError(f"--device cuda: ask the cluster for a GPU, with {ask}")
    return "cuda" if gpu and device != "cpu" else "cpu"


def _installed(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise UserError(f"--executor {extra} needs {module}: pip install 'rulezoo[{extra}]'")
