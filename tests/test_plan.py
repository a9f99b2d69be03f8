"""What a comparison asks for: which cells, under which identity, and what is refused before anything runs."""

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch

from rulezoo import LearningRule, RuleSpec, TaskSpec, hp
from rulezoo.comparison.plan import choose_device, plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import Found, Registry, discover
from rulezoo.errors import UserError
from rulezoo.options import OptionError, as_text
from rulezoo.results.store import Store
from rulezoo.testing import TinyTask
from rulezoo.tuning import records as tunings


@dataclass(frozen=True)
class First(LearningRule):
    """A rule with options."""

    gain: float = hp(1.0, "size of everything", low=0, high=10)
    sign: bool = hp(False, "only the sign")


@dataclass(frozen=True)
class Other(TinyTask):
    """A second task."""


def spec(kind, name, cls, **more):
    return name, Found(kind(name, f"{__name__}:{cls.__name__}", "For tests.", **more), "tests", "1.5")


@pytest.fixture
def registry(monkeypatch):
    """Rules ``first``, ``second`` and ``third``, tasks ``tiny`` and ``other``; ``third`` is not in the default."""
    classes = {"First": First, "Other": Other, "TinyTask": TinyTask}
    for kind in (RuleSpec, TaskSpec):
        monkeypatch.setattr(kind, "load", lambda self: classes[self.target.partition(":")[2]])
    default = {"tags": ("default",)}
    rules = [
        spec(RuleSpec, "first", First, version=4, **default),
        spec(RuleSpec, "second", First, **default),
        spec(RuleSpec, "third", First),
    ]
    tasks = [
        spec(TaskSpec, "tiny", TinyTask, version=2, **default),
        spec(TaskSpec, "other", Other, **default),
    ]
    return Registry({"rule": dict(rules), "task": dict(tasks)})


def cell(registry, options=None, epochs=None, **more):
    (made,) = planned(registry, ["first"], ["tiny"], options=options or {}, epochs=epochs, **more)
    return made


def planned(registry, rules=(), tasks=(), seeds=(0,), **more):
    return plan(registry, Request(rules=rules, tasks=tasks, seeds=seeds, **{"device": "cpu", **more}))


def key(*args, **more):
    return cell(*args, **more).asked[0].key


def test_every_rule_on_every_task_and_without_names_those_of_the_standard_comparison(registry):
    made = planned(registry, seeds=[0, 1])
    names = [(one.task_name, one.rule_name) for one in made]
    assert names == list(itertools.product(["tiny", "other"], ["first", "second"]))
    assert [[asked.seed for asked in one.asked] for one in made] == [[0, 1]] * 4
    assert len({asked.key for one in made for asked in one.asked}) == 8
    some = planned(registry, ["third", "first", "third"], ["other"])
    assert [one.rule_name for one in some] == ["third", "first"]


def test_the_identity_says_everything_that_was_asked(registry):
    made = cell(registry, {"first": {"gain": "2", "lr": "0.5"}, "tiny": {"kind": "rnn"}}, epochs=7)
    (asked,) = made.asked
    assert (asked.rule, asked.rule_version, asked.task, asked.task_version) == ("first", 4, "tiny", 2)
    assert asked.rule_options == {"lr": 0.5, "weight_decay": None, "gain": 2.0, "sign": False}
    assert asked.task_options == {"kind": "rnn"}
    assert asked.budget == {
        "epochs": 7,
        "batch": 16,
        "lr": 0.5,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": "constant",
    }
    assert (asked.seed, asked.device) == (0, "cpu")
    assert made.changed == ["lr", "gain"]
    assert (made.rule_plugin.distribution, made.rule_plugin.version) == ("tests", "1.5")
    assert (made.rule.gain, made.task.kind, made.budget.lr) == (2, "rnn", 0.5)


def test_a_former_name_is_planned_under_the_name_of_today(registry):
    name, found = spec(RuleSpec, "first", First, former_names=("once",))
    renamed = Registry({**registry.found, "rule": {**registry.rules, name: found}})

    cells = planned(
        renamed, ["once", "first"], ["tiny"], options={"once": {"gain": "2"}, "first": {"sign": "true"}}
    )

    assert [(one.rule_name, one.asked[0].rule) for one in cells] == [("first", "first")]
    wanted = planned(renamed, ["first"], ["tiny"], options={"first": {"gain": "2", "sign": "true"}})
    assert cells == wanted


