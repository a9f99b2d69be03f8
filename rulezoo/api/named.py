"""A rule or a task as the calls take it: a name, a name with options, a value or a class; and what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rulezoo.api.errors import CallError
from rulezoo.discovery.kinds import RULE, Kind
from rulezoo.discovery.registry import Found, Registry
from rulezoo.options import Configurable, as_text, declared
from rulezoo.specs import OF_FAMILY, RuleSpec, Spec, TaskSpec

if TYPE_CHECKING:
    from rulezoo.options import Value

S = TypeVar("S", bound=Spec)
_OPTIONS = ":"  # stands between a name and its options, as in "nmnc:rank=4,sigma=0.1"


@dataclass(frozen=True)
class Named(Generic[S]):
    """What was given, in the words of a `rulezoo.comparison.request.Request`.

    Attributes:
        kind: ``"rule"`` or ``"task"``.
        name: of the rule or task.
        options: option → its value in words.
        found: set where the class is not registered: it stands for the class in a registry.
    """

    kind: str
    name: str
    options: Mapping[str, str]
    found: Found[S] | None = None


@dataclass(frozen=True)
class _GivenRule(RuleSpec):
    """The spec of a class that no plugin offers."""

    given: type = field(default=object, kw_only=True)

    def load(self) -> type:
        return self.given


@dataclass(frozen=True)
class _GivenTask(TaskSpec):
    """The spec of a class that no plugin offers."""

    given: type = field(default=object, kw_only=True)

    def load(self) -> type:
        return self.given


def named(kind: Kind[S], given: object, options: Mapping[str, Value] | None, registry: Registry) -> Named[S]:
    """What a rule or task that was given is called, with its options.

    Args:
        kind: `RULE` or `TASK`.
        given: a name (``"nmnc"``), a name with options (``"nmnc:rank=4"``), a value, or a class.
        options: further options of a name or a class.
        registry: the available rules and tasks.

    Raises:
        CallError: if it is none of these.
        UnknownName: if nothing has that name.
    """
    words = {name: as_text(value) for name, value in (options or {}).items()}
    if isinstance(given, str):
        name, _, text = given.partition(_OPTIONS)
        found = registry.find(kind, name.strip())
        if found.spec.is_family:
            member, _, text = text.partition(_OPTIONS)
            found = registry.find(kind, f"{name.strip()}{OF_FAMILY}{member.strip()}")
        return Named(kind.name, found.spec.name, {**_read(given, text), **words})
    if isinstance(given, type) and issubclass(given, _base(kind)):
        return _of_class(kind, given, words, registry)
    if not (isinstance(given, Configurable) and isinstance(given, _base(kind))):
        raise CallError(
            f"{kind.name} must be the name of a {kind.name}, one with options like 'NAME:OPTION=VALUE', a "
            f"{_base(kind).__name__} or its class, got {given!r}"
        )
    if words:
        raise CallError(
            f"options={dict(options or {})!r} belong to a {kind.name} that is yet to be made; make the "
            f"{type(given).__name__} with them"
        )
    return _of_class(kind, type(given), _words(given), registry)


def with_given(registry: Registry, *given: Named[Any]) -> Registry:
    """The registry with the classes that were given and that no plugin offers, under their names."""
    found = {kind: dict(known) for kind, known in registry.found.items()}
    for one in given:
        if one.found is not None:
            found.setdefault(one.kind, {})[one.name] = one.found
    return replace(registry, found=found)


def _base(kind: Kind[Any]) -> type:
    if kind is RULE:
        from rulezoo.rule import LearningRule

        return LearningRule
    from rulezoo.task import Task

    return Task


def _read(given: str, text: str) -> dict[str, str]:
    """The options of ``NAME:OPTION=VALUE,OPTION=VALUE``."""
    words = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise CallError(f"{given!r}: {part!r} must read OPTION=VALUE, as in 'nmnc:rank=4,sigma=0.1'")
        words[name.strip()] = value.strip()
    return words


def _of_class(kind: Kind[S], cls: type, words: Mapping[str, str], registry: Registry) -> Named[S]:
    for found in registry.all(kind).values():
        if found.spec.target.endswith(f":{cls.__name__}") and found.spec.load() is cls:
            return Named(kind.name, _full_name(found.spec, cls, words), words)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "-", cls.__name__).strip("-").lower()
    spec = (_GivenRule if kind is RULE else _GivenTask)(
        name, f"{cls.__module__}:{cls.__name__}", (cls.__doc__ or "").strip().partition("\n")[0], given=cls
    )
    return Named(kind.name, name, words, Found(spec, cls.__module__.partition(".")[0], ""))  # type: ignore[arg-type]  # of this kind


def _full_name(spec: Spec, cls: type, words: Mapping[str, str]) -> str:
    """The name of what has these options: in a family, the value of one of them is part of it."""
    if not (isinstance(spec, TaskSpec) and spec.is_family):
        return spec.name
    value = words.get(spec.selects) or as_text(declared(cls)[spec.selects].default)
    return f"{spec.name}{OF_FAMILY}{value}"


def _words(value: Configurable) -> dict[str, str]:
    """The options that are not the author's default, as words that are read as the same values."""
    words = {}
    for name, option in declared(type(value)).items():
        own = getattr(value, name)
        if own != option.default:
            words[name] = as_text(own)
            if option.read(words[name]) != own:
                raise CallError(
                    f"option {name}={own!r} of {type(value).__name__} cannot be written as text: it would be read as "
                    f"{option.read(words[name])!r}; choose another value"
                )
    return words
