import csv
import dataclasses
import io
import itertools
import json
import math
import random
import re

import msgspec
import pytest

from rulezoo.leaderboard.board import of
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.grid import arrange
from rulezoo.leaderboard.overview import build
from rulezoo.results.records import Cost, Hardware, Plugin, Point, Provenance, Record, RunSpec
from rulezoo.specs import Plausibility, RuleSpec, Variant

LAPTOP = Hardware(cpu="Laptop", cores=8, threads=4)
SERVER = Hardware(cpu="Server", cores=64, threads=1)
ANSWERED = Provenance(
    packages={},
    rule_plugin=Plugin(distribution="rulezoo"),
    task_plugin=Plugin(distribution="rulezoo"),
    hardware=LAPTOP,
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seeds_together=3,
    mode="vmap",
)
BACKPROP = Plausibility(True, True, True, "neuron-specific", False)
NMNC = Plausibility(False, False, True, "vector", True, phases=1)


def spec(plausibility, variants=()):
    return RuleSpec("a-rule", "m:C", "A rule.", plausibility=plausibility, variants=variants)


ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(rule, task="digits-cnn", seed=0, test=None, *, cost=None, hardware=LAPTOP, asked=None, **changes):
    question = {
        "protocol": 1,
        "rule": rule,
        "rule_version": 1,
        "rule_options": {"lr": None},
        "task": task,
        "task_version": 1,
        "task_options": {},
        "budget": {"epochs": 10, "batch": 32, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0},
        "seed": seed,
        "device": "cpu",
    }
    values = {"status": "ok", "chance": 0.1, "metric": "accuracy"}
    return Record(
        asked=RunSpec(**(question | (asked or {}))),
        answered=msgspec.structs.replace(ANSWERED, hardware=hardware),
        scores={} if test is None else {"validation": 1.0, "test": test},
        cost=None if cost is None else Cost(step_ms=cost, backprop_step_ms=1, ratio=cost),
        **(values | changes),
    )


def runs(rule, tests, task="digits-cnn", **changes):
    return [run(rule, task, seed, test, **changes) for seed, test in enumerate(tests)]


def board(records, *, tasks=None, rules=None, specs=None):
    """What was measured, before it is made a leaderboard."""
    return of(arrange(records, tasks=tasks, rules=rules), specs)


def cell(records):
    """The only cell."""
    made = board(records)
    ((found,),) = (row.cells for row in made.rows)
    return found


def order(records, **options):
    return [row.label for row in board(records, **options).rows]


def labels(records):
    return {row.label for row in board(records).rows}


# What a cell holds


def test_a_cell_is_mean_and_sample_deviation_of_the_test_scores():
    found = cell(runs("a", [0.9, 0.8, 0.7]))
    assert (found.n, found.failed, found.skipped, found.notes) == (3, 0, False, ())
    assert found.mean == pytest.approx(0.8)
    assert found.sd == pytest.approx(0.1)


def test_one_seed_has_no_deviation():
    assert cell(runs("a", [0.9])).sd is None


@pytest.mark.parametrize("status", ["diverged", "error", "timeout", "oom_host", "oom_gpu", "crashed"])
def test_a_failed_run_counts_at_chance_and_is_named(status):
    failed = run("a", seed=2, status=status, reason="the loss was not finite at step 40", test=0.99)
    found = cell([*runs("a", [0.9, 0.9]), failed])
    assert (found.n, found.failed) == (3, 1)
    assert found.mean == pytest.approx((0.9 + 0.9 + 0.1) / 3)
    assert found.sd == pytest.approx(0.8 / math.sqrt(3))
    assert found.notes == (f"{status.replace('_', ' ')}: the loss was not finite at step 40 (1 of 3)",)


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_a_run_without_a_finite_test_score_counts_at_chance(score):
    found = cell(runs("a", [0.9, score]))
    assert found.mean == pytest.approx(0.5)
    assert found.notes == ("no test score (1 of 2)",)


