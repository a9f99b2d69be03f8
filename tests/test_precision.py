"""bfloat16 by autocast, and torch.compile: chosen in one place, told in the record, and the numbers stay close."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from rulezoo.comparison.jobs import Job, work
from rulezoo.comparison.plan import check_compiler
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.errors import UserError
from rulezoo.results.store import Store
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training import runner
from rulezoo.training.batches import Batches
from rulezoo.training.run import RunRequest
from rulezoo.training.trainer import Trainer, build

SEEDS = (0, 1, 2, 3, 4)  # enough for the kernels of many seeds
BFLOAT16 = 0.05  # of a loss after a few steps; eight bits of mantissa are 0.4 % in each operation
# Two passes that differ by a hundredth of their activity differ by a few of its eight bits.
# Errors of predictive coding, too, are small differences of activity.
OF_DIFFERENCES = {"pepita": 0.2, "mirrored": 0.1}
COMPILED = 1e-4  # of a loss in float32: the same sums in another order
BUDGET = Budget(epochs=1, batch=16, lr=0.01)

PLUGIN = """
    from rulezoo import hookimpl, TaskSpec
    from rulezoo.testing import TinyTask

    class Convolutional(TinyTask):
        def __init__(self):
            super().__init__("cnn")

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", f"{__name__}:Convolutional", "Tiny.", embedded=True)]
"""


def trainer(name, seeds, **options):
    rule = discover().make_rule(name, {})
    for task in map(TinyTask, ("cnn", "mlp", "rnn", "snn-deep")):  # of which some rules serve one only
        train = task.data().train
        net, params = build(task, seeds, train.x[:1], torch.device("cpu"))
        if rule.skip(net, task) is None:
            break
    batches = Batches(train, BUDGET.batch, seeds)
    first = batches.take(batches.epoch(0)[:, 0])
    return Trainer(rule, net, task.loss, params, first, seeds, BUDGET, 6, **options), batches


def losses(trainer, batches):
    """Of every step; where the rule computes none, of what it predicts afterwards."""
    found = []
    for which in batches.epoch(0).unbind(1):
        batch = batches.take(which)
        loss, _ = trainer.step(batch)
        if loss is None:
            outputs = trainer.predict(batch.x[0]).float()
            loss = torch.stack([F.cross_entropy(one, batch.y[0]) for one in outputs])
        found.append(loss)
    return torch.stack(found)


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]], ids=["together", "alone"])
@pytest.mark.parametrize("name", discover().rules)
def test_under_autocast_a_rule_learns_nearly_the_same_and_keeps_its_precision(name, seeds):
    exact = losses(*trainer(name, seeds))
    with torch.autocast("cpu", torch.bfloat16):
        rough, batches = trainer(name, seeds)
        found = losses(rough, batches)
    assert torch.allclose(found.float(), exact, rtol=OF_DIFFERENCES.get(name, BFLOAT16))
    assert not torch.allclose(found.float(), exact, rtol=1e-5)  # it was used
    kept = [*rough.trained.values(), *rough.state.buffers.values()]
    assert {v.dtype for v in kept if v.is_floating_point()} == {torch.float32}


def test_under_autocast_a_step_leaves_nothing_behind():
    """In a new process, as this one may have kept memory. A copy of each parameter at each step would be 200 MB."""
    child = """
import os, torch
from rulezoo.executors.memory import resident
from rulezoo.discovery.registry import discover
from rulezoo.rule import Batch
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training.trainer import Trainer, build
from torch import nn

class Wide(TinyTask):
    def network(self):
        return nn.Sequential(nn.Linear(8, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 3))

x, y = torch.randn(1, 4, 8), torch.zeros(1, 4, dtype=torch.long)
net, params = build(Wide(), [0], x[0], x.device)
budget = Budget(epochs=1, batch=4, lr=0.01)
with torch.autocast("cpu", torch.bfloat16):
    trainer = Trainer(discover().make_rule("backprop", {}), net, TinyTask().loss, params, Batch(x, y), [0], budget, 200)
    for step in range(120):
        if step == 20:
            before = resident(os.getpid())
        trainer.step(Batch(x, y))
