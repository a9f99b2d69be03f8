"""What is kept of ``rulezoo verify``: one small file for a rule with its options, in the folder ``verified`` of a store.

``verified/<rule>-<key>.json`` holds a `Verification` and the digest of its content. It appears whole or not at all, and
takes the place of an older one of the same rule, version and options. Files that cannot be read are named and left out.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from rulezoo.options import Value
from rulezoo.results.reading import Unreadable
from rulezoo.results.records import Count, Plugin, RecordError, whole
from rulezoo.results.store import Damage, Store, digest, read_intact, write_whole
from rulezoo.specs import NAME

SCHEMA: Literal[1] = 1  #: raise it when a stored verification can no longer be read
FOLDER = "verified"
_FILE = re.compile(r"[a-z0-9-]+-[0-9a-f]{16}\.json")

Outcome = Literal["passed", "failed", "not examined"]
State = Literal["verified", "declared", "failed"]


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mark of plausibility, as it was declared.

    Attributes:
        declared: the mark, as in `rulezoo.Plausibility.marks`.
        state: ``verified`` = a check that concerns it passed and none failed; ``declared`` = no check concerned it.
        checks: names of the checks that concerned it.
    """

    declared: str
    state: State
    checks: list[str] = []


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What the conformance suite found of a rule.

    Attributes:
        schema: `SCHEMA`.
        rule: name of the rule.
        rule_version: version that its spec declares.
        rule_options: every option of the rule, defaults included; empty where it could not be made.
        changed: names of the options that were not the author's default.
        rule_plugin: where the rule came from.
        rule_code: `rulezoo.discovery.fingerprint` of the rule's code; ``None`` where it is not known.
        outcome: ``failed`` if a check failed; ``not examined`` if the rule skipped every network.
        passed: number of checks that passed.
        failed: number of checks that failed.
        skipped: number of checks that did not apply.
        failed_checks: names of the checks that failed.
        marks: field of `rulezoo.Plausibility` → what was declared, and whether it was verified.
        packages: name → version of what ran the checks, ``python`` included.
        commit: git commit of the rulezoo checkout, if rulezoo ran from one.
        dirty: whether that checkout had changes that are not in the commit.
        finished: UTC, ISO 8601.
        seed: of the networks that were drawn; ``None`` where it is not known.
        on: names of the tasks whose networks the rule was checked on, too.

    Raises:
        RecordError: if the name of the rule is none, or the outcome is not that of the numbers.
    """

    schema: Literal[1] = SCHEMA
    rule: str
    rule_version: int
    rule_options: dict[str, Value]
    changed: list[str] = []
    rule_plugin: Plugin
    rule_code: str | None
    outcome: Outcome
    passed: Count
    failed: Count
    skipped: Count
    failed_checks: list[str] = []
    marks: dict[str, Mark] = {}
    packages: dict[str, str]
    commit: str | None = None
    dirty: bool | None = None
    finished: str
    seed: Count | None = None
    on: list[str] = []

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.rule):  # it becomes the name of a file
            raise RecordError(
                f"rule {self.rule!r} must be lower-case words joined by hyphens, like 'my-rule'"
            )
        if (self.outcome == "failed") != (self.failed > 0) or (self.outcome == "passed" and not self.passed):
            raise RecordError(
                f"outcome of {self.rule} is {self.outcome!r}, with {self.passed} checks passed and {self.failed} failed"
            )

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the rule, its version and options."""
        options = {name: whole(value) for name, value in self.rule_options.items()}
        content = msgspec.json.encode([self.rule, self.rule_version, options], order="sorted")
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Verifications:
    """Every verification of a store, and the files that could not be read."""

    found: list[Verification]
    damaged: list[Damage]


def put(store: Store, verification: Verification) -> Path:
    """Keep a verification, in the place of an older one of the same rule, version and options; where it is.

    Raises:
        StoreError: if it cannot be written; what was stored before is whole.
    """
    body = msgspec.json.decode(msgspec.json.encode(verification))
    content = msgspec.json.encode(body | {"digest": digest(body)}, order="sorted")
    path = store.root / _place(verification)
    write_whole(store.root, path, msgspec.json.format(content, indent=1) + b"\n")
    return path


def read(store: Store) -> Verifications:
    """Every verification, in the order of the paths; what cannot be read is named. Files of other names are not ours."""
    found: list[Verification] = []
    damaged: list[Damage] = []
    paths = sorted(path for path in (store.root / FOLDER).glob("[!.]*.json") if _FILE.fullmatch(path.name))
    for path in paths:
        place = f"{FOLDER}/{path.name}"
        try:
            found.append(_decode(path.read_bytes(), place))
        except FileNotFoundError:  # another process may have deleted it
            continue
        except (OSError, Unreadable) as error:
            why = error.strerror if isinstance(error, OSError) else error
            damaged.append(
                Damage(
                    place, f"is no verification that this rulezoo reads ({why}); verify again to replace it"
                )
            )
    return Verifications(found, damaged)


def _place(verification: Verification) -> str:
    return f"{FOLDER}/{verification.rule}-{verification.key}.json"


def _decode(content: bytes, place: str) -> Verification:
    verification = read_intact(content, Verification)
    if place != (expected := _place(verification)):
        raise Unreadable(f"it belongs to {expected}")
    return verification
