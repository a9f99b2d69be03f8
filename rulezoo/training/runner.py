"""Trains one rule on one task for a group of seeds, and says what came out.

The protocol: the same initial weights and batches for every rule, validation after every epoch, the test data read
once at the end, and never by a trial of a tuning. The clock runs on training steps only. Every few steps a second
trainer takes a step of plain autograd backprop on the same batch; the ratio of the two times is the cost, measured in
turn and so fair on a noisy machine.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import msgspec
import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.measures.probes import Prober, points
from rulezoo.net import Net, Tensors
from rulezoo.results.records import Probe
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.task import Budget, Data, Split, Task
from rulezoo.training.checkpoints import Checkpoints, Saved
from rulezoo.training.clock import Clock
from rulezoo.training.protocol import Trial
from rulezoo.training.trainer import Batches, Trainer, build

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
        compiled: whether `torch.compile` took the rule's step; it cannot take every one.
        peak_bytes: peak memory on a GPU.
        probes: what was measured from outside, see `rulezoo.measures.probes`.
    """

    status: Literal["ok", "diverged", "error", "skipped", "pruned", "oom_host", "oom_gpu"]
    reason: str | None = None
    traceback: str | None = None
    scores: dict[str, float] | None = None
    curve: tuple[Evaluation, ...] = ()
    step_seconds: float | None = None
    backprop_seconds: float | None = None
    parameters: int | None = None
    seeds_together: int = 1
    compiled: bool = False
    peak_bytes: int | None = None
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class _Order:
    """What is to be trained; the arguments of `run`."""

    rule: LearningRule
    task: Task
    seeds: Sequence[int]
    budget: Budget
    data: Data
    progress: Progress
    probes: int
    trial: Trial | None
    checkpoints: Checkpoints
    compiled: bool


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
    checkpoints: Checkpoints | None = None,
    compiled: bool = False,
) -> Iterator[Outcome]:
    """Train ``rule`` on ``task``, all seeds together where the rule and the memory allow it.

    No exception of a rule or a task leaves this function: what fails is an `Outcome`. When a group runs out of memory,
    its halves are tried; when it fails in another way, its seeds are tried one by one, so that one bad seed does not
    take the others with it.

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
        checkpoints: where to leave the state now and then, and to go on from; on a CPU, and with as many threads, the
            numbers are the same bit for bit, however often a training was broken off.
        compiled: let `torch.compile` take the step, and that of the pace-maker.

    Yields:
        the outcome of each seed, as soon as it is known.
    """
    data = Data(*(Split(part.x.to(device), part.y.to(device)) for part in data))
    order = _Order(
        rule, task, seeds, budget, data, progress, probes, trial, checkpoints or Checkpoints(), compiled
    )
    yield from _outcomes(order, tuple(seeds))


def _outcomes(order: _Order, seeds: tuple[int, ...], before: int = 0) -> Iterator[Outcome]:
    """Of some of the seeds; so many were done before."""
    parts = order.checkpoints.divided(seeds)
    if parts is None and len(seeds) > 1 and not order.rule.vmappable:
        parts = _one_by_one(seeds)
    if parts is None:
        outcomes, parts = _tried(order, seeds, before)
        yield from outcomes
    for part in parts:
        yield from _outcomes(order, part, before)
        before += len(part)


def _tried(order: _Order, seeds: tuple[int, ...], before: int) -> tuple[list[Outcome], list[tuple[int, ...]]]:
    """Some seeds trained in one: their outcomes; or none and the parts to try, for a reason is found where it is alone."""
    try:
        return _train(order, seeds, before), []
    except Exception as error:  # noqa: BLE001  foreign code may fail in any way; we record it and go on
        memory = _out_of_memory(error)
        if len(seeds) == 1:
            trace = "".join(traceback.format_exception(error))
            return [Outcome(memory or "error", _in_words(error), trace)], []
        parts = halves(seeds) if memory else _one_by_one(seeds)
    order.checkpoints.divide(seeds, parts)
    if order.data.train.x.is_cuda:  # what the group held would be held on to, and its parts could not have it
        torch.cuda.empty_cache()
    return [], parts


