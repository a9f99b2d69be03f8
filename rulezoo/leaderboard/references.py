"""Published results to hold ours against, each with its citation and set-up.

Only numbers that were read in their source are here. Nearly all come from one network, one seed and a budget far
from ours, so most of them have no run of ours that could reproduce them: `verdict` says so, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from rulezoo.leaderboard.published import Published, Source
from rulezoo.leaderboard.small_networks import SMALL

if TYPE_CHECKING:
    from rulezoo.options import Value
    from rulezoo.results.records import Record

State = Literal["reproduced", "not reproduced", "not run"]

WITHIN = 0.01  #: of the published score, as a fraction of 1, the mean of our seeds counts as reproduced


class Verdict(NamedTuple):
    """Whether a number is reproduced; ``ours`` is our mean on the task of the same data, if we have one."""

    state: State
    why: str
    ours: float | None


BIOTORCH = Source(
    citation="Sanfiz & Akrout 2021, Benchmarking the accuracy and robustness of feedback alignment algorithms "
    "(biotorch, Benchmarks.md)",
    link="https://arxiv.org/abs/2108.13446",
    seeds=1,
    setting="45,000 of 50,000 training examples of CIFAR-10, 250 epochs, batch 128, weight decay 1e-4, learning rate "
    "lowered at epochs 100, 150 and 200; LeNet here is three convolutions and a dense layer",
)
NOKLAND = Source(
    citation="Nøkland 2016, Direct feedback alignment provides learning in deep neural networks",
    link="https://arxiv.org/abs/1609.01596",
    seeds=0,
    setting="permutation-invariant MNIST, with dropout (the abstract's number)",
)
AKROUT = Source(
    citation="Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, Deep learning without weight transport (logs of the "
    "authors' public code, Deep-Learning-without-Weight-Transport)",
    link="https://arxiv.org/abs/1904.05391",
    seeds=1,
    setting="one hidden layer of sigmoid units, all training examples, SGD with batches of 128, 400 epochs; the last of them",
)

_DATA = (
    "CIFAR-10",
    "CIFAR-10",
    "CIFAR-10",
    "CIFAR-10",
    "CIFAR-10",
    "CIFAR-10",
    "MNIST",
    "Fashion-MNIST",
    "ImageNet",
)
_NETWORK = (
    *("LeNet, SGD", "LeNet, Adam", "ResNet-20, SGD", "ResNet-20, Adam", "ResNet-56, SGD", "ResNet-56, Adam"),
    *("as in the source", "as in the source", "ResNet-18"),
)
_SAME = "LeNet, Adam"  # the network that has a task with the same training
_RATES = {"feedback-alignment": 1e-4, "direct-feedback-alignment": 1e-4}  # with Adam on LeNet; else 1e-3
_TRAINING: dict[str, Value] = {"epochs": 250, "batch": 128, "optimizer": "Adam", "weight_decay": 1e-4}
_TRAINING |= {"schedule": "MultiStepLR", "schedule.milestones": "100,150,200"}
_WHOLE: dict[str, Value] = {"width": 1.0, "augment": True, "examples": None}


def _task(data: str, network: str) -> str:
    """Our task on the same data, with the network that is nearest."""
    if data == "CIFAR-10":
        return {"LeNet": "cifar10-lenet", "ResNet-20": "cifar10-resnet20"}.get(
            network.split(",")[0], "cifar10-cnn"
        )
    return {"MNIST": "mnist-mlp", "Fashion-MNIST": "fashion-cnn"}.get(data, "")


_ERRORS = {  # top-1 error in %, in the order of _NETWORK
    "backprop": (14.23, 15.92, 8.63, 10.01, 8.30, 7.83, 0.91, 9.20, 30.39),
    "feedback-alignment": (46.69, 40.67, 32.16, 29.59, 34.88, 29.23, 1.70, 13.06, 85.25),
    "direct-feedback-alignment": (54.21, 37.59, 45.94, 32.16, 38.01, 32.02, 1.61, 12.81, 82.45),
    "usf": (16.22, 16.34, 10.05, 10.59, 8.20, 9.19, 0.94, 9.69, 34.97),
    "brsf": (16.02, 17.08, 11.02, 11.08, 8.69, 10.13, 0.91, 10.02, 37.21),
    "frsf": (16.86, 16.83, 11.20, 11.22, 9.49, 10.02, 0.97, 9.61, 36.50),
}

_SIGMOID = {  # test accuracy in % after 400 epochs, of MNIST and CIFAR-10, and the learning rate
    "backprop": (98.50, 48.18, 0.2),
    "feedback-alignment": (97.80, 42.96, 0.2),
    "weight-mirror": (98.49, 46.20, 0.05),
    "kolen-pollack": (98.45, 47.57, 0.3),
}


def _sigmoid(rule: str, data: str, network: str, task: str, score: float) -> Published:
    budget: dict[str, Value] = {"epochs": 400, "batch": 128, "optimizer": "SGD", "lr": _SIGMOID[rule][2]}
    budget |= {"schedule": "constant", "weight_decay": 0.0}
    return Published(
        rule, data, network, round(score / 100, 4), AKROUT, task, True, budget, {"examples": None}
    )


PUBLISHED = (
    *(
        Published(
            rule,
            data,
            network,
            round(1 - error / 100, 4),
            BIOTORCH,
            _task(data, network),
            same=network == _SAME,
            budget={**_TRAINING, "lr": _RATES.get(rule, 1e-3)} if network == _SAME else {},
            task_options=_WHOLE if network == _SAME else {},
        )
        for rule, errors in _ERRORS.items()
        for data, network, error in zip(_DATA, _NETWORK, errors, strict=True)
    ),
    Published("direct-feedback-alignment", "MNIST", "dense layers", 0.9855, NOKLAND, "mnist-mlp"),
    *(
        _sigmoid(rule, data, network, task, score)
        for rule, (mnist, cifar, _) in _SIGMOID.items()
        for data, network, task, score in (
            ("MNIST", "784-500-10, sigmoid", "mnist-sigmoid-mlp", mnist),
            ("CIFAR-10", "3072-1000-10, sigmoid", "cifar10-sigmoid-mlp", cifar),
        )
    ),
    *SMALL,
)
"""Every number."""


def of_rule(rule: str) -> Sequence[Published]:
    """The published numbers of a rule."""
    return [one for one in PUBLISHED if one.rule == rule]


def _has(found: Mapping[str, Value], wanted: Mapping[str, Value]) -> bool:
    return all(name in found and found[name] == value for name, value in wanted.items())


def matching(published: Published, records: Iterable[Record]) -> list[float]:
    """The test scores of our runs of the rule that have the published options and budget."""
    from rulezoo.leaderboard.grid import test_score

    return [
        score
        for r in records
        if (r.asked.rule, r.asked.task) == (published.rule, published.task)
        and set(r.changed) <= published.budget.keys() | published.options.keys()
        and _has(r.asked.rule_options, published.options)
        and _has(r.asked.budget, published.budget)
        and _has(r.asked.task_options, published.task_options)
        if (score := test_score(r)) is not None
    ]


def verdict(published: Published, records: Iterable[Record]) -> Verdict:
    """Hold our runs of the rule, with the published options and budget, against a published number."""
    runs = matching(published, records)
    ours = sum(runs) / len(runs) if runs else None
    if not published.task:
        return Verdict("not run", "we have no task on these data", ours)
    if not published.same:
        return Verdict("not run", f"our {published.task} is another network, trained for another time", ours)
    if ours is None or len(runs) < published.runs:
        epochs = published.budget.get("epochs")
        length = f" of {epochs} epoch{'' if epochs == 1 else 's'}" if epochs else ""
        return Verdict("not run", f"we have {len(runs)} of the {published.runs} runs{length} it takes", ours)
    far, allowed = abs(ours - published.score), max(WITHIN, published.spread)
    mean = f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"
    words = f"{100 * far:.1f} points away, {mean}; at most {100 * allowed:g} were asked for"
    return Verdict("reproduced" if far <= allowed else "not reproduced", words, ours)
