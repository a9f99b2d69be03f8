"""Study files: a request written down as TOML, with the versions it was written by."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rulezoo.comparison import seeds
from rulezoo.comparison.request import Request, RequestError
from rulezoo.errors import UserError, did_you_mean
from rulezoo.options import as_text

VERSIONS = "versions"  #: table of a study file that says by which versions it was written
KEYS: Mapping[str, str] = {
    "rules": 'a list of names, or "all"',
    "tasks": 'a list of names, or "all"',
    "seeds": 'a number of seeds (5: seeds 0 to 4), a range ("5-9"), or a list of seeds',
    "options": "a table for each rule or task, such as [options.nmnc]; a list of values is a grid",
    "budget": "a table of fields of a task's budget; a list is one value, such as milestones",
    "epochs": "a whole number, 1 or more",
    "device": '"auto", "cpu", "cuda" or "mps"',
    "precision": '"float32" or "bfloat16"',
    "compiled": "true or false",
    "together": "a whole number of seeds, 1 or more",
    "probes": "a whole number, 0 or more",
    "checkpoint": "a number of seconds, 0 or more",
    "threads": "a whole number, 1 or more",
    "trials": "a whole number of trials, 2 or more",
    "retry": "a list of words, such as failed or stale",
    "data": "the path of a folder, relative to the study file",
    "download": "true or false",
    "keep_weights": "true or false",
    "keep_memory": "true or false",
    "evaluations": "a list of names",
}
"""Key of a study file, a field of `Request` → what is expected of its value."""
_OPTIONS_OF_THE_COMMAND = {
    "tune": "trials",
    "probe": "probes",
    "compile": "compiled",
    "evaluate": "evaluations",
}
_NOT_WRITTEN = frozenset({"retry", "download"})  # what to do about the stored results and data of one machine

Scalar = bool | int | float | str


class StudyFileError(UserError, ValueError):
    """A study file that cannot be used; the message names the file, the key, the value and what was expected."""


@dataclass(frozen=True)
class StudyFile:
    """What a study file states.

    Attributes:
        fields: of `Request`, those that are stated.
        versions: name of a package → the version that the file was written by; empty where it does not say.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> StudyFile:
    """Read a study file.

    Raises:
        StudyFileError: if it is not TOML, has a key that a request does not have, or a value of another kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path} is not valid TOML: {error}") from error
    versions = content.pop(VERSIONS, {})
    for key in content:
        if key not in KEYS:
            raise StudyFileError(f"{path}: unknown key {key!r}; {_hint(key)}")
    stated: dict[str, Any] = {}
    for key, value in content.items():
        try:
            stated[key] = _READERS[key](value, path.parent) if key in _READERS else value
            Request(**{key: stated[key]})
        except RequestError as error:
            raise StudyFileError(f"{path}: {error}") from error
    return StudyFile(stated, {name: str(version) for name, version in _leaves(versions)})


def write(path: Path, request: Request, versions: Mapping[str, str]) -> None:
    """Write a request as a study file, over an older one; what has its default value is left out.

    Args:
        path: the file.
        request: what was asked.
        versions: name of a package → its version.

    Raises:
        StudyFileError: if the file cannot be written.
    """
    import tomli_w

    content = dict(_content(request))
    content[VERSIONS] = dict(versions)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(content), encoding="utf-8")
    except OSError as error:
        raise StudyFileError(f"{path} cannot be written: {error.strerror or error}") from error


def _content(request: Request) -> Sequence[tuple[str, Any]]:
    default = Request()
    plain: list[tuple[str, Any]] = []
    tables: list[tuple[str, Any]] = []
    for one in fields(request):
        value = getattr(request, one.name)
        if one.name in _NOT_WRITTEN or (value == getattr(default, one.name) and one.name != "seeds"):
            continue
        if one.name == "options":
            tables.append((one.name, {owner: _listed(texts) for owner, texts in value.items() if texts}))
        elif one.name == "budget":
            tables.append((one.name, {name: _scalar(text) for name, text in value.items()}))
        elif one.name == "seeds":
            number = len(value) if value == tuple(range(len(value))) else seeds.shown(value)
            plain.append((one.name, number))
        elif one.name == "data":
            plain.append((one.name, str(value.expanduser().resolve())))
        else:
            plain.append((one.name, list(value) if isinstance(value, tuple) else value))
    return [*plain, *tables]


def _listed(texts: Mapping[str, str | tuple[str, ...]]) -> dict[str, Scalar | list[Scalar]]:
    return {
        name: _scalar(text) if isinstance(text, str) else [_scalar(one) for one in text]
        for name, text in texts.items()
    }


def _scalar(text: str) -> Scalar:
    """The value that is read back as this text: a number or a truth value where there is one."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if as_text(value) == text and math.isfinite(value):
            return value
    return text


def _hint(key: str) -> str:
    near = _OPTIONS_OF_THE_COMMAND.get(key)
    hint = f"did you mean {near!r}?" if near else did_you_mean(key, KEYS)
    if not hint:
        return f"a study file has the keys {', '.join(KEYS)}"
    named = [name for name in KEYS if f"{name!r}" in hint]
    return " ".join([hint, *(f"{name}: {KEYS[name]}." for name in named)])


def _names(value: object, _: Path) -> object:
    return ("all",) if value == "all" else value


def _seeds(value: object, _: Path) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        return seeds.first(value)
    if isinstance(value, str):
        return seeds.read(value)
    if isinstance(value, list):
        return tuple(value)
    raise RequestError(f"seeds must be {KEYS['seeds']}, got {value!r}")


def _options(value: object, _: Path) -> dict[str, dict[str, str | tuple[str, ...]]]:
    return {
        owner: {
            name: _one_or_several(f"options.{owner}.{name}", given)
            for name, given in _table(f"options.{owner}", options).items()
        }
        for owner, options in _table("options", value).items()
    }


def _one_or_several(where: str, given: object) -> str | tuple[str, ...]:
    if not isinstance(given, list):
        return _text(where, given)
    if not given:
        raise RequestError(f"{where} must have a value, got an empty list")
    return tuple(_text(where, one) for one in given)


def _budget(value: object, _: Path) -> dict[str, str]:
    return {
        name: ",".join(_text(f"budget.{name}", one) for one in given)
        if isinstance(given, list)
        else _text(f"budget.{name}", given)
        for name, given in _leaves(_table("budget", value))
    }


def _folder(value: object, beside: Path) -> Path:
    if not isinstance(value, str):
        raise RequestError(f"data must be {KEYS['data']}, got {value!r}")
    return beside / Path(value).expanduser()


_READERS: Mapping[str, Callable[[object, Path], Any]] = {
    "rules": _names,
    "tasks": _names,
    "seeds": _seeds,
    "options": _options,
    "budget": _budget,
    "data": _folder,
}


def _table(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(f"{where} must be a table, got {value!r}")
    return value


def _leaves(table: object, prefix: str = "") -> list[tuple[str, Any]]:
    """The values of a table and of those in it, under dotted names."""
    if not isinstance(table, Mapping):
        return []
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        found += (
            _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
        )
    return found


def _text(where: str, value: object) -> str:
    if not isinstance(value, Scalar):
        raise RequestError(f"{where} must be a number, a text, true or false, got {value!r}")
    return as_text(value)
