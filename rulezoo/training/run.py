"""One training of a group of seeds, from the first batch to the test, or from where it was interrupted.

The protocol: the same initial weights and batches for every rule, validation after every epoch, the test data read
once at the end, and never by a trial of a tuning. The clock runs on training steps only. Every few steps a second
trainer takes steps of plain autograd backprop on the same batch; the ratio of the two times is the cost, measured in
turn and so fair on a noisy machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace

import msgspec
import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.inputs import Inputs
from rulezoo.measures.locality import travel
from rulezoo.measures.precision import at_least_single
from rulezoo.measures.probes import Prober, probe_steps
from rulezoo.net import Net, Tensors, Values
from rulezoo.results.records import Probe
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.source import Source
from rulezoo.task import Budget, Data, Split, Task
from rulezoo.text import percent
from rulezoo.trained import check_restorable, needs_memory, state_tensors
from rulezoo.training import optimizers
from rulezoo.training.batches import Batches, Feed, Take
from rulezoo.training.checkpoints import Checkpoints, Saved
from rulezoo.training.clock import Clock
from rulezoo.training.errors import in_words
from rulezoo.training.outcome import Evaluation, Kept, Outcome
from rulezoo.training.protocol import Trial
from rulezoo.training.trainer import Trainer

_SAMPLES = 60  # times in a run at which plain backprop is timed, for the cost
_STRETCH = 8  # steps of it each time, on a GPU
_REPORT_EVERY = 1.0  # seconds between two reports of progress
_FEW, _LOOKED_AT = 4, 2  # examples and steps on which the depth of blocks is measured

Progress = Callable[[int, int], None]
"""``progress(steps done, steps in all)``, called now and then."""


def _no_progress(done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class RunRequest:
    """What is to be trained: a rule on a task, for some seeds.

    Attributes:
        rule: the rule.
        task: the task.
        seeds: the seeds.
        budget: what the task and the rule agreed on.
        data: the task's data, on any device.
        device: where to compute.
        progress: called with the number of steps done and of all steps.
        probes: number of points of training at which the rule is probed; what is trained is the same with and without.
        trial: set where the runs are trials of a tuning: then the test data are not read.
        checkpoints: where to store the state now and then, and to resume from; on a CPU, and with as many threads, the
            numbers are the same bit for bit, however often a run was interrupted.
        compiled: let `torch.compile` take the step, and that of the reference.
        keep_weights: hand over the weights of each network that was trained to the end, see `Outcome.kept`; with the
            memory of a rule that predicts with it.
        keep_memory: hand over the rule's memory.
    """

    rule: LearningRule
    task: Task
    seeds: Sequence[int]
    budget: Budget
    data: Data[Tensor | Source]
    device: torch.device
    progress: Progress = _no_progress
    probes: int = 0
    trial: Trial | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    compiled: bool = False
    keep_weights: bool = False
    keep_memory: bool = False


class _PlainBackprop(LearningRule):
    """The reference for cost: backprop by plain autograd."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


