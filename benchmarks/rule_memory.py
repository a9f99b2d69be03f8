"""Peak memory of rules on AlexNet at 64 px, above that of backprop on the same network.

Each rule trains in a process of its own: its state is made, and it takes a step that updates the feedback, one more,
and one that finds the manifold anew. What is reported is the peak of the process's resident memory less that of
backprop, which holds the same network, batch, activities and gradients. Target: at most 2 GB.

    python benchmarks/rule_memory.py [--batch 128] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import alexnet
from torch import Tensor, nn

from rulezoo import Batch, Budget, Net
from rulezoo.discovery.registry import discover
from rulezoo.training.trainer import Trainer

TARGET = 2.0  # GB beside the network
BACKPROP = ("backprop", {})
MANIFOLD = {"refresh": "100"}
NETWORKS: dict[str, tuple[int, Callable[[], nn.Module]]] = {  # label → classes, network
    "AlexNet, 100 classes": (100, lambda: alexnet(100)),
    "AlexNet, 1,000 classes": (1000, lambda: alexnet(1000)),
    "AlexNet of stride 1, sites before pooling (up to 262,144 units), 100 classes": (
        100,
        lambda: alexnet(100, stride=1, before_pooling=True),
    ),
    "AlexNet of stride 1, sites before pooling (up to 262,144 units), 1,000 classes": (
        1000,
        lambda: alexnet(1000, stride=1, before_pooling=True),
    ),
}
CHOSEN: list[tuple[str, dict[str, str]]] = [
    ("noise-correlation", {}),
    ("noise-correlation", {"patch": "2"}),
    ("nmnc", {"rank": "32", "antithetic": "true"}),  # the default when the table was made
    ("nmnc", {"rank": "32", "antithetic": "true", "feedback": "subspace"}),
    ("nmnc", {"rank": "32", "antithetic": "true", "feedback": "subspace", "patch": "2"}),
    ("weight-mirror", {}),
    ("nmnc-layerwise", {}),
]


def label_of(name: str, options: dict[str, str]) -> str:
    return ", ".join([name, *(f"{key}={value}" for key, value in options.items())])


RULES = {label_of(*one): one for one in CHOSEN}


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def peak(network: str, name: str, options: dict[str, str], size: int) -> float | str:
    """GB of this process at its worst moment; or why the rule does not serve the network."""
    classes, make = NETWORKS[network]
    torch.manual_seed(0)
    batch = Batch(torch.randn(size, 3, 64, 64), torch.randint(classes, (size,)))
    net = Net(make(), batch.x)
    rule = discover().make_rule(name, options)
    if (reason := rule.skip(net, None)) is not None:  # type: ignore[arg-type]  # no rule here looks at the task
        return reason
    budget = Budget(epochs=1, batch=size, lr=1e-3)
    whole = Batch(batch.x[None], batch.y[None])
    trainer = Trainer(rule, net, loss, [net.values_of(net.module)], whole, [0], budget, 10**6)
    for t in (0, 1, int(MANIFOLD["refresh"])):
        trainer.t = t
        trainer.gradients(whole)
    (line,) = (
        li for li in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if "VmHWM" in li
    )
    return int(line.split()[1]) * 1024 / 1e9


def in_a_process(network: str, name: str, options: dict[str, str], size: int) -> float | str:
    command = [sys.executable, __file__, "--one", json.dumps([network, name, options, size])]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: float | str = json.loads(done.stdout.splitlines()[-1])
    return found


def table(network: str, size: int, labels: Sequence[str]) -> str:
    lines = [f"## {network}, batch {size}", "", "| rule | GB above backprop | target |", "|---|---|---|"]
    base = in_a_process(network, *BACKPROP, size)
    if isinstance(base, str):
        raise TypeError(base)
    for label, (name, options) in RULES.items():
        if label not in labels:
            continue
        found = in_a_process(network, name, options, size)
        if isinstance(found, str):
            lines.append(f"| {label} | skipped: {found} | |")
        else:
            met = "met" if found - base <= TARGET else "MISSED"
            lines.append(f"| {label} | {found - base:.2f} | ≤ {TARGET:g} {met} |")
        print(lines[-1], flush=True)
    return "\n".join([*lines, "", f"backprop: {base:.2f} GB in all"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--markdown", help="write the tables to this file, too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        torch.set_num_threads(1)
        print(json.dumps(peak(*json.loads(chosen.one))))
        return
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, cpu, 1 thread"
    parts = [
        f"# Memory of rules at scale\n\n{versions}; peak of resident memory, each rule in a process of its own."
    ]
    for network in chosen.networks:
        parts.append(table(network, chosen.batch, chosen.rules))
        print(parts[-1], flush=True)
    if chosen.markdown:
        Path(chosen.markdown).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
