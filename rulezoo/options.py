"""Hyper-parameters: declared once, with default, meaning and bounds.

The dataclass field of a rule or a task *is* the declaration. Validation, the command line's ``-o name=value``,
the option tables of the documentation and the search space of tuning all read it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rulezoo.errors import UserError, did_you_mean

Value = bool | int | float | str | None
C = TypeVar("C")


class OptionError(UserError, ValueError):
    """An option that does not exist or is badly declared, or a value outside its bounds."""


@dataclass(frozen=True)
class Option:
    """What is known of one hyper-parameter.

    Attributes:
        name: the field's name.
        default: the author's default.
        doc: the meaning, with its unit.
        types: the Python types a value may have, in the order in which text is read as one of them.
        low: smallest allowed number, inclusive.
        high: largest allowed number, inclusive.
        choices: the allowed words, for an option that is a word.
        search: ``(low, high)`` of a tuner's search, or the values to choose from; ``None`` = not tuned.
        log: whether a tuner searches on a logarithmic scale.
    """

    name: str
    default: Value
    doc: str
    types: tuple[type, ...]
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    search: tuple[Value, ...] | None = None
    log: bool = False

    @property
    def bounds(self) -> str:
        """The allowed values in words, e.g. ``[0, 1]`` or ``none, [1, inf)``."""
        words = ["none"] if type(None) in self.types else []
        if bool in self.types:
            words.append("true, false")
        if int in self.types or float in self.types:
            words.append(_interval(self.low, self.high))
        if str in self.types:
            words += self.choices or ["any text"]
        return ", ".join(words)

    def check(self, value: Value) -> None:
        """Raise `OptionError` unless ``value`` is allowed."""
        if not self._legal(value):
            raise self._refusal(value)

    def _refusal(self, got: object) -> OptionError:
        return OptionError(f"{self.name} must be {self.expected}, got {got!r} ({self.doc})")

    @property
    def expected(self) -> str:
        """The allowed values as the end of "must be", e.g. ``a number in [0, 1] or 'auto'``."""
        kinds = []
        if int in self.types or float in self.types:
            kind = "a number" if float in self.types else "a whole number"
            bounded = self.low > -math.inf or self.high < math.inf
            kinds.append(f"{kind} in {_interval(self.low, self.high)}" if bounded else kind)
        kinds += ["true", "false"] if bool in self.types else []
        if str in self.types:
            kinds += map(repr, self.choices) if self.choices else ["text"]
        kinds += ["none"] if type(None) in self.types else []
        return " or ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))

    def _legal(self, value: object) -> bool:
        if value is None or isinstance(value, bool):
            return type(value) in self.types
        if isinstance(value, str):
            return str in self.types and (not self.choices or value in self.choices)
        if not isinstance(value, int | float):
            return False
        # An int is an allowed float, not the other way round. Infinity is never allowed: JSON has no word for it, so
        # a run's identity could not hold it.
        kind = type(value) in self.types or float in self.types
        return kind and self.low <= value <= self.high and abs(value) < math.inf

    def canonical(self, value: Value) -> Value:
        """The one form of equal values: an int becomes a float where only a float is declared."""
        only_float = float in self.types and int not in self.types
        if only_float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return value

    def read(self, text: str) -> Value:
        """The value that ``text`` stands for, e.g. ``"none"``, ``"true"``, ``"0.1"``; checked.

        Raises:
            OptionError: if no type of the option can be read from the text, or the value is out of bounds.
        """
        for kind in self.types:
            try:
                value: Value = _READERS[kind](text)
            except (ValueError, KeyError):
                continue
            if self._legal(value):
                return value
        raise self._refusal(text)


_READERS: dict[type, Any] = {
    type(None): lambda text: {"none": None}[text.lower()],
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
}


def as_text(value: Value) -> str:
    """The word that `Option.read` reads as ``value``: ``none``, ``true``, ``0.1``."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def is_written(value: Value, text: str) -> bool:
    """Whether ``text``, as on the command line, stands for ``value``: ``1e-5`` and ``0.00001`` do for one number."""
    if isinstance(value, bool) or value is None:
        return as_text(value) == text.lower()
    if isinstance(value, str):
        return value == text
    try:
        return float(text) == value
    except ValueError:
        return False


