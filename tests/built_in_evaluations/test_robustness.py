import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from rulezoo import Data, MeasurementError, Split, datasets
from rulezoo_evaluations import attacks
from rulezoo_evaluations.corruptions import CORRUPTIONS, SEVERITIES
from rulezoo_evaluations.robustness import (
    PixelRange,
    Robustness,
    UnitModel,
    correct,
    half_size,
    halving,
    is_image,
    masking,
    pixel_range,
    zero_gradients,
)

from .conftest import Stripes, trained_on

needs_toolbox = pytest.mark.skipif(attacks.missing() is not None, reason=str(attacks.missing()))
SMALL = Robustness(levels=4, steps=8, examples=60)


def linear_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()


def inputs(model, number=40, seed=0):
    """Inputs away from 0 and 1, and the model's own answers as labels."""
    x = 0.4 + 0.2 * torch.rand(number, 3, 4, generator=torch.Generator().manual_seed(seed))
    return x, model(x).argmax(-1)


# Units -----------------------------------------------------------------------------------------------------------------


def test_bytes_are_from_0_to_255():
    x = torch.randint(60, 70, (6, 3, 4, 4), dtype=torch.uint8)
    data = Data(*(Split(x, torch.zeros(6)) for _ in range(3)))
    pixels = pixel_range(data, "any")
    assert (float(pixels.low), float(pixels.high)) == (0.0, 255.0)
    torch.testing.assert_close(pixels.from_unit(pixels.to_unit(x)), x.float())


def test_the_range_undoes_a_standardisation_by_channel():
    raw = torch.randint(0, 256, (50, 3, 8, 8)).float()
    raw[0], raw[1] = 0.0, 255.0
    mean, sd = (
        torch.tensor([120.0, 110.0, 90.0]).view(3, 1, 1),
        torch.tensor([60.0, 50.0, 70.0]).view(3, 1, 1),
    )
    parts = [
        Split((raw[i] - mean) / sd, torch.zeros(len(raw[i])))
        for i in (slice(1, 40), slice(0, 1), slice(40, 50))
    ]
    pixels = pixel_range(Data(*parts), "any")
    torch.testing.assert_close(pixels.to_unit(parts[0].x), raw[1:40] / 255, atol=1e-6, rtol=0)
    torch.testing.assert_close((pixels.high - pixels.low).flatten(), 255 / sd.flatten())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 4, dtype=torch.int64), "int64, which has no range"),
        (torch.ones(5, 4), "constant in a channel"),
    ],
)
def test_inputs_without_a_range_are_refused(x, message):
    with pytest.raises(MeasurementError, match=message):
        pixel_range(Data(*(Split(x, torch.zeros(5)) for _ in range(3))), "any")


@pytest.mark.parametrize("name", ["cifar10-cnn", "fashion-cnn"])
def test_one_unit_is_255_grey_levels_of_the_built_in_tasks(name, real_root):
    from rulezoo_tasks.images import CIFAR10, FASHION_MNIST, moments
    from rulezoo_tasks.vision import CIFAR10CNN, FashionCNN

    task, source = {"cifar10-cnn": (CIFAR10CNN(), CIFAR10), "fashion-cnn": (FashionCNN(), FASHION_MNIST)}[
        name
    ]
    original, test = source.read(real_root, download=False)
    pixels = pixel_range(task.data(real_root), name)
    torch.testing.assert_close(
        pixels.to_unit(task.data(real_root).test.x[:50]), test.x[:50] / 255, atol=1e-5, rtol=0
    )
    _, sd = moments(original.x)
    torch.testing.assert_close((pixels.high - pixels.low).flatten(), 255 / sd.flatten(), rtol=0.01, atol=0)


@dataclass(frozen=True)
class ByteStripes(Stripes):
    """The stripes as bytes, which `prepare` standardises."""

    def data(self, root, *, download=False):
        return Data(*(Split((255 * p.x).round().to(torch.uint8), p.y) for p in super().data(root)))

    def prepare(self, x, draw):
        return datasets.standardise(x, (70.0,), (40.0,))


@dataclass(frozen=True)
class Wrapping(ByteStripes):
    """Its `prepare` needs bytes: floating-point numbers come out otherwise."""

    def prepare(self, x, draw):
        return super().prepare(x + 200, draw)


