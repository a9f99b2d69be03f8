"""The claims of the installed plugins. One that cannot be loaded is named with its reason, and hides no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.claims.design import Claim, ClaimError
from rulezoo.claims.report import Finding
from rulezoo.claims.running import outdated, stored
from rulezoo.discovery.kinds import CLAIM
from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry


class BrokenClaim(NamedTuple):
    """A claim that cannot be loaded.

    Attributes:
        name: its name.
        reason: why, in a sentence that names it and the distribution it comes from.
    """

    name: str
    reason: str


def load(registry: Registry, name: str) -> Claim:
    """The claim of that name.

    Raises:
        UnknownName: if there is none; the message gives the near names.
        AmbiguousName: if several plugins offer one of that name.
        PluginError: if it cannot be loaded.
        ClaimError: if it goes by another name than its spec says, under which its runs are stored.
    """
    claim: Claim = registry.claim(name)
    known = registry.find(CLAIM, name).spec.name
    if claim.name != known:
        origin = registry.claims[known].origin
        raise ClaimError(
            f"claim {known!r} of {origin}: the spec and the Claim must have the same name, but the Claim's is "
            f"{claim.name!r}"
        )
    return claim


def installed(registry: Registry) -> tuple[list[Claim], list[BrokenClaim]]:
    """Every claim of the registry, and those that cannot be loaded."""
    claims, broken = [], []
    for name in registry.claims:
        try:
            claims.append(load(registry, name))
        except UserError as error:
            broken.append(BrokenClaim(name, str(error)))
    return claims, broken


def findings(
    registry: Registry, root: Path, *, aged: bool = False
) -> tuple[list[Finding], list[BrokenClaim]]:
    """Every profile of every claim with what is stored of it, and the claims that cannot be loaded.

    Args:
        registry: the available claims, rules and tasks.
        root: where results are stored.
        aged: count the runs of older code, too; this imports the rules and tasks, and with them torch.
    """
    claims, broken = installed(registry)
    return [one for claim in claims for one in of(claim, registry, root, aged=aged)], broken


def of(claim: Claim, registry: Registry, root: Path, *, aged: bool = False) -> list[Finding]:
    """Every profile of a claim with what is stored of it; ``aged`` as in `findings`."""
    evidence = {profile: stored(root, claim, profile) for profile in claim.profiles}
    return [
        Finding(claim, profile, found, outdated(found, registry) if aged and found.done else 0)
        for profile, found in evidence.items()
    ]
