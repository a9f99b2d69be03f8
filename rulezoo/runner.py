"""Trains one rule on one task for a group of seeds, and says what came out.

The protocol: the same initial weights and batches for every rule, validation after every epoch, the test data read
once at the end. The clock runs on training steps only. Every few steps a second trainer takes a step of plain autograd
backprop on the same batch; the ratio of the two times is the cost, measured in turn and so fair on a noisy machine.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.task import Budget, Data, Split, Task
from rulezoo.training import Batches, Trainer, build

PROTOCOL = 1  #: part of a run's identity: raise it when the numbers that come out change

_SAMPLES = 60  # steps of plain backprop that are timed in a run, for the cost
_CHUNK = 1024  # examples that are evaluated at once

Progress = Callable[[int, int], None]
"""``progress(steps done, steps in all)``, called now and then."""


@dataclass(frozen=True)
class Evaluation:
    """The curve's points: step, epoch, mean training loss since the last point, validation score, the rule's logs."""

    step: int
    epoch: int
    train_loss: float
    validation: float
    logs: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What came out of one seed.

    Attributes:
        status: how it ended.
        reason: a sentence, unless it ended well.
        traceback: of an error.
        scores: ``validation`` and ``test`` at the end.
        curve: one `Evaluation` an epoch.
        step_seconds: mean wall time of a training step of the whole group, or ``None``.
        backprop_seconds: mean wall time of a step of plain backprop, sampled in turn.
        parameters: how many the network has.
        seeds_together: how many seeds were trained in one vmap.
        peak_bytes: peak memory on a GPU.
    """

    status: Literal["ok", "diverged", "error", "skipped"]
    reason: str | None = None
    traceback: str | None = None
    scores: dict[str, float] | None = None
    curve: tuple[Evaluation, ...] = ()
    step_seconds: float | None = None
    backprop_seconds: float | None = None
    parameters: int | None = None
    seeds_together: int = 1
    peak_bytes: int | None = None