@needs_toolbox
def test_bytes_and_numbers_have_the_same_units():
    found = [SMALL.measure(trained_on(task), None) for task in (Stripes(), ByteStripes())]
    for one, other in zip(*(f.arrays["pgd-linf"] for f in found), strict=True):
        assert one == pytest.approx(other, abs=0.15)  # networks that were trained alike


@needs_toolbox
def test_a_task_that_prepares_bytes_alone_is_refused():
    with pytest.raises(MeasurementError, match="gives other inputs for floating-point numbers"):
        SMALL.measure(trained_on(Wrapping()), None)


# Attacks -----------------------------------------------------------------------------------------------------------------


def slow_pgd(model, x, y, epsilon, norm, steps):
    """Steps along the gradient in float64, from the input itself."""
    model, start = model.double(), x.double()
    at = start.clone()
    for _ in range(steps):
        at.requires_grad_()
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(model(at), y, reduction="sum"), at)
        step = g.sign() if norm == np.inf else g / g.flatten(1).norm(dim=1).view(-1, 1, 1)
        at = at.detach() + 2.5 * epsilon / steps * step
        at = at.clamp(0, 1)
        delta = at - start
        if norm == np.inf:
            delta = delta.clamp(-epsilon, epsilon)
        else:
            delta = delta * (epsilon / delta.flatten(1).norm(dim=1)).clamp_max(1).view(-1, 1, 1)
        at = start + delta
    model.float()
    return at


@needs_toolbox
@pytest.mark.parametrize(("norm", "epsilon"), [(np.inf, 0.05), (2, 0.1)])
def test_on_a_linear_network_attacks_are_exact(norm, epsilon):
    """The best perturbation is known: the margin falls by epsilon times the dual norm of the difference of weights.

    PGD starts at a random point. Signs undo that within its steps; in L2 an angle φ to the best direction shrinks as
    dφ/ds = -sin φ / epsilon over the path s of 2.5 epsilon, so that from 120° 16° are left, which costs 4 %.
    """
    model = linear_model()
    x, y = inputs(model)
    attacked = attacks.classifier(model, x, 2)
    found = attacks.pgd(attacked, x, y, epsilon, norm, 40, seed=0)
    slow = slow_pgd(model, x, y, epsilon, norm, 40).float()
    w = model[1].weight.detach()
    best = epsilon * (w[0] - w[1]).norm(p=1 if norm == np.inf else 2)

    def fall(at):
        with torch.no_grad():
            return ((model(x) - model(at)) @ torch.tensor([1.0, -1.0])) * (1 - 2 * y)

    torch.testing.assert_close(fall(slow), best.expand(40), atol=1e-6, rtol=0)
    assert (fall(found) <= best + 1e-6).all()
    assert (fall(found) >= best * (1 - 1e-5 if norm == np.inf else 0.96)).all()
    if norm == np.inf:
        torch.testing.assert_close(attacks.fgsm(attacked, x, y, epsilon), found, atol=1e-6, rtol=0)
    size = (found - x).flatten(1).norm(p=norm, dim=1)
    assert (size <= epsilon * (1 + 1e-5)).all()


