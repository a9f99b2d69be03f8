"""The learning rate of every step, from torch's schedules: a function of the number of the step and nothing else.

torch's schedules move from step to step, some by a recursion. Here one acts on a placeholder of the budget's
optimiser, as far as the step that is asked for, from the beginning where that lies behind it. So a run that is
resumed has the learning rates of one that never stopped, and nothing of a schedule has to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from rulezoo.task import SHORT_SCHEDULES, Budget
from rulezoo.training import optimizers
from rulezoo.training.torch_classes import call, near, options_problem, subclasses, whole_options

REFUSED = {
    "ChainedScheduler": "it is made of other schedules",
    "LambdaLR": "its options are functions, which cannot be stored with a result",
    "MultiplicativeLR": "its options are functions, which cannot be stored with a result",
    "ReduceLROnPlateau": "it follows the scores of a run, so that rules would be trained with different learning rates",
    "SequentialLR": "it is made of other schedules; warmup_steps or warmup_epochs put a warm-up in front of one",
}  #: name → why it cannot be used
_PEAK = "the budget's lr is the largest learning rate"
_EXCLUDED = {
    "last_epoch": "a run starts at the beginning",
    "max_lr": _PEAK,
    "scale_fn": "functions cannot be stored with a result",
}
_PEAKED = ("CyclicLR", "OneCycleLR")
_MOVED = ("lr", "momentum", "betas")  # what schedules change in an optimiser
_TRIED = 3  # changes of a schedule that are tried where the number of steps is not known yet


def names() -> list[str]:
    """The schedules of torch that a budget may name."""
    return [name for name in subclasses(lr_scheduler, lr_scheduler.LRScheduler) if name not in REFUSED]


def class_of(name: str) -> type | None:
    """The class that a budget's name of a schedule stands for, if there is one."""
    return subclasses(lr_scheduler, lr_scheduler.LRScheduler).get(name)


def problem(budget: Budget, per_epoch: int | None = None) -> str | None:
    """Why the budget's schedule and warm-up cannot be used, if they cannot; its optimiser has no problem.

    Args:
        budget: with any schedule.
        per_epoch: training steps in an epoch; ``None`` = not known yet, and what depends on it is not checked.
    """
    if wrong := _declared(budget):
        return wrong
    steps = budget.epochs * (per_epoch or budget.warmup_steps + _TRIED)
    if budget.warmup_steps >= steps:
        return (
            f"budget.warmup_steps must be below the number of training steps, {steps}, got {budget.warmup_steps}; train "
            "for more epochs or warm up for fewer steps"
        )
    try:
        schedule = Schedule(budget, steps)
        known = bool(per_epoch) or budget.schedule_per == "epoch"
        if known and (wrong := schedule.shortage()):
            return wrong
        if budget.schedule not in SHORT_SCHEDULES:
            return _rate_problem(schedule, steps if known else schedule.warmup + _TRIED)
    except Exception as error:  # noqa: BLE001  torch raises errors of any kind
        options = call(_class(budget), budget.schedule_options)
        length = f" in a run of {steps} steps" if per_epoch else ""
        return f"budget.schedule_options: torch refuses {options}{length}: {error}"
    return None


def _declared(budget: Budget) -> str | None:
    name = budget.schedule
    known = [*SHORT_SCHEDULES, *names()]
    if isinstance(name, str) and name in REFUSED:
        return (
            f"budget.schedule: {name} cannot be used, because {REFUSED[name]}; use one of {', '.join(known)}"
        )
    if name not in known:
        return (
            f"budget.schedule must be 'constant', 'cosine' or a schedule of torch.optim.lr_scheduler "
            f"({', '.join(names())}), got {name!r}{near(name, known)}"
        )
    if budget.schedule_per not in ("step", "epoch"):
        return f"budget.schedule_per must be 'step' or 'epoch', got {budget.schedule_per!r}"
    if budget.warmup_steps and budget.warmup_epochs:
        return (
            f"budget.warmup_steps and budget.warmup_epochs cannot both be given, got {budget.warmup_steps} and "
            f"{budget.warmup_epochs}; leave one of them at 0"
        )
    if budget.warmup_epochs >= budget.epochs:
        return (
            f"budget.warmup_epochs must be below the number of epochs, {budget.epochs}, got {budget.warmup_epochs}; train "
            "for more epochs or warm up for fewer"
        )
    if budget.optimizer == "Rprop" and (name != "constant" or budget.warmup_steps or budget.warmup_epochs):
        return (
            "budget.schedule must be 'constant', without warm-up, with Rprop, which finds its own step sizes and reads the "
            f"learning rate at its first step only, got {name!r}"
        )
    if name in SHORT_SCHEDULES:
        if budget.schedule_options:
            return (
                f"budget.schedule_options must be empty with {name!r}, got {dict(budget.schedule_options)!r}"
            )
        return None
    options = budget.schedule_options
    given = _filled(budget, 1) if isinstance(options, Mapping) else options
    return options_problem(
        "budget.schedule_options", _class(budget), given, _EXCLUDED, "optimizer"
    ) or _length_problem(budget)