def test_the_same_reason_is_told_once_with_its_count():
    found = cell(
        [run("a", seed=s, status="error", reason="ValueError: no" if s else "KeyError") for s in range(3)]
    )
    assert found.notes == ("error: KeyError (1 of 3)", "error: ValueError: no (2 of 3)")
    assert (found.mean, found.failed) == (pytest.approx(0.1), 3)


def test_a_skipped_task_has_its_sentence_and_no_score():
    found = cell([run("a", seed=s, status="skipped", reason="it needs a recurrent site") for s in range(3)])
    assert found.skipped
    assert found.mean is None
    assert found.notes == ("skipped: it needs a recurrent site",)


def test_an_interrupted_run_is_named_but_no_result():
    found = cell(
        [*runs("a", [0.9, 0.7]), run("a", seed=2, status="interrupted", reason="stopped by the user")]
    )
    assert (found.n, found.failed) == (2, 0)
    assert found.mean == pytest.approx(0.8)
    assert found.notes == ("interrupted: stopped by the user (1 of 3)",)
    assert cell([run("a", status="interrupted")]).mean is None


def test_the_cost_is_the_median_over_seeds():
    records = [run("a", seed=s, test=0.9, cost=c) for s, c in enumerate([1.0, 1.25, 9.0, None])]
    assert cell(records).cost == 1.25
    assert cell(runs("a", [0.9])).cost is None


def test_costs_of_different_hardware_are_not_averaged():
    found = cell([run("a", seed=0, test=0.9, cost=1), run("a", seed=1, test=0.9, cost=3, hardware=SERVER)])
    assert found.mixed
    assert found.cost is None
    assert found.mean == pytest.approx(0.9)


def test_of_two_runs_of_one_seed_the_later_counts_and_the_other_is_named():
    later = msgspec.structs.replace(ANSWERED, finished="2026-02-01T00:00:00+00:00")
    old = run("a", test=0.2, asked={"budget": {"epochs": 10, "batch": 32, "lr": 1.0, "optimizer": "adam"}})
    new = msgspec.structs.replace(run("a", test=0.8), answered=later)
    budget = {"epochs": 10, "batch": 32, "lr": 0.1, "optimizer": "adam"}
    new = msgspec.structs.replace(new, asked=msgspec.structs.replace(new.asked, budget=budget))
    for records in ([old, new], [new, old]):
        found = cell(records)
        assert (found.n, found.mean) == (1, pytest.approx(0.8))
        assert found.notes == ("left out: 1 older runs of the same seeds, under another lr or weight decay",)


# Which columns and rows there are


def test_different_budgets_are_different_columns_headed_by_what_differs():
    shorter = {"budget": {"epochs": 2, "batch": 32, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0}}
    made = board([run("a", test=0.9), run("a", test=0.5, asked=shorter), run("a", "digits-rnn", test=0.7)])
    assert [c.label for c in made.columns] == [
        "digits-cnn (2 epochs)",
        "digits-cnn (10 epochs)",
        "digits-rnn",
    ]
    assert [c.mean for c in made.rows[0].cells] == [0.5, 0.9, 0.7]


@pytest.mark.parametrize(
    ("change", "heads"),
    [
        ({"device": "cuda"}, ["digits-cnn (cpu)", "digits-cnn (cuda)"]),
        ({"task_version": 2}, ["digits-cnn (version 1)", "digits-cnn (version 2)"]),
        ({"protocol": 2}, ["digits-cnn (protocol 1)", "digits-cnn (protocol 2)"]),
        ({"task_options": {"width": 4}}, ["digits-cnn (width 4)", "digits-cnn"]),
    ],
)
def test_results_under_different_conditions_never_meet_in_a_cell(change, heads):
    made = board([run("a", test=0.9), run("a", test=0.5, asked=change)])
    assert sorted(c.label for c in made.columns) == sorted(heads)
    assert sorted(c.mean for c in made.rows[0].cells) == [0.5, 0.9]


