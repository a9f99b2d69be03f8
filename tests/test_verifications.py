"""What `rulezoo verify --out` stores, and what a leaderboard makes of it: verified, stale, failed, or nothing at all."""

import csv
import io
import json
import re

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.discovery.fingerprint import fingerprint
from rulezoo.discovery.former_fingerprints import first
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.leaderboard import verified as module
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.machines import VERIFICATION
from rulezoo.leaderboard.overview import build
from rulezoo.leaderboard.verified import Verifications
from rulezoo.report.build import report
from rulezoo.results import verifications
from rulezoo.results.freshness import code_of
from rulezoo.results.records import Hardware, Plugin, Provenance, Record, RecordError, RunSpec
from rulezoo.results.store import Store, digest
from rulezoo.results.verifications import Mark, Verification
from rulezoo.specs import Plausibility, RuleSpec, Variant
from rulezoo.testing import rule_checks, suite

FORMS = ("table", "md", "latex", "csv", "json")
CODE = "c" * 16
EVIL = "\x1b[31m</td><script>alert(1)</script>\x07| \\input{x}"


HONEST = '''
from dataclasses import dataclass

import torch

from rulezoo import LearningRule, Plausibility, RuleSpec, State, Step, credit, hookimpl


@dataclass(frozen=True)
class Rule(LearningRule):
    """Direct feedback alignment."""

    def skip(self, net, task):
        return None if net.keys("post") else "it needs sites of kind 'post'"

    def init(self, net, params, batch, gen):
        outputs = torch.Size(net.output_shape).numel()
        draw = {key: torch.randn(outputs, net.visits[key].width, generator=gen) for key in net.keys("post")}
        return State(buffers={key: b.to(batch.x) / b.shape[1] ** 0.5 for key, b in draw.items()})

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals = {key: (error.flatten(1) @ state.buffers[key]).view_as(h) for key, h in cut.sites.items()}
        grads = cut.pull(error, signals)
        return Step(grads, state, mean)


@hookimpl
def rulezoo_rules():
    plausibility = Plausibility(False, False, True, "vector", False)
    return [RuleSpec("mine", f"{__name__}:Rule", "A rule.", plausibility=plausibility)]
'''


def run(rule, seed=0, test=None, *, asked=None, **changes):
    question = {
        "protocol": 1, "rule": rule, "rule_version": 1, "rule_options": {"lr": None}, "task": "digits-cnn",
        "task_version": 1, "task_options": {}, "budget": {"epochs": 3}, "seed": seed, "device": "cpu",
    }  # fmt: skip
    answered = Provenance(
        packages={}, rule_plugin=Plugin(distribution="rulezoo"), task_plugin=Plugin(distribution="rulezoo"),
        hardware=Hardware(cpu="Laptop", cores=8, threads=4), commit=None, dirty=None,
        started="2026-01-01T00:00:00+00:00", finished="2026-01-01T00:01:00+00:00", seeds_together=1, mode="vmap",
    )  # fmt: skip
    values = {"status": "ok", "chance": 0.1, "metric": "accuracy", "scores": {"test": test}}
    return Record(asked=RunSpec(**(question | (asked or {}))), answered=answered, **(values | changes))


def runs(rule, tests, **changes):
    return [run(rule, seed, test, **changes) for seed, test in enumerate(tests)]


def found(rule="nmnc", **changes):
    fields = {
        "rule_version": 1,
        "rule_options": {"lr": None},
        "rule_plugin": Plugin(distribution="rulezoo", version="0.1.0"),
        "rule_code": CODE,
        "outcome": "passed",
        "passed": 75,
        "failed": 0,
        "skipped": 4,
        "marks": {
            "weight_transport": Mark(declared="no", state="verified", checks=["weight_transport"]),
            "update_locking": Mark(declared="yes", state="declared"),
        },
        "packages": {"rulezoo": "0.1.0", "torch": "2.11.0"},
        "finished": "2026-01-02T03:04:05+00:00",
    }
    return Verification(rule=rule, **(fields | changes))


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FILES, "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch):
    """The suite on one network."""
    monkeypatch.setattr(suite, "rule_checks", lambda rule, nets, **more: rule_checks(rule, ["rnn"], **more))


