"""Time of `credit.between`, as a ratio to a whole forward pass.

Both sides are sampled in turn (between, whole, between, …) in one process, so that a change of the machine's speed
meets both alike; the ratio of medians is reported. In each network the block in question is a tenth of it: the sixth
of ten equal layers. The target is a ratio of at most 0.2 for a chain of modules. A call costs about 0.1 ms on a CPU
whatever it computes (parameters are put into the module, sites are tapped), so the ratio is larger for narrow layers.

    python benchmarks/blocks.py [--threads 1] [--samples 7] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rulezoo import Net, Site, credit

TARGET = 0.2
DEPTH, AT = 10, 5  # layers; the block starts behind the fifth


class Case(NamedTuple):
    """A network with its input, and whether it is a chain, which the target is about."""

    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    a: str
    b: str
    seeds: int = 1
    chain: bool = True


def dense(width: int) -> nn.Module:
    """A chain of chains: ten dense layers with ReLU."""
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(width, width), nn.ReLU(), Site("post")) for _ in range(DEPTH))
    )


def convolutional(channels: int) -> nn.Module:
    """A chain of chains: ten convolutions with ReLU."""
    layers = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(DEPTH))
    return nn.Sequential(*(nn.Sequential(layer, nn.ReLU(), Site("post")) for layer in layers))


class Looped(nn.Module):
    """The same layers in a module with a forward pass of its own."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, ...)``, as its layers."""
        for layer in self.layers.children():
            x = layer(x)
        return x


class Reshaping(Looped):
    """One that uses the number of rows of its input at the end, so that the part in front has to see all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, ...)``, as its layers."""
        rows = len(x)
        for layer in self.layers.children():
            x = layer(x).view(rows, *x.shape[1:])
        return x


SITES = (f"{AT - 1}.2", f"{AT}.2")
INNER = (f"layers.{AT - 1}.2", f"layers.{AT}.2")
BATCH = 128
CASES = (
    Case("dense, 10 × 512", lambda: dense(512), (512,), *SITES),
    Case("dense, 10 × 512, 4 seeds in one vmap", lambda: dense(512), (512,), *SITES, seeds=4),
    Case("dense, 10 × 64", lambda: dense(64), (64,), *SITES),
    Case("convolutional, 10 × 32 channels, 16 × 16", lambda: convolutional(32), (32, 16, 16), *SITES),
    Case("dense, 10 × 512, own forward pass", lambda: Looped(dense(512)), (512,), *INNER, chain=False),
    Case(
        "convolutional, 10 × 32 channels, 16 × 16, own forward pass",
        lambda: Looped(convolutional(32)), (32, 16, 16), *INNER, chain=False,
    ),
    Case(
        "dense, 10 × 512, own forward pass, reshaping by its input's rows",
        lambda: Reshaping(dense(512)), (512,), *INNER, chain=False,
    ),
)  # fmt: skip


def in_turn(case: Case, samples: int) -> tuple[float, float]:
    """Median seconds of the block and of the whole pass; the first sample of each is a warm-up."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, *case.shape)
    net = Net(case.network(), x)
    params = net.init_params()
    h = torch.randn(BATCH, *net.visits[case.a].shape)
    if case.seeds > 1:
        stacked = {name: p.expand(case.seeds, *p.shape).clone() for name, p in params.items()}
        block = torch.func.vmap(lambda p: credit.between(net, p, case.a, case.b, h))
        whole = torch.func.vmap(lambda p: net.run(p, x, lambda key, activity: activity))
    else:
        stacked = params
        block = lambda p: credit.between(net, p, case.a, case.b, h)
        whole = lambda p: net.run(p, x, lambda key, activity: activity)
    with torch.no_grad():
        found = [(timed(lambda: block(stacked)), timed(lambda: whole(stacked))) for _ in range(samples + 1)]
    one, other = zip(*found[1:], strict=True)
    return statistics.median(one), statistics.median(other)


def timed(work: Callable[[], object], times: int = 10) -> float:
    """Seconds of the processor that it takes once."""
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    lines = ["| network | block / whole pass | target |", "|---|---|---|"]
    for case in CASES:
        block, whole = in_turn(case, chosen.samples)
        ratio = block / whole
        mark = f"≤ {TARGET} {'met' if ratio <= TARGET else 'MISSED'}" if case.chain else ""
        lines.append(f"| {case.name} | {ratio:.2f} | {mark} |")
    head = f"torch {torch.__version__}, Python {platform.python_version()}, cpu, {chosen.threads} threads"
    how = f"batch {BATCH}; medians of {chosen.samples} samples of 10 passes, in turn"
    table = "\n".join(lines)
    note = "A call costs about 0.1 ms whatever it computes, which is much of the time of a pass through narrow layers."
    text = f"# One block of ten, as a share of a whole pass\n\n{head}; {how}. {note}\n\n{table}\n"
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
