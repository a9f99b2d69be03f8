"""How fast images come to a network: rulezoo from an image folder, from its packed cache, and a plain torch loop.

    python benchmarks/data_path.py FOLDER                # FOLDER holds a folder for each class
    python benchmarks/data_path.py FOLDER --memory       # memory of a training, by the number of images; of the parent

All three train the same network with the same batches' size, optimiser and augmentation (a random crop after padding by an
eighth, a random mirror image, standardising), with the same number of worker processes where there are any. The plain loop
is torchvision's ImageFolder and transforms in torch's DataLoader. They are sampled in turn. Each sample starts its own
workers and takes a few steps before the clock runs, so that nobody begins with batches that were read while others
were timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Budget, Data, Split, datasets
from rulezoo.inputs import prepared
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_tasks.image_folder import MEAN, SD, ImageFolder
from rulezoo_tasks.networks import ConvNet

WARM = 4  # steps before the clock runs
CPU = torch.device("cpu")
NETWORKS = {"narrow": ((8, 16, 32), 64), "wide": ((32, 64, 128), 256)}  # channels, units of the dense layer
TARGETS = {"rulezoo, image folder": 0.9, "rulezoo, packed cache": 1.5}


class Images(ImageFolder):
    """The task on one folder, with a network of the benchmark's."""

    def data(self, root=None, *, download=False):
        split = self.how(
            datasets.ImageFolder(self.folder, self.size, classes=self.classes, per_class=self.examples)
        )
        return Data(split, split, split)

    def network(self):
        return network(self.which, self.size, self.classes)


def network(which: str, size: int, classes: int) -> nn.Module:
    channels, hidden = NETWORKS[which]
    return ConvNet((3, size, size), channels, (True, True, True), hidden, classes)


def task(
    chosen: argparse.Namespace, which: str, how: Callable[[datasets.ImageFolder], Split], **options
) -> Images:
    kind = type("Images", (Images,), {"how": staticmethod(how), "which": which})
    return kind(folder=str(chosen.folder), size=chosen.size, classes=chosen.classes, **options)


def trainer(images: Images, data: Data, batches: Batches) -> Trainer:
    net, values = build(images, [0], data.train.x[:2], CPU)
    first = batches.take(batches.epoch(0)[:, 0])
    budget = Budget(epochs=1, batch=batches.size, lr=1e-3)
    return Trainer(Backprop(), net, images.loss, values, first, [0], budget, 10**6)


class Rulezoo:
    """Steps as a run takes them, without its evaluations and its reference."""

    def __init__(self, chosen, which, how):
        images = task(chosen, which, how)
        data = prepared(images.data(), images, CPU)
        self.batches = Batches(data.train, chosen.batch, [0])
        self.trainer, self.step = trainer(images, data, self.batches), 0

    @contextmanager
    def stepping(self, steps):
        with self.batches.feed(self.step, self.step + steps) as feed:
            yield lambda: self.trainer.step(feed.next()())
        self.step += steps


class Plain:
    """torchvision's data set and transforms, torch's DataLoader and optimiser, and autograd."""

    def __init__(self, chosen, which):
        from torchvision import transforms
        from torchvision.datasets import ImageFolder as Folder

        size = chosen.size
        mean, sd = ([v / 255 for v in values] for values in (MEAN, SD))
        transform = transforms.Compose([
            *([] if chosen.stored == size else [transforms.Resize(size), transforms.CenterCrop(size)]),
            transforms.RandomCrop(size, padding=size // 8),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, sd),
        ])  # fmt: skip
        self.loader = torch.utils.data.DataLoader(
            Folder(chosen.folder, transform),
            chosen.batch,
            shuffle=True,
            drop_last=True,
            num_workers=chosen.workers,
        )
        self.net = network(which, size, chosen.classes)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=0.0, fused=True)

    @contextmanager
    def stepping(self, steps):
        batches = iter(self.loader)

        def step():
            x, y = next(batches)
            self.optimiser.zero_grad()
            F.cross_entropy(self.net(x), y).backward()
            self.optimiser.step()

        yield step


def seconds(contender, steps: int) -> float:
    with contender.stepping(WARM + steps) as step:
        for _ in range(WARM):
            step()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - begin


def compared(chosen: argparse.Namespace, which: str) -> Iterator[str]:
    contenders = {
        "plain torch": Plain(chosen, which),
        "rulezoo, image folder": Rulezoo(chosen, which, lambda d: datasets.loaded(d, workers=chosen.workers)),
        "rulezoo, packed cache": Rulezoo(chosen, which, datasets.packed),
    }
    taken = {name: [] for name in contenders}
    for _ in range(chosen.samples):
        for name, contender in contenders.items():
            taken[name].append(seconds(contender, chosen.steps))
    channels, hidden = NETWORKS[which]
    yield f"## {which}: convolutions of {', '.join(map(str, channels))} channels, a dense layer of {hidden}\n"
    yield "| | images/s, median | ratio to plain torch: median (least to largest of the rounds) | target |\n|---|---|---|---|"
    for name, times in taken.items():
        rate = chosen.batch * chosen.steps / statistics.median(times)
        ratios = [plain / own for plain, own in zip(taken["plain torch"], times, strict=True)]
        middle, target = statistics.median(ratios), TARGETS.get(name)
        verdict = "" if target is None else f"≥ {target:.2f} {'met' if middle >= target else 'MISSED'}"
        span = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"| {name} | {rate:,.0f} | {span} | {verdict} |"
    yield ""


