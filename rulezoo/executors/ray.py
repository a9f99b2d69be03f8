"""A Ray cluster: every job is a task, and the node it lands on does it as this machine would, in a process of its own.

So a job that raises, hangs or dies ends with the same status as here. Ray does again what a node took with it when it
died, and the job resumes from what it left in the store, which all nodes share.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo.comparison.executor import Unreachable
from rulezoo.comparison.jobs import Job, failures
from rulezoo.discovery.plugins import reason
from rulezoo.executors.local import Local
from rulezoo.results.store import StoreError

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Listener
    from rulezoo.executors.attempt import Failure
    from rulezoo.results.records import Record

_POLL = 0.5  # seconds between looks into the mailbox
_RETRIES = 5  # of a job whose node died; its own failures are not retried
_KNOCK = 10.0  # seconds for a cluster to answer at its port
_NO_CLUSTER = (
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray takes the loopback interface for the node's address
)


@dataclass
class _Submitted:
    job: Job
    task: Any  # Ray's reference to what comes back
    started: datetime | None = None


@dataclass(frozen=True)
class Ray:
    """Runs jobs on a Ray cluster.

    Attributes:
        address: of the cluster, ``host:port`` or ``auto``; ``None`` = one on this machine, for as long as it takes.
        jobs: how many at a time; ``None`` = as many as the cluster has processors.
        per_gpu: how many on each GPU; ``None`` = they need none.
        time_limit: wall seconds after which a job is ended, or ``None``.
        memory_limit: bytes that a job may hold in memory, as `rulezoo.executors.local.Local` has it; ``None`` = an equal
            share of what Ray found free on the job's node; what Ray itself ends for lack of memory, it does again as it was.
    """

    address: str | None = None
    jobs: int | None = None
    per_gpu: int | None = None
    time_limit: float | None = None
    memory_limit: int | None = None

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        """See `rulezoo.comparison.executor.Executor`."""
        waiting = deque(enumerate(jobs))
        underway: dict[int, _Submitted] = {}
        with _cluster(self.address) as ray, _cancelled(ray, underway):
            self._check_gpus(ray)
            mailbox = _mailbox(ray)
            while waiting or underway:
                while waiting and len(underway) < (self.jobs or len(jobs)):
                    number, job = waiting.popleft()
                    underway[number] = _Submitted(job, self._submit(ray, job, mailbox, number))
                ended, _ = ray.wait([one.task for one in underway.values()], timeout=_POLL)
                with suppress(ray.exceptions.RayError):  # how far it is, is not worth an end
                    _receive(ray.get(mailbox.news.remote(), timeout=_KNOCK), underway, listener)
                for number, one in list(underway.items()):
                    if one.task in ended:
                        _reap(ray, one, listener)
                        del underway[number]

    def _submit(self, ray: Any, job: Job, mailbox: Any, number: int) -> Any:  # noqa: ANN401  Ray's own kinds
        options = {
            "num_cpus": job.request.threads or 1,
            "num_gpus": 1 / self.per_gpu if self.per_gpu else 0,
            "max_retries": _RETRIES,
            "name": f"{job.task} {job.rule}",
        }
        task, here = ray.remote(_work).options(**options), str(Path.cwd())
        return task.remote(job, self, mailbox, number, here if here not in sys.path else None)

    def _check_gpus(self, ray: Any) -> None:  # noqa: ANN401
        if self.per_gpu and not ray.cluster_resources().get("GPU"):
            raise Unreachable(
                f"the Ray cluster {self.address or 'on this machine'} has no GPU, and would wait for one for ever; "
                "without --per-gpu and --device cuda it computes on the CPU"
            )


def _work(job: Job, limits: Ray, mailbox: Any, number: int, folder: str | None) -> str | None:  # noqa: ANN401
    """What a node does. What comes back is why results cannot be stored, if they cannot.

    Ray has its workers import from the current ``folder`` of the comparison; rulezoo does not.
    """
    sys.path[:] = [path for path in sys.path if path != folder]
    memory = limits.memory_limit or _share(job, limits)
    one = Local(jobs=1, time_limit=limits.time_limit, memory_limit=memory)
    try:
        one.run([job], _Relay(mailbox, number))
    except StoreError as error:
        return str(error)
    return None


def _share(job: Job, limits: Ray) -> int | None:
    """Bytes of this node's memory for each of the jobs that it has room for."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's annotation
    has: dict[str, float] = next((node["Resources"] for node in nodes if node["NodeID"] == here), {})
    if "memory" not in has:
        return None
    room = [has.get("CPU", 1) // (job.request.threads or 1)]
    if limits.per_gpu:
        room.append(limits.per_gpu * has.get("GPU", 1))
    if limits.jobs:
        room.append(limits.jobs)
    return int(has["memory"] / max(1, min(room)))


@dataclass(frozen=True)
class _Relay:
    """A listener on a node, which writes to the mailbox and does not wait for an answer."""

    mailbox: Any
    number: int

    def planned(self, runs: int, stored: int) -> None:
        pass

    def started(self, job: Job) -> None:
        self.mailbox.put.remote(self.number, 0, 0)

    def progressed(self, job: Job, done: int, total: int) -> None:
        self.mailbox.put.remote(self.number, done, total)

    def finished(self, job: Job, records: Sequence[Record]) -> None:
        pass


class _Mailbox:
    """How far each job is, where all nodes can write it and the comparison reads it."""

    def __init__(self) -> None:
        self.unread: dict[int, tuple[int, int]] = {}

    def put(self, number: int, done: int, total: int) -> None:
        self.unread[number] = done, total

    def news(self) -> dict[int, tuple[int, int]]:
        unread, self.unread = self.unread, {}
        return unread


def _mailbox(ray: Any) -> Any:  # noqa: ANN401
    """On the comparison's own node: when that dies, there is nobody to read it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


def _receive(news: dict[int, tuple[int, int]], underway: dict[int, _Submitted], listener: Listener) -> None:
    for number, (done, total) in news.items():
        if one := underway.get(number):  # a word may come after the end
            _begin(one, listener)
            if total:
                listener.progressed(one.job, done, total)


def _begin(one: _Submitted, listener: Listener) -> None:
    if one.started is None:  # it may begin again, on another node
        one.started = datetime.now(UTC)
        listener.started(one.job)


def _reap(ray: Any, one: _Submitted, listener: Listener) -> None:  # noqa: ANN401
    _begin(one, listener)
    assert one.started is not None  # it has just been set
    failure: Failure = "crashed", "its process ended without a word"
    try:
        trouble = ray.get(one.task)
    except ray.exceptions.RayError as error:
        failure = _exit_reason(ray, error)
    else:
        if trouble:  # then no job can be done
            raise StoreError(trouble)
    listener.finished(one.job, failures(one.job, *failure, one.started))


def _exit_reason(ray: Any, error: Exception) -> Failure:  # noqa: ANN401
    sentence = reason(error).splitlines()[0]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "oom_host", f"Ray ended it for lack of memory on its node: {sentence}"
    if isinstance(error, ray.exceptions.RayTaskError):
        return "error", f"its node could not begin: {reason(error.cause)}"
    return "killed", f"its node died {_RETRIES + 1} times: {sentence}"


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected for as long as the block lasts."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_task_oom_retries", str(_RETRIES))  # Ray's own default is without end
    with nullcontext() if address else _by_itself():
        import ray

        # Ray says on stdout, in colours, that a node died; stdout is for results.
        with redirect_stdout(io.StringIO()):
            try:
                _knock(address)
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=None if address else False,
                )
            except (OSError, RuntimeError, ValueError) as error:  # a ConnectionError is an OSError
                raise Unreachable(
                    f"no Ray cluster answers at {address or 'this machine'}: {str(error) or type(error).__name__}; "
                    "start one with `ray start --head`, or leave --ray-address and RAY_ADDRESS out"
                ) from error
            try:
                if address is None:
                    _check_loopback(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray's annotation
                yield ray
            finally:
                ray.shutdown()


@contextmanager
def _by_itself() -> Iterator[None]:
    """A block in which Ray starts a cluster that only this machine can reach, with a token of its own."""
    ours = {_NO_CLUSTER: "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    from ray._private import ray_constants

    is_cluster = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False  # where Ray was imported before
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = is_cluster
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _check_loopback(host: str) -> None:
    if not ip_address(host).is_loopback:
        raise Unreachable(
            f"the Ray cluster of this machine would listen at {host}, where others can reach it; this version of Ray "
            "is not known to rulezoo: install another one, or start a cluster yourself and name it with --ray-address"
        )


def _knock(address: str | None) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()


@contextmanager
def _cancelled(ray: Any, underway: dict[int, _Submitted]) -> Iterator[None]:  # noqa: ANN401
    """However the block is left, no job outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        for one in underway.values():
            with suppress(ray.exceptions.RayError):
                ray.cancel(one.task, force=True)
        with suppress(StoreError):  # a run that cannot be marked has no record, which comes to the same
            for one in underway.values():
                if one.started is not None:
                    failures(one.job, "interrupted", "the comparison was interrupted", one.started)
