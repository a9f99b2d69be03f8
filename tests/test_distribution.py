"""A stranger's distribution: built and installed with pip, found by name."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rulezoo.evaluations import store as evaluations
from rulezoo.results.records import Plugin
from rulezoo.results.store import Store

pytestmark = pytest.mark.slow

FILES = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "stranger-rules"
        version = "2.5"
        dependencies = ["rulezoo"]

        [project.entry-points."rulezoo"]
        stranger = "stranger_rules"
        broken = "stranger_rules.broken"
    """,
    "stranger_rules/__init__.py": """
        import rulezoo


        @rulezoo.hookimpl
        def rulezoo_rules():
            return [
                rulezoo.RuleSpec(
                    name="sign-descent",
                    target="stranger_rules.sign:SignDescent",
                    summary="Only the sign of the gradient.",
                    family="strangers",
                )
            ]


        @rulezoo.hookimpl
        def rulezoo_evaluations():
            return [
                rulezoo.EvaluationSpec("weight-size", "stranger_rules.lens:WeightSize", "Size of all weights."),
                rulezoo.EvaluationSpec("missing-lens", "stranger_rules.lens:Missing", "It is not there."),
            ]


        @rulezoo.hookimpl
        def rulezoo_claims():
            return [rulezoo.ClaimSpec("signs-suffice", "stranger_rules.claim:CLAIM", "The sign suffices.")]
    """,
    "stranger_rules/broken.py": "raise ValueError('no luck')",
    "stranger_rules/lens.py": """
        from dataclasses import dataclass
        from typing import ClassVar

        from rulezoo import Evaluation, Measurement


        @dataclass(frozen=True)
        class WeightSize(Evaluation):
            'Sum of the norms of all tensors.'

            headline: ClassVar[str] = "norm"

            def measure(self, network, root):
                return Measurement({"norm": sum(float(t.norm()) for t in network.params.values())})
    """,
    "stranger_rules/claim.py": """
        from rulezoo import claims

        ARMS = tuple(
            claims.Arm(rule, rule, "digits-cnn", (0, 1), epochs=1)
            for rule in ("sign-descent", "frozen", "backprop")
        )
        CLAIM = claims.Claim(
            name="signs-suffice",
            statement="The sign of the gradient suffices to learn.",
            source="a stranger",
            criterion=claims.Standing("sign-descent", ("frozen",), "backprop"),
            studies={"quick": claims.Study(ARMS, scale="reduced", duration="a minute")},
        )
    """,
    "stranger_rules/sign.py": """
        from dataclasses import dataclass

        from rulezoo import LearningRule, Step, credit, hp


        @dataclass(frozen=True)
        class SignDescent(LearningRule):
            size: float = hp(1.0, "size of every entry of the gradient", low=0)

            def step(self, net, loss, params, state, batch, noise, t):
                grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
                return Step({name: self.size * g.sign() for name, g in grads.items()}, state, mean)
    """,
}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Environment of a process with ``stranger-rules`` 2.5, and so its rule ``sign-descent``, installed."""
    pytest.importorskip("hatchling")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(textwrap.dedent(text), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", f"--target={target}", str(source)], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def rulezoo(environ, *words):
    """Run the command line in a process; returns what it wrote."""
    command = [sys.executable, "-m", "rulezoo", *words]
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, encoding="utf-8", timeout=300, check=True
    )
    return done.stdout


def test_its_rule_is_listed_with_its_distribution(stranger):
    lines = {line.split()[0]: line.split()[1:3] for line in rulezoo(stranger, "list", "rules").splitlines()}
    assert lines["sign-descent"] == ["stranger-rules", "2.5"]
    assert lines["backprop"][0] == "rulezoo"


def test_its_plugin_is_in_order(stranger):
    (line,) = [line for line in rulezoo(stranger, "plugins").splitlines() if line.startswith("stranger ")]
    assert line.split() == ["stranger", "stranger-rules", "2.5", "1", "0", "2", "1", "ok"]


def test_a_broken_plugin_of_the_same_distribution_is_named_and_harms_nothing(stranger):
    (line,) = [line for line in rulezoo(stranger, "plugins").splitlines() if line.startswith("broken ")]
    assert line.split()[3:] == ["0", "0", "0", "0", "ValueError:", "no", "luck"]


def test_its_evaluation_and_its_claim_are_listed_shown_and_verified(stranger):
    for kind, name in (("evaluations", "weight-size"), ("claims", "signs-suffice")):
        assert f"{name} stranger-rules 2.5" in " ".join(rulezoo(stranger, "list", kind).split())
        assert "stranger-rules 2.5" in rulezoo(stranger, "show", name)
        assert f"{name} keeps every promise" in rulezoo(stranger, "verify", name)
    assert "norm, higher is better" in rulezoo(stranger, "show", "weight-size")


def test_its_evaluation_measures_the_networks_of_a_comparison(stranger, tmp_path):
    small = ["--tasks", "digits-cnn", "--epochs", "1", "--seeds", "1", "-o", "digits-cnn.width=0.25"]
    words = ["--rules", "backprop,sign-descent", "--device", "cpu", "--evaluate", "weight-size"]
    assert "norm ↑" in rulezoo(stranger, "compare", *small, *words, "--out", str(tmp_path))
    found = evaluations.read(Store(tmp_path)).found
    assert {one.asked.rule: one.status for one in found} == {"backprop": "ok", "sign-descent": "ok"}
    assert all(one.plugin == Plugin(distribution="stranger-rules", version="2.5") for one in found)
    assert all(re.fullmatch("2:[0-9a-f]{16}", one.code or "") for one in found)
    command = [sys.executable, "-m", "rulezoo", "evaluate", "--with", "missing-lens", "--out", str(tmp_path)]
    done = subprocess.run(command, env=stranger, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "missing-lens: module stranger_rules.lens has no class Missing" in done.stderr.splitlines()[-1]


def test_its_options_are_shown(stranger):
    assert "size of every entry of the gradient" in rulezoo(stranger, "show", "sign-descent")


def test_its_rule_is_compared_with_a_built_in_one(stranger, tmp_path):
    small = ["--tasks", "digits-cnn", "--epochs", "1", "--seeds", "2", "-o", "digits-cnn.width=0.25"]
    words = ["--rules", "backprop,sign-descent", "-o", "sign-descent.size=0.5", "--device", "cpu"]
    out = rulezoo(stranger, "compare", *small, *words, "--out", str(tmp_path))
    assert {"backprop", "sign-descent"} <= {line.split()[0] for line in out.splitlines() if line}
    records = [record for record in Store(tmp_path).read().records if record.asked.rule == "sign-descent"]
    assert [(record.asked.seed, record.status) for record in records] == [(0, "ok"), (1, "ok")]
    for record in records:
        assert record.answered.rule_plugin == Plugin(distribution="stranger-rules", version="2.5")
        assert (record.asked.rule_options["size"], record.changed) == (0.5, ["size"])
        assert len(record.curve) == 1


@pytest.mark.parametrize("kind", ["rule", "task", "evaluation", "claim"])
def test_a_scaffolded_package_installs_and_keeps_every_promise(kind, tmp_path):
    """`new --package`, install into a fresh environment, `verify`, its own tests: as its author would."""
    pytest.importorskip("hatchling")
    made = subprocess.run(
        [sys.executable, "-m", "rulezoo", "new", kind, "newcomer", "--package"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "rulezoo verify newcomer" in made.stdout
    home = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(home)], check=True
    )
    python = str(home / "bin" / "python")
    here = [path for path in sys.path if path and Path(path).is_dir()]  # where rulezoo and its needs are
    # Its pytest is started by its author, not by a worker of this one: plugins that look at these would refuse to start.
    author = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ = {**author, "PYTHONPATH": os.pathsep.join(here), "PIP_PYTHON": python}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", str(tmp_path / "rulezoo-newcomer")],
        env=environ,
        check=True,
    )
    for words, told in (
        (["rulezoo", "list", f"{kind}s"], "rulezoo-newcomer 0.1.0"),
        (["rulezoo", "verify", "newcomer"], "newcomer keeps every promise"),
        (["pytest", "-q", "-p", "no:cacheprovider"], " passed"),
    ):
        done = subprocess.run(
            [python, "-m", *words], cwd=tmp_path / "rulezoo-newcomer", env=environ,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert told in " ".join(done.stdout.split())
