"""What is in the zoo: what every installed plugin and single file offers, of each kind, by name.

Nothing here imports torch; what the specs name is imported by `Registry.load` and `Registry.make`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rulezoo.discovery import plugins
from rulezoo.discovery.kinds import CLAIM, EVALUATION, KINDS, RULE, TASK, Kind
from rulezoo.discovery.plugins import Answer, Source, foreign
from rulezoo.errors import AmbiguousName, UnknownName, unknown
from rulezoo.options import configure
from rulezoo.specs import ClaimSpec, EvaluationSpec, RuleSpec, Spec, TaskSpec, family_of
from rulezoo.text import brief

if TYPE_CHECKING:
    from rulezoo.evaluation import Evaluation
    from rulezoo.rule import LearningRule
    from rulezoo.task import Task

S = TypeVar("S", bound=Spec)
S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True)
class Found(Generic[S_co]):
    """A spec, and the distribution and version that it came with; of a file, its name and its text's hash."""

    spec: S_co
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """Who ships it, e.g. ``rulezoo 0.1.0``."""
        return f"{self.distribution} {self.version}".strip()


class _Known(Mapping[str, Found[S]]):
    """Name → what is found under it; ``family:member`` is found in the family."""

    def __init__(self, listed: Mapping[str, Found[S]]) -> None:
        self._listed = listed

    def __getitem__(self, name: str) -> Found[S]:
        if name in self._listed:
            return self._listed[name]
        family = self._listed[family_of(name)]
        spec = family.spec.member(name)
        if spec is None:
            raise KeyError(name)
        return replace(family, spec=spec)

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


