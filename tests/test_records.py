import json
import subprocess
import sys

import msgspec
import pytest

from rulezoo.results.records import (
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


def asked(**changes):
    values = {
        "protocol": 1,
        "rule": "nmnc",
        "rule_version": 2,
        "rule_options": {
            "lr": None,
            "sigma": 0.1,
            "rank": 16,
            "antithetic": True,
            "estimator": "correlation",
        },
        "task": "digits-cnn",
        "task_version": 1,
        "task_options": {},
        "budget": {"epochs": 10, "batch": 32, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0},
        "seed": 0,
        "device": "cpu",
    }
    return RunSpec(**(values | changes))


def record(**changes):
    answered = Provenance(
        packages={"torch": "2.15.0"},
        rule_plugin=Plugin(distribution="rulezoo", version="0.1.0"),
        task_plugin=Plugin(distribution="my_task.py"),
        hardware=Hardware(cpu="A", cores=2, threads=1),
        commit=None,
        dirty=None,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        seeds_together=3,
        mode="vmap",
    )
    values = {"asked": asked(), "answered": answered, "status": "ok", "chance": 0.1, "metric": "accuracy"}
    return Record(**(values | changes))


def test_the_key_is_what_it_was_in_the_first_release():
    # A stored run is found again by this number: if it changes, every stored result is lost.
    assert asked().key == "029915a547239fcb"


def test_the_key_does_not_depend_on_the_order_of_options_nor_on_how_a_number_is_written():
    shuffled = asked(rule_options=dict(reversed(asked().rule_options.items())))
    assert shuffled.key == asked().key
    assert asked(budget={"lr": 1, "epochs": 3}).key == asked(budget={"epochs": 3.0, "lr": 1.0}).key
    assert asked(rule_options={"sigma": -0.0}).key == asked(rule_options={"sigma": 0}).key


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": 2},
        {"rule": "nmnc2"},
        {"rule_version": 3},
        {"rule_options": asked().rule_options | {"rank": 17}},
        {"rule_options": asked().rule_options | {"sigma": 0.1 + 2**-56}},
        {"rule_options": asked().rule_options | {"antithetic": 1}},
        {"rule_options": asked().rule_options | {"lr": "None"}},
        {"task": "digits-rnn"},
        {"task_version": 2},
        {"task_options": {"width": 2}},
        {"budget": asked().budget | {"epochs": 11}},
        {"seed": 1},
        {"device": "cuda"},
    ],
    ids=str,
)
def test_every_part_of_the_question_changes_the_key(change):
    assert asked(**change).key != asked().key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "../up"}, "rule '../up' must be lower-case words joined by hyphens"),
        ({"rule": "nmnc/../../up"}, "rule 'nmnc/../../up' must be lower-case words joined by hyphens"),
        ({"task": "Digits"}, "task 'Digits' must be lower-case words joined by hyphens"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"rule_options": {"sigma": float("nan")}}, "nmnc.sigma must be a finite number, got nan"),
        ({"budget": {"lr": float("inf")}}, "budget.lr must be a finite number, got inf"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(change, words):
    with pytest.raises(RecordError, match=words.replace(".", r"\.")):
        asked(**change)


def test_a_record_without_a_chance_level_is_refused():
    with pytest.raises(RecordError, match="chance of digits-cnn must be a finite number, got nan"):
        record(chance=float("nan"))


def test_a_full_record_survives_json():
    full = record(
        status="diverged",
        reason="the loss was not finite at step 40",
        changed=["rank"],
        scores={"validation": 0.5, "test": None},
        curve=[Point(step=40, epoch=1.5, train_loss=2.25), Point(step=80, epoch=3)],
        cost=Cost(step_ms=1.5, backprop_step_ms=1.0, ratio=1.5, peak_memory_mb=12.0),
        logs={"angle": [80.5, None]},
        parameters=1234,
        probes=[
            Probe(step=3, epoch=0.5, sites={"hidden": {"alpha": 0.25, "ceiling": None}}, weights={"*": {}})
        ],
    )
    assert msgspec.json.decode(msgspec.json.encode(full), type=Record) == full


def test_a_float_that_is_not_finite_is_stored_as_null():
    curve = [Point(step=1, epoch=1, train_loss=float("nan"), validation=float("inf"))]
    text = msgspec.json.encode(record(curve=curve, scores={"test": float("nan")}))
    assert json.loads(text)["curve"] == [{"step": 1, "epoch": 1, "train_loss": None, "validation": None}]
    assert msgspec.json.decode(text, type=Record).scores == {"test": None}


def test_a_field_that_the_schema_does_not_know_is_refused():
    text = msgspec.json.encode(record()).replace(b'"metric"', b'"score":1,"metric"')
    with pytest.raises(msgspec.ValidationError, match="unknown field `score`"):
        msgspec.json.decode(text, type=Record)


def test_records_store_and_board_load_without_torch_and_pandas():
    code = "import sys, rulezoo.results.store, rulezoo.leaderboard.board; print({'torch', 'pandas', 'numpy', 'rich'} & {*sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )
