"""Maps seen in patches, against the matrix E written out entry by entry."""

from __future__ import annotations

import itertools

import pytest
import torch

from rulezoo.testing import tiny_net
from rulezoo_plugins.noise_correlation.patches import Patches, patches_of

SHAPES = [((3, 4, 4), 2), ((2, 5, 7), 2), ((2, 5, 7), 3), ((4, 3, 5), 64), ((2, 3, 4, 5), 2)]


def written_out(shape, side):
    """E, ``(n, m)``: one column for each channel and patch, constant on its positions, of length one."""
    channels, *sizes = shape
    columns = []
    starts = [range(0, size, side) for size in sizes]
    for channel in range(channels):
        for corner in itertools.product(*starts):
            column = torch.zeros(shape, dtype=torch.float64)
            column[(channel, *(slice(first, first + side) for first in corner))] = 1
            columns.append(column.flatten() / column.norm())
    return torch.stack(columns, 1)


@pytest.mark.parametrize(("shape", "side"), SHAPES)
def test_reducing_and_expanding_are_the_matrix_and_its_transpose(shape, side):
    patches, e = Patches(shape, side), written_out(shape, side)
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, generator=gen, dtype=torch.float64)
    c = torch.randn(3, patches.units, generator=gen, dtype=torch.float64)

    assert patches.units == e.shape[1]
    torch.testing.assert_close(patches.reduce(x), x.flatten(1) @ e, rtol=0, atol=1e-13)
    torch.testing.assert_close(patches.expand(c), (c @ e.T).view(-1, *shape), rtol=0, atol=1e-13)
    torch.testing.assert_close(patches.reduce(patches.expand(c)), c, rtol=0, atol=1e-13)  # EᵀE = 1


@pytest.mark.parametrize(("shape", "side"), [((7,), 4), ((3, 4, 4), 1), ((5, 6), 3)])
def test_with_one_position_in_a_patch_nothing_changes(shape, side):
    """Also for sites without positions; two axes may be those of tokens, so they are left alone."""
    patches = Patches(shape, side)
    x = torch.randn(2, *shape)

    assert patches.units == x[0].numel()
    assert torch.equal(patches.reduce(x), x.flatten(1))
    assert torch.equal(patches.expand(x.flatten(1)), x)


def test_a_large_side_gives_one_coordinate_for_each_channel():
    net = tiny_net("cnn").net
    key = next(key for key in net.keys("post") if len(net.visits[key].shape) == 3)
    assert patches_of(net, key, 64).units == net.visits[key].shape[0] < net.visits[key].width


def test_patches_are_the_same_under_vmap():
    patches = Patches((2, 5, 4), 2)
    x = torch.randn(3, 6, 2, 5, 4, dtype=torch.float64)
    together = torch.func.vmap(lambda x: patches.expand(patches.reduce(x)))(x)
    torch.testing.assert_close(together[1], patches.expand(patches.reduce(x[1])))
