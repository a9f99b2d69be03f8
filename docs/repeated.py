"""The table of leaderboard/published/README.md: published numbers, what runs of ours gave, and the study behind each."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rulezoo.discovery.registry import discover
from rulezoo.leaderboard.published import Published
from rulezoo.leaderboard.references import PUBLISHED, matching, verdict
from rulezoo.results.records import Record
from rulezoo.results.store import Store

_HEAD = ("data", "network", "rule", "published %", "here %", "runs", "verdict", "study")


def table(folder: Path) -> str:
    """Markdown: a line for each published number that a study of the folder repeats, and how many are reproduced."""
    records = Store(folder).read().records
    studies = {
        path: tomllib.loads(path.read_text("utf-8")) for path in sorted((folder / "studies").glob("*.toml"))
    }
    lines, states = [], []
    for path, study in studies.items():
        for one in (p for p in PUBLISHED if p.same and _asks_for(study, p)):
            states.append(verdict(one, records).state)
            lines.append(_line(one, records, path.relative_to(folder)))
    count = f"{states.count('reproduced')} of {len(states)} numbers reproduced, {states.count('not reproduced')} not, "
    return "\n".join(
        (f"{count}{states.count('not run')} not run yet.\n", _row(_HEAD), _row("---" for _ in _HEAD), *lines)
    )


def _asks_for(study: dict[str, Any], one: Published) -> bool:
    """Whether a study trains the rule with the number's options on its task, for as long as the number says."""
    if one.rule not in study["rules"] or one.task not in study["tasks"]:
        return False
    epochs = study.get("epochs", discover().make_task(one.task, {}).budget.epochs)
    asked = study.get("options", {}).get(one.rule, {})
    same = all(value in _values(asked.get(name)) for name, value in one.options.items())
    return same and one.budget.get("epochs") == epochs


def _values(option: object) -> list[object]:
    return option if isinstance(option, list) else [option]


def _line(one: Published, records: Sequence[Record], study: Path) -> str:
    found = verdict(one, records)
    scores = [100 * score for score in matching(one, records)]
    mean = f"{statistics.mean(scores):.2f}" if scores else ""
    if len(scores) > 1:
        mean += f" ± {statistics.stdev(scores):.2f}"
    spread = f" ± {100 * one.spread:.2f}" if one.spread else ""
    why = f"{found.state}: {found.why}"
    cells = (
        one.data, one.network, f"`{one.rule}`", f"[{100 * one.score:.2f}]({one.source.link}){spread}", mean,
        len(scores), why, f"[{study.stem}]({study.as_posix()})",
    )  # fmt: skip
    return _row(cells)


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
