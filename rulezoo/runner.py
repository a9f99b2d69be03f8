"""Trains one rule on one task for a group of seeds, and says what came out.

The protocol: the same initial weights and batches for every rule, validation after every epoch, the test data read
once at the end, and never by a trial of a tuning. The clock runs on training steps only. Every few steps a second trainer takes a step of plain autograd
backprop on the same batch; the ratio of the two times is the cost, measured in turn and so fair on a noisy machine.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.plan import Trial
from rulezoo.probes import Prober, points
from rulezoo.records import Probe
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
        scores: ``validation`` and, unless the run is a trial, ``test`` at the end.
        curve: one `Evaluation` an epoch.
        step_seconds: mean wall time of a training step of the whole group, or ``None``.
        backprop_seconds: mean wall time of a step of plain backprop, sampled in turn.
        parameters: how many the network has.
        seeds_together: how many seeds were trained in one vmap.
        peak_bytes: peak memory on a GPU.
        probes: what was measured from outside, see `rulezoo.probes`.
    """

    status: Literal["ok", "diverged", "error", "skipped", "pruned"]
    reason: str | None = None
    traceback: str | None = None
    scores: dict[str, float] | None = None
    curve: tuple[Evaluation, ...] = ()
    step_seconds: float | None = None
    backprop_seconds: float | None = None
    parameters: int | None = None
    seeds_together: int = 1
    peak_bytes: int | None = None
    probes: tuple[Probe, ...] = ()


