"""The Python interface: train, compare and load, and what runs and results can be asked."""

import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import rulezoo
from rulezoo import LearningRule, Step, WeightsError, credit, hp
from rulezoo.api.errors import CallError
from rulezoo.cli import cli
from rulezoo.errors import UnknownName, UserError
from rulezoo.options import OptionError
from rulezoo.testing import TinyTask
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_tasks.digits import DigitsCNN

from .test_trained import Blobs
from .test_weights import Remembers

SMALL = "digits-cnn:width=0.25"


@dataclass(frozen=True)
class MyRule(LearningRule):
    """Backprop, scaled."""

    scale: float = hp(1.0, "factor on the gradient", low=0)

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step({name: self.scale * grad for name, grad in grads.items()}, state, mean)


class Broken(MyRule):
    def step(self, net, loss, params, state, batch, noise, t):
        raise RuntimeError("no signal")


def words(command):
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    return done.output


def score(run):
    test = run.network.data().test
    return (run.predict(test.x).argmax(-1) == test.y).float().mean().item()


# Train ----------------------------------------------------------------------------------------------------------------


def test_train_gives_the_run_its_network_and_its_curve():
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    told = []
    run = rulezoo.train(
        "direct-feedback-alignment", SMALL, 1, epochs=2, probes=2, progress=lambda *now: told.append(now)
    )
    assert (run.record.status, run.record.asked.seed) == ("ok", 1)
    assert score(run) == pytest.approx(run.record.scores["test"], abs=1e-6) == run.network.scores["test"]
    assert run.network is run.network
    assert list(run.curve["epoch"]) == [1, 2]
    assert len(run.probes) > 3
    x = run.network.data().test.x[:7]
    assert {v.shape[0] for v in run.activities(x).values()} == {7}
    with torch.no_grad():
        torch.testing.assert_close(run.model()(x), run.predict(x))
    assert (
        repr(run)
        == f"<Run of direct-feedback-alignment on digits-cnn, seed 1: test accuracy {run.record.scores['test']:.3f}>"
    )
    assert told[-1] == (38, 38)
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == (threads, tf32)


def test_a_name_with_options_a_value_and_a_class_are_the_same_run():
    runs = [
        rulezoo.train(rule, task, epochs=1, **more)
        for rule, task, more in [
            ("direct-feedback-alignment:lr=0.005", "digits-cnn:width=0.25", {}),
            (
                "direct-feedback-alignment",
                "digits-cnn",
                {"options": {"lr": 0.005}, "task_options": {"width": 0.25}},
            ),
            (DirectFeedbackAlignment(lr=0.005), DigitsCNN(width=0.25), {}),
            (DirectFeedbackAlignment, DigitsCNN, {"options": {"lr": 0.005}, "task_options": {"width": 0.25}}),
        ]
    ]
    assert len({run.record.asked.key for run in runs}) == 1
    assert len({run.record.scores["test"] for run in runs}) == 1


def test_a_rule_and_a_task_need_not_come_from_a_plugin():
    run = rulezoo.train(MyRule(scale=0.5), Blobs(), epochs=2)
    assert run.record.status == "ok", run.record.reason
    assert (run.record.asked.rule, run.record.asked.rule_options["scale"]) == ("my-rule", 0.5)
    assert run.network.made_rule == MyRule(scale=0.5)
    assert run.network.made_task == Blobs()
    assert score(run) == pytest.approx(run.record.scores["test"], abs=1e-6)


def test_a_rule_that_predicts_with_its_memory_has_it():
    run = rulezoo.train(Remembers(), TinyTask(), epochs=1)
    assert run.network.state.buffers["steps"] == 6
    assert score(run) == pytest.approx(run.record.scores["test"], abs=1e-6)


def test_a_run_that_fails_is_returned_with_its_reason():
    run = rulezoo.train(Broken(), TinyTask(), epochs=1)
    assert (run.record.status, run.record.reason) == ("error", "RuntimeError: no signal")
    assert "no signal" in run.record.traceback
    with pytest.raises(
        WeightsError, match=r"there is no trained network.*status 'error': RuntimeError: no signal"
    ):
        run.model()
    assert repr(run) == "<Run of broken on tiny-task, seed 0: status error>"


def test_the_precision_of_a_run_is_that_of_its_predictions():
    run = rulezoo.train("backprop", SMALL, epochs=1, precision="bfloat16", device="cpu")
    assert run.network.precision == "bfloat16"
    assert score(run) == pytest.approx(run.record.scores["test"], abs=1e-6)


