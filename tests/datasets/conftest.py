"""Small image folders."""

import numpy as np
import pytest
from PIL import Image

from rulezoo.datasets import CACHE


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Caches of the user's own are left alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.delenv(CACHE, raising=False)


def picture(seed, height=12, width=12, mode="RGB"):
    """Random pixels, smooth enough for JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).convert(mode)


def fill(path, classes=("ant", "bee", "cat"), each=4, suffix="JPEG", seed=0):
    """A folder of class folders, with ``each`` images in each."""
    for c, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(each):
            picture(1000 * seed + 100 * c + i).save(path / name / f"{name}_{i}.{suffix}")
    return path


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images" / "train")
