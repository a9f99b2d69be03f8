"""A plugin file with evaluations of every kind, and a store with two runs whose weights were kept."""

import textwrap
from datetime import UTC, datetime

import pytest
import torch

from rulezoo.comparison.plan import plan
from rulezoo.comparison.recording import of_outcome
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results import weights
from rulezoo.results.store import Store
from rulezoo.training import runner
from rulezoo.training.run import RunRequest

PLUGIN = """
    import math
    import os
    import time
    from dataclasses import dataclass
    from pathlib import Path
    from typing import ClassVar

    import numpy as np
    import torch

    from rulezoo import DataMissing, Evaluation, EvaluationSpec, Measurement, TaskSpec, hookimpl, hp

    @dataclass(frozen=True)
    class Size(Evaluation):
        headline: ClassVar[str] = "size"
        higher_is_better: ClassVar[bool | None] = False
        power: float = hp(2.0, "exponent of the norm", low=1)

        def skip(self, network):
            return "this rule is never measured" if network.rule == "frozen" else None

        def measure(self, network, root):
            model = network.model()
            sizes = [float(torch.linalg.vector_norm(p, self.power)) for p in model.state_dict().values()]
            values = {"size": sum(sizes), "seed": network.seed, "never": math.nan}
            notes = {"never": "it cannot be known"}
            return Measurement(values, {"file": np.array(sizes)}, notes, data="abc")

    @dataclass(frozen=True)
    class Odd(Evaluation):
        headline: ClassVar[str] = "odd"
        how: str = hp("raise", "what it does", choices=("raise", "exit", "leave", "meddle", "none", "headless",
                      "missing", "hang", "inf", "mumble"))

        def skip(self, network):
            return "no" if self.how == "mumble" else None

        def measure(self, network, root):
            match self.how:
                case "raise":
                    raise ValueError("no luck in " + str(Path.home() / "secret" / "file.txt"))
                case "exit":
                    os._exit(3)
                case "leave":
                    raise SystemExit(4)
                case "meddle":
                    with torch.no_grad():
                        next(iter(network.params.values())).zero_()
                case "none":
                    return None
                case "headless":
                    return Measurement({"even": 1.0})
                case "missing":
                    raise DataMissing(f"the recordings are not in {root}; see the documents")
                case "hang":
                    time.sleep(600)
                case "inf":
                    return Measurement({"odd": math.inf})
            return Measurement({"odd": 1.0})

    @hookimpl
    def rulezoo_evaluations():
        return [
            EvaluationSpec("size", f"{__name__}:Size", "The size of the weights.", former_names=("magnitude",)),
            EvaluationSpec("odd", f"{__name__}:Odd", "What goes wrong."),
        ]

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing.nets:TinyTask", "A tiny task.", embedded=True)]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The plugin file, known to this process and its children."""
    path = tmp_path / "evaluations_of_tests.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    return path


@pytest.fixture
def store(tmp_path, plugin):
    """Backprop with two seeds and ``frozen`` with one, trained, with weights; and a run without."""
    store, zoo = Store(tmp_path / "results"), discover()
    for rule, seeds, kept in (("backprop", (0, 1), True), ("frozen", (0,), True), ("backprop", (2,), False)):
        request = Request(rules=(rule,), tasks=("tiny",), seeds=seeds, device="cpu", epochs=1)
        (cell,) = plan(zoo, request)
        data = cell.task.data(None)
        outcomes = runner.run(
            RunRequest(cell.rule, cell.task, seeds, cell.budget, data, torch.device("cpu"), keep_weights=kept)
        )
        for asked, (_, outcome) in zip(cell.asked, outcomes, strict=True):
            record = of_outcome(cell, asked, outcome, datetime.now(UTC))
            files = {}
            if outcome.kept:
                files["weights"] = weights.encode(outcome.kept.weights, outcome.kept.example, record)
            store.put(record, files)
    return store


@pytest.fixture
def zoo(plugin):
    """The registry with the plugin file."""
    return discover()


@pytest.fixture
def kept(store):
    """The records whose weights were kept."""
    return [record for record in store.read().records if record.weights]
