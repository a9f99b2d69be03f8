"""The command that reproduces the runs of a cell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rulezoo.comparison import budgets, seeds
from rulezoo.options import as_text

if TYPE_CHECKING:
    from rulezoo.results.records import Record


def command(runs: Sequence[Record]) -> str:
    """One line for a shell. The options of the rule are those that its author's defaults do not give.

    Args:
        runs: of one rule on one task, at least one, with nothing but the seed that differs.
    """
    asked = runs[-1].asked
    changed = {name for run in runs for name in run.changed} & set(asked.rule_options)
    epochs, probes = asked.budget.get("epochs"), max(len(run.probes) for run in runs)
    together = max(
        run.answered.seeds_together for run in runs
    )  # sums in another order differ in the last digit
    options = [
        *(f"{asked.rule}.{name}={as_text(asked.rule_options[name])}" for name in sorted(changed)),
        *(f"{asked.task}.{name}={as_text(value)}" for name, value in sorted(asked.task_options.items())),
    ]
    words = ["rulezoo", "compare", "--rules", asked.rule, "--tasks", asked.task]
    words += ["--seeds", seeds.shown(run.asked.seed for run in runs)]
    words += [] if epochs is None else ["--epochs", as_text(epochs)]
    words += ["--device", asked.device]
    words += [] if asked.precision == "float32" else ["--precision", asked.precision]
    words += ["--compile"] if any(run.answered.compiled for run in runs) else []
    words += ["--together", str(together)] if together < len(runs) else []
    words += [word for file in _plugin_files(runs[-1]) for word in ("--plugin", file)]
    words += ["--probe", str(probes)] if probes else []
    words += ["--keep-weights"] if any(run.weights for run in runs) else []
    words += [word for option in options for word in ("-o", option)]
    words += [
        word for name, value in budgets.words(asked.budget) for word in ("-b", f"{name}={as_text(value)}")
    ]
    return shlex.join(words)


def _plugin_files(run: Record) -> list[str]:
    """The names of the files that the rule and the task came from, where they are not installed; of their folders nothing is stored."""
    plugins = (run.answered.rule_plugin.distribution, run.answered.task_plugin.distribution)
    return list(dict.fromkeys(name for name in plugins if name.endswith(".py")))
