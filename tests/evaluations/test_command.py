"""``rulezoo evaluate`` and what ``rulezoo leaderboard`` shows of it."""

import csv
import io
import json
import re

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.evaluations import store as stored
from rulezoo.results.store import Store


def run(*words):
    done = CliRunner().invoke(cli, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_an_evaluation_of_kept_networks_is_stored_shown_and_not_made_again(store):
    words = ("evaluate", "--with", "size", "-o", "size.power=3", "--out", store.root)
    done = run(*words)
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert re.fullmatch(
        r"rulezoo: 1 run left out, whose weights were not kept: run again with --keep-weights; seed 2 took about \d+ \w+",
        lines[0],
    )
    assert lines[1] == "3 of 3 evaluations to do"
    assert re.fullmatch(r"tiny  backprop  seed 0  size power=3  size [\d.]+", lines[2])
    assert lines[4] == "tiny  frozen  seed 0  size power=3  skipped: this rule is never measured"
    assert "rulezoo leaderboard --out" in done.stdout
    again = run(*words)
    assert again.stderr.splitlines()[1:] == ["all 3 evaluations are stored already"]
    table = run("leaderboard", "--out", store.root).stdout
    values = [one.values["size"] for one in stored.read(store).found if one.status == "ok"]
    mean = sum(values) / len(values)
    assert re.search(rf"^backprop .* {mean:.3f} ± \d\.\d+ \(n=2\)", table, re.MULTILINE)
    assert "size power=3.0" in table
    assert "size ↓" in table
    assert "size power=3.0 skipped: this rule is never measured (1 of 1)" in table


def test_only_the_runs_that_are_named_are_evaluated(store):
    done = run("evaluate", "--with", "size", "--rules", "backprop", "--seeds", "1-1", "--out", store.root)
    assert done.exit_code == 0, done.output
    assert [one.asked.seed for one in stored.read(store).found] == [1]


def test_one_that_fails_is_named_shown_and_evaluated_again_where_that_is_asked_for(store):
    words = ("evaluate", "--with", "odd,size", "--rules", "backprop", "--seeds", "2", "--out", store.root)
    done = run(*words)
    assert done.exit_code == 1
    assert "rulezoo: evaluation odd failed on 2 networks: ValueError: no luck in …/file.txt" in done.stderr
    assert "the same command with --retry failed evaluates it again" in done.stderr
    table = run("leaderboard", "--out", store.root).stdout
    assert "odd error: ValueError: no luck in …/file.txt (2 of 2)" in table
    assert "2 of 4 evaluations to do, 2 stored already" in run(*words, "--retry", "failed").stderr
    assert "all 4 evaluations are stored already" in run(*words, "--retry", "stale").stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--with", "siz"], "unknown evaluation 'siz'; did you mean 'size'? (rulezoo list evaluations)"),
        (["--with", "size", "-o", "size.powr=2"], "size has no option 'powr'; did you mean 'power'?"),
        (["--with", "size", "--rules", "bakprop"], "unknown rule 'bakprop'; did you mean 'backprop'? (stored: "),
        (["--with", "size", "--rules", "backprop", "--seeds", "2-2"],
         "no trained weights of these runs were kept: run again with --keep-weights; seed 2 took about"),
        (["--with", "size", "--seeds", "7-9"], "has the rules, tasks and seeds that were asked for; `rulezoo status --out"),
        (["--with", "odd", "-o", "odd.how=missing"], "the recordings are not in"),
        (["--with", "size", "--retry", "odd"], "'odd' is none of failed, stale, all"),
        ([], "Missing option '--with'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(store, words, reason):
    done = run("evaluate", *words, "--out", store.root)
    assert done.exit_code == 2
    assert reason in done.stderr.splitlines()[-1]


def test_weights_that_were_changed_are_named_and_the_others_evaluated(store, kept):
    store.kept_path(kept[0].asked, "weights").write_bytes(b"not weights")
    done = run("evaluate", "--with", "size", "--out", store.root)
    assert done.exit_code == 1
    assert "rulezoo: not evaluated: the trained weights of backprop on tiny, seed 0:" in done.stderr
    assert len(stored.read(store).found) == 2


@pytest.fixture
def evaluated(store):
    """A store with an evaluation of every network, one of them changed by hand."""
    assert run("evaluate", "--with", "size", "--out", store.root).exit_code == 0
    return store


def test_every_form_of_the_leaderboard_has_the_evaluations(evaluated, tmp_path):
    values = [one.values["size"] for one in stored.read(evaluated).found if one.status == "ok"]
    mean = sum(values) / 2

    def form(name):
        return run("leaderboard", "--format", name, "--out", evaluated.root).stdout

    lines = list(csv.DictReader(io.StringIO(form("csv"))))
    (line,) = [line for line in lines if line["rule"] == "backprop"]
    assert float(line["size size mean"]) == pytest.approx(mean)
    assert (line["size size n"], lines[1]["size size mean"]) == ("2", "")
    board = json.loads(form("json"))
    assert board["columns"][0]["evaluations"] == [
        {"label": "size", "headline": "size", "higher_is_better": False}
    ]
    assert board["lines"][0]["default"]["cells"][0]["evaluations"][0]["mean"] == pytest.approx(mean)
    markdown = form("md").splitlines()
    head = markdown.index("") + 1
    assert "| tiny, size: size ↓ |" in markdown[head]
    assert f"**{mean:.3f} ± " in next(line for line in markdown if line.startswith("| backprop"))
    assert len({line.count("|") for line in markdown[head : head + 4]}) == 1
    latex = form("latex")
    assert r"\multicolumn{2}{c}{tiny}" in latex
    assert rf"\textbf{{{mean:.3f} $\pm$ " in latex
    assert r"size: size $\downarrow$" in latex
    assert run("leaderboard", "--out", evaluated.root, "--html", tmp_path / "pages").exit_code == 0
    for page in ("index.html", "tasks/tiny.html", "rules/backprop.html"):
        text = (tmp_path / "pages" / page).read_text(encoding="utf-8")
        assert f"{mean:.3f}" in text, page
        assert "size" in text
        assert "↓" in text


def test_a_leaderboard_without_evaluations_is_as_it_was(store):
    text = run("leaderboard", "--format", "json", "--out", store.root).stdout
    assert "evaluations" not in text
    assert "size" not in run("leaderboard", "--format", "csv", "--out", store.root).stdout


def test_what_is_out_of_date_is_said_in_a_note(evaluated):
    one = stored.read(evaluated).found[0]
    stored.put(evaluated, msgspec.structs.replace(one, code="0" * 16, arrays=None))
    other = stored.read(evaluated).found[1]
    stored.put(evaluated, msgspec.structs.replace(other, data="def", arrays=None))
    table = run("leaderboard", "--out", evaluated.root).stdout
    assert "stale: the code of evaluation size changed since (1 of 2)" in table
    assert "size: other data than in the rest of the column (hash " in table


def test_a_published_copy_has_the_evaluations_with_their_arrays(evaluated, tmp_path):
    assert run("leaderboard", "--out", evaluated.root, "--publish", tmp_path / "copy").exit_code == 0
    before, after = stored.read(evaluated).found, stored.read(Store(tmp_path / "copy")).found
    assert before == after
    assert stored.arrays_of(Store(tmp_path / "copy"), after[0]).keys() == {"file"}


def test_a_comparison_evaluates_its_networks_after_training_and_keeps_their_weights(plugin, tmp_path):
    out = tmp_path / "made"
    words = (
        *("compare", "--rules", "backprop,frozen", "--tasks", "tiny", "--seeds", "2", "--epochs", "1"),
        *(
            "--device",
            "cpu",
            "--evaluate",
            "size,odd",
            "-o",
            "size.power=2,3",
            "-o",
            "odd.how=exit",
            "--out",
            out,
        ),
    )
    done = run(*words)
    assert done.exit_code == 1
    assert "12 evaluations to do" in done.stderr
    assert (
        "rulezoo: evaluation odd how=exit failed on 4 networks; the first: evaluation 'odd' of "
        in done.stderr
    )
    assert "size power=3.0" in done.stdout
    assert all(record.weights for record in Store(out).read().records)
    found = stored.read(Store(out)).found
    assert sorted({one.label for one in found}) == ["odd how=exit", "size", "size power=3.0"]
    assert {one.status for one in found} == {"ok", "skipped", "crashed"}
    assert "all 12 evaluations are stored already" in run(*words).stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--evaluate", "siz"], "unknown evaluation 'siz'; did you mean 'size'?"),
        (["-o", "size.power=3"], "'size' is not compared here"),
        (["--evaluate", "size", "-o", "size.power=0"], "size.power must be a number in [1, inf), got '0'"),
    ],
)
def test_a_comparison_refuses_evaluations_before_it_trains(plugin, tmp_path, words, reason):
    done = run("compare", "--rules", "backprop", "--tasks", "tiny", *words, "--out", tmp_path / "made")
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not list((tmp_path / "made").rglob("*.json"))
