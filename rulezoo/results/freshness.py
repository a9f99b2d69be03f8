"""Which stored results are in doubt: failed ones, those of older code, those of other data than the rest.

A result that is in doubt can be run again; see `wanted_again`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, get_args

import msgspec

from rulezoo.discovery.fingerprint import fingerprint
from rulezoo.discovery.former_fingerprints import as_today
from rulezoo.results.records import Status

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Record

FAILED = tuple(
    status for status in get_args(Status) if status not in ("ok", "skipped", "pruned", "interrupted")
)
RETRY = ("failed", "stale", "all", *FAILED)  #: what `wanted_again` knows


def stale(record: Record, registry: Registry) -> str | None:
    """Why a result may not be what the rule gives now, in a sentence; ``None`` where nothing suggests it.

    What is not known does not suggest it: a record without a fingerprint, a rule that is not installed.
    """
    rule, task = registry.rules.get(record.asked.rule), registry.tasks.get(record.asked.task)
    return changed_code(
        record, None if rule is None else rule.spec.module, None if task is None else task.spec.module
    )


def changed_code(record: Record, rule_module: str | None, task_module: str | None) -> str | None:
    """The same as `stale`, for a rule and a task of these modules; ``None`` = not installed."""
    asked, answered = record.asked, record.answered
    codes = (
        (f"rule {asked.rule}", answered.rule_code, rule_module),
        (f"task {asked.task}", answered.task_code, task_module),
    )
    changed = [
        what
        for what, code, module in codes
        if code is not None and module is not None and code_changed(code, module)
    ]
    return f"the code of {' and of '.join(changed)} changed since" if changed else None


def mixed_data(records: Iterable[Record]) -> dict[str, str]:
    """The runs that were trained on other data than most runs of the same task; what is not known is left out.

    Args:
        records: those that stand in one table.

    Returns:
        key of a run → a sentence with both digests; empty where the data of each task are the same.
    """
    by_task: dict[bytes, list[Record]] = defaultdict(list)
    for record in records:
        if record.answered.data is not None:
            asked = record.asked
            same = msgspec.json.encode([asked.task, asked.task_version, asked.task_options], order="sorted")
            by_task[same].append(record)
    found = {}
    for group in by_task.values():
        counts = Counter(record.answered.data for record in group)
        usual, _ = max(counts.items(), key=lambda one: (one[1], str(one[0])))
        for record in group:
            if record.answered.data != usual:
                found[record.asked.key] = (
                    f"trained on data with digest {record.answered.data}, other runs of {record.asked.task} on data "
                    f"with digest {usual}"
                )
    return found


def wanted_again(
    words: Collection[str], outdated: Callable[[Record], str | None]
) -> Callable[[Record], bool]:
    """A test for the records that are to be replaced.

    Args:
        words: of `RETRY`: ``failed``, ``stale``, ``all``, or the name of a status.
        outdated: why a record is of older code, if it is; `stale` or `changed_code`.
    """

    def wanted(record: Record) -> bool:
        return (
            "all" in words
            or record.status in words
            or ("failed" in words and record.status in FAILED)
            or ("stale" in words and outdated(record) is not None)
        )

    return wanted


def code_changed(code: str, module: str) -> bool:
    """Whether a stored fingerprint is not that of a module as it is installed; ``False`` where that is not known."""
    return code_of(module) not in (as_today(code, module), None)


def code_of(module: str) -> str | None:
    """The fingerprint of a module; ``None`` where its source cannot be had or read."""
    try:
        return fingerprint(module)
    except (LookupError, SyntaxError):
        return None
