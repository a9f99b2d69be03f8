"""Hand-made records, and the report made of them."""

import re

import msgspec
import pytest

from rulezoo.results.records import Cost, Hardware, Plugin, Point, Probe, Provenance, Record, RunSpec

from .boards import board

LAPTOP = Hardware(cpu="Laptop", cores=8, threads=4)
SERVER = Hardware(cpu="Server", cores=64, threads=1)


def _run(rule, task="digits-cnn", seed=0, test=0.9, *, cost=1.0, hardware=LAPTOP, asked=None, **changes):
    question = {
        "protocol": 1,
        "rule": rule,
        "rule_version": 1,
        "rule_options": {"lr": None},
        "task": task,
        "task_version": 1,
        "task_options": {},
        "budget": {"epochs": 3, "batch": 32, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0},
        "seed": seed,
        "device": "cpu",
    }
    answered = Provenance(
        packages={"rulezoo": "0.1.0"},
        rule_plugin=Plugin(distribution="rulezoo"),
        task_plugin=Plugin(distribution="rulezoo"),
        hardware=hardware,
        commit=None,
        dirty=None,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        seeds_together=3,
        mode="vmap",
    )
    values = {
        "status": "ok",
        "chance": 0.1,
        "metric": "accuracy",
        "scores": {} if test is None else {"validation": test, "test": test},
        "cost": None if cost is None else Cost(step_ms=cost, backprop_step_ms=1, ratio=cost),
        "curve": []
        if test is None
        else [Point(step=20 * e, epoch=e, validation=test * e / 3) for e in (1, 2, 3)],
    }
    return Record(asked=RunSpec(**(question | (asked or {}))), answered=answered, **(values | changes))


@pytest.fixture(scope="session")
def run():
    """One run: ``run(rule, task, seed, test, cost=…, hardware=…, asked={…}, **fields)``."""
    return _run


@pytest.fixture(scope="session")
def runs():
    """Runs with seeds 0, 1 …: ``runs(rule, tests, task=…, **fields)``."""
    return lambda rule, tests, **changes: [
        _run(rule, seed=seed, test=test, **changes) for seed, test in enumerate(tests)
    ]


@pytest.fixture(scope="session")
def machines():
    """Two classes of machine."""
    return LAPTOP, SERVER


@pytest.fixture(scope="session")
def records(runs):
    """Five rules on two tasks: one diverges once, one skips a task, some were probed, one has two budgets."""
    found = []
    for task in ("digits-cnn", "digits-rnn"):
        found += runs("backprop", [0.97, 0.96, 0.98], task=task)
        found += runs("frozen", [0.6, 0.62, 0.61], task=task, cost=0.5)
        found += runs("nmnc", [0.9, 0.92, 0.94], task=task, cost=2.0, probes=_probes(40.0))
        changed = {"changed": ["perturbations"], "probes": _probes(60.0)}
        for number, score in ((2, 0.7), (8, 0.85)):
            asked = {"rule_options": {"lr": None, "perturbations": number}}
            found += runs("noise-correlation", [score] * 3, task=task, cost=1.5, asked=asked, **changed)
    found += runs("e-prop", [0.8, 0.8, 0.8], task="digits-rnn", cost=1.2)
    found += [
        _run("e-prop", seed=s, test=None, cost=None, status="skipped", reason="needs recurrence")
        for s in range(3)
    ]
    found += runs("feedback-alignment", [0.9, 0.9], task="digits-cnn")
    found += [_run("feedback-alignment", seed=2, test=None, status="diverged", reason="not finite at step 4")]
    return found


def _probes(angle):
    return [
        Probe(
            step=s, epoch=s, sites={"conv1.post": {"angle": angle + 10 * s}}, weights={"*": {"angle": angle}}
        )
        for s in (0, 1)
    ]


@pytest.fixture(scope="session")
def pages(records):
    """The files of the report of `records`."""
    from rulezoo.discovery.registry import discover
    from rulezoo.report.build import report as make

    return make(records, discover())


@pytest.fixture(scope="session")
def small():
    """12 rules × 2 tasks, with their tunings: records, tunings."""
    return board(_run, 12, 2)


@pytest.fixture(scope="session")
def small_report(small):
    """The files of the report of `small`."""
    from rulezoo.discovery.registry import discover
    from rulezoo.report.build import report as make

    return make(small[0], discover(), tunings=small[1])


@pytest.fixture(scope="session")
def text():
    """Page → what a reader sees, without tags."""
    import html

    return lambda page: " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.decode())).split())


@pytest.fixture
def replaced():
    """A record with other fields."""
    return msgspec.structs.replace
