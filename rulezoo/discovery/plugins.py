"""Load plugins and ask them what they offer.

Plugins are foreign code. Each is loaded and asked on its own; whatever it raises is kept as the reason why it
is not there, and nothing that it does stops another. The distribution of the built-in rules is one of them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import Distribution, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

import pluggy

from rulezoo.discovery import hookspecs
from rulezoo.discovery.kinds import KINDS, Kind
from rulezoo.errors import PluginError, UserError, did_you_mean
from rulezoo.specs import Spec
from rulezoo.text import SENTENCE, bounded

#: Environment variable with plugin files, joined like those of ``PATH``; child processes see them, too.
FILES = "RULEZOO_PLUGINS"
FILE_MODULE = "rulezoo_file_"  #: how the name of the module of a plugin that is a file begins

S = TypeVar("S", bound=Spec)

_folders: set[str] = set()  # of plugin files, at the end of sys.path


@dataclass(frozen=True)
class Source:
    """One plugin before it is loaded.

    Attributes:
        name: the entry point's name, or the file's.
        distribution: what it was installed with, or the file's name.
        version: of the distribution, or the hash of the file's text.
        load: imports it.
        module: the module's name.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], object]
    module: str = ""


@dataclass(frozen=True)
class Answer:
    """What one plugin offers, name of a kind → specs, or else why not: the reason in a line, and the traceback."""

    source: Source
    offers: Mapping[str, tuple[Spec, ...]] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""


def installed() -> list[Source]:
    """The plugins of installed distributions, in an order that does not depend on the disk."""
    sources = [Source(e.name, *_about(e.dist), e.load, e.module) for e in entry_points(group=hookspecs.GROUP)]
    return sorted(sources, key=lambda source: (source.distribution, source.name))


def single_files(files: Iterable[Path]) -> list[Source]:
    """The plugins that are one file: those of ``$RULEZOO_PLUGINS``, then the given ones, each once."""
    named = [Path(text) for text in os.environ.get(FILES, "").split(os.pathsep) if text]
    return [_file(path) for path in dict.fromkeys(path.expanduser().resolve() for path in (*named, *files))]


def ask(source: Source) -> Answer:
    """Load a plugin and call its hooks; this never raises, but for an interrupt from the keyboard."""
    try:
        return Answer(source, _offers(source.load()))
    except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code may raise anything; it is reported
        return Answer(source, reason=reason(error), traceback="".join(traceback.format_exception(error)))


@contextmanager
def foreign(failure: str, hint: str = "") -> Iterator[None]:
    """The border to a plugin's code elsewhere: what it raises becomes a `PluginError` saying what failed.

    Args:
        failure: what failed, for the message.
        hint: what to do where a module cannot be imported.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        advice = f"; {hint}" if hint and isinstance(error, ImportError) else ""
        raise PluginError(f"{failure}: {reason(error)}{advice}") from error


def reason(error: BaseException) -> str:
    """An exception in words: its message if it is ours, its type too if it is not."""
    # A TracebackException holds the text even where the error's own __str__ raises.
    text = bounded(str(traceback.TracebackException.from_exception(error)), SENTENCE)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def is_loaded(source: Source) -> bool:
    """Whether this process has imported the module of a plugin."""
    return source.module in sys.modules


def _about(dist: Distribution | None) -> tuple[str, str]:
    try:
        assert dist is not None
        # Where metadata are damaged, some versions of Python return None and others raise.
        return dist.name or "unknown", dist.version or ""
    except Exception:  # noqa: BLE001  damaged metadata must not hide the other plugins
        return "unknown", ""


def _file(path: Path) -> Source:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:
        digest = "?"  # loading it fails for the same reason, and says so
    load = partial(_load_file, path, digest)
    return Source(path.name, path.name, f"sha256:{digest}", load, _module_of(path, digest))


def _module_of(path: Path, digest: str) -> str:
    return f"{FILE_MODULE}{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{digest}"


def _load_file(path: Path, digest: str) -> ModuleType:
    """Import a file under a name made of its own and its text.

    A changed file is thus another module, and every process that reads the same file gives it the same name,
    so that ``f"{__name__}:MyRule"`` and pickles resolve.
    """
    name = _module_of(path, digest)
    if name in sys.modules:
        return sys.modules[name]
    loader = _FreshLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # a loader was given
    module = importlib.util.module_from_spec(spec)
    _import_from(path)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_from(path: Path) -> None:
    """Let a plugin file import the modules in its folder, which come after Python's own and the installed ones.

    Raises:
        PluginError: if it imports one whose name a module in another plugin file's folder has.
    """
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
    others = _folders - {folder}
    _folders.add(folder)
    for name in _imported(path) if others else ():
        if any(Path(folder, file).is_file() for file in (f"{name}.py", f"{name}/__init__.py")):
            origin = _origin(name)
            if origin and {str(origin.parent), str(origin.parent.parent)} & others:
                raise PluginError(
                    f"it imports {name!r}, and Python finds that of another plugin file first: {origin}; "
                    "rename one of them"
                )


def _imported(path: Path) -> set[str]:
    """Top-level names that a file imports, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # loading it fails for the same reason, and says so
        return set()
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    ]
    return {name.partition(".")[0] for name in names}


def _origin(name: str) -> Path | None:
    """The file of a top-level module, whether it is imported or would be."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Without byte code on the disk: that is matched by whole seconds, which a quick edit can beat."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _offers(plugin: object) -> dict[str, tuple[Spec, ...]]:
    """What a plugin offers, by a manager of its own: none that failed has to be undone in a shared one."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    known = [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name) is not None]
    manager.register(plugin)
    _check_hooks(plugin, manager.get_hookcallers(plugin) or [], known)
    return {kind.name: _specs(getattr(manager.hook, kind.hook), kind) for kind in KINDS}


def _check_hooks(plugin: object, callers: Sequence[pluggy.HookCaller], known: Sequence[str]) -> None:
    for caller in callers:
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            hint = did_you_mean(caller.name, known) or f"there are {' and '.join(known)}"
            raise PluginError(f"unknown hook {caller.name!r}; {hint}")
    decorated = {caller.name for caller in callers}
    for name in known:
        if name not in decorated and callable(getattr(plugin, name, None)):
            raise PluginError(f"{name} is not decorated with @rulezoo.hookimpl")
    if not callers:
        raise PluginError(f"it has no hook; write {' or '.join(known)}, decorated with @rulezoo.hookimpl")


def _specs(hook: pluggy.HookCaller, kind: Kind[S]) -> tuple[S, ...]:
    expected = f"expected a list of rulezoo.{kind.spec.__name__}"
    answers = hook()
    if hook.get_hookimpls() and not answers:  # pluggy drops None
        raise PluginError(f"{hook.name}() returned None; {expected}")
    specs: list[S] = []
    for answer in answers:
        if not isinstance(answer, Iterable):
            raise PluginError(f"{hook.name}() returned a {type(answer).__name__}; {expected}")
        for item in answer:
            if not isinstance(item, kind.spec):
                raise PluginError(f"{hook.name}() returned a list with a {type(item).__name__}; {expected}")
            specs.append(item)
    return tuple(specs)
