"""Cost of finding the manifolds anew, as a share of the steps between two refreshes, and what finds them fastest.

For every perturbed site of a network the principal subspace of 512 recent activities is found by each method. Methods
are sampled in turn on the same activity, that of a low-dimensional signal with noise; the median is reported. The steps
in between are NMNC's own, 100 by default, of batches of 128. No method forms a matrix of units × units.

- Gram: `rulezoo.manifold.principal_basis`, the eigenvectors of the 512 × 512 Gram matrix. It is what rules use.
- incremental Gram: the same for one batch of 128 after the other, each joined with the basis so far; d + 128 rows at most.
- torch.pca_lowrank: randomised, two power iterations.
- scikit-learn PCA: its randomised solver.
- scikit-learn IncrementalPCA: batches of 128.

    python benchmarks/manifold_refresh.py [--samples 3] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sklearn
import torch
import torch.nn.functional as F
from networks import alexnet, resnet20
from sklearn.decomposition import PCA, IncrementalPCA
from torch import Tensor, nn

from rulezoo import Batch, Budget, Net, manifold
from rulezoo.discovery.registry import discover
from rulezoo.training import allocator
from rulezoo.training.trainer import Trainer

SAMPLES, RANK, BATCH, REFRESH = 512, 32, 128, 100  # the defaults of nmnc, and the field's usual batch
TARGET = 0.10
LARGEST = 262_144  # units of the first map of AlexNet at 64 px with stride 1
FINDS = "Gram"


@dataclass(frozen=True)
class Setting:
    make: Callable[[], nn.Module]
    size: int
    classes: int


NETWORKS = {
    "AlexNet, 64 px, 100 classes": Setting(alexnet, 64, 100),
    "ResNet-20, 32 px": Setting(resnet20, 32, 10),
}


def gram(recent: Tensor) -> Tensor:
    return manifold.principal_basis(list(recent.split(BATCH)), min(RANK, recent.shape[1]))


def incremental_gram(recent: Tensor) -> Tensor:
    """Principal directions of one batch after the other (without the correction of the mean, which is small)."""
    centre = recent.mean(0)
    kept = recent[:0]
    for rows in recent.split(BATCH):
        joined = torch.cat([kept, rows - centre])
        _, vectors = torch.linalg.eigh((joined @ joined.mT).double())
        kept = vectors[:, -RANK:].to(recent.dtype).mT @ joined  # (d, n), each √value long
    basis: Tensor = torch.linalg.qr(kept.mT).Q
    return basis


def low_rank(recent: Tensor) -> Tensor:
    directions: Tensor = torch.pca_lowrank(recent, min(RANK, *recent.shape), niter=2)[2]
    return directions


def randomised(recent: Tensor) -> Tensor:
    found = PCA(min(RANK, *recent.shape), svd_solver="randomized", random_state=0).fit(recent.numpy())
    return torch.from_numpy(found.components_.T)


def incremental(recent: Tensor) -> Tensor:
    found = IncrementalPCA(min(RANK, *recent.shape), batch_size=BATCH).fit(recent.numpy())
    return torch.from_numpy(found.components_.T)


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    FINDS: gram,
    "incremental Gram": incremental_gram,
    "torch.pca_lowrank": low_rank,
    "scikit-learn PCA, randomised": randomised,
    "scikit-learn IncrementalPCA": incremental,
}


def activity(units: int) -> Tensor:
    """512 activities in which the variance of the k-th direction falls as 1/k², rectified."""
    gen = torch.Generator().manual_seed(units)
    latent = torch.randn(SAMPLES, 64, generator=gen) / torch.arange(1, 65)
    mixed = latent @ torch.randn(64, units, generator=gen)
    return (mixed + 0.05 * torch.randn(SAMPLES, units, generator=gen)).relu()


def explained(recent: Tensor, basis: Tensor) -> float:
    """Share of the variance that a subspace holds."""
    rows = recent - recent.mean(0)
    return float((rows @ basis.to(rows.dtype)).square().sum() / rows.square().sum())


def find(units: int, samples: int, methods: dict[str, Callable[[Tensor], Tensor]]) -> dict[str, list[float]]:
    """Method → median seconds, and the share of the variance that its subspace holds relative to Gram's."""
    recent = activity(units)
    taken: dict[str, list[float]] = {name: [] for name in methods}
    held = {}
    for sample in range(samples + 1):
        for name, method in methods.items():
            started = time.process_time()
            basis = method(recent)
            if sample:  # the first is a warm-up
                taken[name].append(time.process_time() - started)
            held[name] = explained(recent, basis)
    return {name: [statistics.median(times), held[name] / held[FINDS]] for name, times in taken.items()}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def step_time(setting: Setting, net: Net, rule: str, samples: int) -> float:
    """Median seconds of a step of a rule that neither keeps activity nor finds a manifold."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, setting.size, setting.size)
    batch = Batch(x[None], torch.randint(setting.classes, (1, BATCH)))
    budget = Budget(epochs=1, batch=BATCH, lr=1e-3)
    made = discover().make_rule(rule, {})
    trainer = Trainer(made, net, loss, [net.values_of(net.module)], batch, [0], budget, 10**6)
    taken = []
    for sample in range(samples + 1):
        trainer.t = REFRESH // 2 + sample
        started = time.process_time()
        trainer.gradients(batch)
        if sample:
            taken.append(time.process_time() - started)
    return statistics.median(taken)


def widths(net: Net, rule: str) -> list[int]:
    """Units of every manifold that a rule follows."""
    x = net.example
    batch = Batch(x, torch.zeros(len(x), dtype=torch.long))
    values = net.values_of(net.module)
    masks = net.draw_masks(torch.Generator().manual_seed(0), len(x)) if net.drops else None
    bound = net.bind(values.fixed, values.statistics, masks)
    state = discover().make_rule(rule, {}).init(bound, values.params, batch, torch.Generator().manual_seed(0))
    return [len(basis) for name, basis in state.buffers.items() if name.startswith("basis.")]


def share(label: str, setting: Setting, samples: int) -> list[str]:
    """Rows of the table of shares, one for each rule."""
    net = Net(setting.make(), torch.randn(2, 3, setting.size, setting.size))
    lines = []
    known: dict[int, float] = {}
    for rule in ("nmnc", "nmnc-layerwise"):
        found = widths(net, rule)
        for units in set(found) - known.keys():
            known[units] = find(units, samples, {FINDS: gram})[FINDS][0]
        refresh = sum(known[units] for units in found)
        step = step_time(setting, net, rule, samples)
        ratio = refresh / (REFRESH * step)
        met = "met" if ratio <= TARGET else "MISSED"
        sites = f"{len(found)} of {min(found)} to {max(found)} units"
        lines.append(
            f"| {label} | {rule} | {sites} | {refresh:.2f} s | {step:.2f} s | {ratio:.1%} | ≤ {TARGET:.0%} {met} |"
        )
        print(lines[-1], flush=True)
    return lines


def methods_table(samples: int) -> list[str]:
    """Seconds of every method, by the number of units."""
    sizes = (4096, 16_384, 65_536, LARGEST)
    found = {units: find(units, samples, METHODS) for units in sizes}
    lines = [
        f"| method | {' | '.join(f'{units:,} units' for units in sizes)} | variance held, relative to Gram |",
        f"|---|{'---|' * (len(sizes) + 1)}",
    ]
    for name in METHODS:
        times = " | ".join(f"{found[units][name][0]:.2f} s" for units in sizes)
        held = min(found[units][name][1] for units in sizes)
        lines.append(f"| {name} | {times} | {held:.4f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--markdown", help="write the tables to this file, too")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    allocator.prepare()
    versions = (
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}"
    )
    lines = [
        "# Finding the manifold anew",
        "",
        f"{versions}, cpu, {chosen.threads} thread(s); medians of {chosen.samples} samples of processor time, in turn.",
        "",
        f"## {SAMPLES} activities, rank {RANK}: methods",
        "",
        *methods_table(chosen.samples),
        "",
        f"## Refresh of all manifolds, every {REFRESH} steps of batches of {BATCH}",
        "",
        "| network | rule | manifolds | refresh | a step | share of the steps | target |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for label in chosen.networks:
        lines += share(label, NETWORKS[label], chosen.samples)
    if chosen.markdown:
        Path(chosen.markdown).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