def run(
    rule: LearningRule,
    task: Task,
    seeds: Sequence[int],
    budget: Budget,
    data: Data,
    device: torch.device,
    progress: Progress = lambda done, total: None,
    probes: int = 0,
    trial: Trial | None = None,
) -> Iterator[Outcome]:
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
        probes: at how many points of training to probe the rule; what is trained is the same with and without.
        trial: set where the runs are trials of a tuning: then the test data are not read.

    Yields:
        the outcome of each seed, as soon as it is known.
    """
    data = Data(*(Split(part.x.to(device), part.y.to(device)) for part in data))
    vmap = len(seeds) > 1 and rule.vmappable
    together = _group(rule, task, seeds, budget, data, progress, probes, trial) if vmap else None
    yield from together or _one_by_one(rule, task, seeds, budget, data, progress, probes, trial)


def _group(
    rule: LearningRule,
    task: Task,
    seeds: Sequence[int],
    budget: Budget,
    data: Data,
    progress: Progress,
    probes: int,
    trial: Trial | None,
) -> list[Outcome] | None:
    """All seeds in one; ``None`` when that raised, for the reason will be found where a seed is alone."""
    try:
        return _train(rule, task, seeds, budget, data, progress, probes, trial)
    except Exception:  # noqa: BLE001  foreign code may fail in any way
        return None


def _one_by_one(
    rule: LearningRule,
    task: Task,
    seeds: Sequence[int],
    budget: Budget,
    data: Data,
    progress: Progress,
    probes: int,
    trial: Trial | None,
) -> Iterator[Outcome]:
    for place, seed in enumerate(seeds):

        def tell(done: int, total: int, before: int = place) -> None:
            progress(before * total + done, len(seeds) * total)

        try:
            (outcome,) = _train(rule, task, [seed], budget, data, tell, probes, trial)
        except Exception as error:  # noqa: BLE001  foreign code may fail in any way; we record it and go on
            outcome = Outcome("error", _in_words(error), "".join(traceback.format_exception(error)))
        yield outcome


def _train(
    rule: LearningRule,
    task: Task,
    seeds: Sequence[int],
    budget: Budget,
    data: Data,
    progress: Progress,
    probes: int,
    trial: Trial | None,
) -> list[Outcome]:
    net, params = build(task, seeds, data.train.x[:1], data.train.x.device)
    reason = rule.skip(net, task)
    if reason is not None:
        return [Outcome("skipped", reason)] * len(seeds)
    return _Run(rule, task, net, params, seeds, budget, data, probes, trial).outcomes(progress)


def _in_words(error: Exception) -> str:
    """The type, and the first line of the message; a message that cannot be had is no reason to fail."""
    lines = str(traceback.TracebackException.from_exception(error)).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


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
        probes: int,
        trial: Trial | None,
    ) -> None:
        self.trial = trial
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
        self.failed: dict[int, str] = {}  # seed's place in the group → how it diverged
        self.pruned: dict[int, str] = {}  # seed's place in the group → why it was given up
        self.clock = _Clock(data.train.x.device)
        self.prober = Prober(net, task.loss, data, self.batches.size) if probes else None
        self.probed_at = points(probes, self.steps)
        self.probes: list[list[Probe]] = [[] for _ in seeds]

    def outcomes(self, progress: Progress) -> list[Outcome]:
        """Train to the end of the budget, or until no seed is left."""
        self._probe()
        for epoch in range(self.budget.epochs):
            self._train(epoch, progress)
            self._prune(epoch + 1)
            if len(self._ended) == len(self.seeds):
                break
        last = self._score(self.data.validation if self.trial else self.data.test)
        return [self._outcome(place, last) for place in range(len(self.seeds))]

    @property
    def _ended(self) -> set[int]:
        """Places of the seeds of which nothing more is wanted."""
        return {*self.failed, *self.pruned}

    def _prune(self, epoch: int) -> None:
        """Give up the seeds of a trial that are not as good as they should be after this epoch."""
        if self.trial is None or self.trial.bar is None or epoch != self.trial.after:
            return
        for place, curve in enumerate(self.curves):
            if place not in self.failed and curve[-1].validation < self.trial.bar:
                self.pruned[place] = (
                    f"given up after epoch {epoch} of {self.budget.epochs}: {self.task.metric} on validation data was "
                    f"{curve[-1].validation:.1%}, the lower quartile of the trials before it {self.trial.bar:.1%}"
                )

    def _train(self, epoch: int, progress: Progress) -> None:
        order = self.batches.epoch(epoch)
        losses: list[Tensor] = []
        logs: list[Tensors] = []
        self.clock.rule.start()
        for i in range(self.batches.per_epoch):
            try:
                loss, log = self.trainer.step(self.batches.take(order[:, i]))
            except Exception:
                self._mark(losses)
                self._mark_weights()
                if len(self._ended) < len(self.seeds):
                    raise
                return  # given numbers that are none, a rule may well raise: what happened is that it diverged
            self.clock.rule.laps += 1
            losses.append(loss)
            logs.append(log)
            warming_up = self.trainer.t == 1  # torch sets much up at the first step of both
            if warming_up or self.trainer.t % self.every == 0:
                self.clock.rule.stop()
                self._pace(order[:, i])
                progress(self.trainer.t, self.steps)
                if warming_up:
                    self.clock.clear()
                self.clock.rule.start()
            if self.trainer.t in self.probed_at:
                self.clock.rule.stop()
                self._probe()
                self.clock.rule.start()
        self.clock.rule.stop()
        self.clock.epoch_ends()
        self._mark(losses)
        self._note(epoch, torch.stack(losses).mean(0).tolist(), logs)

    def _pace(self, which: Tensor) -> None:
        self.clock.backprop.start()
        self.pace.step(self.batches.take(which))
        self.clock.backprop.laps += 1
        self.clock.backprop.stop()

    def _probe(self) -> None:
        """Probe every seed, if this is a step at which to do so."""
        if self.prober is None or self.trainer.t not in self.probed_at:
            return
        peak = self.clock.peak_bytes()
        step, epoch = self.trainer.t, self.trainer.t / self.batches.per_epoch
        for place, seed in enumerate(self.seeds):
            params, state = self.trainer.of(place)
            try:
                probe = self.prober.probe(self.trainer.rule, params, state, step, seed, epoch)
            except Exception as error:  # noqa: BLE001  what cannot be measured is no reason to end the training
                probe = Probe(step=step, epoch=epoch, reason=_in_words(error))
            self.probes[place].append(probe)
        self.clock.forget_peak(peak)

    def _mark(self, losses: Sequence[Tensor]) -> None:
        """Keep the step at which the loss of a seed was not finite, the first of the last ``len(losses)``."""
        if not losses:
            return
        finite = torch.stack(list(losses)).isfinite().cpu()  # (steps, S)
        for place in range(len(self.seeds)):
            if not finite[:, place].all():
                step = self.trainer.t - len(losses) + int(finite[:, place].int().argmin())
                self.failed.setdefault(place, f"the loss was not finite at step {step} of {self.steps}")

    def _mark_weights(self) -> None:
        for place, finite in enumerate(self.trainer.finite().tolist()):
            if not finite:
                reason = f"the weights were not finite at step {self.trainer.t} of {self.steps}"
                self.failed.setdefault(place, reason)

    def _note(self, epoch: int, losses: list[float], logs: list[Tensors]) -> None:
        """Evaluate, and add a point to the curve of each seed that has not diverged."""
        validation = self._score(self.data.validation)
        names = dict.fromkeys(name for log in logs for name in log)  # a rule need not log at every step
        means = {name: _mean([log[name] for log in logs if name in log]) for name in names}
        for place, curve in enumerate(self.curves):
            if place not in self._ended:
                told = {name: values[place] for name, values in means.items()}
                curve.append(Evaluation(self.trainer.t, epoch + 1, losses[place], validation[place], told))

    def _score(self, split: Split) -> list[float]:
        """Mean score of every seed; NaN where an output is not finite."""
        sums = torch.zeros(len(self.seeds), device=split.x.device)
        for x, y in zip(torch.split(split.x, _CHUNK), torch.split(split.y, _CHUNK), strict=True):
            for place, output in enumerate(self.trainer.predict(x)):
                score = self.task.score(output, y).sum()
                sums[place] += torch.where(output.isfinite().all(), score, torch.nan)
        return (sums / len(split.x)).tolist()

    def _outcome(self, place: int, last: list[float]) -> Outcome:
        curve = tuple(self.curves[place])
        common = Outcome(
            "ok",
            curve=curve,
            step_seconds=self.clock.rule_seconds,
            backprop_seconds=self.clock.backprop_seconds,
            parameters=self.parameters,
            seeds_together=len(self.seeds),
            peak_bytes=self.clock.peak_bytes(),
            probes=tuple(self.probes[place]),
        )
        if place in self.pruned:
            return replace(common, status="pruned", reason=self.pruned[place])
        part = "validation" if self.trial else "test"
        if math.isnan(last[place]):
            self.failed.setdefault(place, f"the outputs for the {part} data were not finite")
        if place in self.failed:
            return replace(common, status="diverged", reason=self.failed[place])
        return replace(common, scores={"validation": curve[-1].validation, part: last[place]})


def _mean(values: Sequence[Tensor]) -> list[float]:
    """Mean over the steps, one for each seed."""
    return torch.stack(list(values)).float().mean(0).tolist()


class _Clock:
    """Wall time of the rule's steps and of backprop's, epoch by epoch.

    A GPU is waited for at the ends of an epoch and around the few sampled steps only; the time of a rule's step is
    then that of a stretch of steps, not of each.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rule, self.backprop = _Stopwatch(self._wait), _Stopwatch(self._wait)
        self._epochs: list[tuple[float, float]] = []
        self._peak = 0  # before the counter of the GPU was last set back

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def epoch_ends(self) -> None:
        """Keep this epoch's mean times. The median of the epochs is told, so that a busy moment does not show."""
        if self.rule.laps and self.backprop.laps:
            self._epochs.append((self.rule.mean(), self.backprop.mean()))
            self.clear()

    def clear(self) -> None:
        """Forget the times since the last epoch's end."""
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
        if self.device.type != "cuda":
            return None
        return max(self._peak, torch.cuda.max_memory_allocated(self.device))

    def forget_peak(self, before: int | None) -> None:
        """Leave out what was needed for other things than training since the peak was ``before``."""
        if before is not None:
            self._peak = before
            torch.cuda.reset_peak_memory_stats(self.device)


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
