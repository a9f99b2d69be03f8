"""Budgets of torch's schedules: the learning rate of every step is torch's, whoever asks for it and in what order."""

import math
import random
import re
import warnings
from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

from rulezoo.comparison.contract import budget_problem
from rulezoo.task import Budget
from rulezoo.training import schedules
from rulezoo.training.schedules import Schedule
from rulezoo.training.torch_classes import subclasses

BUDGET = Budget(epochs=6, batch=16, lr=0.1, optimizer="SGD", optimizer_options={"momentum": 0.9})
PER_EPOCH = 5
STEPS = 30
ALL = sorted(subclasses(lr_scheduler, lr_scheduler.LRScheduler))
OPTIONS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"start_factor": 0.25, "total_iters": 4},
    "MultiStepLR": {"milestones": [2, 4], "gamma": 0.5},
    "OneCycleLR": {"pct_start": 0.4},
    "PolynomialLR": {"total_iters": 4, "power": 2.0},
    "StepLR": {"step_size": 2},
}


def by_torch(name, options, units, lr=0.1):
    """Learning rate and momentum of each unit, by torch's schedule on an optimiser that is stepped."""
    p = torch.zeros(1)
    optimizer = torch.optim.SGD([p], lr=lr, momentum=0.9)
    length = {"CosineAnnealingLR": {"T_max": units}, "OneCycleLR": {"total_steps": units}}.get(name, {})
    peak = {"max_lr": lr} if name in ("OneCycleLR", "CyclicLR") else {}
    scheduler = getattr(lr_scheduler, name)(optimizer, **length, **peak, **options)
    found = []
    for _ in range(units):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return found


def of(schedule, steps=STEPS):
    return [(one["lr"], one["momentum"]) for one in map(schedule.at, range(steps))]


def with_schedule(name, **more):
    return replace(BUDGET, schedule=name, schedule_options=OPTIONS.get(name, {}), **more)