@needs_toolbox
def test_attacks_stay_in_the_range_of_pixels_and_repeat_themselves():
    model = linear_model()
    x = torch.rand(30, 3, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(-1)
    attacked = attacks.classifier(model, x, 2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (attacks.pgd(attacked, x, y, 0.6, 2, 3, seed=5) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, attacks.pgd(attacked, x, y, 0.6, 2, 3, seed=6))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert first.min() >= 0
    assert first.max() <= 1


@needs_toolbox
def test_accuracy_falls_from_clean_to_nothing(stripes):
    evaluation = Robustness(levels=8, steps=10, examples=100, epsilon=0.5)
    found = evaluation.measure(stripes, None)
    test = stripes.data(None).test
    for name in ("pgd-linf", "fgsm-linf", "pgd-l2", "gaussian", "random-signs"):
        assert found.arrays[name][0] == pytest.approx(found.values["clean"], abs=1e-7)
    assert (
        found.arrays["pgd-linf"][1] > found.values["clean"] - 0.05
    )  # a 256th of the range is next to nothing
    assert found.arrays["pgd-linf"][-1] == 0
    assert found.arrays["pgd-l2"][-1] == 0
    assert (np.diff(found.arrays["pgd-linf"]) <= 0).all()
    assert (
        found.values["masking-random"] == found.values["masking-rise"] == found.values["zero-gradients"] == 0
    )
    assert not found.notes
    assert found.values["clean"] == pytest.approx(
        float((stripes.predict(test.x).argmax(-1) == test.y).float().mean()), abs=0.1
    )
    assert found.arrays["sizes-linf"][0] == 0
    assert found.arrays["sizes-linf"][[1, -1]] == pytest.approx([0.5 / 128, 0.5])
    assert found.values.keys() >= {Robustness.headline, "corruptions"}
    assert evaluation.measure(stripes, None).values == found.values


def test_noise_costs_a_linear_network_what_theory_says():
    """Accuracy is the mean of Φ(margin / (σ ‖w‖)); random signs of size σ are the same in the limit of many pixels.

    Of 20,000 answers, four standard errors are 0.014.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    x = 0.4 + 0.2 * torch.rand(20_000, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[1].bias -= model(torch.full((1, 6, 8), 0.5))[0]  # grey is on the border
        margin = model(x) @ torch.tensor([1.0, -1.0])
        y = (margin < 0).long()
        w = (model[1].weight[0] - model[1].weight[1]).norm()
    evaluation = Robustness(noise=0.1, epsilon=0.1, levels=3)
    found = evaluation._noise(model, x, y, torch.ones(len(x), dtype=torch.bool))
    expected = [
        1.0,
        *(float(torch.special.ndtr(margin.abs() / (size * w)).mean()) for size in (0.025, 0.05, 0.1)),
    ]
    assert expected[-1] < expected[1] - 0.05
    assert found["gaussian"] == pytest.approx(expected, abs=0.014)
    assert found["random-signs"] == pytest.approx(expected, abs=0.03)


@needs_toolbox
def test_attacks_are_given_the_sizes_that_are_reported(unit, monkeypatch):
    given = {"fgsm": [], np.inf: [], 2: []}

    def fgsm(attacked, x, y, size):
        given["fgsm"].append(size)
        return x

    def pgd(attacked, x, y, size, norm, steps, seed):
        given[norm].append(size)
        assert (steps, seed) == (SMALL.steps, SMALL.seed)
        return x

    monkeypatch.setattr(attacks, "fgsm", fgsm)
    monkeypatch.setattr(attacks, "pgd", pgd)
    found = SMALL.of(*unit)
    assert given["fgsm"] == given[np.inf] == found.arrays["sizes-linf"][1:].tolist()
    assert given[2] == found.arrays["sizes-l2"][1:].tolist()
    assert (found.arrays["pgd-l2"] == found.values["clean"]).all()  # nothing was changed


class Louder(nn.Module):
    """A model with outputs so large that softmax has no gradient in float32."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


class Staircase(nn.Module):
    """A model that rounds its inputs: it has no gradient anywhere."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((20 * x).round() / 20)


@pytest.fixture
def unit(stripes):
    data = stripes.made_task.data(None)
    model = UnitModel(stripes.model(), pixel_range(data, "stripes"), stripes.made_task).requires_grad_(False)
    return model, data.test.x[:60], data.test.y[:60]


@needs_toolbox
def test_large_outputs_do_not_hide_the_gradient(unit):
    """Without the division by their largest margin, a network with outputs × 1e4 would seem to withstand every attack."""
    model, x, y = unit
    quiet, loud = SMALL.of(model, x, y), SMALL.of(Louder(model, 1e4), x, y)
    assert loud.values["clean"] == quiet.values["clean"]
    assert loud.values["zero-gradients"] == 0
    assert loud.arrays["pgd-linf"] == pytest.approx(quiet.arrays["pgd-linf"], abs=0.1)
    right = correct(model, x, y)
    assert zero_gradients(Louder(model, 1e4), x[right], y[right]) > 0.5


@needs_toolbox
def test_masked_gradients_are_noticed(unit):
    model, x, y = unit
    found = SMALL.of(Staircase(model), x, y)
    assert found.values["zero-gradients"] == 1
    assert "masked" in found.notes["zero-gradients"]


def test_each_control_sees_what_it_is_for():
    flat = {name: np.array([0.9, 0.9, 0.9]) for name in ("pgd-linf", "pgd-l2", "fgsm-linf", "random-signs")}
    assert set(masking(flat).values()) == {0.0}
    falls = np.array([0.9, 0.5, 0.2])
    assert masking({**flat, "fgsm-linf": falls})["masking-one-step"] == pytest.approx(0.7)
    assert masking({**flat, "random-signs": falls})["masking-random"] == pytest.approx(0.7)
    assert masking({**flat, "pgd-l2": falls[::-1]})["masking-rise"] == pytest.approx(0.4)


def test_a_network_that_is_never_right_has_nothing_to_attack(unit):
    model, x, _ = unit
    if attacks.missing():
        pytest.skip("no toolbox")
    wrong = (model(x).argmax(-1) + 1) % 3
    found = SMALL.of(model, x, wrong)
    assert found.values["clean"] == found.values["pgd-linf"] == 0
    assert math.isnan(found.values["half-size-linf"])
    assert found.notes["half-size-linf"]


def test_the_half_size_is_interpolated():
    sizes = np.array([0.0, 0.1, 0.2, 0.4])
    assert half_size(sizes, np.array([1.0, 0.9, 0.5, 0.0])) == pytest.approx(0.2)
    assert half_size(sizes, np.array([0.8, 0.8, 0.6, 0.2])) == pytest.approx(0.2 * 2**0.5)
    assert half_size(sizes, np.array([0.8, 0.0, 0.0, 0.0])) == pytest.approx(0.05)
    assert math.isnan(half_size(sizes, np.array([0.8, 0.8, 0.8, 0.7])))
    assert halving(0.4, 3) == [0.1, 0.2, 0.4]


# Corruptions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_images_and_grow_with_severity(name, side, channels):
    gen = torch.Generator().manual_seed(0)
    x = torch.rand(6, channels, side, side, generator=gen)
    found = [corrupt(x) for corrupt in CORRUPTIONS[name]]
    assert len(found) == SEVERITIES
    change = [float((f - x).square().mean()) for f in found]
    for f in found:
        assert f.shape == x.shape
        assert f.dtype == x.dtype
        assert f.min() >= 0
        assert f.max() <= 1
    assert change[-1] > change[0] > 0 if side == 32 else change[-1] >= change[0]


def test_some_corruptions_by_hand():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(CORRUPTIONS["brightness"][0](x), (x + 0.05).clamp_max(1))
    grey = torch.full((1, 1, 16, 16), 0.4)
    for name in ("blur", "contrast", "pixelate"):
        torch.testing.assert_close(CORRUPTIONS[name][4](grey), grey)
    torch.testing.assert_close(CORRUPTIONS["jpeg"][4](grey), grey, atol=1 / 255, rtol=0)
    spread = CORRUPTIONS["contrast"][1](x)
    torch.testing.assert_close(spread.std((-2, -1)), 0.5 * x.std((-2, -1)))
    from scipy.ndimage import gaussian_filter

    blurred = CORRUPTIONS["blur"][4](x)[0, 0].numpy()
    np.testing.assert_allclose(blurred, gaussian_filter(x[0, 0].numpy(), 1.0, mode="mirror"), atol=1e-5)


def test_what_is_an_image():
    assert is_image((8, 8))
    assert is_image((1, 28, 28))
    assert is_image((3, 64, 64))
    assert not is_image((12, 2))
    assert not is_image((64,))
    assert not is_image((2, 28, 28))


def test_it_skips_what_it_cannot_measure(no_labels, stripes, monkeypatch):
    assert "not a classification" in SMALL.skip(no_labels)
    net = dataclasses.replace(stripes)
    object.__setattr__(net, "net", WithIntegers())
    assert "no small changes" in SMALL.skip(net)
    monkeypatch.setattr(attacks.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'rulezoo[robustness]'" in SMALL.skip(stripes)


class WithIntegers:
    example = torch.zeros(2, 3, dtype=torch.int64)
    output_shape = (3,)


def test_the_range_broadcasts():
    pixels = PixelRange(torch.zeros(3, 1, 1), 2 * torch.ones(3, 1, 1))
    assert pixels.to_unit(torch.ones(5, 3, 2, 2)).unique().tolist() == [0.5]
