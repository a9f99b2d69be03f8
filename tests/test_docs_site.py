"""The documentation as a web site: it builds without a warning, its links lead somewhere, and it requests nothing from outside."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "sphinx_external_toc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not beside these tests"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="the site needs Sphinx and what is with it in the extra docs: pip install '.[docs]'",
    ),
]
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "srcset",
    "object": "data",
    "embed": "src",
}


@dataclass
class Seen(HTMLParser):
    """What a page of the site refers to: anchors of its own, links, and files that a browser loads with it."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") not in {
            "index",
            "search",
            "next",
            "prev",
            "author",
            "canonical",
        }:
            self.loaded.append(found.get("href", ""))
        if LOADED.get(tag) in found:
            self.loaded.append(found[LOADED[tag]])


def build(source, target):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    return subprocess.run(
        [*command, "-d", f"{target}-cache", str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )


def read(page):
    seen = Seen()
    seen.feed(page.read_text(encoding="utf-8"))
    return seen


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("documentation") / "html"
    done = build(ROOT, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def pages(site):
    return {page: read(page) for page in sorted(site.rglob("*.html"))}


def test_every_page_of_the_repository_is_in_the_site(site):
    for page in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("leaderboard/*/*.md")]:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").is_file(), page


def test_every_link_leads_to_a_page_and_an_anchor(pages):
    lost = []
    for page, seen in pages.items():
        for link in [*seen.links, *seen.loaded]:
            there = urlsplit(link)
            if there.scheme or there.netloc:
                continue
            target = (page.parent / unquote(there.path)).resolve() if there.path else page
            if not target.is_file():
                lost.append(f"{page.name}: {link}")
            elif there.fragment and target in pages and unquote(there.fragment) not in pages[target].anchors:
                lost.append(f"{page.name}: {link} (no such anchor)")
    assert not lost, "\n".join(lost)


def test_nothing_is_requested_from_another_host(site, pages):
    for page, seen in pages.items():
        outside = [one for one in seen.loaded if urlsplit(one).netloc]
        assert not outside, f"{page.name}: {outside}"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), sheet.name


def test_formulas_are_mathml_and_none_is_left_as_tex(site):
    page = (site / "docs" / "nmnc-mathematics.html").read_text(encoding="utf-8")
    assert page.count("<math") > 30
    text = re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "$" not in text
    assert not re.search(r"\\(mathbb|frac|xi|top)\b", text)


def test_a_figure_has_a_form_for_dark_pages(site):
    page = (site / "docs" / "concepts.html").read_text(encoding="utf-8")
    classes = re.findall(r'<img[^>]*class="([^"]*)"[^>]*src="[^"]*sites(?:-dark)?\.svg"', page)
    assert sorted(classes) == ["only-dark", "only-light"]


def test_no_page_names_a_path_of_this_machine(site):
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page.name


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("# Home\n\n[a page](missing.md)\n", "missing.md"),
        ("# Home\n\n[an anchor](#nowhere)\n", "nowhere"),
        ("# Home\n\n![a picture](missing.svg)\n", "missing.svg"),
    ],
)
def test_what_is_missing_ends_the_build(tmp_path, text, warning):
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "index.md").write_text(text, encoding="utf-8")
    (source / "docs" / "toc.yml").write_text("root: docs/index\n", encoding="utf-8")
    done = build(source, tmp_path / "html")
    assert done.returncode == 1, done.stdout + done.stderr
    assert warning in done.stderr