def test_the_learning_rate_of_the_rule_makes_a_row_not_a_column():
    own = {"rule_options": {"lr": 0.1}, "budget": {"epochs": 10, "batch": 32, "lr": 0.1, "optimizer": "adam"}}
    made = board(
        [run("a", test=0.9, asked={"budget": own["budget"] | {"lr": 1e-3}}), run("a", test=0.5, asked=own)]
    )
    assert len(made.columns) == 1
    assert [row.label for row in made.rows] == ["a lr=none", "a lr=0.1"]


def test_a_variant_is_named_by_the_options_that_were_changed():
    options = {"rank": 64, "sigma": 0.5}
    default = run("nmnc", test=0.9, asked={"rule_options": {"rank": 16, "sigma": 0.5}})
    changed = run("nmnc", test=0.8, asked={"rule_options": options}, changed=["rank"])
    assert labels([changed]) == {"nmnc rank=64"}, "also when the default is not there"
    assert labels([default, changed]) == {"nmnc", "nmnc rank=64"}


def test_variants_that_do_not_say_what_was_changed_are_told_apart_by_what_differs():
    variants = [{"rank": r, "antithetic": a, "k": 1} for r, a in [(16, True), (64, True), (64, False)]]
    records = [run("nmnc", test=0.9, asked={"rule_options": options}) for options in variants]
    assert labels([*records, run("other", test=0.9)]) == {
        "nmnc antithetic=true rank=16",
        "nmnc antithetic=true rank=64",
        "nmnc antithetic=false rank=64",
        "other",
    }


def test_one_and_one_point_zero_are_one_variant_and_true_is_another():
    records = [run("a", seed=s, test=0.9, asked={"rule_options": {"x": x}}) for s, x in enumerate([1, 1.0])]
    assert cell(records).n == 2
    assert labels([*records, run("a", test=0.9, asked={"rule_options": {"x": True}})]) == {
        "a x=1",
        "a x=true",
    }


def test_versions_of_a_rule_are_rows_of_their_own():
    assert labels([run("a", test=0.9), run("a", test=0.8, asked={"rule_version": 2})]) == {"a v1", "a v2"}


def test_only_the_chosen_tasks_and_rules_are_shown_tasks_in_the_order_given():
    records = [run(rule, task, test=0.9) for rule in "abc" for task in ("t1", "t2", "t3")]
    made = board(records, tasks=["t3", "t1"], rules=["c", "a"])
    assert [c.task for c in made.columns] == ["t3", "t1"]
    assert [row.rule for row in made.rows] == ["a", "c"]


# The order of the rows


def test_rows_are_ordered_by_the_interquartile_mean_between_chance_and_backprop():
    # (0.5 - 0.1) / 0.8 = 0.5 and (1.0 - 0.5) / 0.5 = 1 for "a"; 1.375 and 0 for "b", whose plain mean is higher.
    easy, hard = {"chance": 0.1, "task": "t1", "metric": "reward"}, {"chance": 0.5, "task": "t2"}
    records = [
        *runs("backprop", [0.9], **easy),
        *runs("backprop", [1.0], **hard),
        *runs("a", [0.5], **easy),
        *runs("a", [1.0], **hard),
        *runs("b", [1.2], **easy),
        *runs("b", [0.5], **hard),
    ]  # the metric of these has no upper end
    made = board(records)
    assert [(row.label, row.score) for row in made.rows] == [
        ("backprop", pytest.approx(1)),
        ("a", pytest.approx(0.75)),
        ("b", pytest.approx(0.6875)),
    ]
    assert made.reference == "backprop"


def test_a_quarter_of_the_runs_is_cut_off_at_each_end():
    made = board([*runs("backprop", [0.9] * 4), *runs("a", [0.1, 0.5, 0.9, 7.0], metric="reward")])
    assert {row.label: row.score for row in made.rows}["a"] == pytest.approx((0.5 + 1.0) / 2)


