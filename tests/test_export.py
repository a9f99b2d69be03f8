"""A trained network in a folder: in a process without rulezoo it has the score of the record."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import nn

import rulezoo
from rulezoo import Budget, Data, Split, add_sites
from rulezoo.api.errors import CallError
from rulezoo.cli import cli
from rulezoo.errors import UserError
from rulezoo_plugins.baselines.backprop import Backprop

from .test_trained import Blobs
from .test_weights import Remembers

WITHOUT = """
import sys
for name in ("rulezoo", "rulezoo_plugins", "rulezoo_tasks", "rulezoo_evaluations"):
    sys.modules[name] = None  # importing it is an error
import torch
from safetensors.torch import load_file
from load import load
"""
SCORE = """
test = load_file("../test.safetensors")
with torch.no_grad():
    print((model(test["x"]).argmax(-1) == test["y"]).double().mean().item())
"""


def without_rulezoo(folder, code):
    """What a script prints that is run in a folder, in a process that cannot import rulezoo."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported(run, folder):
    test = run.network.data().test
    save_file({"x": test.x[: len(test.y)].contiguous(), "y": test.y}, folder / "test.safetensors")
    run.export(folder / "network")
    return folder / "network"


@pytest.mark.parametrize(
    "task", ["digits-cnn:width=0.25", "digits-rnn:width=16", Blobs()], ids=["cnn", "rnn", "tied"]
)
def test_the_graph_has_the_score_of_the_record_in_a_process_without_rulezoo(task, tmp_path):
    run = rulezoo.train("backprop", task, epochs=2)
    folder = exported(run, tmp_path)
    printed = without_rulezoo(folder, "model = load()" + SCORE)
    assert float(printed) == pytest.approx(run.record.scores["test"], abs=1e-6)
    assert without_rulezoo(folder, "import runpy; runpy.run_path('load.py', run_name='__main__')") == (
        "the outputs for 3 stored inputs are those of the export\n"
    )
    assert json.loads((folder / "record.json").read_text())["scores"] == run.record.scores
    assert load_file(folder / "weights.safetensors").keys() == run.model().state_dict().keys()


@dataclass(frozen=True)
class Pictures(Blobs):
    """torchvision's ResNet-18, as it is."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=8, lr=0.003)

    def data(self, root, *, download=False):
        gen = torch.Generator().manual_seed(0)
        y = torch.arange(48) % 3
        x = torch.randn(48, 3, 32, 32, generator=gen) + torch.eye(3)[y][:, :, None, None]
        return Data(*(Split(x[part], y[part]) for part in (slice(24), slice(24, 36), slice(36, 48))))

    def prepare(self, x, draw):
        return x

    def network(self):
        return add_sites(torchvision.models.resnet18(num_classes=3))


@pytest.mark.slow
def test_torchvisions_resnet_has_the_score_of_the_record_with_the_weights(tmp_path):
    run = rulezoo.train(Backprop(), Pictures())
    folder = exported(run, tmp_path)
    code = "import torchvision; model = load(torchvision.models.resnet18(num_classes=3))"
    assert float(without_rulezoo(folder, code + SCORE)) == pytest.approx(run.record.scores["test"], abs=1e-6)
    assert "All parts of this one come from torch and torchvision" in (folder / "README.md").read_text()


class Twice(nn.Module):
    """A forward pass that depends on the data, which no graph can hold."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        output = self.fc(x)
        return output if float(output.detach().abs().sum()) >= 0 else -output


@dataclass(frozen=True)
class Untraceable(Blobs):
    def network(self):
        return Twice()


def test_a_network_that_cannot_be_traced_needs_its_module_and_says_so(tmp_path):
    run = rulezoo.train(Backprop(), Untraceable())
    folder = exported(run, tmp_path)
    assert not (folder / "network.pt2").exists()
    refusal = "\ntry:\n    load()\nexcept SystemExit as error:\n    print(error)\n"
    assert "build it as README.md says, and call load(model)" in without_rulezoo(folder, refusal)
    plain = """
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(6, 3)
    def forward(self, x):
        return self.fc(x)
model = load(Plain())"""
    assert float(without_rulezoo(folder, plain + SCORE)) == pytest.approx(run.record.scores["test"], abs=1e-6)
    readme = (folder / "README.md").read_text()
    assert "could not trace this network" in readme
    assert "test_export.Twice" in readme


def test_the_memory_of_a_rule_that_predicts_with_it_goes_along(tmp_path):
    run = rulezoo.train(Remembers(), Blobs(), epochs=1)
    run.export(tmp_path / "network")
    assert load_file(tmp_path / "network" / "memory.safetensors")["buffers.steps"] == 5
    assert "reads its answer from its memory" in (tmp_path / "network" / "README.md").read_text()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    run = rulezoo.train("backprop", "digits-cnn:width=0.25", epochs=1)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CallError, match="must be a new or an empty folder"):
        run.export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_exports_by_key_and_by_name(tmp_path):
    for lr in (0.01, 0.02):
        rulezoo.train("backprop", "digits-cnn:width=0.25", epochs=1, out=tmp_path / "out", options={"lr": lr})
    first, _ = rulezoo.load(tmp_path / "out").records

    def run(*words):
        return CliRunner().invoke(cli, ["export", *words, "--out", str(tmp_path / "out")])

    done = run(first.asked.key[:8], "--to", str(tmp_path / "a"))
    assert done.exit_code == 0, done.output
    done = run("backprop", "digits-cnn", "0", "--where", "rule.lr=0.02", "--to", str(tmp_path / "b"))
    assert done.exit_code == 0, done.output
    with pytest.MonkeyPatch.context() as patch:  # the file of a run says which folder it is in
        patch.delenv("RULEZOO_RESULTS", raising=False)
        patch.chdir(tmp_path)
        file = next((tmp_path / "out" / "runs").rglob(f"*-{first.asked.key}.json")).relative_to(tmp_path)
        done = CliRunner().invoke(cli, ["export", str(file), "--to", str(tmp_path / "d")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "d" / "record.json").read_text())["asked"]["seed"] == 0
    keys = {
        name: json.loads((tmp_path / name / "record.json").read_text())["asked"]["rule_options"]["lr"]
        for name in "ab"
    }
    assert keys == {"a": first.asked.rule_options["lr"], "b": 0.02}
    (tmp_path / "copy.json").write_text("{}")
    for words, message in [
        ((str(tmp_path / "copy.json"),), "copy.json is not the file of a run in a folder of results"),
        (("backprop", "digits-cnn", "0"), "2 runs of backprop on digits-cnn, seed 0: rule.lr is"),
        (("backprop", "digits-cnn"), "name one run: its key, or RULE TASK SEED"),
        (("0000000000000000",), "no run has a key that begins with '0000000000000000'"),
        (("backprop", "digits-cnn", "4"), "seed 4 is not stored; stored: 0"),
    ]:
        done = run(*words, "--to", str(tmp_path / "c"))
        assert done.exit_code == 2
        message_of = done.output + str(done.exception if isinstance(done.exception, UserError) else "")
        assert message in " ".join(message_of.split())
    assert not (tmp_path / "c").exists()
