"""Tasks in the settings of public code: data, networks, losses and budgets against what that code says, by hand."""

import itertools
import math

import pytest
import torch

from rulezoo import Net, credit
from rulezoo.discovery.registry import discover
from rulezoo_tasks.conditioned_feedback import FashionTanhMLP, MNISTReLUMLP
from rulezoo_tasks.images import MNIST
from rulezoo_tasks.modulated_input import CIFAR10ReLUMLP
from rulezoo_tasks.predicted_layers import MNISTDeepMLP, MNISTSquaredMLP
from rulezoo_tasks.public_settings import drawn, first, parts
from rulezoo_tasks.random_targets import CIFAR10TanhMLP, MNISTTanhMLP

WIDTHS = {
    MNISTReLUMLP: (784, 256, 128, 10),
    FashionTanhMLP: (784, 300, 300, 300, 10),
    MNISTTanhMLP: (784, 500, 10),
    CIFAR10TanhMLP: (3072, 500, 10),
    MNISTSquaredMLP: (784, 300, 300, 10),
    MNISTDeepMLP: (784, *(128,) * 9, 10),
    CIFAR10ReLUMLP: (3072, 1024, 10),
}
TASKS = sorted(WIDTHS, key=lambda cls: cls.__name__)


def _linear(cls):
    torch.manual_seed(0)
    return [m for m in cls().network().modules() if isinstance(m, torch.nn.Linear)]


def _numbers(split):
    """The number of each image, from its first two pixels."""
    return [
        round(255 * float(a) + 256 * 255 * float(b))
        for a, b in zip(split.x[:, 0, 0, 0], split.x[:, 0, 0, 1], strict=True)
    ]


def test_pixels_are_fractions_of_white_and_nothing_is_used_twice(mnist_root):
    data = parts(MNIST, mnist_root, download=False, held_out=100)
    assert [len(part.y) for part in data] == [300, 100, 50]
    assert all(part.x.dtype == torch.float32 for part in data)
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)
    train, validation = _numbers(data.train), _numbers(data.validation)
    assert sorted(train + validation) == list(range(400))
    assert data.train.y.tolist() == [n % 10 for n in train]
    assert data.validation.y.tolist() == [n % 10 for n in validation]
    assert train != sorted(train)


def test_at_most_half_of_the_images_are_held_out(mnist_root):
    assert [len(p.y) for p in parts(MNIST, mnist_root, download=False, held_out=5000)] == [200, 200, 50]


def test_pixels_are_shifted_and_scaled_by_the_given_numbers(mnist_root):
    plain = parts(MNIST, mnist_root, download=False, held_out=100)
    moved = parts(MNIST, mnist_root, download=False, held_out=100, mean=(0.25,), sd=(0.5,))
    for a, b in zip(plain, moved, strict=True):
        assert torch.allclose(b.x, (a.x - 0.25) / 0.5)


def test_each_channel_has_its_own_mean_and_sd(monkeypatch):
    images = torch.full((4, 3, 2, 2), 255, dtype=torch.uint8)
    task = CIFAR10TanhMLP()
    monkeypatch.setattr(type(task.source), "read", lambda *_, **__: ((split := _Split(images)), split))
    for part in task.data(None):
        for c, (mean, sd) in enumerate(((125.3, 63.0), (123.0, 62.1), (113.9, 66.7))):
            assert torch.allclose(part.x[:, c], torch.tensor((255 - mean) / sd))


class _Split:
    def __init__(self, x):
        self.x, self.y = x, torch.arange(len(x))


def test_examples_are_the_first_or_are_drawn_with_replacement(mnist_root):
    whole = parts(MNIST, mnist_root, download=False, held_out=100)
    assert torch.equal(first(whole, 7).train.x, whole.train.x[:7])
    assert first(whole, None).train.y.tolist() == whole.train.y.tolist()
    many = drawn(whole, 3000)
    assert len(many.train.y) == 3000
    assert many.train.y.tolist() == [n % 10 for n in _numbers(many.train)]
    counts = torch.bincount(torch.tensor(_numbers(many.train)), minlength=400)[_numbers(whole.train)]
    assert counts.sum() == 3000  # none of another part
    assert 5 < counts.double().var() < 20  # Poisson: 10
    assert torch.equal(drawn(whole, 3000).train.x, many.train.x)
    for task in (MNISTReLUMLP(examples=640), MNISTSquaredMLP(examples=128), MNISTTanhMLP(examples=128)):
        assert len(task.data(mnist_root).train.y) == task.examples


@pytest.mark.parametrize("cls", TASKS)
def test_layers_have_the_published_widths(cls):
    assert [(m.in_features, m.out_features) for m in _linear(cls)] == list(itertools.pairwise(WIDTHS[cls]))


@pytest.mark.parametrize(
    ("cls", "variance", "uniform"),
    [
        (MNISTReLUMLP, lambda n, _: 2 / n, False),
        (FashionTanhMLP, lambda n, m: 2 / (n + m), True),
        (MNISTTanhMLP, lambda n, _: 1 / (3 * n), True),
        (CIFAR10TanhMLP, lambda n, _: 1 / (3 * n), True),
        (MNISTSquaredMLP, lambda n, _: 1 / (3 * n), True),
        (MNISTDeepMLP, lambda n, _: 1 / (3 * n), True),
        (CIFAR10ReLUMLP, lambda n, _: 2 / n, True),
    ],
)
def test_weights_are_drawn_as_in_the_public_code(cls, variance, uniform):
    for layer in _linear(cls):
        expected, weight = variance(layer.in_features, layer.out_features), layer.weight.detach()
        assert weight.var().item() == pytest.approx(expected, rel=0.1)
        assert (weight.abs().max() <= (3 * expected) ** 0.5 * (1 + 1e-5)).item() == uniform


