"""Many seeds on a CPU: pooling and layout of their own, and the numbers that torch has for each seed."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rulezoo.task import Budget
from rulezoo.testing import TinyTask
from rulezoo.training.batched_kernels import MIN_SEEDS, Pooling, channels_last
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.baselines.backprop import Backprop

WINDOWS = {
    "2": {"kernel_size": 2},
    "3 by 2": {"kernel_size": (3, 2)},
    "overlapping": {"kernel_size": 3, "stride": 2, "padding": 1},
    "to the edge": {"kernel_size": 2, "ceil_mode": True},
    "dilated": {"kernel_size": 2, "stride": 1, "dilation": (1, 2)},
}


def images(seeds=5, batch=3, channels=2, size=7):
    """Whole numbers, so that there are many ties; laid out for many seeds."""
    gen = torch.Generator().manual_seed(0)
    return channels_last(torch.randint(-2, 3, (seeds, batch, channels, size, size), generator=gen).double())


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:FutureWarning"
)  # by torch, in forward mode
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_pooling_many_seeds_is_pooling_each_bit_for_bit(window):
    x = images()
    shape = F.max_pool2d(x[0], **window).shape
    weight = torch.arange(shape.numel()).view(shape).double()  # whole, too: sums are exact in any order

    def one(x):
        return (F.max_pool2d(x, **window).square() * weight).sum()

    def both(x):
        gradient, value = torch.func.grad_and_value(one)(x)
        return F.max_pool2d(x, **window), value, gradient, torch.func.jvp(one, (x,), (x + 1,))[1]

    expected = [torch.stack(parts) for parts in zip(*map(both, x), strict=True)]
    with Pooling():
        found = torch.func.vmap(both)(x)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_pass_through_pooling():
    x = images(batch=1, channels=1, size=4)

    def one(x):
        return F.max_pool2d(x, 2).pow(3).sum()

    expected = torch.stack([torch.func.jacrev(torch.func.grad(one))(each) for each in x])
    with Pooling():
        found = torch.func.vmap(torch.func.jacrev(torch.func.grad(one)))(x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [1, (1, 1)])
def test_averaging_over_whole_maps_needs_no_batching_rule_of_torch(size):
    """Warnings are errors: without `Pooling`, torch warns of a slow loop over seeds."""
    x = channels_last(torch.randn(MIN_SEEDS, 2, 3, 4, 4))
    with Pooling():
        averaged = torch.func.vmap(lambda one: F.adaptive_avg_pool2d(one, size))(x)
    torch.testing.assert_close(averaged, x.mean((-2, -1), keepdim=True))
    with Pooling():
        parts = torch.func.vmap(lambda one: F.adaptive_avg_pool2d(one, 2))(torch.randn(MIN_SEEDS, 2, 3, 4, 4))
    assert parts.shape == (MIN_SEEDS, 2, 3, 2, 2)


def test_where_the_largest_was_is_told_as_ever():
    x = images()[0]
    with Pooling():
        assert torch.equal(
            F.max_pool2d(x, 2, return_indices=True)[1], F.max_pool2d(x, 2, return_indices=True)[1]
        )
        assert torch.equal(F.max_pool2d(x[0], 2), F.max_pool2d(x, 2)[0])  # without a batch


def test_the_layout_puts_seeds_and_channels_last_and_changes_no_number():
    x = torch.rand(5, 3, 2, 4, 6)
    laid = channels_last(x)
    assert torch.equal(laid, x)
    assert laid.movedim(0, 1).flatten(1, 2).is_contiguous(memory_format=torch.channels_last)
    assert laid.movedim(0, 1).flatten(1, 2).data_ptr() == laid.data_ptr()  # nothing has to be copied for it
    sequence = torch.rand(5, 3, 8)
    assert channels_last(sequence) is sequence


class _Pools(TorchDispatchMode):
    """Notes what the pooling kernel is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.max_pool2d_with_indices.default:
            self.seen.append((tuple(args[0].shape), args[0].is_contiguous(memory_format=torch.channels_last)))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("seeds", [1, MIN_SEEDS - 1, MIN_SEEDS, MIN_SEEDS + 1])
def test_a_step_of_many_seeds_pools_them_beside_the_channels(seeds):
    task, budget = TinyTask("cnn"), Budget(epochs=1, batch=8, lr=0.01)
    train = task.data().train
    net, params = build(task, range(seeds), train.x[:1], torch.device("cpu"))
    batch = Batches(train, 8, range(seeds)).take(torch.arange(8).expand(seeds, 8))
    trainer = Trainer(Backprop(), net, task.loss, params, batch, range(seeds), budget, 2)
    with _Pools() as pools:
        trainer.step(batch)
    ((shape, last),) = pools.seen
    assert last is (seeds >= MIN_SEEDS)
    assert shape[0] == (8 if seeds >= MIN_SEEDS else 8 * seeds)


_FAULTS = """
import resource, sys, torch
from rulezoo.training import allocator
if sys.argv[1] == "keep":
    assert allocator.prepare()
for turn in range(22):
    torch.empty(2**21).fill_(1)  # 8 MB, 2,048 pages
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept():
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0"}  # a huge page is one fault
    assert (
        _printed(_FAULTS, environment) < 20 * 2048 / 2
    )  # of the pages that are written, each one a fault without


_HUGE = """
import pathlib, torch
from rulezoo.training import allocator
allocator.prepare()
block = torch.ones(2**23)
(line,) = [line for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHuge" in line]
print(line.split()[1])
"""


@pytest.mark.parametrize(("asked", "huge"), [(None, True), ("0", False)])
def test_large_blocks_lie_on_huge_pages_unless_the_user_says_otherwise(asked, huge):
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not pages.exists() or "[madvise]" not in pages.read_text():
        pytest.skip("this kernel does not give huge pages on request alone")
    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    kilobytes = _printed(
        _HUGE, environment if asked is None else {**environment, "THP_MEM_ALLOC_ENABLE": asked}
    )
    assert (kilobytes >= 2**14) is huge  # of a block of 2**15


def _printed(program: str, environment: dict[str, str]) -> int:
    command = [sys.executable, "-c", program, "keep"]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
