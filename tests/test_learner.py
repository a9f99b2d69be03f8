"""A rule in a loop of one's own: the plain torch loop for backprop, the Trainer's numbers for every rule."""

from __future__ import annotations

import copy
import functools
import io
import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

import rulezoo
from rulezoo import Budget, Data, Learner, LearningRule, Net, Site, Split, State, Step, credit
from rulezoo.discovery.registry import discover
from rulezoo.seeding import number
from rulezoo.testing import TinyTask
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.baselines.backprop import Backprop

EXACT = 1e-10  # rounding in float64, over a dozen steps
SUMS = 1e-12  # rounding of float64 where the same numbers are added in another order
SIZES = (16, 16, 16, 7) * 3  # of batches: every fourth is a shorter last one
RULES = discover()
NAMES = sorted(RULES.rules)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)).double()


class ConvNet(nn.Module):
    """Convolutions with BatchNorm, pooling and a skip connection."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.drop, self.fc = nn.Dropout(dropout), nn.Linear(36, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(x + self.bn2(self.conv2(x)))
        return self.fc(self.drop(x.flatten(1)))


def cnn(dropout=0.0):
    return ConvNet(dropout).double()


INPUTS = {mlp: (5,), cnn: (1, 6, 6)}


def batches(make, sizes=SIZES, seed=1):
    gen = torch.Generator().manual_seed(seed)
    shape = INPUTS.get(make, (5,))
    return [
        (
            torch.randn(n, *shape, generator=gen, dtype=torch.float64),
            torch.randint(3, (n,), generator=gen),
        )
        for n in sizes
    ]


def plain(model, loss, optimizer, data, after=lambda: None):
    """The loop of every script."""
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        after()
        losses.append(value.detach())
    return torch.stack(losses)


def learnt(learner, data, after=lambda: None):
    losses = []
    for x, y in data:
        losses.append(learner.step(x, y))
        after()
    return torch.stack(losses)


def same(one, other, tolerance=0.0):
    """Whether two modules, or dictionaries of tensors, hold the same numbers."""
    one, other = (m.state_dict() if isinstance(m, nn.Module) else m for m in (one, other))
    return one.keys() == other.keys() and all(
        torch.allclose(one[n], other[n], rtol=tolerance, atol=tolerance) for n in one
    )


def saved(state):
    """A state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()))


# The plain torch loop -----------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.05),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01),
    "fused": lambda ps: torch.optim.Adam(ps, lr=0.01, fused=True),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=0.01),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_backprop_is_the_plain_loop_step_by_step(make, optimizer):
    model = make()
    twin = copy.deepcopy(model)
    data = batches(make)
    learner = Learner("backprop", model, F.cross_entropy, optimizer(model.parameters()))
    reference = optimizer(twin.parameters())
    for one in data:
        losses = learnt(learner, [one]), plain(twin, F.cross_entropy, reference, [one])
        assert torch.allclose(*losses, rtol=EXACT)
        assert same(model, twin, EXACT)  # the statistics of BatchNorm, too
    assert learner.model() is model
    assert learner.t == len(data)
    if make is cnn:
        assert model.bn1.num_batches_tracked == len(data)


SCHEDULES = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 1)),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=len(SIZES) + 1),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, len(SIZES)),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [3, 6]),
}


@pytest.mark.parametrize("rule", ["backprop", "with its own parameters"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_on_ones_own_optimizer_go_on(schedule, rule):
    """Those of torch break where a group of parameters is added behind their back."""
    model = mlp()
    twin = copy.deepcopy(model)
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (model, twin))
    mine_at, reference_at = schedule(mine), schedule(reference)
    chosen = "backprop" if rule == "backprop" else WithOwn()
    learner = Learner(chosen, model, F.cross_entropy, mine)
    losses = learnt(learner, batches(mlp), mine_at.step)
    assert torch.allclose(losses, plain(twin, F.cross_entropy, reference, batches(mlp), reference_at.step))
    assert same(model, twin, EXACT)
    assert [group["lr"] for group in mine.param_groups] == [group["lr"] for group in reference.param_groups]


@dataclass(frozen=True)
class WithOwn(Backprop):
    """Backprop, and a parameter of its own that is trained as well."""

    def init(self, net, params, batch, gen):
        return State({"gain": torch.ones((), dtype=torch.float64)})

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        return step._replace(grads={**step.grads, "rule.gain": state.params["gain"] + batch.x.mean()})


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_rules_own_parameters_are_trained_as_the_models_are(optimizer):
    """As one more parameter of the same optimizer, whose learning rate may change from step to step."""
    model = mlp()
    learner = Learner(WithOwn(), model, F.cross_entropy, optimizer(model.parameters()))
    gain = nn.Parameter(torch.ones((), dtype=torch.float64))
    truth = optimizer([gain])
    schedules = [lr_scheduler.ExponentialLR(o, 0.7) for o in (learner.optimizer, truth)]
    for x, y in batches(mlp):
        gain.grad = (gain + x.mean()).detach()
        truth.step()
        learner.step(x, y)
        for schedule in schedules:
            schedule.step()
    assert torch.allclose(learner.state_dict()["memory"]["params"]["gain"], gain.detach(), rtol=EXACT)
    assert gain != 1


def test_evaluation_between_steps_and_modes_of_parts_are_those_of_a_plain_loop():
    """model.eval() and back again; then a BatchNorm that stays in evaluation, and later is trained again."""
    model = cnn()
    twin = copy.deepcopy(model)
    data = batches(cnn)
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))
    learner = Learner("backprop", model, F.cross_entropy, mine)
    for i, one in enumerate(data):
        for m in (model, twin):
            m.train()
            m.bn1.train(not 3 <= i < 6)
        assert torch.allclose(learnt(learner, [one]), plain(twin, F.cross_entropy, reference, [one]))
        model.eval()
        twin.eval()
        assert torch.allclose(model(one[0]), twin(one[0]), rtol=EXACT)
        assert torch.allclose(learner.predict(one[0]), twin(one[0]), rtol=EXACT)
        assert same(model, twin, EXACT)
    assert int(model.bn1.num_batches_tracked) == len(data) - 3


