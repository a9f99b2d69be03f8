"""Checks of a task: that its data, network, loss and score are what `rulezoo.Task` promises.

The first line of a check's docstring is the promise to which it holds a task, as a report prints it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.comparison import contract
from rulezoo.comparison.examination import Examination, examine
from rulezoo.inputs import Inputs, prepared
from rulezoo.net import Net, Tensors
from rulezoo.options import configure
from rulezoo.rule import Batch
from rulezoo.source import Source
from rulezoo.specs import TaskSpec
from rulezoo.task import Data, Task
from rulezoo.testing.expect import (
    NotApplicable,
    NotExamined,
    expect,
    expect_close,
    expect_finite,
    expect_same,
    listed,
)
from rulezoo.text import percent
from rulezoo.training.trainer import build

COMPANY = 1e-4  # of a tensor's norm, in float32: a batch of another size is added up in another order
SHARED = 0.01  # share of the examples to be judged by that may occur in the training data by chance
GIVEN_AWAY = 0.999  # share of the variance of an input that the label explains
LUCK = 0.1  # by how much an untrained network may beat chance
BATCH = 32
MOST, CHUNK = 100_000, 1024  # examples of a source that are compared with others, and are read at once
LOOKED_AT = 4096  # prepared examples in which a label is looked for
STEPS = 60  # of backprop with Adam, at the learning rate of the task


@dataclass(frozen=True)
class TaskCase:
    """A task with its data.

    Attributes:
        task: the task.
        spec: what its plugin says about it, or ``None`` for a bare task.
        root: the folder of data sets.
        given: what a guarded process found of it, if that is known; else it is examined here.
    """

    task: Task
    spec: TaskSpec | None
    root: Path | None
    given: Examination | None = None

    @property
    def subject(self) -> Task:
        """The task, as checks that serve rules too know it."""
        return self.task

    @cached_property
    def found(self) -> Examination:
        """What the check before a comparison finds."""
        return examine(self.task, self.root) if self.given is None else self.given

    @cached_property
    def data(self) -> Data[Tensor | Source]:
        """The data; a task that cannot be trained on, or whose data are not here, cannot be checked on them."""
        if self.found.missing is not None:
            raise NotApplicable(f"the data are not here: {self.found.missing}")
        if self.found.problems:
            raise NotApplicable("the task cannot be trained on; see trainable")
        return self.task.data(self.root)

    @cached_property
    def inputs(self) -> Data[Tensor | Inputs]:
        """The data, as the network sees them in an evaluation."""
        return prepared(self.data, self.task, torch.device("cpu"))

    @cached_property
    def net(self) -> Net:
        """The network of seed 0."""
        return self.built(0)[0]

    def built(self, *seeds: int) -> tuple[Net, list[Tensors]]:
        """A network, and its initial parameters for each seed, as the runner makes them."""
        net, values = build(self.task, seeds, self.inputs.train.x[:2], torch.device("cpu"))
        return net, [v.params for v in values]

    def batch(self, size: int = BATCH, start: int = 0) -> Batch:
        """Training examples."""
        x, y = self.inputs.train
        return Batch(x[start : start + size], y[start : start + size])


def check_task_spec(case: TaskCase) -> None:
    """The spec tells the truth: it loads a documented Task whose defaults work."""
    if case.spec is None:
        raise NotApplicable("a bare task has no spec")
    loaded = case.spec.load()
    expect(issubclass(loaded, Task), f"{case.spec.target} is not a subclass of rulezoo.Task")
    expect(bool(case.spec.summary.strip()), f"the spec of {case.spec.name} has no summary")
    expect(bool((vars(loaded).get("__doc__") or "").strip()), f"{case.spec.target} has no docstring")
    made(case.spec)


def made(spec: TaskSpec) -> Task:
    """The task with its default options, but for those that its name gives a value."""
    task: Task = configure(spec.load(), spec.name, spec.words({}))
    return task


def check_budget(case: TaskCase) -> str:
    """The budget, the name of the score and its value by chance are given."""
    task = case.task
    problem = contract.declaration_problem(task)
    expect(problem is None, problem or "")
    budget = task.budget
    return f"{budget.epochs} epochs of batches of {budget.batch}; {task.metric}, {task.chance:.3g} by chance"


def check_trainable(case: TaskCase) -> str:
    """Data, network, loss and score pass the check that comes before every comparison."""
    found = case.found
    if found.missing is not None:
        embedded = case.spec is not None and case.spec.embedded
        expect(not embedded, f"the spec declares embedded=True, yet data are missing: {found.missing}")
        raise NotExamined(f"the data are not here: {found.missing}")
    expect(not found.problems, f"the task cannot be trained on: {'; '.join(found.problems)}")
    sizes = " / ".join(f"{size:,}" for size in found.sizes.values())
    deep = (
        f"; errors of rules without a backward pass travel within blocks of {found.depth}"
        if found.depth > 1
        else ""
    )
    outputs = f"outputs of shape {tuple(found.output_shape)}, {_targets(case.task)}"
    return f"{sizes} examples, {found.parameters:,} parameters, {outputs}{deep}"


def _targets(task: Task) -> str:
    if task.targets == "labels":
        return f"labels of {task.classes} classes"
    if task.targets == "numbers":
        return "targets of the output's shape"
    return "targets that are not declared, so that rules that have to know them skip the task"


def check_data_deterministic(case: TaskCase) -> None:
    """Making the data leaves torch's global generator alone."""
    _, before = case.data, torch.get_rng_state()
    torch.manual_seed(12345)  # to which no task sets it
    set_to = torch.get_rng_state()
    case.task.data(case.root)
    moved = not torch.equal(torch.get_rng_state(), set_to)
    torch.set_rng_state(before)
    expect(not moved, "data() draws from torch's global generator; make a torch.Generator with a fixed seed")


