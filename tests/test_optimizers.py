"""Budgets of torch's optimisers: every one of them is right for many seeds at once, or refused in a sentence."""

import math
import re
from dataclasses import dataclass, replace

import pytest
import torch

from rulezoo import Batch, LearningRule, Step, credit
from rulezoo.comparison.contract import budget_problem
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training import optimizers, schedules
from rulezoo.training.batches import Batches
from rulezoo.training.torch_classes import subclasses
from rulezoo.training.trainer import Trainer, build

CPU = torch.device("cpu")
SEEDS = (3, 0, 7)
STEPS = 12
CLOSE = 1e-10  # rounding in float64, where sums of several seeds come out in another order
BUDGET = Budget(epochs=2, batch=16, lr=0.01)
ALL = sorted(subclasses(torch.optim, torch.optim.Optimizer))
TRAINING = [name for name in ALL if name not in optimizers.REFUSED]
WITH_OPTIONS = [
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("AdamW", {"betas": [0.8, 0.95], "amsgrad": True}),
    ("NAdam", {"decoupled_weight_decay": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adagrad", {"lr_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("Adafactor", {"d": 2.0, "beta2_decay": -0.5}),
]


class Tiny(TinyTask):
    """A tiny task in float64."""

    def data(self, root=None, *, download=False):
        return Data(*(Split(part.x.double(), part.y) for part in super().data()))

    def network(self):
        return super().network().double()


@dataclass(frozen=True)
class Plain(LearningRule):
    """Backprop that leaves the last parameter alone."""

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        del grads[list(params)[-1]]
        return Step(grads, state, mean)


class Decoupled(Plain):
    decoupled_decay = True


class Rated(Plain):
    """Factors on the learning rate; one of them 0."""

    def rates(self, net):
        names = list(net.shapes)
        return {names[1]: 0.25, names[2]: 0.0}


def trainer(rule, seeds, budget, steps=STEPS, task=None):
    task = task or Tiny()
    train = task.data().train
    net, values = build(task, seeds, train.x[:2], CPU)
    batches = Batches(train, budget.batch, seeds)
    first = batches.take(batches.epoch(0)[:, 0])
    return Trainer(rule, net, task.loss, values, first, seeds, budget, steps), batches


def trained(rule, seeds, budget, steps=STEPS, task=None):
    """Each seed's parameters after some steps."""
    made, batches = trainer(rule, seeds, budget, steps, task)
    for t in range(steps):
        epoch, place = divmod(t, batches.per_epoch)
        made.step(batches.take(batches.epoch(epoch)[:, place]))
    return [{n: p if len(seeds) == 1 else p[i] for n, p in made.trained.items()} for i in range(len(seeds))]


def by_hand(rule, seed, budget, make, schedule=lambda optimizer: None, steps=STEPS, clip=None):
    """The same with a plain loop of torch.

    Args:
        rule: a rule without memory.
        seed: the seed.
        budget: for the batches.
        make: makes an optimiser of a list of groups of parameters with learning rates.
        schedule: makes a schedule of the optimiser, which takes a step after each training step.
        steps: how many.
        clip: largest norm.
    """
    task = Tiny()
    data = task.data().train
    net, (values,) = build(task, [seed], data.x[:2], CPU)
    params = {n: p.clone() for n, p in values.params.items()}
    rates = rule.rates(net)
    optimizer = make([{"params": [p], "lr": budget.lr * rates.get(n, 1.0)} for n, p in params.items()])
    moving = schedule(optimizer)
    batches = Batches(data, budget.batch, [seed])
    for t in range(steps):
        epoch, place = divmod(t, batches.per_epoch)
        taken = batches.take(batches.epoch(epoch)[:, place])
        grads = rule.step(net, task.loss, params, None, Batch(taken.x[0], taken.y[0]), {}, t).grads
        for n, p in params.items():
            p.grad = grads.get(n)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(params.values(), clip)
        optimizer.step()
        if moving is not None:
            moving.step()
    return params


def same(one, other, tolerance=CLOSE):
    return all(torch.allclose(one[n], other[n], rtol=tolerance, atol=tolerance) for n in one)


def test_every_optimiser_of_torch_is_known_and_in_one_class():
    """A new one in torch has to be looked at: is it element-wise, per tensor, or neither?"""
    classes = [optimizers.ELEMENTWISE, optimizers.WHOLE, optimizers.REFUSED.keys()]
    assert sorted(name for names in classes for name in names) == ALL
    assert optimizers.names() == TRAINING


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in TRAINING), *WITH_OPTIONS])
def test_seeds_together_are_seeds_one_by_one_and_torch_by_hand(name, options):
    decay = 0.0 if name == "Rprop" else 0.1
    budget = replace(BUDGET, optimizer=name, optimizer_options=options, weight_decay=decay)
    assert budget_problem(budget) is None
    together = trained(Plain(), SEEDS, budget)
    words = {**options, **({} if name == "Rprop" else {"weight_decay": decay})}
    if "betas" in words:
        words["betas"] = tuple(words["betas"])
    for place, seed in enumerate(SEEDS):
        (alone,) = trained(Plain(), [seed], budget)
        assert same(together[place], alone)
        assert same(alone, by_hand(Plain(), seed, budget, lambda p: getattr(torch.optim, name)(p, **words)))
    assert not same(together[0], together[1], 1e-3)


