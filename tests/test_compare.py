"""Carrying out a plan: only what is missing is run, and what cannot work is said before anything is."""

import pickle
import re
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison.contract import digest
from rulezoo.comparison.execution import execute
from rulezoo.comparison.jobs import Job, failures, work
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results.provenance import collect
from rulezoo.results.records import Plugin, Record
from rulezoo.results.store import Store, StoreError
from rulezoo.task import DataMissing
from rulezoo.testing import TinyTask
from rulezoo.training.outcome import Evaluation, Outcome

PLUGIN = """
    from dataclasses import dataclass

    import rulezoo
    from rulezoo import DataMissing, hookimpl, hp, RuleSpec, TaskSpec
    from rulezoo.testing import TinyTask
    from rulezoo_plugins.baselines.backprop import Backprop

    @dataclass(frozen=True)
    class Far(TinyTask):
        def data(self, root, *, download=False):
            if not download:
                raise DataMissing(f"looked in {root}, found nothing")
            return super().data(root)

    class Slower(Backprop):
        vmappable = False

    @hookimpl
    def rulezoo_rules():
        return [RuleSpec("slower", f"{__name__}:Slower", "One seed at a time.")]

    @hookimpl
    def rulezoo_tasks():
        tiny = TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)
        return [tiny, TaskSpec("far", f"{__name__}:Far", "Tiny, and far away.")]
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "tiny_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


class Watch:
    """An executor that does every job here and now, or else refuses; and a listener."""

    def __init__(self, *, allowed=True):
        self.allowed, self.jobs, self.told, self.records = allowed, [], None, []

    def run(self, jobs, listener):
        assert self.allowed, "nothing was to be run"
        self.jobs = list(jobs)
        for job in jobs:
            self.records += work(job)

    def planned(self, runs, stored):
        self.told = runs, stored

    @property
    def work(self):
        return [(job.rule, job.seeds) for job in self.jobs]


def cells(rules=("backprop", "frozen"), tasks=("tiny",), seeds=(0, 1), **words):
    words = {"device": "cpu", "epochs": 1, **words}
    return plan(discover(), Request(rules=rules, tasks=tasks, seeds=seeds, **words))


def compare(store, *, allowed=True, **words):
    watch = Watch(allowed=allowed)
    execute(cells(**words), store, watch, watch)
    return watch


def contents(store):
    return {
        p: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in store.root.glob("runs/*/*/*.json")
    }


def test_the_second_time_nothing_is_run(store):
    first = compare(store)
    assert (first.told, first.work) == ((4, 0), [("backprop", (0, 1)), ("frozen", (0, 1))])
    assert [record.status for record in first.records] == ["ok"] * 4
    before = contents(store)
    assert len(before) == 4
    second = compare(store, allowed=False)
    assert second.told == (4, 4)
    assert contents(store) == before


def test_only_what_is_missing_is_run(store):
    compare(store)
    before = contents(store)
    (gone,) = [path for path in before if path.parent.name == "frozen" and path.name.startswith("seed1")]
    gone.unlink()
    again = compare(store)
    assert (again.told, again.work) == ((4, 3), [("frozen", (1,))])
    after = contents(store)
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {gone}
    more = compare(store, rules=["backprop", "slower"], seeds=range(3))
    assert (more.told, more.work) == ((6, 2), [("backprop", (2,)), ("slower", (0, 1, 2))])


def test_as_many_seeds_are_trained_together_as_were_asked_for(store):
    first = compare(store, rules=["frozen"], seeds=range(5), together=2)
    assert first.work == [("frozen", (0, 1)), ("frozen", (2, 3)), ("frozen", (4,))]
    assert [record.answered.seeds_together for record in first.records] == [2, 2, 2, 2, 1]
    for record in first.records[1:3]:
        store.path(record.asked).unlink()
    again = compare(store, rules=["frozen"], seeds=range(5), together=2)
    assert again.work == [("frozen", (1,)), ("frozen", (2,))], "each with those that it was with"


def test_a_result_does_not_depend_on_what_else_was_run(store, tmp_path):
    """Two seeds, one of them twice: alone and in a group, and with another rule before it."""
    compare(store)
    alone = compare(Store(tmp_path / "alone"), rules=["frozen"], seeds=[1])
    (asked,) = [record.asked for record in alone.records]
    together = store.get(asked)
    assert alone.records[0].scores == pytest.approx(
        together.scores, abs=0.05
    )  # an example or two may tip over
    losses = [[point.train_loss for point in record.curve] for record in (alone.records[0], together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("status", "runs"), [("interrupted", True), ("error", False), ("diverged", False), ("killed", False)]
)
def test_of_the_runs_that_did_not_end_well_the_interrupted_are_run_again(store, status, runs):
    (record, _) = compare(store, rules=["frozen"]).records
    path = store.put(msgspec.structs.replace(record, status=status, reason="for a test"))
    again = compare(store, rules=["frozen"])
    assert again.work == ([("frozen", (0,))] if runs else [])
    assert store.get(record.asked).status == ("ok" if runs else status)
    assert path == store.path(record.asked)


def test_a_damaged_record_is_run_again(store):
    first = compare(store, rules=["frozen"])
    store.path(first.records[1].asked).write_text("{")
    assert compare(store, rules=["frozen"]).work == [("frozen", (1,))]
    assert store.read().damaged == []


def test_a_folder_that_cannot_be_written_is_said_before_data_are_looked_for(store):
    store.root.write_text("in the way")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        compare(store, tasks=["far"], allowed=False)


def test_missing_data_are_said_before_anything_is_run(store, tmp_path):
    with pytest.raises(DataMissing, match=f"looked in {tmp_path}, found nothing"):
        compare(store, tasks=["tiny", "far"], allowed=False, data=tmp_path)
    assert contents(store) == {}


def test_data_are_downloaded_once_and_not_by_the_jobs(store):
    watch = Watch()
    plans = cells(tasks=["far"], download=True)
    with pytest.raises(DataMissing):  # from the job, which finds them gone: no file was written here
        execute(plans, store, watch, watch)
    assert watch.work == [("backprop", (0, 1)), ("frozen", (0, 1))]


def test_when_all_is_stored_neither_data_nor_a_writable_folder_are_needed(store, monkeypatch):
    plans = cells(tasks=["far"])
    made = record_of(plans[0])
    for cell in plans:
        for asked in cell.asked:
            store.put(msgspec.structs.replace(made, asked=asked))
    monkeypatch.setattr(Store, "check_writable", lambda self: pytest.fail("the folder was to be left alone"))
    assert compare(store, tasks=["far"], allowed=False).told == (4, 4)


def record_of(cell):
    now = datetime.now(UTC)
    plugin = Plugin(distribution="tests")
    by = collect(
        device="cpu",
        rule_plugin=plugin,
        task_plugin=plugin,
        started=now,
        finished=now,
        seeds_together=1,
        mode="single",
    )
    return Record(asked=cell.asked[0], answered=by, status="ok", chance=0.1, metric="accuracy")


def test_a_job_says_in_words_what_its_cell_is(store, monkeypatch, tmp_path):
    options = {"frozen": {"lr": "0.5"}, "tiny": {"kind": "rnn"}}
    (cell,) = cells(rules=["frozen"], options=options, epochs=3, data=Path("there"), threads=3)
    watch = Watch()
    monkeypatch.setattr(watch, "run", lambda jobs, listener: watch.jobs.extend(jobs))
    monkeypatch.chdir(tmp_path)
    execute([cell], Store(Path("here")), watch, watch)
    (job,) = watch.jobs
    assert (job.store, job.request.data, job.request.threads) == (tmp_path / "here", tmp_path / "there", 3)
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    assert again.cell().asked == cell.asked
    assert again.cell().budget == cell.budget


def test_a_record_tells_what_was_run_and_how(store):
    options = {"backprop": {"lr": "0.5"}}
    together, alone = compare(store, rules=["backprop", "slower"], options=options, epochs=2).jobs
    for job, seeds_together, mode in ((together, 2, "vmap"), (alone, 1, "single")):
        for asked in job.cell().asked:
            record = store.get(asked)
            assert (record.answered.seeds_together, record.answered.mode) == (seeds_together, mode)
            assert record.changed == (["lr"] if job is together else [])
            assert [point.step for point in record.curve] == [6, 12]
            assert record.cost.ratio == pytest.approx(record.cost.step_ms / record.cost.backprop_step_ms)
            assert record.cost.step_ms > 0
            assert (record.metric, record.chance) == ("accuracy", pytest.approx(1 / 3))
            assert record.answered.rule_plugin.distribution == (
                "rulezoo" if job is together else "tiny_plugin.py"
            )
            assert record.answered.task_plugin.version.startswith("sha256:")


def test_a_record_holds_the_digest_of_the_data_that_it_was_trained_on(store):
    digests = {}
    for kind in ("mlp", "cnn"):
        records = compare(store, seeds=[0], options={"tiny": {"kind": kind}}).records
        (digests[kind],) = {record.answered.data for record in records}
        assert digests[kind] == digest(TinyTask(kind=kind).data())
        assert records[0].block_depth == 3  # backprop: through both hidden layers and the read-out
    assert digests["mlp"] != digests["cnn"]


def test_each_seed_is_stored_as_soon_as_it_is_known(store, monkeypatch):
    (cell,) = cells(rules=["slower"])
    job = Job(cell.request, store.root)
    seen = []

    def tell(done, total):
        seen.append(len(contents(store)))

    work(job, tell)
    assert seen == [0] * 7 + [1] * 6  # the first tells that it begins
    assert len(contents(store)) == 2
    assert store.get(cell.asked[0]).answered.mode == "single"


def test_what_no_number_says_is_stored_as_nothing(store, monkeypatch):
    """Curves and logs with gaps and values that are not finite."""
    nan, inf = float("nan"), float("inf")
    curve = (
        Evaluation(6, 1, 0.5, nan, {"a": inf}),
        Evaluation(12, 2, inf, 0.5, {"a": 1.0, "b": 2.0}),
    )
    monkeypatch.setattr(
        "rulezoo.training.runner.run",
        lambda *args, **more: [(0, Outcome("diverged", "for a test", curve=curve))],
    )
    (cell,) = cells(rules=["frozen"], seeds=(0,))
    (record,) = work(Job(cell.request, store.root))
    assert record.cost is None
    assert record.logs == {"a": [None, 1.0], "b": [None, 2.0]}
    assert [(p.train_loss, p.validation) for p in record.curve] == [(0.5, None), (None, 0.5)]
    assert store.get(record.asked) == record


def test_what_a_job_stored_before_it_failed_stays(store):
    """And what was interrupted before is no result that could stay."""
    (cell,) = cells(rules=["frozen"], seeds=(0, 1, 2))
    done, pending, new = cell.asked
    compare(store, rules=["frozen"], seeds=(0, 1))
    store.put(msgspec.structs.replace(store.get(pending), status="interrupted", reason="for a test"))
    job = Job(cell.request, store.root)
    before = contents(store)
    started = datetime.now(UTC)
    records = failures(job, "killed", "by a test", started)
    assert [record.status for record in records] == ["ok", "killed", "killed"]
    assert [store.get(asked).status for asked in (done, pending, new)] == ["ok", "killed", "killed"]
    assert contents(store)[store.path(done)] == before[store.path(done)]
    assert (records[2].reason, records[2].chance, records[2].answered.mode) == (
        "by a test",
        pytest.approx(1 / 3),
        "vmap",
    )
    (one_by_one,) = cells(rules=["slower"])
    alone, _ = failures(Job(one_by_one.request, store.root), "killed", "by a test", started)
    assert (alone.answered.mode, alone.answered.seeds_together) == ("single", 1)


def command(folder, *words):
    """``rulezoo compare`` in this process, but for what it starts."""
    fixed = ["--rules", "backprop,frozen", "--tasks", "tiny", "--seeds", "2", "--device", "cpu"]
    return CliRunner().invoke(cli, ["compare", *fixed, "--out", str(folder), *words])


def test_a_part_of_the_budget_can_be_set_for_all_rules(tmp_path):
    words = ["-b", "optimizer=SGD", "-b", "optimizer.momentum=0.9", "-b", "lr=0.1", "-b", "schedule.milestones=1",
             "-b", "schedule=MultiStepLR", "-b", "schedule_per=epoch"]  # fmt: skip
    found = command(tmp_path / "out", *words)
    assert found.exit_code == 0, found.output
    records = Store(tmp_path / "out").read().records
    assert {(r.asked.rule, r.asked.seed, r.status) for r in records} == {
        (rule, seed, "ok") for rule in ("backprop", "frozen") for seed in (0, 1)
    }
    assert all(r.asked.budget["optimizer.momentum"] == 0.9 for r in records)
    assert command(tmp_path / "out", *reversed_pairs(words)).exit_code == 0
    assert (
        len(Store(tmp_path / "out").read().records) == 4
    )  # asked again in another order, nothing is trained
    plain = command(tmp_path / "out")
    assert plain.exit_code == 0, plain.output
    after = Store(tmp_path / "out").read().records
    assert len(after) == 8
    scores = {
        (r.asked.rule, r.asked.seed, "base_lr" in r.asked.budget): r.curve[-1].train_loss for r in after
    }
    assert all(scores[rule, seed, True] != scores[rule, seed, False] for rule, seed, _ in scores)


def reversed_pairs(words):
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return [word for pair in reversed(pairs) for word in pair]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["optimizer=SDG"], "rulezoo: backprop on tiny: budget.optimizer must be .*, got 'SDG'; did you mean 'SGD'[?]"),
        (["clip_norm=0"], "rulezoo: backprop on tiny: budget.clip_norm must be a number above 0, or none, got 0"),
        (["colour=1"], "rulezoo: -b colour: a budget has no 'colour'; .*"),
        (["optimizer"], "rulezoo: .* 'optimizer' must have the form NAME=VALUE, such as optimizer=SGD or .*"),
        (["lr=1", "lr=2"], "rulezoo: .* lr is given twice, as '1' and as '2'; give it once .*"),
        (["schedule=OneCycleLR", "schedule.total_steps=11"],
         r"rulezoo: task 'tiny' cannot be trained on: .*: OneCycleLR\(total_steps=11\) ends after 11 of 12 training steps; .*"),
        (["warmup_steps=12"],
         "rulezoo: task 'tiny' cannot be trained on: budget.warmup_steps must be below the number of training steps, 12, got 12; .*"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_is_one_sentence_and_nothing_is_trained(tmp_path, words, sentence):
    done = command(tmp_path / "out", *(part for word in words for part in ("-b", word)))
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if not line.endswith("runs to do")]
    assert len(lines) == 1
    assert re.fullmatch(sentence, lines[0]), lines
    assert not list((tmp_path / "out").glob("runs/**/*.json"))