@pytest.mark.parametrize("cls", TASKS)
def test_biases_are_those_of_the_public_code(cls):
    biases = [layer.bias for layer in _linear(cls)]
    if cls is CIFAR10ReLUMLP:
        assert biases == [None, None]
    elif cls in (MNISTReLUMLP, FashionTanhMLP):
        assert not any(bias.any() for bias in biases)
    else:
        assert all(bias.any() for bias in biases)


@pytest.mark.parametrize("cls", TASKS)
def test_the_forward_pass_is_the_published_network(cls):
    torch.manual_seed(1)
    network = cls().network().double().eval()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    x = torch.rand(2, layers[0].in_features, dtype=torch.float64)
    bend = torch.tanh if cls.__name__ in ("FashionTanhMLP", "MNISTTanhMLP", "CIFAR10TanhMLP", "MNISTSquaredMLP") else (
        lambda s: s.clamp(min=0)
    )  # fmt: skip
    h = x
    for layer in layers[:-1]:
        h = bend(h @ layer.weight.T + (0 if layer.bias is None else layer.bias))
    drive = h @ layers[-1].weight.T + (0 if layers[-1].bias is None else layers[-1].bias)
    side = 28 if layers[0].in_features == 784 else 32
    assert torch.allclose(network(x.view(2, -1, side, side)), drive)


def test_losses_are_those_of_the_public_code():
    drive = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = [3, 0, 9]
    for row, label, *losses in zip(
        drive.tolist(),
        labels,
        *(c().loss(drive, torch.tensor(labels)).tolist()
          for c in (FashionTanhMLP, MNISTTanhMLP, MNISTSquaredMLP, MNISTReLUMLP, CIFAR10ReLUMLP)),
        strict=True,
    ):  # fmt: skip
        sigmoid = [1 / (1 + math.exp(-s)) for s in row]
        each = sum(-math.log(a if i == label else 1 - a) for i, a in enumerate(sigmoid))
        squared = sum((s - (i == label)) ** 2 for i, s in enumerate(row)) / 2
        softmax = -row[label] + math.log(sum(math.exp(s) for s in row))
        assert losses == pytest.approx([each, each / 10, squared, softmax, softmax])


@pytest.mark.parametrize(
    ("cls", "unit"), [(MNISTReLUMLP, True), (FashionTanhMLP, True), (MNISTTanhMLP, False)]
)
def test_direct_feedback_has_the_published_size(cls, unit):
    """What a rule sends to a site of n units reaches the activity times √n, where feedback is to have a sd of 1."""
    torch.manual_seed(0)
    net = Net(cls().network().double(), torch.zeros(2, 1, 28, 28, dtype=torch.float64))
    params, x = net.init_params(), torch.rand(2, 1, 28, 28, dtype=torch.float64)
    cut = credit.cut(net, params, x, net.keys("post"))
    signals = {key: torch.zeros_like(h) for key, h in cut.sites.items()}
    signals["fc1.post"] = torch.randn_like(signals["fc1.post"])
    grads = cut.pull(torch.zeros(2, 10, dtype=torch.float64), signals)
    drive = x.flatten(1) @ params["fc1.layer.weight"].T + params["fc1.layer.bias"]
    slope = (drive > 0).double() if cls is MNISTReLUMLP else 1 - drive.tanh() ** 2
    factor = WIDTHS[cls][1] ** 0.5 if unit else 1.0
    assert torch.allclose(grads["fc1.layer.weight"], factor * (signals["fc1.post"] * slope).T @ x.flatten(1))


def test_budgets_are_those_of_the_public_code():
    def of(name):
        return discover().make_task(name, {}).budget

    updates = {
        "mnist-relu-mlp": 1000,
        "fashion-tanh-mlp": 1000,
        "mnist-squared-mlp": 500,
        "mnist-deep-mlp": 300,
    }
    for name, count in updates.items():
        task = discover().make_task(name, {})
        assert task.budget.epochs * task.examples == count * task.budget.batch
    found = {name: (b.batch, b.lr, b.optimizer) for name in (*updates, "mnist-tanh-mlp", "cifar10-tanh-mlp", "cifar10-relu-mlp") for b in [of(name)]}  # fmt: skip
    assert found == {
        "mnist-relu-mlp": (128, 0.03, "SGD"),
        "fashion-tanh-mlp": (128, 1e-3, "SGD"),
        "mnist-squared-mlp": (64, 1e-3, "Adam"),
        "mnist-deep-mlp": (64, 1e-3, "Adam"),
        "mnist-tanh-mlp": (60, 1.5e-4, "Adam"),
        "cifar10-tanh-mlp": (100, 1.5e-4, "Adam"),
        "cifar10-relu-mlp": (64, 0.01, "SGD"),
    }
    pepita = of("cifar10-relu-mlp")
    assert (pepita.epochs, pepita.schedule, pepita.schedule_per) == (100, "MultiStepLR", "epoch")
    assert (pepita.optimizer_options, pepita.schedule_options) == (
        {"momentum": 0.9},
        {"milestones": [60, 90]},
    )
    assert all(not of(name).optimizer_options for name in found if name != "cifar10-relu-mlp")