def test_the_order_and_the_spelling_of_options_do_not_matter(registry):
    words = {"gain": "2.50", "sign": "true", "lr": "1e-2"}
    keys = {
        key(registry, {"first": dict(order), "tiny": {}}) for order in itertools.permutations(words.items())
    }
    keys.add(key(registry, {"tiny": {}, "first": {"lr": "0.01", "sign": "True", "gain": "2.5"}}))
    assert len(keys) == 1


def test_a_default_that_is_written_out_is_the_default(registry):
    assert key(registry, {"first": {"gain": "1", "sign": "false"}, "tiny": {"kind": "mlp"}}) == key(registry)
    assert cell(registry, {"first": {"gain": "1"}}).changed == []
    assert key(registry, epochs=2) == key(registry)  # the task's own number of epochs


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"first": {"gain": "2"}}, None),
        ({"first": {"lr": "0.5"}}, None),
        ({"first": {"weight_decay": "0.5"}}, None),
        ({"tiny": {"kind": "rnn"}}, None),
        ({}, 3),
    ],
)
def test_whatever_changes_the_result_changes_the_identity(registry, options, epochs):
    assert key(registry, options, epochs) != key(registry)


USED = {
    "epochs": 2,
    "batch": 16,
    "lr": 0.01,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "constant",
}


@pytest.mark.parametrize(
    ("words", "identity"),
    [
        ({"optimizer": "SGD"}, {"optimizer": "SGD"}),
        ({"optimizer": "SGD", "optimizer.momentum": "0.9", "optimizer.nesterov": "true"},
         {"optimizer": "SGD", "optimizer.momentum": 0.9, "optimizer.nesterov": True}),
        ({"optimizer.betas": "0.9,0.95"}, {"optimizer.betas": "0.9,0.95"}),
        ({"schedule": "MultiStepLR", "schedule.milestones": "80, 120", "schedule_per": "epoch"},
         {"schedule": "MultiStepLR", "schedule.milestones": "80,120", "schedule_per": "epoch"}),
        ({"schedule": "MultiStepLR", "schedule.milestones": "80"},
         {"schedule": "MultiStepLR", "schedule.milestones": "80"}),
        ({"batch": "32", "clip_norm": "1", "evaluation_batch": "64", "warmup_steps": "5"},
         {"batch": 32, "clip_norm": 1, "evaluation_batch": 64, "warmup_steps": 5}),
        ({"lr": "0.1"}, {"lr": 0.1, "base_lr": 0.1}),
        ({"weight_decay": "0.1"}, {"weight_decay": 0.1, "base_weight_decay": 0.1}),
        ({"lr": "0.01", "clip_norm": "none", "evaluation_batch": "1024", "warmup_epochs": "0"}, {}),
    ],
)  # fmt: skip
def test_what_is_set_of_the_budget_is_part_of_the_identity_unless_it_is_the_tasks_own(
    registry, words, identity
):
    made = cell(registry, budget=words)
    assert made.asked[0].budget == USED | identity
    assert (made.asked[0].key == key(registry)) == (not identity)
    assert made.request.budget == words


def test_a_learning_rate_for_all_rules_yields_to_that_of_a_rule(registry):
    made = cell(registry, {"first": {"lr": "0.5"}}, budget={"lr": "0.1"})
    assert made.budget.lr == 0.5
    assert made.asked[0].budget == USED | {"lr": 0.5, "base_lr": 0.1}  # or its column would be another one


