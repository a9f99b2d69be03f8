"""Hand-made records, and evidence made of them."""

import pytest

from rulezoo.claims.design import Arm
from rulezoo.claims.evidence import Evidence
from rulezoo.results.records import Hardware, Plugin, Probe, Provenance, Record, RunSpec


def _record(arm, seed, *, test=0.5, validation=0.5, probes=(), status="ok", changed=None, **asked):
    """The run of an arm, as if it had been carried out.

    Args:
        arm: what was asked.
        seed: the seed.
        test: test score; validation: the other one.
        probes: site → quantity → number, for each probe; a number after training alone may be given as a mapping.
        status: how it ended.
        changed: options that were not the default; the arm's, if not given.
        asked: fields of `RunSpec` that differ.
    """
    probes = [probes] if isinstance(probes, dict) else probes
    plugin = Plugin(distribution="rulezoo", version="0")
    values = {name: float(text) for name, text in arm.options.items()}
    fields = {
        "protocol": 1,
        "rule": arm.rule,
        "rule_version": 1,
        "rule_options": {"rate": 0.1, "sigma": 0.1, **values},
        "task": arm.task,
        "task_version": 1,
        "task_options": {name: float(text) for name, text in arm.task_options.items()},
        "budget": {"epochs": arm.epochs or 3},
        "seed": seed,
        "device": "cpu",
    }
    return Record(
        asked=RunSpec(**(fields | asked)),
        answered=Provenance(
            packages={},
            rule_plugin=plugin,
            task_plugin=plugin,
            hardware=Hardware(cpu="a machine", cores=2, threads=1),
            commit=None,
            dirty=None,
            started="2026-01-01",
            finished="2026-01-01",
            seeds_together=1,
            mode="single",
        ),
        status=status,
        reason=None if status == "ok" else "a reason",
        changed=list(arm.options) if changed is None else changed,
        scores={"test": test, "validation": validation} if status == "ok" else {},
        chance=0.1,
        metric="accuracy",
        probes=[Probe(step=i, epoch=float(i), sites=sites) for i, sites in enumerate(probes)],
    )


@pytest.fixture
def record():
    """Makes the record of an arm's run."""
    return _record


@pytest.fixture
def arm():
    """Makes an arm; by default of five seeds."""

    def make(label="ours", at=0.0, *, task="a-task", seeds=range(5), **fields):
        return Arm(label, fields.pop("rule", "a-rule"), task, tuple(seeds), at, **fields)

    return make


@pytest.fixture
def evidence():
    """Makes complete evidence from (arm, {seed: record})."""

    def make(*pairs):
        runs = dict(pairs)
        number = sum(map(len, runs.values()))
        return Evidence(runs, number, number, {}, {})

    return make
