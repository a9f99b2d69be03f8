"""Options with several values: what is compared, how large it may be, and the curves it gives."""

import re
import textwrap

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison import grids
from rulezoo.comparison.plan import is_grid, number_of_cells, plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.leaderboard import board, formats, overview
from rulezoo.leaderboard.grid import arrange
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.options import Option, OptionError
from rulezoo.results.records import Hardware, Plugin, Provenance, Record, RunSpec
from rulezoo.tuning.comparing import number_of_runs

PLUGIN = """
    from dataclasses import dataclass

    from rulezoo import LearningRule, RuleSpec, Step, TaskSpec, credit, hookimpl, hp
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Many(LearningRule):
        rank: int = hp(8, "a number", low=1)
        gain: float = hp(1.0, "a factor", low=0)
        kind: str = hp("a", "a word", choices=("a", "b", "c"))
        path: str = hp("here", "any text")

        def step(self, net, loss, params, state, batch, noise, t):
            grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
            return Step({name: self.gain * g for name, g in grads.items()}, state, mean)

    @hookimpl
    def rulezoo_rules():
        return [RuleSpec("many", f"{__name__}:Many", "Many options.")]

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "grid_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    monkeypatch.delenv("RULEZOO_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)


def request(options, **more):
    asked = {"rules": ["many"], "tasks": ["tiny"], "seeds": (0, 1), "device": "cpu", "epochs": 1, **more}
    return Request(options=options, **asked)


def planned(options, **more):
    return plan(discover(), request(options, **more))


def command(*words, **more):
    fixed = ["--rules", "many", "--tasks", "tiny", "--device", "cpu", "--epochs", "1", "--out", "results"]
    return CliRunner().invoke(cli, ["compare", *fixed, *words], **more)


@pytest.mark.parametrize(
    ("option", "given", "values"),
    [
        (Option("rank", 8, "", (int,)), "4", ("4",)),
        (Option("rank", 8, "", (int,)), "4,16, 64", ("4", "16", "64")),
        (Option("rank", 8, "", (int,)), "4,4,8", ("4", "8")),
        (Option("kind", "a", "", (str,), choices=("a", "b")), "a,b", ("a", "b")),
        (Option("kind", "a", "", (str,), choices=("a,b", "c")), "a,b", ("a,b",)),
        (Option("path", "a", "", (str,)), "a,b", ("a,b",)),
        (Option("size", 1, "", (int, str)), "1,2", ("1,2",)),
        (Option("path", "a", "", (str,)), ("a,b", "c"), ("a,b", "c")),
        (None, "1,2", ("1,2",)),
    ],
)
def test_commas_separate_values_where_the_option_cannot_hold_them(option, given, values):
    assert grids.values(option, given) == values


def test_the_product_of_grids_makes_cells():
    cells = planned({"many": {"rank": "4,16", "gain": ("0.5", "2")}, "tiny": {"kind": "mlp,rnn"}})
    found = [(c.task.kind, c.rule.rank, c.rule.gain) for c in cells]
    assert found == [(k, r, g) for k in ("mlp", "rnn") for r in (4, 16) for g in (0.5, 2.0)]
    assert len({asked.key for cell in cells for asked in cell.asked}) == 16
    for cell in cells:
        (again,) = plan(discover(), cell.request)
        assert again == cell


def test_a_value_of_a_grid_is_the_run_of_that_value_alone():
    in_grid = {cell.rule.rank: cell.asked for cell in planned({"many": {"rank": "4,16"}})}
    for rank in (4, 16):
        (alone,) = planned({"many": {"rank": str(rank)}})
        assert in_grid[rank] == alone.asked


def test_values_that_are_written_differently_and_equal_count_once():
    assert [cell.rule.gain for cell in planned({"many": {"gain": ("1", "1.0", "2")}})] == [1, 2]


def test_one_value_that_cannot_be_is_named_before_anything_is_run():
    with pytest.raises(OptionError, match=r"^many\.rank must be a whole number in \[1, inf\), got 'x'"):
        planned({"many": {"rank": "4,x"}})
    with pytest.raises(OptionError, match=r"^many\.rank must be a whole number in \[1, inf\), got ''"):
        planned({"many": {"rank": "4,,8"}})


def test_a_grid_is_counted_without_being_made():
    options = {"many": {f"{name}": ",".join(map(str, range(1, 101))) for name in ("rank", "gain")}}
    asked = request({**options, "tiny": {"kind": "mlp,rnn"}})
    registry = discover()
    assert (number_of_cells(registry, asked), number_of_runs(asked, registry)) == (20_000, 40_000)
    assert is_grid(registry, asked)
    assert not is_grid(registry, request({"many": {"rank": "4", "path": "a,b"}}))
    tuned = request({"many": {"rank": "4,8"}}, trials=6)
    assert number_of_runs(tuned, registry) == 2 * (2 + 2 + 6 * 2)


LARGE = ("-o", f"many.rank={','.join(map(str, range(1, 102)))}", "--seeds", "10")


def test_a_large_grid_is_refused_where_nobody_can_be_asked(tmp_path):
    done = command(*LARGE)
    assert done.exit_code == 2
    assert "rulezoo: the grid has 1,010 runs, more than 1,000; give fewer values, or --yes" in done.output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("answer", "planned_runs"), [("n\n", None), ("y\n", 1010)])
def test_a_large_grid_is_started_when_the_user_says_so(monkeypatch, answer, planned_runs):
    seen = []
    monkeypatch.setattr("rulezoo.cli.request._can_ask", lambda: True)
    monkeypatch.setattr(
        "rulezoo.tuning.comparing.execute", lambda cells, *rest: seen.append(sum(len(c.asked) for c in cells))
    )
    done = command(*LARGE, input=answer)
    assert "The grid has 1,010 runs. Run them?" in done.output
    assert seen == ([planned_runs] if planned_runs else [])
    assert ("was not started" in done.output) == (planned_runs is None)


def test_yes_answers_the_question(monkeypatch):
    seen = []
    monkeypatch.setattr("rulezoo.tuning.comparing.execute", lambda cells, *rest: seen.append(len(cells)))
    command(*LARGE, "--yes")
    assert seen == [101]


def test_a_comparison_without_a_grid_is_not_asked_about(monkeypatch):
    seen = []
    monkeypatch.setattr("rulezoo.tuning.comparing.execute", lambda cells, *rest: seen.append(len(cells)))
    command("--seeds", "2000")
    assert seen == [1]


def test_what_an_option_is_given_twice_is_told_how_a_grid_is_written():
    done = command("-o", "many.rank=1", "-o", "many.rank=2")
    assert "many.rank is given twice, as '1' and as '2'; give it once, and several values as" in done.output


@pytest.mark.slow
def test_each_value_is_a_row_and_the_curve_follows(tmp_path):
    done = command("-o", "many.gain=0.5,1,2", "--seeds", "2", "--jobs", "1")
    assert done.exit_code == 0, done.output
    for label in ("many", "many gain=0.5", "many gain=2"):
        assert re.search(rf"^{re.escape(label)} ", done.output, re.MULTILINE), label
    head = r"many on tiny: accuracy % against many\.gain, mean ± 95 % CI, n = 2"
    rows = r"\n".join(rf" +{gain}\s+\d+\.\d ± \d+\.\d" for gain in (r"0\.5", "1", "2"))
    assert re.search(f"{head}\n{rows}", done.output)
    shown = CliRunner().invoke(cli, ["leaderboard", "--out", "results"]).output
    assert re.search(f"{head}\n{rows}", shown)
    assert CliRunner().invoke(cli, ["leaderboard", "--out", "results", "--html", "report"]).exit_code == 0
    assert (tmp_path / "report" / "pictures" / "tiny-many-gain.svg").is_file()
    assert "Score against many.gain" in (tmp_path / "report" / "tasks" / "tiny.html").read_text()


# Curves over an option

ANSWERED = Provenance(
    packages={},
    rule_plugin=Plugin(distribution="tests"),
    task_plugin=Plugin(distribution="tests"),
    hardware=Hardware(cpu="A", cores=1, threads=1),
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seeds_together=1,
    mode="single",
)


def runs(scores, *, width=1.0, epochs=1, **options):
    """Runs of ``many`` with these options, one for each score; the last field tells of the task and the budget."""
    for seed, test in enumerate(scores):
        yield Record(
            asked=RunSpec(
                protocol=1, rule="many", rule_version=1, rule_options={"rank": 8, "kind": "a", **options},
                task="tiny", task_version=1, task_options={"width": width}, budget={"epochs": epochs},
                seed=seed, device="cpu",
            ),
            answered=ANSWERED, status="ok", changed=list(options), scores={"test": test}, chance=0.1,
            metric="accuracy",
        )  # fmt: skip


def curves(*groups):
    return option_curves(board.of(arrange([run for group in groups for run in group])))


def test_a_curve_has_its_values_in_order_with_the_interval_of_the_mean():
    (curve,) = curves(
        runs([0.5, 0.7], rank=16), runs([0.2, 0.2, 0.2], rank=4), runs([0.9], rank=64), runs([0.3], kind="b")
    )
    assert (curve.owner, curve.option, curve.rule, curve.fixed) == ("many", "rank", "many", "")
    assert [(p.value, p.n) for p in curve.points] == [(4, 3), (16, 2), (64, 1)]
    assert [p.mean for p in curve.points] == pytest.approx([0.2, 0.6, 0.9])
    # t(0.975; 1) = 12.706, sd = 0.1414, n = 2
    assert [p.half_width for p in curve.points] == [
        pytest.approx(0, abs=1e-9), pytest.approx(12.706 * 0.141421 / 2**0.5, rel=1e-4), None
    ]  # fmt: skip
    assert curve.is_numeric


def test_two_values_make_no_curve():
    assert curves(runs([0.5], rank=4), runs([0.6], rank=16)) == []


def test_what_differs_in_more_than_the_option_is_another_curve():
    grid = [runs([0.01 * rank], rank=rank, kind=kind) for kind in ("a", "b", "c") for rank in (4, 16, 64)]
    found = curves(*grid)
    of_rank = [curve for curve in found if curve.option == "rank"]
    assert [curve.fixed for curve in of_rank] == ["kind=a", "kind=b", "kind=c"]
    assert [[p.value for p in curve.points] for curve in of_rank] == [[4, 16, 64]] * 3
    of_kind = [curve for curve in found if curve.option == "kind"]
    assert [curve.fixed for curve in of_kind] == ["rank=4", "rank=16", "rank=64"]
    assert not of_kind[0].is_numeric
    assert len(found) == 6


def test_runs_under_other_budgets_do_not_meet_in_a_curve():
    assert curves(*(runs([0.5], rank=4**k, epochs=k) for k in (1, 2, 3))) == []


def test_an_option_of_a_task_has_a_curve_too():
    (curve,) = curves(*(runs([0.1 * w], width=w) for w in (4.0, 1.0, 2.0)))
    assert (curve.owner, curve.option, [p.value for p in curve.points]) == ("tiny", "width", [1, 2, 4])


def test_a_failed_run_counts_at_chance_level_as_on_the_board():
    failed = [msgspec.structs.replace(run, status="diverged", scores={}) for run in runs([0.9], rank=64)]
    (curve,) = curves(runs([0.5], rank=4), runs([0.6], rank=16), failed)
    assert [p.mean for p in curve.points] == pytest.approx([0.5, 0.6, 0.1])


def test_many_curves_are_cut_off_in_a_terminal_and_the_rest_is_named():
    grid = [
        runs([0.5], rank=rank, gain=gain) for rank in range(1, 8) for gain in range(1, 8)
    ]  # 7 curves over each
    text = formats.render(overview.build([run for group in grid for run in group]), "table")
    assert text.count("mean ± 95 % CI") == 12
    assert text.endswith("\n2 more curves over options are in the report (--html).\n")
