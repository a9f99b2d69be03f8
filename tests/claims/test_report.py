"""The page, the figures, and the command line."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from rulezoo.claims.advantage import Advantage
from rulezoo.claims.design import Claim, Study
from rulezoo.claims.evidence import gather
from rulezoo.claims.installed import installed
from rulezoo.claims.report import Finding, page, write
from rulezoo.claims.running import stored
from rulezoo.cli import main
from rulezoo.discovery.registry import discover

CLAIMS = {claim.name: claim for claim in installed(discover())[0]}


@pytest.fixture
def finding(arm, record):
    """A finding with so many of its eight runs."""

    def make(runs, **fields):
        arms = [
            arm(label, at, rule=label, probes=1, seeds=[0, 1], options={"perturbations": f"{at:g}"})
            for at in (8.0, 200.0)
            for label in ("ours", "theirs")
        ]
        sites = {
            "conv": {"units": 4096.0, "angle": 60.0, "rank": 32.0, "alpha_mean_gradient": 0.5, "spread": 1.0}
        }
        records = [
            record(one, seed, test=0.5 if one.label == "ours" else 0.4 - seed / 100, probes=sites, **fields)
            for one in arms
            for seed in one.seeds
        ]
        study = Study(tuple(arms), "reduced: little", "no time")
        criterion = Advantage("ours", "theirs", 8, 10, 1, "rate")
        claim = Claim(
            "a-claim",
            "Ours | *is* <b>better</b>.",
            "us",
            criterion,
            {"quick": study},
            "A remark.\n\nAnother.",
        )
        return Finding(claim, "quick", gather(study, records[:runs]))

    return make


def test_a_claim_that_was_not_run_says_so_and_draws_nothing(finding, tmp_path):
    written = write([finding(0)], tmp_path)
    assert [path.name for path in written] == ["README.md"]
    text = written[0].read_text()
    assert "### a-claim, quick profile: not run" in text
    assert "`rulezoo claims run a-claim --profile quick`" in text
    assert "**Verdict (" not in text


def test_a_partial_one_says_how_much_there_is_and_gives_no_verdict(finding):
    text = page([finding(7)])
    assert "7 of 8 runs, no verdict yet" in text
    assert "**Verdict (" not in text
    assert finding(7).verdict is None


def test_a_whole_one_has_verdict_rule_protocol_numbers_and_figure(finding, tmp_path):
    written = write([finding(8)], tmp_path)
    text = written[0].read_text()
    assert "**Verdict (quick profile): supported (score 1 of 1; also reported: angle 0 of 1)**" in text
    assert (
        "- refuted (not judged): a-task, angle at conv of theirs − ours: 0.0° \\[0.0, 0.0]; required: &gt; 10°"
        in text
    )
    assert "Crossover on a-task, " in text
    for part in ("**Verdict rule.**", "| ours | ours, perturbations=8/200 |", "| 0-1 |", "Computed on a machine (2 cores, 1 thread)", "A remark.",
                 "Ours | \\*is\\* &lt;b&gt;better&lt;/b&gt;.", "paper"):  # fmt: skip
        assert part in text, part
    (alternative, image) = re.findall(r"!\[(.+)\]\((.+\.svg)\)", text)[0]
    assert "a panel with the test score" in alternative
    assert image == written[1].name
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 5  # all claims; protocol; scores; angles; crossover
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_same_records_give_the_same_bytes(finding, tmp_path):
    first, second = (write([finding(8)], tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_figure_is_a_picture_without_the_machine(finding, tmp_path):
    svg = write([finding(8)], tmp_path)[1].read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert str(tmp_path) not in svg
    assert "dc:date" not in svg


def test_failed_runs_are_named(finding):
    text = page([finding(8, status="diverged")])
    assert "- ours on a-task, 8, seed 0: diverged, a reason" in text
    assert "count at chance level" in text


def test_every_claim_is_on_the_page_before_anything_is_run(tmp_path):
    findings = [
        Finding(claim, profile, stored(tmp_path, claim, profile))
        for claim in CLAIMS.values()
        for profile in claim.studies
    ]
    text = page(findings)
    for claim in CLAIMS.values():
        assert f"## {claim.name}" in text
        assert text.count(f"profile {'quick'}`") == len(CLAIMS)
    assert text.count(": not run") == len(findings)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["rulezoo", "claims", *words])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return command


def test_the_claims_are_listed_with_their_state(command):
    code, out, _ = command("list")
    assert code == 0
    for claim in CLAIMS.values():
        assert re.search(
            rf"^{claim.name} +quick +{claim.studies['quick'].runs} .*not run$", out, re.MULTILINE
        )
        assert claim.statement in out


def test_the_report_is_written_where_it_belongs(command, tmp_path):
    code, out, _ = command("report")
    assert (code, out) == (0, "leaderboard/claims/README.md\n")
    assert (tmp_path / out.strip()).read_text().startswith("# Claims put to the test")


def test_an_unknown_claim_is_one_line_on_stderr(command):
    code, out, err = command("run", "alignement")
    assert (code, out) == (2, "")
    assert err == "rulezoo: unknown claim 'alignement'; did you mean 'alignment'? (rulezoo list claims)\n"


def test_listing_imports_nothing_heavy():
    code = "import sys; from rulezoo.cli import main; sys.argv = ['rulezoo', 'claims', 'list']\n"
    code += "try: main()\nexcept SystemExit as left: assert not left.code\n"
    code += "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
