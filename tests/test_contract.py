"""What a task promises of data, network, loss and score: the sentence for each broken promise."""

import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Budget, Data, DataMissing, Site, Split, Task, add_sites
from rulezoo.comparison import contract
from rulezoo.comparison.examination import examine

NAN, INF = float("nan"), float("inf")


def part(n, seed):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return Split(x, (x[:, :2].sum(1) > 0).long())


def parts():
    return Data(part(40, 0), part(20, 1), part(30, 2))


def changed(**splits):
    return parts()._replace(**splits)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.rest = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), Site("post"), nn.Linear(8, 2))

    def forward(self, x):
        return self.rest(self.words(x).flatten(1))


def mlp(inputs=6, outputs=2):
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), Site("post"), nn.Linear(8, outputs))


@dataclass(frozen=True)
class Plain(Task):
    """Two classes."""

    budget = Budget(epochs=1, batch=8, lr=0.01)
    chance = 0.5

    def data(self, root, *, download=False):
        return parts()

    def network(self):
        return mlp()

    def loss(self, output, target):
        return F.cross_entropy(output, target, reduction="none")

    def score(self, output, target):
        return (output.argmax(-1) == target).float()


def with_(**methods):
    """The plain task with other methods."""
    functions = {
        name: (lambda self, *args, f=f, **words: f(*args)) if name != "data" else f
        for name, f in methods.items()
    }
    return type("Case", (Plain,), {"__annotations__": {}, **functions})()


def with_data(made):
    return with_(data=lambda self, root, *, download=False: made() if callable(made) else made)


def regression(**methods):
    def numbers(n, seed):
        x = part(n, seed).x
        return Split(x, x[:, :2].sum(1))

    return with_(
        data=lambda self, root, *, download=False: Data(numbers(40, 0), numbers(20, 1), numbers(30, 2)),
        network=lambda: mlp(outputs=1),
        **{
            "loss": lambda output, target: (output.squeeze(-1) - target) ** 2,
            "score": lambda output, target: -((output.squeeze(-1) - target) ** 2),
            **methods,
        },
    )


def problem(task):
    found = examine(task, None)
    assert found.data is None
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


def at(split, field, index, value):
    changed = getattr(split, field).clone()
    changed[index] = value
    return split._replace(**{field: changed})


def test_a_task_in_order_has_a_digest_and_sizes():
    found = examine(Plain(), None)
    assert found.problems == []
    assert len(found.data) == 16
    assert (found.sizes, found.output_shape) == ({"train": 40, "validation": 20, "test": 30}, [2])
    assert found.parameters == 6 * 8 + 8 + 8 * 2 + 2
    assert examine(Plain(), None).data == found.data


def cast(data, x=None, y=None):
    return Data(*(Split(s.x.to(x or s.x.dtype), s.y.to(y or s.y.dtype)) for s in data))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_and_data_of_other_precision_are_fine(dtype):
    task = with_(
        data=lambda self, root, *, download=False: cast(parts(), x=dtype), network=lambda: mlp().to(dtype)
    )
    assert examine(task, None).problems == []


def test_integer_inputs_are_fine():
    tokens = Data(*(Split(s.x.abs().long().clamp(max=8), s.y) for s in parts()))
    assert (
        examine(with_(data=lambda self, root, *, download=False: tokens, network=Words), None).problems == []
    )


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.uint8, torch.float64])
def test_a_score_of_any_real_type_is_fine(kind):
    assert examine(with_(score=lambda o, y: (o.argmax(-1) == y).to(kind)), None).problems == []


def test_a_label_that_the_loss_ignores_is_fine():
    data = changed(train=at(parts().train, "y", 3, -100))
    assert examine(with_data(data), None).problems == []


def test_labels_of_a_single_output_and_counts_are_fine():
    """An output of one number is no class axis, and a loss that takes a large integer has no classes."""
    logit = with_(
        network=lambda: mlp(outputs=1),
        loss=lambda o, y: F.binary_cross_entropy_with_logits(o.squeeze(-1), y.float(), reduction="none"),
        score=lambda o, y: (o.squeeze(-1) > 0) == y.bool(),
    )
    assert examine(logit, None).problems == []
    counts = with_(
        data=lambda self, root, *, download=False: Data(*(Split(s.x, s.y + 7) for s in parts())),
        loss=lambda o, y: (o[:, 0] - y) ** 2 / 2 + o[:, 1] ** 2,
        score=lambda o, y: -((o[:, 0] - y) ** 2),
    )
    assert examine(counts, None).problems == []