def check_disjoint(case: TaskCase) -> str:
    """Validation and test data hold no examples of the training data, nor of each other."""
    seen = {
        name: [_fingerprint(row) for rows in _rows(part.x) for row in rows]
        for name, part in case.data._asdict().items()
    }
    counts = []
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        known = set(seen[one])
        shared = sum(row in known for row in seen[other])
        expect(
            shared <= SHARED * len(seen[other]),
            f"{shared} of {len(seen[other])} examples of {other} are in {one}, too; split before you repeat examples",
        )
        counts.append(shared)
    return f"{sum(counts)} shared"


def _rows(x: Tensor | Source) -> Iterator[Tensor]:
    """Examples, a chunk at a time; of a large source the first ones."""
    if isinstance(x, Tensor):
        yield x
        return
    yield from x.stream(torch.split(torch.arange(min(MOST, len(x))), CHUNK))


def _fingerprint(row: Tensor) -> bytes:
    return hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()


def check_no_leak(case: TaskCase) -> str:
    """No single input gives the label away."""
    train = case.inputs.train
    x, y = train.x[:LOOKED_AT].flatten(1) if isinstance(train.x, Inputs) else train.x.flatten(1), train.y
    y = y[: len(x)]
    if y.ndim != 1 or y.is_floating_point():
        raise NotApplicable("targets are no class labels")
    classes = [x[y == label] for label in sorted(set(y.tolist()))]
    within = torch.stack([len(c) * c.var(0, unbiased=False) for c in classes]).sum(0) / len(x)
    total = x.var(0, unbiased=False)
    explained = torch.where(total > 0, 1 - within / total.clamp_min(1e-12), 0)
    most, where = explained.max(0)
    expect(
        float(most) < GIVEN_AWAY,
        f"input {int(where)} (of the flattened input) says what the label is: the label explains {percent(float(most))} "
        "of its variance; take it out of x",
    )
    return f"the label explains {percent(float(most), 0)} of an input's variance at most"


def check_network(case: TaskCase) -> str:
    """The network has 'post' sites in front of a read-out, and is drawn from torch's global generator alone."""
    net, (one, other) = case.built(0, 1)
    _, (again,) = case.built(0)
    expect_same("the network, built again with the same seed,", again, one)
    same = [name for name in one if name.endswith("weight") and torch.equal(one[name], other[name])]
    expect(not same, f"{listed(same)} is the same for two seeds; initialise it from torch's global generator")
    expect(bool(net.keys("post")), "the network has no Site('post'): most rules could not teach it anything")
    expect(bool(net.readout), "no parameter lies behind the last site; leave the read-out without one")
    hidden = [name for name in net.shapes if name not in net.readout]
    expect(bool(hidden), "no parameter lies in front of a site: there is nothing hidden to be taught")
    return f"{len(net.keys('post'))} visits of 'post' sites"