def _interval(low: float, high: float) -> str:
    left, right = "[" if low > -math.inf else "(", "]" if high < math.inf else ")"
    return f"{left}{low:.12g}, {high:.12g}{right}"


def hp(
    default: Any,  # noqa: ANN401  the field's own annotation says the type, as for dataclasses.field
    doc: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    search: tuple[Value, ...] | None = None,
    log: bool = False,
) -> Any:  # noqa: ANN401
    """Declare a hyper-parameter as the field of a frozen dataclass.

    Args:
        default: the author's default.
        doc: the meaning in half a sentence, with its unit.
        low: smallest allowed number, inclusive.
        high: largest allowed number, inclusive.
        choices: the allowed words, for an option that is a word.
        search: what a tuner may try: ``(low, high)`` for a number, else the values; ``None`` = not tuned.
        log: search on a logarithmic scale.
    """
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "search": search, "log": log}
    return dataclasses.field(default=default, metadata={"rulezoo": metadata})


class Configurable:
    """Base of rules and tasks: a frozen dataclass whose declared options are checked when it is made."""

    def __post_init__(self) -> None:
        for option in declared(type(self)).values():
            option.check(getattr(self, option.name))

    def resolved(self) -> dict[str, Value]:
        """Every option with its value, defaults included: what goes into a run's identity."""
        return {o.name: o.canonical(getattr(self, o.name)) for o in declared(type(self)).values()}


def declared(cls: type) -> dict[str, Option]:
    """The options that a rule or task class declares, in the order of declaration.

    Raises:
        OptionError: if the class is no dataclass, or has a field without `hp` or of a type that is no option's:
            such a field would be missing from a run's identity.
    """
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise OptionError(f"{cls.__name__}: {error}; import it outside of `if TYPE_CHECKING`") from error
    for owner in cls.__mro__:
        if any(isinstance(value, dataclasses.Field) for value in vars(owner).values()):
            raise OptionError(f"{owner.__name__} must be decorated with @dataclass(frozen=True)")
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {f.name: _option(cls, f, hints[f.name]) for f in fields}


def _option(cls: type, field: dataclasses.Field[Any], hint: object) -> Option:
    where = f"{cls.__name__}.{field.name}"
    if "rulezoo" not in field.metadata:
        raise OptionError(f"{where} must be declared with rulezoo.hp(...), or annotated as a ClassVar")
    members = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if not set(members) <= set(_READERS):
        raise OptionError(f"{where} must be bool, int, float, str, None or a union of them, not {hint}")
    default: Any = field.default
    # In the order of the readers, so that "none" and "3" are not read as text.
    kinds = tuple(kind for kind in _READERS if kind in members)
    return Option(field.name, default, types=kinds, **field.metadata["rulezoo"])


def configure(cls: type[C], name: str, texts: Mapping[str, str]) -> C:
    """Make a rule or task from the command line's words.

    Args:
        cls: the class to make.
        name: the name by which the user knows it, for the message.
        texts: ``{"sigma": "0.02"}``.

    Raises:
        OptionError: unknown option (the near names are given), unreadable or invalid value.
    """
    known = declared(cls)
    values = {}
    for key, text in texts.items():
        if key not in known:
            hint = did_you_mean(key, known) or f"it has {', '.join(known) or 'none'}"
            raise OptionError(f"{name} has no option {key!r}; {hint}")
        try:
            values[key] = known[key].read(text)
        except OptionError as error:
            raise OptionError(f"{name}.{error}") from None
    try:
        return cls(**values)
    except OptionError as error:
        raise OptionError(f"{name}.{error}") from None
