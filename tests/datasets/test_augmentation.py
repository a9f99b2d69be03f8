"""Augmentation: what torch does to one image at a time, for a batch; each image by its own random numbers."""

import pytest
import torch
import torch.nn.functional as F

from rulezoo import datasets
from rulezoo.source import draw

INDEX = torch.arange(200)
IMAGES = torch.randint(0, 256, (200, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DRAW = draw(0, 0, INDEX)


def test_a_crop_is_a_window_of_the_padded_image():
    cropped = datasets.crop(IMAGES, DRAW, padding=2)
    assert (cropped.shape, cropped.dtype) == (IMAGES.shape, torch.uint8)
    top, left = DRAW.integers("crop: top", 5), DRAW.integers("crop: left", 5)
    padded = F.pad(IMAGES, (2, 2, 2, 2))
    for i in range(200):
        assert torch.equal(cropped[i], padded[i, :, top[i] : top[i] + 9, left[i] : left[i] + 7])
    assert set(top.tolist()) == set(left.tolist()) == set(range(5))


def test_a_crop_may_be_smaller_and_must_fit():
    assert datasets.crop(IMAGES, DRAW, 5).shape == (200, 3, 5, 5)
    assert torch.equal(datasets.crop(IMAGES, DRAW), IMAGES)
    with pytest.raises(
        ValueError, match=r"a crop of 8×8 does not fit into images of 9×7 with a padding of 0"
    ):
        datasets.crop(IMAGES, DRAW, 8)


def test_half_of_the_images_are_mirrored():
    flipped = datasets.flip(IMAGES, DRAW)
    same, mirrored = ((flipped == x).flatten(1).all(1) for x in (IMAGES, IMAGES.flip(-1)))
    assert bool((same ^ mirrored).all())
    assert 70 < int(mirrored.sum()) < 130  # 4 sd of a fair coin: 28


def test_a_resized_crop_of_everything_is_the_image():
    square = IMAGES[..., :7, :]
    whole = datasets.resized_crop(square, DRAW, 7, area=(1, 1), ratio=(1, 1))
    assert torch.allclose(whole, square.float(), atol=1e-2)


def test_a_resized_crop_stays_within_the_image_and_varies():
    ramp = torch.arange(32.0).expand(200, 1, 32, 32)  # each column holds its number
    crops = datasets.resized_crop(ramp, DRAW, 8)
    assert crops.shape == (200, 1, 8, 8)
    assert 0 <= float(crops.min()) < float(crops.max()) <= 31
    width = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]) * 8 / 7  # in columns of the image
    assert float(width.min()) < 12
    assert float(width.max()) > 24
    assert float(width.min()) > 32 * (0.08 * 3 / 4) ** 0.5 - 0.1


def test_standardised_images_have_mean_0_and_sd_1_exactly_counted():
    mean, sd = datasets.moments(IMAGES)
    channels = IMAGES.double().transpose(0, 1).flatten(1)
    assert torch.allclose(torch.tensor(mean, dtype=torch.float64), channels.mean(1), rtol=1e-12)
    assert torch.allclose(torch.tensor(sd, dtype=torch.float64), channels.std(1, unbiased=False), rtol=1e-12)
    x = datasets.standardise(IMAGES, mean, sd)
    assert x.dtype == torch.float32
    assert torch.allclose(x.transpose(0, 1).flatten(1).mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.transpose(0, 1).flatten(1).std(1, unbiased=False), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize(
    "augment",
    [
        lambda x, d: datasets.crop(x, d, padding=2),
        datasets.flip,
        lambda x, d: datasets.resized_crop(x, d, 6),
        lambda x, d: datasets.standardise(
            datasets.flip(datasets.crop(x, d, padding=1), d), [1, 2, 3], [4, 5, 6]
        ),
    ],
    ids=["crop", "flip", "resized_crop", "all"],
)
def test_an_image_is_augmented_by_its_own_numbers_whatever_the_batch(augment):
    together = augment(IMAGES, DRAW)
    some = torch.tensor([17, 3, 150])
    assert torch.equal(augment(IMAGES[some], draw(0, 0, some)), together[some])
    assert not torch.equal(augment(IMAGES, draw(0, 1, INDEX)), together)
