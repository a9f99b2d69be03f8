"""Stimuli as a network sees them."""

import numpy as np
import pytest
import torch
from PIL import Image

from rulezoo import datasets
from rulezoo_evaluations import stimuli
from rulezoo_evaluations.brain_data import BrainDataError


def saved(path, array, mode=None):
    Image.fromarray(np.asarray(array, dtype=np.uint8), mode).save(path)
    return path


def test_a_stimulus_of_the_right_size_is_shown_as_it_is(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (10, 12, 3))
    found = stimuli.pixels([saved(tmp_path / "a.png", array)], (3, 10, 12))
    assert found.dtype == torch.uint8
    assert (found[0].permute(1, 2, 0).numpy() == array).all()


def test_fine_patterns_become_grey_instead_of_aliasing(tmp_path):
    board = 255 * (np.indices((64, 64)).sum(0) % 2)
    found = stimuli.pixels([saved(tmp_path / "a.png", np.repeat(board[..., None], 3, 2))], (3, 8, 8))
    assert (found.float() - 127.5).abs().max() < 8  # every eighth pixel, without a filter, would be black


def test_the_middle_of_a_wide_image_is_shown(tmp_path):
    array = np.zeros((10, 30, 3))
    array[:, 10:20] = 200
    assert (stimuli.pixels([saved(tmp_path / "a.png", array)], (3, 10, 10)) == 200).all()


@pytest.mark.parametrize(("shape", "expected"), [((3, 8, 8), [[255, 0, 0]]), ((1, 8, 8), [[76]])])
def test_colour_becomes_grey_where_the_network_sees_grey(tmp_path, shape, expected):
    red = np.full((8, 8, 3), (255, 0, 0))
    found = stimuli.pixels([saved(tmp_path / "a.png", red)], shape)
    assert found[..., 0, 0].tolist() == expected  # 0.299 × 255


def test_grey_becomes_colour_where_the_network_sees_colour(tmp_path):
    path = saved(tmp_path / "a.png", np.full((8, 8), 90))
    assert (stimuli.pixels([path], (3, 8, 8)) == 90).all()


def test_images_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(BrainDataError, match=r"cannot read the stimulus .*a\.png"):
        stimuli.pixels([tmp_path / "a.png"], (3, 8, 8))
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(BrainDataError, match="8 bits"):
        stimuli.pixels([tmp_path / "b.png"], (3, 8, 8))


def bytes_of(number=40):
    shown = torch.randint(
        0, 256, (number, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    shown[0], shown[1] = 0, 255
    return shown


STORED = {
    "bytes": lambda x: x,
    "unit": lambda x: x.float() / 255,
    "standardised": lambda x: datasets.standardise(x.float() / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
}


@pytest.mark.parametrize("kind", STORED)
def test_pixels_become_what_the_task_would_store_for_them(kind):
    shown, new = bytes_of(), bytes_of()[5:9]
    found = stimuli.stored(new, STORED[kind](shown))
    assert found.dtype == STORED[kind](shown).dtype
    assert torch.allclose(found.double(), STORED[kind](new).double(), atol=1e-6)


def test_examples_that_are_integers_are_refused():
    with pytest.raises(BrainDataError, match="int64"):
        stimuli.stored(bytes_of(), bytes_of().long())


def test_pixels_of_cifar_become_what_the_task_stores(tmp_path):
    """Its white and black are found in the data, whatever the mean and the SD."""
    import os
    from pathlib import Path

    from rulezoo_tasks.images import CIFAR10
    from rulezoo_tasks.vision import CIFAR10CNN

    root = os.environ.get("RULEZOO_DATA")
    if not root or not (Path(root) / CIFAR10.folder).is_dir():
        pytest.skip("no CIFAR-10 in $RULEZOO_DATA")
    _, test = CIFAR10.read(Path(root), download=False)
    paths = [saved(tmp_path / f"{n}.png", test.x[n].permute(1, 2, 0)) for n in range(5)]
    shown, inputs = stimuli.shown_to(CIFAR10CNN(), Path(root), paths)
    assert (shown == test.x[:5]).all()
    assert torch.allclose(inputs, CIFAR10CNN().data(Path(root)).test.x[:5], atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 64, 48)])
def test_images_are_images(shape):
    assert stimuli.why_no_image(shape) is None


@pytest.mark.parametrize("shape", [(64,), (28, 28), (2, 32, 32), (3, 1, 32), ()])
def test_other_inputs_are_no_images(shape):
    assert "not images" in stimuli.why_no_image(shape)


def test_luminance_equals_a_loop():
    shown = bytes_of(4)
    slow = []
    for image in shown.double() / 255:
        luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        slow.append([luma.mean(), ((luma - luma.mean()) ** 2).mean().sqrt()])
    assert torch.allclose(stimuli.luminance(shown), torch.tensor(slow))
    assert stimuli.luminance(shown)[:2].tolist() == [[0, 0], pytest.approx([1, 0], abs=1e-12)]


def test_luminance_of_grey_is_its_grey():
    assert stimuli.luminance(torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)).tolist() == [
        [pytest.approx(0.2), 0]
    ]
