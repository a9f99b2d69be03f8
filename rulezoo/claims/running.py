"""Carries out a study: tunes, then runs what is compared, each as the cells of an ordinary comparison.

What is stored is not run again, so a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rulezoo.claims.design import Arm, Claim, Profile
from rulezoo.claims.evidence import Evidence, gather
from rulezoo.comparison.plan import plan
from rulezoo.errors import UserError
from rulezoo.results.store import Store
from rulezoo.tuning.study import distinct

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.comparison.request import Request
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Device
    from rulezoo.tuning.study import Run


def store_of(root: Path, claim: Claim, profile: Profile) -> Store:
    """Where the runs of a claim's profile are stored: ``<root>/<claim>/<profile>``."""
    return Store(root / claim.name / profile)


def stored(root: Path, claim: Claim, profile: Profile, device: Device | None = None) -> Evidence:
    """What is there of a claim's profile."""
    return gather(claim.studies[profile], store_of(root, claim, profile).read().records, device)


def run(
    claim: Claim,
    profile: Profile,
    request: Request,
    registry: Registry,
    store: Store,
    run_cells: Run,
) -> Evidence:
    """Run what is missing of a claim's profile, and return all there is.

    Args:
        claim: the claim.
        profile: which of its studies.
        request: the device, threads and data of all runs; the study says the rest.
        registry: the available rules and tasks.
        store: of the profile; see `store_of`.
        run_cells: carries out cells; see `rulezoo.tuning.comparing.runner`.

    Raises:
        UserError: before the first run, if a rule, a task or an option of the study does not exist; later, if a
            tuning has no result.
        StoreError: if the store cannot be written.
        DataMissing: if a task's data are missing.
    """
    study = claim.studies[profile]
    candidates = [arm for tuning in study.tunings for arm in tuning.candidates]
    provisional = {tuning.name: tuning.values[0] for tuning in study.tunings}
    _checked(claim, lambda: cells([*candidates, *study.resolved(provisional)], registry, request))
    together = None if study.together or request.device != "cpu" else 1
    request = replace(request, together=together)

    def go(arms: Sequence[Arm]) -> Evidence:
        run_cells(cells(arms, registry, request), store)
        return gather(study, store.read().records, cast("Device", request.device))

    chosen: Mapping[str, str] = {}
    if candidates:
        chosen = go(candidates).chosen
        if lost := [tuning.name for tuning in study.tunings if tuning.name not in chosen]:
            raise UserError(
                f"claim {claim.name}: the tuning of {', '.join(lost)} is not complete; run the same command again"
            )
    return go(study.resolved(chosen))


def cells(arms: Iterable[Arm], registry: Registry, request: Request) -> list[Cell]:
    """The arms as cells, each run once, with the most probes that an arm asks for first.

    Args:
        arms: the arms.
        registry: the available rules and tasks.
        request: what holds for all of them: device, threads, data.
    """
    made = []
    for arm in sorted(arms, key=lambda arm: -arm.probes):
        asked = replace(request, seeds=tuple(arm.seeds), epochs=arm.epochs, probes=arm.probes)
        made += plan(registry, asked.of_cell(arm.rule, arm.options, arm.task, arm.task_options))
    return distinct(made)


def _checked(claim: Claim, make: Callable[[], object]) -> None:
    try:
        make()
    except UserError as error:
        raise UserError(f"claim {claim.name} cannot be run with this rulezoo: {error}") from error
