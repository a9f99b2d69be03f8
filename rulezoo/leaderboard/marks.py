"""The marks of plausibility in a row: what a rule's spec declares for the options of its runs, and what was measured.

A row may hold runs with different options, such as those that a tuning chose on each task. A mark that differs between
them shows every value: ``no/yes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.results.records import Record
    from rulezoo.specs import RuleSpec

Marks = dict[str, str]


class Declared:
    """What specs declare for the options of runs; worked out once for runs that share their options, as stored ones do.

    Args:
        specs: name of a rule → its spec; of other rules nothing is declared.
    """

    def __init__(self, specs: Mapping[str, RuleSpec]) -> None:
        self._specs = specs
        self._known: dict[tuple[str, int], tuple[Mapping[str, object], Marks]] = {}

    def __call__(self, run: Record) -> Marks:
        """Field → mark, for one run."""
        asked = run.asked
        key = asked.rule, id(asked.rule_options)
        if key not in self._known:
            spec = self._specs.get(asked.rule)
            found = spec.plausibility_with(asked.rule_options) if spec else None
            # Holding on to the options keeps their id theirs.
            self._known[key] = asked.rule_options, found.marks() if found else {}
        return self._known[key][1]

    def of(self, runs: Iterable[Record]) -> Marks:
        """The marks of a row, with what was measured in place of a "no" that holds between blocks only."""
        runs = list(runs)
        values: dict[str, set[str]] = {}
        for run in runs:
            for name, mark in self(run).items():
                values.setdefault(name, set()).add(mark)
        if (deepest := self.deepest(runs)) > 1:
            values["backward_pass"] = values["backward_pass"] - {"no"} | {within_blocks(deepest)}
        return {clean(name): clean("/".join(sorted(marks))) for name, marks in values.items()}

    def deepest(self, runs: Iterable[Record]) -> int:
        """Layers in series that the errors of a rule without a backward pass travelled through; 1 for other rules."""
        depths = (run.block_depth or 1 for run in runs if self(run).get("backward_pass") == "no")
        return max(depths, default=1)

    def notes(self, runs: Iterable[Record]) -> tuple[str, ...]:
        """A sentence for a cell whose errors travelled through blocks of several layers."""
        if (deepest := self.deepest(runs)) < 2:
            return ()
        sentence = (
            f"{within_blocks(deepest)}: up to {deepest} layers lie in series between two sites of this network, and errors "
            "travelled back through their forward weights, although the rule declares no backward pass; sites between "
            "all layers (rulezoo.add_sites) would stop them"
        )
        return (sentence,)


def within_blocks(depth: int) -> str:
    """The mark of a rule whose errors travel through blocks of so many layers, and no further."""
    return f"within blocks of {depth}"