print(resident(os.getpid()) - before)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50e6


def test_scores_are_exact_whatever_the_precision_of_the_outputs():
    """bfloat16 counts in fours above 512: the mean of 1,001 hits and 23 misses would come out wrong."""

    class Counted(TinyTask):
        def score(self, output, y):
            return (torch.arange(len(output)) < 1001).to(output.dtype)

        def data(self, root=None, *, download=False):
            train, _, test = super().data(root)
            part = Split(test.x[torch.arange(1024) % len(test.x)], test.y[torch.arange(1024) % len(test.y)])
            return Data(train, part, part)

    task, rule = Counted(), discover().make_rule("frozen", {})
    with torch.autocast("cpu", torch.bfloat16):
        ((_, outcome),) = runner.run(RunRequest(rule, task, [0], BUDGET, task.data(), torch.device("cpu")))
    assert outcome.scores == {"validation": pytest.approx(1001 / 1024, rel=1e-7)} | {
        "test": pytest.approx(1001 / 1024, rel=1e-7)
    }


def test_probes_measure_under_autocast_too():
    task, rule = TinyTask("cnn"), discover().make_rule("direct-feedback-alignment", {})
    with torch.autocast("cpu", torch.bfloat16):
        ((_, outcome),) = runner.run(
            RunRequest(rule, task, [0], BUDGET, task.data(), torch.device("cpu"), probes=1)
        )
    assert [probe.reason for probe in outcome.probes] == [None] * len(outcome.probes)
    assert all(probe.sites for probe in outcome.probes)


def test_the_precision_is_a_part_of_what_is_asked(tmp_path, monkeypatch):
    (tmp_path / "tiny_plugin.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(tmp_path / "tiny_plugin.py"))
    asked = {"rules": ["backprop"], "tasks": ["tiny"], "seeds": SEEDS, "device": "cpu"}
    store = tmp_path / "store"
    single = work(Job(Request(**asked), store))
    half = work(Job(Request(**asked, precision="bfloat16"), store))
    assert {r.status for r in (*single, *half)} == {"ok"}
    assert [r.asked.precision for r in half] == ["bfloat16"] * len(SEEDS)
    assert len({r.asked.key for r in (*single, *half)}) == 2 * len(SEEDS)
    for one, other in zip(single, half, strict=True):
        assert one.answered.mode == other.answered.mode == "vmap"
        assert one.curve[-1].train_loss != other.curve[-1].train_loss
        assert one.curve[-1].train_loss == pytest.approx(other.curve[-1].train_loss, rel=BFLOAT16)
        assert Store(tmp_path / "store").get(other.asked) == other


def test_without_a_compiler_that_is_said_before_anything_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "c++-99")
    with pytest.raises(UserError, match=r"--compile: .* 'c\+\+-99' is not there; install g\+\+"):
        check_compiler("cpu")
    check_compiler("cuda")  # Triton brings its own


def test_what_only_a_part_of_which_is_compiled_is_not(monkeypatch):
    """Without a compiler: what torch.compile gives is an error of its own, as when it meets what it cannot take."""

    def refusing(function, fullgraph):
        assert fullgraph

        def step(*arguments):
            raise torch._dynamo.exc.FailOnRecompileLimitHit

        return step

    monkeypatch.setattr("torch.compile", refusing)
    compiled, batches = trainer("backprop", SEEDS, compiled=True)
    assert torch.allclose(losses(compiled, batches), losses(*trainer("backprop", SEEDS)), rtol=COMPILED)
    assert not compiled.compiled


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, which differ from release to release
@pytest.mark.parametrize(("name", "can"), [("backprop", True), ("feedback-alignment", False)])
def test_a_compiled_step_of_many_seeds_gives_the_same_numbers(name, can):
    """Where the compiler cannot take a rule (an autograd function under vmap), the step is as ever, and that is told."""
    torch.compiler.reset()
    compiled, batches = trainer(name, SEEDS, compiled=True)
    assert torch.allclose(losses(compiled, batches), losses(*trainer(name, SEEDS)), rtol=COMPILED)
    assert compiled.compiled is can