def test_an_axis_of_time_behind_that_of_classes_is_seen():
    x = part(20, 0).x
    y = torch.zeros(20, 5, dtype=torch.int64)
    task = with_(
        network=lambda: nn.Sequential(mlp(outputs=15), nn.Unflatten(1, (3, 5))),
        loss=lambda o, y: F.cross_entropy(o, y, reduction="none").mean(1),
        score=lambda o, y: (o.argmax(1) == y).float().mean(1),
        data=lambda self, root, *, download=False: Data(*[Split(x, y)] * 3),
    )
    assert examine(task, None).problems == []
    y[4, 2] = 3
    assert "1 of 20 examples of train have labels out of range" in examine(task, None).problems[0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (changed(validation=at(parts().validation, "x", (5, 2), NAN)),
         "inputs of validation contain NaN in 1 of 20 examples, the first at index 5; expected finite numbers"),
        (changed(test=at(parts().test, "x", (slice(3, 6), 0), INF)),
         "inputs of test contain infinity in 3 of 30 examples, the first at index 3"),
        (changed(test=part(0, 2)), "test is empty; expected one example or more"),
        (changed(train=part(0, 2)), "train is empty"),
        (changed(train=part(9, 0)._replace(y=part(8, 0).y)), "train has 9 inputs and 8 targets"),
        (changed(test=Split(part(30, 2).x[:, :5], part(30, 2).y)),
         r"inputs of test have shape \(5,\) for an example, those of train \(6,\)"),
        (changed(validation=cast([part(20, 1)] * 3, x=torch.float64)[0]),
         "inputs of validation are of type float64, those of train float32"),
        (changed(test=cast([part(30, 2)] * 3, y=torch.int32)[0]),
         "targets of test are of type int32, those of train int64"),
        (changed(train=at(parts().train, "y", 7, -1)),
         "1 of 40 examples of train have labels out of range: .* from -1 to 1, .* example 7, and 2 outputs stand for labels from 0 to 1"),
        (changed(test=at(parts().test, "y", slice(4, 6), 2)),
         "2 of 30 examples of test have labels out of range: the labels reach from 0 to 2, the first .* example 4"),
        (changed(train=Split(part(9, 0).x.tolist(), part(9, 0).y)), "inputs of train are a list; expected a torch.Tensor"),
        (changed(train=Split(part(9, 0).x, part(9, 0).y.numpy())), "targets of train are a ndarray"),
        (changed(validation=Split(part(9, 0).x.to("meta"), part(9, 0).y)), "inputs of validation are on meta; expected the CPU"),
        (changed(test=Split(part(9, 0).x.requires_grad_(), part(9, 0).y)), "inputs of test require a gradient"),
        (changed(test=Split(part(9, 0).x.to_sparse(), part(9, 0).y)), "inputs of test are not dense"),
        (changed(test=Split(part(9, 0).x + 0j, part(9, 0).y)), "inputs of test are of type complex64"),
        (changed(test=Split(torch.tensor(1.0), part(9, 0).y)), "inputs of test are a single number"),
        (changed(test=(part(9, 0).x, part(9, 0).y)), "test is a tuple; expected rulezoo.Split"),
        (list(parts()), r"data\(\) returned a list; expected rulezoo.Data"),
        (None, r"data\(\) returned a NoneType"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on(data, sentence):
    assert re.search(sentence, problem(with_data(data)))


def test_infinity_in_numbers_to_be_learnt_is_named():
    data = regression().data(None)
    assert "targets of train contain infinity in 1 of 40 examples, the first at index 6" in problem(
        with_data(data._replace(train=at(data.train, "y", 6, INF)))
    )


def test_every_part_with_a_fault_is_named():
    data = changed(
        validation=at(parts().validation, "x", (5, 2), NAN), test=at(parts().test, "x", (1, 1), NAN)
    )
    found = examine(with_data(data), None).problems
    assert [one.partition(" contain")[0] for one in found] == ["inputs of validation", "inputs of test"]


@pytest.mark.parametrize("which", ["loss", "score"])
def test_shapes_of_loss_and_score(which):
    def sentence(function, make=with_):
        return problem(make(**{which: function}))

    wide = sentence(lambda o, y: (o - y) ** 2, regression)
    assert f"{which}() returned shape (8, 8) for output of shape (8, 1) and target of shape (8,)" in wide
    assert "expected shape (8,)" in wide
    assert "broadcast" in wide
    scalar = sentence(lambda o, y: F.cross_entropy(o, y))
    assert f"{which}() returned shape ()" in scalar
    assert "reduction='none'" in scalar
    column = sentence(lambda o, y: F.cross_entropy(o, y, reduction="none")[:, None])
    assert f"{which}() returned shape (8, 1)" in column
    assert "flatten(1).mean(1)" in column
    each = sentence(lambda o, y: (o.softmax(-1) - F.one_hot(y, 2)) ** 2)
    assert f"{which}() returned shape (8, 2)" in each
    classes = sentence(lambda o, y: o.mean(0))
    assert f"{which}() returned shape (2,)" in classes
    assert f"{which}() returned a float; expected a tensor" in sentence(lambda o, y: 0.5)
    assert f"{which}() raised ZeroDivisionError: division by zero" in sentence(lambda o, y: 1 / 0)
    assert f"{which}() raised SystemExit: bye" in sentence(lambda o, y: raising(SystemExit("bye")))


def raising(error):
    raise error


@pytest.mark.parametrize("which", ["loss", "score"])
def test_loss_and_score_leave_what_they_are_given_as_it_is(which):
    def over_target(o, y):
        losses = F.cross_entropy(o, y, reduction="none")
        y.fill_(0).add_(1)
        return losses

    def over_output(o, y):
        losses = F.cross_entropy(o, y, reduction="none")
        o.detach().zero_()
        return losses

    assert f"{which}() writes over its target; compute with a copy: target.clone()" == problem(
        with_(**{which: over_target})
    )
    assert f"{which}() writes over its output" in problem(with_(**{which: over_output}))


def test_a_loss_without_a_gradient():
    hard = with_(loss=lambda o, y: (o.argmax(-1) != y).float())
    assert "loss() has no gradient with respect to the output" in problem(hard)
    assert "loss() returned type int64" in problem(with_(loss=lambda o, y: (o.argmax(-1) != y).long()))


class Last(nn.Module):
    def forward(self, given):
        return given[0][:, -1, :2]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x), x


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Pair, "the network returned a tuple; it must return one tensor"),
        (lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.GRU(2, 8, batch_first=True), Site("post")),
         "the site '2' is given a tuple; expected a tensor"),
        (lambda: add_sites(nn.Sequential(nn.Unflatten(1, (3, 2)), nn.GRU(2, 8, batch_first=True)), {nn.GRU: "post"}),
         "the network returned a tuple; it must return one tensor"),
        (lambda: add_sites(nn.Sequential(nn.Unflatten(1, (3, 2)), nn.GRU(2, 8, batch_first=True), Last()), {nn.GRU: "post"}),
         "tuple"),
        (lambda: mlp(inputs=5), "the network raised RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (lambda: mlp().double(), r"for inputs of shape \(2, 6\), float32 \(parameters: float64\)"),
        (lambda: nn.Sequential(mlp(), nn.Flatten(0)), r"the network returned shape \(4,\) for 2 inputs"),
        (lambda: mlp, "network.. returned a function; expected a torch.nn.Module"),
        (lambda: raising(ValueError("no")), r"network\(\) raised ValueError: no"),
        (lambda: raising(KeyboardInterrupt()), r"network\(\) raised KeyboardInterrupt"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_trained(network, sentence):
    assert re.search(sentence, problem(with_(network=network)))


def test_data_that_differ_when_they_are_asked_for_twice():
    def unseeded(self, root, *, download=False):
        data = parts()
        return data._replace(validation=data.validation._replace(x=torch.randn(20, 6)))

    said = problem(with_(data=unseeded))
    assert "data() returned other data when it was called a second time (validation inputs)" in said
    assert "fixed seed" in said


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("no luck"), "data() raised ValueError: no luck"),
        (SystemExit(0), "data() raised SystemExit: 0"),
        (KeyboardInterrupt(), "data() raised KeyboardInterrupt"),
    ],
)
def test_whatever_data_raises_is_a_sentence(error, sentence):
    assert problem(with_data(lambda: raising(error))) == sentence


