"""Paired differences of any two rules, worked out for the report's comparison, which only shows them.

They are in files of their own, one for each ranking, as scripts: a page on disk may load a script, but no data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rulezoo.leaderboard import words
from rulezoo.leaderboard.ranking import by_seed, scaled, sign
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.report.table import on_task

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.ranking import Ranking
    from rulezoo.leaderboard.scores import Scores
    from rulezoo.leaderboard.stats import Estimate
    from rulezoo.report.findings import Findings

MOST = 60  #: lines of a ranking, from the best on, that can be compared with one another
_DIGITS = 3  # of differences in points

Numbers = list[object]


def script(found: Findings, ranking: Ranking) -> bytes:
    """The script that holds the differences of all pairs of a ranking.

    ``pairs[i][j - i - 1]`` is of lines ``i`` and ``j > i``, first minus second. Its first item is of all tasks: difference, low and high
    in points of % of backprop, sign, p of this one test, the smallest p, number of pairs; ``null`` where one of the two is not
    ranked. The others are of one column each: difference, low and high in % of the metric, sign, difference of each seed.
    """
    labels = list(ranking.settings)[:MOST]
    columns = _columns(found.overview, ranking)
    across = _across(found.overview, ranking, columns)
    content = {
        "tasks": [found.overview.columns[i].label for i in columns],
        "lines": labels,
        "pairs": [
            [
                [
                    across.get((first, second)),
                    *(_on_task(found.overview, ranking, first, second, i) for i in columns),
                ]
                for second in labels[place + 1 :]
            ]
            for place, first in enumerate(labels)
        ],
    }
    return b"(window.rulezooPairs ??= {})[" + _json(ranking.name) + b"] = " + _json(content) + b";\n"


def _columns(overview: Overview, ranking: Ranking) -> list[int]:
    """The columns on which a ranking rests: those for which a line of it was run, or tuned."""
    kept = {line.label for line in overview.lines if line.kept == ranking.name}
    own = [
        one
        for label, one in ranking.settings.items()
        if ranking.name in (DEFAULT, one.ruleset) or label in kept
    ]
    return [i for i in range(len(overview.columns)) if any(one.cells[i] for one in own)]


def _across(overview: Overview, ranking: Ranking, columns: list[int]) -> dict[tuple[str, str], Numbers]:
    """Pair of ranked lines → what is shown of it; empty where there is no backprop above chance."""
    from rulezoo.leaderboard import stats

    labels = list(ranking.ranked)[:MOST] if ranking.by == "iqm" else []
    scores = _scores(overview, ranking, labels, columns)
    found = {}
    for place, second in enumerate(labels):
        if not (before := labels[:place]):
            continue
        for first, test in stats.compare(scores, second, rules=before).items():
            points = scaled(test.interval, 100)
            p = [words.p_value(one) for one in (test.p, stats.smallest_p(test.pairs))]
            found[first, second] = [*_difference(points), *p, test.pairs]
    return found


def _scores(overview: Overview, ranking: Ranking, labels: list[str], columns: list[int]) -> Scores:
    from rulezoo.leaderboard.scores import Run, Scores

    runs = [
        Run(
            label,
            overview.columns[i].label,
            run.seed,
            "failed" if run.score is None else "finished",
            run.score,
        )
        for label in {*labels, *([ranking.reference] if ranking.reference else [])}
        for i in columns
        if (cell := ranking.settings[label].cells[i])
        for run in cell.runs
    ]
    chance = {overview.columns[i].label: overview.columns[i].chance for i in columns}
    return Scores.of(runs, chance, ranking.reference)


def _on_task(overview: Overview, ranking: Ranking, first: str, second: str, i: int) -> Numbers | None:
    one, other = (ranking.settings[label].cells[i] for label in (first, second))
    column = overview.columns[i]
    difference = on_task(one, other, column) if one and other else None
    if one is None or other is None or difference is None:
        return None
    a, b = by_seed(one, column.chance), by_seed(other, column.chance)
    seeds = [round(100 * (a[seed] - b[seed]), _DIGITS) for seed in sorted(a.keys() & b.keys())]
    return [*_difference(difference), seeds]


def _difference(one: Estimate) -> Numbers:
    ends = [None, None] if one.method == "none" else [round(one.low, _DIGITS), round(one.high, _DIGITS)]
    return [round(one.value, _DIGITS), *ends, words.SIGNS[sign(one)]]


def _json(content: object) -> bytes:
    """As a script may hold it, whatever words stand in it."""
    return msgspec.json.encode(content).replace(b"<", b"\\u003c")