class Run:
    """One training; `outcomes` carries it out."""

    def __init__(
        self,
        request: RunRequest,
        data: Data[Tensor | Inputs],
        net: Net,
        values: list[Values],
        seeds: tuple[int, ...],
    ) -> None:
        if request.keep_weights:
            check_restorable(net)
        self.keep_weights = request.keep_weights
        self.keep_memory = request.keep_memory or (request.keep_weights and needs_memory(request.rule))
        self.trial = request.trial
        self.task, self.net, self.seeds = request.task, net, seeds
        self.budget, self.data, self.checkpoints = request.budget, data, request.checkpoints
        self.batches = Batches(self.data.train, self.budget.batch, seeds)
        self.steps = self.budget.epochs * self.batches.per_epoch
        self.every = max(1, self.steps // _SAMPLES)
        # A GPU is waited for at both ends of what is timed, which a single step would feel and a stretch hardly does.
        self.stretch = min(self.every, _STRETCH) if request.device.type == "cuda" else 1
        first = self.batches.take(self.batches.epoch(0)[:, 0])
        self.parameters = sum(p.numel() for p in values[0].params.values())
        self.trainer, self.reference = (
            Trainer(
                r, net, self.task.loss, values, first, seeds, budget, self.steps, compiled=request.compiled
            )
            for r, budget in ((request.rule, self.budget), (_PlainBackprop(), _reference_budget(self.budget)))
        )
        self.block_depth = 0  # layers in series that errors reach one through another; 0 = not measured
        self.curves: list[list[Evaluation]] = [[] for _ in seeds]
        self.losses: dict[
            int, Tensor
        ] = {}  # step of the epoch under way → loss (S,), where the rule computes one
        self.logs: dict[str, list[Tensor]] = {}  # name → of each of these steps at which it was logged, (S,)
        self.failed: dict[int, str] = {}  # seed's place in the group → how it diverged
        self.pruned: dict[int, str] = {}  # seed's place in the group → why it was given up
        self.clock = Clock(request.device)
        self.prober = Prober(net, self.task.loss, self.data, self.batches.size) if request.probes else None
        self.probed_at = probe_steps(request.probes, self.steps)
        self.probes: list[list[Probe]] = [[] for _ in seeds]
        like = self._state_dict()
        like["trainer"]["optimizer"]["state"] = self.trainer.optimizer_state_like()
        if saved := self.checkpoints.load(seeds, like):
            self._load_state_dict(saved)
        else:
            self.block_depth = _block_depth(request.rule, self.trainer, self.task.loss, first)

    def _state_dict(self) -> Saved:
        """All of it but the reference trainer, on which no score depends: tensors, numbers and strings."""
        return {
            "block_depth": self.block_depth,
            "trainer": self.trainer.state_dict(),
            "clock": self.clock.state_dict(),
            "curves": [[asdict(point) for point in curve] for curve in self.curves],
            "losses": torch.stack(list(self.losses.values())) if self.losses else None,
            "losses_at": list(self.losses),
            "logs": {name: torch.stack(values) for name, values in self.logs.items()},
            "failed": dict(self.failed),
            "pruned": dict(self.pruned),
            "probes": msgspec.to_builtins(self.probes),
        }

    def _load_state_dict(self, saved: Saved) -> None:
        self.block_depth = saved["block_depth"]
        self.trainer.load_state_dict(saved["trainer"])
        self.clock.load_state_dict(saved["clock"])
        self.curves = [[Evaluation(**point) for point in curve] for curve in saved["curves"]]
        losses = [] if saved["losses"] is None else list(saved["losses"])
        self.losses = dict(zip(saved["losses_at"], losses, strict=True))
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
        self._reported = time.monotonic()
        with self.batches.feed(self.trainer.t, self.steps) as feed:
            while self.trainer.t < self.steps and len(self._ended) < len(self.seeds):
                self._train(feed, progress)
                self._prune()
                if self.checkpoints.due():
                    self._save()
        if len(self.seeds) > 1:  # their records are stored one by one, and have to come from one training
            self._save()
        last = self._score(self.data.validation if self.trial else self.data.test)
        return [self._outcome(place, last) for place in range(len(self.seeds))]

    @property
    def _ended(self) -> set[int]:
        """Positions of the seeds whose training has ended."""
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
                    f"{percent(curve[-1].validation)}, the lower quartile of the trials before it {percent(self.trial.bar)}"
                )

    def _train(self, feed: Feed, progress: Progress) -> None:
        """To the end of the epoch under way."""
        epoch, begin = divmod(self.trainer.t, self.batches.per_epoch)
        self.clock.rule.start()
        for i in range(begin, self.batches.per_epoch):
            with nullcontext() if feed.ready else self.clock.rule.paused():
                feed.wait()  # for the disk or for workers: no cost of the rule
            take = feed.next()
            try:
                loss, log = self.trainer.step(take())
            except Exception:
                self._mark()
                self._mark_weights()
                if len(self._ended) < len(self.seeds):
                    raise
                return  # given numbers that are none, a rule may well raise: what happened is that it diverged
            self.clock.rule.laps += 1
            self._observe(loss, log)
            if self.cold or self.trainer.t % self.every == 0:
                with self.clock.rule.paused():
                    self._time_reference(take)
                    self._report(progress)
                    if self.cold:
                        self.clock.warmed_up()
                        self.cold = False
            elif time.monotonic() - self._reported >= _REPORT_EVERY:
                with self.clock.rule.paused():
                    self._report(progress)
            if self.trainer.t in self.probed_at:
                with self.clock.rule.paused():
                    self._probe()
            if i + 1 < self.batches.per_epoch and self.checkpoints.due():
                with self.clock.rule.paused():
                    self._save()
        self.clock.rule.stop()
        self.clock.epoch_ends()
        self._mark()
        if len(self.losses) < self.batches.per_epoch:
            self._mark_weights()  # steps without a loss do not show that they diverge
        self._note(epoch)

    def _report(self, progress: Progress) -> None:
        progress(self.trainer.t, self.steps)
        self._reported = time.monotonic()

    def _save(self) -> None:
        self.checkpoints.save(self.seeds, self._state_dict())

    def _observe(self, loss: Tensor | None, log: Tensors) -> None:
        if loss is not None:
            self.losses[self.trainer.t - 1] = loss
        for name, value in log.items():  # a rule need not log at every step
            self.logs.setdefault(name, []).append(value)

    def _time_reference(self, take: Take) -> None:
        self.clock.backprop.start()
        for _ in range(self.stretch):
            self.reference.step(take())
        self.clock.backprop.laps += self.stretch
        self.clock.backprop.stop()

    def _probe(self) -> None:
        """Probe every seed, if this is a step at which to do so."""
        if self.prober is None or self.trainer.t not in self.probed_at:
            return
        peak = self.clock.peak_bytes()
        step, epoch = self.trainer.t, self.trainer.t / self.batches.per_epoch
        for place, seed in enumerate(self.seeds):
            params, state = self.trainer.of(place)
            prober = self.prober.of(self.trainer.network(place, self.batches.size))
            try:
                probe = prober.probe(self.trainer.rule, params, state, step, seed, epoch)
            except Exception as error:  # noqa: BLE001  what cannot be measured is no reason to end the training
                probe = Probe(step=step, epoch=epoch, reason=in_words(error))
            self.probes[place].append(probe)
        self.clock.forget_peak(peak)

    def _mark(self) -> None:
        """Keep the step at which the loss of a seed was not finite, the first of the epoch under way."""
        if not self.losses:
            return
        finite = torch.stack(list(self.losses.values())).isfinite().cpu()  # (steps, S)
        steps = list(self.losses)
        for place in range(len(self.seeds)):
            if not finite[:, place].all():
                step = steps[int(finite[:, place].int().argmin())]
                self.failed.setdefault(place, f"the loss was not finite at step {step} of {self.steps}")

    def _mark_weights(self) -> None:
        for place, finite in enumerate(self.trainer.finite().tolist()):
            if not finite:
                reason = f"the weights were not finite at step {self.trainer.t} of {self.steps}"
                self.failed.setdefault(place, reason)

    def _note(self, epoch: int) -> None:
        """Evaluate, add a point to the curve of each seed that has not diverged, and end the epoch."""
        losses: Sequence[float | None] = [None] * len(self.seeds)
        if self.losses:
            losses = _mean(list(self.losses.values()))
        validation = self._score(self.data.validation)
        means = {name: _mean(values) for name, values in self.logs.items()}
        for place, curve in enumerate(self.curves):
            if place not in self._ended:
                logged = {name: values[place] for name, values in means.items()}
                curve.append(Evaluation(self.trainer.t, epoch + 1, losses[place], validation[place], logged))
        self.losses, self.logs = {}, {}

    def _score(self, split: Split[Tensor | Inputs]) -> list[float]:
        """Mean score of every seed; NaN where an output is not finite."""
        sums = torch.zeros(len(self.seeds), device=split.y.device)
        for x, y in _chunks(split, self.budget.evaluation_batch):
            outputs = self.trainer.predict(x)
            # Whatever the precision of the outputs, scores are exact.
            with torch.autocast(x.device.type, enabled=False):
                for place, output in enumerate(at_least_single(outputs)):
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
            block_depth=self.block_depth or None,
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
        scores = {"validation": curve[-1].validation, part: last[place]}
        return replace(common, scores=scores, kept=self._kept(place))

    def _kept(self, place: int) -> Kept | None:
        if not (self.keep_weights or self.keep_memory):
            return None
        params, state = self.trainer.of(place)
        network = self.trainer.network(place, rows=1, training=False)
        return Kept(
            example=self.net.example.cpu(),
            weights=_on_cpu(network.state_dict(params)) if self.keep_weights else None,
            memory=_on_cpu(state_tensors(state)) if self.keep_memory else None,
        )


