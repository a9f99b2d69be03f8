"""Folders of results with a few small runs."""

from __future__ import annotations

import sys

import msgspec
import pytest

from rulezoo.cli import main
from rulezoo.results.records import Hardware, Plugin, Point, Probe, Provenance, Record, RunSpec
from rulezoo.results.store import Store

ANSWERED = Provenance(
    packages={"torch": "2.15.0", "python": "3.11.7"},
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


def _run(rule="nmnc", seed=0, test=0.9, losses=(2.0, 1.0), asked=None, answered=None, **changes):
    identity = {
        "protocol": 1, "rule": rule, "rule_version": 1, "rule_options": {"sigma": 0.1}, "task": "digits-cnn",
        "task_version": 1, "task_options": {"width": 1.0}, "budget": {"epochs": 2, "lr": 1e-3}, "seed": seed,
        "device": "cpu",
    }  # fmt: skip
    curve = [
        Point(step=10 * (i + 1), epoch=i + 1, train_loss=loss, validation=0.5)
        for i, loss in enumerate(losses)
    ]
    values = {
        "status": "ok", "scores": {"validation": 0.5, "test": test}, "chance": 0.1, "metric": "accuracy", "curve": curve,
        "logs": {"rank": [4.0 + i for i in range(len(losses))]},
    }  # fmt: skip
    return Record(
        asked=RunSpec(**(identity | (asked or {}))),
        answered=msgspec.structs.replace(ANSWERED, **(answered or {})),
        **(values | changes),
    )


@pytest.fixture
def run():
    """Make a run; two of the same rule, seed and ``asked`` have the same key."""
    return _run


@pytest.fixture
def probe():
    return Probe(
        step=10, epoch=1, sites={"hidden": {"angle": 45.0}}, weights={"*": {"angle": 50.0, "alpha": None}}
    )


@pytest.fixture
def folder(tmp_path):
    """Make a folder of results of some runs."""

    def make(name, *records):
        store = Store(tmp_path / name)
        for record in records:
            store.put(record)
        return store

    return make


@pytest.fixture
def rulezoo(monkeypatch, capsys):
    """Run the command line in this process; returns exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["rulezoo", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run
