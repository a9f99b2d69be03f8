import collections
import dataclasses
import re
from pathlib import Path

import pytest

from rulezoo.discovery.registry import discover
from rulezoo.leaderboard.references import PUBLISHED, of_rule, verdict
from rulezoo.leaderboard.small_networks import SMALL
from rulezoo.options import as_text

LENET = next(one for one in PUBLISHED if (one.rule, one.network) == ("feedback-alignment", "LeNet, SGD"))
SAME = dataclasses.replace(LENET, same=True)


@pytest.fixture
def ours(runs):
    return lambda *tests, **changes: runs("feedback-alignment", tests, task="cifar10-lenet", **changes)


def test_numbers_are_of_rules_and_tasks_that_exist_with_a_citation():
    zoo = discover()
    for one in PUBLISHED:
        assert one.rule in zoo.rules
        assert one.task in zoo.tasks or not one.task
        assert 0 < one.score < 1
        assert re.fullmatch(r"https://\S+", one.source.link)


def test_errors_are_told_as_accuracies():
    found = {one.network: one.score for one in of_rule("direct-feedback-alignment")}
    assert found["LeNet, SGD"] == pytest.approx(1 - 0.5421)
    assert found["ResNet-20, Adam"] == pytest.approx(1 - 0.3216)
    assert not of_rule("nmnc")


def test_another_network_is_not_a_reproduction_however_near_its_score(ours):
    found = verdict(LENET, ours(LENET.score, LENET.score, LENET.score))
    assert (found.state, found.ours) == ("not run", pytest.approx(LENET.score))
    assert "another network" in found.why


@pytest.mark.parametrize(
    ("off", "state"), [(0.009, "reproduced"), (-0.009, "reproduced"), (0.011, "not reproduced")]
)
def test_with_the_same_network_the_mean_of_three_seeds_decides(ours, off, state):
    tests = [LENET.score + off + d for d in (-0.1, 0, 0.1)]
    assert verdict(SAME, ours(*tests)).state == state
    assert verdict(SAME, ours(*tests[:2])).state == "not run"


def test_changed_options_other_rules_and_failed_runs_do_not_count(ours, run, runs):
    records = [
        *ours(0.9, 0.9, 0.9, changed=["lr"]),
        *runs("usf", [0.9] * 3, task="cifar10-lenet"),
        run("feedback-alignment", "cifar10-lenet", 7, status="diverged"),
    ]
    assert verdict(SAME, records) == ("not run", "we have 0 of the 3 runs it takes", None)


def test_runs_of_another_budget_or_task_option_do_not_count(runs):
    """Adam on LeNet has a task with the same training; the learning rate of the published run is an option of the rule."""
    one = next(p for p in PUBLISHED if (p.rule, p.network) == ("feedback-alignment", "LeNet, Adam"))
    assert (one.task, one.same, one.budget["lr"]) == ("cifar10-lenet", True, 1e-4)

    def found(**changes):
        asked = {"budget": dict(one.budget), "task_options": dict(one.task_options), **changes}
        records = runs("feedback-alignment", [one.score] * 3, task="cifar10-lenet", asked=asked)
        return verdict(one, records).state

    assert found() == "reproduced"
    for name, value in (("epochs", 25), ("lr", 1e-3), ("schedule.milestones", "10,15,20")):
        assert found(budget={**one.budget, name: value}) == "not run"
    assert found(task_options={**one.task_options, "width": 0.5}) == "not run"


def test_the_task_that_can_reproduce_a_number_is_trained_as_it_was():
    task = discover().make_task("cifar10-lenet", {})
    one = next(p for p in PUBLISHED if (p.rule, p.network) == ("backprop", "LeNet, Adam"))
    assert one.budget.items() <= task.budget.resolved().items()
    assert one.task_options == task.resolved()


