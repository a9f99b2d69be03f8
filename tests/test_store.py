import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulezoo.results.migrations import STEPS
from rulezoo.results.records import (
    LARGEST,
    Cost,
    Hardware,
    Plugin,
    Point,
    Probe,
    Provenance,
    Record,
    RecordError,
    RunSpec,
)
from rulezoo.results.store import Store, StoreError

ANSWERED = Provenance(
    packages={"torch": "2.15.0"},
    rule_plugin=Plugin(distribution="rulezoo", version="0.1.0"),
    task_plugin=Plugin(distribution="rulezoo", version="0.1.0"),
    hardware=Hardware(cpu="A", cores=2, threads=1),
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seeds_together=1,
    mode="single",
)


def asked(rule="nmnc", seed=0):
    return RunSpec(
        protocol=1,
        rule=rule,
        rule_version=1,
        rule_options={"sigma": 0.1},
        task="digits-cnn",
        task_version=1,
        task_options={},
        budget={"epochs": 10, "lr": 1e-3},
        seed=seed,
        device="cpu",
    )


def record(rule="nmnc", seed=0, **changes):
    values = {"status": "ok", "scores": {"test": 0.9}, "chance": 0.1, "metric": "accuracy"}
    return Record(asked=asked(rule, seed), answered=ANSWERED, **(values | changes))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def files(store):
    return sorted(p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file())


def damage(store):
    """The one damaged file's path and reason."""
    reading = store.read()
    assert reading.records == []
    (found,) = reading.damaged
    return found.path, found.reason


def test_what_was_put_is_read_back(store):
    one = record(
        curve=[Point(step=1, epoch=0.5, train_loss=2.25)], cost=Cost(step_ms=2, backprop_step_ms=1, ratio=2)
    )
    path = store.put(one)
    assert path.relative_to(store.root).as_posix() == f"runs/digits-cnn/nmnc/seed0-{one.asked.key}.json"
    assert store.get(one.asked) == one
    assert store.has(one.asked)
    assert store.read().records == [one]
    assert store.read().damaged == []


def test_a_run_of_a_task_of_a_family_is_kept_in_files_without_a_colon(store):
    one = record()
    one = msgspec.structs.replace(
        one,
        asked=msgspec.structs.replace(one.asked, task="mazes:Small-v0", task_options={"maze": "Small-v0"}),
    )
    path = store.put(one, {"weights": b"weights"})
    assert path.relative_to(store.root).as_posix() == f"runs/mazes+Small-v0/nmnc/seed0-{one.asked.key}.json"
    (read,) = store.read().records
    assert read.asked == store.get(one.asked).asked == one.asked
    assert not [name for name in files(store) if ":" in name]


@pytest.mark.parametrize("task", ["mazes:", "mazes:a/b", "mazes:..", ":a", "Mazes:a"])
def test_a_task_whose_name_is_no_name_of_a_folder_is_refused(task):
    with pytest.raises(RecordError, match="must be lower-case words joined by hyphens"):
        msgspec.structs.replace(asked(), task=task).__post_init__()


def test_what_was_not_put_is_not_there(store):
    assert store.get(asked()) is None
    assert not store.has(asked())
    assert store.read().records == []
    store.put(record(seed=1))
    assert not store.has(asked(seed=0))


def test_a_later_record_of_the_same_run_takes_the_place_of_the_first(store):
    store.put(record(status="crashed", scores={}))
    store.put(record())
    assert store.read().records == [record()]
    assert len(files(store)) == 1


def test_records_come_in_the_order_of_their_paths(store):
    for rule, seed in [("nmnc", 1), ("backprop", 1), ("nmnc", 0)]:
        store.put(record(rule, seed))
    assert [(r.asked.rule, r.asked.seed) for r in store.read().records] == [
        ("backprop", 1),
        ("nmnc", 0),
        ("nmnc", 1),
    ]


numbers = st.floats(allow_nan=True, allow_infinity=True)
measured = st.dictionaries(st.text(), st.dictionaries(st.text(), st.none() | numbers, max_size=3), max_size=3)