def call(*words):
    return CliRunner().invoke(cli, list(map(str, words)))


# The report


def marks_of(done):
    (report,) = json.loads(done.stdout)
    return {name: (mark["declared"], mark["state"]) for name, mark in report["plausibility"].items()}


def test_the_report_says_of_each_mark_whether_it_was_verified(small):
    marks = marks_of(call("verify", "e-prop", "--format", "json"))
    assert marks["weight_transport"] == ("yes", "declared")
    assert marks["backward_pass"] == ("no", "verified")
    assert marks["hidden_learning"] == ("yes", "verified")
    assert marks["past_storage"] == ("no", "declared")
    assert list(marks) == list(discover().specs()["e-prop"].plausibility.marks())


def test_the_marks_are_those_of_the_options_that_were_given(small):
    done = call("verify", "e-prop", "-o", "mode=random", "--format", "json")
    assert done.exit_code == 0
    assert marks_of(done)["weight_transport"] == ("no", "verified")


def test_what_is_stored_names_the_seed_and_the_tasks(small, tmp_path):
    words = (
        "--seed",
        "7",
        "--on",
        "digits-cnn",
        "-o",
        "digits-cnn.width=0.25",
        "--out",
        tmp_path / "results",
    )
    call("verify", "backprop", *words)
    (stored,) = verifications.read(Store(tmp_path / "results")).found
    assert (stored.seed, stored.on) == (7, ["digits-cnn"])


def test_a_verification_from_before_names_were_stored_is_read(tmp_path):
    assert (found().seed, found().on) == (None, [])


def test_a_mark_that_does_not_hold_is_refuted(small, tmp_path):
    broken = HONEST.replace(
        "grads = cut.pull(error, signals)",
        "grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)",
    )
    (tmp_path / "mine.py").write_text(broken, encoding="utf-8")
    done = call("verify", "mine.py", "--out", "results")
    lines = done.stdout.splitlines()
    assert re.search(
        r"^    sequential backward pass +no +refuted by backward_pass$", done.stdout, re.MULTILINE
    )
    assert re.search(r"^    update locking +yes +declared only$", done.stdout, re.MULTILINE)
    assert lines[-1].startswith("mine fails "), "the verdict stays the last line"
    (stored,) = verifications.read(Store(tmp_path / "results")).found
    assert (stored.outcome, stored.marks["backward_pass"].state) == ("failed", "failed")
    assert {"backprop", "backward_pass"} <= set(stored.failed_checks)
    assert done.exit_code == 1


# What is stored


def test_what_was_verified_is_stored_and_the_leaderboard_shows_it(small, tmp_path):
    store = Store(tmp_path / "results")
    done = call("verify", "frozen", "direct-feedback-alignment", "--out", store.root)
    assert done.exit_code == 0
    assert done.stderr.count("rulezoo: stored: ") == 2
    found = {one.rule: one for one in verifications.read(store).found}
    assert set(found) == {"frozen", "direct-feedback-alignment"}
    one = found["frozen"]
    code = code_of(discover().rule("frozen").spec.module)
    assert (one.outcome, one.failed, one.changed, one.rule_code) == ("passed", 0, [], code)
    assert one.rule_options == {"lr": None, "weight_decay": None}
    assert one.packages.keys() >= {"rulezoo", "torch", "python"}
    assert one.marks["hidden_learning"] == Mark(declared="no", state="verified", checks=["hidden_gradients"])
    store.put(run("frozen", test=0.5, asked={"rule_options": one.rule_options}))
    done = call("leaderboard", "--out", store.root)
    assert re.search(rf"^frozen .* {one.passed} \(v1\)( |$)", done.stdout, re.MULTILINE)


def test_options_make_a_verification_of_their_own_and_the_same_ones_replace_it(small, tmp_path):
    store = Store(tmp_path / "results")
    for options in ((), ("-o", "lr=0.02"), ("-o", "lr=2e-2")):
        assert call("verify", "frozen", *options, "--out", store.root).exit_code == 0
    assert [one.changed for one in verifications.read(store).found] in ([[], ["lr"]], [["lr"], []])


