"""Several folders in one: nothing is lost, nothing is mixed up, and the sources stay as they are."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from rulezoo.evaluations import store as evaluations
from rulezoo.evaluations.records import Evaluated, Question
from rulezoo.results import files, merging, store, verifications
from rulezoo.results.records import Plugin
from rulezoo.results.verifications import Verification
from rulezoo.tuning import records as tunings
from rulezoo.tuning.records import Tried, Tuned

LATER = {"finished": "2026-06-01T00:00:00+00:00"}


def contents(folder):
    """Path → bytes of everything in a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def verification(**changes):
    fields = {
        "rule_version": 1, "rule_options": {"lr": None}, "rule_plugin": Plugin(distribution="rulezoo"), "rule_code": None,
        "outcome": "passed", "passed": 75, "failed": 0, "skipped": 4, "packages": {}, "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Verification(rule="nmnc", **(fields | changes))


def conclusion(run, best=0):
    trials = [
        Tried(set={}, runs=[run().asked.key], status="ok"),
        Tried(set={"sigma": 0.2}, runs=[], status="ok"),
    ]
    return Tuned(asked=run().asked, given={}, n=2, trials=trials, best=best, seeds=[0], sampler="s")  # fmt: skip


@pytest.fixture
def merge(rulezoo, tmp_path):
    """Merge folders into one; exit code, stderr and what is there then."""

    def merge(*stores, to="merged", words=()):
        target = tmp_path / to
        code, out, err = rulezoo("results", "merge", *(one.root for one in stores), "--to", target, *words)
        return SimpleNamespace(code=code, out=out, err=err, store=store.Store(target), root=target)

    return merge


def test_everything_travels_byte_for_byte_and_the_sources_stay_as_they_are(folder, run, merge):
    a, b = folder("a", run(seed=0), run(seed=1)), folder("b", run("backprop"))
    tunings.trials_of(b).put(run(scores={"validation": 0.5}))
    tunings.put(b, "0" * 16, conclusion(run))
    verifications.put(a, verification())
    before = contents(a.root) | contents(b.root)
    done = merge(a, b)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{done.root}: 3 runs, 1 verification, 1 trial, 1 tuning; 6 written by this merge\n"
    assert contents(done.root) == before
    assert contents(a.root) | contents(b.root) == before


def test_the_same_run_in_several_folders_is_one(folder, run, merge):
    done = merge(folder("a", run(), run(seed=1)), folder("b", run(), run(seed=2)))
    assert (done.code, done.err) == (0, "")
    assert sorted(record.asked.seed for record in done.store.read().records) == [0, 1, 2]


def test_what_the_target_holds_stays_and_a_second_merge_writes_nothing(folder, run, merge):
    a = folder("a", run(seed=1))
    folder("merged", run(seed=0))
    assert merge(a).code == 0
    again = merge(a)
    assert "0 written" in again.out
    assert len(again.store.read().records) == 2


def test_identical_results_computed_twice_are_no_conflict_and_the_one_with_probes_is_kept(
    folder, run, probe, merge
):
    a, b = folder("a", run()), folder("b", run(answered=LATER, probes=[probe]))
    done = merge(a, b)
    assert (done.code, done.err) == (0, "")
    (record,) = done.store.read().records
    assert record.probes
    assert merge(b, a, to="other").store.read().records == [record]


@pytest.mark.parametrize("status", ["timeout", "killed", "oom_gpu", "interrupted"])
def test_a_run_that_was_broken_off_gives_way_to_one_that_ended(folder, run, merge, status):
    broken = run(status=status, reason="r", scores={}, losses=(), logs={}, answered=LATER)
    done = merge(folder("a", broken), folder("b", run()))
    assert (done.code, done.err) == (0, "")
    assert done.store.read().records == [run()]


def test_different_results_of_a_key_are_named_and_refused_and_nothing_is_written(folder, run, merge):
    a, b = folder("a", run(), run(seed=1)), folder("b", run(test=0.8), run(seed=2))
    done = merge(a, b)
    assert done.code == 2
    assert f"digits-cnn nmnc seed 0: different results in {a.root}, {b.root}" in done.err
    assert "1 item of the same key" in done.err
    assert f"rulezoo results diff {a.root} {b.root}" in done.err
    assert not done.root.exists()


@pytest.mark.parametrize(("prefer", "score"), [("first", 0.9), ("newest", 0.8)])
def test_a_stated_rule_settles_a_conflict_and_names_it(folder, run, merge, prefer, score):
    a, b = folder("a", run()), folder("b", run(test=0.8, answered=LATER))
    done = merge(a, b, words=("--prefer", prefer))
    assert done.code == 0
    (record,) = done.store.read().records
    assert record.scores["test"] == score
    assert f"digits-cnn nmnc seed 0: kept from {(a if prefer == 'first' else b).root}" in done.err


def test_what_is_replaced_in_the_target_is_kept_aside(folder, run, merge):
    target = folder("merged", run())
    old = target.path(run().asked).read_bytes()
    done = merge(folder("b", run(test=0.8, answered=LATER)), words=("--prefer", "newest"))
    assert done.store.read().records[0].scores["test"] == 0.8
    assert [p.read_bytes() for p in (done.root / ".replaced").iterdir()] == [old]


def test_of_verifications_the_newest_is_kept(folder, run, merge):
    a, b = folder("a", run()), folder("b", run())
    verifications.put(a, verification(failed=1, outcome="failed", **LATER))
    verifications.put(b, verification())
    for stores in ((a, b), (b, a)):
        done = merge(*stores, to=f"to-{stores[0].root.name}")
        assert (done.code, done.err) == (0, "")
        assert [one.outcome for one in verifications.read(done.store).found] == ["failed"]


def test_different_conclusions_of_a_tuning_are_a_conflict(folder, run, merge):
    a, b = folder("a", run()), folder("b", run())
    for one, best in ((a, 0), (b, 1)):
        tunings.put(one, "0" * 16, conclusion(run, best))
    assert "tuned-2 of nmnc on digits-cnn: different results" in merge(a, b).err
    done = merge(a, b, words=("--prefer", "first"))
    assert [one.best for one in tunings.read(done.store).tunings] == [0]


def test_a_damaged_file_is_named_and_left_out_and_the_exit_code_says_so(folder, run, merge):
    a, b = folder("a", run(), run(seed=1)), folder("b", run(seed=2))
    path = a.path(run(seed=1).asked)
    path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8"))
    done = merge(a, b)
    assert done.code == 1
    assert f"left out: {path} was changed after it was written" in done.err
    assert sorted(record.asked.seed for record in done.store.read().records) == [0, 2]


def test_a_sound_copy_takes_the_place_of_a_damaged_one(folder, run, merge):
    a, b, target = folder("a", run()), folder("b", run()), folder("merged", run())
    for one in (a, target):
        one.path(run().asked).write_text("{", encoding="utf-8")
    done = merge(a, b)
    assert done.code == 1  # the damaged file of a is named
    assert done.store.read().records == [run()]


def test_a_run_that_was_set_aside_to_be_run_again_travels(folder, run, merge):
    a = folder("a", run())
    a.set_aside(run().asked)
    assert merge(a).store.get(run().asked) == run()


@pytest.mark.parametrize("after", range(6))
def test_a_merge_that_is_stopped_anywhere_loses_nothing_and_goes_on(folder, run, merge, monkeypatch, after):
    a, b = folder("a", run(), run(seed=1)), folder("b", run(seed=2), run(test=0.8, answered=LATER))
    target = folder("merged", run(test=0.7))
    sources, write, done = contents(a.root) | contents(b.root), files.write_whole, []

    def stopped(path, content, **more):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(path)
        write(path, content, **more)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", stopped)
        try:
            merging.prepare([a, b], target, prefer="newest").carry_out()
        except KeyboardInterrupt:
            pass
        else:
            assert after == 5  # so many files are written: a probe, the replaced record, three records
    assert target.read().damaged == []
    assert target.get(run().asked).scores["test"] in (0.7, 0.8)
    assert contents(a.root) | contents(b.root) == sources
    again = merge(a, b, words=("--prefer", "newest"))
    assert sorted((r.asked.seed, r.scores["test"]) for r in again.store.read().records) == [
        (0, 0.8),
        (1, 0.9),
        (2, 0.9),
    ]


@pytest.mark.parametrize(
    ("sources", "to", "expected"),
    [(["a", "nothing"], "merged", "nothing: it is no folder"), (["a"], "a", "is merged into itself")],
)
def test_what_cannot_be_merged_is_refused(rulezoo, folder, run, tmp_path, sources, to, expected):
    folder("a", run())
    code, _, err = rulezoo("results", "merge", *(tmp_path / name for name in sources), "--to", tmp_path / to)
    assert code == 2
    assert expected in err


def test_without_a_target_the_command_says_so(rulezoo, tmp_path):
    code, _, err = rulezoo("results", "merge", tmp_path)
    assert code == 2
    assert "--to" in err


# Weights and evaluations


def evaluation(run, weights, **changes):
    asked = run().asked
    question = Question(
        run=asked.key,
        rule=asked.rule,
        task=asked.task,
        seed=asked.seed,
        evaluation="calibration",
        version=1,
        options={},
    )
    fields = {
        "status": "ok", "headline": "ece", "higher_is_better": False, "values": {"ece": 0.1}, "weights": weights,
        "plugin": Plugin(distribution="rulezoo"), "code": None, "packages": {},
        "finished": "2026-01-02T00:00:00+00:00", "seconds": 1.0,
    }  # fmt: skip
    return Evaluated(asked=question, **(fields | changes))


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_weights_memory_and_evaluations_travel_with_their_run(folder, run, merge):
    a = folder("a")
    a.put(run(), {"weights": b"W", "memory": b"M"})
    evaluations.put(a, evaluation(run, sha(b"W")), {"bins": np.arange(3)})
    before = contents(a.root)
    assert len(before) == 5
    done = merge(a)
    assert (done.code, done.err) == (0, "")
    assert contents(done.root) == before == contents(a.root)
    assert "1 run, 1 evaluation; 2 written" in done.out


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_identical_results_the_run_with_weights_is_kept(folder, run, merge, order):
    a, b = folder("a", run()), folder("b")
    b.put(run(answered=LATER), {"weights": b"W"})
    done = merge(*({"a": a, "b": b}[name] for name in order))
    assert (done.code, done.err) == (0, "")
    (record,) = done.store.read().records
    assert record.weights == sha(b"W")
    assert done.store.kept_path(record.asked, "weights").read_bytes() == b"W"


def test_an_evaluation_of_other_weights_than_those_that_are_kept_is_named_and_left_out(folder, run, merge):
    a, b = folder("a"), folder("b")
    a.put(run(), {"weights": b"A"})
    b.put(run(test=0.8), {"weights": b"B"})
    evaluations.put(a, evaluation(run, sha(b"A")))
    evaluations.put(b, evaluation(run, sha(b"B"), values={"ece": 0.3}))
    done = merge(a, b, words=("--prefer", "first"))
    assert done.code == 1
    assert "evaluates other weights than those of the run that is kept" in done.err
    assert [one.values["ece"] for one in evaluations.read(done.store).found] == [0.1]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damaged_weights_and_arrays_are_named(folder, run, merge, damage):
    a = folder("a")
    a.put(run(), {"weights": b"W"})
    path = evaluations.put(a, evaluation(run, sha(b"W")), {"bins": np.arange(3)})
    for file in (a.kept_path(run().asked, "weights"), path.with_suffix(".npz")):
        file.unlink() if damage == "missing" else file.write_bytes(b"x")
    done = merge(a)
    assert done.code == 1
    assert done.err.count("left out: ") == 2
    assert [r.asked for r in done.store.read().records] == [run().asked]
    assert not done.store.kept_path(run().asked, "weights").exists()


def test_weights_that_are_replaced_in_the_target_are_kept_aside(folder, run, merge):
    target, b = folder("merged"), folder("b")
    target.put(run(), {"weights": b"old"})
    b.put(run(test=0.8, answered=LATER), {"weights": b"new"})
    done = merge(b, words=("--prefer", "newest"))
    assert done.store.kept_path(run().asked, "weights").read_bytes() == b"new"
    assert {p.suffix: p.read_bytes() for p in (done.root / ".replaced").iterdir()}[".safetensors"] == b"old"


def test_weights_of_a_replaced_run_do_not_stay_beside_one_without(folder, run, merge):
    target, b = folder("merged"), folder("b", run(test=0.8, answered=LATER))
    target.put(run(), {"weights": b"old"})
    done = merge(b, words=("--prefer", "newest"))
    assert not done.store.kept_path(run().asked, "weights").exists()
    assert [p.read_bytes() for p in (done.root / ".replaced").glob("*.safetensors")] == [b"old"]
