"""Carries out a study: tunes, then runs what is compared, each as the cells of an ordinary comparison.

What is stored is not run again, so a study that was interrupted resumes where it stopped. Nor is what another claim
with the same profile has run (`rulezoo.claims.sharing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from rulezoo.claims.design import Arm, Claim, Evaluate, Profile
from rulezoo.claims.evidence import Evidence, gather
from rulezoo.claims.sharing import Shared, others, shared
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.errors import UserError
from rulezoo.evaluations.request import requested
from rulezoo.results.freshness import stale
from rulezoo.results.store import Store
from rulezoo.tuning.study import distinct

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.request import Requested
    from rulezoo.results.records import Device, Record
    from rulezoo.tuning.study import Run

    EvaluateNetworks = Callable[[Store, Sequence[Record], Requested], object]


@dataclass(frozen=True)
class Runners:
    """What carries out a study.

    Attributes:
        cells: carries out cells; see `rulezoo.tuning.comparing.runner`.
        evaluate: measures an evaluation on the networks of runs; a study with evaluations needs it.
        copied: receives the runs that were copied from other claims.
    """

    cells: Run
    evaluate: EvaluateNetworks | None = None
    copied: Callable[[Sequence[Shared]], object] = lambda runs: None


def store_of(root: Path, claim: Claim, profile: Profile) -> Store:
    """Where the runs of a claim's profile are stored: ``<root>/<claim>/<profile>``."""
    return Store(root / claim.name / profile)


def stored(root: Path, claim: Claim, profile: Profile, device: Device | None = None) -> Evidence:
    """What is stored of a claim's profile."""
    store = store_of(root, claim, profile)
    return gather(claim.studies[profile], store.read().records, device, store)


def run(
    claim: Claim,
    profile: Profile,
    request: Request,
    registry: Registry,
    store: Store,
    runners: Runners,
) -> Evidence:
    """Run what is missing of a claim's profile, and return all there is.

    Args:
        claim: the claim.
        profile: which of its studies.
        request: the device, threads and data of all runs; the study says the rest.
        registry: the available rules and tasks.
        store: of the profile; see `store_of`.
        runners: carry out the study.

    Raises:
        UserError: before the first run, if a rule, a task or an option of the study does not exist; later, if a
            tuning has no result.
        StoreError: if the store cannot be written.
        DataMissing: if a task's data are missing.
    """
    study = claim.studies[profile]
    candidates = [arm for tuning in study.tunings for arm in tuning.candidates]
    planned(claim, profile, registry, request, {})
    _checked(claim, lambda: [evaluation(one, registry) for one in study.evaluations])
    together = None if study.together or request.device != "cpu" else 1
    request = replace(request, together=together)

    def go(arms: Sequence[Arm]) -> Evidence:
        keep = bool(study.evaluations) and not any(arm in candidates for arm in arms)
        asked = cells(arms, registry, replace(request, keep_weights=keep))
        _take_over(asked, store, runners)
        runners.cells(asked, store)
        return gather(study, store.read().records, cast("Device", request.device), store)

    chosen: Mapping[str, str] = {}
    if candidates:
        chosen = go(candidates).chosen
        if lost := [tuning.name for tuning in study.tunings if tuning.name not in chosen]:
            raise UserError(
                f"claim {claim.name}: the tuning of {', '.join(lost)} is not complete; run the same command again"
            )
    evidence = go(study.resolved(chosen))
    if not study.evaluations or runners.evaluate is None:
        return evidence
    for one in study.evaluations:
        of = [record for arm, runs in evidence.runs.items() if one.of(arm) for record in runs.values()]
        if networks := [record for record in of if record.status == "ok"]:
            runners.evaluate(store, networks, evaluation(one, registry))
    return gather(study, store.read().records, cast("Device", request.device), store)


def _take_over(asked: Sequence[Cell], store: Store, runners: Runners) -> None:
    """Copy what other claims have run already."""
    found = list(shared(asked, store, others(store)))
    for one in found:
        one.copy(store)
    if found:
        runners.copied(found)


def planned(
    claim: Claim, profile: Profile, registry: Registry, request: Request, chosen: Mapping[str, str]
) -> list[Cell]:
    """Every run of a study, tuning included.

    Args:
        claim: the claim.
        profile: which of its studies.
        registry: the available rules and tasks.
        request: what holds for all runs.
        chosen: name of a tuning → the value that won; the first of its grid where none has yet.

    Raises:
        UserError: if a rule, a task or an option of the study does not exist.
    """
    study = claim.studies[profile]
    candidates = [arm for tuning in study.tunings for arm in tuning.candidates]
    provisional = study.resolved({tuning.name: tuning.values[0] for tuning in study.tunings} | dict(chosen))
    found: list[Cell] = []
    _checked(claim, lambda: found.extend(cells([*candidates, *provisional], registry, request)))
    return found


def outdated(evidence: Evidence, registry: Registry) -> int:
    """How many judged runs are not what the study would have now.

    The code of their rule or task has changed since, or today's rule, task or protocol asks another question: it has
    another version, or other options. What cannot be known does not count, such as a rule that is not installed.
    """
    runs = {record.asked.key: record for record in evidence.records}
    devices = {record.asked.device for record in runs.values()}
    try:
        asked = [one for cell in cells(evidence.runs, registry, Request(device="cpu")) for one in cell.asked]
    except UserError:
        return 0
    today = {msgspec.structs.replace(one, device=device).key for one in asked for device in devices}
    return sum(key not in today or stale(record, registry) is not None for key, record in runs.items())


def evaluation(one: Evaluate, registry: Registry) -> Requested:
    """An evaluation of a study, made.

    Raises:
        UserError: if there is no such evaluation or option.
    """
    (made,) = requested(registry, [one.evaluation], {one.evaluation: one.options})
    return made


def cells(arms: Iterable[Arm], registry: Registry, request: Request) -> list[Cell]:
    """The arms as cells, each run once, with the most probes that an arm asks for first.

    Args:
        arms: the arms.
        registry: the available rules and tasks.
        request: what holds for all of them: device, threads, data.
    """
    made = []
    for arm in sorted(arms, key=lambda arm: -arm.probes):
        asked = replace(
            request, seeds=tuple(arm.seeds), epochs=arm.epochs, probes=arm.probes, budget=dict(arm.budget)
        )
        made += plan(registry, asked.of_cell(arm.rule, arm.options, arm.task, arm.task_options))
    return distinct(made)


def _checked(claim: Claim, make: Callable[[], object]) -> None:
    try:
        make()
    except UserError as error:
        raise UserError(f"claim {claim.name} cannot be run with this rulezoo: {error}") from error
