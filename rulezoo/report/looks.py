"""How a rule is drawn, the same in every figure: the colour of its family, the marker of its plausibility, a dash of its own.

Colours are variables of the page, since a colour that can be read on white cannot be read on black. `COLOURS` has both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rulezoo.leaderboard.grid import FLOOR, REFERENCE

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Overview

#: Variable → colour on a light page, colour on a dark page. The hues can be told apart by colour-blind readers in pairs of
#: neighbours; beyond that, dashes, markers and names tell.
COLOURS = {
    "ink": ("#1f2430", "#e2e6ec"),
    "soft": ("#5a6372", "#a3acb9"),
    "line": ("#d5dae0", "#3b434e"),
    "c0": ("#0067a8", "#62b6ee"),
    "c1": ("#c04c00", "#f79a5c"),
    "c2": ("#00755a", "#46cda1"),
    "c3": ("#94438f", "#dfa0da"),
    "c4": ("#856a00", "#dcc14c"),
    "c5": ("#c22f6b", "#ff92bb"),
    "c6": ("#5a55c4", "#b0adff"),
    "c7": ("#3f6f78", "#9ccbd4"),
}
_HUES = [name for name in COLOURS if name.startswith("c")]
#: Lengths of dashes and gaps, in points; the first is solid.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.6)),
    (0, (6, 2, 1.2, 2)),
    (0, (10, 3)),
    (0, (6, 2, 1.2, 2, 1.2, 2)),
    (0, (2.5, 1.5)),
    (0, (10, 2, 3, 2)),
)


class Class(NamedTuple):
    """A class of plausibility: the first implausible feature that a rule has, in this order, and its marker."""

    name: str
    marker: str


TRANSPORT = Class("weight transport", "s")
BACKWARD = Class("sequential backward pass, no weight transport", "^")
LOCKED = Class("update locking, no backward pass", "D")
LOCAL = Class("none of the three", "o")
UNKNOWN = Class("not declared", "X")
CLASSES = (TRANSPORT, BACKWARD, LOCKED, LOCAL, UNKNOWN)
_FEATURES = (("weight_transport", TRANSPORT), ("backward_pass", BACKWARD), ("update_locking", LOCKED))


@dataclass(frozen=True)
class Look:
    """How a rule is drawn.

    Attributes:
        colour: key of `COLOURS`.
        dash: of its lines, as matplotlib takes it.
        plausibility: its class, which has the marker.
    """

    colour: str = "soft"
    dash: Any = "-"
    plausibility: Class = UNKNOWN

    @property
    def marker(self) -> str:
        """Of its points."""
        return self.plausibility.marker


@dataclass(frozen=True)
class Looks:
    """The looks of all lines of a leaderboard.

    Attributes:
        lines: label of a line → its look.
        rules: name of a rule → the look of its first line.
        families: family → key of its colour, in the order of the catalogue.
    """

    lines: Mapping[str, Look]
    rules: Mapping[str, Look]
    families: Mapping[str, str]

    @classmethod
    def of(cls, overview: Overview, catalogue: Sequence[str]) -> Looks:
        """The looks of an overview's lines; the reference and the floor are drawn in the colours of text.

        Marker and dash tell rules apart without their colour, unless more rules than there are dashes share a marker.

        Args:
            overview: whose lines are drawn.
            catalogue: names of rules, in whose order families get colours, and rules with one marker dashes.
        """
        places = {rule: i for i, rule in enumerate(catalogue)}
        lines = sorted(overview.lines, key=lambda line: (places.get(line.rule, len(places)), line.label))
        families: dict[str, str] = {}
        found: dict[str, Look] = {}
        alike: Counter[Class] = Counter()
        for line in lines:
            shown = plausibility_class(line.plausibility)
            dash = DASHES[alike[shown] % len(DASHES)]
            alike[shown] += 1
            if line.rule in (REFERENCE, FLOOR):
                hue = "ink" if line.rule == REFERENCE else "soft"
            else:
                hue = families.setdefault(line.family, _HUES[len(families) % len(_HUES)])
            found[line.label] = Look(hue, dash, shown)
        return cls(found, {line.rule: found[line.label] for line in reversed(lines)}, families)

    def of_rule(self, rule: str) -> Look:
        """The look of a rule, whatever its options."""
        return self.rules.get(rule, Look())

    def __getitem__(self, label: str) -> Look:
        return self.lines.get(label, Look())


def plausibility_class(marks: Mapping[str, str]) -> Class:
    """The class of a rule by its marks; a mark that differs between settings counts as the implausible one."""
    if not marks:
        return UNKNOWN
    return next((one for field, one in _FEATURES if marks.get(field, "no") != "no"), LOCAL)


def style(selector: str) -> str:
    """The colours as style sheet rules for `selector`, which follow the reader's light or dark scheme."""
    return f"{selector}{{{_variables(0)}}}@media (prefers-color-scheme:dark){{{selector}{{{_variables(1)}}}}}"


def page_style() -> str:
    """The colours that figures add to those of a page, whose scheme the reader can choose."""
    pairs = ";".join(f"--{name}:light-dark({COLOURS[name][0]},{COLOURS[name][1]})" for name in _HUES)
    return f":root{{{pairs}}}\n"


def _variables(form: int) -> str:
    return ";".join(f"--{name}:{pair[form]}" for name, pair in COLOURS.items())