@pytest.mark.parametrize("name", ["mnist-sigmoid-mlp", "cifar10-sigmoid-mlp"])
def test_the_sigmoid_networks_are_trained_as_in_the_weight_mirrors_public_code(name):
    task = discover().make_task(name, {})
    found = {one.rule: one for one in PUBLISHED if one.task == name and one.budget["epochs"] == 400}
    assert found.keys() == {"backprop", "feedback-alignment", "weight-mirror", "kolen-pollack"}
    for one in found.values():
        assert one.same
        assert {**one.budget, "lr": 0.2}.items() == task.budget.resolved().items()
        assert one.task_options == task.resolved()
    assert {rule: one.budget["lr"] for rule, one in found.items() if one.budget["lr"] != task.budget.lr} == {
        "weight-mirror": 0.05, "kolen-pollack": 0.3,
    }  # fmt: skip


SMALL_TASKS = sorted({one.task for one in SMALL})


def test_small_networks_have_numbers_of_each_of_these_tasks():
    counts = collections.Counter(one.task for one in SMALL)
    assert counts == {
        "mnist-relu-mlp": 4, "fashion-tanh-mlp": 4, "mnist-tanh-mlp": 2, "cifar10-tanh-mlp": 2, "mnist-squared-mlp": 1,
        "mnist-deep-mlp": 1, "cifar10-relu-mlp": 1, "mnist-sigmoid-mlp": 4,
    }  # fmt: skip
    assert all(one in PUBLISHED and one.same for one in SMALL)


@pytest.mark.parametrize("name", SMALL_TASKS)
def test_the_tasks_of_small_networks_are_trained_as_published(name):
    """Length and learning rate may differ between the numbers of one task; everything else is the task's."""
    task = discover().make_task(name, {})
    budget = {k: v for k, v in task.budget.resolved().items() if k not in {"lr", "epochs"}}
    for one in (p for p in SMALL if p.task == name):
        assert {k: v for k, v in one.budget.items() if k not in {"lr", "epochs"}}.items() <= budget.items()
        assert one.task_options == task.resolved()
        assert one.budget["epochs"] <= task.budget.epochs


@pytest.mark.parametrize("one", SMALL, ids=lambda one: f"{one.rule}-{one.network}")
def test_rules_have_the_options_of_the_published_runs(one):
    rule = discover().make_rule(one.rule, {name: as_text(value) for name, value in one.options.items()})
    assert dict(one.options).items() <= rule.resolved().items()


def test_numbers_that_differ_in_options_are_told_apart(runs):
    """Two numbers of one rule on one task: runs count for the one whose options they have."""
    activity, both = (
        next(p for p in SMALL if p.task == "mnist-relu-mlp" and p.options.get("condition") == c)
        for c in ("activity", "both")
    )
    asked = {
        "rule_options": dict(activity.options), "budget": dict(activity.budget),
        "task_options": dict(activity.task_options),
    }  # fmt: skip
    records = runs(
        "ndfa", [0.9581] * 5, task=activity.task, asked=asked, changed=["condition", "activity_damping"]
    )
    assert verdict(activity, records).state == "reproduced"
    assert verdict(both, records) == ("not run", "we have 0 of the 5 runs of 1 epoch it takes", None)
    asked["rule_options"]["scale"] = 2.0
    other = runs("ndfa", [0.9581] * 5, task=activity.task, asked=asked, changed=["condition", "scale"])
    assert verdict(activity, other).state == "not run"


def test_a_number_says_how_many_runs_it_takes_and_how_far_they_may_be(ours):
    one = dataclasses.replace(SAME, runs=1, spread=0.03)
    found = verdict(one, ours(SAME.score + 0.029))
    assert found.state == "reproduced"
    assert found.why == "2.9 points away, one seed; at most 3 were asked for"
    assert verdict(one, ours(SAME.score + 0.031)).state == "not reproduced"
    assert verdict(one, ours()).state == "not run"
    narrow = dataclasses.replace(SAME, runs=2, spread=0.001)
    assert verdict(narrow, ours(*[SAME.score + 0.009] * 2)).state == "reproduced"
    assert verdict(narrow, ours(SAME.score)).state == "not run"


def test_a_study_repeats_each_number_of_a_small_network_once():
    page = Path(__file__).parents[2] / "leaderboard" / "published" / "README.md"
    lines = [line.split(" | ") for line in page.read_text("utf-8").splitlines() if "](studies/" in line]
    found = collections.Counter((line[1], line[2].strip("`")) for line in lines)
    assert found == {(one.network, one.rule): 1 for one in SMALL}
