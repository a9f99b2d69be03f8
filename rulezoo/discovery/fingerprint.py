"""The fingerprint of a plugin's code: when it changes, stored results may no longer be what the plugin gives.

It covers the module that holds the class, and every module of a package of plugins, or of the folder of a plugin that
is a file, that it imports, and those that these import. It does not cover comments, blanks and docstrings; packages that
are not rulezoo's or a plugin's, for which the record holds versions; and rulezoo's own core, for which the number of the
protocol stands.

Where a module lies and what it is called makes no difference. In place of the name of an imported module stands what that
module says, with what it imports in turn, so that a module can be moved with its imports adapted. Names that are imported
are part of the code, and so is the name by which the code knows a module that it imports whole. The order of imports
that follow one another makes no difference: sorting them depends on the names of modules.

Fingerprints of an earlier definition, and of a rulezoo in which modules had other names, are in stored records: see
`rulezoo.discovery.former_fingerprints`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rulezoo.discovery.sources import Alias, Import, Source, reached, shape

CORE = Path(__file__).resolve().parents[1]
PREFIX = "2:"  #: of fingerprints by this definition; those by the first had none


@functools.cache
def fingerprint(module: str) -> str:
    """`PREFIX` and 16 hexadecimal digits of the code that a module stands for; the same on every machine and Python.

    Raises:
        LookupError: if its source cannot be had.
        SyntaxError: if it is no Python.
    """
    outlines = {name: _outlined(source) for name, source in reached(module).items()}
    digests = dict.fromkeys(outlines, "")
    # Each round sees one import further. Modules may import one another, and two sets of n modules that differ, even in
    # nothing but who imports whom, are told apart after fewer than 2n rounds.
    for _ in range(2 * len(outlines)):
        digests = {name: outline.digest(digests) for name, outline in outlines.items()}
    return PREFIX + _hash(f"{len(outlines)} {digests[module]}")[:16]


@functools.cache
def core() -> str:
    """16 hexadecimal digits of every file of rulezoo's core, as it lies on the disk."""
    content = hashlib.sha256()
    for path in sorted(CORE.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


@dataclass(frozen=True)
class _Entry:
    """One name that an import binds, as text in which a module of a plugin is left open."""

    text: str
    alias: Alias

    def filled(self, digests: Mapping[str, str]) -> str:
        return self.text if self.alias.module is None else f"{digests[self.alias.module]} {self.text}"


@dataclass(frozen=True)
class _Outline:
    """What a module says: the digest of all but its imports, and these, those that follow one another together."""

    rest: str
    imports: tuple[tuple[_Entry, ...], ...]

    def digest(self, digests: Mapping[str, str]) -> str:
        """Of the module, given those of the modules that it imports."""
        return _hash("\n\n".join([self.rest, *(_together(run, digests) for run in self.imports)]))


def _together(run: Sequence[_Entry], digests: Mapping[str, str]) -> str:
    filled = [entry.filled(digests) for entry in run]
    bound = [entry.alias.local for entry in run]
    if len(set(bound)) == len(bound) and "*" not in bound:  # else the last one counts
        filled.sort()
    return "\n".join(filled)


def _outlined(source: Source) -> _Outline:
    runs: list[tuple[_Entry, ...]] = []

    def imports(nodes: Sequence[Import]) -> str:
        runs.append(tuple(entry for node in nodes for entry in _entries(source, node)))
        return "imports"

    return _Outline(_hash(shape(source.tree, imports)), tuple(runs))


def _entries(source: Source, node: Import) -> list[_Entry]:
    """What an import binds, each name by itself."""
    pairs = zip(source.aliases(node), node.names, strict=True)
    return [_Entry(_text(node, alias, one), alias) for alias, one in pairs]


def _text(node: Import, alias: Alias, one: ast.alias) -> str:
    if alias.module is None:
        origin = f"{node.level} {node.module} " if isinstance(node, ast.ImportFrom) else ""
        return origin + shape(one)
    return f"as {alias.local}" if alias.name is None else f"import {alias.name} as {alias.local}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
