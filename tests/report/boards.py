"""Leaderboards of any size, hand-made: the same numbers give the same records."""

import random

from rulezoo.discovery.registry import discover
from rulezoo.tuning.records import Tried, Tuned

TASKS = (
    *("digits-mlp", "digits-cnn", "mnist-mlp", "fashion-cnn", "cifar10-cnn", "cifar10-lenet"),
    *("cifar10-resnet20", "cifar100-resnet20", "digits-rnn", "fashion-rnn", "adding-rnn", "flip-flop-rnn"),
)  #: the first are shown on the smaller leaderboards
SEEDS = 5


def board(run, rules, tasks):
    """``rules`` × ``tasks`` × 5 seeds, half of the rules tuned and half with their defaults kept, and their tunings.

    One rule diverges once, and one skips a task and so is not ranked.
    """
    rng = random.Random(0)
    names = [*discover().rules][:rules]
    quality = {name: 1.0 if name == "backprop" else rng.uniform(0.3, 1.0) ** 0.5 for name in names}
    costs = {name: 1.0 if name == "backprop" else rng.uniform(0.5, 6.0) for name in names}
    records, tunings = [], []
    for place, name in enumerate(names):
        is_tuned = place % 2 == 1
        for t, task in enumerate(TASKS[-tasks:] if tasks == len(TASKS) else TASKS[:tasks]):
            skips = place == 5 and t == 0
            for lr in (None, 0.01) if is_tuned and not skips else (None,):
                best = quality[name] + (0.03 if lr and name != "backprop" else 0)
                found = [
                    _record(run, rng, name, task, seed, lr, (0.95 - 0.03 * t) * best, costs[name], skips)
                    for seed in range(SEEDS)
                ]
                if place == 7 and t == 0 and not lr:
                    found[2] = run(name, task, 2, None, status="diverged", reason="not finite at step 4")
                records += found
                if not skips and bool(lr) == is_tuned:
                    tunings.append(_tuning(found[0], lr))
    return records, tunings


def _record(run, rng, name, task, seed, lr, mean, cost, skips):
    asked = {"rule_options": {"lr": lr}}
    if skips:
        return run(
            name, task, seed, None, cost=None, status="skipped", reason="needs recurrence", asked=asked
        )
    test = min(1.0, max(0.1, rng.gauss(mean, 0.01)))
    return run(
        name, task, seed, test, cost=cost * rng.uniform(0.9, 1.1), asked=asked, changed=["lr"] if lr else []
    )


def _tuning(record, lr):
    trial = Tried(set={"lr": lr} if lr else {}, runs=[], status="ok", validation=0.5)
    return Tuned(asked=record.asked, given={}, n=8, trials=[trial], best=0, seeds=[1000], sampler="random")
