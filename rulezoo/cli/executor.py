"""Options of the commands that train which say where runs are executed, and the executor that they choose."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.executors.machine import ExecutorSetup
    from rulezoo.results.records import Device

EXECUTORS = ("local", "slurm", "ray")


@dataclass(frozen=True)
class ExecutorOptions:
    """Where and how runs are executed, as the user chose it; ``None`` or empty = not given."""

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
        help="Where runs are executed: on this machine, a SLURM cluster or a Ray cluster.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum number of jobs at the same time; a job is one run, or several seeds trained together.  [default: "
        "one per processor core, or --per-gpu per GPU; on a cluster, what it has room for]",
    ),
    click.option(
        "--gpus",
        metavar="N|I,J,…",
        help="Number of GPUs of this machine to use, or their indices.  [default: the first]",
    ),
    click.option(
        "--per-gpu",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum number of jobs at the same time on each GPU.  [default: 1]",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Maximum wall time per job, in seconds; a longer one is ended and recorded as timed out.",
    ),
    click.option(
        "--memory-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="Maximum memory per job, in GB; a larger one is ended and recorded as out of memory, and seeds trained "
        "together are tried again in two halves.  [default: an equal share of the free memory]",
    ),
    click.option(
        "--slurm",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_pairs,
        help="Request to SLURM: partition, account, qos, constraint, time (minutes), resumes, cpus, memory "
        "(GB), gpus; may be repeated.",
    ),
    click.option(
        "--ray-address",
        metavar="HOST:PORT",
        envvar="RAY_ADDRESS",
        show_envvar=True,
        help="Address of the Ray cluster, or 'auto'.  [default: a cluster on this machine, ended with the command]",
    ),
)


def executor_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, together in its argument ``execution``."""

    @functools.wraps(command)
    def collected(**given: Any) -> None:  # noqa: ANN401  handed on as they are
        execution = ExecutorOptions(
            **{field.name: given.pop(field.name) for field in fields(ExecutorOptions)}
        )
        command(execution=execution, **given)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


def executor_setup(execution: ExecutorOptions, device: str) -> ExecutorSetup:
    """The executor that the options choose, with its device and threads.

    Args:
        execution: by the command's options.
        device: by its ``--device``.

    Raises:
        UserError: if an option does not go with it, what it needs is not installed, or a device is not there.
    """
    _fitting(execution, device)
    return {"local": _local, "slurm": _slurm, "ray": _ray}[execution.executor](execution, device)


def _fitting(execution: ExecutorOptions, device: str) -> None:
    given = {
        "--gpus": (execution.gpus, ("local",)),
        "--per-gpu": (execution.per_gpu, ("local", "ray")),
        "--memory-limit": (execution.memory_limit, ("local", "ray")),
        "--slurm": (execution.slurm, ("slurm",)),
    }
    for option, (value, executors) in given.items():
        if value and execution.executor not in executors:
            raise UserError(
                f"{option} goes with --executor {' or '.join(executors)}, not {execution.executor}"
            )
    if (execution.gpus or execution.per_gpu) and device not in ("auto", "cuda"):
        raise UserError(f"--gpus and --per-gpu are for --device cuda, not {device}")


def _local(execution: ExecutorOptions, wish: str) -> ExecutorSetup:
    from rulezoo.executors.machine import this_machine

    return this_machine(
        wish,
        execution.jobs,
        gpus=execution.gpus,
        per_gpu=execution.per_gpu,
        time_limit=execution.time_limit,
        memory_limit=_bytes(execution.memory_limit),
    )


def _slurm(execution: ExecutorOptions, wish: str) -> ExecutorSetup:
    _installed("submitit", "slurm")
    from rulezoo.executors.machine import ExecutorSetup
    from rulezoo.executors.slurm import Slurm
    from rulezoo.executors.slurm_request import Request

    words = dict(execution.slurm)
    if execution.time_limit is not None:
        if "time" in words:
            raise UserError("--time-limit and --slurm time=… say the same; give one (time= may be resumed)")
        words |= {"time": str(max(1, -(-int(execution.time_limit) // 60))), "resumes": "0"}
    request = Request.of(words)
    device = _elsewhere(wish, gpu=bool(request.gpus), ask="--slurm gpus=1")
    return ExecutorSetup(Slurm(request, execution.jobs), device, request.cpus)


def _ray(execution: ExecutorOptions, wish: str) -> ExecutorSetup:
    _installed("ray", "ray")
    from rulezoo.executors.machine import ExecutorSetup
    from rulezoo.executors.ray import Ray

    device = _elsewhere(wish, gpu=bool(execution.per_gpu), ask="--per-gpu 1")
    executor = Ray(
        address=execution.ray_address,
        jobs=execution.jobs,
        per_gpu=execution.per_gpu if device == "cuda" else None,
        time_limit=execution.time_limit,
        memory_limit=_bytes(execution.memory_limit),
    )
    return ExecutorSetup(executor, device, 1)


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