def test_a_run_that_is_stored_is_not_trained_again_whoever_trained_it(tmp_path):
    words(["compare", "--rules", "direct-feedback-alignment", "--tasks", "digits-cnn", "-o", "digits-cnn.width=0.25", "--seeds", "1",
           "--epochs", "1", "--keep-weights", "--out", str(tmp_path)])  # fmt: skip
    (stored,) = rulezoo.load(tmp_path).records
    run = rulezoo.train("direct-feedback-alignment", SMALL, 0, epochs=1, out=tmp_path)
    assert run.record == stored
    other = rulezoo.train("direct-feedback-alignment", SMALL, 1, epochs=1, out=tmp_path)
    assert rulezoo.load(tmp_path).run("direct-feedback-alignment", "digits-cnn", 1).record == other.record
    assert score(rulezoo.load(tmp_path).run("direct-feedback-alignment", "digits-cnn", 1)) == pytest.approx(
        other.record.scores["test"], abs=1e-6
    )
    again = rulezoo.train("direct-feedback-alignment", SMALL, 1, epochs=1, out=tmp_path, retry=["all"])
    assert again.record.answered.started >= other.record.answered.started
    assert again.record.weights == other.record.weights


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: rulezoo.train("nmmc", SMALL), UnknownName, r"unknown rule 'nmmc'; did you mean 'nmnc'\?"),
        (lambda: rulezoo.train("nmnc", "digits"), UnknownName, "unknown task 'digits'; did you mean"),
        (lambda: rulezoo.train("nmnc:rank=x", SMALL), OptionError, r"nmnc\.rank must be a number in"),
        (lambda: rulezoo.train("nmnc:rank", SMALL), CallError, "'rank' must read OPTION=VALUE"),
        (lambda: rulezoo.train("nmnc", SMALL, options={"rnk": 1}), OptionError, "nmnc has no option 'rnk'; did you mean"),
        (lambda: rulezoo.train(3, SMALL), CallError, "rule must be the name of a rule.* or its class, got 3"),
        (lambda: rulezoo.train(MyRule(), SMALL, options={"scale": 2.0}), CallError, "make the MyRule with them"),
        (lambda: rulezoo.train(DigitsCNN, SMALL), CallError, "rule must be the name of a rule"),
        (lambda: rulezoo.train("nmnc", SMALL, seed=-1), UserError, "a seed must be a whole number"),
        (lambda: rulezoo.train("nmnc", SMALL, epochs=0), UserError, "epochs must be a whole number, 1 or more"),
        (lambda: rulezoo.train("nmnc", SMALL, budget={"lrr": 1}), UserError, "lrr"),
        (lambda: rulezoo.train(MyRule, SMALL, out="x"), CallError, r"MyRule is not offered by a plugin.*rulezoo_rules\(\)"),
        (lambda: rulezoo.compare([MyRule], ["digits-cnn"], out="x"), CallError, "MyRule is not offered by a plugin"),
        (lambda: rulezoo.compare(["nmnc:rank=4", "nmnc:rank=8"], out="x"), CallError, "nmnc is given twice.*as a grid"),
        (lambda: rulezoo.compare(MyRule(), out="x"), CallError, "rules must be a list, got MyRule"),
        (lambda: rulezoo.compare(seeds=None, out="x"), CallError, "seeds must be a number of seeds"),
        (lambda: rulezoo.compare(options={"nmnc": 4}, out="x"), CallError, "options must read {NAME: {OPTION: VALUE}}"),
        (lambda: rulezoo.load("nowhere"), CallError, "no results in nowhere: it is not a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(call, error, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=match):
        call()
    assert list(tmp_path.iterdir()) == []


# Compare and load -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison that one door began and the other went on with."""
    out = tmp_path_factory.mktemp("results")
    words(["compare", "--rules", "direct-feedback-alignment", "--tasks", "digits-cnn", "-o", "digits-cnn.width=0.25", "--seeds", "2",
           "-o", "direct-feedback-alignment.lr=0.01,0.02", "--epochs", "1", "--out", str(out)])  # fmt: skip
    begun = rulezoo.load(out)
    assert len(begun) == 4
    results = rulezoo.compare(
        ["direct-feedback-alignment", Backprop()],
        [SMALL],
        2,
        out=out,
        epochs=1,
        options={"direct-feedback-alignment": {"lr": [0.01, 0.02]}},
        probes=0,
    )
    assert len(results) == 6
    times = {r.asked.key: r.answered.started for r in results.records}
    assert all(times[r.asked.key] == r.answered.started for r in begun.records), "trained again"
    return out


def test_a_comparison_is_the_same_by_either_door(folder):
    shown = words(["compare", "--rules", "direct-feedback-alignment,backprop", "--tasks", "digits-cnn", "-o", "digits-cnn.width=0.25", "--seeds",
                   "2", "-o", "direct-feedback-alignment.lr=0.01,0.02", "--epochs", "1", "--out", str(folder)])  # fmt: skip
    assert "direct-feedback-alignment lr=0.02" in shown
    assert len(rulezoo.load(folder)) == 6


def test_weights_that_are_asked_for_later_are_kept_later(folder):
    with pytest.raises(
        WeightsError, match=r"were not kept; run again with --keep-weights; seeds 0-1 took about \d+ second"
    ):
        _ = rulezoo.load(folder).run("backprop", "digits-cnn").network
    again = rulezoo.compare(["backprop"], [SMALL], 2, out=folder, epochs=1, keep_weights=True)
    for run in again:
        assert score(run) == pytest.approx(run.record.scores["test"], abs=1e-6)
    begun = [r.answered.started for r in again.records]
    more = rulezoo.compare(["backprop"], [SMALL], 2, out=folder, epochs=1, probes=2)
    assert [r.answered.started for r in more.records] >= begun
    assert all(r.weights and r.probes for r in more.records), "weights were dropped for the probes"


def test_tables_are_tidy(folder):
    results = rulezoo.load(folder)
    frame = results.frame
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(results) == 6
    assert set(frame["rule"]) == {"backprop", "direct-feedback-alignment"}
    assert frame["test"].between(0, 1).all()
    assert sorted(frame["rule.lr"].dropna().unique()) == [0.01, 0.02]
    assert len(results.curves) == 6
    assert {"key", "seed", "epoch", "validation"} <= set(results.curves)
    assert set(results.probes) >= {"quantity", "value", "step"} or len(results.probes) == 0
    joined = results.curves.merge(frame[["key", "rule.lr"]], on="key")
    assert len(joined) == 6


def test_runs_are_chosen_by_what_they_are(folder):
    results = rulezoo.load(folder, rules="direct-feedback-alignment", seeds=[0])
    assert len(results) == 2
    assert len(results.only(where={"rule.lr": 0.02})) == 1
    run = results.run("direct-feedback-alignment", "digits-cnn", where={"rule.lr": 0.02})
    assert run.record.asked.rule_options["lr"] == 0.02
    assert [one.record.asked.seed for one in results] == [0, 0]
    assert "2 runs" in repr(results)


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda r: r.run("direct-feedback-alignment", "digits-cnn"),
         r"2 runs of direct-feedback-alignment on digits-cnn, seed 0: rule.lr is 0.01 or 0.02\. Choose one, as with where={'rule.lr': 0.01}"),
        (lambda r: r.run("direct-feedback-alignmenta", "digits-cnn"), "unknown rule 'direct-feedback-alignmenta'; did you mean 'direct-feedback-alignment'.*stored: backprop, direct-feedback-alignment"),
        (lambda r: r.run("direct-feedback-alignment", "mnist-mlp"), "unknown task 'mnist-mlp'.*stored: digits-cnn"),
        (lambda r: r.run("direct-feedback-alignment", "digits-cnn", 7), "seed 7 is not stored; stored: 0-1"),
        (lambda r: r.only(status="diverged"), r"unknown status 'diverged'.*stored: ok"),
        (lambda r: r.only(where={"lr": 1}), "'lr' is not a column of frame; did you mean 'rule.lr'"),
        (lambda r: r.only(where={"rule.lr": 9.0}), "no run has rule.lr=9.0; stored: none, 0.01, 0.02"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_stored_or_not_the_only_one_is_said(folder, ask, match):
    with pytest.raises(UserError, match=match):
        ask(rulezoo.load(folder))


def test_the_leaderboard_shows_itself_in_a_terminal_and_in_a_notebook(folder):
    table = rulezoo.load(folder).leaderboard()
    assert str(table) == repr(table)
    shown = words(["leaderboard", "--out", str(folder)])
    assert [line.split() for line in str(table).splitlines()] == [line.split() for line in shown.splitlines()]
    html = table._repr_html_()
    assert html.count("<tr>") == 1 + 3
    assert "<td>direct-feedback-alignment lr=0.02</td>" in html
    assert "\n\n| rule | % of backprop |" in table.render("md")
    assert table.render("csv", long=True).count("\n") == 1 + len(rulezoo.load(folder))


def test_words_of_plugins_are_no_html():
    from rulezoo.leaderboard.overview import build

    from .test_store import record

    odd = record(status="error", reason="<script>alert(1)</script>", scores={})
    from rulezoo.api.leaderboard import Leaderboard

    html = Leaderboard(build([odd]))._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_what_cannot_be_read_is_left_out_with_a_warning(tmp_path):
    (tmp_path / "runs" / "t" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "t" / "r" / "seed0-0.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"left out: runs/t/r/seed0-0\.json is not a record of rulezoo"):
        assert len(rulezoo.load(tmp_path)) == 0


def test_a_script_compares_without_a_guard_around_its_main_part(tmp_path):
    """Child processes do not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import rulezoo

            print("once")
            results = rulezoo.compare(["backprop"], ["{SMALL}"], 1, out="out", epochs=1)
            print(len(results))
        """)
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("once\n1\n", 0), done.stderr


def test_the_names_are_loaded_late():
    light = "import rulezoo, sys; rulezoo.WeightsError; print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
