"""A trained network: its plain model, activities and predictions, all from the weights."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from rulezoo import (
    Budget,
    Data,
    LearningRule,
    Net,
    NetError,
    Split,
    State,
    Task,
    TrainedNetwork,
    WeightsError,
)
from rulezoo.seeding import initial_network
from rulezoo.training.trainer import build


class Tied(nn.Module):
    """BatchNorm's statistics, one weight used under two names, a frozen parameter, and a ReLU in place."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.out.bias.requires_grad_(False)
        self.register_buffer("mask", torch.rand(6))

    def forward(self, x):
        h = torch.relu_(self.norm(self.first(x)))
        return self.out(torch.relu_(self.second(h * self.mask)))


@dataclass(frozen=True)
class Blobs(Task):
    """Three classes; stored as bytes, which the network sees as numbers around zero."""

    budget: ClassVar[Budget] = Budget(epochs=2, batch=10, lr=0.01, evaluation_batch=16)
    chance: ClassVar[float] = 1 / 3
    targets: ClassVar[str] = "labels"
    classes: ClassVar[int] = 3

    def data(self, root, *, download=False):
        gen = torch.Generator().manual_seed(0)
        y = torch.arange(90) % 3
        means = torch.randint(60, 190, (3, 6), generator=gen)
        x = (means[y] + torch.randint(-40, 40, (90, 6), generator=gen)).to(torch.uint8)
        return Data(*(Split(x[part], y[part]) for part in (slice(50), slice(50, 65), slice(65, 90))))

    def prepare(self, x, draw):
        return x.float() / 64 - 2

    def network(self):
        from rulezoo import add_sites

        return add_sites(Tied(), {"norm": "pre", "second": "post"})

    def loss(self, output, target):
        return nn.functional.cross_entropy(output, target, reduction="none")

    def score(self, output, target):
        return (output.argmax(-1) == target).float()


class Negated(LearningRule):
    """Reads its answer from its memory."""

    def predict(self, net, params, state, x):
        return -net.run(params, x) * state.buffers["gain"]


def moved(task, seed=3):
    """The state of a network that is not as it was drawn, in any of its tensors."""
    module = initial_network(task, seed).train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
        module(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)))
    return module.state_dict()


def trained(rule=None, state=None, seed=3, state_dict=None, **more):
    task, rule = Blobs(), rule or LearningRule()
    weights = moved(task, seed) if state_dict is None else state_dict
    return TrainedNetwork.from_state_dict(
        weights, torch.rand(2, 6), rule="mine", task="blobs", seed=seed,
        made_rule=rule, made_task=task, state=state, **more,
    )  # fmt: skip


def test_the_model_has_the_weights_under_its_own_names_and_is_in_evaluation():
    network = trained()
    model, weights = network.model(), moved(Blobs())
    assert type(model) is Tied
    assert not any(module.training for module in model.modules())
    assert model.state_dict().keys() == weights.keys() == network.state_dict().keys()
    assert "norm.running_mean" in weights
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    assert model.first.weight is model.second.weight
    x = torch.randn(30, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network.predict(x))
        model.out.weight.zero_()  # it is the caller's own
    assert network.params["out.weight"].abs().min() > 0


def test_activities_are_those_of_the_plain_model_also_where_it_writes_over_them():
    network = trained()
    x = torch.randn(40, 6)
    found = network.activities(x)
    assert found.keys() == network.net.visits.keys()
    assert all(value.shape == (40, 6) and not value.requires_grad for value in found.values())
    with torch.no_grad():
        model = network.model()
        drive = model.norm(model.first(x))
        torch.testing.assert_close(found["norm"], drive)
        torch.testing.assert_close(found["second"], model.second(drive.relu() * model.mask))
    assert min(found["norm"].min(), found["second"].min()) < 0


def test_what_is_no_batch_of_inputs_is_refused_in_words():
    network = trained()
    for ask in (network.predict, network.activities):
        with pytest.raises(
            NetError, match=r"inputs must be a tensor of shape \(examples, 6\), got a ndarray"
        ):
            ask(torch.rand(2, 6).numpy())


def test_the_untrained_network_is_the_one_that_training_begins_with():
    network = trained()
    initial = network.untrained()
    net, (values,) = build(Blobs(), [3], torch.rand(2, 6), torch.device("cpu"))
    expected = net.bind(values.fixed, values.statistics).state_dict(values.params)
    found = initial.model().state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not torch.equal(found["out.weight"], network.model().state_dict()["out.weight"])
    assert (initial.seed, initial.scores, initial.state) == (3, {}, None)


def test_data_are_prepared_for_evaluation():
    network = trained()
    data = network.data()
    stored = Blobs().data(None).test
    assert torch.equal(data.test.x[:25], stored.x.float() / 64 - 2)
    torch.testing.assert_close(network.predict(data.test.x), network.predict(data.test.x[:25]))
    assert {v.shape[0] for v in network.activities(data.test.x).values()} == {25}


def test_a_rule_predicts_with_its_memory():
    x = torch.randn(4, 6)
    with_memory = trained(Negated(), State(buffers={"gain": torch.tensor(2.0)}))
    torch.testing.assert_close(with_memory.predict(x), -2 * trained().predict(x))
    for network in (trained(Negated()), with_memory.untrained()):
        with pytest.raises(WeightsError, match=r"rule 'mine' predicts with its memory.*--keep-memory"):
            network.predict(x)
        assert network.activities(x)


def test_predictions_have_the_precision_of_the_run_whoever_calls():
    x = torch.randn(4, 6)
    assert trained(precision="bfloat16").predict(x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert trained().predict(x).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("out.bias"), r"network of task 'blobs': 'out.bias' is missing$"),
        (lambda w: [w.pop(n) for n in list(w)[:5]], r"'mask', 'first.weight', 'first.bias' and 2 more are missing$"),
        (lambda w: w.update(head=torch.zeros(1)), r": 'head' is unknown to the network$"),
        (
            lambda w: w.update({"out.weight": torch.zeros(4, 6)}),
            r"'out.weight' is float32 of shape \(4, 6\), expected float32 of shape \(3, 6\)",
        ),
        (lambda w: w.update({"mask": w["mask"].double()}), r"'mask' is float64 of .*, expected float32"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused_in_words(change, words):
    weights = dict(moved(Blobs()))
    change(weights)
    with pytest.raises(WeightsError, match=words):
        trained(state_dict=weights)


def test_it_is_a_net_as_rules_and_evaluations_know_it():
    network = trained()
    assert isinstance(network.net, Net)
    assert not network.net.training
    assert network.params.keys() == network.net.shapes.keys()
