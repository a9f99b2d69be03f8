"""Numbers and words as the pages write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.published import Published
    from rulezoo.leaderboard.references import Verdict
    from rulezoo.leaderboard.stats import Comparison, Estimate

NOTHING = "–"
_LINKS = re.compile(r"https://[^\s,;]+|arXiv:\d{4}\.\d{4,5}|doi:10\.[^\s,;]+")
_RESOLVERS = {"arXiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}


def finalize(value: object) -> object:
    """What Jinja does to every value before it escapes it: the control codes of plugins go."""
    return value if isinstance(value, Markup) else clean(value)


def percent(score: float | None) -> str:
    """``"97.2"`` for 0.972."""
    return NOTHING if score is None else f"{100 * score:.1f}"


def number(value: float | None, digits: int = 2) -> str:
    """With a fixed number of digits, and a true minus."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")


def estimate(found: Estimate | None, digits: int = 2, factor: float = 1.0) -> str:
    """``"0.97 (0.95 to 0.98)"``; without brackets where there is no interval."""
    if found is None:
        return NOTHING
    value, low, high = (number(factor * x, digits) for x in (found.value, found.low, found.high))
    return value if found.method == "none" else f"{value} ({low} to {high})"


def probability(test: Comparison | None) -> str:
    """The corrected p of a comparison."""
    if test is None:
        return NOTHING
    return "p < 0.001" if test.p_holm < 0.001 else f"p = {test.p_holm:.3f}"


def difference(test: Comparison | None) -> str:
    """The difference of a comparison, with its sign."""
    return NOTHING if test is None else f"{test.difference:+.2f}".replace("-", "−")


def linked(text: str) -> Markup:
    """A reference with its addresses, arXiv numbers and DOIs made links; all else stays text."""
    safe, parts, end = clean(text), [], 0
    for found in _LINKS.finditer(safe):
        word = found[0].rstrip(".)")
        prefix = next((p for p in _RESOLVERS if word.startswith(p)), "")
        address = _RESOLVERS.get(prefix, "") + word.removeprefix(prefix)
        parts += [
            escape(safe[end : found.start()]),
            Markup('<a href="{}" rel="external">{}</a>').format(address, word),
        ]
        end = found.start() + len(word)
    return Markup("").join([*parts, escape(safe[end:])])


def gap(published: Published, verdict: Verdict) -> str:
    """Our number beside a published one, in points."""
    return NOTHING if verdict.ours is None else number(100 * (verdict.ours - published.score), 1)
