"""`rulezoo.train`, `rulezoo.compare` and `rulezoo.load`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo.api.errors import CallError
from rulezoo.api.named import Named, named, with_given
from rulezoo.api.results import Results
from rulezoo.api.run import Run
from rulezoo.comparison import seeds as seeds_
from rulezoo.comparison.request import CHECKPOINT, Request
from rulezoo.discovery.kinds import RULE, TASK
from rulezoo.discovery.registry import Registry, discover
from rulezoo.options import as_text
from rulezoo.results.store import Store

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Executor, Listener
    from rulezoo.comparison.jobs import Job
    from rulezoo.comparison.plan import Cell
    from rulezoo.options import Value
    from rulezoo.results.records import Precision
    from rulezoo.rule import LearningRule
    from rulezoo.task import Task
    from rulezoo.trained import TrainedNetwork

DATA = "RULEZOO_DATA"  #: variable that names the folder of data sets
Options = Mapping[str, Mapping[str, "Value | Sequence[Value]"]]
"""Name of a rule or task → option → its value, or the values of a grid."""


def load(
    folder: str | Path,
    *,
    rules: str | Sequence[str] | None = None,
    tasks: str | Sequence[str] | None = None,
    seeds: int | Iterable[int] | None = None,
) -> Results:
    """The results in a folder.

    Args:
        folder: what ``--out`` of `rulezoo compare` or ``out`` of `compare` named.
        rules: only these rules.
        tasks: only these tasks.
        seeds: only these seeds.

    Raises:
        CallError: if there is no such folder.
        UserError: if a name or a seed is not stored.

    Warns:
        UserWarning: for each file that cannot be read; it is left out.
    """
    from rulezoo.tuning import records as tunings

    root = Path(folder)
    if not root.is_dir():
        raise CallError(
            f"no results in {root}: it is not a folder; give the folder that rulezoo compare wrote to"
        )
    store = Store(root)
    reading, conclusions = store.read(), tunings.read(store)
    for damage in (*reading.damaged, *conclusions.damaged):
        warnings.warn(f"left out: {damage.path} {damage.reason}", stacklevel=2)
    results = Results(root, tuple(reading.records), tuple(conclusions.tunings))
    return results.only(rules=rules, tasks=tasks, seeds=seeds)


def train(
    rule: str | LearningRule | type[LearningRule],
    task: str | Task | type[Task],
    seed: int = 0,
    *,
    options: Mapping[str, Value] | None = None,
    task_options: Mapping[str, Value] | None = None,
    out: str | Path | None = None,
    budget: Mapping[str, Value] | None = None,
    epochs: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    compiled: bool = False,
    probes: int = 0,
    retry: Sequence[str] = (),
    data: str | Path | None = None,
    download: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Train one rule on one task in this process.

    A run that fails or diverges is returned, too: ``run.record.status`` and ``run.record.reason`` report it.

    Args:
        rule: the name of a rule, with options if need be (``"nmnc:rank=4"``); a `LearningRule`, or its class. It need
            not come from a plugin.
        task: name of a task, or a task.
        seed: decides initial weights, order of the data, and the rule's random numbers.
        options: of a rule that is given by name or class.
        task_options: of a task that is given by name or class.
        out: folder of results. The run is stored there with its weights, and not trained again if it is stored
            already: it is the same run as that of `rulezoo compare --keep-weights --out`. ``None`` = nothing is stored.
        budget: what to change of the task's budget, e.g. ``{"lr": 0.1, "optimizer": "SGD", "optimizer.momentum": 0.9}``.
        epochs: passes through the training data, in place of the task's own number.
        device: ``"auto"`` = the GPU where there is one, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"float32"`` or ``"bfloat16"``.
        compiled: let `torch.compile` take the training step.
        probes: number of points of training at which the rule is probed.
        retry: which stored runs are trained again, words of ``rulezoo compare --retry``, e.g. ``("stale",)``.
        data: folder of data sets; ``None`` = ``$RULEZOO_DATA``.
        download: whether missing data sets may be downloaded into it.
        progress: called with the number of steps done and the number of all steps.

    Raises:
        UserError: if an argument cannot be used, or the task's data are missing.
    """
    from rulezoo.comparison.plan import plan

    registry = discover()
    of_rule, of_task = named(RULE, rule, options, registry), named(TASK, task, task_options, registry)
    request = Request(
        rules=(of_rule.name,),
        tasks=(of_task.name,),
        seeds=(seed,),
        options={of_task.name: dict(of_task.options), of_rule.name: dict(of_rule.options)},
        budget=_words(budget),
        epochs=epochs,
        device=device,
        precision=precision,
        compiled=compiled,
        probes=probes,
        retry=tuple(retry),
        data=_data(data),
        download=download,
        keep_weights=True,
    )
    if out is not None:
        _check_registered("out", of_rule, of_task)
    (cell,) = plan(with_given(registry, of_rule, of_task), request)
    if download:
        cell.task.data(request.data, download=True)
    with _global_settings_kept():
        if out is None:
            return _in_memory(cell, progress)
        return _stored(cell, Store(Path(out)), registry, progress)


def compare(
    rules: Iterable[str | LearningRule | type[LearningRule]] | str = (),
    tasks: Iterable[str | Task | type[Task]] | str = (),
    seeds: int | str | Iterable[int] = 3,
    *,
    out: str | Path,
    options: Options | None = None,
    budget: Mapping[str, Value] | None = None,
    epochs: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    compiled: bool = False,
    together: int | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    trials: int | None = None,
    probes: int = 0,
    checkpoint: float = CHECKPOINT,
    retry: Sequence[str] = (),
    keep_weights: bool = False,
    keep_memory: bool = False,
    evaluations: Sequence[str] = (),
    data: str | Path | None = None,
    download: bool = False,
    executor: Executor | None = None,
    log: Callable[[str], None] | None = None,
) -> Results:
    """Train rules on tasks, each in processes of their own, as ``rulezoo compare`` does; the results of these runs.

    What is stored already is not trained again, whether the command stored it or a call, so a comparison that was
    interrupted is resumed by the same call.

    Args:
        rules: names of rules, values or classes; empty = the rules of the standard comparison, ``"all"`` = all. They
            must come from a plugin: other processes find them by name.
        tasks: names of tasks, or tasks.
        seeds: number of seeds, or the seeds, or a text like ``"5-9"``.
        out: folder of results.
        options: of rules and tasks, by name; several values are a grid: ``{"nmnc": {"rank": [4, 16, 64]}}``.
        budget: what to change of the tasks' budgets, for all rules.
        epochs: passes through the training data, in place of the tasks' own number.
        device: ``"auto"`` = the GPU where there is one, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"float32"`` or ``"bfloat16"``.
        compiled: let `torch.compile` take the training step.
        together: maximum number of seeds trained together; ``None`` = as many as the memory holds.
        jobs: maximum number of processes that train at the same time; ``None`` = one for each core.
        threads: torch's threads in each process; ``None`` = an equal share of the cores.
        trials: number of trials of a tuning of every rule on every task; ``None`` = no tuning.
        probes: number of points of training at which the rules are probed.
        checkpoint: seconds between two checkpoints of a run; 0 = none.
        retry: which stored runs are trained again, e.g. ``("failed", "stale")``.
        keep_weights: store the trained weights of each run.
        keep_memory: store the state that the rule keeps between steps, too.
        evaluations: names of evaluations of each trained network.
        data: folder of data sets; ``None`` = ``$RULEZOO_DATA``.
        download: whether missing data sets may be downloaded into it.
        executor: does the jobs, in place of processes on this machine.
        log: called with a sentence now and then, e.g. ``print``.

    Raises:
        UserError: if an argument cannot be used, or data are missing; before the first run.
    """
    from rulezoo.comparison.inspection import load as load_plugins
    from rulezoo.executors.machine import this_machine
    from rulezoo.tuning import comparing

    registry, store = discover(), Store(Path(out))
    of_rules, of_tasks = _all_named(RULE, rules, registry), _all_named(TASK, tasks, registry)
    _check_registered("compare", *of_rules, *of_tasks)
    here = this_machine(device, jobs)
    request = Request(
        rules=tuple(one.name for one in of_rules),
        tasks=tuple(one.name for one in of_tasks),
        seeds=_seeds(seeds),
        options=_options([*of_tasks, *of_rules], options or {}),
        budget=_words(budget),
        epochs=epochs,
        device=device if executor else here.device,
        precision=precision,
        compiled=compiled,
        together=together,
        probes=probes,
        checkpoint=checkpoint,
        threads=threads or (None if executor else here.threads),
        trials=trials,
        retry=tuple(retry),
        data=_data(data),
        download=download,
        keep_weights=keep_weights,
        keep_memory=keep_memory,
        evaluations=tuple(evaluations),
    )
    load_plugins(request)
    listeners = comparing.Listeners(log=log) if log else None
    made = comparing.compare(request, registry, store, executor or here.executor, listeners)
    return Results(store.root, tuple(made.records), tuple(made.tuned))