def test_missing_data_keep_their_message():
    found = examine(with_data(lambda: raising(DataMissing("get it there"))), None)
    assert (found.missing, found.problems) == ("get it there", [])


def test_a_digest_tells_every_change():
    data = parts()
    known = {contract.digest(data)}
    for other in (
        changed(train=at(data.train, "x", (0, 0), 9.0)),
        changed(test=at(data.test, "y", 0, 1 - int(data.test.y[0]))),
        changed(train=Split(data.train.x.view(40, 2, 3), data.train.y)),
        cast(data, y=torch.int32),
        Data(data.train, data.test, data.validation),
    ):
        known.add(contract.digest(other))
    assert len(known) == 6
    transposed = data.train.x.t().contiguous().t()
    assert contract.digest(changed(train=Split(transposed, data.train.y))) == contract.digest(data)
    assert contract.digest(cast(data, x=torch.bfloat16)) is not None
    assert contract.digest(SimpleNamespace(train=1)) is None


BUDGET = Plain.budget


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (replace(BUDGET, epochs=0), "budget.epochs must be a whole number, 1 or more, got 0"),
        (replace(BUDGET, batch=2.5), "budget.batch must be a whole number, 1 or more, got 2.5"),
        (replace(BUDGET, lr=0.0), "budget.lr must be a number above 0, got 0.0"),
        (replace(BUDGET, lr=NAN), "budget.lr must be a number above 0, got nan"),
        (replace(BUDGET, weight_decay=-1.0), "budget.weight_decay must be a number 0 or more, got -1.0"),
        ({"epochs": 3}, "budget must be a rulezoo.Budget, got {'epochs': 3}"),
        (BUDGET, None),
    ],
)  # fmt: skip
def test_budgets(budget, sentence):
    assert contract.budget_problem(budget) == sentence