def test_an_optimiser_of_whole_tensors_would_be_wrong_over_stacked_ones(monkeypatch):
    """Why there are two classes, and that the test above can tell."""
    budget = replace(BUDGET, optimizer="Adafactor")
    (alone,) = trained(Plain(), SEEDS[:1], budget)
    monkeypatch.setattr(optimizers, "ELEMENTWISE", optimizers.ELEMENTWISE | {"Adafactor"})
    assert not same(trained(Plain(), SEEDS, budget)[0], alone, 1e-4)


@pytest.mark.parametrize("kind", ["cnn", "rnn"])
def test_an_optimiser_of_whole_tensors_takes_any_network(kind):
    budget = replace(BUDGET, optimizer="Adafactor")

    class Kind(Tiny):
        def network(self):
            return TinyTask(kind).network().double()

        def data(self, root=None, *, download=False):
            return Data(*(Split(part.x.double(), part.y) for part in TinyTask(kind).data()))

    together = trained(Plain(), SEEDS, budget, task=Kind())
    for place, seed in enumerate(SEEDS):
        assert same(together[place], trained(Plain(), [seed], budget, task=Kind())[0])


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS], ids=["alone", "together"])
@pytest.mark.parametrize("name", TRAINING)
def test_what_gets_no_gradient_keeps_every_bit(name, seeds):
    decay = 0.0 if name == "Rprop" else 0.5
    budget = replace(BUDGET, optimizer=name, weight_decay=decay, clip_norm=1.0, schedule="constant")
    made, batches = trainer(Plain(), seeds, budget)
    before = {n: p.clone() for n, p in made.trained.items()}
    for which in batches.epoch(0).unbind(1):
        made.step(batches.take(which))
    assert {n for n, p in made.trained.items() if torch.equal(p, before[n])} == {"readout.bias"}


@pytest.mark.parametrize("name", [name for name in TRAINING if name != "Rprop"])
def test_factors_multiply_what_the_schedule_gives(name):
    """ASGD reads the learning rate of a step at the step before it; so does the loop by hand."""
    budget = replace(BUDGET, optimizer=name, schedule="CosineAnnealingLR")
    cls = getattr(torch.optim, name)
    for seeds in (SEEDS[:1], SEEDS):
        got = trained(Rated(), seeds, budget)
        for place, seed in enumerate(seeds):
            truth = by_hand(
                Rated(),
                seed,
                budget,
                lambda p: cls(p, weight_decay=0.0),
                lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
            )
            assert same(got[place], truth)
    made, batches = trainer(Rated(), SEEDS, budget)
    before = made.trained["fc2.weight"].clone()
    made.step(batches.take(batches.epoch(0)[:, 0]))
    assert torch.equal(made.trained["fc2.weight"], before)


def test_rprop_refuses_factors_which_it_could_not_heed():
    with pytest.raises(ValueError, match="Rprop finds its own step sizes, on which the rule's factors"):
        trainer(Rated(), SEEDS, replace(BUDGET, optimizer="Rprop"))


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS], ids=["alone", "together"])
@pytest.mark.parametrize("name", TRAINING)
def test_a_decoupled_decay_shrinks_alike_under_every_optimiser(name, seeds):
    """After one of STEPS equal steps: p exp(-decay / STEPS) and what the optimiser adds without decay."""
    decay = 0.5
    budget = replace(BUDGET, optimizer=name, lr=0.1)
    plain, batches = trainer(Plain(), seeds, budget)
    shrunk, _ = trainer(Decoupled(), seeds, replace(budget, weight_decay=decay))
    before = {n: p.clone() for n, p in plain.trained.items()}
    batch = batches.take(batches.epoch(0)[:, 0])
    for made in (plain, shrunk):
        made.step(batch)
    asgd = 1 - budget.lr * 1e-4 if name == "ASGD" else 1.0  # it shrinks parameters by its own lambd, too
    for n, p in list(plain.trained.items())[:-1]:
        kept = math.exp(-decay / STEPS)
        # Adafactor's step is in proportion to the parameters, so it shrinks with them.
        expected = p * kept if name == "Adafactor" else p - before[n] * (1 - kept) * asgd
        assert torch.allclose(shrunk.trained[n], expected, rtol=0, atol=1e-12), n


