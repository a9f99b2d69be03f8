"""What is in the zoo: the rules and tasks of every installed plugin and of single files, by name.

Nothing here imports torch; the classes of plugins are imported by `Registry.make_rule` and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rulezoo.discovery import plugins
from rulezoo.discovery.plugins import Answer, Source, foreign
from rulezoo.errors import AmbiguousName, PluginError, UnknownName, unknown
from rulezoo.options import configure
from rulezoo.specs import RuleSpec, TaskSpec
from rulezoo.text import brief

if TYPE_CHECKING:
    from rulezoo.rule import LearningRule
    from rulezoo.task import Task

S = TypeVar("S", RuleSpec, TaskSpec)
C = TypeVar("C")


@dataclass(frozen=True)
class Found(Generic[S]):
    """A spec, and the distribution and version that it came with; of a file, its name and its text's hash."""

    spec: S
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """Who ships it, e.g. ``rulezoo 0.1.0``."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class PluginInfo:
    """One plugin and how it fared.

    Attributes:
        name: the entry point's name, or the file's.
        distribution: what it was installed with, or the file's name.
        version: of the distribution, or the hash of the file's text.
        ok: whether everything it offers can be used.
        rules: the number of rules that it offers.
        tasks: the number of tasks that it offers.
        reason: why it is not ok, in a sentence.
        traceback: what its code raised, if it did.
    """

    name: str
    distribution: str
    version: str
    ok: bool
    rules: int
    tasks: int
    reason: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Registry:
    """The rules and tasks there are, by name, and the plugins they come from.

    Attributes:
        rules: name → rule, without the names that several plugins claim.
        tasks: name → task, likewise.
        plugins: every plugin, those that failed included.
        clashes: ``("rule", name)`` or ``("task", name)`` → who claims it.
    """

    rules: Mapping[str, Found[RuleSpec]]
    tasks: Mapping[str, Found[TaskSpec]]
    plugins: tuple[PluginInfo, ...]
    clashes: Mapping[tuple[str, str], tuple[Found[Any], ...]]

    def rule(self, name: str) -> Found[RuleSpec]:
        """The rule of that name.

        Raises:
            UnknownName: if there is none; the message gives the near names.
            AmbiguousName: if several plugins claim the name.
        """
        return self._pick("rule", self.current(name), self.rules)

    def current(self, name: str) -> str:
        """The name of the rule that was once called ``name``; ``name`` itself if no rule was."""
        if name in self.rules or name in self.tasks:
            return name
        renamed = (new for new, found in self.rules.items() if name in found.spec.former_names)
        return next(renamed, name)

    def task(self, name: str) -> Found[TaskSpec]:
        """The task of that name; raises like `rule`."""
        return self._pick("task", name, self.tasks)

    def specs(self) -> dict[str, RuleSpec]:
        """Name of a rule → its spec."""
        return {name: found.spec for name, found in self.rules.items()}

    def _pick(self, kind: str, name: str, known: Mapping[str, Found[S]]) -> Found[S]:
        if name in known:
            return known[name]
        if rivals := self.clashes.get((kind, name)):
            raise AmbiguousName(f"{_claim(kind, name, rivals)}; uninstall or rename one of them")
        raise self.unknown(kind, name, known, f"rulezoo list {kind}s")

    def unknown(self, kind: str, name: str, known: Iterable[str], listing: str) -> UnknownName:
        """The error of `rulezoo.errors.unknown`, with the plugins that failed to load: one may offer what was asked for."""
        reasons = [
            f"plugin {p.name!r} failed to load: {brief(p.reason)}" for p in self.plugins if p.traceback
        ]
        return UnknownName("; ".join([str(unknown(kind, name, known, listing)), *reasons]))

    def rule_class(self, name: str) -> type[LearningRule]:
        """The class of a rule, imported.

        Raises:
            UnknownName: if there is no such rule.
            PluginError: if its module cannot be imported or holds no subclass of `rulezoo.LearningRule`.
        """
        from rulezoo.rule import LearningRule

        return _load(f"rule {name!r}", self.rule(name), LearningRule)

    def task_class(self, name: str) -> type[Task]:
        """The class of a task, imported; raises like `rule_class`."""
        from rulezoo.task import Task

        return _load(f"task {name!r}", self.task(name), Task)

    def make_rule(self, name: str, texts: Mapping[str, str]) -> LearningRule:
        """A configured rule.

        Args:
            name: the rule's name.
            texts: options as the command line gives them, ``{"sigma": "0.02"}``; the rest keep their defaults.

        Raises:
            UnknownName: if there is no such rule.
            PluginError: if its code fails.
            OptionError: if an option does not exist or its value is not legal.
        """
        cls = self.rule_class(name)
        with foreign(f"rule {name!r} of {self.rule(name).origin} cannot be made"):
            return configure(cls, name, texts)

    def make_task(self, name: str, texts: Mapping[str, str]) -> Task:
        """A configured task; like `make_rule`."""
        cls = self.task_class(name)
        with foreign(f"task {name!r} of {self.task(name).origin} cannot be made"):
            return configure(cls, name, texts)


def _load(what: str, found: Found[S], base: type[C]) -> type[C]:
    with foreign(f"{what} of {found.origin} cannot be loaded"):
        cls = found.spec.load()
    if not issubclass(cls, base):
        expected = f"must be a subclass of rulezoo.{base.__name__}"
        raise PluginError(f"{what} of {found.origin}: {found.spec.target} {expected}")
    return cls


def discover(files: Sequence[Path] = (), before: Callable[[Source], None] = lambda source: None) -> Registry:
    """Find and ask every plugin.

    Args:
        files: single-file plugins, in addition to those of ``$RULEZOO_PLUGINS``.
        before: called with each plugin before it is imported.

    Returns:
        the registry; a plugin that fails is in `Registry.plugins` with its reason and nowhere else.
    """
    sources = (*plugins.installed(), *plugins.single_files(files))
    answers = []
    for source in sources:
        before(source)
        answers.append(plugins.ask(source))
    return _assemble(answers)


def _assemble(answers: Sequence[Answer]) -> Registry:
    claims: dict[tuple[str, str], list[Found[Any]]] = {}
    for answer in answers:
        for key, found in _claims(answer):
            claims.setdefault(key, []).append(found)
    single = {key: rivals[0] for key, rivals in claims.items() if len(rivals) == 1}
    clashes = {key: tuple(rivals) for key, rivals in claims.items() if len(rivals) > 1}
    return Registry(
        rules={name: found for (kind, name), found in single.items() if kind == "rule"},
        tasks={name: found for (kind, name), found in single.items() if kind == "task"},
        plugins=tuple(_info(answer, clashes) for answer in answers),
        clashes=clashes,
    )


def _claims(answer: Answer) -> Iterator[tuple[tuple[str, str], Found[Any]]]:
    for kind, specs in (("rule", answer.rules), ("task", answer.tasks)):
        for spec in specs:
            yield (kind, spec.name), Found(spec, answer.source.distribution, answer.source.version)


def _info(answer: Answer, clashes: Mapping[tuple[str, str], tuple[Found[Any], ...]]) -> PluginInfo:
    mine = dict.fromkeys(key for key, _ in _claims(answer) if key in clashes)
    reason = answer.reason or "; ".join(_claim(*key, clashes[key]) for key in mine)
    source = answer.source
    counts = len(answer.rules), len(answer.tasks)
    return PluginInfo(
        source.name, source.distribution, source.version, not reason, *counts, reason, answer.traceback
    )


def _claim(kind: str, name: str, rivals: Sequence[Found[Any]]) -> str:
    origins = [found.origin for found in rivals]
    return f"{kind} {name!r} is claimed {len(rivals)} times, by {' and '.join(dict.fromkeys(origins))}"