def held(chosen: argparse.Namespace, per_class: int | None) -> dict[str, float]:
    """MB of a process that trained a few steps, and read and prepared every image once."""
    images = task(chosen, "narrow", datasets.packed, examples=per_class)
    data = prepared(images.data(), images, CPU)
    batches = Batches(data.train, chosen.batch, [0])
    learner, most = trainer(images, data, batches), 0.0
    with closing(batches.feed(0, batches.per_epoch)) as feed:
        for step in range(batches.per_epoch):
            take = feed.next()
            batch = take()
            if step < chosen.steps:
                learner.step(batch)
            most = max(most, memory()["RssAnon"])
    return {"images": len(data.train.y), "anonymous": most, "mapped": memory()["RssFile"]}


def memory() -> dict[str, float]:
    """MB of this process by kind, as Linux counts them."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1e3 for words in lines if words[0].startswith("Rss")}


def in_a_process(chosen: argparse.Namespace, *words: str) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        str(chosen.folder),
        "--size",
        str(chosen.size),
        "--batch",
        str(chosen.batch),
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


SIZE = """
import json, resource
lines = (line.split() for line in open("/proc/self/status"))
own = [int(words[1]) / 1e3 for words in lines if words[0] == "RssAnon:"]
print(json.dumps([*own, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
"""
PARENT = f"""
from rulezoo.cli import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
{SIZE}"""
PLUGIN = """
from rulezoo import TaskSpec, hookimpl

@hookimpl
def rulezoo_tasks():
    return [TaskSpec("of-benchmark", "rulezoo_tasks.image_folder:ImageFolder", "Images.")]
"""


def size_of(code: str, *words: str | Path) -> tuple[float, float]:
    """MB of a Python process of its own at its end: its own memory, and at most with the files of its libraries."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, most = json.loads(done.stdout.splitlines()[-1])
    return own, most


def parent(chosen: argparse.Namespace) -> tuple[float, float]:
    """The process of `rulezoo compare` itself, without those that it starts; see `size_of`."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "of_benchmark.py"
        plugin.write_text(PLUGIN)
        options = {
            "folder": chosen.folder.resolve(),
            "size": chosen.size,
            "classes": chosen.classes,
            "examples": 20,
        }
        words = [word for name, value in options.items() for word in ("-o", f"of-benchmark.{name}={value}")]
        command = ["--plugin", plugin, "compare", "--rules", "backprop", "--tasks",
                   "of-benchmark", "--seeds", "1", "--epochs", "1", "--device", "cpu", "--out", f"{folder}/out", *words]  # fmt: skip
        return size_of(PARENT, *command)


def remembered(chosen: argparse.Namespace) -> Iterator[str]:
    few, many = (in_a_process(chosen, "--held", n) for n in (str(chosen.few), "0"))
    apart = abs(many["anonymous"] - few["anonymous"])
    yield "| images | memory of its own (RssAnon), at most | mapped files (RssFile) at the end |\n|---|---|---|"
    yield from (f"| {p['images']:,} | {p['anonymous']:.0f} MB | {p['mapped']:.0f} MB |" for p in (few, many))
    yield f"\nDifference: {apart:.0f} MB; target: at most 100, {'met' if apart <= 100 else 'MISSED'}."
    own, most = parent(chosen)
    of_torch, most_of_torch = size_of(f"import torch\n{SIZE}")
    verdict = "met" if own < 500 else "MISSED"
    yield f"\nThe process of `rulezoo compare`: {own:.0f} MB of its own, target: below 500, {verdict}."
    yield f"With the files of its libraries {most:.0f} MB at most. `import torch` alone: {of_torch:.0f} and {most_of_torch:.0f} MB."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of class folders")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument(
        "--stored",
        type=int,
        default=64,
        help="height and width of the images in the folder, if they are square",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="worker processes that decode")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--memory", action="store_true", help="measure memory in place of time")
    parser.add_argument(
        "--few", type=int, default=50, help="images of each class in the smaller data set, for --memory"
    )
    parser.add_argument("--held", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.classes = sum(path.is_dir() and not path.name.startswith(".") for path in chosen.folder.iterdir())
    torch.set_num_threads(chosen.threads)
    if chosen.held is not None:
        print(json.dumps(held(chosen, chosen.held or None)))
    elif chosen.memory:
        print("\n".join(remembered(chosen)))
    else:
        what = f"torch {torch.__version__}, Python {platform.python_version()}, {chosen.threads} threads"
        print(
            f"{what}, {chosen.workers} workers, batches of {chosen.batch}, images of {chosen.size}×{chosen.size}; "
        )
        print(f"{chosen.samples} samples of {chosen.steps} steps each, in turn.\n")
        for which in chosen.networks.split(","):
            print("\n".join(compared(chosen, which)), flush=True)


if __name__ == "__main__":
    main()