@settings(max_examples=40, deadline=None)
@given(score=numbers, loss=numbers, ratio=st.floats(0, LARGEST), sites=measured)
def test_whatever_a_run_measures_is_read_back_whole(tmp_path_factory, score, loss, ratio, sites):
    store = Store(tmp_path_factory.mktemp("store"))
    cost = Cost(step_ms=1, backprop_step_ms=1, ratio=ratio)
    point = Point(step=1, epoch=1, train_loss=loss)
    probe = Probe(step=1, epoch=1, sites=sites)
    store.put(record(metric="reward", scores={"test": score}, curve=[point], cost=cost, probes=[probe]))
    reading = store.read()
    assert reading.damaged == []
    (back,) = reading.records
    finite = abs(score) <= LARGEST  # JSON has no infinity, and a mean of larger numbers none either
    assert back.scores["test"] == (score if finite else None)
    assert back.cost == cost


def test_a_record_that_could_not_be_read_back_is_refused_before_it_is_written(store):
    broken = record(cost=Cost(step_ms=1, backprop_step_ms=0, ratio=float("nan")))
    with pytest.raises(RecordError, match=r"nmnc on digits-cnn, seed 0: cannot be stored: .*cost\.ratio"):
        store.put(broken)
    with pytest.raises(RecordError, match="cannot be stored"):
        store.put(record(probes=[Probe(step=1, epoch=1, reason=object())]))
    assert files(store) == []


def test_messages_are_stored_without_the_folders_of_the_machine(store):
    trace = f'File "{Path.cwd()}/mine/my_rule.py", line 3, in step\nValueError'
    path = store.put(record(status="error", reason="no file /home/jane/data/x.bin", traceback=trace))
    text = path.read_text()
    assert "jane" not in text
    assert str(Path.cwd()) not in text
    back = store.get(asked())
    assert back.reason == "no file …/x.bin"
    assert back.traceback == 'File "…/my_rule.py", line 3, in step\nValueError'


# Damage


def test_a_message_of_fifty_megabytes_is_stored_with_its_middle_left_out(store):
    begin = time.process_time()
    store.put(
        record(status="error", reason="E: " + 10_000_000 * "loud ", traceback="File\n" + 10_000_000 * "loud ")
    )
    assert time.process_time() - begin < 1, "it took 12 s"
    (kept,) = store.read().records
    assert (kept.reason[:8], len(kept.reason) < 5000) == ("E: loud ", True)
    assert "[49996003 characters left out]" in kept.reason
    assert (kept.traceback[:10], len(kept.traceback) < 50_000) == ("File\nloud ", True)


def test_half_a_character_in_a_message_is_stored_as_an_escape(store):
    store.put(record(status="error", reason="E: \ud800"))
    assert store.read().records[0].reason == "E: \\ud800"


def test_a_truncated_file_is_named_and_the_others_are_read(store):
    path = store.put(record(seed=0))
    store.put(record(seed=1))
    path.write_bytes(path.read_bytes()[:100])
    reading = store.read()
    assert [r.asked.seed for r in reading.records] == [1]
    (found,) = reading.damaged
    assert found.path == path.relative_to(store.root).as_posix()
    assert "is not whole JSON" in found.reason
    assert "run it again to replace it" in found.reason
    assert not store.has(asked(seed=0)), "a damaged run must be run again"


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": "\\ud800"}', b"NaN"], ids=repr
)
def test_a_file_that_is_not_json_is_named(store, content):
    store.put(record()).write_bytes(content)
    assert "is not whole JSON" in damage(store)[1]


@pytest.mark.parametrize("content", [b"[]", b"1", b"{}", b'{"schema": 1}', b'{"digest": "x"}'])
def test_json_that_is_no_record_is_named(store, content):
    store.put(record()).write_bytes(content)
    assert "is not a record of rulezoo" in damage(store)[1]


