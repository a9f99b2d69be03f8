"""The source of a module, and of the modules of plugins that it imports; nothing is imported to find out.

Of interest are the modules of packages of plugins, and those in the folder of a plugin that is a file. Imports that are
worked out while running are not seen.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from rulezoo.discovery import hookspecs
from rulezoo.discovery.plugins import FILE_MODULE

Import: TypeAlias = ast.Import | ast.ImportFrom


@dataclass(frozen=True)
class Alias:
    """One name that an import binds.

    Attributes:
        local: the name by which the code knows it; ``*`` for all names.
        module: the module of a plugin that it is, or that it is taken from; ``None`` = of no plugin.
        name: what is taken from the module; ``None`` = the module itself.
    """

    local: str
    module: str | None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """The source of a module.

    Attributes:
        module: its name.
        tree: what it says.
        package: the package that its relative imports start from.
        folder: of the plugin that is a file, if it is part of one.
    """

    module: str
    tree: ast.Module
    package: str
    folder: Path | None

    def aliases(self, node: Import) -> Iterator[Alias]:
        """What an import of this module binds; ``from a import b`` is the module ``a.b`` where there is one."""
        if isinstance(node, ast.Import):
            for one in node.names:
                yield Alias(one.asname or one.name, one.name if _counts(one.name, self.folder) else None)
            return
        above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        counts = _counts(origin, self.folder)
        for one in node.names:
            inner = f"{origin}.{one.name}"
            if not counts:
                yield Alias(one.asname or one.name, None)
            elif _path(inner):
                yield Alias(one.asname or one.name, inner)
            else:
                yield Alias(one.asname or one.name, origin, one.name)

    def imported(self) -> Iterator[str]:
        """The modules of plugins that it imports."""
        for node in ast.walk(self.tree):
            if isinstance(node, Import):
                yield from (alias.module for alias in self.aliases(node) if alias.module)


@functools.cache
def reached(module: str) -> Mapping[str, Source]:
    """A module and every module of a plugin that it imports, directly or not, by name.

    Raises:
        LookupError: if the source of one cannot be had.
        SyntaxError: if it is no Python.
    """
    path = _path(module) if module.startswith(FILE_MODULE) else None
    folder = path and path.parent
    found: dict[str, Source] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _read(name, folder)
            waiting += found[name].imported()
    return found


def forget() -> None:
    """Read every source again, for files that have changed."""
    for cached in (reached, _read, _path):
        cached.cache_clear()


def shape(node: object, imports: Callable[[Sequence[Import]], str] | None = None) -> str:
    """A tree as text, without docstrings, and without what is empty: a newer Python adds fields to it.

    Args:
        node: the tree.
        imports: imports that follow one another → the text that stands for them; ``None`` = as they are written.
    """
    if isinstance(node, ast.AST):
        parts = [
            f"{name}={shape(value, imports)}"
            for name, value in ast.iter_fields(node)
            if isinstance(node, ast.Constant) or (value is not None and value != [])
        ]
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(_shapes(node, imports))}]"
    return repr(node)


def _shapes(nodes: list[object], imports: Callable[[Sequence[Import]], str] | None) -> Iterator[str]:
    run: list[Import] = []
    for node in nodes:
        if imports is not None and isinstance(node, Import):
            run.append(node)
            continue
        if _is_docstring(node):
            continue
        if imports is not None and run:
            yield imports(run)
            run = []
        yield shape(node, imports)
    if imports is not None and run:
        yield imports(run)


def _is_docstring(node: object) -> bool:
    """Or another string that stands alone, which does nothing either."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def _packages() -> frozenset[str]:
    """The packages that plugins are in."""
    return frozenset(point.module.split(".")[0] for point in entry_points(group=hookspecs.GROUP))


def _counts(module: str, folder: Path | None) -> bool:
    """Whether it is of a package of plugins, or lies in the folder of the plugin that is a file."""
    top = module.split(".")[0]
    if top in _packages():
        return True
    path = _path(top) if top and folder else None
    return path is not None and folder in (path.parent, path.parent.parent)


@functools.cache
def _read(module: str, folder: Path | None) -> Source:
    path = _path(module)
    if path is None:
        raise LookupError(f"the source of {module} is not there")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return Source(module, ast.parse(path.read_bytes()), package, folder)


@functools.cache
def _path(module: str) -> Path | None:
    """The file of a module."""
    if loaded := getattr(sys.modules.get(module), "__file__", None):
        return Path(loaded)
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not inner:
        return Path(spec.origin) if spec and spec.origin else None
    bases = [Path(folder, *inner) for folder in spec.submodule_search_locations or ()]
    files = [path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py")]
    return next((path for path in files if path.is_file()), None)