def _on_cpu(tensors: Tensors) -> Tensors:
    """Copies that share no memory, with each other or with what is trained."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def _reference_budget(budget: Budget) -> Budget:
    """The budget of the reference trainer: without a weight decay that only the rule's own, decoupled one makes possible."""
    return budget if optimizers.problem(budget) is None else replace(budget, weight_decay=0.0)


def _block_depth(rule: LearningRule, trainer: Trainer, loss: credit.Loss, first: Batch) -> int:
    """How many layers in series the rule's errors travel through, on a few examples of the first batch; 0 = unknown."""
    few = Batch(first.x[0][:_FEW], first.y[0][:_FEW])
    params, state = trainer.of(0)
    try:
        found = travel(rule, trainer.network(0, len(few.x)), loss, params, few, state=state, steps=_LOOKED_AT)
    except Exception:  # noqa: BLE001  what cannot be measured is no reason not to train; the training will show it
        return 0
    return found.depth


def _chunks(split: Split[Tensor | Inputs], most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A split in parts of equal size: a network that normalises over the batch needs two rows."""
    number = -(-len(split.y) // most)
    if isinstance(split.x, Tensor):
        parts: Iterable[Tensor] = split.x.tensor_split(number)
    else:
        parts = split.x.chunks(torch.arange(len(split.y)).tensor_split(number))
    yield from zip(parts, split.y.tensor_split(number), strict=True)


def _mean(values: Sequence[Tensor]) -> list[float]:
    """Mean over the steps, one for each seed."""
    return at_least_single(torch.stack(list(values))).mean(0).tolist()