def halves(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """The first half of the seeds, which may be the larger one, and the second."""
    middle = (len(seeds) + 1) // 2
    return [tuple(seeds[:middle]), tuple(seeds[middle:])]


def _one_by_one(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    return [(seed,) for seed in seeds]


def _out_of_memory(error: Exception) -> Literal["oom_host", "oom_gpu"] | None:
    """Which memory did not suffice, if that is what happened."""
    if isinstance(error, torch.OutOfMemoryError):
        return "oom_gpu"
    # torch's allocator on the CPU raises a RuntimeError that only its text tells from others.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in _in_words(error):
        return "oom_host"
    return None


def _train(order: _Order, seeds: tuple[int, ...], before: int) -> list[Outcome]:
    net, params = build(order.task, seeds, order.data.train.x[:1], order.data.train.x.device)
    reason = order.rule.skip(net, order.task)
    if reason is not None:
        return [Outcome("skipped", reason)] * len(seeds)

    def tell(done: int, total: int) -> None:
        """Of all seeds, each of which counts alike."""
        if seeds != tuple(order.seeds):
            done, total = before * total + len(seeds) * done, len(order.seeds) * total
        order.progress(done, total)

    return _Run(order, net, params, seeds).outcomes(tell)


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
    """One training of a group of seeds, from the beginning or from where it was broken off."""

    def __init__(self, order: _Order, net: Net, params: list[Tensors], seeds: tuple[int, ...]) -> None:
        self.trial = order.trial
        self.task, self.net, self.seeds = order.task, net, seeds
        self.budget, self.data, self.checkpoints = order.budget, order.data, order.checkpoints
        self.batches = Batches(self.data.train, self.budget.batch, seeds)
        self.steps = self.budget.epochs * self.batches.per_epoch
        self.every = max(1, self.steps // _SAMPLES)
        first = self.batches.take(self.batches.epoch(0)[:, 0])
        self.parameters = sum(p.numel() for p in params[0].values())
        self.trainer, self.pace = (
            Trainer(
                r, net, self.task.loss, params, first, seeds, self.budget, self.steps, compiled=order.compiled
            )
            for r in (order.rule, _PlainBackprop())
        )
        self.curves: list[list[Evaluation]] = [[] for _ in seeds]
        self.losses: list[Tensor] = []  # of each step of the epoch under way, (S,)
        self.logs: dict[str, list[Tensor]] = {}  # name → of each of these steps at which it was logged, (S,)
        self.failed: dict[int, str] = {}  # seed's place in the group → how it diverged
        self.pruned: dict[int, str] = {}  # seed's place in the group → why it was given up
        self.clock = Clock(self.data.train.x.device)
        self.prober = Prober(net, self.task.loss, self.data, self.batches.size) if order.probes else None
        self.probed_at = points(order.probes, self.steps)
        self.probes: list[list[Probe]] = [[] for _ in seeds]
        if saved := self.checkpoints.load(seeds):
            self._load_state_dict(saved)

    def _state_dict(self) -> Saved:
        """All of it but the pace-maker, on which no number depends: tensors, numbers and strings."""
        return {
            "trainer": self.trainer.state_dict(),
            "clock": self.clock.state_dict(),
            "curves": [[asdict(point) for point in curve] for curve in self.curves],
            "losses": torch.stack(self.losses) if self.losses else None,
            "logs": {name: torch.stack(values) for name, values in self.logs.items()},
            "failed": dict(self.failed),
            "pruned": dict(self.pruned),
            "probes": msgspec.to_builtins(self.probes),
        }

    def _load_state_dict(self, saved: Saved) -> None:
        self.trainer.load_state_dict(saved["trainer"])
        self.clock.load_state_dict(saved["clock"])
        self.curves = [[Evaluation(**point) for point in curve] for curve in saved["curves"]]
        self.losses = [] if saved["losses"] is None else list(saved["losses"])
        self.logs = {name: list(values) for name, values in saved["logs"].items()}
        self.failed, self.pruned = dict(saved["failed"]), dict(saved["pruned"])
        self.probes = msgspec.convert(saved["probes"], list[list[Probe]])

    def outcomes(self, progress: Progress) -> list[Outcome]:
        """Train to the end of the budget, or until no seed is left."""
        if self.trainer.t == 0:
            self._probe()
        else:
            progress(self.trainer.t, self.steps)
        self.cold = True  # torch sets much up at the first step in a process
        while self.trainer.t < self.steps and len(self._ended) < len(self.seeds):
            self._train(progress)
            self._prune()
            if self.checkpoints.due():
                self._save()
        if len(self.seeds) > 1:  # their records are stored one by one, and have to come from one training
            self._save()
        last = self._score(self.data.validation if self.trial else self.data.test)
        return [self._outcome(place, last) for place in range(len(self.seeds))]

    @property
    def _ended(self) -> set[int]:
        """Places of the seeds of which nothing more is wanted."""
        return {*self.failed, *self.pruned}

    def _prune(self) -> None:
        """Give up the seeds of a trial that are not as good as they should be after the last epoch."""
        epoch = self.trainer.t // self.batches.per_epoch
        if self.trial is None or self.trial.bar is None or epoch != self.trial.after:
            return
        for place, curve in enumerate(self.curves):
            if place not in self.failed and curve[-1].validation < self.trial.bar:
                self.pruned[place] = (
                    f"given up after epoch {epoch} of {self.budget.epochs}: {self.task.metric} on validation data was "
                    f"{curve[-1].validation:.1%}, the lower quartile of the trials before it {self.trial.bar:.1%}"
                )

    def _train(self, progress: Progress) -> None:
        """To the end of the epoch under way."""
        epoch, begin = divmod(self.trainer.t, self.batches.per_epoch)
        order = self.batches.epoch(epoch)
        self.clock.rule.start()
        for i in range(begin, self.batches.per_epoch):
            try:
                loss, log = self.trainer.step(self.batches.take(order[:, i]))
            except Exception:
                self._mark()
                self._mark_weights()
                if len(self._ended) < len(self.seeds):
                    raise
                return  # given numbers that are none, a rule may well raise: what happened is that it diverged
            self.clock.rule.laps += 1
            self._remember(loss, log)
            if self.cold or self.trainer.t % self.every == 0:
                self.clock.rule.stop()
                self._pace(order[:, i])
                progress(self.trainer.t, self.steps)
                if self.cold:
                    self.clock.warmed_up()
                    self.cold = False
                self.clock.rule.start()
            if self.trainer.t in self.probed_at:
                self.clock.rule.stop()
                self._probe()
                self.clock.rule.start()
            if i + 1 < self.batches.per_epoch and self.checkpoints.due():
                self.clock.rule.stop()
                self._save()
                self.clock.rule.start()
        self.clock.rule.stop()
        self.clock.epoch_ends()
        self._mark()
        self._note(epoch)

    def _save(self) -> None:
        self.checkpoints.save(self.seeds, self._state_dict())

    def _remember(self, loss: Tensor, log: Tensors) -> None:
        self.losses.append(loss)
        for name, value in log.items():  # a rule need not log at every step
            self.logs.setdefault(name, []).append(value)

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

    def _mark(self) -> None:
        """Keep the step at which the loss of a seed was not finite, the first of the epoch under way."""
        if not self.losses:
            return
        finite = torch.stack(self.losses).isfinite().cpu()  # (steps, S)
        for place in range(len(self.seeds)):
            if not finite[:, place].all():
                step = self.trainer.t - len(self.losses) + int(finite[:, place].int().argmin())
                self.failed.setdefault(place, f"the loss was not finite at step {step} of {self.steps}")

    def _mark_weights(self) -> None:
        for place, finite in enumerate(self.trainer.finite().tolist()):
            if not finite:
                reason = f"the weights were not finite at step {self.trainer.t} of {self.steps}"
                self.failed.setdefault(place, reason)

    def _note(self, epoch: int) -> None:
        """Evaluate, add a point to the curve of each seed that has not diverged, and end the epoch."""
        losses = torch.stack(self.losses).mean(0).tolist()
        validation = self._score(self.data.validation)
        means = {name: _mean(values) for name, values in self.logs.items()}
        for place, curve in enumerate(self.curves):
            if place not in self._ended:
                told = {name: values[place] for name, values in means.items()}
                curve.append(Evaluation(self.trainer.t, epoch + 1, losses[place], validation[place], told))
        self.losses, self.logs = [], {}

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
            compiled=self.trainer.compiled,
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