def test_weights_that_are_loaded_between_steps_are_what_is_trained():
    model, other = mlp(), mlp()
    learner = Learner("backprop", model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.05))
    learnt(learner, batches(mlp)[:2])
    model.load_state_dict(other.state_dict())
    reference = torch.optim.SGD(other.parameters(), lr=0.05)
    learnt(learner, batches(mlp)[2:])
    plain(other, F.cross_entropy, reference, batches(mlp)[2:])
    assert same(model, other, EXACT)


MADE = {
    "instance": (lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), {}),
    "class": (torch.optim.SGD, {"optimizer_options": {"lr": 0.05, "momentum": 0.9}}),
    "partial": (functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9), {}),
    "name": ("SGD", {"optimizer_options": {"lr": 0.05, "momentum": 0.9}}),
    "short name": ("sgd", {"optimizer_options": {"lr": 0.05}}),
    "options of the rule": ("sgd", {"options": {"lr": 0.05}}),
}


@pytest.mark.parametrize(("given", "more"), MADE.values(), ids=MADE)
def test_an_optimizer_can_be_given_in_several_ways(given, more):
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer = given(model) if not more and not isinstance(given, functools.partial) else given
    learnt(Learner("backprop", model, F.cross_entropy, optimizer, **more), batches(mlp))
    plain(twin, F.cross_entropy, MADE["instance"][0](twin), batches(mlp))
    assert same(model, twin, EXACT)


def test_frozen_parameters_and_groups_of_parameters_stay_so():
    model = mlp()
    model[0].requires_grad_(False)
    twin = copy.deepcopy(model)

    def optimizer(m):
        return torch.optim.SGD(
            [{"params": m[2].parameters(), "lr": 0.2}, {"params": m[4].parameters()}], lr=0.01
        )

    learner = Learner("backprop", model, F.cross_entropy, optimizer(model))
    learnt(learner, batches(mlp))
    plain(twin, F.cross_entropy, optimizer(twin), batches(mlp))
    assert same(model, twin, EXACT)


def test_gradients_can_be_clipped_before_a_step_of_ones_own():
    model = cnn()
    twin = copy.deepcopy(model)
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9) for m in (model, twin))
    learner = Learner("backprop", model, F.cross_entropy, mine)
    for x, y in batches(cnn):
        mine.zero_grad()
        loss = learner.gradients(x, y)
        reference.zero_grad()
        truth = F.cross_entropy(twin(x), y)
        truth.backward()
        assert torch.allclose(loss, truth)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=EXACT, atol=EXACT)
        norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.1) for m in (model, twin)]
        assert norms[0] > 0.1
        mine.step()
        reference.step()
    assert same(model, twin, EXACT)


@dataclass(frozen=True)
class Remembering(LearningRule):
    """Its gradient is its memory: whoever clips it in place must not reach it."""

    def init(self, net, params, batch, gen):
        return State(buffers={name: torch.zeros_like(p) for name, p in params.items()})

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        kept = {name: state.buffers[name] + grads[name] for name in grads}
        return Step(kept, State(buffers=kept), mean)


@pytest.mark.parametrize(
    "end", [lambda m: nn.utils.clip_grad_norm_(m.parameters(), 1e-3), lambda m: m.zero_grad(False)]
)
def test_what_is_done_to_gradients_does_not_reach_the_rules_memory(end):
    model = mlp()
    learner = Learner(Remembering(), model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.0))
    (x, y), total = batches(mlp)[0], {}
    for _ in range(3):
        learner.gradients(x, y)
        end(model)
    for (name, p), grad in zip(
        model.named_parameters(),
        torch.autograd.grad(F.cross_entropy(model(x), y), model.parameters()),
        strict=True,
    ):
        total[name] = 3 * grad
        assert p.shape == grad.shape
    assert same(learner.state_dict()["memory"]["buffers"], total, EXACT)


def test_what_gets_no_gradient_keeps_every_bit_whatever_its_grad_was():
    """Neither a gradient of before nor momentum or weight decay reach a parameter that the rule leaves alone."""
    model = mlp()
    before, (x, y) = copy.deepcopy(model), batches(mlp)[0]
    learner = Learner("frozen", model, F.cross_entropy, OPTIMIZERS["momentum"](model.parameters()))
    for _ in range(3):
        F.cross_entropy(model(x), y).backward()
        learner.step(x, y)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before.get_parameter(name))}
    assert changed == {"4.weight", "4.bias"}


def test_a_model_in_another_memory_layout_is_trained_alike():
    """torch's fused optimizers read memory as it lies."""
    model = cnn()
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert not twin.conv2.weight.is_contiguous()
    for m in (model, twin):
        learner = Learner(
            "backprop", m, F.cross_entropy, torch.optim.Adam(m.parameters(), lr=0.01, fused=True)
        )
        learnt(learner, batches(cnn))
    assert same(model, twin, EXACT)


# Losses -------------------------------------------------------------------------------------------------------------


def numbers(like, y):
    return F.one_hot(y, 3).to(like)


