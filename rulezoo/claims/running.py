"""Carries out a study: tunes, then runs what is compared, each as the cells of an ordinary comparison.

What is stored is not run again, so a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.claims.design import Arm, Claim, Profile
from rulezoo.claims.evidence import Evidence, gather
from rulezoo.comparison.execution import execute
from rulezoo.comparison.inspection import Inspector
from rulezoo.comparison.plan import plan
from rulezoo.errors import UserError
from rulezoo.results.store import Store

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Executor, Listener
    from rulezoo.comparison.plan import Cell
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Device

Progress = Callable[[], AbstractContextManager["Listener"]]


def store_of(root: Path, claim: Claim, profile: Profile) -> Store:
    """Where the runs of a claim's profile are stored: ``<root>/<claim>/<profile>``."""
    return Store(root / claim.name / profile)


def stored(root: Path, claim: Claim, profile: Profile, device: Device | None = None) -> Evidence:
    """What is there of a claim's profile."""
    return gather(claim.studies[profile], store_of(root, claim, profile).read().records, device)


def run(
    claim: Claim,
    profile: Profile,
    registry: Registry,
    root: Path,
    executor: Executor,
    progress: Progress,
    *,
    device: Device,
    data: Path | None = None,
    download: bool = False,
    threads: int | None = None,
    report: Callable[[], None] = lambda: None,
    reading: Callable[[str], None] = lambda sentence: None,
) -> Evidence:
    """Run what is missing of a claim's profile, and return all there is.

    Args:
        claim: the claim.
        profile: which of its studies.
        registry: the rules and tasks there are.
        root: folder of the claims' stores.
        executor: who does it.
        progress: makes a listener, for the tuning and for what follows.
        device: class of the device.
        data: folder of data sets.
        download: whether data sets may be downloaded into it.
        threads: torch's threads in each process.
        report: called when an examination of tasks begins.
        reading: called with a sentence when data take long, e.g. to be packed.

    Raises:
        UserError: before the first training, if a rule, a task or an option of the study does not exist; later, if a
            tuning has no result.
        StoreError: if the store cannot be written.
        DataMissing: if a task's data are not there.
    """
    study, store = claim.studies[profile], store_of(root, claim, profile)
    candidates = [arm for tuning in study.tunings for arm in tuning.candidates]
    provisional = {tuning.name: tuning.values[0] for tuning in study.tunings}
    _checked(claim, lambda: cells([*candidates, *study.resolved(provisional)], registry, device))

    inspector = Inspector(data, download=download, report=report, progress=reading)

    def go(arms: Sequence[Arm]) -> Evidence:
        for probes, group in _by_probes(arms).items():
            todo = cells(group, registry, device)
            with progress() as listener:
                execute(
                    todo,
                    store,
                    executor,
                    listener,
                    data=data,
                    download=download,
                    threads=threads,
                    probes=probes,
                    together=None if study.together or device != "cpu" else 1,
                    inspector=inspector,
                )
        return stored(root, claim, profile, device)

    chosen: Mapping[str, str] = {}
    if candidates:
        chosen = go(candidates).chosen
        if lost := [tuning.name for tuning in study.tunings if tuning.name not in chosen]:
            raise UserError(
                f"claim {claim.name}: the tuning of {', '.join(lost)} is not complete; run the same command again"
            )
    return go(study.resolved(chosen))


def cells(arms: Iterable[Arm], registry: Registry, device: Device) -> list[Cell]:
    """The arms as cells, each question once."""
    made: list[Cell] = []
    known: set[str] = set()
    for arm in arms:
        options = {arm.rule: arm.options, arm.task: arm.task_options}
        (cell,) = plan(registry, [arm.rule], [arm.task], arm.seeds, device, options, arm.epochs)
        asked = tuple(one for one in cell.asked if one.key not in known)
        known |= {one.key for one in asked}
        made += [replace(cell, asked=asked)] if asked else []
    return made


def _by_probes(arms: Sequence[Arm]) -> dict[int, list[Arm]]:
    grouped: dict[int, list[Arm]] = {}
    for arm in arms:
        grouped.setdefault(arm.probes, []).append(arm)
    return grouped


def _checked(claim: Claim, make: Callable[[], object]) -> None:
    try:
        make()
    except UserError as error:
        raise UserError(f"claim {claim.name} cannot be run with this rulezoo: {error}") from error
