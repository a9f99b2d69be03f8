"""What a plugin says about what it offers without importing it: light, frozen, printable."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any, ClassVar, Literal, Self, get_args

from rulezoo.errors import UnknownName, UserError, did_you_mean
from rulezoo.options import OptionError, Value, is_written

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
OF_FAMILY = ":"  #: stands between the name of a family of tasks and the name of one task in it
TASK_NAME = re.compile(rf"{NAME.pattern}({OF_FAMILY}[A-Za-z0-9][A-Za-z0-9._-]*)?")
EVERY = "all"  #: on the command line, all of a kind; not allowed as a name
_TARGET = re.compile(r"\w+(\.\w+)*:\w+")
Signal = Literal["none", "scalar", "vector", "neuron-specific"]
_PER_SITE = re.compile(r"[1-9]\d* per site")
_RENAMED = {"local": "neuron-specific"}  # signals by an older name


class SpecError(UserError, ValueError):
    """A spec that breaks the contract; the message says which field and what was expected."""


def family_of(name: str) -> str:
    """The name of the family of which a task with this name is one; the name itself if it is of none."""
    return name.partition(OF_FAMILY)[0]


def file_name(name: str) -> str:
    """The name of a rule or task as that of a file or folder: ``neurogym+GoNogo-v0`` for ``neurogym:GoNogo-v0``.

    Windows allows no colon in the name of a file, and a link that begins with one names a protocol.
    """
    return name.replace(OF_FAMILY, "+")


@dataclass(frozen=True)
class Plausibility:
    """What makes a rule biologically plausible or not, as data.

    Of the fields that are true or false, all but ``hidden_learning`` name something implausible.

    Attributes:
        weight_transport: the feedback path reads the forward weights or their signs.
        backward_pass: sequential backward pass: errors travel back through the layers, one after the other.
        update_locking: a layer cannot change before the error of the output is known.
        signal: the error signal each neuron receives: ``"none"``, the error of the whole network as one number
            (``"scalar"``) or as a vector (``"vector"``), or an error of its own (``"neuron-specific"``).
        perturbation: activity is perturbed on purpose.
        phases: number of extra forward or backward passes per update; ``"2 per site"`` if it grows with the number of
            sites.
        hidden_learning: whether hidden layers learn at all. A Hebbian rule changes them without an error signal; a rule
            that trains only the read-out leaves them as they are.
        past_storage: storage of the past: on a recurrent network, an update needs the activity of earlier time steps, as
            backpropagation through time does. False for an online rule, which keeps no more than a trace at each
            synapse; ``None`` = not declared.

    Raises:
        SpecError: if a value is not one of these, or hidden layers do not learn but receive a signal.
    """

    weight_transport: bool
    backward_pass: bool
    update_locking: bool
    signal: Signal
    perturbation: bool
    phases: int | str = 0
    hidden_learning: bool = True
    past_storage: bool | None = None

    def __post_init__(self) -> None:
        for name in (
            "weight_transport",
            "backward_pass",
            "update_locking",
            "perturbation",
            "hidden_learning",
        ):
            self._expect(name, "True or False", isinstance(getattr(self, name), bool))
        self._expect("past_storage", "True, False or None", isinstance(self.past_storage, bool | None))
        if new := _RENAMED.get(str(self.signal)):
            raise SpecError(f"signal {self.signal!r} is now called {new!r}: write signal={new!r}")
        self._expect("signal", f"one of {', '.join(get_args(Signal))}", self.signal in get_args(Signal))
        number = type(self.phases) is int and self.phases >= 0
        per_site = isinstance(self.phases, str) and bool(_PER_SITE.fullmatch(self.phases))
        self._expect("phases", "a whole number, 0 or more, or like '2 per site'", number or per_site)
        if not self.hidden_learning and self.signal != "none":
            raise SpecError(
                f"hidden layers that do not learn receive no error signal: with hidden_learning=False, signal must be "
                f"'none', got {self.signal!r}"
            )

    def _expect(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise SpecError(f"{name} must be {expected}, got {getattr(self, name)!r}")

    def marks(self) -> dict[str, str]:
        """Field name → a short mark for a table, e.g. ``{"weight_transport": "yes", …}``; what is not declared is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: _mark(value) for name, value in values.items() if value is not None}


