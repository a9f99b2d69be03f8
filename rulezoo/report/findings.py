"""Everything that the pages tell, worked out once: the board, the statistics, and who is in the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rulezoo.leaderboard import board, overview, stats
from rulezoo.leaderboard.grid import Grid
from rulezoo.report.looks import Looks
from rulezoo.results.freshness import stale

if TYPE_CHECKING:
    from rulezoo.claims.report import Finding
    from rulezoo.discovery.registry import Registry
    from rulezoo.leaderboard import ranking
    from rulezoo.leaderboard.board import Board, Row
    from rulezoo.leaderboard.evaluated import Evaluations
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.verified import Verifications, Verified
    from rulezoo.results.records import Record


@dataclass(frozen=True)
class Findings:
    """What is known.

    Attributes:
        grid: the runs, arranged.
        registry: the rules and tasks there are.
        claims: the claims with their evidence, if they are to be shown.
        verifications: what ``rulezoo verify`` has found of rules.
        evaluations: what was found of the trained networks.
    """

    grid: Grid
    registry: Registry
    claims: Sequence[Finding] = ()
    verifications: Verifications | None = None
    evaluations: Evaluations | None = None

    @cached_property
    def board(self) -> Board:
        """The table."""
        return board.of(
            self.grid,
            self.registry.specs(),
            lambda record: stale(record, self.registry),
            self.verifications,
            self.evaluations,
        )

    @cached_property
    def overview(self) -> Overview:
        """The leaderboard, one line for each rule or variant; empty without runs."""
        if not self.grid.rows:
            return overview.Overview()
        return overview.of(self.grid, self.board, self.registry.specs())

    @cached_property
    def looks(self) -> Looks:
        """How each rule is drawn, the same in every figure."""
        return Looks.of(self.overview, list(self.registry.rules))

    @cached_property
    def cells(self) -> dict[tuple[str, str], stats.Cell]:
        """``(row, column)`` → mean with interval."""
        return stats.cells(self.grid.scores())

    @cached_property
    def records(self) -> list[Record]:
        """All runs that are shown."""
        return [record for runs in self.grid.columns.values() for record in runs]

    @cached_property
    def _by_key(self) -> dict[str, Record]:
        return {record.asked.key: record for record in self.records}

    def runs_of(self, cell: ranking.Cell) -> list[Record]:
        """The records of a cell of the overview."""
        return [self._by_key[run.key] for run in cell.runs]

    @cached_property
    def rules(self) -> dict[str, list[Row]]:
        """Name of a rule → its rows, in the order of the board."""
        found: dict[str, list[Row]] = {}
        for row in self.board.rows:
            found.setdefault(row.rule, []).append(row)
        return found

    @cached_property
    def tasks(self) -> dict[str, list[int]]:
        """Name of a task → its columns."""
        found: dict[str, list[int]] = {}
        for i, column in enumerate(self.board.columns):
            found.setdefault(column.task, []).append(i)
        return found

    def verified(self, rule: str) -> Verified | None:
        """What is known of a rule as it is installed, with the author's defaults."""
        found = self.registry.rules.get(rule)
        if found is None or self.verifications is None:
            return None
        declared = found.spec.plausibility
        return self.verifications.of_defaults(rule, found.spec.version, declared.marks() if declared else {})

    def family(self, rule: str) -> str:
        """The family of a rule; of one that is not installed here, nothing is known."""
        found = self.registry.rules.get(rule)
        return found.spec.family if found else "not installed here"