def test_a_rule_that_skips_every_network_was_not_examined(small, tmp_path):
    shy = HONEST.replace('return None if net.keys("post") else "it', 'return "it').replace(
        "needs sites of kind 'post'\"", 'serves no network at all"'
    )
    (tmp_path / "mine.py").write_text(shy, encoding="utf-8")
    call("verify", "mine.py", "--out", "results")
    (stored,) = verifications.read(Store(tmp_path / "results")).found
    assert stored.outcome == "not examined"


def test_every_rule_is_verified_by_one_word(monkeypatch, tmp_path):
    from rulezoo.testing import verify

    seen = []

    def quick(subject, options, **how):
        seen.append((subject.kind, subject.name))
        return verify.Report(subject, ())

    monkeypatch.setattr(verify, "verify", quick)
    assert call("verify", "all", "frozen").exit_code == 0
    assert seen == [("rule", name) for name in discover().rules]


def test_a_task_is_not_stored_and_that_is_said(small, tmp_path):
    done = call("verify", "flip-flop-rnn", "--out", "results")
    assert "the outcome for task flip-flop-rnn is not stored" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_written_is_said_in_a_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("verify", "frozen", "--out", "file")
    assert done.exit_code == 2
    assert "file" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Files that others have written or changed


def test_what_is_stored_is_read_back(tmp_path):
    store, one = Store(tmp_path), found()
    path = verifications.put(store, one)
    assert path.relative_to(tmp_path).as_posix() == f"verified/nmnc-{one.key}.json"
    assert verifications.read(store) == verifications.Verifications([one], [])
    later = found(passed=76)
    verifications.put(store, later)
    assert verifications.read(store).found == [later]
    assert len({found(**c).key for c in ({}, {"rule_version": 2}, {"rule_options": {"lr": 1.0}})}) == 3
    assert found(rule_options={"lr": 1.0}).key == found(rule_options={"lr": 1}).key


def changed(**fields):
    """The content of a file whose digest is right and whose fields are not."""
    body = msgspec.json.decode(msgspec.json.encode(found())) | fields
    return msgspec.json.encode(body | {"digest": digest(body)})


DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not whole JSON"),
        (b"[1]", "it was changed after it was written"),
        (b"{}", "it was changed after it was written"),
        (DEEP, "verify again"),
        (b'{"digest": 1e999}', "verify again"),
        (b'{"passed": 123456789012345678901234567890}', "it was changed after it was written"),
        (msgspec.json.encode(found()), "it was changed after it was written"),
        (changed(passed=-1), "`int` >= 0"),
        (changed(schema=2), "enum value 2"),
        (changed(rule="../nmnc"), "lower-case words joined by hyphens"),
        (changed(outcome="failed"), "outcome of nmnc is 'failed', with 75 checks passed and 0 failed"),
        (changed(passed=0), "outcome of nmnc is 'passed', with 0 checks passed"),
        (changed(more=1), "unknown field `more`"),
        (changed(rule="frozen"), "it belongs to verified/frozen-"),
        (changed(rule_version=9), "it belongs to verified/nmnc-"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_left_out(content, message, tmp_path):
    store = Store(tmp_path)
    path = verifications.put(store, found())
    path.write_bytes(content)
    reading = verifications.read(store)
    assert reading.found == []
    (damage,) = reading.damaged
    assert damage.path == f"verified/{path.name}"
    assert message in damage.reason
    assert "verify again" in damage.reason


def test_a_leaderboard_names_it_and_shows_the_rest(tmp_path):
    store = Store(tmp_path)
    store.put(run("frozen", test=0.5))
    before = call("leaderboard", "--out", tmp_path).stdout
    verifications.put(store, found()).write_bytes(b"{")
    done = call("leaderboard", "--out", tmp_path)
    assert (done.exit_code, done.stdout) == (0, before)
    assert "left out: verified/nmnc-" in done.stderr


def test_files_of_other_names_are_not_ours(tmp_path):
    store, folder = Store(tmp_path), tmp_path / "verified"
    path = verifications.put(store, found())
    for name in (f"{path.stem} (copy).json", "notes.json", ".hidden-0123456789abcdef.json", "README.md"):
        (folder / name).write_text("{")
    (folder / "dangling-0123456789abcdef.json").symlink_to("nowhere")
    (folder / "folder-0123456789abcdef.json").mkdir()
    reading = verifications.read(store)
    assert reading.found == [found()]
    assert [damage.path for damage in reading.damaged] == ["verified/folder-0123456789abcdef.json"]
    assert verifications.read(Store(tmp_path / "none")) == verifications.Verifications([], [])


def test_a_verification_that_contradicts_itself_cannot_be_made():
    with pytest.raises(RecordError, match="outcome of nmnc is 'passed', with 75 checks passed and 1 failed"):
        found(failed=1)


def test_publishing_copies_verifications(tmp_path):
    store = Store(tmp_path / "results")
    store.put(run("frozen", test=0.5))
    verifications.put(store, found())
    assert call("leaderboard", "--out", store.root, "--publish", tmp_path / "copy").exit_code == 0
    assert verifications.read(Store(tmp_path / "copy")).found == [found()]


# What a leaderboard makes of it

SPECS = {
    "nmnc": RuleSpec(
        "nmnc", "m:C", "A rule.", plausibility=Plausibility(False, False, True, "vector", True),
        variants=(Variant(("mode=odd",), {"weight_transport": True}),),
    )
}  # fmt: skip


def answered(records, code=CODE):
    return [
        msgspec.structs.replace(one, answered=msgspec.structs.replace(one.answered, rule_code=code))
        for one in records
    ]


def row(*stored, code=CODE, installed=CODE, **asked):
    """What the only row shows."""
    records = answered(runs("nmnc", [0.5, 0.6], asked=asked), code)
    (only,) = build(records, specs=SPECS, verifications=Verifications(stored, lambda rule: installed)).lines
    return only.verification


def test_a_row_of_the_verified_code_version_and_options_is_verified():
    shown = row(found())
    assert (shown.state, shown.reason, shown.passed, shown.version) == ("verified", "", 75, 1)
    assert shown.marks == {"weight_transport": ("weight_transport",)}
    assert shown.own_options
    assert row(found(), installed=None).state == "verified", (
        "a rule that is not installed: the runs are of this code"
    )
    assert row(found(), code=None).state == "verified", "runs of unknown code: the rule that is installed is"
    assert row() is None
    assert row(found("frozen")) is None


@pytest.mark.parametrize(
    ("stored", "facts", "reason"),
    [
        ({}, {"installed": "d" * 16}, "the code of the rule is not the one that was verified"),
        ({}, {"code": "d" * 16}, "the code of the rule is not the one that was verified"),
        ({"rule_code": None}, {}, "it is not known whether the code"),
        ({}, {"code": None, "installed": None}, "it is not known whether the code"),
        ({}, {"rule_version": 2}, "version 1 of the rule was verified, and this is version 2"),
        (
            {"marks": {"weight_transport": Mark(declared="yes", state="declared")}},
            {},
            "the plausibility that is declared is not the one verified",
        ),
    ],
)
@pytest.mark.parametrize("outcome", [{}, {"outcome": "failed", "failed": 1, "failed_checks": ["vmap"]}])
def test_what_was_verified_of_something_else_is_stale(stored, facts, reason, outcome):
    shown = row(found(**stored, **outcome), **facts)
    assert (shown.state, shown.marks) == ("stale", {})
    assert reason in shown.reason


def test_a_failed_verification_is_never_shown_as_verified():
    shown = row(found(outcome="failed", failed=2, failed_checks=["vmap", "learns"]))
    assert (shown.state, shown.reason, shown.marks) == ("failed", "failed: vmap, learns", {})
    shown = row(found(outcome="not examined", passed=5))
    assert (shown.state, shown.marks) == ("not examined", {})


def test_a_row_with_other_options_has_the_verification_of_the_defaults_if_its_marks_are_the_same():
    assert row(found(), rule_options={"lr": 0.1}).own_options is False
    assert row(found(), rule_options={"lr": 0.1}).state == "verified"
    assert row(found(), rule_options={"lr": None, "mode": "odd"}) is None, "another plausibility"
    assert row(found(changed=["lr"]), rule_options={"lr": 0.1}) is None, "not of the defaults"
    own = found(rule_options={"lr": 0.1}, changed=["lr"], outcome="failed", failed=1, passed=74)
    assert row(found(), own, rule_options={"lr": 0.1}).state == "failed", (
        "that of its own options comes first"
    )


def test_a_verification_of_the_same_version_comes_first_and_the_latest_of_equals():
    old, new = found(passed=70), found(passed=80, finished="2026-02-02T00:00:00+00:00")
    assert row(new, old).passed == row(old, new).passed == 80
    other = found(rule_version=2, passed=90, finished="2027-01-01T00:00:00+00:00")
    assert row(other, old).passed == 70


def test_a_mark_that_was_measured_to_be_another_is_not_verified():
    marks = {"backward_pass": Mark(declared="no", state="verified", checks=["backward_pass"])}
    records = answered(runs("nmnc", [0.5], block_depth=3))
    known = Verifications([found(marks=marks)], lambda rule: CODE)
    (only,) = build(records, specs=SPECS, verifications=known).lines
    assert only.plausibility["backward_pass"] == "within blocks of 3"
    assert (only.verification.state, only.verification.marks) == ("verified", {})


def board(*stored):
    records = answered([*runs("nmnc", [0.5, 0.6]), *runs("backprop", [0.9, 0.9])])
    tuned = answered(runs("nmnc", [0.7, 0.7], asked={"rule_options": {"lr": 0.1}}, changed=["lr"]))
    return build([*records, *tuned], specs=SPECS, verifications=Verifications(stored, lambda rule: CODE))


@pytest.mark.parametrize("form", FORMS)
def test_without_a_stored_verification_nothing_is_said_of_any(form):
    records = runs("nmnc", [0.5, 0.6])
    plain = render(build(records, specs=SPECS), form)
    assert render(build(records, specs=SPECS, verifications=Verifications([found("other")])), form) == plain
    assert "verif" not in plain


def cells(stored, form):
    """The lines of the rule in a table: with its own options, and with the author's defaults."""
    lines = render(board(stored), form, width=300).splitlines()
    shown = sorted(
        line for line in lines if re.match(r"(\| )?nmnc  *(lr=0.1|\D)", line) and "points (" not in line
    )
    assert len(shown) == 2
    return sorted(shown, key=lambda line: "lr=0.1" not in line)


@pytest.mark.parametrize("form", ["table", "md", "latex"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ("75 (v1)", r"75 \(v1\)\\?\*")),
        ({"rule_code": "d" * 16}, ("stale", "stale")),
        ({"outcome": "failed", "failed": 3}, ("3 failed", "3 failed")),
        ({"outcome": "not examined"}, ("not examined", "not examined")),
    ],
)
def test_tables_have_a_column_of_verifications(form, changes, words):
    tuned, default = cells(found(**changes), form)
    assert re.search(rf"{re.escape(words[0])}(?!\\?\*)", default)
    assert re.search(words[1], tuned)
    text = render(board(found(**changes)), form, width=140)
    assert re.search(r"^[% ]*\W*(verified|stale|failed|not examined)\W*: ", text, re.MULTILINE), (
        "it is explained"
    )
    if changes:
        assert "(v1)" not in text


