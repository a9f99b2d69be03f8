"""A result whose code has changed is stale; a comment does not make it so, and what it does not use neither."""

import json
from functools import partial

import msgspec
import pytest

from rulezoo.discovery.fingerprint import fingerprint
from rulezoo.discovery.former_fingerprints import first
from rulezoo.discovery.registry import discover
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.overview import build
from rulezoo.results.freshness import FAILED, mixed_data, stale, wanted_again
from rulezoo.results.records import Hardware, Plugin, Provenance, Record, RunSpec


def record(rule="backprop", task="digits-cnn", status="ok", rule_code=None, task_code=None, seed=0):
    asked = RunSpec(
        protocol=1, rule=rule, rule_version=1, rule_options={}, task=task, task_version=1,
        task_options={}, budget={}, seed=seed, device="cpu",
    )  # fmt: skip
    plugin = Plugin(distribution="tests")
    by = Provenance(
        packages={}, rule_plugin=plugin, task_plugin=plugin, hardware=Hardware(cpu="A", cores=1, threads=1),
        commit=None, dirty=None, started="", finished="", seeds_together=1, mode="single",
        rule_code=rule_code, task_code=task_code,
    )  # fmt: skip
    return Record(asked=asked, answered=by, status=status, scores={"test": 0.5}, chance=0.1, metric="hits")


def test_a_record_is_stale_when_the_code_of_its_rule_or_task_is_another():
    zoo = discover()
    rule, task = (fingerprint(one.spec.module) for one in (zoo.rules["backprop"], zoo.tasks["digits-cnn"]))
    assert stale(record(rule_code=rule, task_code=task), zoo) is None
    assert stale(record(rule_code="0" * 16, task_code=task), zoo) == "the code of rule backprop changed since"
    assert stale(record(rule_code="0" * 16, task_code="1" * 16), zoo) == (
        "the code of rule backprop and of task digits-cnn changed since"
    )
    assert stale(record(), zoo) is None  # stored before there were fingerprints
    assert stale(record(rule="gone", rule_code="0" * 16), zoo) is None


def test_a_record_is_not_stale_because_fingerprints_are_defined_otherwise_now():
    zoo = discover()
    rule, task = (first(one.spec.module) for one in (zoo.rules["backprop"], zoo.tasks["digits-cnn"]))
    assert rule != fingerprint(zoo.rules["backprop"].spec.module)
    assert stale(record(rule_code=rule, task_code=task), zoo) is None
    assert stale(record(rule_code=task, task_code=task), zoo) == "the code of rule backprop changed since"


def test_the_board_says_so():
    rows = [record(rule_code=code, seed=seed) for seed, code in enumerate(["0" * 16, None])]
    zoo = discover()
    text = render(build(rows, stale=lambda one: stale(one, zoo)))
    assert "stale: the code of rule backprop changed since (1 of 2)" in text
    assert "stale" not in render(build(rows))


ONE, OTHER = "1" * 16, "2" * 16


def of_data(digest, **changes):
    made = record(**changes)
    return msgspec.structs.replace(made, answered=msgspec.structs.replace(made.answered, data=digest))


def test_runs_of_one_task_on_different_data_are_found():
    same = [of_data(ONE, seed=seed, rule=rule) for seed in (0, 1) for rule in ("backprop", "frozen")]
    unknown = record(seed=5)
    elsewhere = of_data(OTHER, task="digits-rnn")
    assert mixed_data([*same, unknown, elsewhere]) == {}
    odd = of_data(OTHER, rule="frozen", seed=2)
    assert mixed_data([odd, *same, unknown, elsewhere]) == {
        odd.asked.key: f"trained on data with digest {OTHER}, other runs of digits-cnn on data with digest {ONE}"
    }
    options = msgspec.structs.replace(odd.asked, task_options={"width": 3})
    assert mixed_data([*same, msgspec.structs.replace(odd, asked=options)]) == {}, (
        "another task, by its options"
    )


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_a_table_says_which_runs_are_of_other_data(form):
    rows = [of_data(ONE, seed=seed) for seed in (0, 1, 2)]
    rows += [of_data(digest, rule="frozen", seed=seed) for seed, digest in enumerate([ONE, OTHER, OTHER])]
    said = (
        f"mixed data: frozen, seeds 1, 2: trained on data with digest {OTHER}, other runs of digits-cnn on data with "
        f"digest {ONE}"
    )
    text = render(build(rows), form, width=300)
    if form == "json":
        notes = [
            note
            for line in json.loads(text)["lines"]
            for cell in line["default"]["cells"]
            for note in cell["notes"]
        ]
        assert notes == [said]
    else:
        assert text.replace("\\", "").count(said) == 1
    assert "mixed data" not in render(build(rows[:4]), form)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["failed"], {"error", "timeout"}),
        (["timeout"], {"timeout"}),
        (["stale"], {"stale"}),
        (["stale", "error"], {"stale", "error"}),
        (["all"], {"ok", "stale", "error", "timeout", "skipped"}),
        ([], set()),
    ],
)
def test_what_is_wanted_again(words, chosen):
    records = {status: record(status=status) for status in ("ok", "error", "timeout", "skipped")}
    records["stale"] = record(rule_code="0" * 16)
    wanted = wanted_again(words, partial(stale, registry=discover()))
    assert {name for name, one in records.items() if wanted(one)} == chosen
    assert "skipped" not in FAILED
