"""The commands that reproduce the runs of cells."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rulezoo.comparison import budgets, seeds
from rulezoo.options import as_text

if TYPE_CHECKING:
    from rulezoo.results.records import Record


Words = tuple[tuple[str, ...], ...]


def command(runs: Sequence[Record]) -> str:
    """One line for a shell. The options of the rule are those that its author's defaults do not give.

    Args:
        runs: of one rule on one task, at least one, with nothing but the seed that differs.
    """
    (line,) = commands([runs])
    return line


def commands(cells: Iterable[Sequence[Record]]) -> list[str]:
    """As few lines as reproduce the runs of several cells: tasks that differ in nothing else share a line.

    Args:
        cells: of one rule, each as for `command`.
    """
    tasks: dict[tuple[Words, int], list[Record]] = {}
    seen: Counter[tuple[Words, str]] = Counter()
    for runs in cells:
        words, task = _words(runs), runs[-1].asked.task
        tasks.setdefault((words, seen[words, task]), []).append(runs[-1])
        seen[words, task] += 1  # a line can ask for a task with one set of options only
    lines = []
    for ((before, rule_options, after, budget), _), of in tasks.items():
        task_options = [
            f"{run.asked.task}.{name}={as_text(value)}"
            for run in of
            for name, value in sorted(run.asked.task_options.items())
        ]
        named = ["--tasks", ",".join(run.asked.task for run in of)]
        options = [word for option in (*rule_options, *task_options) for word in ("-o", option)]
        lines.append(shlex.join([*before, *named, *after, *options, *budget]))
    return lines


def _words(runs: Sequence[Record]) -> Words:
    """The command apart from the task and its options: what comes before the task, options, what comes after, budget."""
    asked = runs[-1].asked
    changed = {name for run in runs for name in run.changed} & set(asked.rule_options)
    epochs, probes = asked.budget.get("epochs"), max(len(run.probes) for run in runs)
    together = max(
        run.answered.seeds_together for run in runs
    )  # sums in another order differ in the last digit
    words = ["--seeds", seeds.shown(run.asked.seed for run in runs)]
    words += [] if epochs is None else ["--epochs", as_text(epochs)]
    words += ["--device", asked.device]
    words += [] if asked.precision == "float32" else ["--precision", asked.precision]
    words += ["--compile"] if any(run.answered.compiled for run in runs) else []
    words += ["--together", str(together)] if together < len(runs) else []
    words += [word for file in _plugin_files(runs[-1]) for word in ("--plugin", file)]
    words += ["--probe", str(probes)] if probes else []
    words += ["--keep-weights"] if any(run.weights for run in runs) else []
    budget = [
        word for name, value in budgets.words(asked.budget) for word in ("-b", f"{name}={as_text(value)}")
    ]
    options = (f"{asked.rule}.{name}={as_text(asked.rule_options[name])}" for name in sorted(changed))
    return ("rulezoo", "compare", "--rules", asked.rule), tuple(options), tuple(words), tuple(budget)


def _plugin_files(run: Record) -> list[str]:
    """The names of the files that the rule and the task came from, where they are not installed; of their folders nothing is stored."""
    plugins = (run.answered.rule_plugin.distribution, run.answered.task_plugin.distribution)
    return list(dict.fromkeys(name for name in plugins if name.endswith(".py")))
