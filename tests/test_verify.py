"""``rulezoo verify``: the report names what is broken, says why, and what to do next."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.discovery.plugins import FILES
from rulezoo.testing import (
    TaskNet,
    TinyTask,
    claim_suite,
    evaluation_suite,
    rule_checks,
    suite,
    task_suite,
    verify,
)
from rulezoo.testing.advice import NEXT_STEP
from rulezoo.training.run import RunRequest
from rulezoo.training.runner import run as run_rule

# Direct feedback alignment in a few lines. Each broken rule is this with one thing wrong: the text on the left, replaced.
HONEST = '''
from dataclasses import dataclass

import torch

from rulezoo import LearningRule, Limit, Plausibility, RuleSpec, State, Step, credit, hookimpl, hp

CALLS = []


@dataclass(frozen=True)
class Rule(LearningRule):
    """A rule."""

    gain: float = hp(1.0, "size of the teaching signal", low=0)

    def skip(self, net, task):
        return None if net.keys("post") else "it needs sites of kind 'post'"

    def init(self, net, params, batch, gen):
        outputs = torch.Size(net.output_shape).numel()
        draw = {key: torch.randn(outputs, net.visits[key].width, generator=gen) for key in net.keys("post")}
        return State(buffers={key: b.to(batch.x) / b.shape[1] ** 0.5 for key, b in draw.items()})

    def step(self, net, loss, params, state, batch, noise, t):
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        feedback = state.buffers
        signals = {key: (error.flatten(1) @ feedback[key]).view_as(h) for key, h in cut.sites.items()}
        grads = cut.pull(error, signals)
        return Step(grads, state, mean)

    def predict(self, net, params, state, x):
        return net.run(params, x)


@hookimpl
def rulezoo_rules():
    plausibility = Plausibility(False, False, True, "vector", False)
    return [RuleSpec("mine", f"{__name__}:Rule", "A rule.", plausibility=plausibility)]
'''
BROKEN = {
    "weight_transport": ("feedback = state.buffers", "feedback = {**state.buffers, 'post2': params['readout.weight']}"),
    "backward_pass": (
        "grads = cut.pull(error, signals)",
        "grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)",
    ),
    "limits": (
        '"A rule.", plausibility',
        '"A rule.", limits=(Limit(("gain=0",), "frozen"),), plausibility',
    ),
    "backprop": (
        "grads = cut.pull(error, signals)",
        "grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)",
    ),
    "hidden_gradients": ("Step(grads,", "Step({n: g * ('fc1' not in n) for n, g in grads.items()},"),
    "learns": ("Step(grads,", "Step({n: -g for n, g in grads.items()},"),
    "gradients": ("Step(grads,", "Step({n: g.flatten() for n, g in grads.items()},"),
    "loss": ("state, mean)", "state, mean * len(batch.x))"),
    "arguments_unmodified": ("feedback = state.buffers", "feedback = state.buffers; params['fc1.bias'].add_(1e-9)"),
    "deterministic": ("state, mean)", "state, mean * (1 + 1e-12 * (CALLS.append(1) or len(CALLS))))"),
    "randomness": ("state, mean)", "state, mean + 0 * torch.randn(()))"),
    "global_settings": ("feedback = state.buffers", "feedback = state.buffers; torch.set_num_threads(3)"),
    "predict": ("net.run(params, x)", "net.run(params, x - x.mean(0))"),
    "state_layout": ("Step(grads, state,", "Step(grads, State(buffers={k: b.float() for k, b in feedback.items()}),"),
    "vmap": ("state, mean)", "state, mean if mean > 1 else mean * 1)"),
    "float32": ("state, mean)", "state, mean, {'norm': mean.double()})"),
    "frozen_value": ("@hookimpl", "Rule.__setattr__ = object.__setattr__\n\n\n@hookimpl"),
    "options": ('hp(1.0, "size of the teaching signal", low=0)', 'hp(1.0, "", low=0)'),
    "no_sites": (
        "return None if net.keys(\"post\") else \"it needs sites of kind 'post'\"",
        'return None if net.keys("post") else "no"',
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FILES, "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch):
    """The suite on one network: what is tested here is the report."""
    monkeypatch.setattr(suite, "rule_checks", lambda rule, nets, **given: rule_checks(rule, ["mlp"], **given))


def report_of(path):
    (subject,) = verify.subjects(str(path))
    report = verify.verify(subject, {})
    return report, list(verify.lines(report))


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_rule_is_named_in_the_report_with_its_reason_and_the_next_step(check, small, tmp_path):
    old, new = BROKEN[check]
    assert HONEST.count(old) == 1
    path = tmp_path / "mine.py"
    path.write_text(HONEST.replace(old, new), encoding="utf-8")

    report, lines = report_of(path)

    assert not report.ok
    (place,) = [i for i, line in enumerate(lines) if line.startswith(f"✗ {check}:")]
    assert re.match(r"    why: .{10}", lines[place + 1])
    assert lines[place + 2] == f"    next: {NEXT_STEP[check]}"
    assert check in lines[-1]
    assert lines[-1].startswith("mine fails ")


MISTAKES = {
    "shape of an update": (
        "Step(grads, state, mean)",
        "Step({}, state, mean, updates={'fc1.weight': grads['fc1.bias']})",
        "an update of 'fc1.weight' of shape (8,); expected shape (8, 5), that of the parameter: return one entry for",
    ),
    "shape of a gradient": (
        "Step(grads,",
        "Step({'fc1.weight': grads['fc1.bias'][:, None]},",
        "a gradient of 'fc1.weight' of shape (8, 1); expected shape (8, 5), that of the parameter: return one entry for",
    ),
    "an update and a gradient": (
        "Step(grads, state, mean)",
        "Step(grads, state, mean, updates={'fc1.bias': -grads['fc1.bias']})",
        "both a gradient and an update of 'fc1.bias'; return one of the two for each parameter",
    ),
    "gradient of nothing": (
        "Step(grads,",
        "Step({'fc1.weigth': grads['fc1.weight']},",
        "a gradient of 'fc1.weigth', which is no parameter; use the names of parameters: 'fc1.weight', ",
    ),
    "rate of nothing": (
        "    def predict(",
        "    def rates(self, net):\n        return {'rule.b': 0.1}\n\n    def predict(",
        "a factor for 'rule.b', which is no parameter; use the names of parameters: 'fc1.weight', ",
    ),
    "negative rate": (
        "    def predict(",
        "    def rates(self, net):\n        return {'fc1.bias': -0.5}\n\n    def predict(",
        "the factor -0.5 for 'fc1.bias'; expected a finite number, 0 or more",
    ),
    "rate that is not a number": (
        "    def predict(",
        "    def rates(self, net):\n        return {'fc1.bias': float('nan')}\n\n    def predict(",
        "the factor nan for 'fc1.bias'; expected a finite number, 0 or more",
    ),
    "between in the wrong order": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.between(net, params, *reversed(net.keys('post')), cut.sites['post2'])",
        "'post2' and 'post1' in the wrong order: 'post1' does not come after 'post2' in the forward pass; give",
    ),
    "between an unknown site": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.between(net, params, 'post1', 'post3', cut.sites['post1'])",
        "the network has no site 'post3'; its sites are 'pre1', 'post1', 'pre2', 'post2'",
    ),
    "between one site": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.between(net, params, 'post1', 'post1', cut.sites['post1'])",
        "the site 'post1' twice, and nothing lies between; give a later site, or None for the output",
    ),
    "between, from another shape": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.between(net, params, 'post1', 'post2', cut.sites['post2'])",
        "at site 'post1' has shape (12, 7); expected (batch, 8)",
    ),
    "blocks on an unknown site": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.blocks(net, params, batch.x, {'post3': batch.x})",
        "the network has no site 'post3'; its sites are 'pre1', 'post1', 'pre2', 'post2'",
    ),
    "blocks on another shape": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.blocks(net, params, batch.x, {'post2': cut.sites['post1']})",
        "at site 'post2' has shape (12, 8); expected (batch, 7)",
    ),
    "blocks on other examples": (
        "feedback = state.buffers",
        "feedback = state.buffers; credit.blocks(net, params, batch.x, {'post1': cut.sites['post1'][:3]})",
        "at site 'post1' has shape (3, 8), and for the given inputs the network has (12, 8) there; give activity and",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_what_was_expected_and_the_next_step(mistake, small, tmp_path):
    """By the check of gradients, in the words in which the trainer refuses it."""
    old, new, message = MISTAKES[mistake]
    assert HONEST.count(old) == 1
    path = tmp_path / "mine.py"
    path.write_text(HONEST.replace(old, new), encoding="utf-8")

    report, lines = report_of(path)

    assert not report.ok
    (place,) = [i for i, line in enumerate(lines) if line.startswith("✗ gradients")]
    assert message in lines[place + 1], lines[place + 1]
    assert lines[place + 2] == f"    next: {NEXT_STEP['gradients']}"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_so_it_is_by_the_trainer(mistake, tmp_path):
    """Seeds that are trained together, and the record says the same."""
    old, new, message = MISTAKES[mistake]
    path = tmp_path / "mine.py"
    path.write_text(HONEST.replace(old, new), encoding="utf-8")
    (subject,) = verify.subjects(str(path))

    task = TinyTask()
    budget = replace(task.budget, batch=12)
    rule = subject.found.spec.load()()
    outcomes = [
        outcome
        for _, outcome in run_rule(RunRequest(rule, task, [0, 1], budget, task.data(), torch.device("cpu")))
    ]

    assert [outcome.status for outcome in outcomes] == ["error", "error"]
    assert all(message in outcome.reason for outcome in outcomes), outcomes[0].reason


def test_an_honest_rule_keeps_every_promise(small, tmp_path):
    (tmp_path / "mine.py").write_text(HONEST, encoding="utf-8")

    report, lines = report_of(tmp_path / "mine.py")

    assert report.ok
    assert lines[0].startswith("mine (rule, mine.py sha256:")
    assert not [line for line in lines if line.startswith("✗")]
    assert re.fullmatch(
        r"✓ backprop: \d+° from backprop \(\d+° or more in \d+ steps\)",
        next(x for x in lines if "✓ backprop:" in x),
    )
    assert lines[-1].startswith("mine keeps every promise: ")


def test_there_is_a_next_step_for_every_check():
    on = [TaskNet("tiny", TinyTask())]
    names = {check.name for check in rule_checks(None, on=on)}
    for one in (task_suite, evaluation_suite, claim_suite):
        names |= {function.__name__.removeprefix("check_") for function in one.CHECKS}
    assert names == NEXT_STEP.keys()


def run(*words):
    return CliRunner().invoke(cli, list(words))


def test_the_command_says_no_by_its_exit_code_and_as_json(small, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(HONEST.replace("Step(grads,", "Step({},"), encoding="utf-8")

    text, as_json = run("verify", str(path)), run("verify", str(path), "--format", "json")

    assert (text.exit_code, as_json.exit_code) == (1, 1)
    (told,) = json.loads(as_json.output)
    assert (told["kind"], told["name"], told["ok"]) == ("rule", "mine", False)
    failed = {check["check"]: check for check in told["checks"] if check["outcome"] == "failed"}
    assert "no gradient other than zero reached" in failed["hidden_gradients"]["message"]
    assert failed["hidden_gradients"]["next_step"] == NEXT_STEP["hidden_gradients"]


def test_tiny_networks_are_checked_with_one_thread(small, monkeypatch):
    """Threads that wait for one another took minutes on a busy machine for what one does in seconds."""
    seen, before, genuine = [], torch.get_num_threads(), suite.rule_checks

    def checks(*given, **more):
        seen.append(torch.get_num_threads())
        return genuine(*given, **more)

    monkeypatch.setattr(suite, "rule_checks", checks)
    torch.set_num_threads(3)
    try:
        assert run("verify", "frozen").exit_code == 0
        assert (set(seen), torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)


def test_the_command_takes_names_and_options(small):
    done = run("verify", "nmnc", "-o", "rank=3", "-o", "samples=20")
    assert done.exit_code == 0, done.output
    assert "✓ limits: rank=4096, response=derivative gives noise-correlation" in done.output
    assert (
        run("verify", "flip-flop-rnn").output.splitlines()[-1].startswith("flip-flop-rnn keeps every promise")
    )


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [("without_class", "", "no class Mine"), ("without_import", "import gone", "No module named 'gone'")],
)
def test_a_rule_whose_class_does_not_load_fails_one_check(module, source, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "from rulezoo import RuleSpec, hookimpl\n\n@hookimpl\ndef rulezoo_rules():\n"
        f"    return [RuleSpec('mine', '{module}:Mine', 'A rule.')]\n",
        encoding="utf-8",
    )
    done = run("verify", str(tmp_path / "mine.py"), "--format", "json")
    assert done.exit_code == 1
    (told,) = json.loads(done.stdout)
    (check,) = told["checks"]
    assert (check["check"], check["outcome"]) == ("spec", "failed")
    assert message in check["message"]
    assert check["next_step"] == NEXT_STEP["spec"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nmcn"], "did you mean 'nmnc'"),
        (["gone.py"], "there is no file 'gone.py'"),
        (["empty.py"], "it has no hook; write rulezoo_rules"),
        (["broken.py"], "broken.py: ZeroDivisionError"),
        (["nmnc", "-o", "rank"], "'rank' must have the form OPTION=VALUE"),
        (["nmnc", "-o", "rnk=3"], "nmnc has no option 'rnk'; did you mean 'rank'"),
        (["nmnc", "-o", "rank=-3"], "nmnc.rank must be"),
    ],
)
def test_what_cannot_be_verified_is_said_in_a_line(words, message, tmp_path):
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0", encoding="utf-8")

    done = run("verify", *words)

    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_a_report_cannot_rewrite_the_terminal(small, tmp_path):
    path = tmp_path / "mine.py"
    evil = HONEST.replace("feedback = state.buffers", 'raise ValueError("\\x1b[2J\\nrubbed out")')
    path.write_text(textwrap.dedent(evil), encoding="utf-8")

    _, lines = report_of(path)

    assert not any("\x1b" in line or "\n" in line for line in lines)
    assert any("ValueError: �[2J rubbed out" in line for line in lines)
