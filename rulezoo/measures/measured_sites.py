"""What stored runs measured at the sites of their networks, as the closed forms need it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rulezoo.errors import UserError, did_you_mean
from rulezoo.measures.site_theory import SiteTheory
from rulezoo.options import as_text
from rulezoo.results.records import Record
from rulezoo.results.store import Store

_QUANTITIES = ("units", "rank", "alpha_mean_gradient", "spread", "ceiling")


@dataclass(frozen=True)
class MeasuredSite:
    """A site of a network, mean over runs.

    Attributes:
        network: the task, with its width where it has one.
        rule: that trained the networks.
        name: of the site.
        site: its numbers.
        runs: number of runs.
    """

    network: str
    rule: str
    name: str
    site: SiteTheory
    runs: int


def measured_sites(folder: Path, task: str, rule: str | None = None) -> list[MeasuredSite]:
    """The sites of a task's networks after training, by width, rule and site.

    Args:
        folder: of results, or of claims, with a folder of results for each profile.
        task: name of the task.
        rule: only networks that it trained.

    Raises:
        UserError: if no such run was probed; the message names the tasks or rules whose runs were.
    """
    probed = [record for record in _records(folder) if record.status == "ok" and record.probes]
    if not probed:
        raise UserError(
            f"no stored run in {folder} measured its network; run one with `rulezoo compare --probe 1 --out {folder}`, or "
            "name another folder with --out"
        )
    found = _known("task", task, probed, [record.asked.task for record in probed])
    if rule is not None:
        found = _known("rule", rule, found, [record.asked.rule for record in found])
    groups: dict[tuple[str, str, str], list[Mapping[str, float]]] = defaultdict(list)
    for record in found:
        for site, numbers in record.probes[-1].sites.items():
            known = {name: value for name in _QUANTITIES if (value := numbers.get(name)) is not None}
            if "units" in known and "rank" in known and "alpha_mean_gradient" in known:
                groups[_label(record), record.asked.rule, site].append(known)
    return [
        MeasuredSite(*place, _site(numbers), len(numbers))
        for place, numbers in sorted(groups.items(), key=_order)
    ]


def _records(folder: Path) -> Iterator[Record]:
    for root in (folder, *sorted(folder.glob("*/*/"))):
        if (root / "runs").is_dir():
            yield from Store(root).read().records


def _known(kind: str, name: str, records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    chosen = [record for record, own in zip(records, names, strict=True) if own == name]
    if not chosen:
        known = sorted(set(names))
        hint = did_you_mean(name, known) or f"those are {', '.join(known)}"
        raise UserError(f"no stored run of {kind} {name!r} measured its network; {hint}")
    return chosen


def _label(record: Record) -> str:
    width = record.asked.task_options.get("width")
    return record.asked.task if width is None else f"{record.asked.task}, width {as_text(width)}"


def _order(place: tuple[tuple[str, str, str], list[Mapping[str, float]]]) -> tuple[str, str, float]:
    (network, rule, _), numbers = place
    return network, rule, -numbers[0]["units"]


def _site(numbers: Sequence[Mapping[str, float]]) -> SiteTheory:
    def mean(name: str, otherwise: float) -> float:
        values = [one[name] for one in numbers if math.isfinite(one.get(name, math.nan))]
        return math.fsum(values) / len(values) if values else otherwise

    return SiteTheory(
        units=mean("units", 1.0),
        rank=mean("rank", 1.0),
        alpha=min(1.0, max(0.0, mean("alpha_mean_gradient", 0.0))),
        rho=max(1.0, mean("spread", 1.0)),
        ceiling=min(89.9, mean("ceiling", 0.0)),
    )