def test_without_backprop_the_mean_rank_orders_the_rows_and_the_legend_says_so():
    records = [*runs("a", [0.3]), *runs("b", [0.5])]
    made = board(records)
    assert [(row.label, row.score) for row in made.rows] == [("b", None), ("a", None)]
    assert made.reference is None
    assert "order: by the mean rank" in render(build(records))


def test_a_rule_that_skips_a_task_or_lacks_a_run_of_backprops_is_not_ranked():
    records = [
        *runs("skips", [0.9, 0.9], task="t1"),
        *[run("skips", "t2", s, status="skipped", reason="no") for s in range(2)],
        *runs("weak", [0.6, 0.6], task="t1"),
        *runs("weak", [0.6, 0.6], task="t2"),
        *runs("gap", [0.99, 0.99], task="t1"),
        *runs("short", [0.8, 0.8], task="t1"),
        *runs("short", [0.8], task="t2"),
        *runs("backprop", [0.9, 0.9], task="t1"),
        *runs("backprop", [0.9, 0.9], task="t2"),
    ]
    assert [(row.label, row.gap) for row in board(records).rows] == [
        ("backprop", ""),
        ("weak", ""),
        ("gap", "2 missing of 4 planned runs"),
        ("skips", "2 skipped of 4 planned runs"),
        ("short", "1 missing of 4 planned runs"),
    ]
    assert "[2] not ranked: 2 skipped of 4 planned runs\n" in render(build(records))


def test_equal_rows_stand_by_name_and_backprop_at_chance_divides_by_nothing():
    made = board([*runs("b", [0.1]), *runs("a", [0.1]), *runs("backprop", [0.1])])
    assert [(row.label, row.score) for row in made.rows] == [("a", None), ("b", None), ("backprop", None)]


# How it is written


def example():
    return [
        *runs("backprop", [0.99, 0.98, 0.97], cost=1.0),
        *runs("backprop", [0.92, 0.92, 0.92], task="digits-rnn", cost=1.004),
        *runs("nmnc", [0.95, 0.85, 0.93], cost=0.8),
        *runs("nmnc", [0.9, 0.7], task="digits-rnn", cost=1.5),
        run(
            "nmnc", "digits-rnn", 2, status="diverged", reason="the loss was not finite at step 40", cost=1.25
        ),
        *runs("e-prop", [0.5, 0.5], task="digits-rnn", cost=2.0),
        *[run("e-prop", seed=s, status="skipped", reason="e-prop needs a recurrent site") for s in range(3)],
    ]


DECLARED = {"backprop": spec(BACKPROP), "nmnc": spec(NMNC), "unused": spec(NMNC), "e-prop": spec(None)}
EXAMPLE = """\
One rule on 2 tasks: nmnc. It reaches 87.3 % [42.6, 97.1] of backprop, a difference of −25.5 points
[−87.4, 36.4] (p = 0.031, smallest possible 0.031). A training step takes ×1.15 the time of
backprop's. Implausible features: update locking, perturbation and extra phases.

rule      % of backprop             Δ points                p (≥ 0.031) cost
───────────────────────────────────────────────────────────────────────────────
backprop  100.0 [99.4, 100.6]                                           ×1.00
nmnc       87.3  [42.6, 97.1]       −25.5 [−87.4, 36.4] ≈   0.031       ×1.15
e-prop        –               [1]                                       ×2.00

                                      digits-cnn       digits-rnn
rule      W B L N P   signal          accuracy %       accuracy %
──────────────────────────────────────────────────────────────────────────
backprop  ● ● ● ○ ○   neuron-specific 98.0 ± 1.0       92.0 ±  0.0
nmnc      ○ ○ ● ● ● 1 vector          91.0 ± 5.3       56.7 ± 41.6 [2]
e-prop                                   –       [3]   50.0 ±  0.0 (n=2)

[1] not ranked: 1 missing and 3 skipped of 6 planned runs
[2] diverged: the loss was not finite at step 40 (1 of 3)
[3] skipped: e-prop needs a recurrent site
% of backprop: interquartile mean of the runs of all tasks, chance = 0 % and backprop = 100 %, with
its 95 % bootstrap interval over seeds; lines are in this order
Δ points: difference to backprop in the same unit, mean over pairs of task and seed, with its 95 %
interval: ▲ better, ▼ worse, ≈ the interval contains 0
p: two-sided paired sign-flip test against backprop; 6 pairs of task and seed cannot give less than
0.031
scores: on test data, mean ± standard deviation over 3 seeds; a failed run counts at chance (10.0)
cost: time of a training step relative to backprop's in the same run, median over seeds and tasks;
on Laptop (8 cores, 4 threads)
plausibility: ● = the rule has this implausible feature, ○ = it does not; W: weight transport; B:
sequential backward pass; L: update locking; N: perturbation; P: extra phases; signal: error signal
"""


