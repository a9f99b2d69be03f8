"""The features by which the plausibility of a rule is judged: their names, what they mean, and how a mark is shown.

Every table, page and command takes the words from here. A filled mark (●) always says that the rule has the implausible
feature, an open one (○) that it has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulezoo.specs import Variant

HAS, HAS_NOT, VERIFIED = "●", "○", "✓"
SIGNAL, HIDDEN = "signal", "hidden_learning"
FIXED = "fixed"  #: shown as the error signal of a rule whose hidden layers do not learn


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        field: of `rulezoo.specs.Plausibility`.
        letter: head of its column where there is little room.
        name: in the words of the field.
        meaning: what it says of a rule.
    """

    field: str
    letter: str
    name: str
    meaning: str


FEATURES = (
    Feature("weight_transport", "W", "weight transport", "feedback uses the forward weights or their signs"),
    Feature(
        "backward_pass",
        "B",
        "sequential backward pass",
        "errors travel back layer by layer; where a block between two sites has several layers, its measured depth",
    ),
    Feature("update_locking", "L", "update locking", "layers wait for the error of the output"),
    Feature("past_storage", "S", "storage of the past", "updates need stored activity of earlier time steps"),
    Feature("perturbation", "N", "perturbation", "activity or weights are perturbed"),
    Feature("phases", "P", "extra phases", "number of extra forward or backward passes per update"),
    Feature(SIGNAL, "signal", "error signal", "error signal each neuron receives"),
    Feature(HIDDEN, "H", "learning of hidden layers", "hidden layers learn"),
)
_BY_FIELD = {one.field: one for one in FEATURES}
_LAST = len(FEATURES)


def feature(field: str) -> Feature:
    """The feature of a field; one that a plugin made up is its own explanation."""
    words = field.replace("_", " ")
    return _BY_FIELD.get(field, Feature(field, words, words, words))


def name(field: str) -> str:
    """The name of a field: ``sequential backward pass`` for ``backward_pass``."""
    return feature(field).name


def ordered(fields: Iterable[str]) -> list[str]:
    """The fields in the order of `FEATURES`."""
    places = {field: i for i, field in enumerate(_BY_FIELD)}
    return sorted(dict.fromkeys(fields), key=lambda field: places.get(field, _LAST))


def columns(marks: Iterable[Mapping[str, str]]) -> list[str]:
    """The fields that a table has a column for; that of the error signal says whether hidden layers learn, see `mark`."""
    return [field for field in ordered(field for one in marks for field in one) if field != HIDDEN]


def mark(marks: Mapping[str, str], field: str) -> str:
    """The mark of a rule in one column: as declared or measured, and ``fixed`` for the signal of fixed hidden layers."""
    return FIXED if field == SIGNAL and marks.get(HIDDEN) == "no" else marks.get(field, "")


def symbol(marks: Mapping[str, str], field: str, verified: Iterable[str] = ()) -> str:
    """The same with symbols: ``●``, ``○``, ``● 2``; ``✓`` follows where the mark was verified."""
    shown = mark(marks, field)
    words = "/".join(_symbol(field, part) for part in shown.split("/")) if shown else ""
    source = HIDDEN if shown == FIXED else field
    return words + VERIFIED if words and source in set(verified) else words


def _symbol(field: str, shown: str) -> str:
    if field == "phases":
        return HAS_NOT if shown == "0" else f"{HAS} {shown}"
    return {"yes": HAS, "no": HAS_NOT}.get(shown, shown)


def implausible(marks: Mapping[str, str]) -> list[str]:
    """The implausible features that a rule has, by name, e.g. ``["update locking", "perturbation"]``."""
    found = []
    for field in columns([marks]):
        shown = mark(marks, field)
        if field == "phases" and shown != "0":
            found.append(name(field))
        elif field not in ("phases", SIGNAL) and shown not in ("no", ""):
            found.append(name(field) if "within" not in shown else f"{name(field)} {shown}")
    return found


def legend(fields: Iterable[str], shown: Iterable[str], *, letters: bool, ticks: bool) -> str:
    """What the columns of a table mean, for the fields it has and the marks that it shows."""
    found = [feature(field) for field in fields]
    heads = [f"{one.letter}: {one.name}" if letters else f"{one.name}: {one.meaning}" for one in found]
    first = f"plausibility: {HAS} = the rule has this implausible feature, {HAS_NOT} = it does not"
    tick = [f"{VERIFIED}: verified by `rulezoo verify`"] if ticks else []
    fixed = [f"{FIXED}: hidden layers do not learn"] if FIXED in set(shown) else []
    return "; ".join([first, *tick, *heads, *fixed])


def variant(one: Variant) -> str:
    """What options change, in words: ``with mode=random: weight transport no``."""
    changes = (f"{name(field)} {_word(value)}" for field, value in one.changes.items())
    return f"with {' and '.join(one.options)}: {', '.join(changes)}"


def _word(value: bool | int | str) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
