"""Training S seeds together: the same as one after the other, for every rule the same start and the same batches."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rulezoo import Batch, LearningRule, State, Step, credit
from rulezoo.seeding import generator, number
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build

# Sums come out in another order when several seeds are multiplied at once: rounding, times a dozen steps.
TOGETHER = {torch.float64: 1e-10, torch.float32: 1e-4}
SEEDS = (3, 0, 7, 1, 12)  # enough for the kernels of many seeds
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Everything(LearningRule):
    """Gradients made of all that a rule can have: noise, a parameter and a buffer of its own; one weight is left out."""

    def init(self, net, params, batch, gen):
        scale = 1 + torch.rand((), generator=gen, dtype=batch.x.dtype)
        first = batch.x.flatten(1).mean(0)
        return State({"scale": scale, "unused": first.clone()}, {"mean": first})

    def noise(self, net, state, batch, gen, t):
        shape = next(iter(net.shapes.values()))
        return {"z": torch.randn(shape, generator=gen, dtype=batch.x.dtype)} if t % 2 == 0 else {}

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        first, *_, last = grads
        if noise:
            grads[first] = grads[first] + 0.01 * state.params["scale"] * noise["z"]
        del grads[last]
        running = torch.lerp(state.buffers["mean"], batch.x.flatten(1).mean(0), 0.1)
        grads["rule.scale"] = state.params["scale"] - running.square().sum()
        return Step(grads, State(state.params, {"mean": running}), mean)


@dataclass(frozen=True)
class Given(LearningRule):
    """Whatever gradients its class was made with."""

    def step(self, net, loss, params, state, batch, noise, t):
        return Step(type(self).grads(params), state, loss(net.run(params, batch.x), batch.y).mean())


def given(function):
    """A rule whose gradients are ``function(params)``."""
    return type("GivenHere", (Given,), {"grads": staticmethod(function)})()


class Tiny(TinyTask):
    """A tiny task in a dtype."""

    dtype = torch.float64

    def data(self, root=None, *, download=False):
        return Data(*(Split(part.x.to(self.dtype), part.y) for part in super().data()))

    def network(self):
        return super().network().to(self.dtype)


class Tiny32(Tiny):
    dtype = torch.float32


BUDGET = Budget(epochs=2, batch=16, lr=0.01)


def trainer(rule, task, seeds, budget, steps=12):
    train = task.data().train
    net, params = build(task, seeds, train.x[:1], CPU)
    batches = Batches(train, budget.batch, seeds)
    first = batches.take(batches.epoch(0)[:, 0])
    return Trainer(rule, net, task.loss, params, first, seeds, budget, steps), batches


def train(rule, task, seeds, budget, steps=12):
    """All trained tensors of each seed after ``steps`` steps, and the losses ``(steps, S)``."""
    all_of_them, batches = trainer(rule, task, seeds, budget, steps)
    losses = []
    for epoch in range(-(-steps // batches.per_epoch)):
        for which in batches.epoch(epoch).unbind(1)[: steps - len(losses)]:
            losses.append(all_of_them.step(batches.take(which))[0])
    tensors = all_of_them.trained
    each = [{n: p if len(seeds) == 1 else p[i] for n, p in tensors.items()} for i in range(len(seeds))]
    return each, torch.stack(losses)


def by_hand(rule, task, seed, budget, steps=12):
    """One seed with nothing but torch's plain optimisers and schedules: the slow and obvious twin."""
    data = task.data().train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number(seed, "init"))
        module = task.network()
    net, _ = build(task, [seed], data.x[:1], CPU)
    params = {n: p.detach().clone() for n, p in module.named_parameters()}
    per_epoch = len(data.x) // budget.batch
    name = type(rule).__name__
    noise_gen = generator(seed, name, "noise")

    def batch(t):
        order = torch.randperm(len(data.x), generator=generator(seed, "order", t // per_epoch))
        which = order[t % per_epoch * budget.batch :][: budget.batch]
        return Batch(data.x[which], data.y[which])

    state = rule.init(net, params, batch(0), generator(seed, name, "init"))
    tensors = {**params, **{f"rule.{n}": p for n, p in state.params.items()}}
    decay = budget.weight_decay
    if budget.optimizer == "sgd":
        optimizer = torch.optim.SGD(grouped(rule, net, tensors, budget), momentum=0.9, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(grouped(rule, net, tensors, budget), weight_decay=decay)
    if budget.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    else:
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    losses = []
    for t in range(steps):
        this = batch(t)
        noise = rule.noise(net, state, this, noise_gen, t)
        step = rule.step(net, task.loss, params, state, this, noise, t)
        state = step.state
        for n, p in tensors.items():
            p.grad = step.grads.get(n)
        optimizer.step()
        schedule.step()
        for n, update in step.updates.items():
            tensors[n] += update
        losses.append(step.loss)
    return tensors, None if None in losses else torch.stack(losses)


def grouped(rule, net, tensors, budget):
    """Each parameter on its own, with its learning rate."""
    rates = rule.rates(net)
    return [{"params": [p], "lr": budget.lr * rates.get(n, 1)} for n, p in tensors.items()]


def near(one, two, tolerance):
    return all(
        torch.allclose(one[n], two[n], rtol=tolerance, atol=tolerance) for n in one.keys() | two.keys()
    )


@pytest.mark.parametrize("kind", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_seeds_trained_together_are_seeds_trained_by_hand(kind, optimizer):
    budget = replace(BUDGET, optimizer=optimizer, weight_decay=0.1, schedule="cosine")
    task = Tiny(kind)
    together, losses = train(Everything(), task, SEEDS, budget)
    for place, seed in enumerate(SEEDS):
        alone, alone_losses = train(Everything(), task, [seed], budget)
        truth, truth_losses = by_hand(Everything(), task, seed, budget)
        for tensors, loss in ((together[place], losses[:, place]), (alone[0], alone_losses[:, 0])):
            assert near(tensors, truth, TOGETHER[torch.float64])
            assert torch.allclose(loss, truth_losses, rtol=TOGETHER[torch.float64])
    assert not near(together[0], together[1], 1e-3)


def test_in_float32_they_differ_by_rounding_only():
    together, _ = train(Everything(), Tiny32(), SEEDS, BUDGET)
    for place, seed in enumerate(SEEDS):
        (alone,), _ = train(Everything(), Tiny32(), [seed], BUDGET)
        assert near(together[place], alone, TOGETHER[torch.float32])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_gets_no_gradient_keeps_every_bit(optimizer, seeds):
    """Neither weight decay nor momentum reach a parameter that is left out, be it the network's or the rule's."""
    budget = replace(BUDGET, optimizer=optimizer, weight_decay=0.5)
    all_of_them, batches = trainer(Everything(), Tiny(), seeds, budget)
    before = {n: p.clone() for n, p in all_of_them.trained.items()}
    for which in batches.epoch(0).unbind(1):
        all_of_them.step(batches.take(which))
    same = {n for n, p in all_of_them.trained.items() if torch.equal(p, before[n])}
    assert same == {"readout.bias", "rule.unused"}


@dataclass(frozen=True)
class Updating(Everything):
    """Updates for one parameter of the network and one of its own, of another layout; rates; a loss at times."""

    def rates(self, net):
        names = list(net.shapes)
        return {names[1]: 0.25, names[2]: 0.0, "rule.scale": 3.0}

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        last, own = list(params)[-1], state.params["unused"]
        updates = {last: 0.1 * params[last].cos(), "rule.unused": own.sum().expand(own.shape) * 0.01}
        return step._replace(updates=updates, loss=None)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_updates_and_rates_are_those_of_training_by_hand(optimizer):
    """Updates go past learning rate, momentum and decay; a rate multiplies what the schedule gives."""
    budget = replace(BUDGET, optimizer=optimizer, weight_decay=0.1, schedule="cosine")
    for seeds in (SEEDS, SEEDS[:1]):
        all_of_them, batches = trainer(Updating(), Tiny(), seeds, budget)
        before = {n: p.clone() for n, p in all_of_them.trained.items()}
        for epoch in range(2):
            for which in batches.epoch(epoch).unbind(1):
                assert all_of_them.step(batches.take(which))[0] is None
        for place, seed in enumerate(seeds):
            truth, _ = by_hand(Updating(), Tiny(), seed, budget)
            got = {n: p if len(seeds) == 1 else p[place] for n, p in all_of_them.trained.items()}
            assert near(got, truth, TOGETHER[torch.float64])
        same = {n for n, p in all_of_them.trained.items() if torch.equal(p, before[n])}
        assert same == {"fc2.weight"}  # whose rate is 0


def test_without_rates_the_optimiser_is_as_it_was():
    """One group, in the order of the parameters: checkpoints and numbers stay the same."""
    plain, _ = trainer(Everything(), Tiny(), [0], BUDGET)
    assert len(plain.optimizer.param_groups) == 1
    rated, _ = trainer(Updating(), Tiny(), [0], BUDGET)
    for one in (plain, rated):
        held = [p for group in one.optimizer.param_groups for p in group["params"]]
        assert all(p is q for p, q in zip(held, one.trained.values(), strict=True))


WRONG_STEPS = {
    "gradient of nothing": (
        {"grads": {"fc9.weight": torch.zeros(2)}},
        r"a gradient of 'fc9.weight', which is no parameter; use the names of parameters: 'fc1.weight', .*'rule.unused'",
    ),
    "update of nothing": (
        {"updates": {"fc9.weight": torch.zeros(2)}},
        "an update of 'fc9.weight', which is no parameter; use the names of parameters: 'fc1.weight', ",
    ),
    "shape of an update": (
        {"updates": {"fc1.bias": torch.zeros(5)}, "grads": {}},
        r"an update of 'fc1.bias' of shape \(5,\); expected shape \(8,\), that of the parameter: return one entry",
    ),
    "shape of a gradient": (
        {"grads": {"fc1.bias": torch.zeros(1)}},  # which could be broadcast
        r"a gradient of 'fc1.bias' of shape \(1,\); expected shape \(8,\), that of the parameter: return one entry",
    ),
    "shape of the rule's own": (
        {"updates": {"rule.scale": torch.zeros(1)}, "grads": {}},
        r"an update of 'rule.scale' of shape \(1,\); expected shape \(\), that of the parameter",
    ),
    "no tensor": (
        {"grads": {"fc1.bias": 0.0}},
        r"a gradient of 'fc1.bias' that is a float, not a tensor; expected shape \(8,\)",
    ),
    "both": (
        {"updates": {"fc1.bias": torch.zeros(8)}, "grads": {"fc1.bias": torch.zeros(8)}},
        "both a gradient and an update of 'fc1.bias'; return one of the two for each parameter",
    ),
}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize(("step", "message"), WRONG_STEPS.values(), ids=WRONG_STEPS)
def test_a_step_that_cannot_be_is_one_sentence_and_changes_nothing(step, message, seeds):
    class Wrong(Everything):
        def step(self, net, loss, params, state, batch, noise, t):
            return super().step(net, loss, params, state, batch, noise, t)._replace(**step)

    all_of_them, batches = trainer(Wrong(), Tiny(), seeds, BUDGET)
    before = {n: p.clone() for n, p in all_of_them.trained.items()}
    with pytest.raises(ValueError, match=message):
        all_of_them.step(batches.take(batches.epoch(0)[:, 0]))
    assert all(torch.equal(p, before[n]) for n, p in all_of_them.trained.items())


WRONG_RATES = {
    "unknown": (
        {"fc9.weight": 1.0},
        r"a factor for 'fc9.weight', which is no parameter; use the names of parameters: 'fc1.weight', .*'rule.unused'",
    ),
    "negative": (
        {"fc1.bias": -1.0},
        r"the factor -1.0 for 'fc1.bias'; expected a finite number, 0 or more: it multiplies the learning rate",
    ),
    "not a number": ({"fc1.bias": float("nan")}, "the factor nan for 'fc1.bias'; expected a finite number"),
    "infinite": ({"fc1.bias": float("inf")}, "the factor inf for 'fc1.bias'; expected a finite number"),
    "text": ({"fc1.bias": "fast"}, "the factor 'fast' for 'fc1.bias'; expected a finite number"),
    "none": ({"rule.scale": None}, "the factor None for 'rule.scale'; expected a finite number"),
}


@pytest.mark.parametrize(("rates", "message"), WRONG_RATES.values(), ids=WRONG_RATES)
def test_a_rate_that_cannot_be_is_one_sentence_before_training(rates, message):
    class Wrong(Everything):
        def rates(self, net):
            return rates

    with pytest.raises(ValueError, match=message):
        trainer(Wrong(), Tiny(), [0], BUDGET)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_how_a_gradient_lies_in_memory_does_not_matter(optimizer, seeds):
    """torch's fused optimisers on a CPU read memory as it lies, and would train other weights."""
    layouts = {
        "contiguous": lambda g: g,
        "transposed": lambda g: g.mT.contiguous().mT if g.ndim > 1 else g,
        "expanded": lambda g: g.sum().expand(g.shape),
        "summed": lambda g: g.sum().expand(g.shape).contiguous(),
    }

    def result(lay):
        rule = given(lambda params: {n: lay(p.cos()) for n, p in params.items()})
        return train(rule, Tiny(), seeds, replace(BUDGET, optimizer=optimizer), steps=3)[0][-1]

    results = {name: result(lay) for name, lay in layouts.items()}
    assert near(results["contiguous"], results["transposed"], 1e-12)
    assert near(results["summed"], results["expanded"], 1e-12)


def test_how_a_parameter_lies_in_memory_does_not_matter():
    class Transposed(Tiny):
        def network(self):
            module = super().network()
            for p in module.parameters():
                p.data = p.data.mT.contiguous().mT if p.ndim > 1 else p.data
            return module

    assert not dict(Transposed().network().named_parameters())["fc1.weight"].is_contiguous()
    (plain,), _ = train(Everything(), Tiny(), [0], BUDGET)
    (other,), _ = train(Everything(), Transposed(), [0], BUDGET)
    assert near(plain, other, 1e-12)


@pytest.mark.parametrize("wrong", [{"optimizer": "adamw"}, {"schedule": "linear"}])
def test_a_budget_that_is_not_understood_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        train(Everything(), Tiny(), [0], replace(BUDGET, **wrong), steps=1)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_seed_that_is_not_finite_is_told_from_the_others(seeds):
    all_of_them, _ = trainer(Everything(), Tiny(), seeds, BUDGET)
    assert all_of_them.finite().tolist() == [True] * len(seeds)
    all_of_them.params["fc2.weight"].view(len(seeds), -1)[-1, 5] = torch.inf
    assert all_of_them.finite().tolist() == [True] * (len(seeds) - 1) + [False]


def test_an_epoch_goes_once_through_the_examples_in_an_order_of_seed_and_epoch():
    split = Split(torch.arange(20.0), torch.arange(20))
    orders = {(s, e): Batches(split, 6, [s]).epoch(e)[0].flatten() for s in SEEDS for e in range(3)}
    assert all(len(order) == 18 == len(order.unique()) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == len(orders)
    together = Batches(split, 6, SEEDS)
    for epoch in (2, 0, 1):  # asked for in any order
        for place, seed in enumerate(SEEDS):
            assert torch.equal(together.epoch(epoch)[place].flatten(), orders[seed, epoch])


def test_the_last_short_batch_is_dropped_unless_it_is_the_only_one():
    split = Split(torch.arange(20.0), torch.arange(20))
    assert Batches(split, 6, [0]).epoch(0).shape == (1, 3, 6)
    assert Batches(split, 50, [0]).epoch(0).shape == (1, 1, 20)
    taken = Batches(split, 50, SEEDS).take(Batches(split, 50, SEEDS).epoch(0)[:, 0])
    assert torch.equal(taken.x, taken.y.float())


def test_initial_weights_depend_on_the_seed_alone():
    _, together = build(Tiny(), SEEDS, Tiny().data().train.x[:1], CPU)
    for place, seed in enumerate(SEEDS):
        torch.rand(5)  # whatever was drawn before
        _, (alone,) = build(Tiny(), [seed], Tiny().data().train.x[:1], CPU)
        assert all(torch.equal(p, together[place].params[n]) for n, p in alone.params.items())
    assert not torch.equal(together[0].params["fc1.weight"], together[1].params["fc1.weight"])


def test_the_global_generators_are_left_alone():
    torch.rand(1)  # from where the last test may have left it
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    train(Everything(), Tiny(), SEEDS, BUDGET, steps=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