@pytest.mark.parametrize(
    ("old", "new"), [('"test":0.9', '"test":0.99'), ('"seed":0', '"seed":3'), ('"ok"', '"error"')]
)
def test_a_value_edited_by_hand_is_noticed(store, old, new):
    path = store.put(record())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert "was changed after it was written" in damage(store)[1]


def test_a_file_that_was_only_laid_out_anew_is_no_damage(store):
    path = store.put(record())
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert store.read().records == [record()]


def test_a_file_under_a_wrong_name_is_not_taken_for_that_run(store):
    path = store.put(record(seed=0))
    path.rename(path.with_name(f"seed1-{asked(seed=1).key}.json"))
    assert damage(store)[1].startswith(
        f"holds the run that belongs to runs/digits-cnn/nmnc/seed0-{asked().key}.json"
    )
    assert not store.has(asked(seed=1))


def test_a_copy_under_another_rule_is_named(store):
    path = store.put(record())
    other = store.root / "runs/digits-cnn/backprop" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    reading = store.read()
    assert reading.records == [record()]
    assert [d.path for d in reading.damaged] == [f"runs/digits-cnn/backprop/{path.name}"]


def rewritten(path, change):
    """Change the content of a record as another rulezoo would have written it: with a right digest."""
    from rulezoo.results.store import digest

    body = json.loads(path.read_text())
    del body["digest"]
    body = change(body)
    path.write_bytes(msgspec.json.encode(body | {"digest": digest(body)}))


@pytest.mark.parametrize("schema", [3, "3", True, None])
def test_a_newer_schema_is_named_with_what_to_do(store, schema):
    rewritten(store.put(record()), lambda body: body | {"schema": schema})
    assert f"has schema {schema}, this rulezoo reads 2; update rulezoo" in damage(store)[1]


def test_an_older_schema_that_nothing_brings_up_to_date_is_named(store):
    rewritten(store.put(record()), lambda body: body | {"schema": -1})
    assert "has schema -1, which this rulezoo, of schema 2, cannot bring up to date, or" in damage(store)[1]


def test_older_schemas_are_migrated_step_by_step_and_their_files_left_alone(store, monkeypatch):
    def older(body):
        body["asked"]["optimiser"] = body["asked"]["budget"].pop("lr")
        return body | {"schema": -1, "measure": body.pop("metric")}

    def lr_into_the_budget(body):
        asked = dict(body["asked"])
        asked["budget"] = asked["budget"] | {"lr": asked.pop("optimiser")}
        return body | {"asked": asked}

    def measure_is_called_metric(body):
        return {**{k: v for k, v in body.items() if k != "measure"}, "metric": body["measure"]}

    path = store.put(record())
    rewritten(path, older)
    other_key = path.rename(path.with_name("seed0-0123456789abcdef.json"))  # the key was made of other fields
    before = other_key.read_bytes()
    monkeypatch.setattr(
        "rulezoo.results.migrations.STEPS", {-1: lr_into_the_budget, 0: measure_is_called_metric, **STEPS}
    )
    assert store.read().records == [record()]
    assert other_key.read_bytes() == before


def as_schema_1(body):
    """A record as it was written before the digest of the data and the depth of blocks were known."""
    answered = {name: value for name, value in body["answered"].items() if name != "data"}
    rest = {name: value for name, value in body.items() if name != "block_depth"}
    return rest | {"schema": 1, "answered": answered}


def test_records_of_schema_1_are_read_and_their_files_left_alone(store):
    path = store.put(record())
    rewritten(path, as_schema_1)
    before = path.read_bytes()
    assert b'"schema":1' in before
    assert b"block_depth" not in before
    assert store.get(record().asked) == record()
    (read,) = store.read().records
    assert (read.schema, read.answered.data, read.block_depth) == (2, None, None)
    assert path.read_bytes() == before


def test_a_copy_of_a_record_of_schema_1_under_another_name_is_no_second_result(store):
    path = store.put(record())
    rewritten(path, as_schema_1)
    path.with_name("seed0-0123456789abcdef.json").write_bytes(path.read_bytes())
    reading = store.read()
    assert reading.records == [record()]
    assert "holds the run that belongs to" in reading.damaged[0].reason


