"""Stand-ins for data sets that are not downloaded, and the real ones where they are."""

import struct
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest


def _idx(path, array):
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def _write_idx(folder, train=400, test=50):
    """Valid files in the format of MNIST; the first two pixels of an image hold its number."""
    folder.mkdir(parents=True)
    for part, n in (("train", train), ("t10k", test)):
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
        _idx(folder / f"{part}-images-idx3-ubyte", images)
        _idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))


@pytest.fixture
def write_idx():
    return _write_idx


@pytest.fixture
def mnist_root(tmp_path):
    _write_idx(tmp_path / "MNIST" / "raw")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