# The numbers of stored results


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_short_names_give_the_numbers_of_stored_results_bit_for_bit(name, schedule):
    """The learning rate is lr · (1 + cos(πt/T))/2; AdamW and SGD are torch's fused ones."""

    budget = replace(BUDGET, optimizer=name, schedule=schedule, weight_decay=0.01, lr=0.0123)
    made, batches = trainer(Plain(), SEEDS, budget)
    params = {n: p.clone() for n, p in made.trained.items()}
    if name == "adam":
        optimizer = torch.optim.AdamW(params.values(), 1.0, weight_decay=0.01, fused=True)
    else:
        optimizer = torch.optim.SGD(params.values(), 1.0, momentum=0.9, weight_decay=0.01, fused=True)
    for t in range(STEPS):
        epoch, place = divmod(t, batches.per_epoch)
        batch = batches.take(batches.epoch(epoch)[:, place])
        grads = made.gradients(batch)[0]
        made._descend(grads)
        made.t += 1
        factor = (1 + math.cos(math.pi * t / STEPS)) / 2 if schedule == "cosine" else 1.0
        optimizer.param_groups[0]["lr"] = budget.lr * factor
        for n, p in params.items():
            p.grad = grads[n].contiguous() if n in grads else None
        optimizer.step()
        assert all(torch.equal(params[n], p) for n, p in made.trained.items())


# Clipping


@pytest.mark.parametrize("largest", [0.05, 100.0])
@pytest.mark.parametrize("name", ["sgd", "Adafactor"])
def test_each_seed_is_clipped_by_the_norm_of_its_own_gradients(name, largest):
    budget = replace(BUDGET, optimizer=name, clip_norm=largest)

    def make(groups):
        return (
            torch.optim.SGD(groups, momentum=0.9)
            if name == "sgd"
            else torch.optim.Adafactor(groups, weight_decay=0.0)
        )

    together = trained(Plain(), SEEDS, budget)
    for place, seed in enumerate(SEEDS):
        (alone,) = trained(Plain(), [seed], budget)
        assert same(together[place], alone)
        assert same(alone, by_hand(Plain(), seed, budget, make, clip=largest))
    unclipped = trained(Plain(), SEEDS, replace(budget, clip_norm=None))
    assert same(together[0], unclipped[0]) == (largest == 100.0)


def test_clipping_is_of_one_seed_alone_and_leaves_what_the_rule_returned():
    big, small = torch.full((2, 3), 4.0), torch.full((2,), 3.0)
    big[1] = 0.1
    small[1] = 0.1
    grads = {"w": big, "b": small}
    kept = {name: grad.clone() for name, grad in grads.items()}
    found = optimizers.clipped(grads, 1.0, 2)
    norm = torch.cat([found["w"][0], found["b"][:1]]).norm()
    assert norm == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(found["w"][1], big[1])
    assert torch.equal(found["b"][1], small[1])
    assert all(torch.equal(grads[name], kept[name]) for name in grads)
    big[0, 0] = torch.nan
    found = optimizers.clipped(grads, 1.0, 2)
    assert found["w"][0].isnan().all()
    assert torch.equal(found["w"][1], big[1])
    assert optimizers.clipped({}, 1.0, 2) == {}