def test_a_field_of_a_wrong_type_is_named_even_when_the_digest_is_right(store):
    from rulezoo.results.store import digest

    path = store.put(record())
    body = json.loads(path.read_text())
    del body["digest"]
    body["metric"] = 7
    path.write_bytes(msgspec.json.encode(body | {"digest": digest(body)}))
    assert "does not follow schema 2" in damage(store)[1]
    assert "$.metric" in damage(store)[1]


def test_a_folder_in_the_place_of_a_file_is_named(store):
    path = store.put(record())
    path.unlink()
    path.mkdir()
    assert "cannot be read" in damage(store)[1]


# Writing


def test_temporary_files_are_no_records_and_old_ones_are_swept(store):
    path = store.put(record())
    young, old = path.with_name(f".young.json.{'1' * 16}.tmp"), path.with_name(f".old.json.{'2' * 16}.tmp")
    for temporary in (
        young,
        old,
        path.with_name(f"._{path.name}"),
    ):  # macOS leaves the third on foreign disks
        temporary.write_text("{")
    checkpoint = store.folder(".checkpoints") / f".state.pt.{'3' * 16}.tmp"
    checkpoint.write_text("{")
    for path in (old, checkpoint):
        os.utime(path, (time.time() - 7200,) * 2)
    assert store.read().records == [record()]
    assert store.read().damaged == []
    store.check_writable()
    assert young.exists(), "it may belong to a process that is writing"
    assert not old.exists()
    assert not checkpoint.exists()


def test_checking_leaves_nothing_behind(store):
    store.check_writable()
    assert files(store) == []


@pytest.mark.parametrize("place", ["results", "results/runs"])
def test_a_file_where_the_folder_should_be_is_told_before_training(store, place):
    wrong = store.root.parent / place
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_text("")
    with pytest.raises(StoreError) as error:
        store.check_writable()
    assert str(store.root) in str(error.value)
    assert "a file stands where a folder is needed; move it away, or choose another folder with --out" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            errno.ENOSPC,
            "the disk or your quota is full; free some space, or choose another folder with --out",
        ),
        (errno.EROFS, "writing is not allowed there; change its permissions"),
        (errno.EIO, "Input/output error; choose another folder"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_stored_before(store, monkeypatch, code, words, call):
    store.put(record(seed=0))
    store.put(record(seed=1))
    before = files(store)

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=words) as error:
            store.put(record(seed=1, scores={"test": 0.5}))
        assert "The records stored before are whole" in str(error.value)
        with pytest.raises(StoreError, match=words):
            store.check_writable()
    assert files(store) == before
    assert store.read().records == [record(seed=0), record(seed=1)]


def test_results_can_be_read_by_others(store):
    old = os.umask(0o022)
    try:
        assert store.put(record()).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


WRITER = """
import sys, msgspec
from pathlib import Path
from rulezoo.results.records import Record
from rulezoo.results.store import Store
store, template = Store(Path(sys.argv[1])), msgspec.json.decode(sys.argv[2], type=Record)
for k in range(100):
    asked = msgspec.structs.replace(template.asked, seed=k % 10)
    store.put(msgspec.structs.replace(template, asked=asked, parameters=int(sys.argv[3])))
"""


def test_processes_that_write_the_same_runs_at_once_do_no_damage(store):
    template = msgspec.json.encode(record(curve=[Point(step=k, epoch=k) for k in range(500)])).decode()
    command = [sys.executable, "-c", WRITER, str(store.root), template]
    writers = [subprocess.Popen([*command, str(who)]) for who in (1, 2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        reading = store.read()
        assert reading.damaged == []
        assert len(reading.records) >= seen, "a record that was there has gone"
        seen = len(reading.records)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(r.asked.seed for r in store.read().records) == [*range(10)]
    assert len(files(store)) == 10