LOSSES = {
    "cross_entropy": (F.cross_entropy, None),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), None),
    "partial": (functools.partial(F.cross_entropy, label_smoothing=0.1), None),
    "soft labels": (nn.CrossEntropyLoss(), lambda x, y: 0.8 * numbers(x, y) + 0.2 / 3),
    "mse": (nn.MSELoss(), numbers),
    "mse_loss": (F.mse_loss, numbers),
    "l1": (nn.L1Loss(), numbers),
    "smooth l1": (F.smooth_l1_loss, numbers),
    "huber": (nn.HuberLoss(delta=0.3), numbers),
    "bce": (F.binary_cross_entropy_with_logits, numbers),
    "weighted bce": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), numbers),
    "margin": (nn.MultiMarginLoss(), None),
    "soft margin": (nn.MultiLabelSoftMarginLoss(), numbers),
    "poisson": (nn.PoissonNLLLoss(), numbers),
    "kl": (nn.KLDivLoss(reduction="batchmean"), lambda x, y: 0.8 * numbers(x, y) + 0.2 / 3),
    "kl of elements": (nn.KLDivLoss(reduction="mean"), lambda x, y: 0.8 * numbers(x, y) + 0.2 / 3),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # torch's advice on KLDivLoss
@pytest.mark.parametrize(("loss", "targets"), LOSSES.values(), ids=LOSSES)
def test_losses_as_people_write_them_are_descended_as_torch_means_them(loss, targets):
    model = mlp()
    twin = copy.deepcopy(model)
    data = [(x, y if targets is None else targets(x, y)) for x, y in batches(mlp)]
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))
    got = learnt(Learner("backprop", model, loss, mine), data)
    assert torch.allclose(got, plain(twin, loss, reference, data), rtol=EXACT)
    assert same(model, twin, EXACT)


def test_losses_of_pixels_or_time_steps_are_means_over_them():
    model = nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.Tanh(), nn.Conv1d(6, 3, 1)).double()
    twin = copy.deepcopy(model)
    data = [(torch.randn(n, 2, 9, dtype=torch.float64), torch.randint(3, (n, 9))) for n in (8, 8, 3)]
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))
    learnt(Learner("backprop", model, F.cross_entropy, mine), data)
    plain(twin, F.cross_entropy, reference, data)
    assert same(model, twin, EXACT)


def test_a_loss_of_ones_own_gives_a_number_for_each_example():
    model = mlp()
    twin = copy.deepcopy(model)

    def loss(output, y):
        return (output.logsumexp(1) - output.gather(1, y[:, None])[:, 0]) ** 2

    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))
    learnt(Learner("backprop", model, loss, mine), batches(mlp))
    plain(twin, lambda output, y: loss(output, y).mean(), reference, batches(mlp))
    assert same(model, twin, EXACT)


class Halved(nn.MSELoss):
    def forward(self, output, y):
        return super().forward(output, y) * (0.5 if self.reduction == "mean" else 1)


class Ready(nn.Module):
    def forward(self, output, y):
        return F.cross_entropy(output, y)


PER_EXAMPLE = (
    r"loss\(\) returned shape \(\).*expected shape \(16,\), one number for each example; it is one number"
)
WRONG_LOSSES = {
    "scalar": (lambda output, y: F.cross_entropy(output, y), None, PER_EXAMPLE),
    "scalar module": (Ready(), None, PER_EXAMPLE),
    "not the loss": ("cross_entropy", None, "must be a loss function or module, got 'cross_entropy'"),
    "sum": (nn.MSELoss(reduction="sum"), numbers, "MSELoss has reduction='sum'.*use reduction='mean'"),
    "sum function": (
        functools.partial(F.mse_loss, reduction="sum"),
        numbers,
        "mse_loss has reduction='sum', and rules descend the mean",
    ),
    "old words": (functools.partial(F.mse_loss, size_average=False), numbers, PER_EXAMPLE),
    "another mean": (
        Halved(),
        numbers,
        "Halved returns .* for the first batch, and the mean of its losses of the examples",
    ),
    "class weights": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        None,
        "CrossEntropyLoss with class weights divides by the sum of the weights.*use reduction='none'",
    ),
    "class weights of a function": (
        functools.partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        None,
        "cross_entropy with class weights divides",
    ),
    "ignored": (
        nn.CrossEntropyLoss(ignore_index=0),
        None,
        r"\d+ of 16 targets are 0, which CrossEntropyLoss ignores.*use reduction='none'",
    ),
    "types": (
        F.cross_entropy,
        lambda x, y: y.int().bool(),
        "cross_entropy cannot be used: loss.. raised RuntimeError",
    ),
    "a matrix": (
        lambda output, y: (output - numbers(output, y)) ** 2,
        None,
        "take the mean over the other axes",
    ),
    "no gradient": (
        lambda output, y: F.cross_entropy(output.detach(), y, reduction="none"),
        None,
        "no gradient",
    ),
}


@pytest.mark.parametrize(("loss", "targets", "message"), WRONG_LOSSES.values(), ids=WRONG_LOSSES)
@pytest.mark.filterwarnings("ignore:size_average")
def test_a_loss_that_is_no_mean_over_examples_is_one_sentence(loss, targets, message):
    model = mlp()
    before = copy.deepcopy(model)
    x, y = batches(mlp)[0]
    with pytest.raises(ValueError, match=message):
        Learner("backprop", model, loss).step(x, y if targets is None else targets(x, y))
    assert same(model, before)


def test_outputs_and_targets_that_broadcast_are_one_sentence():
    model = nn.Linear(5, 1).double()
    x, y = batches(mlp)[0]
    with pytest.raises(
        ValueError, match=r"shape \(16, 16\) .* which broadcast against each other; give them the same"
    ):
        Learner("backprop", model, F.mse_loss).step(x, y.double())


def test_targets_are_looked_at_in_every_batch():
    learner = Learner("backprop", mlp(), nn.CrossEntropyLoss())
    (x, y), *_ = batches(mlp)
    learner.step(x, y)
    with pytest.raises(ValueError, match="1 of 16 targets are -100, which CrossEntropyLoss ignores"):
        learner.step(x, y.index_fill(0, torch.tensor([3]), -100))