def test_the_table_as_a_terminal_shows_it():
    assert render(build(example(), specs=DECLARED)) == EXAMPLE


def test_the_table_in_markdown():
    lines = render(build(example(), specs=DECLARED), "md").splitlines()
    assert lines[0].startswith("One rule on 2 tasks: nmnc. It reaches 87.3 % \\[42.6, 97.1\\] of backprop")
    assert lines[2] == (
        "| rule | % of backprop | Δ points | p (≥ 0.031) | cost | weight transport | sequential backward pass | update locking "
        "| perturbation | extra phases | error signal | digits-cnn, accuracy % | digits-rnn, accuracy % |"
    )
    nmnc = (
        "| nmnc | 87.3 \\[42.6, 97.1\\] | −25.5 \\[−87.4, 36.4\\] ≈ | 0.031 | ×1.15 | ○ | ○ | ● | ● | ● 1 | vector "
        "| **91.0 ± 5.3** | **56.7 ± 41.6** \\[2\\] |"
    )
    assert lines[4:7] == [
        "| backprop | 100.0 \\[99.4, 100.6\\] |  |  | ×1.00 | ● | ● | ● | ○ | ○ | neuron-specific | **98.0 ± 1.0** | **92.0 ± 0.0** |",
        nmnc,
        "| e-prop | – \\[1\\] |  |  | ×2.00 |  |  |  |  |  |  | – \\[3\\] | 50.0 ± 0.0 (n=2) |",
    ]
    assert lines[8::2][:3] == [
        "[1] not ranked: 1 missing and 3 skipped of 6 planned runs",
        "[2] diverged: the loss was not finite at step 40 (1 of 3)",
        "[3] skipped: e-prop needs a recurrent site",
    ]


def test_csv_has_a_line_for_each_cell_with_fractions():
    text = render(build(example(), specs=DECLARED), "csv")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["label"], line["task"]) for line in lines] == [
        (rule, task) for rule in ("backprop", "nmnc", "e-prop") for task in ("digits-cnn", "digits-rnn")
    ]
    assert float(lines[3]["mean"]) == pytest.approx(1.7 / 3)
    assert (lines[3]["n"], lines[3]["failed"], lines[3]["cost"]) == ("3", "1", "1.5")
    assert lines[3]["notes"] == "diverged: the loss was not finite at step 40 (1 of 3)"
    assert (lines[4]["skipped"], lines[4]["mean"]) == ("True", "")
    assert json.loads(lines[0]["conditions"])["epochs"] == 10
    assert lines[0]["signal"] == "neuron-specific"


def test_csv_has_the_aggregate_columns_of_the_other_forms():
    lines = list(csv.DictReader(io.StringIO(render(build(example(), specs=DECLARED), "csv"))))
    (nmnc,) = [line for line in lines if line["label"] == "nmnc" and line["task"] == "digits-cnn"]
    assert [float(nmnc[name]) for name in ("percent_of_backprop", "percent_low", "percent_high")] == (
        pytest.approx([87.3, 42.6, 97.1], abs=0.05)
    )
    assert [float(nmnc[name]) for name in ("difference_points", "difference_low", "difference_high")] == (
        pytest.approx([-25.5, -87.4, 36.4], abs=0.05)
    )
    assert (nmnc["sign"], nmnc["p"], nmnc["smallest_p"], nmnc["pairs"]) == (
        "equal",
        "0.03125",
        "0.03125",
        "6",
    )
    assert (nmnc["rank"], nmnc["median_cost"], nmnc["ties_with_best"]) == ("2", "1.15", "True")
    assert lines[-1]["not_ranked"] == "1 missing and 3 skipped of 6 planned runs"