def _length_problem(budget: Budget) -> str | None:
    """Why a number of steps or epochs cannot be one: torch takes negative ones, and does nothing sensible with them."""
    for name in sorted(whole_options(_class(budget)) & {*budget.schedule_options}):
        value = budget.schedule_options[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int | float) and one < 0:
                return (
                    f"budget.schedule_options: {name} of {budget.schedule} must be 0 or more, got {one}; it counts "
                    f"{'epochs' if budget.schedule_per == 'epoch' else 'steps'}"
                )
    return None


def _rate_problem(schedule: Schedule, steps: int) -> str | None:
    """Why the learning rate of a step cannot be used, if one cannot."""
    for t in range(schedule.warmup, steps, schedule.unit):
        lr = schedule.at(t)["lr"]
        if not (math.isfinite(lr) and lr >= 0):
            options = call(_class(schedule.budget), schedule.budget.schedule_options)
            return (
                f"budget.schedule: the learning rate must be a finite number, 0 or more, at every step; {options} gives "
                f"{lr:.3g} at step {t}"
            )
    return None


class Schedule:
    """What the optimiser's settings are at each step.

    Args:
        budget: one without a `problem`.
        steps: number of steps of the whole training.
    """

    def __init__(self, budget: Budget, steps: int) -> None:
        self.budget, self.steps = budget, steps
        per_epoch = max(1, steps // budget.epochs)
        self.warmup = budget.warmup_steps or budget.warmup_epochs * per_epoch
        self.unit = per_epoch if budget.schedule_per == "epoch" else 1
        self._length = -(-(steps - self.warmup) // self.unit)
        self._place = 0
        self._optimizer, self._scheduler = self._made()

    def at(self, t: int) -> dict[str, Any]:
        """``lr`` before the rule's factors, and ``momentum`` or ``betas`` where the optimiser has them, of step ``t``."""
        place = max(0, t - self.warmup) // self.unit
        if place < self._place:
            self._place = 0
            self._optimizer, self._scheduler = self._made()
        for _ in range(place - self._place):
            if self._scheduler is not None:
                self._scheduler.step()
        self._place = place
        group = self._optimizer.param_groups[0]
        settings = {name: group[name] for name in _MOVED if name in group}
        if t < self.warmup:
            settings["lr"] *= (t + 1) / (self.warmup + 1)
        return settings

    def shortage(self) -> str | None:
        """That the schedule ends before the training does, if so."""
        total = getattr(self._scheduler, "total_steps", None)  # of OneCycleLR, the only one that has an end
        if total is None or total >= self._length:
            return None
        unit = f"training {self.budget.schedule_per}s{' after warm-up' if self.warmup else ''}"
        return (
            f"budget.schedule_options: {call(_class(self.budget), self.budget.schedule_options)} ends after {total} of "
            f"{self._length} {unit}; leave the length out, and it is that of the training"
        )

    def _made(self) -> tuple[Optimizer, lr_scheduler.LRScheduler | None]:
        """A placeholder and the schedule that acts on it, at the beginning."""
        optimizer = optimizers.placeholder(self.budget)
        scheduler = self._scheduler_of(optimizer)
        optimizer.step()  # which torch expects between a schedule's beginning and its first step
        return optimizer, scheduler

    def _scheduler_of(self, optimizer: Optimizer) -> lr_scheduler.LRScheduler | None:
        match self.budget.schedule:
            case "constant":
                return None
            case "cosine":
                # The closed form of CosineAnnealingLR, whose recursion gives other last bits than stored results have.
                return lr_scheduler.LambdaLR(optimizer, self._cosine)
        peak = {"max_lr": self.budget.lr} if self.budget.schedule in _PEAKED else {}
        made: lr_scheduler.LRScheduler = _class(self.budget)(
            optimizer, **peak, **_filled(self.budget, self._length)
        )
        return made

    def _cosine(self, place: int) -> float:
        return (1 + math.cos(math.pi * place / self._length)) / 2


def _class(budget: Budget) -> Any:  # noqa: ANN401
    return getattr(lr_scheduler, budget.schedule)


def _filled(budget: Budget, length: int) -> dict[str, Any]:
    """The options, with the length of the schedule where it needs one and has none."""
    options = dict(budget.schedule_options)
    if budget.schedule == "CosineAnnealingLR":
        return {"T_max": length, **options}
    if budget.schedule == "PolynomialLR":
        return {"total_iters": length, **options}
    if budget.schedule == "OneCycleLR" and not {"total_steps", "epochs", "steps_per_epoch"} & options.keys():
        return {"total_steps": length, **options}
    return options
