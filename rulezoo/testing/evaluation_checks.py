"""Checks of an evaluation: that it is pure, and measures what `rulezoo.Evaluation` promises.

They run on the trained tiny networks, and on those of tasks that are named. The first line of a check's docstring is the
promise to which it holds an evaluation, as a report prints it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rulezoo.evaluation import Evaluation, Measurement
from rulezoo.evaluations.measuring import check_measurement
from rulezoo.inputs import prepared
from rulezoo.rule import LearningRule
from rulezoo.seeding import initial_network
from rulezoo.specs import EvaluationSpec
from rulezoo.task import DataMissing, Task
from rulezoo.testing.expect import (
    CheckFailed,
    NotApplicable,
    NotExamined,
    expect,
    expect_same,
    expect_sentence,
)
from rulezoo.trained import TrainedNetwork

STEPS = 30  # of Adam, in which a network becomes another than it was at the start


@dataclass(frozen=True)
class EvaluationCase:
    """An evaluation with the networks that it is checked on.

    Attributes:
        evaluation: the evaluation.
        spec: what its plugin says about it, or ``None`` for a bare evaluation.
        root: the folder of data sets.
        networks: name → how to get a trained network.
    """

    evaluation: Evaluation
    spec: EvaluationSpec | None
    root: Path | None
    networks: Mapping[str, Callable[[], TrainedNetwork]] = field(repr=False)

    @property
    def subject(self) -> Evaluation:
        """The evaluation, as checks of options know it."""
        return self.evaluation

    @cached_property
    def trained(self) -> dict[str, TrainedNetwork]:
        """Every network, made once."""
        return {name: make() for name, make in self.networks.items()}

    @cached_property
    def reasons(self) -> dict[str, str | None]:
        """Name of a network → why the evaluation skips it."""
        return {name: self.evaluation.skip(network) for name, network in self.trained.items()}

    @cached_property
    def first(self) -> dict[str, Measurement]:
        """The measurement of each network that is served; the numbers of the global generators are known."""
        found = {}
        for name, reason in self.reasons.items():
            if reason is None:
                _seed_global_generators(0)
                found[name] = self.measured(name)
        return found

    def measured(self, name: str) -> Measurement:
        """One measurement, checked."""
        try:
            found = self.evaluation.measure(self.trained[name], self.root)
        except DataMissing as missing:
            raise NotExamined(f"the data are not here: {missing}") from missing
        check_measurement(self.evaluation, found)
        return found

    def served(self) -> dict[str, Measurement]:
        """The measurements; a check does not apply where there is none."""
        try:
            found = self.first
        except NotExamined as reason:
            raise NotApplicable(str(reason)) from reason
        if not found:
            raise NotApplicable("the evaluation skips every network that it is checked on")
        return found


def _seed_global_generators(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the generator that an impure evaluation would use


def trained_network(
    name: str, task: Task, root: Path | None = None, seed: int = 0, device: str = "cpu"
) -> TrainedNetwork:
    """A network of a task after a few steps of Adam.

    Args:
        name: of the task.
        task: the task.
        root: the folder of data sets.
        seed: of the initial weights.
        device: where it is.

    Raises:
        NotExamined: if the data of the task are missing.
    """
    try:
        start = _network(name, task, seed, initial_network(task, seed).state_dict(), root, device)
        data = start.data(root)
    except DataMissing as missing:
        raise NotExamined(f"the data of task {name!r} are not here: {missing}") from missing
    module = start.model().to(device).train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=task.budget.lr)
    order = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        which = torch.randperm(len(data.train.y), generator=order)[: task.budget.batch]
        optimizer.zero_grad()
        loss = task.loss(module(data.train.x[which]), data.train.y[which.to(data.train.y.device)]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trained = _network(name, task, seed, module.state_dict(), root, device)
    scores = {
        part: float(task.score(trained.predict(split.x), split.y).mean())
        for part, split in (("validation", data.validation), ("test", data.test))
    }
    return TrainedNetwork(**{**vars(trained), "scores": scores})


def _network(
    name: str, task: Task, seed: int, weights: Mapping[str, Tensor], root: Path | None, device: str
) -> TrainedNetwork:
    example = prepared(task.data(root), task, torch.device(device)).train.x[:2]
    return TrainedNetwork.from_state_dict(
        weights,
        example.to(device),
        rule="trained",
        task=name,
        seed=seed,
        made_rule=LearningRule(),
        made_task=task,
    )


def check_evaluation_spec(case: EvaluationCase) -> None:
    """The spec tells the truth: it loads a documented Evaluation whose defaults work."""
    if case.spec is None:
        raise NotApplicable("a bare evaluation has no spec")
    loaded = case.spec.load()
    expect(issubclass(loaded, Evaluation), f"{case.spec.target} is not a subclass of rulezoo.Evaluation")
    expect(bool(case.spec.summary.strip()), f"the spec of {case.spec.name} has no summary")
    expect(bool((vars(loaded).get("__doc__") or "").strip()), f"{case.spec.target} has no docstring")
    loaded()


def check_headline(case: EvaluationCase) -> str:
    """The value for the leaderboard is named, with the direction that is better."""
    headline = getattr(case.evaluation, "headline", None)
    expect(
        isinstance(headline, str) and bool(headline),
        f"headline must be the name of a value, got {headline!r}",
    )
    better = case.evaluation.higher_is_better
    expect(better in (True, False, None), f"higher_is_better must be True, False or None, got {better!r}")
    return case.evaluation.headline_in_words()


def check_applies(case: EvaluationCase) -> str:
    """It measures at least one network; skip() says in a sentence why not another."""
    for reason in case.reasons.values():
        if reason is not None:
            expect_sentence(reason)
    if not case.first:
        each = "; ".join(f"{name}: {reason}" for name, reason in case.reasons.items())
        raise NotExamined(f"the evaluation skips every network that it was to be checked on ({each})")
    return f"on {', '.join(case.first)}"


def check_values(case: EvaluationCase) -> str:
    """Values are finite, or notes say why not; the headline is among them."""
    number = {name: len(found.values) for name, found in case.served().items()}
    undetermined = sum(math.isnan(v) for found in case.first.values() for v in found.values.values())
    rest = f", {undetermined} with a reason in place of a number" if undetermined else ""
    return f"{sum(number.values())} values on {len(number)} networks{rest}"


def check_repeatable(case: EvaluationCase) -> None:
    """The same network gives the same numbers, whatever the state of global random generators."""
    for seed, (name, first) in enumerate(case.served().items(), start=1):
        _seed_global_generators(seed)
        second = case.measured(name)
        expect(
            first.values.keys() == second.values.keys(), f"on {name} a second measurement has other values"
        )
        for value, number in first.values.items():
            other = second.values[value]
            same = number == other or (math.isnan(number) and math.isnan(other))
            expect(
                same,
                f"on {name} {value!r} is {number:g}, and {other:g} in a second measurement; draw random numbers from a "
                "generator with a seed that is an option",
            )
        _expect_same_arrays(name, first, second)


def _expect_same_arrays(name: str, first: Measurement, second: Measurement) -> None:
    for array, content in first.arrays.items():
        other = second.arrays.get(array)
        same = other is not None and content.shape == other.shape
        same = same and np.array_equal(content, other, equal_nan=content.dtype.kind in "fc")  # type: ignore[arg-type]
        expect(bool(same), f"on {name} the array {array!r} is not the same in a second measurement")


def check_network_unmodified(case: EvaluationCase) -> None:
    """It leaves the network as it was."""
    for name in case.served():
        network = case.trained[name]
        before = {key: value.detach().clone() for key, value in network.state_dict().items()}
        case.measured(name)
        expect_same(f"the network on {name}, after a measurement", network.state_dict(), before)


def check_other_network(case: EvaluationCase) -> None:
    """What it measures comes from the network that it is given: it also measures the untrained one."""
    for name in case.served():
        network = case.trained[name].untrained()
        if case.evaluation.skip(network) is None:
            try:
                check_measurement(case.evaluation, case.evaluation.measure(network, case.root))
            except Exception as error:
                raise CheckFailed(
                    f"on the untrained network of {name}: {type(error).__name__}: {error}"
                ) from error
