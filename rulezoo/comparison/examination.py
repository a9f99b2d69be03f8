"""What is looked at in a task before it is trained on; it runs the task's code, so it runs in a guarded process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rulezoo.comparison.grids import variants
from rulezoo.comparison.plan import DEFAULT
from rulezoo.discovery.plugins import reason
from rulezoo.discovery.registry import Found, Registry, discover
from rulezoo.errors import UserError
from rulezoo.options import declared
from rulezoo.task import DataMissing

if TYPE_CHECKING:
    from torch import Tensor

    from rulezoo.comparison.guard import Report
    from rulezoo.net import Net
    from rulezoo.source import Source
    from rulezoo.task import Data, Task


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        problems: why the task cannot be trained on, a sentence each; empty if it can.
        missing: what `rulezoo.DataMissing` said, if the data are not there.
        data: digest of the data, 16 hexadecimal digits.
        sizes: name of a part → number of its examples.
        output_shape: shape of the network's output for one example.
        parameters: number of the network's parameters.
        depth: layers in series in its deepest block, where every ``post`` site is cut.
    """

    problems: list[str] = []
    missing: str | None = None
    data: str | None = None
    sizes: dict[str, int] = {}
    output_shape: list[int] = []
    parameters: int | None = None
    depth: int = 1


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks to import every plugin, and to make rules and tasks.

    Attributes:
        rules: names; empty = the standard ones, ``["all"]`` = all.
        tasks: likewise.
        options: of rules and of tasks, by name; a tuple holds the values of a grid.
    """

    rules: list[str]
    tasks: list[str]
    options: dict[str, dict[str, str | tuple[str, ...]]]


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks to examine a task.

    Attributes:
        task: its name.
        options: as the user wrote them.
        data: folder of data sets.
        download: whether data sets may be downloaded into it.
    """

    task: str
    options: dict[str, str]
    data: str | None
    download: bool


_COMBINATIONS = 1000  # of the values of a grid, largest number that is tried
READING = "data(): "  #: what the steps of a task's data begin with that say how far they are


