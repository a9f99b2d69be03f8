import itertools
import math

import pytest
import torch

from rulezoo_tasks.sigmoid_mlp import CIFAR10SigmoidMLP, MNISTSigmoidMLP


def test_pixels_are_fractions_of_white_and_nothing_is_used_twice(mnist_root):
    data = MNISTSigmoidMLP().data(mnist_root)
    assert [len(part.y) for part in data] == [
        200,
        200,
        50,
    ]  # of 400 and 50 images; half when 1,000 are not there
    for part in data:
        assert part.x.dtype == torch.float32
        assert part.x.min() >= 0
        assert part.x.max() == 1
    numbers = [
        {
            round(256 * 255 * float(a) + 255 * float(b))
            for a, b in zip(p.x[:, 0, 0, 1], p.x[:, 0, 0, 0], strict=True)
        }
        for p in data[:2]
    ]  # the first two pixels of an image hold its number
    assert numbers[0] | numbers[1] == set(range(400))
    assert not numbers[0] & numbers[1]


def test_examples_are_the_first_of_a_fixed_order(mnist_root):
    whole, part = (MNISTSigmoidMLP(examples=n).data(mnist_root) for n in (None, 150))
    assert torch.equal(part.train.x, whole.train.x[:150])
    assert torch.equal(part.validation.x, whole.validation.x)


def test_a_thousand_of_the_real_images_are_held_out(real_root):
    data = MNISTSigmoidMLP().data(real_root)
    assert [len(part.y) for part in data] == [59_000, 1_000, 10_000]


def test_the_loss_is_the_cross_entropy_of_each_output_unit():
    drive = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([3, 0, 9, 9, 1])
    losses = MNISTSigmoidMLP().loss(drive, target)
    for row, label, loss in zip(drive.tolist(), target.tolist(), losses.tolist(), strict=True):
        answers = [1 / (1 + math.exp(-s)) for s in row]
        by_hand = sum(-math.log(a if i == label else 1 - a) for i, a in enumerate(answers))
        assert loss == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize(
    ("task", "widths"), [(MNISTSigmoidMLP(), (784, 500, 10)), (CIFAR10SigmoidMLP(), (3072, 1000, 10))]
)
def test_weights_and_biases_are_drawn_as_in_the_public_code(task, widths):
    torch.manual_seed(0)
    network = task.network()
    layers = [network.fc.layer, network.readout]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(itertools.pairwise(widths))
    for layer in layers:
        sd = (layer.in_features + layer.out_features) ** -0.5
        assert layer.weight.std().item() == pytest.approx(sd, rel=0.05)
        assert abs(layer.weight.mean().item()) < 4 * sd / layer.weight.numel() ** 0.5
        assert layer.bias.std().item() == pytest.approx(sd, rel=0.6)


def test_hidden_units_are_sigmoid_and_outputs_are_drives():
    task = MNISTSigmoidMLP()
    network = task.network().double()
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    first, second = network.fc.layer, network.readout
    hidden = 1 / (1 + torch.exp(-(x.flatten(1) @ first.weight.T + first.bias)))
    assert torch.allclose(network(x), hidden @ second.weight.T + second.bias)


def test_the_budget_is_that_of_the_public_code():
    budget = MNISTSigmoidMLP.budget
    assert (budget.epochs, budget.batch, budget.lr, budget.optimizer) == (400, 128, 0.2, "SGD")
    assert not budget.optimizer_options  # no momentum
    assert budget.schedule == "constant"
    assert CIFAR10SigmoidMLP.budget == budget
