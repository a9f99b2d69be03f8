"""What a plugin says about its rules and tasks without importing them: light, frozen, printable."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, fields
from typing import Literal, get_args

from rulezoo.errors import UserError

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
EVERY = "all"  #: on the command line, every rule or task; no name of one
_TARGET = re.compile(r"\w+(\.\w+)*:\w+")
Signal = Literal["none", "scalar", "vector", "local"]


class SpecError(UserError, ValueError):
    """A spec that breaks the contract; the message says which field and what was expected."""


@dataclass(frozen=True)
class Plausibility:
    """What makes a rule plausible in a brain or not, as data.

    Attributes:
        weight_transport: the feedback path reads the forward weights (or their signs).
        backward_pass: errors travel backwards through the layers, one after the other.
        update_locking: a layer must wait for the error of the output before it can change.
        signal: what a neuron is told: the error of the whole network as one number (``"scalar"``), as a vector
            (``"vector"``), an error of its own (``"local"``), or nothing (``"none"``).
        perturbation: activity is perturbed on purpose.
        phases: how many passes through the network one update takes, beside the first.
    """

    weight_transport: bool
    backward_pass: bool
    update_locking: bool
    signal: Signal
    perturbation: bool
    phases: int = 0

    def __post_init__(self) -> None:
        if self.signal not in get_args(Signal):
            raise SpecError(f"signal must be one of {', '.join(get_args(Signal))}, got {self.signal!r}")

    def marks(self) -> dict[str, str]:
        """Field name → a short mark for a table, e.g. ``{"weight_transport": "yes", …}``."""
        words = {True: "yes", False: "no"}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: words[v] if isinstance(v, bool) else str(v) for k, v in values.items()}


@dataclass(frozen=True)
class Limit:
    """A limit in which a rule is another rule, as in "rank = width gives noise-correlation"; checks hold it to that.

    Attributes:
        options: of the rule, as on the command line: ``("rank=64",)``.
        equals: name of the other rule.
        others: options of the other rule.
        tolerance: of a gradient's norm, in float64.
    """

    options: tuple[str, ...]
    equals: str
    others: tuple[str, ...] = ()
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        for word in (*self.options, *self.others):
            if "=" not in word:
                raise SpecError(f"an option of a limit must read 'option=value', got {word!r}")


@dataclass(frozen=True)
class _Spec:
    name: str
    target: str
    summary: str
    version: int = 1
    tags: tuple[str, ...] = ()
    reference: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise SpecError(f"name {self.name!r} must be lower-case words joined by hyphens, like 'my-rule'")
        if self.name == EVERY:
            raise SpecError(
                f"name {self.name!r} is reserved: on the command line it stands for every rule or task"
            )
        for field in ("target", "summary", "reference"):
            self._expect(field, "a text", isinstance(getattr(self, field), str))
        self._expect("target", "'package.module:Class'", bool(_TARGET.fullmatch(self.target)))
        self._expect("version", "a whole number, 1 or more", type(self.version) is int and self.version >= 1)
        words = isinstance(self.tags, tuple) and all(isinstance(tag, str) for tag in self.tags)
        self._expect("tags", "a tuple of words, like ('cnn', 'vision')", words)

    def _expect(self, field: str, expected: str, holds: bool) -> None:
        if not holds:
            raise SpecError(f"{field} of {self.name} must be {expected}, got {getattr(self, field)!r}")

    @property
    def module(self) -> str:
        """The module that the class is asked of."""
        return self.target.partition(":")[0]

    def load(self) -> type:
        """Import the module and return the class.

        Raises:
            SpecError: if the module has no such class.
            ImportError: if the module cannot be imported.
        """
        module, attribute = self.module, self.target.partition(":")[2]
        found = getattr(importlib.import_module(module), attribute, None)
        if found is None:
            raise SpecError(f"{self.name}: module {module} has no class {attribute}")
        if not isinstance(found, type):
            raise SpecError(f"{self.name}: {self.target} is a {type(found).__name__}, not a class")
        return found


@dataclass(frozen=True)
class RuleSpec(_Spec):
    """A learning rule, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:Class"``, a subclass of `rulezoo.LearningRule`; imported only where it runs.
        summary: one sentence.
        version: raise it when results change; it is part of a run's identity.
        tags: free words to filter by.
        reference: the paper, with a link.
        family: the heading under which it is listed.
        plausibility: `Plausibility`, shown on the board.
        limits: in which it equals other rules; see `Limit`.
        former_names: names under which it was known; they still work where a rule is asked for.
    """

    family: str = "other"
    plausibility: Plausibility | None = None
    limits: tuple[Limit, ...] = ()
    former_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        former = isinstance(self.former_names, tuple) and all(isinstance(n, str) for n in self.former_names)
        self._expect("former_names", "a tuple of names, like ('my-rule',)", former)
        self._expect("family", "a text", isinstance(self.family, str))
        self._expect("plausibility", "a Plausibility", isinstance(self.plausibility, Plausibility | None))
        limits = isinstance(self.limits, tuple) and all(isinstance(limit, Limit) for limit in self.limits)
        self._expect("limits", "a tuple of Limit", limits)


@dataclass(frozen=True)
class TaskSpec(_Spec):
    """A task, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:Class"``, a subclass of `rulezoo.Task`; imported only where it runs.
        summary: one sentence.
        version: raise it when results change; it is part of a run's identity.
        tags: free words to filter by, e.g. ``("cnn", "vision")``.
        reference: where the data come from, with a link.
        embedded: whether the data come with rulezoo or are generated, so that nothing is downloaded.
    """

    embedded: bool = False
