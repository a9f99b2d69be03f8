"""What a rule's or a task's code says, in 16 digits: when they change, its results may no longer be what it gives.

Hashed are the module that holds the class, and every module of a package of plugins, or of the folder of a plugin that
is a file, that it imports, and those that these import. What is not: comments, blanks and docstrings; packages that are
not rulezoo's or a plugin's, for which the record holds versions; and rulezoo's own core, for which the number of the
protocol stands. Imports are read and not carried out, so that a table of results needs no torch; an import that is
worked out while running is not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from rulezoo.discovery import hookspecs
from rulezoo.discovery.plugins import FILE_MODULE

CORE = Path(__file__).resolve().parents[1]


@functools.cache
def fingerprint(module: str) -> str:
    """16 hexadecimal digits of the code that a module stands for; the same on every machine and Python.

    Raises:
        LookupError: if its source cannot be had.
    """
    file = _source(module) if module.startswith(FILE_MODULE) else None
    beside = file and file.parent
    shapes: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in shapes:
            shapes[name], found = _read(name, beside)
            waiting += found
    # The name of a plugin that is a file holds a hash of its text, comments included.
    ordered = [shapes[module], *(shape for name, shape in sorted(shapes.items()) if name != module)]
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:16]


@functools.cache
def core() -> str:
    """The same of every file of rulezoo's core, as it lies on the disk."""
    content = hashlib.sha256()
    for path in sorted(CORE.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


@functools.cache
def _packages() -> frozenset[str]:
    """The packages that plugins are in."""
    return frozenset(point.module.split(".")[0] for point in entry_points(group=hookspecs.GROUP))


def _counts(module: str, beside: Path | None) -> bool:
    """Whether it is of a package of plugins, or lies in the folder of the plugin that is a file."""
    top = module.split(".")[0]
    if top in _packages():
        return True
    source = _source(top) if top and beside else None
    return source is not None and beside in (source.parent, source.parent.parent)


@functools.cache
def _read(module: str, beside: Path | None) -> tuple[str, tuple[str, ...]]:
    """What a module says, and the modules of plugins that it imports."""
    path = _source(module)
    if path is None:
        raise LookupError(f"the source of {module} is not there")
    tree = ast.parse(path.read_bytes())
    imports = _imports(tree, module, path, beside)
    return _shape(tree), tuple(found for found in imports if _counts(found, beside))


@functools.cache
def _source(module: str) -> Path | None:
    """The file of a module; nothing is imported to find it."""
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


def _imports(tree: ast.Module, module: str, path: Path, beside: Path | None) -> Iterator[str]:
    """Names of the modules that a module imports from; ``from a import b`` is of ``a.b`` where that is a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if not _counts(source, beside):
                continue
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if _source(inner) else source


def _shape(node: object) -> str:
    """A tree in words, without what is empty: a newer Python adds fields to it."""
    if isinstance(node, ast.AST):
        parts = [
            f"{name}={_shape(value)}"
            for name, value in ast.iter_fields(node)
            if isinstance(node, ast.Constant) or (value is not None and value != [])
        ]
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(_shape(one) for one in node if not _is_docstring(one))}]"
    return repr(node)


def _is_docstring(node: object) -> bool:
    """Or another string that stands alone, which does nothing either."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