def _mark(value: bool | int | str) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Variant:
    """What options change in the plausibility of a rule, as in "mode=random: no weight transport".

    Attributes:
        options: of the rule, as on the command line: ``("mode=random",)``; the variant is that with all of them.
        changes: field of `Plausibility` → its value with these options.

    Raises:
        SpecError: if an option is not written as ``option=value``, or there is no such field.
    """

    options: tuple[str, ...]
    changes: Mapping[str, bool | int | str] = field(hash=False)

    def __post_init__(self) -> None:
        _expect_options("variant", self.options)
        if not (self.options and self.changes and isinstance(self.changes, Mapping)):
            raise SpecError(
                "a variant must name options and what they change, like "
                f"Variant(('mode=random',), {{'weight_transport': False}}), got {self.options!r} and {self.changes!r}"
            )
        known = [one.name for one in fields(Plausibility)]
        for name in self.changes:
            if name not in known:
                hint = did_you_mean(str(name), known) or f"its fields are {', '.join(known)}"
                raise SpecError(f"a variant changes {name!r}, which is no field of Plausibility; {hint}")

    def same_options(self, other: Variant) -> bool:
        """Whether both hold with the same options, in whatever order and however the values are written."""
        return {_meaning(word) for word in self.options} == {_meaning(word) for word in other.options}

    def holds(self, options: Mapping[str, Value]) -> bool:
        """Whether a rule with these options is the variant; an option that is not there is not known to be as it says."""
        words = (word.partition("=") for word in self.options)
        return all(name in options and is_written(options[name], text) for name, _, text in words)


def _meaning(word: str) -> tuple[str, float | str]:
    """An option and its value: ``1e-2`` and ``0.01`` are one number, ``none`` and ``None`` one word."""
    name, _, text = word.partition("=")
    try:
        return name, float(text)
    except ValueError:
        return name, text.lower() if text.lower() in ("none", "true", "false") else text


def _expect_options(owner: str, options: tuple[str, ...]) -> None:
    if not isinstance(options, tuple) or not all(isinstance(word, str) for word in options):
        raise SpecError(
            f"the options of a {owner} must be a tuple of texts, like ('mode=random',), got {options!r}"
        )
    for word in options:
        name, _, text = word.partition("=")
        if not (name and text):
            raise SpecError(f"an option of a {owner} must read 'option=value', got {word!r}")
    names = [word.partition("=")[0] for word in options]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"a {owner} names the option {', '.join(twice)} more than once: {options!r}")


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
        _expect_options("limit", self.options)
        _expect_options("limit", self.others)


