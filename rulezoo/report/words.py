"""Numbers and words as the pages write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.published import Published
    from rulezoo.leaderboard.references import Verdict

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
