"""Blocks of several layers: how deep an error travels is measured, stored and shown, whatever a rule declares."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, add_sites
from rulezoo.discovery.registry import discover
from rulezoo.measures.locality import travel

PLUGIN = '''
"""Four hidden layers, with one site behind the last or sites everywhere."""
from dataclasses import dataclass
from typing import ClassVar
import torch
import torch.nn.functional as F
from torch import nn
from rulezoo import Budget, Data, Site, Split, Task, TaskSpec, add_sites, hookimpl, hp

@dataclass(frozen=True)
class Deep(Task):
    """Four hidden layers."""
    budget: ClassVar[Budget] = Budget(epochs=1, batch=32, lr=1e-2)
    chance: ClassVar[float] = 0.5
    everywhere: bool = hp(False, "sites between all layers")

    def data(self, root, *, download=False):
        def part(n, seed):
            x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
            return Split(x, (x[:, :2].sum(1) > 0).long())
        return Data(part(128, 0), part(64, 1), part(64, 2))

    def network(self):
        layers = []
        for i in range(4):
            layers += [nn.Linear(6 if i == 0 else 8, 8), nn.ReLU()]
        if self.everywhere:
            return add_sites(nn.Sequential(*layers, nn.Linear(8, 2)))
        return nn.Sequential(*layers, Site(), nn.Linear(8, 2))

    def loss(self, output, target):
        return F.cross_entropy(output, target, reduction="none")

    def score(self, output, target):
        return (output.argmax(-1) == target).float()

@hookimpl
def rulezoo_tasks():
    return [TaskSpec("deep", f"{__name__}:Deep", "Four hidden layers.", embedded=True)]
'''

SAID = "within blocks of 4"


def loss(output, target):
    return F.cross_entropy(output, target, reduction="none")


def deep(*sites):
    torch.manual_seed(0)
    layers = []
    for i in range(4):
        layers += [nn.Linear(6 if i == 0 else 8, 8), nn.ReLU()] + ([Site()] if i in sites else [])
    return nn.Sequential(*layers, nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("module", "local", "whole"),
    [
        (lambda: deep(3), 4, 5),
        (lambda: deep(1, 3), 2, 5),
        (lambda: deep(0, 3), 3, 5),
        (lambda: deep(0, 1, 2, 3), 1, 5),
        (lambda: add_sites(deep()), 1, 5),
    ],
    ids=["one site", "every second", "first and last", "everywhere", "by themselves"],
)
def test_the_depth_of_blocks_is_what_errors_travel_through(module, local, whole):
    net = Net(module(), torch.randn(8, 6))
    batch = Batch(torch.randn(8, 6), torch.randint(3, (8,)))
    rules = {
        "direct-feedback-alignment": local,
        "nmnc": local,
        "node-perturbation": local,
        "backprop": whole,
        "feedback-alignment": whole,
        "frozen": 1,
    }
    for name, depth in rules.items():
        rule = discover().make_rule(name, {})
        assert travel(rule, net, loss, net.init_params(), batch).depth == depth, name
    assert net.depth == local


def command(*words, cwd):
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "RULEZOO_PLUGINS": str(cwd / "plugin.py")}
    words = [sys.executable, "-m", "rulezoo", *words]
    done = subprocess.run(
        words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    rules = ("--rules", "backprop,direct-feedback-alignment,nmnc", "--seeds", "1", "--device", "cpu")
    said = {}
    for out, option in (("one", "false"), ("every", "true")):
        said[out] = command(
            "compare", *rules, "--tasks", "deep", "-o", f"deep.everywhere={option}", "--out", out, cwd=folder
        )
        assert said[out][0] == 0, said[out]
    return folder, said


def depths(folder):
    records = [json.loads(path.read_text()) for path in (folder / "runs").rglob("*.json")]
    return {record["asked"]["rule"]: record["block_depth"] for record in records}


@pytest.mark.slow
def test_compare_says_it_before_training_and_in_its_table(compared):
    _, said = compared
    _, out, err = said["one"]
    assert f"'{SAID}'" in err
    assert "direct-feedback-alignment, nmnc will travel" in err
    assert SAID in out
    assert "within blocks" not in said["every"][1] + said["every"][2]


@pytest.mark.slow
def test_the_record_holds_what_was_measured(compared):
    folder, _ = compared
    assert depths(folder / "one") == {"backprop": 5, "direct-feedback-alignment": 4, "nmnc": 4}
    assert depths(folder / "every") == {"backprop": 5, "direct-feedback-alignment": 1, "nmnc": 1}


@pytest.mark.slow
@pytest.mark.parametrize("written", ["table", "md", "csv", "json", "latex"])
def test_every_format_of_the_leaderboard_says_it(compared, written):
    folder, _ = compared
    options = () if written == "table" else ("--format", written)
    for out, expected in (("one", True), ("every", False)):
        code, shown, err = command("leaderboard", "--out", out, *options, cwd=folder)
        assert code == 0, err
        assert ("within blocks of" in shown) is expected, shown


@pytest.mark.slow
def test_the_pages_say_it(compared):
    folder, _ = compared
    for out, expected in (("one", True), ("every", False)):
        code, _, err = command("leaderboard", "--out", out, "--html", f"pages-{out}", cwd=folder)
        assert code == 0, err
        page = (folder / f"pages-{out}" / "index.html").read_text(encoding="utf-8")
        assert (SAID in page) is expected
        assert "no sequential backward pass" in page  # still a filter, which leaves rules within blocks out
        shutil.rmtree(folder / f"pages-{out}")


@pytest.mark.slow
def test_verify_says_it(compared):
    folder, _ = compared
    code, out, _ = command("verify", "deep", cwd=folder)
    assert code == 0, out
    assert SAID in out


class Last(nn.Module):
    """The last state of a recurrent layer of torch, and a read-out."""

    def __init__(self, layers):
        super().__init__()
        self.rnn, self.readout = nn.GRU(3, 4, layers, batch_first=True), nn.Linear(4, 3)
        self.site = Site()

    def forward(self, x):
        return self.readout(self.site(self.rnn(x)[0][:, -1]))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_recurrent_layer_of_torch_counts_once_for_each_step_of_each_layer(layers):
    net = Net(Last(layers), torch.randn(2, 5, 3))
    batch = Batch(torch.randn(4, 5, 3), torch.randint(3, (4,)))
    rule = discover().make_rule("direct-feedback-alignment", {})
    assert travel(rule, net, loss, net.init_params(), batch).depth == net.depth == 5 * layers