def test_every_schedule_of_torch_can_be_used_or_is_refused():
    assert sorted([*OPTIONS, *schedules.REFUSED]) == ALL
    assert schedules.names() == sorted(OPTIONS)
    for name in schedules.REFUSED:
        assert re.fullmatch(
            f"budget.schedule: {name} cannot be used, because .*; use one of constant, cosine, ConstantLR, .*",
            budget_problem(replace(BUDGET, schedule=name)),
        )


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_learning_rate_of_every_step_is_torchs_bit_for_bit(name):
    budget = with_schedule(name)
    assert budget_problem(budget) is None
    assert schedules.problem(budget, PER_EPOCH) is None
    assert of(Schedule(budget, STEPS)) == by_torch(name, OPTIONS[name], STEPS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_per_epoch_it_is_the_same_within_an_epoch(name):
    budget = with_schedule(name, schedule_per="epoch")
    assert budget_problem(budget) is None
    expected = [one for one in by_torch(name, OPTIONS[name], BUDGET.epochs) for _ in range(PER_EPOCH)]
    assert of(Schedule(budget, STEPS)) == expected


@pytest.mark.parametrize("per", ["step", "epoch"])
@pytest.mark.parametrize("warm", [{"warmup_steps": 7}, {"warmup_epochs": 2}], ids=str)
@pytest.mark.parametrize("name", ["constant", "cosine", *sorted(OPTIONS)])
def test_a_warm_up_rises_to_where_the_schedule_starts_behind_it(name, warm, per):
    budget = with_schedule(name, schedule_per=per, **warm)
    length = warm.get("warmup_steps") or warm["warmup_epochs"] * PER_EPOCH
    found = of(Schedule(budget, STEPS))
    alone = with_schedule(name, schedule_per="step")
    units = STEPS - length if per == "step" else -(-(STEPS - length) // PER_EPOCH)
    behind = of(Schedule(alone, units), units)
    expected = [one for one in behind for _ in range(1 if per == "step" else PER_EPOCH)]
    assert found[length:] == expected[: STEPS - length]
    rates = [lr for lr, _ in found[: length + 1]]
    assert rates == pytest.approx([rates[-1] * (t + 1) / (length + 1) for t in range(length + 1)], rel=1e-12)
    assert {momentum for _, momentum in found[:length]} == {found[length][1]}


@pytest.mark.parametrize("name", ["constant", "cosine", *sorted(OPTIONS)])
def test_it_is_a_function_of_the_step_alone(name):
    """So a training that is resumed anywhere has the rates of one that never stopped."""
    budget = with_schedule(name, warmup_steps=3)
    in_order = of(Schedule(budget, STEPS))
    steps = list(range(STEPS)) * 2
    random.Random(0).shuffle(steps)
    schedule = Schedule(budget, STEPS)
    assert [(schedule.at(t)["lr"], schedule.at(t)["momentum"]) for t in steps] == [in_order[t] for t in steps]


def test_the_short_cosine_is_the_formula_bit_for_bit_and_torchs_up_to_rounding():
    """Stored results are of the closed form; the recursion of CosineAnnealingLR ends in other last bits."""
    steps = 1000
    budget = replace(BUDGET, lr=0.0123, schedule="cosine")
    found = [schedule.at(t)["lr"] for schedule in [Schedule(budget, steps)] for t in range(steps)]
    assert found == [budget.lr * ((1 + math.cos(math.pi * t / steps)) / 2) for t in range(steps)]
    recursion = [lr for lr, _ in by_torch("CosineAnnealingLR", {}, steps, budget.lr)]
    assert found != recursion
    assert found == pytest.approx(recursion, rel=1e-9, abs=1e-15)
    constant = Schedule(replace(budget, schedule="constant"), steps)
    assert {constant.at(t)["lr"] for t in range(steps)} == {budget.lr}


def test_momentum_goes_with_a_cycle_also_where_it_is_a_beta():
    budget = replace(with_schedule("OneCycleLR"), optimizer="AdamW", optimizer_options={"betas": [0.9, 0.95]})
    found = [Schedule(budget, STEPS).at(t) for t in (0, 12, 29)]
    assert [one["betas"][0] for one in found] == pytest.approx([0.95, 0.85, 0.95], abs=0.01)
    assert {one["betas"][1] for one in found} == {0.95}


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in OPTIONS:
            of(Schedule(with_schedule(name, warmup_steps=2), STEPS))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schedule": "warmup-cosine"}, r"budget.schedule must be 'constant', 'cosine' or a schedule of torch.optim.lr_scheduler \(ConstantLR, .*, StepLR\), got 'warmup-cosine'"),
        ({"schedule": "multisteplr"}, r"budget.schedule must be .*, got 'multisteplr'; did you mean 'MultiStepLR'\?"),
        ({"schedule": ["StepLR"]}, r"budget.schedule must be .*, got \['StepLR'\]"),
        ({"schedule": "MultiStepLR"}, "budget.schedule_options: MultiStepLR needs milestones"),
        ({"schedule": "MultiStepLR", "schedule_options": {"milestones": 30}}, r"budget.schedule_options: milestones of MultiStepLR must be a sequence \(a whole number each\), got 30"),
        ({"schedule": "MultiStepLR", "schedule_options": {"milestones": ["a"]}}, r"budget.schedule_options: milestones of MultiStepLR must be a sequence .*, got \['a'\]"),
        ({"schedule": "StepLR", "schedule_options": {"stepsize": 3}}, r"budget.schedule_options: StepLR has no option 'stepsize'; did you mean 'step_size'\?"),
        ({"schedule": "StepLR", "schedule_options": {3: 4}}, "budget.schedule_options: StepLR has no option 3; it has step_size, gamma"),
        ({"schedule": "StepLR", "schedule_options": None}, "budget.schedule_options must be a dictionary of options of StepLR, got None"),
        ({"schedule": "StepLR", "schedule_options": {"step_size": 2, "last_epoch": 3}}, "budget.schedule_options: last_epoch cannot be given here; .*"),
        ({"schedule": "OneCycleLR", "schedule_options": {"max_lr": 1}}, "budget.schedule_options: max_lr cannot be given here; the budget's lr is the largest learning rate"),
        ({"schedule": "OneCycleLR", "schedule_options": {"pct_start": 2}}, r"budget.schedule_options: torch refuses OneCycleLR\(pct_start=2\): .*"),
        ({"schedule": "OneCycleLR", "schedule_options": {"total_steps": 5}, "schedule_per": "epoch"}, r"budget.schedule_options: OneCycleLR\(total_steps=5\) ends after 5 of 6 training epochs; leave the length out, .*"),
        ({"schedule": "OneCycleLR", "optimizer": "Adagrad", "optimizer_options": {}}, r"budget.schedule_options: torch refuses OneCycleLR\(\): optimizer must support momentum .*"),
        ({"schedule": "CosineAnnealingLR", "schedule_options": {"T_max": 2.5}}, "budget.schedule_options: T_max of CosineAnnealingLR must be a whole number, got 2.5"),
        ({"schedule": "CosineAnnealingLR", "schedule_options": {"T_max": 0}}, r"budget.schedule_options: torch refuses CosineAnnealingLR\(T_max=0\): .*"),
        ({"schedule": "ExponentialLR", "schedule_options": {"gamma": -1.0}, "schedule_per": "epoch"}, r"budget.schedule: the learning rate must be a finite number, 0 or more, at every step; ExponentialLR\(gamma=-1.0\) gives -0.1 at step 3"),
        ({"schedule": "MultiStepLR", "schedule_options": {"milestones": [3, -1]}}, "budget.schedule_options: milestones of MultiStepLR must be 0 or more, got -1; it counts steps"),
        ({"schedule": "StepLR", "schedule_options": {"step_size": -2}, "schedule_per": "epoch"}, "budget.schedule_options: step_size of StepLR must be 0 or more, got -2; it counts epochs"),
        ({"schedule": "LinearLR", "schedule_options": {"total_iters": -5}}, "budget.schedule_options: total_iters of LinearLR must be 0 or more, got -5; it counts steps"),
        ({"schedule": "CosineAnnealingLR", "schedule_options": {"T_max": -4}}, "budget.schedule_options: T_max of CosineAnnealingLR must be 0 or more, got -4; it counts steps"),
        ({"schedule": "PolynomialLR", "schedule_options": {"total_iters": -4}}, "budget.schedule_options: total_iters of PolynomialLR must be 0 or more, got -4; it counts steps"),
        ({"schedule": "cosine", "schedule_options": {"T_max": 3}}, "budget.schedule_options must be empty with 'cosine', got {'T_max': 3}"),
        ({"schedule_per": "batch"}, "budget.schedule_per must be 'step' or 'epoch', got 'batch'"),
        ({"warmup_steps": -1}, "budget.warmup_steps must be a whole number, 0 or more, got -1"),
        ({"warmup_epochs": 0.5}, "budget.warmup_epochs must be a whole number, 0 or more, got 0.5"),
        ({"warmup_steps": 2, "warmup_epochs": 1}, "budget.warmup_steps and budget.warmup_epochs cannot both be given, got 2 and 1; leave one of them at 0"),
        ({"warmup_epochs": 6}, "budget.warmup_epochs must be below the number of epochs, 6, got 6; train for more epochs or warm up for fewer"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_before_the_number_of_steps_is_known(changes, sentence):
    found = budget_problem(replace(BUDGET, **changes))
    assert found is not None
    assert re.fullmatch(sentence, found), found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"warmup_steps": 30}, "budget.warmup_steps must be below the number of training steps, 30, got 30; .*"),
        ({"schedule": "OneCycleLR", "schedule_options": {"total_steps": 29}}, r"budget.schedule_options: OneCycleLR\(total_steps=29\) ends after 29 of 30 training steps; .*"),
        ({"schedule": "OneCycleLR", "schedule_options": {"epochs": 5, "steps_per_epoch": 5}, "warmup_steps": 3}, r".* ends after 25 of 27 training steps after warm-up; .*"),
        ({"schedule": "ExponentialLR", "schedule_options": {"gamma": 1e100}}, "budget.schedule: .* gives inf at step 4"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_number_of_steps_is_one_sentence(changes, sentence):
    budget = replace(BUDGET, **changes)
    assert budget_problem(budget) is None
    found = schedules.problem(budget, PER_EPOCH)
    assert found is not None
    assert re.fullmatch(sentence, found), found
    longer = replace(budget, schedule="constant", schedule_options={}, epochs=7)
    assert schedules.problem(longer, PER_EPOCH) is None