def test_long_csv_has_a_line_for_each_run():
    text = render(build(example(), specs=DECLARED), "csv", long=True)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 3 + 3 + 3 + 3 + 2, "a skipped run has no score"
    shown = [(line["task"], line["seed"], line["status"], line["score"], line["cost"]) for line in lines]
    assert shown[:2] == [("digits-cnn", "0", "ok", "0.99", "1.0"), ("digits-cnn", "1", "ok", "0.98", "1.0")]
    assert ("digits-rnn", "2", "diverged", "", "1.25") in shown
    assert {line["setting"] for line in lines} == {"default"}
    assert len({line["key"] for line in lines}) == len(lines)


def test_json_holds_the_whole_leaderboard():
    found = json.loads(render(build(example(), specs=DECLARED), "json"))
    assert found["seeds"] == 3
    assert found["sentence"].startswith("One rule on 2 tasks: nmnc.")
    assert [line["label"] for line in found["lines"]] == ["backprop", "nmnc", "e-prop"]
    assert found["lines"][0]["default"]["cells"][0]["mean"] == pytest.approx(0.98)
    assert [run["score"] for run in found["lines"][0]["default"]["cells"][0]["runs"]] == [0.99, 0.98, 0.97]
    assert found["lines"][2]["default"]["cells"][0]["skipped"] is True
    assert found["lines"][0]["tuned"] is None
    assert found["columns"][0]["hardware"] == ["Laptop (8 cores, 4 threads)"]
    (ranking,) = found["rankings"]
    assert (ranking["name"], ranking["reference"], ranking["tests"], ranking["pairs"]) == (
        "default",
        "backprop",
        1,
        6,
    )
    assert {label: rank and rank["value"] for label, rank in ranking["ranks"].items()} == {
        "backprop": 1,
        "nmnc": 2,
        "e-prop": None,
    }


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_same_results_give_the_same_bytes_in_whatever_order_they_are_read(form):
    records = [*example(), *runs("x", [0.1 + 0.2, 0.3, 1e-17], task="t")]
    expected = render(build(records, specs=DECLARED), form)
    for seed in range(10):
        random.Random(seed).shuffle(records)
        assert render(build(records, specs=DECLARED), form) == expected


def test_a_number_of_seeds_is_shown_only_where_it_differs():
    text = render(build([*runs("a", [0.9, 0.8]), *runs("b", [0.9, 0.8]), *runs("c", [0.7])]))
    assert re.findall(r"^(\w) .*\(n=(\d)\)", text, re.MULTILINE) == [("c", "1")]
    assert "over 2 seeds" in text
    text = render(build([*runs("a", [0.9, 0.8]), *runs("b", [0.9, 0.8]), *runs("c", [0.7, 0.7, 0.7])]))
    assert re.findall(r"^(\w) .*\(n=(\d)\)", text, re.MULTILINE) == [("c", "3")]


def test_mixed_hardware_is_shown_as_such():
    records = [run("a", seed=0, test=0.9, cost=1), run("a", seed=1, test=0.9, cost=3, hardware=SERVER)]
    text = render(build(records), width=200)
    assert re.search(r"^a .*mixed +90\.0 ± 0\.0$", text, re.MULTILINE)
    assert "Laptop (8 cores, 4 threads); Server (64 cores, 1 thread)" in text


