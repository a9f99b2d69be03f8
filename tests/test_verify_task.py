"""`rulezoo verify` of a task refuses it with the sentence by which a comparison refuses it."""

from __future__ import annotations

import json
import textwrap

import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison.inspection import Inspector, TaskError
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.testing.task_suite import CHECKS

PLUGIN = """
    import os
    from dataclasses import dataclass

    import torch
    from torch import nn

    from rulezoo import Site, Split, TaskSpec, hookimpl, hp
    from rulezoo.testing import TinyTask

    class Hoarding(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.site, self.last = nn.Linear(5, 8), Site(), nn.Linear(8, 3)
            self.kept = 0.0

        def forward(self, x):
            h = self.site(torch.tanh(self.first(x) + self.kept))
            self.kept = h.detach().mean()
            return self.last(h)

    @dataclass(frozen=True)
    class Case(TinyTask):
        \"\"\"A case.\"\"\"

        which: str = hp("fine", "what goes wrong")

        def data(self, root=None, *, download=False):
            data = super().data()
            match self.which:
                case "exit":
                    os._exit(0)
                case "crash":
                    os.abort()
                case "unseeded":
                    data.train.x.add_(torch.randn(()))
                case "nan":
                    data.test.x[4, 1] = float("nan")
                case "labels":
                    data.test.y[3] = 7
            return data

        def network(self):
            match self.which:
                case "hoarding":
                    return Hoarding()
                case "scripted":
                    return torch.jit.script(nn.Sequential(nn.Linear(5, 3)))
                case "hook":
                    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), Site(), nn.Linear(8, 3))
                    module[0].weight.register_hook(lambda grad: -grad)
                    return module
                case "tuple":
                    return type("Two", (nn.Linear,), {"forward": lambda self, x: (x, x)})(5, 3)
            return super().network()

        def loss(self, output, target):
            losses = super().loss(output, target)
            return losses.mean() if self.which == "mean" else losses

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("case", f"{__name__}:Case", "A case.", embedded=True)]
"""
WRONG = (
    "exit", "crash", "unseeded", "nan", "labels", "hoarding", "scripted", "hook", "tuple", "mean"
)  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "case_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    return path


def verified(path, which):
    done = CliRunner().invoke(cli, ["verify", str(path), "-o", f"which={which}", "--format", "json"])
    (told,) = json.loads(done.stdout)
    return done.exit_code, {check["check"]: check for check in told["checks"]}


@pytest.mark.parametrize("which", WRONG)
def test_it_is_the_same_sentence_by_both_ways(which, path, monkeypatch):
    code, checks = verified(path, which)
    monkeypatch.setenv(FILES, str(path))
    with pytest.raises(TaskError) as refused:
        Inspector().check(
            plan(
                discover(),
                Request(
                    rules=["backprop"],
                    tasks=["case"],
                    seeds=[0],
                    device="cpu",
                    options={"case": {"which": which}},
                    epochs=1,
                ),
            )
        )

    assert code == 1
    trainable = checks.pop("trainable")
    assert trainable["outcome"] == "failed"
    said = trainable["message"].removeprefix("the task ")
    assert f"task 'case' (which={which}) {said};" in str(refused.value)
    assert [name for name, check in checks.items() if check["outcome"] == "failed"] == []


def test_what_passes_says_what_a_comparison_would_train(path):
    code, checks = verified(path, "fine")

    assert code == 0
    assert checks["trainable"]["measured"] == (
        "96 / 48 / 48 examples, 135 parameters, outputs of shape (3,), labels of 3 classes"
    )
    assert len(checks) == len(CHECKS)
