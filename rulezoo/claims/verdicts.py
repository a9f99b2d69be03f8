"""From intervals over seeds to a verdict.

A criterion has parts, each a number with its interval over seeds and a threshold. The verdict rests on those that are
judged. **Supported**: every one of them holds. **Not supported**: at least one is refuted. **Inconclusive**: neither.
That all parts hold needs no correction for their number; that one is refuted stands on the 95 % of that part alone.
Parts that are reported and not judged are counted separately, and never change the word.

Intervals are Student's t over seeds, n − 1 degrees of freedom, of differences between runs of the same seed where two
rules are compared (same data, initial weights and batches). They take the runs of a rule to scatter normally. At three
seeds they are 2.5 sample standard deviations wide to each side, and one seed has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rulezoo.text import number

Word = Literal["supported", "not supported", "inconclusive"]

COVERAGE = 0.95
METHOD = "95 % Student's t intervals over seeds, paired where two rules are compared"


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval; infinitely wide with fewer than two of them.

    Attributes:
        mean: nan without any.
        low: lower end.
        high: upper end.
        n: number of seeds.
    """

    mean: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 1, unit: str = "", *, sign: bool = False) -> str:
        """E.g. ``+3.1 [−1.2, 5.0]``."""
        if not self.n:
            return "—"
        mean = f"{number(self.mean, digits, signed=sign)}{unit}"
        if self.n == 1:
            return f"{mean} (one seed)"
        return f"{mean} [{number(self.low, digits)}, {number(self.high, digits)}]"

    def scaled(self, factor: float) -> Interval:
        """In other units; ``factor`` > 0."""
        return Interval(self.mean * factor, self.low * factor, self.high * factor, self.n)


def t_interval(values: Iterable[float]) -> Interval:
    """The mean of some values, one for each seed, with its 95 % Student's t interval. Values that are none are left out."""
    from scipy import stats

    x = [value for value in values if math.isfinite(value)]
    n = len(x)
    mean = math.fsum(x) / n if n else math.nan
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in x) / (n - 1))
    reach = float(stats.t.ppf((1 + COVERAGE) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(mean, mean - reach, mean + reach, n)


@dataclass(frozen=True)
class Part:
    """One condition of a verdict rule.

    Attributes:
        holds: ``True``, ``False`` if it is refuted, ``None`` if it is open.
        text: what was measured, and what was required of it.
        kind: what it is about in one or two words, such as ``"score"``; parts of a kind are counted together.
        judged: whether the verdict rests on it; otherwise it is reported alongside.
    """

    holds: bool | None
    text: str
    kind: str = "condition"
    judged: bool = True

    @property
    def name(self) -> str:
        """What was measured."""
        return self.text.partition(": ")[0]

    @property
    def state(self) -> str:
        """``holds``, ``refuted`` or ``open``."""
        return "open" if self.holds is None else "holds" if self.holds else "refuted"


def above(
    what: str,
    found: Interval,
    threshold: float,
    digits: int = 1,
    unit: str = "",
    *,
    kind: str = "condition",
    judged: bool = True,
) -> Part:
    """The whole interval must lie above a threshold; it is refuted where the whole interval lies below."""
    holds = True if found.low > threshold else False if found.high < threshold else None
    text = f"{what}: {found.text(digits, unit, sign=threshold == 0)}; required: > {threshold:g}{unit}"
    return Part(holds, text, kind, judged)


def below(
    what: str,
    found: Interval,
    threshold: float,
    digits: int = 2,
    unit: str = "",
    *,
    kind: str = "condition",
    judged: bool = True,
) -> Part:
    """The whole interval must lie below a threshold; it is refuted where the whole interval lies above."""
    holds = True if found.high < threshold else False if found.low > threshold else None
    text = f"{what}: {found.text(digits, unit)}; required: < {threshold:g}{unit}"
    return Part(holds, text, kind, judged)


def no_worse(
    what: str,
    found: Interval,
    margin: float,
    digits: int = 1,
    unit: str = "",
    *,
    kind: str = "condition",
    judged: bool = True,
) -> Part:
    """The interval of a difference must reach 0, and the mean be at most ``margin`` below; refuted where it does not reach 0."""
    holds = None if not found.n else False if found.high < 0 else True if found.mean >= -margin else None
    required = f"required: an interval that reaches 0, and a mean of −{margin:g}{unit} or more"
    return Part(holds, f"{what}: {found.text(digits, unit, sign=True)}; {required}", kind, judged)


@dataclass(frozen=True)
class Verdict:
    """What a study says of its claim, and the parts on which that rests; made by `conclude`.

    Attributes:
        word: the verdict.
        parts: the conditions, those that are reported and not judged included.
        notes: sentences that a reader should see with the verdict, such as the crossover of two rules.
    """

    word: Word
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def counts(self, *, judged: bool = True) -> str:
        """How many parts of each kind hold, e.g. ``score 2 of 2``, of those that are judged or of the others."""
        kinds: dict[str, list[Part]] = {}
        for part in self.parts:
            if part.judged is judged:
                kinds.setdefault(part.kind, []).append(part)
        return ", ".join(
            f"{kind} {sum(part.holds is True for part in parts)} of {len(parts)}"
            for kind, parts in kinds.items()
        )

    def text(self) -> str:
        """The word with its parts, e.g. ``supported (score 2 of 2; also reported: angle 1 of 2)``."""
        reported = self.counts(judged=False)
        counts = [self.counts(), f"also reported: {reported}" if reported else ""]
        inner = "; ".join(filter(None, counts))
        return f"{self.word} ({inner})" if inner else self.word

    def details(self) -> str:
        """The same with the names of the parts, by their state, unless all of them hold."""
        if all(part.holds for part in self.parts):
            return self.text()
        by_state = {
            state: [
                part.name + " (not judged)" * (not part.judged) for part in self.parts if part.state == state
            ]
            for state in ("holds", "open", "refuted")
        }
        return ". ".join(
            [
                self.text(),
                *(f"{state.capitalize()}: {'; '.join(found)}" for state, found in by_state.items() if found),
            ]
        )


def conclude(parts: Iterable[Part], notes: Iterable[str] = ()) -> Verdict:
    """Of the parts that are judged: all hold: supported; one refuted: not supported; else, or without any, inconclusive."""
    parts = tuple(parts)
    held = [part.holds for part in parts if part.judged]
    word: Word = "inconclusive"
    if held and all(held):
        word = "supported"
    elif False in held:
        word = "not supported"
    return Verdict(word, parts, tuple(notes))