def test_a_terminal_shows_the_best_and_its_ties_in_bold_and_the_same_text():
    found = build(example(), specs=DECLARED)
    colored = render(found, color=True)
    bold = " ".join(re.findall(r"\x1b\[1;32m([^\x1b]+)\x1b", colored)).split()
    assert " ".join(bold) == "98.0 ± 1.0 92.0 ± 0.0 91.0 ± 5.3 56.7 ± 41.6"
    said = "; bold: the best, and all whose paired difference to it has a 95 % interval that contains 0"
    text = " ".join(ANSI.sub("", colored).split())
    assert said in text
    assert text.replace(said, "").split() == render(found).split()


def test_a_rule_of_which_every_run_failed_is_never_the_best():
    records = [run("a", seed=s, status="error", reason="no") for s in range(2)]
    assert "**" not in render(build(records), "md")
    assert "**" in render(build([*records, *runs("b", [0.05, 0.05])]), "md")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_lost(width):
    tasks = ["digits-cnn", "digits-rnn", "flip-flop-rnn", "fashion-cnn"]
    records = list(
        itertools.chain.from_iterable(
            runs(rule, [0.5 + 0.01 * k, 0.9], task=task, cost=1.5)
            for rule in ("backprop", "direct-feedback-alignment")
            for k, task in enumerate(tasks)
        )
    )
    text = render(build(records, specs={"backprop": spec(BACKPROP)}), width=width)
    assert max(map(len, text.splitlines())) <= max(width, 48)  # a name and a difference need 48
    for task in tasks:
        assert text.count(task) == 1
    for k in range(4):
        assert text.count(f"{100 * (0.7 + 0.005 * k):.1f} ±") == 2
    assert "…" not in text


def test_a_terminal_shows_in_place_of_the_signal_whether_hidden_layers_learn():
    hebbian = Plausibility(False, False, False, "none", False, past_storage=False)
    specs = {"hebb": spec(hebbian), "frozen": spec(dataclasses.replace(hebbian, hidden_learning=False))}
    found = build([*runs("hebb", [0.5]), *runs("frozen", [0.4])], specs=specs)
    text = render(found)
    assert "W B L S N P signal" in text
    assert re.search(r"^hebb .* none +50\.0$", text, re.MULTILINE)
    assert re.search(r"^frozen .* fixed +40\.0$", text, re.MULTILINE)
    assert "fixed: hidden layers do not learn" in text.replace("\n", " ")
    assert "| ○ | ○ | none |" in render(found, "md")
    assert "| ○ | ○ | fixed |" in render(found, "md")


def test_the_letters_of_a_terminal_are_explained_in_the_words_that_head_a_document():
    found = build(example(), specs=DECLARED)
    text, (head, *_) = " ".join(render(found).split()), render(found, "md").splitlines()[2:]
    for letter, name in (("W", "weight transport"), ("B", "sequential backward pass"), ("P", "extra phases")):
        assert f"{letter}: {name}" in text
        assert f"| {name} |" in head


def test_the_marks_of_a_row_are_those_of_its_options():
    random = Variant(("mode=random",), {"weight_transport": False, "past_storage": False})
    specs = {"e-prop": spec(Plausibility(True, False, True, "vector", False, past_storage=True), (random,))}

    def marks(*modes):
        records = [
            run("e-prop", f"task-{k}", test=0.5, asked={"rule_options": {"mode": mode} if mode else {}})
            for k, mode in enumerate(modes)
        ]
        return {row.label: row.plausibility["weight_transport"] for row in board(records, specs=specs).rows}

    assert marks("symmetric") == {"e-prop": "yes"}
    assert marks("random") == {"e-prop": "no"}
    assert marks(None) == {"e-prop": "yes"}, "what is not known has its default"
    assert marks("symmetric", "random") == {"e-prop mode=symmetric": "yes", "e-prop mode=random": "no"}


def test_a_row_of_runs_with_different_marks_shows_each():
    from rulezoo.leaderboard.marks import Declared

    random = Variant(("mode=random",), {"weight_transport": False})
    declared = Declared({"e-prop": spec(Plausibility(True, False, True, "vector", False), (random,))})
    chosen = [run("e-prop", asked={"rule_options": {"mode": mode}}) for mode in ("symmetric", "random")]
    found = declared.of([*chosen, *chosen])
    assert (found["weight_transport"], found["backward_pass"]) == ("no/yes", "no")


