"""What all tests share: one thread, and the tiny networks."""

from __future__ import annotations

import os
from pathlib import Path

# Tiny products are slower on many threads, and sums come out in another order. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_itemcollected(item):
    """Processes that share a suite must collect the same names; one with an address in it differs between them."""
    assert " at 0x" not in item.nodeid, (
        f"{item.nodeid}: name its parameters by `ids`, not by an address in memory"
    )


NETS = ("mlp", "cnn", "rnn", "rnn-every-step")


@pytest.fixture(params=NETS)
def tiny(request):
    """Each tiny network, in float64."""
    from rulezoo.testing import tiny_net

    return tiny_net(request.param)


@pytest.fixture
def mlp():
    """The tiny multilayer perceptron: 5 → 8 → 7 → 3 with tanh, in float64."""
    from rulezoo.testing import tiny_net

    return tiny_net("mlp")


@pytest.fixture
def real_root():
    if "RULEZOO_DATA" not in os.environ:
        pytest.skip("$RULEZOO_DATA is not set: no folder with the real image data sets")
    return Path(os.environ["RULEZOO_DATA"])
