"""Claims in the report: verdicts first, quick ones marked; and the page on theory has what `theory.md` has."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rulezoo.claims.installed import findings as installed
from rulezoo.claims.report import duration, theory
from rulezoo.claims.report import page as markdown
from rulezoo.discovery.registry import discover
from rulezoo.report import claims_pages
from rulezoo.report.build import report

CLAIMS = Path(__file__).resolve().parents[2] / "leaderboard" / "claims"
pytestmark = pytest.mark.slow  # reads every stored study


@pytest.fixture(scope="module")
def findings():
    return installed(discover(), CLAIMS)[0]


@pytest.fixture(scope="module")
def files(findings, runs):
    return report([*runs("backprop", [0.9, 0.9])], discover(), claims=findings)


def test_the_table_of_verdicts_stands_first_and_has_every_claim(files, findings):
    page = files["claims.html"].decode()
    table, _, rest = page.partition("</table>")
    assert "<blockquote>" not in table
    for one in findings:
        assert f'<a href="#{one.claim.name}">' in table
        assert html.escape(one.claim.statement, quote=False).replace("&#39;", "'")[:40] in html.unescape(
            table
        )
        assert f'id="{one.claim.name}"' in rest


def test_a_quick_verdict_is_marked_as_such(files, findings):
    page = files["claims.html"].decode()
    quick = [row for row in claims_pages.summary(findings) if row.profile == "quick"]
    assert quick
    assert page.count("reduced scale</small>") == len(quick)


def test_rows_tell_verdict_parts_runs_and_time(findings):
    rows = {(row.claim, row.profile): row for row in claims_pages.summary(findings)}
    for one in findings:
        if one.verdict:
            row = rows[one.claim.name, one.profile]
            assert (row.verdict, row.parts) == (one.verdict.word, one.verdict.counts())
            assert row.runs == str(one.evidence.planned)
            assert re.fullmatch(r"\d+ min|\d+\.\d h", row.hours)
    (unfinished,) = claims_pages.summary([next(one for one in findings if not one.evidence.done)])
    assert unfinished.runs.startswith("0 of ")
    assert not unfinished.word


def test_seeds_that_were_trained_together_count_once(runs, replaced):
    two = runs("nmnc", [0.9, 0.8])
    assert duration(two) == "1 min"
    ended = replaced(two[1].answered, finished="2026-01-01T01:30:00+00:00")
    assert duration([two[0], replaced(two[1], answered=ended)]) == "1.5 h"


def test_runs_of_older_code_are_marked(findings, runs):
    whole = next(one for one in findings if one.verdict)
    old = replace(whole, outdated=1)
    count = (
        f"1 of {len({record.asked.key for record in whole.evidence.records})} judged runs are of older code"
    )
    page = report([*runs("backprop", [0.9, 0.9])], discover(), claims=[old])["claims.html"].decode()
    assert page.count(count) == 2  # in the table of verdicts, and at the verdict
    written = markdown([old])
    assert written.count(count) == 2
    assert "older code" not in markdown([whole])


def test_the_page_on_theory_has_the_tables_of_the_document(files, findings):
    page = files["theory.html"].decode()
    cells = html.unescape(re.sub(r"<[^>]*>", "\n", page))
    found = theory(findings)
    assert found.tables
    for table in (*found.tables, *(table for _, table in found.crossovers)):
        for row in table.rows:
            assert all(" ".join(cell.split()) in cells for cell in row), row
    assert "pictures/theory.svg" in files
    assert 'href="theory.html"' in files["claims.html"].decode()


def test_without_a_complete_study_there_is_no_page_on_theory(findings):
    assert claims_pages.theory([one for one in findings if not one.evidence.done]) is None