def test_an_empty_board_says_how_to_fill_it():
    for form in ("table", "md"):
        assert render(build([]), form) == "No runs are stored yet. Run `rulezoo compare` to make some.\n"
    assert render(build([]), "csv").count("\n") == 1
    assert json.loads(render(build([]), "json"))["lines"] == []


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="format must be table, md, latex, csv or json, got 'html'"):
        render(build(example()), "html")


# What a plugin may not do

EVIL = "\x1b]0;owned\x07\x1b[31m[red]no[/red] <script>alert(1)</script> | a\nb\r\u202etxt\u2028 `x` **bold** \x9b2J\x00"


def evil():
    return [
        run("a", seed=0, status="error", reason=EVIL, metric=EVIL),
        run("a", seed=1, test=0.9, cost=1, metric=EVIL, hardware=Hardware(cpu=EVIL, cores=1, threads=1)),
        run("a", seed=2, test=0.9, asked={"rule_options": {"x": EVIL}}, changed=["x"], metric=EVIL),
        run("b", seed=0, status="skipped", reason=EVIL, metric=EVIL, asked={"task_options": {"y": EVIL}}),
    ]


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_words_of_a_plugin_cannot_reach_the_terminal_as_codes(form):
    text = render(build(evil()), form)
    control = [c for c in text if c != "\n" and not c.isprintable()]
    assert control == []
    assert "[red]no[/red]" in text.replace("\\", ""), "markup is shown, not obeyed"


def test_an_option_with_markup_is_shown_as_it_is():
    assert "a x=[red]b[/red]" in render(
        build(runs("a", [0.9], asked={"rule_options": {"x": "[red]b[/red]"}}, changed=["x"]))
    )


def test_words_of_a_plugin_cannot_draw_with_markup_in_color():
    text = render(build(evil()), color=True, width=400)
    assert "[red]no[/red]" in text
    assert "\x1b]" not in text
    assert set(re.findall(r"\x1b\[[^m]*m", text)) <= {f"\x1b[{c}m" for c in ("0", "1", "2", "31", "1;32")}
    assert "\x1b[31m[red]" not in text


def test_words_of_a_plugin_stay_in_their_cell_and_are_no_html_in_markdown():
    text = render(build(evil()), "md")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "\\*\\*bold\\*\\*" in text


def test_words_of_a_plugin_are_no_formula_in_csv():
    text = render(build(runs("a", [0.9], metric='=HYPERLINK("http://x")')), "csv")
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["metric"].startswith("'=")


def test_a_very_long_reason_is_cut():
    text = render(build([run("a", status="error", reason="x" * 10_000)]), "csv")
    assert len(text) < 1500


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_nothing_that_is_not_a_number_is_ever_printed(form):
    bad = [math.nan, math.inf, -math.inf, None]
    records = [*runs("a", bad), *runs("backprop", bad), *runs("b", [0.1], cost=0.0)]
    text = render(build(records), form)
    assert not re.search(r"\b(nan|inf|-inf|NaN|Infinity)\b", text)


# Costs of runs that are too short to time


def timed(steps, cost, seed=0, rule="a"):
    return run(rule, seed=seed, test=0.5, cost=cost, curve=[Point(step=steps, epoch=1)])


def test_a_cost_from_too_few_steps_is_a_dash():
    records = [timed(29, 7.17, 0), timed(29, 0.14, 1)]
    (one,) = board(records).rows[0].cells
    assert one.cost is None
    assert one.short
    text = render(build(records), "md")
    assert "| – |" in text
    assert "7.17" not in text
    assert "cost –: fewer than 30 steps were timed" in text
    assert "7.17" not in render(build(records), "csv")


def test_a_cost_from_enough_steps_is_shown_and_stands_alone():
    (one,) = board([timed(29, 7.17, 0), timed(30, 2.0, 1)]).rows[0].cells
    assert (one.cost, one.short) == (2.0, False)
