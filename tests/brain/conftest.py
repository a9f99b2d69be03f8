"""Small brain data, and networks that see images, for the tests of what is compared with brains."""

import json
import os
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rulezoo import Budget, Data, LearningRule, Site, Split, Task, TrainedNetwork
from rulezoo.seeding import initial_network

SIDE = 12  # pixels of a stimulus and of the tiny networks' inputs


@dataclass(frozen=True)
class Images(Task):
    """Images of 3 × 12 × 12 in [0, 1]; a convolution with a site, and a dense layer with one."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=8, lr=1e-3)
    chance: ClassVar[float] = 0.0

    def data(self, root, *, download=False):
        x = torch.rand(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        x[0], x[1] = 0, 1
        return Data(*(Split(x, torch.zeros(len(x), dtype=torch.long)) for _ in range(3)))

    def network(self):
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            Site(),
            nn.Flatten(),
            nn.Linear(600, 20),
            nn.ReLU(),
            Site(),
            nn.Linear(20, 3),
        )


@dataclass(frozen=True)
class Pixels(Images):
    """The same, with a network whose only site is its input."""

    def network(self):
        return nn.Sequential(Site(), nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3))


@dataclass(frozen=True)
class Vectors(Images):
    """Inputs that are no images."""

    def network(self):
        return nn.Sequential(nn.Linear(7, 5), nn.ReLU(), Site(), nn.Linear(5, 3))


def trained(task, *, seed=0, shape=(3, SIDE, SIDE), strength=0.0):
    """A network of the task; ``strength`` says how far its weights are from the initial ones."""
    weights = initial_network(task, seed).state_dict()
    gen = torch.Generator().manual_seed(99)
    moved = {
        name: value + strength * torch.randn(value.shape, generator=gen) for name, value in weights.items()
    }
    return TrainedNetwork.from_state_dict(
        moved,
        torch.rand(2, *shape),
        rule="some",
        task="images",
        seed=seed,
        made_rule=LearningRule(),
        made_task=task,
    )


def write_stimuli(folder, number, *, side=SIDE, seed=0):
    """Images of smooth random colours: ``image00.png``, …"""
    folder.mkdir(parents=True)
    gen = np.random.default_rng(seed)
    for one in range(number):
        coarse = Image.fromarray(gen.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"image{one:02d}.png")
    return tuple(sorted(folder.iterdir()))


def write_about(folder, recordings, **fields):
    """``about.toml`` with these tables of recordings."""
    about = {"name": "tiny", "licence": "none", "source": "generated"} | fields
    lines = [f"{name} = {json.dumps(value)}" for name, value in about.items()]
    for name, table in recordings.items():
        lines += [f"[recordings.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    (folder / "about.toml").write_text("\n".join(lines), encoding="utf-8")


def write_brain(root, name="tiny", *, number=20, rdms=None, responses=None, seed=0):
    """A folder of brain data with area ``it`` (dissimilarities of three subjects) and area ``v4`` (responses)."""
    folder = root / name
    write_stimuli(folder / "stimuli", number, seed=seed)
    gen = np.random.default_rng(seed + 1)
    rdms = gen.random((3, number * (number - 1) // 2)) if rdms is None else rdms
    responses = gen.normal(size=(4, number, 5)) if responses is None else responses
    np.savez(folder / "rdms.npz", it=rdms)
    np.savez(folder / "responses.npz", v4=responses)
    write_about(
        folder,
        {
            "it": {"area": "it", "subjects": [f"S{n}" for n in range(len(rdms))]},
            "v4": {"area": "v4", "subjects": ["M"]},
        },
    )
    return folder


@pytest.fixture
def tiny():
    """What the tests make networks and brain data with."""
    return types.SimpleNamespace(
        SIDE=SIDE,
        Images=Images,
        Pixels=Pixels,
        Vectors=Vectors,
        trained=trained,
        write_stimuli=write_stimuli,
        write_about=write_about,
        write_brain=write_brain,
    )


@pytest.fixture
def brain(tmp_path):
    """A folder of small brain data, in a data folder."""
    return write_brain(tmp_path)


def real(name):
    """The data folder, where it has this set of brain data; else the test is skipped."""
    root = os.environ.get("RULEZOO_DATA")
    if not root or not (Path(root) / name / "about.toml").is_file():
        pytest.skip(f"no {name} in $RULEZOO_DATA; see docs/brain-data.md")
    return Path(root)


@pytest.fixture
def objects():
    """The data folder, where it has the 92-image set."""
    return real("kriegeskorte92")


@pytest.fixture
def macaque():
    """The data folder, where it has the sessions of macaque V4."""
    return real("v4-cowley")