class _Refused(Exception):
    """Why a task cannot be trained on, a sentence each."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)


def answer(request: bytes, report: Report) -> bytes:
    """Do what an encoded `Load` or `Examine` asks for; what a guarded process calls."""
    asked = msgspec.json.decode(request, type=Load | Examine)
    if isinstance(asked, Load):
        _load(asked, report)
        return b"{}"
    try:
        report("the import of the plugins")
        registry = discover()
        report(f"making task {asked.task!r}")
        task = registry.make_task(asked.task, asked.options)
        root = None if asked.data is None else Path(asked.data)
        found = examine(task, root, download=asked.download, report=report)
    except UserError as error:
        found = Examination(problems=[str(error)])
    return msgspec.json.encode(found)


def examine(
    task: Task, root: Path | None, *, download: bool = False, report: Report = lambda step: None
) -> Examination:
    """Ask a task for its data twice, build its network, and call its loss and its score on a few examples.

    Args:
        task: the configured task.
        root: folder of data sets.
        download: whether data sets may be downloaded into it.
        report: told of each step before it begins.
    """
    try:
        data, digest = _data(task, root, download, report)
        net, parameters = _check_functions(task, data, report)
    except DataMissing as error:
        return Examination(missing=str(error))
    except _Refused as refusal:
        return Examination(problems=refusal.problems)
    return Examination(
        data=digest,
        sizes={part: len(split.y) for part, split in data._asdict().items()},
        output_shape=list(net.output_shape),
        parameters=parameters,
        depth=net.depth,
    )


def _load(asked: Load, report: Report) -> None:
    """Whatever raises an exception here raises it in the parent, too, where it is reported."""
    registry = discover(before=lambda source: report(f"the import of plugin {source.name!r}"))
    kinds: tuple[tuple[str, list[str], Callable[[str], type], Callable[..., object]], ...] = (
        ("rule", asked.rules, registry.rule_class, registry.make_rule),
        ("task", asked.tasks, registry.task_class, registry.make_task),
    )
    for kind, wanted, class_of, make in kinds:
        for name in _named(registry, kind, wanted):
            report(f"making {kind} {name!r}")
            try:
                combinations = variants(declared(class_of(name)), asked.options.get(name, {}))
                for words in itertools.islice(combinations, _COMBINATIONS):
                    make(name, words)
            except Exception:  # noqa: BLE001, S112
                continue


def _named(registry: Registry, kind: str, wanted: Sequence[str]) -> list[str]:
    known: Mapping[str, Found[Any]] = registry.rules if kind == "rule" else registry.tasks
    if not wanted:
        return [name for name, found in known.items() if DEFAULT in found.spec.tags]
    return (
        list(known) if list(wanted) == ["all"] else [n for n in map(registry.current, wanted) if n in known]
    )


def _data(task: Task, root: Path | None, download: bool, report: Report) -> tuple[Data[Tensor | Source], str]:
    """The data and their digest, after they were found to be in order and the same twice; never held twice."""
    from rulezoo.comparison import contract
    from rulezoo.datasets.progress import reporting

    def called(words: str) -> Data[Tensor | Source]:
        report(words)
        with reporting(lambda said: report(READING + said)), _refusing("data()"):
            data = task.data(root, download=download)
        report("the check of the data")
        return data

    first = called("data()")
    if problems := contract.data_problems(first):
        raise _Refused(*problems)
    before = contract.digests(first)
    del first
    second = called("the second call of data()")
    if problems := contract.structure_problems(second):
        raise _Refused(*problems)
    now = contract.digests(second)
    if differ := [f"{part} {what}" for (part, what), value in now.items() if before[part, what] != value]:
        raise _Refused(
            f"data() returned other data when it was called a second time ({', '.join(differ)}); draw from a generator "
            "with a fixed seed: torch.Generator().manual_seed(0), numpy.random.default_rng(0), random_state=0"
        )
    return second, contract.joined(now)


def _check_functions(task: Task, stored: Data[Tensor | Source], report: Report) -> tuple[Net, int]:
    """The network that goes with the data, and its number of trainable parameters."""
    import torch

    from rulezoo.comparison import contract
    from rulezoo.inputs import prepared
    from rulezoo.training.trainer import build

    report("prepare()")
    if unprepared := contract.prepare_problems(task, stored):
        raise _Refused(*unprepared)
    data = prepared(stored, task, torch.device("cpu"))
    report("network()")
    with torch.random.fork_rng(devices=[]), _refusing("network()"):
        module = task.network()
    report("the forward pass of the network")
    with torch.no_grad(), _refusing("the network"):
        problem = contract.network_problem(module, data.train.x[:2])
    if problem:
        raise _Refused(problem)
    with _refusing("network()"):
        net, (values,) = build(task, [0], data.train.x[:2], torch.device("cpu"))
    evaluated = net.bind(values.fixed, values.statistics, training=False)

    def outputs(x: Tensor) -> Tensor:
        with torch.no_grad(), _refusing("the network"):
            return evaluated.run(values.params, x)

    shapes = (net.output_shape, tuple(data.train.y.shape[1:]))
    problems: list[str] = []
    for part, split in data._asdict().items():
        report(f"loss() or score() on {part} data")
        batch = contract.small_batch(split, *shapes)
        wrong = contract.label_problem(part, task, outputs, split) or contract.declared_problem(
            part, task, split.y, net.output_shape
        )
        found = [wrong] if wrong else contract.function_problems(task, outputs(batch.x), batch.y)
        problems += [one for one in found if one not in problems]
    if problems:
        raise _Refused(*problems)
    return net, sum(p.numel() for p in values.params.values())


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """What foreign code raises becomes a sentence; missing data stay what they are."""
    try:
        yield
    except (DataMissing, _Refused):
        raise
    except BaseException as error:
        said = reason(error)
        raise _Refused(said if isinstance(error, UserError) else f"{what} raised {said}") from error
