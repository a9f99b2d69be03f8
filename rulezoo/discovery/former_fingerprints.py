"""Fingerprints in stored records that are not of today's definition, and what they are today.

By the first definition a fingerprint depended on the names of the imported modules, so that moving a module changed it.
Such a fingerprint is compared with that of the installed code by the same definition. Of rulezoo's own plugins, whose
modules have been moved since, a table holds every fingerprint by the first definition, with that by today's of the same
code. So a record is out of date if the code has changed since, and for no other reason. Records stay as they are.

The table is extended before modules of rulezoo's plugins are moved or the definition changes, by::

    python -m rulezoo.discovery.former_fingerprints
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rulezoo.discovery.fingerprint import PREFIX, fingerprint
from rulezoo.discovery.sources import reached, shape

TABLE = Path(__file__).with_name("former_fingerprints.json")


def as_today(code: str, module: str | None = None) -> str:
    """A stored fingerprint as today's definition gives it for the same code; as it is stored where that is not known.

    Args:
        code: the stored fingerprint.
        module: the module that it may be of, as it is installed; ``None`` = it is not installed or not known.
    """
    if code.startswith(PREFIX):
        return code
    if known := _table().get(code):
        return known
    try:
        return fingerprint(module) if module is not None and first(module) == code else code
    except (LookupError, SyntaxError):
        return code


@functools.cache
def first(module: str) -> str:
    """The fingerprint of a module by the first definition, 16 hexadecimal digits.

    Raises:
        LookupError: if its source cannot be had.
        SyntaxError: if it is no Python.
    """
    shapes = {name: shape(source.tree) for name, source in reached(module).items()}
    # The name of a plugin that is a file holds a hash of its text, comments included.
    ordered = [shapes[module], *(text for name, text in sorted(shapes.items()) if name != module)]
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:16]


@functools.cache
def _table() -> Mapping[str, str]:
    found: dict[str, str] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def extended(table: Mapping[str, str], modules: Iterable[str]) -> dict[str, str]:
    """A table with the fingerprints of these modules, as they are installed, added; in order."""
    return dict(sorted({**table, **{first(module): fingerprint(module) for module in modules}}.items()))


def main() -> None:
    """Extend the table with the plugins that are installed with rulezoo."""
    from rulezoo.discovery.kinds import KINDS
    from rulezoo.discovery.registry import discover

    zoo = discover()
    found = [one for kind in KINDS for one in zoo.all(kind).values()]
    modules = {one.spec.module for one in found if one.distribution == "rulezoo"}
    TABLE.write_text(json.dumps(extended(_table(), modules), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