def run(
    rule: LearningRule,
    task: Task,
    seeds: Sequence[int],
    budget: Budget,
    data: Data,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> list[Outcome]:
    """Train ``rule`` on ``task``, all seeds together where the rule allows it, and else one by one.

    No exception of a rule or a task leaves this function: what fails is an `Outcome`. When a group fails, its seeds
    are tried one by one, so that one bad seed does not take the others with it.

    Args:
        rule: the rule.
        task: the task.
        seeds: the seeds.
        budget: what the task and the rule agreed on.
        data: the task's data, on any device.
        device: where to compute.
        progress: told how far the training is.

    Returns:
        one outcome for each seed.
    """
    data = Data(*(Split(part.x.to(device), part.y.to(device)) for part in data))
    together = len(seeds) > 1 and rule.vmappable
    if not together and len(seeds) > 1:
        return [run(rule, task, [seed], budget, data, device, progress)[0] for seed in seeds]
    try:
        net, params = build(task, seeds, data.train.x[:1], device)
        reason = rule.skip(net, task)
        if reason is not None:
            return [Outcome("skipped", reason)] * len(seeds)
        return _Run(rule, task, net, params, seeds, budget, data).outcomes(progress)
    except Exception as error:  # noqa: BLE001  foreign code may fail in any way; we record it and go on
        if len(seeds) > 1:
            return [run(rule, task, [seed], budget, data, device, progress)[0] for seed in seeds]
        return [Outcome("error", _in_words(error), "".join(traceback.format_exception(error)))]


def _in_words(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


class _PlainBackprop(LearningRule):
    """The pace-maker: plain autograd, the unit in which cost is told."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


class _Run:
    """One training of a group of seeds."""

    def __init__(
        self,
        rule: LearningRule,
        task: Task,
        net: Net,
        params: list[Tensors],
        seeds: Sequence[int],
        budget: Budget,
        data: Data,
    ) -> None:
        self.task, self.net, self.seeds, self.budget, self.data = task, net, seeds, budget, data
        self.batches = Batches(data.train, budget.batch, seeds)
        self.steps = budget.epochs * self.batches.per_epoch
        self.every = max(1, self.steps // _SAMPLES)
        first = self.batches.take(self.batches.epoch(0)[:, 0])
        self.parameters = sum(p.numel() for p in params[0].values())
        self.trainer, self.pace = (
            Trainer(r, net, task.loss, params, first, seeds, budget, self.steps)
            for r in (rule, _PlainBackprop())
        )
        self.curves: list[list[Evaluation]] = [[] for _ in seeds]
        self.failed: dict[int, int] = {}  # seed's place in the group → step at which its loss was not finite
        self.clock = _Clock(data.train.x.device)

    def outcomes(self, progress: Progress) -> list[Outcome]:
        """Train to the end of the budget, or until no seed is left."""
        for epoch in range(self.budget.epochs):
            self._train(epoch, progress)
            if len(self.failed) == len(self.seeds):
                break
        test = self._score(self.data.test)
        return [self._outcome(place, test) for place in range(len(self.seeds))]

    def _train(self, epoch: int, progress: Progress) -> None:
        order = self.batches.epoch(epoch)
        losses: list[Tensor] = []
        logs: list[Tensors] = []
        self.clock.rule.start()
        for i in range(self.batches.per_epoch):
            loss, log = self.trainer.step(self.batches.take(order[:, i]))
            self.clock.rule.laps += 1
            losses.append(loss)
            logs.append(log)
            if self.trainer.t % self.every == 0:
                self.clock.rule.stop()
                self._pace(order[:, i])
                progress(self.trainer.t, self.steps)
                self.clock.rule.start()
        self.clock.rule.stop()
        self.clock.epoch_ends()
        self._note(epoch, torch.stack(losses), logs)

    def _pace(self, which: Tensor) -> None:
        self.clock.backprop.start()
        self.pace.step(self.batches.take(which))
        self.clock.backprop.laps += 1
        self.clock.backprop.stop()

    def _note(self, epoch: int, losses: Tensor, logs: list[Tensors]) -> None:
        """Look at an epoch's losses ``(steps, S)``, and evaluate."""
        finite = losses.isfinite().cpu()
        for place in range(len(self.seeds)):
            if place not in self.failed and not finite[:, place].all():
                self.failed[place] = self.trainer.t - len(losses) + int(finite[:, place].int().argmin())
        validation = self._score(self.data.validation)
        means = losses.mean(0).tolist()
        logged = {name: torch.stack([log[name] for log in logs]).float().mean(0).tolist() for name in logs[0]}
        for place, curve in enumerate(self.curves):
            if place in self.failed:
                continue
            told = {name: values[place] for name, values in logged.items()}
            curve.append(Evaluation(self.trainer.t, epoch + 1, means[place], validation[place], told))

    def _score(self, split: Split) -> list[float]:
        """Mean score of every seed; NaN where an output is not finite."""
        sums = torch.zeros(len(self.seeds), device=split.x.device)
        for x, y in zip(torch.split(split.x, _CHUNK), torch.split(split.y, _CHUNK), strict=True):
            for place, output in enumerate(self.trainer.predict(x)):
                score = self.task.score(output, y).sum()
                sums[place] += torch.where(output.isfinite().all(), score, torch.nan)
        return (sums / len(split.x)).tolist()

    def _outcome(self, place: int, test: list[float]) -> Outcome:
        curve = tuple(self.curves[place])
        common = Outcome(
            "ok",
            curve=curve,
            step_seconds=self.clock.rule_seconds,
            backprop_seconds=self.clock.backprop_seconds,
            parameters=self.parameters,
            seeds_together=len(self.seeds),
            peak_bytes=self.clock.peak_bytes(),
        )
        step = self.failed.get(place, self.trainer.t if math.isnan(test[place]) else None)
        if step is not None:
            return replace(
                common, status="diverged", reason=f"the loss was not finite at step {step} of {self.steps}"
            )
        return replace(common, scores={"validation": curve[-1].validation, "test": test[place]})


class _Clock:
    """Wall time of the rule's steps and of backprop's, epoch by epoch.

    A GPU is waited for at the ends of an epoch and around the few sampled steps only; the time of a rule's step is
    then that of a stretch of steps, not of each.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rule, self.backprop = _Stopwatch(self._wait), _Stopwatch(self._wait)
        self._epochs: list[tuple[float, float]] = []

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def epoch_ends(self) -> None:
        """Keep this epoch's mean times. The median of the epochs is told, so that a busy moment does not show."""
        if self.rule.laps and self.backprop.laps:
            self._epochs.append((self.rule.mean(), self.backprop.mean()))
            self.rule.clear()
            self.backprop.clear()

    @property
    def rule_seconds(self) -> float | None:
        """Mean seconds of a rule's step in the median epoch (by its ratio to backprop)."""
        return self._median()[0]

    @property
    def backprop_seconds(self) -> float | None:
        """Mean seconds of a step of plain backprop in that epoch."""
        return self._median()[1]

    def _median(self) -> tuple[float | None, float | None]:
        ranked = sorted(self._epochs, key=lambda times: times[0] / times[1])
        return ranked[len(ranked) // 2] if ranked else (None, None)

    def peak_bytes(self) -> int | None:
        """Peak memory of the process on a GPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


class _Stopwatch:
    """Adds up the time between `start` and `stop`; whoever uses it counts the laps."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait
        self.clear()

    def clear(self) -> None:
        self.laps, self.seconds = 0, 0.0

    def mean(self) -> float:
        return self.seconds / self.laps

    def start(self) -> None:
        self.wait()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.wait()
        self.seconds += time.perf_counter() - self._started
