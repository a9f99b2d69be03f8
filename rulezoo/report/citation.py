"""BibTeX of the papers that a rule cites, from the text of its reference.

A reference lists papers, with ``;`` between them: authors and year, then the title, then a doi, an arXiv number or an address. What is
not written so is not made up: an entry has the fields that the text has, and a paper without authors and year has no entry.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_PAPER = re.compile(r"(?P<authors>[^\d;]+?) (?P<year>(?:19|20)\d\d)\b(?P<rest>.*)", re.DOTALL)
_DOI = re.compile(r"\bdoi:(10\.[^\s,;]+)")
_ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})")
_PAGE = re.compile(r"(?:https://)?\b((?:openreview\.net|github\.com)/[^\s,;]+)")
_VENUE = re.compile(r" \(([^()]+)\)$")
_LEAD = re.compile(r"^(?:[^:,]*:|.*\b(?:of|in|after)) (?=\S)", re.DOTALL)
_STOP = frozenset(("a", "an", "the", "on", "of", "in", "and", "how", "towards"))


class Entry(NamedTuple):
    """A BibTeX entry: its key and its fields, in order."""

    key: str
    fields: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        kind = "article" if any(name == "journal" for name, _ in self.fields) else "misc"
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields]
        return "\n".join([f"@{kind}{{{self.key},", *lines, "}"])


def entries(reference: str) -> list[Entry]:
    """The papers of a reference."""
    found = [entry for part in reference.split(";") if (entry := _entry(part.strip()))]
    return list({entry.key: entry for entry in found}.values())


def bibtex(reference: str) -> str:
    """The same as text; empty without papers."""
    return "\n\n".join(map(str, entries(reference)))


def _entry(part: str) -> Entry | None:
    paper = _PAPER.fullmatch(part)
    if paper is None:
        return None
    authors = _authors(_LEAD.sub("", paper["authors"]))
    if not authors:
        return None
    rest = paper["rest"].lstrip(", ")
    fields = [("author", " and ".join(authors)), ("year", paper["year"])]
    if title := _title(rest):
        venue = _VENUE.search(title)
        fields.insert(1, ("title", f"{{{_VENUE.sub('', title)}}}"))
        fields += [("howpublished", venue[1])] if venue else []
    return Entry(
        _key(authors[0], paper["year"], title), tuple((n, _escaped(v)) for n, v in [*fields, *_ids(rest)])
    )


def _ids(rest: str) -> Iterator[tuple[str, str]]:
    """Identifiers that follow each other; what comes behind other words is of another paper."""
    at = min(_starts(rest), default=len(rest))
    while found := next((one for pattern in (_DOI, _ARXIV, _PAGE) if (one := pattern.match(rest, at))), None):
        value = found[1].rstrip(".)")
        if found.re is _DOI:
            yield "doi", value
        elif found.re is _ARXIV:
            yield from (("eprint", value), ("archiveprefix", "arXiv"))
        else:
            yield "url", f"https://{value}"
        at = found.end() + len(", ")


def _starts(rest: str) -> list[int]:
    return [found.start() for pattern in (_DOI, _ARXIV, _PAGE) if (found := pattern.search(rest))]


def _authors(text: str) -> list[str]:
    """Names, each with a capital or a small particle; empty where the text is no list of names."""
    names = [name.strip() for name in re.split(r",| & | and ", text.replace(" et al.", ", others"))]
    names = [name for name in names if name]
    are_names = all(
        name == "others"
        or re.fullmatch(r"(?:(?:van|de|der|von) )*[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*)*", name)
        for name in names
    )
    return names if are_names else []


def _title(rest: str) -> str:
    """What stands in front of the first identifier."""
    title = rest[: min(_starts(rest), default=len(rest))].strip(" ,.")
    return "" if title.startswith("with ") else title


def _key(author: str, year: str, title: str) -> str:
    name = (
        unicodedata.normalize("NFKD", author.replace("ø", "o").replace("Ø", "O"))
        .encode("ascii", "ignore")
        .decode()
    )
    first = next((word for word in re.findall(r"[a-z]+", title.lower()) if word not in _STOP), "")
    return re.sub(r"[^a-z]", "", name.lower()) + year + first


def _escaped(value: str) -> str:
    """Without what would end a field or is a command: entries are copied into a paper's sources."""
    braced = value.startswith("{") and value.endswith("}")
    inner = re.sub(r"[{}\\]", "", value[1:-1] if braced else value)
    inner = re.sub(r"(?<!\\)([&%#$])", r"\\\1", inner)
    return f"{{{inner}}}" if braced else inner