def test_another_optimiser_drops_the_options_of_the_tasks_own(registry, monkeypatch):
    own = replace(
        TinyTask.budget, optimizer="SGD", optimizer_options={"momentum": 0.9}, clip_norm=1.0,
        schedule="StepLR", schedule_options={"step_size": 2},
    )  # fmt: skip
    monkeypatch.setattr(TinyTask, "budget", own)
    stepped = {"schedule": "StepLR", "schedule.step_size": 2}
    mine = USED | stepped | {"optimizer": "SGD", "optimizer.momentum": 0.9, "clip_norm": 1.0}
    assert cell(registry).asked[0].budget == mine
    other = cell(registry, budget={"optimizer": "RMSprop", "schedule": "constant", "clip_norm": "none"})
    assert other.asked[0].budget == USED | {"optimizer": "RMSprop", "clip_norm": None}
    more = cell(registry, budget={"optimizer": "SGD", "optimizer.nesterov": "true"})
    assert more.asked[0].budget == mine | {"optimizer.nesterov": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"optimiser": "SGD"}, r"^-b optimiser: a budget has no 'optimiser'; did you mean 'optimizer'\?$"),
        ({"colour": "red"}, r"^-b colour: a budget has no 'colour'; there are batch, lr, optimizer, .*, and options such as"),
        ({"epochs": "3"}, r"^-b epochs: use --epochs$"),
        ({"optimizer.": "3"}, r"^-b optimizer\.: a budget has no 'optimizer\.'; did you mean 'optimizer'\?$"),
        ({"optimizer": "LBFGS"}, r"^first on tiny: budget.optimizer: LBFGS cannot be used, because"),
        ({"optimizer.momentum": "0.9"}, r"^first on tiny: budget.optimizer_options: AdamW has no option 'momentum'"),
        ({"optimizer": "SGD", "optimizer.momentum": "high"}, r"^first on tiny: .*: momentum of SGD must be a number, got 'high'$"),
        ({"lr": "-1"}, r"^first on tiny: budget.lr must be a number above 0, got -1$"),
        ({"lr": "0"}, r"^first on tiny: budget.lr must be a number above 0, got 0$"),
        ({"lr": "fast"}, r"^first on tiny: budget.lr must be a number above 0, got 'fast'$"),
        ({"batch": "1.5"}, r"^first on tiny: budget.batch must be a whole number, 1 or more, got 1.5$"),
        ({"clip_norm": "0"}, r"^first on tiny: budget.clip_norm must be a number above 0, or none, got 0$"),
        ({"warmup_epochs": "2"}, r"^first on tiny: budget.warmup_epochs must be below the number of epochs, 2, got 2"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_is_refused_in_the_plan(registry, words, said):
    with pytest.raises(UserError, match=said):
        cell(registry, budget=words)


def test_fewer_epochs_than_a_warm_up_takes_are_refused_in_the_plan(registry, monkeypatch):
    monkeypatch.setattr(TinyTask, "budget", replace(TinyTask.budget, epochs=10, warmup_epochs=3))
    assert cell(registry).budget.warmup_epochs == 3
    with pytest.raises(UserError, match=r"budget.warmup_epochs must be below the number of epochs, 3, got 3"):
        cell(registry, epochs=3)


LEADERBOARD = Path(__file__).resolve().parent.parent / "leaderboard"


@pytest.mark.parametrize("name", ["tuned", "digits"])
def test_stored_runs_keep_their_identity(name):
    """Whatever was added to budgets since: what a record says of its budget is what a plan says of it now."""
    store = Store(LEADERBOARD / name)
    records = [*store.read().records, *tunings.trials_of(store).read().records]
    assert len(records) > 30
    known, made_once = discover(), {}
    for record in records:
        asked = record.asked
        options = {
            asked.rule: {n: as_text(v) for n, v in asked.rule_options.items() if n in ("lr", "weight_decay")},
            asked.task: {n: as_text(v) for n, v in asked.task_options.items()},
        }
        what = repr((options, asked.budget["epochs"]))
        if what not in made_once:
            (made,) = planned(
                known, [asked.rule], [asked.task], options=options, epochs=asked.budget["epochs"]
            )
            made_once[what] = made.asked[0].budget
        assert msgspec.structs.replace(asked, budget=made_once[what]).key == asked.key
        assert made_once[what] == asked.budget


def test_seed_and_device_are_part_of_the_identity(registry):
    keys = {
        planned(registry, ["first"], ["tiny"], [seed], device=device)[0].asked[0].key
        for seed in (0, 1)
        for device in ("cpu", "cuda")
    }
    assert len(keys) == 4


def test_the_rules_learning_rate_and_decay_go_before_the_tasks(registry):
    budget = cell(registry, {"first": {"lr": "0.5", "weight_decay": "0.25"}}).budget
    assert (budget.lr, budget.weight_decay) == (0.5, 0.25)
    plain = cell(registry).budget
    assert plain == TinyTask.budget
    assert cell(registry, {"first": {"lr": "0"}}).budget.lr == 0  # zero is a value, not the lack of one


@pytest.mark.parametrize(
    ("rules", "tasks", "options", "said"),
    [
        (["frist"], [], {}, r"^unknown rule 'frist'; did you mean 'first'\? \(rulezoo list rules\)$"),
        ([], ["tinny"], {}, r"^unknown task 'tinny'; did you mean 'tiny'\? \(rulezoo list tasks\)$"),
        ([], [], {"first": {"gian": "1"}}, r"^first has no option 'gian'; did you mean 'gain'\?$"),
        ([], [], {"tiny": {"width": "1"}}, r"^tiny has no option 'width'; it has kind$"),
        (
            [],
            [],
            {"first": {"gain": "11"}},
            r"^first\.gain must be a number in \[0, 10\], got '11' \(size of everything\)$",
        ),
        (
            [],
            [],
            {"first": {"gain": "much"}},
            r"^first\.gain must be a number in \[0, 10\], got 'much' \(size",
        ),
        (
            [],
            ["tiny"],
            {"third": {"gain": "2"}},
            r"^-o third\.…: 'third' is not compared here; the rules are first, second and the tasks tiny$",
        ),
    ],
)
def test_a_mistake_is_named(registry, rules, tasks, options, said):
    with pytest.raises(UserError, match=said):
        planned(registry, rules, tasks, options=options)


def test_a_mistake_in_an_option_is_an_option_error(registry):
    with pytest.raises(OptionError):
        cell(registry, {"first": {"gain": "-1"}})


def test_nothing_to_compare_is_said(registry):
    with pytest.raises(UserError, match="nothing to compare: no rule is in the standard comparison"):
        planned(Registry({"task": registry.tasks}))
    with pytest.raises(UserError, match="nothing to compare: no task is in the standard comparison"):
        planned(Registry({"rule": registry.rules}), ["first"])


@pytest.mark.parametrize(
    ("cuda", "mps", "auto", "there"),
    [
        (False, False, "cpu", ["cpu"]),
        (True, False, "cuda", ["cpu", "cuda"]),
        (False, True, "cpu", ["cpu", "mps"]),
    ],
)
def test_the_device_is_the_gpu_when_there_is_one(monkeypatch, cuda, mps, auto, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == auto
    for name in ("cpu", "cuda", "mps"):
        if name in there:
            assert choose_device(name) == name
        else:
            with pytest.raises(
                UserError, match=f"--device {name}: torch finds no such device .* has {', '.join(there)}$"
            ):
                choose_device(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": replace(TinyTask.budget, schedule="warmup-cosine")},
         "task 'other': budget.schedule must be 'constant', 'cosine' or a schedule of torch.optim.lr_scheduler (ConstantLR,"),
        ({"budget": None}, "task 'other': budget must be a rulezoo.Budget, got None"),
        ({"chance": float("nan")}, "task 'other': chance must be a finite number, the score of guessing, got nan"),
        ({"targets": "label"}, "task 'other': targets must be 'labels', 'numbers' or None (not declared), got 'label'"),
        ({"targets": "labels", "classes": 1}, "task 'other': classes must be a whole number, 2 or more, where targets"),
        ({"chance": "a tenth"}, "task 'other': chance must be a finite number"),
        ({"metric": 3}, "task 'other': metric must be a text"),
    ],
)  # fmt: skip
def test_what_a_task_declares_is_checked(registry, monkeypatch, changes, said):
    for name, value in changes.items():
        monkeypatch.setattr(Other, name, value)
    with pytest.raises(UserError, match=re.escape(said)):
        planned(registry, ["first"], ["other"])