def _in_memory(cell: Cell, progress: Callable[[int, int], None] | None) -> Run:
    """Train without a store."""
    from rulezoo.comparison.jobs import outcomes

    request, report_progress = cell.request, progress or (lambda done, total: None)
    ((record, outcome),) = outcomes(cell, request, cell.asked, report_progress)

    def network() -> TrainedNetwork:
        from rulezoo.errors import WeightsError
        from rulezoo.trained import TrainedNetwork, state_of

        kept = outcome.kept
        if kept is None or kept.weights is None:
            raise WeightsError(
                f"there is no trained network: the run of {cell.rule_name} on {cell.task_name} ended with status "
                f"{record.status!r}: {record.reason}"
            )
        return TrainedNetwork.from_state_dict(
            kept.weights,
            kept.example,
            rule=cell.rule_name,
            task=cell.task_name,
            seed=record.asked.seed,
            made_rule=cell.rule,
            made_task=cell.task,
            scores={name: score for name, score in record.scores.items() if score is not None},
            state=None if kept.memory is None else state_of(kept.memory),
            precision=record.asked.precision,
        )

    return Run(record, network)


class _Here:
    """An executor that does jobs in this process."""

    def __init__(self, cell: Cell, progress: Callable[[int, int], None] | None) -> None:
        self.cell, self.progress = cell, progress or (lambda done, total: None)

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        from rulezoo.comparison.jobs import work

        for job in jobs:
            listener.finished(job, work(job, self.progress, self.cell))


def _stored(cell: Cell, store: Store, registry: Registry, progress: Callable[[int, int], None] | None) -> Run:
    """Train with a store, unless it holds the run."""
    from rulezoo.comparison.execution import execute
    from rulezoo.comparison.inspection import Inspector
    from rulezoo.evaluations.network import network_of
    from rulezoo.tuning.comparing import Silent

    class Trusting(Inspector):
        """The code runs in this process whatever an examination in another one would find."""

        def check(self, cells: Iterable[Cell]) -> None:
            pass

    execute([cell], store, _Here(cell, progress), Silent(), Trusting())
    record = store.get(cell.asked[0])
    if record is None:
        raise CallError(f"the record in {store.root} was deleted while the run was trained; train again")
    return Run(record, partial(network_of, store, record, registry))


@contextmanager
def _global_settings_kept() -> Iterator[None]:
    """A block that leaves torch's settings of the process as they were."""
    import torch

    tf32, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)


def _all_named(kind: Any, given: Any, registry: Registry) -> list[Named[Any]]:  # noqa: ANN401
    if isinstance(given, str):
        given = [given]
    elif isinstance(given, type) or not isinstance(given, Iterable):
        raise CallError(f"{kind.plural} must be a list, got {given!r}; write [{given!r}]")
    return [Named(kind.name, one, {}) if one == "all" else named(kind, one, None, registry) for one in given]


def _check_registered(what: str, *given: Named[Any]) -> None:
    for one in given:
        if one.found is not None:
            target = one.found.spec.target
            raise CallError(
                f"{what}: {target.partition(':')[2]} is not offered by a plugin, and stored results belong to a name. Offer it "
                f"by a hook rulezoo_{one.kind}s() in its file, name the file in $RULEZOO_PLUGINS, and give its name; "
                "`rulezoo.train` without `out` takes it as it is"
            )


def _options(given: Sequence[Named[Any]], more: Options) -> dict[str, dict[str, str | tuple[str, ...]]]:
    options: dict[str, dict[str, str | tuple[str, ...]]] = {}
    seen: dict[str, Mapping[str, str]] = {}
    for one in given:
        if dict(seen.setdefault(one.name, one.options)) != dict(one.options):
            raise CallError(
                f"{one.name} is given twice, with options {dict(seen[one.name])} and {dict(one.options)}; give the name once, "
                f"and several values of an option as a grid: options={{{one.name!r}: {{OPTION: [A, B]}}}}"
            )
        options.setdefault(one.name, {}).update(one.options)
    for name, values in more.items():
        if not isinstance(values, Mapping):
            raise CallError(f"options must read {{NAME: {{OPTION: VALUE}}}}, got {values!r} for {name!r}")
        options.setdefault(name, {}).update({option: _grid(value) for option, value in values.items()})
    return {name: words for name, words in options.items() if words}


def _grid(value: Value | Sequence[Value]) -> str | tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(as_text, value))
    text = as_text(value)
    return (text,) if "," in text else text  # a text with commas would be read as a grid


def _words(values: Mapping[str, Value] | None) -> dict[str, str]:
    return {name: as_text(value) for name, value in (values or {}).items()}


def _data(folder: str | Path | None) -> Path | None:
    if folder is None:
        folder = os.environ.get(DATA) or None
    return None if folder is None else Path(folder).expanduser()


def _seeds(given: int | str | Iterable[int]) -> tuple[int, ...]:
    if isinstance(given, str):
        return seeds_.read(given)
    if isinstance(given, int) and not isinstance(given, bool):
        return seeds_.first(given)
    if not isinstance(given, Iterable):
        raise CallError(f"seeds must be a number of seeds, seeds, or a text like '5-9', got {given!r}")
    return tuple(given)
