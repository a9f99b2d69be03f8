"""`rulezoo status`, `rulezoo logs` and `compare --retry`: what is told of a store, and what is run again."""

import re
import textwrap
from datetime import UTC, datetime

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison.execution import execute
from rulezoo.comparison.jobs import CHECKPOINTS, Job, failures, work
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results import groups, journal, leases
from rulezoo.results.status import overview
from rulezoo.results.store import Store

PLUGIN = """
    from rulezoo import RuleSpec, TaskSpec, hookimpl
    from rulezoo_plugins.baselines.backprop import Backprop

    class Bad(Backprop):
        def step(self, *args):
            raise RuntimeError("no \\x1b[31m way")

    @hookimpl
    def rulezoo_rules():
        return [RuleSpec("bad", f"{__name__}:Bad", "For tests.")]

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "bad_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    monkeypatch.setattr(journal, "_EVERY", 0.0)
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


class Here:
    """An executor that does every job here and now, and looks about at every step."""

    def __init__(self, look=None):
        self.look, self.jobs = look or (lambda: None), []

    def run(self, jobs, listener):
        for job in jobs:
            self.jobs.append((job.rule, job.seeds))
            work(job, lambda done, total: self.look())

    def planned(self, runs, stored):
        pass


def request(rules, seeds, retry=()):
    return Request(rules=rules, tasks=["tiny"], seeds=range(seeds), device="cpu", epochs=1, retry=retry)


def compare(store, *rules, look=None, retry=(), seeds=2):
    here, zoo = Here(look), discover()
    cells = plan(zoo, request(rules, seeds, retry))
    execute(cells, store, here, here)
    return here.jobs


def rulezoo(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    return done.exit_code, done.output


def test_a_comparison_under_way_is_told_of_from_elsewhere(store):
    seen = []
    compare(store, "frozen", "backprop", look=lambda: seen.append(overview(store, discover())))
    first, last = seen[1], seen[-1]
    assert (first.alive, first.planned, first.finished, first.waiting) == (True, 4, 0, 2)
    (training,) = first.running
    assert [asked.seed for asked in training.asked] == [0, 1]
    assert (training.asked[0].rule, training.step, training.total) == ("frozen", 1, 6)
    assert (last.finished, last.waiting) == (2, 0)
    assert last.running[0].step == 6
    assert last.running[0].left == 0
    over = overview(store, discover())
    assert (over.alive, over.planned, over.finished, over.running, over.waiting) == (False, 4, 4, [], 0)
    code, said = rulezoo("status", "--out", store.root)
    assert code == 0
    assert re.search(r"comparison started 20.* UTC, done\n", said)
    assert re.search(r"finished +4 +of 4 runs", said)


def test_a_note_of_a_process_that_is_gone_is_no_training(store):
    compare(store, "frozen")
    asked = [record.asked for record in store.read().records]
    left = journal.Teller(store.root / journal.FOLDER / f"{groups.name(asked[0], (0, 1))}.json", asked)
    left(3, 6)
    (store.root / journal.FOLDER / "strange.json").write_text("{")
    assert left.path.exists()
    assert overview(store, discover()).running == []


def test_what_is_left_is_reckoned_from_the_pace_so_far(store, monkeypatch):
    now = [50.0]
    monkeypatch.setattr("rulezoo.results.journal.time.monotonic", lambda: now[0])
    teller = journal.Teller(store.root / "note.json", [])
    now[0] += 1000  # until the first step: imports, data
    teller(40, 100)
    assert teller.note.left is None
    now[0] += 30
    teller(50, 100)
    assert teller.note.left == 150


def test_only_the_last_comparison_is_kept(store):
    compare(store, "frozen")
    compare(store, "backprop", seeds=1)
    assert len(list((store.root / journal.FOLDER).glob("*.json"))) == 1
    assert overview(store, discover()).planned == 1


def test_status_lists_what_failed_and_what_is_stale(store):
    compare(store, "bad", "frozen")
    record = next(one for one in store.read().records if one.asked.rule == "frozen")
    answered = msgspec.structs.replace(record.answered, rule_code="0" * 16)
    store.put(msgspec.structs.replace(record, answered=answered))
    code, said = rulezoo("status", "--out", store.root)
    assert code == 0
    assert re.search(r"finished +2 .*\nfailed +2 .*\nrunning +0 .*\nnot run +0 ", said)
    assert re.search(r"tiny +bad +seed 0 +[0-9a-f]{8} +error: RuntimeError: no �\[31m way", said)
    assert re.search(r"stale\ntiny +frozen +seed 0 +[0-9a-f]{8} +the code of rule frozen changed since", said)
    assert "\x1b" not in said


def test_status_and_logs_of_no_store_are_one_line(tmp_path):
    code, said = rulezoo("status", "--out", tmp_path / "none")
    assert (code, said.count("\n")) == (2, 1)
    assert "no results in" in said
    code, said = rulezoo("logs", "x", "--out", tmp_path / "none")
    assert (code, said.count("\n")) == (2, 1)
    code, said = rulezoo("status", "--out", tmp_path)
    assert (code, said) == (
        0,
        f"No runs are stored or under way in {tmp_path}; `rulezoo compare` starts some.\n",
    )
    code, said = rulezoo("logs", "--out", tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert "no runs in" in said


def test_logs_tell_of_a_run(store):
    compare(store, "bad", "frozen")
    key = next(
        one.asked.key for one in store.read().records if (one.asked.rule, one.asked.seed) == ("bad", 1)
    )
    (store.root / ".logs").mkdir()
    asked = next(one.asked for one in store.read().records if one.asked.key == key)
    (store.root / ".logs" / f"{groups.name(asked, (0, 1))}.log").write_text(
        "a remark \x1b[2J\n  and another\n"
    )
    for words in (["bad", "1"], ["tiny", "bad", "seed", "1"], [key], [key[:6]]):
        code, said = rulezoo("logs", *words, "--out", store.root)
        assert code == 0
        assert re.match(rf"run +tiny bad seed 1\nkey +{key}\n", said)
        assert "error: RuntimeError: no �[31m way" in said
        assert "bad_plugin.py" in said  # the traceback
        assert "a remark �[2J\n  and another\n" in said
        assert "\x1b" not in said
    code, said = rulezoo("logs", "frozen", "0", "--out", store.root)
    assert re.search(r"step +epoch +train loss +validation\n6 +1 +\d\.\d{4} +\d\.\d{4}\n", said)


def test_logs_of_several_runs_or_none_name_them(store):
    compare(store, "frozen")
    code, said = rulezoo("logs", "frozen", "--out", store.root)
    assert code == 2
    row = r"\w{8} +tiny +frozen +%d +ok +[01]\.\d{4}\n"
    rows = "key +task +rule +seed +status +score\n" + row % 0 + row % 1
    assert re.fullmatch(rows + "rulezoo: 'frozen' matches 2 runs; name one of them by its key\n", said)
    code, said = rulezoo("logs", "--out", store.root)
    assert code == 0
    assert re.fullmatch(rows, said), "without words, all runs"
    code, said = rulezoo("logs", "frozen", "7", "--out", store.root)
    assert (code, "no run in" in said) == (2, True)


def test_what_failed_is_run_again_when_that_is_wanted_and_the_old_record_is_kept(store):
    compare(store, "bad", "frozen")
    before = {record.asked.key for record in store.read().records}
    assert compare(store, "bad", "frozen") == []
    assert compare(store, "bad", "frozen", retry=["timeout"]) == []
    assert compare(store, "bad", "frozen", retry=["failed"]) == [("bad", (0, 1))]
    assert {record.asked.key for record in store.read().records} == before
    assert len(list((store.root / ".replaced").iterdir())) == 2
    assert compare(store, "bad", "frozen", retry=["all"]) == [("bad", (0, 1)), ("frozen", (0, 1))]


def test_an_old_record_stays_until_there_is_a_new_one(store):
    """However the comparison that was to make it ends: here its executor does nothing."""
    compare(store, "frozen")
    before = store.read().records

    class Dead(Here):
        def run(self, jobs, listener):
            pass

    dead, zoo = Dead(), discover()
    cells = plan(zoo, request(["frozen"], 2, ["all"]))
    execute(cells, store, dead, dead)
    assert [store.get(record.asked) for record in before] == [None, None]
    assert sorted(store.read().records, key=lambda r: r.asked.seed) == before
    assert overview(store, zoo).waiting == 2
    assert rulezoo("status", "--out", store.root)[1].splitlines()[0].endswith("UTC, interrupted")
    assert compare(store, "frozen") == [("frozen", (0, 1))], "the same command goes on"
    store.path(before[0].asked).unlink()
    assert len(store.read().records) == 1, "what was replaced does not come back"


def test_an_interrupted_retry_leaves_the_old_records_as_they_were(store):
    compare(store, "frozen")
    before = store.read().records

    class Interrupted(Here):
        def run(self, jobs, listener):
            for job in jobs:
                failures(job, "interrupted", "for a test", datetime.now(UTC))

    here, zoo = Interrupted(), discover()
    cells = plan(zoo, request(["frozen"], 2, ["all"]))
    execute(cells, store, here, here)
    assert store.read().records == before
    assert [store.get(record.asked) for record in before] == before


def test_a_process_that_died_leaves_no_note_and_no_lock_and_one_that_was_broken_off_its_checkpoint(store):
    compare(store, "frozen")
    records = store.read().records
    asked = [record.asked for record in records]
    (job,) = (Job(request(["frozen"], 2), store.root),)
    name = groups.name(asked[0], (0, 1))
    for status, kept in [("timeout", True), ("error", False)]:
        for one in asked:
            store.path(one).unlink()
        with leases.leases(store, [one.key for one in asked]):
            journal.Teller(store.root / journal.FOLDER / f"{name}.json", asked)
        checkpoint = store.folder(CHECKPOINTS) / f"{name}.pt"
        checkpoint.write_bytes(b"a state")
        failures(job, status, "for a test", datetime.now(UTC))
        assert [store.get(one).status for one in asked] == [status] * 2
        assert journal.trainings(store) == []
        assert not list((store.root / journal.FOLDER).glob(f"{name}*"))
        assert not list((store.root / leases.FOLDER).glob("[0-9a-f]*.lock"))
        assert checkpoint.exists() is kept


def test_trials_of_a_tuning_are_told_of_and_no_results(tmp_path):
    out = tmp_path / "results"
    words = [
        "--rules",
        "frozen,bad",
        "--tasks",
        "tiny",
        "--trials",
        "2",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--jobs",
        "1",
    ]
    code, said = rulezoo("tune", *words, "--out", out)
    assert code == 1, "no trial of a rule ended well"
    assert "tuning: trials 1 to 2 of 2 of each rule on each task, with 2 seeds\n" in said
    code, said = rulezoo("status", "--out", out)
    assert re.match(
        r"tuning: comparison started .* UTC, done\nfinished +4 +of 8 runs\nfailed +4 +of 8 runs\n", said
    )
    assert re.search(r"tiny +bad lr=\S+ +seed 1001 +\w+ +error: RuntimeError", said), "trials are told apart"
    code, said = rulezoo("logs", "frozen", "1000", "--out", out)
    assert code == 2, "two trials have that seed"
    key = re.search(r"(\w{8}) +tiny +frozen +1000", said)[1]
    code, said = rulezoo("logs", key, "--out", out)
    assert code == 0
    assert re.search(r"validation +0\.\d+", said)
    code, said = rulezoo("leaderboard", "--out", out / "tuning")
    assert (code, said.count("\n")) == (2, 1)
    assert f"`rulezoo leaderboard --out {out}` shows what came of it" in said


def test_logs_of_a_run_that_is_under_way_say_how_far_it_is(store):
    seen = []
    compare(store, "frozen", look=lambda: seen.append(rulezoo("logs", "frozen", "1", "--out", store.root)))
    assert seen[1][0] == 0
    assert "under way: step 1 of 6" in seen[1][1]


def test_a_comparison_says_what_may_be_run_again(store):
    words = ["compare", "--rules", "frozen,bad", "--tasks", "tiny", "--epochs", "1", "--seeds", "1",
             "--device", "cpu", "--jobs", "1", "--out", store.root]  # fmt: skip
    code, said = rulezoo(*words)
    assert code == 1
    assert "the same command with --retry failed runs it again" in said
    record = next(one for one in store.read().records if one.asked.rule == "frozen")
    answered = msgspec.structs.replace(record.answered, rule_code="0" * 16, compiled=True)
    store.put(msgspec.structs.replace(record, answered=answered))
    code, said = rulezoo(*words)
    assert "the same command with --retry stale runs them again" in said
    assert "compiled by torch.compile (1 of 1)" in said
    code, said = rulezoo(*words, "--retry", "stale")
    assert "--retry" not in said
    code, said = rulezoo(*words, "--compile")
    assert "1 of 2 runs were not compiled: torch.compile cannot, or they were stored before" in said


def test_an_unset_variable_of_the_shell_is_no_choice(store):
    code, said = rulezoo("compare", "--rules", "", "--out", store.root)
    assert code == 2
    assert "'' names nothing; leave it out, or name some: A,B" in said


def test_a_retry_that_nobody_knows_is_refused(store):
    code, said = rulezoo("compare", "--retry", "faild", "--out", store.root)
    assert code == 2
    assert re.search(r"'faild' is none of failed, stale, all, diverged, error, timeout, oom_host, ", said)


def test_a_record_holds_the_code_of_its_rule_and_task(store, plugin):
    compare(store, "bad")
    (first, _) = store.read().records
    assert re.fullmatch("2:[0-9a-f]{16}", first.answered.rule_code)
    assert re.fullmatch("2:[0-9a-f]{16}", first.answered.task_code)
    assert compare(store, "bad", retry=["stale"]) == []
    plugin.write_text(plugin.read_text().replace("no \\x1b", "# for reasons\nno \\x1b".replace("\n", " ")))
    assert compare(store, "bad", retry=["stale"]) == [("bad", (0, 1))]
    assert store.get(first.asked).answered.rule_code != first.answered.rule_code
