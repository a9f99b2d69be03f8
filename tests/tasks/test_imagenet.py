"""Tiny-ImageNet and ImageNet from folders, on small stand-ins."""

import numpy as np
import pytest
import torch
from PIL import Image

from rulezoo import DataMissing
from rulezoo.errors import UserError
from rulezoo.source import draw
from rulezoo_tasks.imagenet import ImageNetResNet18, TinyImageNetAlexNet, TinyImageNetResNet18


def _image(path, seed, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three classes with ten images for training and two for the test."""
    monkeypatch.setenv("RULEZOO_CACHE", str(tmp_path / "cache"))
    for folder in ("tiny-imagenet-200", "imagenet"):
        for label in range(3):
            for i in range(10):
                _image(tmp_path / folder / "train" / f"n{label}" / f"{i}.JPEG", 100 * label + i)
            for i in range(2):
                _image(tmp_path / folder / "val" / f"n{label}" / f"{i}.JPEG", 1000 + 10 * label + i)
    return tmp_path


@pytest.mark.parametrize("make", [TinyImageNetAlexNet, TinyImageNetResNet18])
def test_a_tenth_of_the_training_images_is_held_out_and_val_is_the_test(root, make):
    task = make(classes=3, size=32, width=0.0625)
    data = task.data(root)
    assert [len(part.y) for part in data] == [27, 3, 6]
    assert task.chance == pytest.approx(1 / 3)
    stored = data.train.x.read(torch.arange(4))
    assert stored.shape == (4, 3, 32, 32)
    assert stored.dtype == torch.uint8
    plain, drawn = task.prepare(stored, None), task.prepare(stored, draw(0, 0, torch.arange(4)))
    assert plain.dtype == drawn.dtype == torch.float32
    assert not torch.equal(plain, drawn)
    assert torch.equal(drawn, task.prepare(stored, draw(0, 0, torch.arange(4))))
    assert task.network()(plain).shape == (4, 3)


def test_imagenet_is_stored_larger_than_it_is_seen(root):
    task = ImageNetResNet18(classes=3, size=56, width=0.0625)
    stored = task.data(root).train.x.read(torch.arange(2))
    assert stored.shape == (2, 3, 64, 64)
    middle = task.prepare(stored, None)
    assert middle.shape == task.prepare(stored, draw(0, 0, torch.arange(2))).shape == (2, 3, 56, 56)
    whole = (stored.float() - torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).view(3, 1, 1)
    torch.testing.assert_close(middle, whole[..., 4:60, 4:60])


def test_more_classes_than_there_are_is_a_sentence(root):
    with pytest.raises(UserError, match="3 class folders") as told:
        TinyImageNetAlexNet().data(root)
    assert "200" in str(told.value)


def test_the_distribution_s_validation_folder_is_named_with_the_way_out(root):
    val = root / "tiny-imagenet-200" / "val"
    (val / "images").mkdir()
    (val / "val_annotations.txt").write_text("0.JPEG\tn0\t0\t0\t62\t62\n")
    with pytest.raises(DataMissing, match=r"val holds all images in one folder; move each .* has the script"):
        TinyImageNetAlexNet(classes=3).data(root)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataMissing, match="tiny-imagenet-200"):
        TinyImageNetAlexNet().data(tmp_path)
    with pytest.raises(DataMissing, match="--data"):
        TinyImageNetAlexNet().data(None)