def test_reduction_none_is_the_mean_over_examples_whatever_the_weights():
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    model = mlp()
    twin = copy.deepcopy(model)
    loss = nn.CrossEntropyLoss(weight=weight, reduction="none")
    mine, reference = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))
    learnt(Learner("backprop", model, loss, mine), batches(mlp))
    plain(twin, lambda output, y: loss(output, y).mean(), reference, batches(mlp))
    assert same(model, twin, EXACT)


def test_a_loss_with_parameters_is_refused():
    class Scaled(nn.MSELoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(
        ValueError, match="Scaled has trainable parameters, and learning rules train those of the model"
    ):
        Learner("backprop", mlp(), Scaled())


# The Trainer's numbers ----------------------------------------------------------------------------------------------


def drawn(task, seed):
    """The network that a comparison draws for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number(seed, "init"))
        return task.network()


def budget_of(rule, **options):
    decay = rule.weight_decay if rule.decoupled_decay and rule.weight_decay else 0.0
    return Budget(epochs=3, batch=16, lr=0.05, **{"optimizer": "sgd", "weight_decay": decay, **options})


def trainer_and_learner(rule, task, seed, steps=12, **options):
    """Both after some steps on the same batches, and their losses."""
    budget = budget_of(rule, **options)
    data = task.data().train
    net, values = build(task, [seed], data.x[:2], torch.device("cpu"))
    if net_reason := rule.skip(net, task):
        pytest.skip(net_reason)
    order = Batches(data, 16, [seed])
    which = [order.epoch(t // order.per_epoch)[:, t % order.per_epoch] for t in range(steps)]
    trainer = Trainer(rule, net, task.loss, values, order.take(which[0]), [seed], budget, steps)
    learner = Learner(
        rule,
        drawn(task, seed),
        task.loss,
        budget.optimizer,
        optimizer_options={"lr": 0.05},
        seed=seed,
        steps=steps,
    )
    losses = []
    for index in which:
        batch = order.take(index)
        losses.append((trainer.step(batch)[0], learner.step(batch.x[0], batch.y[0])))
    return trainer, learner, losses


@pytest.mark.parametrize("kind", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_trains_as_in_a_comparison_bit_for_bit(name, kind):
    rule = RULES.make_rule(name, {})
    trainer, learner, losses = trainer_and_learner(rule, TinyTask(kind), seed=3)
    tensors = learner.state_dict()
    # A learner scales the steps of the user's optimiser by the factors of a rule, a trainer has groups of learning rates.
    rounding = 1e-6 if any(factor != 1 for factor in rule.rates(trainer.net).values()) else 0.0
    assert same(tensors["model"], trainer.params, rounding)
    assert same(tensors["memory"]["params"], trainer.state.params, rounding)
    assert same(tensors["memory"]["buffers"], trainer.state.buffers, rounding)
    for one, other in losses:  # a learner computes the loss where the rule does not
        assert (
            other.isfinite() if one is None else torch.allclose(one[0], other, rtol=rounding, atol=rounding)
        )


class Double(TinyTask):
    """A tiny task in float64."""

    def data(self, root=None, *, download=False):
        return Data(*(Split(part.x.double(), part.y) for part in super().data()))

    def network(self):
        return super().network().double()


@dataclass(frozen=True)
class Everything(LearningRule):
    """Noise, a parameter and a buffer of its own, updates, factors on the learning rate, and no loss."""

    def rates(self, net):
        names = list(net.shapes)
        return {names[1]: 0.25, names[2]: 0.0, "rule.scale": 3.0}

    def init(self, net, params, batch, gen):
        first = batch.x.flatten(1).mean(0)
        return State(
            {"scale": 1 + torch.rand((), generator=gen, dtype=first.dtype), "unused": first},
            {"mean": first.clone()},
        )

    def noise(self, net, state, batch, gen, t):
        return {"z": torch.randn(next(iter(net.shapes.values())), generator=gen, dtype=batch.x.dtype)}

    def step(self, net, loss, params, state, batch, noise, t):
        grads, _ = credit.backprop(net, loss, params, batch.x, batch.y)
        first, *_, last = grads
        grads[first] = grads[first] + 0.01 * state.params["scale"] * noise["z"]
        running = torch.lerp(state.buffers["mean"], batch.x.flatten(1).mean(0), 0.1)
        grads["rule.scale"] = state.params["scale"] - running.square().sum()
        updates = {last: 0.1 * params[last].cos() + 0 * grads.pop(last), "rule.unused": 0.01 * running}
        logs = {"running": running.sum()}
        return Step(grads, State(state.params, {"mean": running}), None, logs, updates)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "RMSprop", "Adagrad", "NAdam"])
def test_all_that_a_rule_can_have_is_as_in_a_comparison(optimizer):
    trainer, learner, losses = trainer_and_learner(Everything(), Double("mlp"), seed=3, optimizer=optimizer)
    tensors = learner.state_dict()
    assert same(tensors["model"], trainer.params, SUMS)
    assert same(tensors["memory"]["params"], trainer.state.params, SUMS)
    assert same(tensors["memory"]["buffers"], trainer.state.buffers)
    assert all(one is None and other.isfinite() for one, other in losses)
    assert learner.logs.keys() == {"running"}


def test_a_loss_that_the_rule_does_not_compute_is_that_before_the_step():
    model = cnn(dropout=0.5)

    class Silent(Backprop):
        def step(self, *args):
            return super().step(*args)._replace(loss=None)

    told, silent = (
        learnt(Learner(rule, copy.deepcopy(model), F.cross_entropy, "sgd"), batches(cnn))
        for rule in (Backprop(), Silent())
    )
    assert torch.allclose(told, silent, rtol=EXACT)


def test_updates_are_made_by_the_next_step_of_the_optimizer_once():
    learner = Learner(Everything(), mlp(), F.cross_entropy, "sgd", optimizer_options={"lr": 0.0})
    last = learner.model()[4].bias
    (x, y), before = batches(mlp)[0], last.detach().clone()
    learner.gradients(x, y)
    assert torch.equal(last, before)
    assert last.grad is None
    learner.optimizer.step()
    assert torch.allclose(last, before + 0.1 * before.cos())
    after = last.detach().clone()
    learner.optimizer.step()  # a step of the user's own
    assert torch.equal(last, after)


def test_dropout_is_that_of_a_comparison_for_the_same_seed():
    class Dropping(TinyTask):
        def network(self):
            return ConvNet(dropout=0.5)

    trainer, learner, _ = trainer_and_learner(Backprop(), Dropping("cnn"), seed=3)
    assert same({n: learner.state_dict()["model"][n] for n in trainer.params}, trainer.params)
    assert same({n: learner.state_dict()["model"][n] for n in trainer.statistics}, trainer.statistics)
    other = trainer_and_learner(Backprop(), Dropping("cnn"), seed=4)[1]
    assert not same(other.model(), learner.model(), 1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["mlp", "rnn"])
def test_every_rule_takes_a_shorter_last_batch(name, kind):
    task = TinyTask(kind)
    rule = RULES.make_rule(name, {})
    learner = Learner(rule, drawn(task, 0), task.loss, "sgd", optimizer_options={"lr": 0.01}, steps=8)
    if reason := rule.skip(Net(drawn(task, 0), task.data().train.x[:2]), task):
        pytest.skip(reason)
    x, y = task.data().train
    for size in (16, 16, 5, 1, 16, 24):
        assert learner.step(x[:size], y[:size]).isfinite()
    assert learner.t == 6


@pytest.mark.parametrize("name", ["feedback-alignment", "nmnc", "node-perturbation"])
def test_seeds_tell_learners_apart_and_nothing_else_does(name):
    first = mlp()

    def trained(seed):
        torch.rand(random.randrange(1, 9))
        learner = Learner(name, copy.deepcopy(first), F.cross_entropy, "sgd", seed=seed)
        learnt(learner, batches(mlp))
        return learner.model()

    assert same(trained(0), trained(0))
    assert not same(trained(0), trained(1), 1e-6)


def test_nothing_but_the_model_is_touched():
    model = cnn(dropout=0.5)
    torch.rand(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    attributes = [set(vars(child)) for child in model.modules()]
    learner = Learner("nmnc", model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.01))
    learnt(learner, batches(cnn))
    learner.angles(*batches(cnn)[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert [set(vars(child)) for child in model.modules()] == attributes
    assert all(child.training for child in model.modules())
    assert list(model.state_dict()) == list(cnn().state_dict())


def test_a_model_with_sites_of_its_own_keeps_them():
    model = nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), Site("post"), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    learner = Learner("nmnc", model, F.cross_entropy)
    learner.step(*batches(mlp)[0])
    assert learner.net.keys("post") == ["2"]
    asked = rulezoo.add_sites(mlp(), {"3": "post"})
    learner = Learner("nmnc", asked, F.cross_entropy)
    learner.step(*batches(mlp)[0])
    assert learner.net.keys("post") == ["3"]


def test_autocast_around_the_loop_is_taken_and_memory_is_not_of_lower_precision():
    model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 3))
    learner = Learner("nmnc", model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    losses = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(30):
            x, y = batches(mlp)[0]
            losses.append(learner.step(x.float(), y))
    assert losses[-1] < losses[0]
    assert all(b.dtype == torch.float32 for b in learner.state_dict()["memory"]["buffers"].values())


# Going on later -----------------------------------------------------------------------------------------------------

RESUMED = {
    "backprop": ("backprop", {}),
    "nmnc": ("nmnc", {"refresh": 3}),
    "weight-mirror": ("weight-mirror", {}),
    "kolen-pollack": ("kolen-pollack", {}),
    "everything": (Everything(), None),
}


@pytest.mark.parametrize(
    "optimizer", [OPTIMIZERS["adamw"], OPTIMIZERS["momentum"]], ids=["adamw", "momentum"]
)
@pytest.mark.parametrize(("rule", "options"), RESUMED.values(), ids=RESUMED)
def test_what_is_resumed_is_what_was_never_broken_off_bit_for_bit(rule, options, optimizer):
    data = batches(cnn)

    def learner(seed):
        model = cnn(dropout=0.2)
        made = optimizer(model.parameters())
        schedule = lr_scheduler.StepLR(made, 2, gamma=0.5)
        return Learner(rule, model, F.cross_entropy, made, options=options, seed=seed, steps=20), schedule

    whole, schedule = learner(0)
    learnt(whole, data[:5], schedule.step)
    state = saved(whole.state_dict() | {"schedule": schedule.state_dict()})
    rest = learnt(whole, data[5:], schedule.step)

    resumed, schedule = learner(7)  # other weights, and another seed
    resumed.load_state_dict(state)
    schedule.load_state_dict(state["schedule"])
    assert resumed.t == 5
    assert torch.equal(learnt(resumed, data[5:], schedule.step), rest)
    one, other = resumed.state_dict(), whole.state_dict()
    assert same(one["model"], other["model"])
    for kind in ("params", "buffers"):
        assert same(one["memory"][kind], other["memory"][kind])


def test_a_state_can_be_loaded_into_a_learner_that_has_trained_and_into_one_before_its_first_batch():
    data = batches(mlp)
    learner = Learner("nmnc", mlp(), F.cross_entropy, "sgd")
    fresh = saved(learner.state_dict())
    learnt(learner, data[:4])
    middle = saved(learner.state_dict())
    first = learnt(learner, data[4:])
    learner.load_state_dict(middle)
    assert torch.equal(learnt(learner, data[4:]), first)
    learner.load_state_dict(fresh)
    assert learner.t == 0
    learnt(learner, data[:4])
    assert same(saved(learner.state_dict())["memory"]["buffers"], middle["memory"]["buffers"])


def test_a_state_holds_two_inputs_and_not_the_whole_batch():
    learner = Learner("nmnc", mlp(), F.cross_entropy, "sgd")
    learner.step(*batches(mlp)[0])
    example = learner.state_dict()["memory"]["example"]
    assert example.shape == (2, 5)
    assert example.untyped_storage().nbytes() == 2 * 5 * 8


def other_optimizer(model):
    return torch.optim.Adam(model.parameters())


def two_groups(model):
    return torch.optim.SGD([{"params": model[:2].parameters()}, {"params": model[2:].parameters()}], lr=0.1)


WRONG_STATES = {
    "model": (
        ("nmnc", cnn, None, {}),
        r"of another model: 'conv1.weight' is missing in the state and float64 of shape",
    ),
    "wider": (
        ("nmnc", lambda: nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3)).double(), None, {}),
        r"'0.weight' is float64 of shape \(8, 5\) in the state and float64 of shape \(9, 5\) in the model",
    ),
    "type": (
        ("nmnc", lambda: mlp().float(), None, {}),
        "is float64 of shape .* in the state and float32 of shape",
    ),
    "rule": (
        ("backprop", mlp, None, {}),
        "is of the rule ManifoldNoiseCorrelation, and the learner has Backprop",
    ),
    "options": (
        ("nmnc", mlp, None, {"rank": 4}),
        "with rank=None, and the learner has rank=4; give the same options",
    ),
    "optimizer": (
        ("nmnc", mlp, other_optimizer, {}),
        "is of SGD, and the learner has Adam; use the same optimizer",
    ),
    "groups": (
        ("nmnc", mlp, two_groups, {}),
        r"has groups of \[6\] parameters, and that of the learner of \[2, 4\]",
    ),
}


@pytest.mark.parametrize(("made", "message"), WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_state_of_something_else_is_one_sentence_and_changes_nothing(made, message):
    learner = Learner("nmnc", mlp(), F.cross_entropy, "sgd")
    learner.step(*batches(mlp)[0])
    name, make, optimizer, options = made
    model = make()
    chosen = "sgd" if optimizer is None else optimizer(model)
    other = Learner(name, model, F.cross_entropy, chosen, options=options)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(learner.state_dict())
    assert same(model, before)
    with pytest.raises(ValueError, match="this is not the state of a Learner"):
        other.load_state_dict(model.state_dict())


# Signals and angles -------------------------------------------------------------------------------------------------


def test_the_signals_of_backprop_are_the_true_gradients():
    learner = Learner("backprop", mlp(), F.cross_entropy)
    x, y = batches(mlp)[0]
    learner.step(x, y)
    net = learner.net
    truth = credit.site_gradients(
        net, lambda o, t: F.cross_entropy(o, t, reduction="none"), net.init_params(), x, y, net.keys("post")
    )
    assert same(learner.signals(x, y), truth, EXACT)
    angles = learner.angles(x, y)
    assert angles["sites"].keys() == {"0.post", "2.post"}
    assert angles["parameters"].keys() == {"*", *net.shapes}
    assert all(angle < 1e-4 for each in angles.values() for angle in each.values())


def test_the_signals_of_feedback_alignment_come_through_its_feedback_weights():
    learner = Learner("feedback-alignment", mlp(), F.cross_entropy)
    x, y = batches(mlp)[0]
    signals, angles = learner.signals(x, y), learner.angles(x, y)
    model, feedback = learner.model(), learner.state_dict()["memory"]["buffers"]
    output = model(x).detach().requires_grad_()
    error = torch.autograd.grad(F.cross_entropy(output, y), output)[0]
    assert torch.allclose(signals["2.post"], error @ feedback["feedback.4.weight"], rtol=EXACT)
    true = error @ model[4].weight.detach()
    cosine = F.cosine_similarity(signals["2.post"], true, dim=1)
    assert angles["sites"]["2.post"] == pytest.approx(float(cosine.acos().rad2deg().mean()), abs=1e-3)
    assert angles["parameters"]["4.weight"] == pytest.approx(
        0, abs=1e-4
    )  # the read-out hears the error itself
    assert 10 < angles["parameters"]["0.weight"] < 170


@pytest.mark.parametrize("name", ["nmnc", "weight-mirror", "node-perturbation"])
def test_looking_changes_nothing(name):
    first, data = cnn(dropout=0.2), batches(cnn)

    def trained(look):
        learner = Learner(name, copy.deepcopy(first), F.cross_entropy, "sgd", steps=20)
        for x, y in data:
            learner.step(x, y)
            if look:
                assert learner.angles(x, y)["sites"].keys() == {
                    learner.net.visits[k].site for k in learner.signals(x, y)
                }
        return learner.model()

    assert same(trained(False), trained(True))


def test_signals_that_cannot_be_seen_are_a_sentence():
    @dataclass(frozen=True)
    class ByHand(Backprop):
        def step(self, net, loss, params, state, batch, noise, t):
            if params.keys() != net.shapes.keys():
                raise KeyError("unknown parameter")
            return super().step(net, loss, params, state, batch, noise, t)

    learner = Learner(ByHand(), mlp(), F.cross_entropy)
    with pytest.raises(ValueError, match="ByHand: the signals at sites cannot be seen: KeyError"):
        learner.signals(*batches(mlp)[0])
    assert not learner.angles(*batches(mlp)[0])["sites"]


# What cannot be -----------------------------------------------------------------------------------------------------


def foreign(model):
    return torch.optim.SGD(mlp().parameters(), lr=0.1)


def some(model):
    return torch.optim.SGD(model[:2].parameters(), lr=0.1)


def ragged(model):
    return torch.optim.LBFGS(model.parameters())


WRONG_CALLS = {
    "unknown rule": (LookupError, {"rule": "nmcn"}, "unknown rule 'nmcn'; did you mean 'nmnc'"),
    "no rule": (
        ValueError,
        {"rule": 3},
        "rule must be the name of a rule, a LearningRule or its class, got 3",
    ),
    "unknown option": (
        ValueError,
        {"rule": "nmnc", "options": {"rnk": 3}},
        "no option 'rnk'; did you mean 'rank'",
    ),
    "wrong option": (
        ValueError,
        {"rule": "nmnc", "options": {"rank": 0}},
        "nmnc.rank must be a number in",
    ),
    "unknown option of a class": (
        ValueError,
        {"rule": Backprop, "options": {"rnk": 3}},
        "Backprop has no option 'rnk'; it has lr, weight_decay",
    ),
    "options of a rule": (
        ValueError,
        {"rule": Backprop(), "options": {"lr": 1}},
        "options=.* make the Backprop with them",
    ),
    "no model": (ValueError, {"model": lambda x: x}, "model must be a torch.nn.Module, got a function"),
    "compiled model": (
        ValueError,
        {"model": torch.compile(nn.Linear(5, 3))},
        "is compiled .*; give the plain module",
    ),
    "nothing to train": (
        ValueError,
        {"model": mlp().requires_grad_(False)},
        "the model has nothing to train: no parameter has requires_grad=True",
    ),
    "foreign optimizer": (
        ValueError,
        {"optimizer": foreign},
        r"the SGD holds 6 of 6 parameters that are not the model's, the first of shape \(8, 5\)",
    ),
    "optimizer of a part": (
        ValueError,
        {"optimizer": some},
        "the SGD does not hold 4 trainable parameters of the model .'2.weight', .*or freeze those",
    ),
    "closures": (
        ValueError,
        {"optimizer": ragged},
        "LBFGS cannot be used, because it evaluates the loss several times",
    ),
    "unknown optimizer": (
        ValueError,
        {"optimizer": "adamm"},
        "optimizer 'adamm' cannot be used; did you mean 'adam'",
    ),
    "refused optimizer": (
        ValueError,
        {"optimizer": "LBFGS"},
        "'LBFGS' cannot be used, because it evaluates the loss",
    ),
    "no optimizer": (
        ValueError,
        {"optimizer": 0.1},
        "optimizer must be an optimizer of torch.optim.*got 0.1",
    ),
    "another class": (
        ValueError,
        {"optimizer": list},
        "optimizer list made a list; expected a torch.optim.Optimizer",
    ),
    "option of the optimizer": (
        ValueError,
        {"optimizer": "sgd", "optimizer_options": {"momentun": 0.9}},
        "torch refuses SGD with .'momentun': 0.9.: .*momentun",
    ),
    "options of an instance": (
        ValueError,
        {"optimizer": lambda m: torch.optim.SGD(m.parameters()), "optimizer_options": {"lr": 1}},
        "optimizer_options=.* set them where the SGD is made",
    ),
    "two learning rates": (
        ValueError,
        {"options": {"lr": 0.1}, "optimizer": lambda m: torch.optim.SGD(m.parameters())},
        "nmnc was made with lr=0.1, and the SGD has its own learning rate",
    ),
    "no steps": (
        ValueError,
        {"rule": "kolen-pollack"},
        "kolen-pollack spreads its weight decay .2. over the whole training",
    ),
    "wrong steps": (
        ValueError,
        {"steps": 0},
        "steps must be a whole number, 1 or more, the steps of the whole training",
    ),
}


@pytest.mark.parametrize(("error", "given", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_what_cannot_be_used_is_one_sentence_before_any_batch(error, given, message):
    model = given.get("model", mlp())
    optimizer = given.get("optimizer", "sgd")
    if callable(optimizer) and not isinstance(optimizer, type):
        optimizer = optimizer(model)
    rest = {name: value for name, value in given.items() if name.endswith("options") or name == "steps"}
    with pytest.raises(error, match=message):
        Learner(given.get("rule", "nmnc"), model, F.cross_entropy, optimizer, **rest)


def test_a_rule_that_skips_the_model_says_why():
    learner = Learner("rflo", mlp(), F.cross_entropy)
    rule, net = RULES.make_rule("rflo", {}), Net(rulezoo.add_sites(mlp()), batches(mlp)[0][0])
    reason = rule.skip(net, TinyTask("mlp"))
    with pytest.raises(ValueError, match="rflo cannot train this Sequential: ") as caught:
        learner.step(*batches(mlp)[0])
    assert str(caught.value).endswith(reason)


def test_a_rule_sees_what_the_targets_are():
    seen = []

    class Looking(Backprop):
        def skip(self, net, task):
            seen.append((task.targets, task.classes))

    x, y = batches(mlp)[0]
    for loss, targets in ((F.cross_entropy, y), (F.mse_loss, numbers(x, y))):
        Learner(Looking(), mlp(), loss).step(x, targets)
    assert seen == [("labels", 3), ("numbers", None)]


WRONG_BATCHES = {
    "shape": (
        lambda x, y: (x[:, :4], y),
        r"inputs are torch.float64 of shape \(4,\) .* those of the first batch .*\(5,\)",
    ),
    "type": (
        lambda x, y: (x.float(), y),
        "inputs are torch.float32 of shape .* those of the first batch torch.float64",
    ),
    "number": (lambda x, y: (x, y[:3]), "got 16 inputs and 3 targets; expected a target for each input"),
    "empty": (lambda x, y: (x[:0], y[:0]), "got 0 inputs and 0 targets"),
    "array": (
        lambda x, y: (x.numpy(), y),
        "inputs x must be a tensor with an example in each row, got a ndarray",
    ),
    "number as a target": (lambda x, y: (x, y[0]), "targets y must be a tensor .*, got a single number"),
    "device": (
        lambda x, y: (x.to("meta"), y),
        "inputs x are on meta, and the model is on cpu; move the batch there",
    ),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("change", "message"), WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_a_batch_that_does_not_fit_is_one_sentence_and_changes_nothing(change, message, first):
    learner = Learner("nmnc", mlp(), F.cross_entropy, "sgd")
    x, y = batches(mlp)[0]
    if not first:
        learner.step(x, y)
    before, wrong = copy.deepcopy(learner.model()), change(x, y)
    if first and message.startswith("inputs are"):  # then it is the model that cannot take them
        message = r"the Sequential raised RuntimeError for inputs of shape \(2, \d\), float.* .its parameters: float64.: mat1"
    with pytest.raises(ValueError, match=message):
        learner.step(*wrong)
    assert same(learner.model(), before)
    assert learner.t == int(not first)


def test_what_is_done_to_the_model_after_the_first_batch_is_noticed():
    x, y = batches(mlp)[0]
    learner = Learner("nmnc", mlp(), F.cross_entropy, "sgd")
    for look in (lambda: learner.predict(x), lambda: learner.net):
        with pytest.raises(ValueError, match="the learner has not been given a batch yet"):
            look()
    learner.step(x, y)
    learner.model()[0].weight.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"what is trainable of the model has changed since the first batch \('0.weight'\)"
    ):
        learner.step(x, y)
    learner.model()[0].weight.requires_grad_(True)
    learner.step(x, y)

    class Fewer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) if self.training else self.body[:2](x)[:, :3]

    learner = Learner("backprop", Fewer(), F.cross_entropy)
    learner.step(x, y)
    learner.model().eval()
    with pytest.raises(ValueError, match="has other sites in the mode that it is in now"):
        learner.step(x, y)


def test_a_loss_that_is_no_number_is_returned():
    model = mlp()
    learner = Learner("backprop", model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1e200))
    x, y = batches(mlp)[0]
    losses = [float(learner.step(x, y)) for _ in range(4)]
    assert math.isfinite(losses[0])
    assert math.isnan(losses[-1])


def test_a_rule_that_cannot_go_on_with_weights_that_are_no_numbers_says_that_they_are_none():
    class Fragile(Backprop):
        def step(self, net, loss, params, *rest):
            if not all(p.isfinite().all() for p in params.values()):
                raise RuntimeError("no convergence")
            return super().step(net, loss, params, *rest)

    model = mlp()
    learner = Learner(Fragile(), model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    x, y = batches(mlp)[0]
    learner.step(x, y)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.inf
    with pytest.raises(
        ValueError,
        match=r"weights of the model are not finite at step 1.*Fragile raised RuntimeError: no conv",
    ):
        learner.step(x, y)


def test_steps_inside_of_no_grad_train_and_inside_of_inference_mode_say_that_they_cannot():
    model, (x, y) = mlp(), batches(mlp)[0]
    twin = copy.deepcopy(model)
    learner, other = (Learner("nmnc", m, F.cross_entropy, "sgd") for m in (model, twin))
    for _ in range(3):
        with torch.no_grad():
            learner.step(x, y)
        other.step(x, y)
    assert same(model, twin)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="cannot train; call it outside"),
    ):
        learner.step(x, y)


def test_a_batch_of_one_cannot_be_normalised_over():
    model = cnn()
    learner = Learner("backprop", model, F.cross_entropy)
    x, y = batches(cnn)[0]
    learner.step(x, y)
    learner.step(x[:1], y[:1])  # over its pixels it can

    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    learner = Learner("backprop", model, F.cross_entropy)
    x, y = batches(mlp)[0]
    learner.step(x, y)
    with pytest.raises(
        ValueError, match="the network normalises over a batch of 1, which has no variance; use batches"
    ):
        learner.step(x[:1], y[:1])


# Accelerators -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_learner_is_where_its_model_is():
    model = ConvNet(dropout=0.2).cuda()
    learner = Learner(
        "nmnc", model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    )
    data = [(x.float().cuda(), y.cuda()) for x, y in batches(cnn)]
    assert learnt(learner, data[:6]).is_cuda
    state = saved(learner.state_dict())
    rest = learnt(learner, data[6:])
    again = ConvNet(dropout=0.2).cuda()
    resumed = Learner(
        "nmnc", again, F.cross_entropy, torch.optim.SGD(again.parameters(), lr=0.01, momentum=0.9)
    )
    resumed.load_state_dict(state)
    assert torch.allclose(learnt(resumed, data[6:]), rest, rtol=1e-4)
    on_cpu = Learner(
        "nmnc", ConvNet(dropout=0.2), F.cross_entropy, torch.optim.SGD, optimizer_options={"momentum": 0.9}
    )
    with pytest.raises(ValueError, match="the state was left on cuda, and the model is on cpu"):
        on_cpu.load_state_dict(state)
    x, y = data[0]
    with pytest.raises(
        ValueError, match="inputs x are on cpu, and the model is on cuda:0; move the batch there"
    ):
        learner.step(x.cpu(), y)
    model.cpu()
    with pytest.raises(ValueError, match="the model was moved from cuda:0 to cpu after the first batch"):
        learner.step(x.cpu(), y.cpu())