# What cannot be


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimizer": "lion"}, r"budget.optimizer must be 'adam', 'sgd' or an optimiser of torch.optim \(ASGD, .*, SGD\), got 'lion'"),
        ({"optimizer": "adamw"}, r".*, got 'adamw'; did you mean 'AdamW'\?"),
        ({"optimizer": "Sgd"}, r".*, got 'Sgd'; did you mean 'sgd' or 'SGD'\?"),
        ({"optimizer": "RMSprob"}, r".*, got 'RMSprob'; did you mean 'RMSprop' or 'Rprop'\?"),
        ({"optimizer": None}, r"budget.optimizer must be .*, got None"),
        ({"optimizer": ["SGD"]}, r"budget.optimizer must be .*, got \['SGD'\]"),
        ({"optimizer": "LBFGS"}, "budget.optimizer: LBFGS cannot be used, because it evaluates the loss several times .*; use one of adam, .*"),
        ({"optimizer": "SparseAdam"}, "budget.optimizer: SparseAdam cannot be used, because it takes sparse gradients .*"),
        ({"optimizer": "Muon"}, "budget.optimizer: Muon cannot be used, because it takes matrices only.*"),
        ({"optimizer": "SGD", "optimizer_options": {"momentun": 0.9}}, r"budget.optimizer_options: SGD has no option 'momentun'; did you mean 'momentum'\?"),
        ({"optimizer": "SGD", "optimizer_options": {"x": 1}}, "budget.optimizer_options: SGD has no option 'x'; it has momentum, dampening, nesterov"),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": "0.9"}}, "budget.optimizer_options: momentum of SGD must be a number, got '0.9'"),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": float("nan")}}, "budget.optimizer_options: momentum must be a finite number, .*, got nan"),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": -1}}, r"budget.optimizer_options: torch refuses SGD\(momentum=-1\): Invalid momentum value: -1"),
        ({"optimizer": "sgd", "optimizer_options": {"nesterov": 1}}, "budget.optimizer_options: nesterov of SGD must be true or false, got 1"),
        ({"optimizer": "SGD", "optimizer_options": {"nesterov": True}}, r"budget.optimizer_options: torch refuses SGD\(nesterov=true\): Nesterov momentum requires .*"),
        ({"optimizer_options": {"betas": [0.9]}}, r"budget.optimizer_options: betas of AdamW must be 2 values \(a number, a number\), got \[0.9\]"),
        ({"optimizer_options": {"lr": 0.1}}, "budget.optimizer_options: lr cannot be given here; give it as the budget's lr"),
        ({"optimizer_options": {"weight_decay": 0.1}}, "budget.optimizer_options: weight_decay cannot be given here; give it as the budget's weight_decay"),
        ({"optimizer_options": {"maximize": True}}, "budget.optimizer_options: maximize cannot be given here; a step descends the loss"),
        ({"optimizer_options": 3}, "budget.optimizer_options must be a dictionary of options of AdamW, got 3"),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, "budget.weight_decay must be 0 with Rprop, which has no weight decay, got 0.1"),
        ({"optimizer": "Rprop", "schedule": "cosine"}, "budget.schedule must be 'constant', without warm-up, with Rprop, .*, got 'cosine'"),
        ({"clip_norm": 0}, "budget.clip_norm must be a number above 0, or none, got 0"),
        ({"clip_norm": -1.0}, "budget.clip_norm must be a number above 0, or none, got -1.0"),
        ({"clip_norm": float("inf")}, "budget.clip_norm must be a number above 0, or none, got inf"),
        ({"evaluation_batch": 0}, "budget.evaluation_batch must be a whole number, 1 or more, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(changes, sentence):

    found = budget_problem(replace(BUDGET, **changes))
    assert found is not None
    assert re.fullmatch(sentence, found), found


def test_a_rule_whose_decay_is_decoupled_has_one_with_an_optimiser_that_has_none():
    budget = replace(BUDGET, optimizer="Rprop", weight_decay=0.1)
    assert budget_problem(budget) is not None
    assert budget_problem(budget, decoupled=True) is None


def test_what_an_optimiser_keeps_has_the_shapes_that_were_foretold():
    """A checkpoint is held against them."""
    for name in TRAINING:
        made, batches = trainer(Plain(), SEEDS, replace(BUDGET, optimizer=name))
        like = made.optimizer_state_like()
        made.step(batches.take(batches.epoch(0)[:, 0]))
        kept = made.state_dict()["optimizer"]["state"]
        assert kept or name == "SGD"  # which keeps nothing without momentum
        for number, values in kept.items():
            assert values.keys() == like[number].keys(), name
            for key, value in values.items():
                assert (value.shape, value.dtype) == (like[number][key].shape, like[number][key].dtype), (
                    name,
                    key,
                )


def test_the_names_that_a_budget_takes_are_told_apart_by_case_only_where_torch_does():
    assert schedules.class_of("MultiStepLR") is torch.optim.lr_scheduler.MultiStepLR
    assert optimizers.class_of("adam") is torch.optim.AdamW
    assert optimizers.class_of("Adam") is torch.optim.Adam