@dataclass(frozen=True)
class PluginInfo:
    """One plugin and how it fared.

    Attributes:
        name: the entry point's name, or the file's.
        distribution: what it was installed with, or the file's name.
        version: of the distribution, or the hash of the file's text.
        ok: whether everything it offers can be used.
        offers: name of a kind → how many of it the plugin offers, for every kind.
        reason: why it is not ok, in a sentence.
        traceback: what its code raised, if it did.
    """

    name: str
    distribution: str
    version: str
    ok: bool
    offers: Mapping[str, int]
    reason: str = ""
    traceback: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON, with a number for each kind (``"rules"``, ``"tasks"``)."""
        plain = asdict(self)
        counts = plain.pop("offers")
        return plain | {kind.plural: counts[kind.name] for kind in KINDS}


@dataclass(frozen=True)
class Registry:
    """What there is of each kind, by name, and the plugins it comes from.

    Attributes:
        found: name of a kind → name → what is found under it, without the names that several plugins claim.
        plugins: every plugin, those that failed included.
        clashes: ``("rule", name)``, ``("task", name)``, … → who claims it.
    """

    found: Mapping[str, Mapping[str, Found[Any]]] = field(default_factory=dict)
    plugins: tuple[PluginInfo, ...] = ()
    clashes: Mapping[tuple[str, str], tuple[Found[Any], ...]] = field(default_factory=dict)

    def all(self, kind: Kind[S]) -> Mapping[str, Found[S]]:
        """Everything of one kind, by name; what belongs to a family is found by its full name, and not listed."""
        return _Known(self.found.get(kind.name, {}))

    @property
    def rules(self) -> Mapping[str, Found[RuleSpec]]:
        """The rules, by name."""
        return self.all(RULE)

    @property
    def tasks(self) -> Mapping[str, Found[TaskSpec]]:
        """The tasks, by name."""
        return self.all(TASK)

    @property
    def evaluations(self) -> Mapping[str, Found[EvaluationSpec]]:
        """The evaluations, by name."""
        return self.all(EVALUATION)

    @property
    def claims(self) -> Mapping[str, Found[ClaimSpec]]:
        """The claims, by name."""
        return self.all(CLAIM)

    def find(self, kind: Kind[S], name: str) -> Found[S]:
        """What has that name, or once had it.

        Raises:
            UnknownName: if there is none; the message gives the near names.
            AmbiguousName: if several plugins claim the name.
        """
        known = self.all(kind)
        if name not in known:
            name = next((new for new, one in known.items() if name in one.spec.former_names), name)
        if name in known:
            return known[name]
        if rivals := self.clashes.get((kind.name, name)):
            raise AmbiguousName(f"{_claim(kind.name, name, rivals)}; uninstall or rename one of them")
        raise self.unknown(kind.name, name, known, f"rulezoo list {kind.plural}")

    def kinds_of(self, name: str) -> list[Kind[Any]]:
        """The kinds of which something has that name, or is claimed to have it by several plugins."""
        return [kind for kind in KINDS if name in self.all(kind) or (kind.name, name) in self.clashes]

    def current(self, name: str) -> str:
        """The name of what was once called ``name``; ``name`` itself if nothing was."""
        if self.kinds_of(name):
            return name
        everything = (one.items() for one in self.found.values())
        renamed = (new for known in everything for new, one in known if name in one.spec.former_names)
        return next(renamed, name)

    def rule(self, name: str) -> Found[RuleSpec]:
        """The rule of that name; raises like `find`."""
        return self.find(RULE, name)

    def task(self, name: str) -> Found[TaskSpec]:
        """The task of that name; raises like `find`."""
        return self.find(TASK, name)

    def evaluation(self, name: str) -> Found[EvaluationSpec]:
        """The evaluation of that name; raises like `find`."""
        return self.find(EVALUATION, name)

    def specs(self) -> dict[str, RuleSpec]:
        """Name of a rule → its spec."""
        return {name: found.spec for name, found in self.rules.items()}

    def task_specs(self) -> dict[str, TaskSpec]:
        """Name of a task, or of a family of tasks → its spec."""
        return {name: found.spec for name, found in self.tasks.items()}

    def unknown(self, kind: str, name: str, known: Iterable[str], listing: str) -> UnknownName:
        """The error of `rulezoo.errors.unknown`, with the plugins that failed to load: one may offer what was asked for."""
        reasons = [
            f"plugin {p.name!r} failed to load: {brief(p.reason)}" for p in self.plugins if p.traceback
        ]
        return UnknownName("; ".join([str(unknown(kind, name, known, listing)), *reasons]))

    def load(self, kind: Kind[Any], name: str) -> Any:  # noqa: ANN401  its callers below know the class
        """What a spec names, imported: a class, or for kinds that are not made, the object.

        Raises:
            UnknownName: if there is nothing of that name.
            PluginError: if its module cannot be imported, or the target is not of the kind's base class.
        """
        found = self.find(kind, name)
        what = f"{kind.name} {name!r} of {found.origin}"
        with foreign(f"{what} cannot be loaded", hint=found.spec.advice):
            loaded = found.spec.load()
        kind.check(loaded, what, found.spec.target)
        return loaded

    def make(self, kind: Kind[Any], name: str, texts: Mapping[str, str]) -> Any:  # noqa: ANN401  likewise
        """A configured rule, task or evaluation.

        Args:
            kind: which kind it is.
            name: its name.
            texts: options as the command line gives them, ``{"sigma": "0.02"}``; the rest keep their defaults.

        Raises:
            UnknownName: if there is nothing of that name, or it is that of a family.
            PluginError: if its code fails.
            OptionError: if an option does not exist, its value is not allowed, or it contradicts the name.
        """
        cls = self.load(kind, name)
        found = self.find(kind, name)
        words = found.spec.words(texts)
        what = f"{kind.name} {name!r} of {found.origin}"
        with foreign(f"{what} cannot be made", hint=found.spec.advice):
            return configure(cls, name, words)

    def rule_class(self, name: str) -> type[LearningRule]:
        """The class of a rule, imported; raises like `load`."""
        return self.load(RULE, name)  # type: ignore[no-any-return]

    def task_class(self, name: str) -> type[Task]:
        """The class of a task, imported; raises like `load`."""
        return self.load(TASK, name)  # type: ignore[no-any-return]

    def make_rule(self, name: str, texts: Mapping[str, str]) -> LearningRule:
        """A configured rule; see `make`."""
        return self.make(RULE, name, texts)  # type: ignore[no-any-return]

    def make_task(self, name: str, texts: Mapping[str, str]) -> Task:
        """A configured task; see `make`."""
        return self.make(TASK, name, texts)  # type: ignore[no-any-return]

    def make_evaluation(self, name: str, texts: Mapping[str, str]) -> Evaluation:
        """A configured evaluation; see `make`."""
        return self.make(EVALUATION, name, texts)  # type: ignore[no-any-return]

    def claim(self, name: str) -> Any:  # noqa: ANN401  claims stand above this module
        """The claim of that name, a `rulezoo.claims.Claim`, imported; raises like `load`."""
        return self.load(CLAIM, name)


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
        found={
            kind.name: {name: found for (of, name), found in single.items() if of == kind.name}
            for kind in KINDS
        },
        plugins=tuple(_info(answer, clashes) for answer in answers),
        clashes=clashes,
    )


def _claims(answer: Answer) -> Iterator[tuple[tuple[str, str], Found[Any]]]:
    for kind, specs in answer.offers.items():
        for spec in specs:
            yield (kind, spec.name), Found(spec, answer.source.distribution, answer.source.version)


def _info(answer: Answer, clashes: Mapping[tuple[str, str], tuple[Found[Any], ...]]) -> PluginInfo:
    mine = dict.fromkeys(key for key, _ in _claims(answer) if key in clashes)
    reason = answer.reason or "; ".join(_claim(*key, clashes[key]) for key in mine)
    source = answer.source
    counts = {kind.name: len(answer.offers.get(kind.name, ())) for kind in KINDS}
    return PluginInfo(
        source.name, source.distribution, source.version, not reason, counts, reason, answer.traceback
    )


def _claim(kind: str, name: str, rivals: Sequence[Found[Any]]) -> str:
    origins = [found.origin for found in rivals]
    return f"{kind} {name!r} is claimed {len(rivals)} times, by {' and '.join(dict.fromkeys(origins))}"
