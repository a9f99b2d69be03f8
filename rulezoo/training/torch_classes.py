"""Classes of torch by name, and whether their constructors take the options that a budget gives them."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rulezoo.errors import did_you_mean
from rulezoo.options import as_text

Options = Mapping[str, Any]


def subclasses(module: types.ModuleType, base: type) -> dict[str, type]:
    """The public classes of a module that derive from ``base``, by name."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: cls
        for name, cls in sorted(found.items())
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base
    }


def near(name: object, known: Iterable[str]) -> str:
    """``"; did you mean 'AdamW'?"``, whatever the case of the letters, or nothing."""
    if not isinstance(name, str):
        return ""
    known = list(known)
    same = [one for one in known if one.lower() == name.lower()]
    hint = f"did you mean {' or '.join(map(repr, same))}?" if same else did_you_mean(name, known)
    return f"; {hint}" if hint else ""


def options_problem(
    field: str, cls: type, options: object, excluded: Mapping[str, str], first: str
) -> str | None:
    """Why the options of a class cannot be used, if they cannot; what its constructor refuses is not tried here.

    Args:
        field: the name of the budget's field, for the sentence.
        cls: a class of torch.
        options: what the field holds.
        excluded: parameters of the constructor that are not options of a budget → what to do instead.
        first: the constructor's first parameter, which is no option.
    """
    if not isinstance(options, Mapping):
        return f"{field} must be a dictionary of options of {cls.__name__}, got {options!r}"
    parameters = list(inspect.signature(cls).parameters)
    known = [name for name in parameters if name != first and name not in excluded]
    hints = _hints(cls)
    for name, value in options.items():
        if name in excluded and name in parameters:
            return f"{field}: {name} cannot be given here; {excluded[name]}"
        if name not in known:
            hint = near(name, known) or f"; it has {', '.join(known) or 'none'}"
            return f"{field}: {cls.__name__} has no option {name!r}{hint}"
        if name in hints and not _fits(value, hints[name]):
            return f"{field}: {name} of {cls.__name__} must be {_words(hints[name])}, got {value!r}"
        if not _is_finite(value):
            return f"{field}: {name} must be a finite number, several of them, true, false, text or none, got {value!r}"
    required = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if name in known and parameter.default is parameter.empty and name not in options
    ]
    if required:
        return f"{field}: {cls.__name__} needs {', '.join(required)}"
    return None


def read(text: str) -> Any:  # noqa: ANN401
    """The value that some text stands for: ``none``, ``true``, a number, numbers as in ``80,120``, or the text itself."""
    if "," in text:
        return tuple(read(part) for part in text.split(",") if part.strip())
    word = text.strip()
    if word.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def sequence_options(cls: type) -> set[str]:
    """Names of the options that take a sequence and no number: one number on a command line means a sequence of one."""
    return {name for name, hint in _hints(cls).items() if _fits([1], hint) and not _fits(1, hint)}


def whole_options(cls: type) -> set[str]:
    """Names of the options that take whole numbers only, one or several: of a schedule they are lengths."""
    return {
        name
        for name, hint in _hints(cls).items()
        if any(_fits(whole, hint) and not _fits(broken, hint) for whole, broken in ((1, 1.5), ([1], [1.5])))
    }


def _hints(cls: type) -> dict[str, Any]:
    """The types of the constructor's parameters; none where torch's annotations cannot be resolved."""
    names = {"Iterable": Iterable, "Sequence": Sequence, "Callable": Callable, "Any": Any}
    try:
        return typing.get_type_hints(cls.__init__, localns=names)  # type: ignore[misc]
    except (NameError, TypeError):
        return {}


def _is_finite(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(one is None or (isinstance(one, int | float) and _is_finite(one)) for one in value)
    return (
        value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
    )


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is not None and issubclass(origin, Iterable):
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if hint is float:
        return type(value) in (int, float)
    return hint is type(None) if value is None else type(value) is hint


def _words(hint: Any) -> str:  # noqa: ANN401
    """A type in words, without tensors and functions, which a budget cannot hold."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(word for one in inner if (word := _words(one))))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"{len(inner)} values ({', '.join(map(_words, inner))})"
    if origin is not None and origin is not Callable and issubclass(origin, Iterable):
        return f"a sequence ({_words(inner[0])} each)"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "none"}
    return words.get(hint, "")


def call(cls: type, options: Options) -> str:
    """The options as arguments, for a sentence: ``SGD(momentum=0.9, nesterov=true)``."""
    given = ", ".join(
        f"{name}={value!r}" if isinstance(value, str | list | tuple) else f"{name}={as_text(value)}"
        for name, value in options.items()
    )
    return f"{cls.__name__}({given})"