@dataclass(frozen=True)
class Spec:
    """What the specs of all kinds share; their attributes are described there."""

    name: str
    target: str
    summary: str
    version: int = 1
    tags: tuple[str, ...] = ()
    reference: str = ""
    former_names: tuple[str, ...] = field(default=(), kw_only=True)

    _target: ClassVar[str] = "'package.module:Class'"
    _noun: ClassVar[str] = "class"
    _name: ClassVar[re.Pattern[str]] = NAME

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self._name.fullmatch(self.name):
            raise SpecError(f"name {self.name!r} must be lower-case words joined by hyphens, like 'my-rule'")
        if self.name == EVERY:
            raise SpecError(
                f"name {self.name!r} is reserved: on the command line it stands for every rule, task or evaluation"
            )
        for one in ("target", "summary", "reference"):
            self._expect(one, "a text", isinstance(getattr(self, one), str))
        self._expect("target", self._target, bool(_TARGET.fullmatch(self.target)))
        self._expect("version", "a whole number, 1 or more", type(self.version) is int and self.version >= 1)
        words = isinstance(self.tags, tuple) and all(isinstance(tag, str) for tag in self.tags)
        self._expect("tags", "a tuple of words, like ('cnn', 'vision')", words)
        former = isinstance(self.former_names, tuple) and all(isinstance(n, str) for n in self.former_names)
        self._expect("former_names", "a tuple of names, like ('my-rule',)", former)

    def _expect(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise SpecError(f"{name} of {self.name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def module(self) -> str:
        """The module that the target is asked of."""
        return self.target.partition(":")[0]

    @property
    def is_family(self) -> bool:
        """Whether this stands for several of its kind, and is none itself."""
        return False

    def member(self, name: str) -> Self | None:
        """The spec of what has that name in this family; ``None`` if this is no family, or the name is none of it."""
        return None

    def words(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The options as the command line gives them, with those that the name itself gives a value.

        Raises:
            UnknownName: if this is a family, which cannot be trained itself.
            OptionError: if an option contradicts the name.
        """
        return given

    @property
    def advice(self) -> str:
        """What a user can do where a module that it needs is not installed; empty if nothing is known."""
        return ""

    def load(self) -> Any:  # noqa: ANN401  the registry checks what it is
        """Import the module and return what the target names in it.

        Raises:
            SpecError: if the module has nothing of that name, or no class where one was expected.
            ImportError: if the module cannot be imported.
        """
        module, attribute = self.module, self.target.partition(":")[2]
        found = getattr(importlib.import_module(module), attribute, None)
        if found is None:
            raise SpecError(f"{self.name}: module {module} has no {self._noun} {attribute}")
        if self._noun == "class" and not isinstance(found, type):
            raise SpecError(f"{self.name}: {self.target} is a {type(found).__name__}, not a class")
        return found


@dataclass(frozen=True)
class RuleSpec(Spec):
    """A learning rule, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:Class"``, a subclass of `rulezoo.LearningRule`; imported only where it runs.
        summary: one sentence.
        version: raise it when results change; it is part of a run's identity.
        tags: free words to filter by.
        reference: the paper, with a link.
        family: the heading under which it is listed.
        plausibility: `Plausibility`, shown on the leaderboard.
        limits: in which it equals other rules; see `Limit`.
        variants: options that change its plausibility; see `Variant`. Where several hold, later ones win.
        formula: its update, one formula a line, in the LaTeX that docutils turns into MathML. The report
            explains the letters that `rulezoo.report.formula` lists; a formula explains others itself, in words.
        former_names: names under which it was known; they still work where a rule is asked for.
    """

    family: str = "other"
    plausibility: Plausibility | None = None
    limits: tuple[Limit, ...] = ()
    variants: tuple[Variant, ...] = ()
    formula: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect("family", "a text", isinstance(self.family, str))
        formula = isinstance(self.formula, tuple) and all(isinstance(line, str) for line in self.formula)
        self._expect("formula", "a tuple of texts in LaTeX", formula)
        self._expect("plausibility", "a Plausibility", isinstance(self.plausibility, Plausibility | None))
        limits = isinstance(self.limits, tuple) and all(isinstance(limit, Limit) for limit in self.limits)
        self._expect("limits", "a tuple of Limit", limits)
        variants = isinstance(self.variants, tuple) and all(isinstance(one, Variant) for one in self.variants)
        self._expect("variants", "a tuple of Variant", variants)
        if self.variants and self.plausibility is None:
            raise SpecError(f"{self.name} has variants, but no plausibility that they could change")
        for one, other in combinations(self.variants, 2):
            if one.same_options(other):
                raise SpecError(
                    f"{self.name} has two variants with {' and '.join(one.options)}; give one, with the changes of both"
                )
        for some in (*combinations(self.variants, 1), *combinations(self.variants, 2)):
            _expect_possible(self, some)

    def plausibility_with(self, options: Mapping[str, Value]) -> Plausibility | None:
        """The plausibility of the rule with these options.

        Args:
            options: name → value, as in `rulezoo.options.Configurable.resolved`; those that are not there have their
                default.
        """
        if self.plausibility is None:
            return None
        return _changed(self.plausibility, [one for one in self.variants if one.holds(options)])


def _expect_possible(spec: RuleSpec, variants: Sequence[Variant]) -> None:
    """Refuse values that are none of the fields they change; variants that exclude each other never meet."""
    words = {word for one in variants for word in one.options}
    if spec.plausibility is None or len({word.partition("=")[0] for word in words}) < len(words):
        return
    try:
        _changed(spec.plausibility, variants)
    except SpecError as error:
        raise SpecError(f"{spec.name} with {', '.join(sorted(words))}: {error}") from None


def _changed(found: Plausibility, variants: Iterable[Variant]) -> Plausibility:
    values = dataclasses.asdict(found)
    for one in variants:
        values |= one.changes
    return Plausibility(**values)


@dataclass(frozen=True)
class TaskSpec(Spec):
    """A task, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:Class"``, a subclass of `rulezoo.Task`; imported only where it runs.
        summary: one sentence.
        version: raise it when results change; it is part of a run's identity.
        tags: free words to filter by, e.g. ``("cnn", "vision")``.
        reference: where the data come from, with a link.
        embedded: whether the data come with rulezoo or are generated, so that nothing is downloaded.
        requires: what pip has to install for it, e.g. ``"rulezoo[neurogym]"``; empty = nothing.
        selects: for a family of tasks, the option that tells them apart. Its value follows the name: with
            ``selects="env"``, ``neurogym:GoNogo-v0`` is the task with the option ``env=GoNogo-v0``, and ``neurogym`` alone
            is no task. Empty = one task.
        example: for a family, the value of that option in examples and error messages.
        former_names: names under which it was known; they still work where a task is asked for.
    """

    embedded: bool = False
    requires: str = ""
    selects: str = field(default="", kw_only=True)
    example: str = field(default="", kw_only=True)

    _name: ClassVar[re.Pattern[str]] = TASK_NAME

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in ("requires", "selects", "example"):
            self._expect(one, "a text", isinstance(getattr(self, one), str))
        if not self.selects and OF_FAMILY in self.name:
            raise SpecError(
                f"name {self.name!r} names one task of a family: give the family's own name, and the option that tells its "
                "tasks apart as selects"
            )
        if bool(self.selects) != bool(self.example):
            raise SpecError(
                f"{self.name}: a family of tasks needs both selects and example, got selects={self.selects!r} and "
                f"example={self.example!r}"
            )

    @property
    def is_family(self) -> bool:
        """See `Spec.is_family`."""
        return bool(self.selects) and OF_FAMILY not in self.name

    def member(self, name: str) -> Self | None:
        """See `Spec.member`."""
        if not (self.is_family and family_of(name) == self.name != name and TASK_NAME.fullmatch(name)):
            return None
        return dataclasses.replace(self, name=name)

    def words(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """See `Spec.words`."""
        if not self.selects:
            return given
        if self.is_family:
            raise UnknownName(
                f"{self.name!r} is a family of tasks, one for each {self.selects}: name one of them, like "
                f"'{self.name}{OF_FAMILY}{self.example}'"
            )
        value = self.name.partition(OF_FAMILY)[2]
        if given.get(self.selects, value) != value:
            raise OptionError(
                f"{self.name}.{self.selects} is {value!r} by the name of the task, got {given[self.selects]!r}; leave the "
                "option out, or name another task"
            )
        return {**given, self.selects: value}

    @property
    def advice(self) -> str:
        """See `Spec.advice`."""
        return _advice(self.requires)


@dataclass(frozen=True)
class EvaluationSpec(Spec):
    """An evaluation of trained networks, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:Class"``, a subclass of `rulezoo.Evaluation`; imported only where it runs.
        summary: one sentence.
        version: raise it when results change; it is part of a measurement's identity.
        tags: free words to filter by.
        reference: the paper or the library whose measure it is, with a link.
        data: the data it needs in addition to the task's, and where they come from; empty = none.
        requires: what pip has to install for it, e.g. ``"rulezoo[brain]"``; empty = nothing.
        former_names: names under which it was known; they still work where an evaluation is asked for.
    """

    data: str = ""
    requires: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in ("data", "requires"):
            self._expect(one, "a text", isinstance(getattr(self, one), str))

    @property
    def advice(self) -> str:
        """See `Spec.advice`."""
        return _advice(self.requires)


def _advice(requires: str) -> str:
    return f"it needs {requires}: pip install '{requires}'" if requires else ""


@dataclass(frozen=True)
class ClaimSpec(Spec):
    """A claim, described.

    Attributes:
        name: how users call it, lower-case words joined by hyphens.
        target: ``"package.module:NAME"``, a `rulezoo.claims.Claim`; imported only where it is needed.
        summary: the claim in one sentence.
        version: raise it when the protocol or the criterion changes.
        tags: free words to filter by.
        reference: who makes the claim, with a link.
        former_names: names under which it was known; they still work where a claim is asked for.
    """

    _target: ClassVar[str] = "'package.module:NAME'"
    _noun: ClassVar[str] = "claim"