def test_csv_and_json_have_everything():
    lines = list(csv.DictReader(io.StringIO(render(board(found()), "csv"))))
    shown = {line["label"]: [line[name] for name in VERIFICATION] for line in lines}
    assert shown == {
        "backprop": [""] * 8,
        "nmnc": ["verified", "", "75", "0", "4", "1", "True", "weight_transport"],
        "nmnc lr=0.1": ["verified", "", "75", "0", "4", "1", "False", "weight_transport"],
    }
    lines = json.loads(render(board(found()), "json"))["lines"]
    rows = {line["label"]: line["verification"] for line in lines}
    assert rows["backprop"] is None
    assert rows["nmnc"]["marks"] == {"weight_transport": ["weight_transport"]}
    assert (rows["nmnc"]["state"], rows["nmnc"]["rulezoo"], rows["nmnc"]["torch"]) == (
        "verified",
        "0.1.0",
        "2.11.0",
    )


@pytest.mark.parametrize("form", FORMS)
def test_words_of_a_stored_file_stay_words(form):
    evil = found(
        outcome="failed",
        failed=1,
        failed_checks=[EVIL],
        packages={"rulezoo": EVIL, "torch": EVIL},
        finished=EVIL,
    )
    text = render(board(evil), form, width=140)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    pages = pages_of(evil)
    assert not [name for name, page in pages.items() if "<script>alert" in page or "\x1b" in page]


