"""What was not examined keeps no promise: `rulezoo verify` says so, and so does the suite for pytest."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from rulezoo import LearningRule, RuleSpec
from rulezoo.cli import cli
from rulezoo.discovery.plugins import FILES
from rulezoo.testing import (
    TaskNet,
    TinyTask,
    check_rule,
    parametrize_rule_checks,
    rule_checks,
    suite,
)

# A rule that skips tiny networks and is backprop on all others, a rule that always fails, and a task without data.
PLUGIN = '''
from dataclasses import dataclass

from rulezoo import DataMissing, LearningRule, Plausibility, RuleSpec, Step, TaskSpec, credit, hookimpl
from rulezoo.testing import TinyTask


@dataclass(frozen=True)
class Choosy(LearningRule):
    """Backprop on networks of some size."""

    def skip(self, net, task):
        width = max((visit.width for visit in net.visits.values()), default=0)
        return None if width > 200 else f"it needs sites of more than 200 units, and the widest has {width}"

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class Absent(TinyTask):
    """A task without data."""

    def data(self, root=None, *, download=False):
        raise DataMissing("no file here; get it there")


@hookimpl
def rulezoo_rules():
    return [RuleSpec("choosy", f"{__name__}:Choosy", "A rule.", plausibility=Plausibility(True, False, True, "vector", False))]


@hookimpl
def rulezoo_tasks():
    return [TaskSpec("absent", f"{__name__}:Absent", "A task.")]
'''
RULE_ONLY = PLUGIN[: PLUGIN.index("\n\n@hookimpl\ndef rulezoo_tasks")]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FILES, "")
    monkeypatch.delenv("RULEZOO_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "choosy.py").write_text(RULE_ONLY, encoding="utf-8")
    (tmp_path / "both.py").write_text(PLUGIN, encoding="utf-8")


def run(*words):
    return CliRunner().invoke(cli, ["verify", *words])


def test_a_rule_that_skips_every_tiny_network_was_not_examined():
    done = run("choosy.py")

    assert done.exit_code == 3, done.output
    lines = done.stdout.splitlines()
    assert "keeps every promise" not in done.stdout
    assert lines[-1].startswith("choosy was not examined: ")
    (place,) = [i for i, line in enumerate(lines) if line.startswith("! examined:")]
    assert "mlp: it needs sites of more than 200 units, and the widest has 8; cnn: " in lines[place + 1]
    assert "`rulezoo verify NAME|FILE --on TASK`" in lines[place + 2]


def test_so_says_the_json_format():
    done = run("choosy.py", "--format", "json")

    assert done.exit_code == 3
    (told,) = json.loads(done.stdout)
    assert (told["ok"], told["examined"]) == (False, False)
    (check,) = [check for check in told["checks"] if check["outcome"] == "not examined"]
    assert (check["check"], "--on TASK" in check["next_step"]) == ("examined", True)
    assert "the widest has 8" in check["message"]


@pytest.mark.parametrize(
    ("codes", "code"), [((0, 3), 3), ((3, 1), 1), ((0, 1), 1), ((0, 0), 0), ((), 0), ((1, 3, 0), 1)]
)
def test_of_several_the_most_severe_code_counts(codes, code):
    from rulezoo.testing import verify

    assert verify.exit_code([type("Report", (), {"exit_code": one})() for one in codes]) == code


def test_a_task_whose_data_are_missing_was_not_examined():
    done = run("both.py", "--format", "json")

    assert done.exit_code == 3
    rule, task = json.loads(done.stdout)
    assert [(told["name"], told["examined"]) for told in (rule, task)] == [
        ("choosy", False),
        ("absent", False),
    ]
    (check,) = [check for check in task["checks"] if check["outcome"] == "not examined"]
    assert check["message"] == "the data are not here: no file here; get it there"


def test_a_rule_was_not_examined_on_a_task_whose_data_are_missing():
    done = run("both.py", "--on", "absent")
    assert done.exit_code == 3
    assert done.stderr == "rulezoo: no file here; get it there\n"


FAR = PLUGIN.replace(
    'raise DataMissing("no file here; get it there")',
    """if not download and not (root / "there").exists():
            raise DataMissing("add --download to fetch it")
        (root / "there").touch()
        return super().data(root)""",
)


@pytest.mark.parametrize("words", [("both.py", "--on", "absent"), ("far.py",)])
def test_verify_downloads_data_where_it_is_told_to(words, tmp_path):
    for name in ("both.py", "far.py"):
        text = (
            FAR
            if name == "both.py"
            else FAR[: FAR.index("@hookimpl\ndef rulezoo_rules")]
            + FAR[FAR.index("@hookimpl\ndef rulezoo_tasks") :]
        )
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "data").mkdir()
    done = run(*words, "--data", "data")
    assert done.exit_code == 3
    assert "add --download to fetch it" in done.output
    done = run(*words, "--data", "data", "--download")
    assert "add --download" not in done.output
    assert (tmp_path / "data" / "there").exists()


def test_on_a_task_it_is_examined_and_seen_through(monkeypatch):
    done = run("choosy.py", "--on", "digits-cnn", "-o", "digits-cnn.width=0.25", "--format", "json")

    assert done.exit_code == 1, done.output
    (told,) = json.loads(done.stdout)
    assert told["examined"]
    failed = {(check["check"], check["net"]) for check in told["checks"] if check["outcome"] == "failed"}
    assert ("backprop", "digits-cnn") in failed
    assert ("backward_pass", "digits-cnn") in failed
    passed = {check["check"] for check in told["checks"] if check["outcome"] == "passed" and check["net"]}
    assert {"examined", "vmap", "checkpoint", "float32", "noise", "from_training", "other_data"} <= passed


def test_a_rule_that_skips_the_task_asked_for_was_not_examined_on_it(monkeypatch):
    monkeypatch.setattr(suite, "ON_EVERY_NET", ())
    monkeypatch.setattr(suite, "ON_TASKS", suite.ON_TASKS[-3:])
    done = run("rflo", "--on", "digits-cnn")

    assert done.exit_code == 3, done.output
    assert "! examined: " in done.stdout
    assert "digits-cnn: nothing recurs" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["choosy.py", "--on", "digits-cn"], "did you mean 'digits-cnn'"),
        (["choosy.py", "--on", "digits-cnn", "-o", "digits-cnn.wdth=1"], "did you mean 'width'"),
        (["choosy.py", "-o", "digits-cnn.width=1"], "'digits-cnn' is no task of --on; add --on digits-cnn"),
        (
            ["digits-cnn", "--on", "digits-cnn"],
            "--on is for rules and evaluations, and 'digits-cnn' is a task",
        ),
    ],
)
def test_what_cannot_be_examined_on_is_a_usage_error(words, message):
    done = run(*words)

    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_the_codes_are_in_the_help():
    text = " ".join(run("--help").output.split())
    assert "0 if all checks passed, 1 if a check failed, 2 if the command cannot be carried out, 3 if" in text


# --------------------------------------------------------------------------------------------------------------------
# The suite for pytest.


@dataclass(frozen=True)
class Never(LearningRule):
    """Serves nothing."""

    def skip(self, net, task):
        return "it serves no network at all"


def test_check_rule_says_it():
    (result,) = [result for result in check_rule(Never()) if result.outcome == "not examined"]
    assert result.id == "Never:examined"
    assert result.message == (
        "the rule skips every network that it was to be checked on (mlp, cnn, rnn, rnn-every-step: it serves no network "
        "at all)"
    )


def test_an_author_may_declare_it():
    results = check_rule(Never(), expected_failures={"Never:examined": "it is for large networks"})
    assert [r.outcome for r in results if r.check == "examined"] == ["expected failure"]


def test_a_spec_is_examined_by_its_name():
    spec = RuleSpec("never", f"{__name__}:Never", "A rule.")
    assert [r.id for r in check_rule(spec) if r.outcome == "not examined"] == ["never:examined"]


def test_without_networks_nothing_is_examined():
    (result,) = [result for result in check_rule(Never(), nets=()) if result.outcome == "not examined"]
    assert result.message == "no network was given to check it on"


def test_a_test_of_pytest_fails():
    mark = parametrize_rule_checks([Never()]).mark
    (parameter,) = [one for one in mark.args[1] if one.id == "Never:examined"]

    with pytest.raises(
        pytest.fail.Exception, match=r"not examined: the rule skips every network .* --on TASK"
    ):
        parameter.values[0]()


def test_where_one_network_is_served_it_is_examined():
    class Once(Never):
        def skip(self, net, task):
            return None if task.kind == "cnn" else super().skip(net, task)

    (check,) = [check for check in rule_checks(Once()) if check.name == "examined"]
    assert check() == "on cnn"


def test_on_the_network_of_a_task():
    on = TaskNet("tiny", TinyTask())
    checks = {check.id for check in rule_checks(Never(), nets=(), on=[on])}
    assert {"Never:examined:tiny", "Never:vmap:tiny", "Never:noise:tiny"} <= checks
    assert "Never:examined" not in checks