def check_seeds_together(case: TaskCase) -> None:
    """Seeds trained together by torch.func.vmap equal seeds trained one by one."""
    net, params = case.built(0, 1)
    x, y = case.batch(8)
    stacked = {name: torch.stack([p[name] for p in params]) for name in params[0]}

    def gradient(p: Tensors) -> Tensors:
        return credit.backprop(net, case.task.loss, p, x, y)[0]

    together = torch.func.vmap(gradient)(stacked)
    for seed, alone in enumerate(params):
        for name, grad in gradient(alone).items():
            expect_close(f"the gradient of {name}, next to another seed,", together[name][seed], grad, 1e-3)


def check_loss(case: TaskCase) -> str:
    """The loss is one finite number for each example, told by that example alone, and has a gradient."""
    x, y = case.batch()
    leaf = _output(case, x).requires_grad_()
    losses = case.task.loss(leaf, y)
    expect_finite("of a batch", {"loss": losses.detach()})
    alone = case.task.loss(leaf[:1], y[:1])
    expect_close("the loss of one example alone", alone.detach(), losses[:1].detach(), COMPANY)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    expect_finite("of the loss by the output", {"gradient": gradient})
    expect(
        bool(gradient.any()), "the gradient of the loss by the output is zero: nothing can be learnt from it"
    )
    return f"{float(losses.detach().mean()):.3g} before training"


def check_score(case: TaskCase) -> str:
    """The score is one finite number for each example, and the right answer scores higher than chance."""
    x, y = case.batch()
    output = _output(case, x)
    scores = case.task.score(output, y).double()
    expect_finite("of a batch", {"score": scores})
    alone = case.task.score(output[:1], y[:1]).double()
    expect_close("the score of one example alone", alone, scores[:1], COMPANY)
    right = _right_answers(output, y)
    if right is None:
        return "right answers are not known"
    best = float(case.task.score(right, y).double().mean())
    expect(
        best > case.task.chance,
        f"right answers score {best:.3g}, no more than chance = {case.task.chance:.3g}",
    )
    return f"right answers score {best:.3g}"


def _right_answers(output: Tensor, y: Tensor) -> Tensor | None:
    """Outputs that say the target: one-hot for labels, the target itself for numbers of the output's shape.

    A label below 0 marks an answer that does not count, and any answer is right there.
    """
    if not y.is_floating_point() and output.shape[:-1] == y.shape:
        return torch.nn.functional.one_hot(y.clamp_min(0), output.shape[-1]).to(output.dtype)
    return y.to(output.dtype) if output.shape == y.shape else None


def _output(case: TaskCase, x: Tensor) -> Tensor:
    return case.net.run(case.net.init_params(), x).detach()


def check_chance(case: TaskCase) -> str:
    """Neither an untrained network nor the same answer for every example beats chance by much."""
    net, params = case.built(*range(3))
    x, y = (part[:500] for part in case.inputs.validation)
    untrained = sum(float(case.task.score(net.run(p, x), y).double().mean()) for p in params) / len(params)
    guesses = {"an untrained network": untrained}
    if y.ndim == 1 and not y.is_floating_point() and len(net.output_shape) == 1:
        labels = case.data.train.y
        commonest = torch.full_like(y, int(labels[labels >= 0].mode().values))
        guess = torch.nn.functional.one_hot(commonest, net.output_shape[0]).to(x.dtype)
        guesses["the commonest label"] = float(case.task.score(guess, y).double().mean())
    share = min(max(case.task.chance, 0.0), 1.0)
    luck = max(
        LUCK, 3 * math.sqrt(share * (1 - share) / len(y))
    )  # or three standard errors of a few examples
    for who, score in guesses.items():
        expect(
            score < case.task.chance + luck,
            f"{who} scores {score:.3g}, and chance is declared to be {case.task.chance:.3g}; correct it, or balance "
            "the data",
        )
    return (
        ", ".join(f"{who} {score:.3g}" for who, score in guesses.items()) + f"; chance {case.task.chance:.3g}"
    )


def check_learnable(case: TaskCase) -> str:
    """In a few steps of backprop the training loss falls."""
    net, (params,) = case.built(0)
    leaves = {name: p.clone() for name, p in params.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=case.task.budget.lr)
    losses = []
    for t in range(STEPS):
        batch = case.batch(start=t * BATCH % max(1, len(case.data.train.y) - BATCH))
        grads, mean = credit.backprop(net, case.task.loss, leaves, *batch)
        losses.append(float(mean))
        for name, leaf in leaves.items():
            leaf.grad = grads[name]
        optimiser.step()
    few = max(1, STEPS // 6)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    expect(last < first, f"in {STEPS} steps of backprop the loss went from {first:.3g} to {last:.3g}")
    return f"loss {first:.3g} → {last:.3g} in {STEPS} steps"