def pages_of(*stored):
    zoo = discover()
    code = code_of(zoo.rule("nmnc").spec.module)
    options = zoo.rule_class("nmnc")().resolved()
    records = answered(runs("nmnc", [0.5, 0.6], asked={"rule_options": options}), code)
    own = [msgspec.structs.replace(one, rule_options=options) for one in stored]
    own = [one if one.rule_code != CODE else msgspec.structs.replace(one, rule_code=code) for one in own]
    known = Verifications(own, lambda rule: code)
    files = report(records, zoo, verifications=known)
    return {name: content.decode() for name, content in files.items() if name.endswith(".html")}


def test_pages_tick_the_marks_that_were_verified():
    spec = discover().rule("nmnc").spec
    marks = {
        name: Mark(declared=mark, state="verified", checks=["weight_transport"])
        if name == "weight_transport"
        else Mark(declared=mark, state="declared")
        for name, mark in spec.plausibility.marks().items()
    }
    pages = pages_of(found(marks=marks))
    assert pages["index.html"].count("<i>✓</i>") == 1
    assert 'title="weight transport: no, verified by weight_transport"' in pages["index.html"]
    assert "Verification: 75 checks passed (version 1)." in pages["index.html"]
    rule = pages["rules/nmnc.html"]
    assert rule.count("(verified by weight_transport)") == 1
    assert "75 checks passed, none failed, 4 did not apply; version 1 of the rule" in rule

    for other in ({"rule_code": "d" * 16}, {"outcome": "failed", "failed": 1, "failed_checks": ["vmap"]}):
        pages = pages_of(found(marks=marks, **other))
        assert not [name for name, page in pages.items() if "✓" in page]
        word = "stale" if "rule_code" in other else "failed"
        assert f"Verification: {word}: " in pages["index.html"]
        assert "checks passed, none failed" not in pages["rules/nmnc.html"]
    bare = pages_of()
    told = "not verified yet: <code>rulezoo verify nmnc</code>"
    assert told in bare["rules/nmnc.html"]
    assert not [name for name, page in bare.items() if "verif" in page.replace(told, "")]


def test_a_page_ticks_what_stands_in_place_of_the_signal():
    from rulezoo.report.table import _mark

    frozen = discover().specs()["frozen"].plausibility.marks()
    marks = {"hidden_learning": Mark(declared="no", state="verified", checks=["hidden_gradients"])}
    known = Verifications([found("frozen", marks=marks)], lambda rule: CODE)
    (only,) = build(answered(runs("frozen", [0.5])), specs=discover().specs(), verifications=known).lines
    assert only.plausibility == frozen
    assert _mark(only, "signal").words == "error signal: fixed, verified by hidden_gradients"
    assert _mark(only, "weight_transport").words == "weight transport: no"


def test_the_stored_code_is_compared_with_that_of_the_installed_rule(tmp_path):
    zoo, store = discover(), Store(tmp_path)
    code = code_of(zoo.rule("frozen").spec.module)
    marks = {}
    verifications.put(store, found("frozen", rule_code=code, marks=marks))
    verifications.put(store, found("gone", marks=marks))
    known, damaged = module.stored(store, zoo)
    declared = zoo.rule("frozen").spec.plausibility.marks()
    assert damaged == []
    assert known.of_defaults("frozen", 1, declared).state == "verified"
    assert known.of_defaults("frozen", 2, declared).state == "stale"
    assert known.of_defaults("gone", 1, {}).state == "stale"


@pytest.mark.parametrize("verified_by", [fingerprint, first])
@pytest.mark.parametrize("trained_by", [fingerprint, first])
def test_a_verification_and_runs_whose_fingerprints_are_by_different_definitions(
    tmp_path, verified_by, trained_by
):
    store, zoo = Store(tmp_path), discover()
    code = zoo.rule("frozen").spec.module
    verifications.put(store, found("frozen", rule_code=verified_by(code)))
    known, _ = module.stored(store, zoo)
    records = answered(runs("frozen", [0.5]), trained_by(code))
    assert known.of(records, {}).state == "verified"
    assert known.of(answered(records, "0" * 16), {}).state == "stale"
