"""The packed cache: whole or not at all, packed once, and made anew when what it was made of has changed."""

import errno
import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from rulezoo import datasets
from rulezoo.datasets import cache
from rulezoo.datasets.progress import reporting
from rulezoo.errors import UserError

from .conftest import fill, picture


def images(folder, **options):
    return datasets.ImageFolder(folder, 12, **options)


def place(folder):
    (found,) = (folder.parent / ".rulezoo-cache").glob("train-*/")
    return found


def left(folder):
    """Everything in the folder of caches but locks."""
    return sorted(
        p.name for p in (folder.parent / ".rulezoo-cache").iterdir() if not p.name.endswith(".lock")
    )


def test_it_holds_the_images_bit_for_bit(folder):
    source = images(folder)
    split = datasets.packed(source)
    assert (len(split.x), split.x.shape, split.x.dtype) == (12, (3, 12, 12), torch.uint8)
    index = torch.tensor([11, 0, 0, 5])
    assert torch.equal(split.x.read(index), torch.stack([source[i][0] for i in index.tolist()]))
    assert torch.equal(split.y, torch.tensor(source.targets))
    assert torch.equal(datasets.loaded(source).x.read(index), split.x.read(index))
    with pytest.raises(IndexError, match="an index is out of range; there are 12 examples"):
        split.x.read(torch.tensor([12]))


def test_any_program_with_numpy_can_read_it(folder):
    split = datasets.packed(images(folder))
    stored = np.load(place(folder) / "images.npy")
    assert np.array_equal(stored, split.x.read(torch.arange(12)).numpy())
    header = json.loads((place(folder) / "header.json").read_text())
    assert header["classes"] == ["ant", "bee", "cat"]
    assert header["digest"] == split.x.digest()
    assert str(folder) not in (place(folder) / "header.json").read_text()


def packing(monkeypatch):
    """The images that are decoded for packing from now on."""
    done, pack = [], cache._write
    monkeypatch.setattr(cache, "_write", lambda *args: done.append(1) or pack(*args))
    return done


def test_it_is_packed_once_and_again_only_when_files_change(folder, monkeypatch, capsys):
    done = packing(monkeypatch)
    first = datasets.packed(images(folder))
    assert datasets.packed(images(folder)).x.digest() == first.x.digest()
    assert len(done) == 1
    picture(77).save(folder / "bee" / "bee_1.JPEG")
    second = datasets.packed(images(folder))
    assert len(done) == 2
    assert second.x.digest() != first.x.digest()
    assert "was made from other files: it is packed again" in capsys.readouterr().err
    assert left(folder) == [place(folder).name]
    assert len(first.x.read(torch.arange(12))) == 12, "who has the old one open keeps it"
    (folder / "bee" / "bee_2.JPEG").unlink()
    assert len(datasets.packed(images(folder)).x) == 11
    datasets.packed(datasets.ImageFolder(folder, 8))
    assert len(done) == 4
    assert len(left(folder)) == 2, "another size has a cache of its own"


def changed(folder, **fields):
    path = place(folder) / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: changed(f, version=0), "is of version 0, and this rulezoo uses version 1: it is packed again"),
        (lambda f: changed(f, version=2), "is of version 2"),
        (lambda f: changed(f, shape=[12, 3, 12, 13]), "is damaged"),
        (lambda f: changed(f, shape="x"), "is damaged"),
        (lambda f: (place(f) / "header.json").write_text("{"), "is damaged"),
        (lambda f: (place(f) / "header.json").write_text("[]"), "is damaged"),
        (lambda f: (place(f) / "header.json").unlink(), "is damaged"),
        (lambda f: (place(f) / "images.npy").unlink(), "is damaged"),
        (lambda f: (place(f) / "images.npy").write_bytes((place(f) / "images.npy").read_bytes()[:-1]), "is damaged"),
        (lambda f: (place(f) / "targets.npy").write_bytes(b""), "is damaged"),
    ],
)  # fmt: skip
def test_a_cache_that_cannot_be_used_is_packed_again(folder, damage, said):
    before, reports = datasets.packed(images(folder)).x.digest(), []
    damage(folder)
    with reporting(reports.append):
        assert datasets.packed(images(folder)).x.digest() == before
    assert said in " ".join(reports)
    assert left(folder) == [place(folder).name]


def test_progress_is_reported(folder, monkeypatch):
    monkeypatch.setattr("rulezoo.datasets.progress._EVERY", 0.0)
    reports = []
    with reporting(reports.append):
        datasets.packed(images(folder))
    assert reports[0] == f"packing {folder}: 1 of 12 images"
    assert reports[-1] == f"packing {folder}: 12 of 12 images"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, monkeypatch):
    source = images(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5000})())
        with pytest.raises(
            datasets.CacheError,
            match=r"^the disk is full: the packed cache .*train-\w+ takes 5\.2e-06 GB, and 5e-06 GB can be written there; free some, or set \$RULEZOO_CACHE to",
        ):
            datasets.packed(source)
    assert left(folder) == []
    assert len(datasets.packed(source).x) == 12


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_while_packing_leaves_nothing(folder, monkeypatch, number):
    """The first write goes well, as it does when another program fills the disk meanwhile."""

    def full(file):
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(cache, "_to_disk", full)
    with pytest.raises(datasets.CacheError, match="the disk is full: the packed cache"):
        datasets.packed(images(folder))
    assert left(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
def test_a_limit_on_the_size_of_files_leaves_nothing(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(datasets.CacheError, match="the disk is full: the packed cache"):
            datasets.packed(images(folder), workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(folder) == []


def test_what_a_killed_process_left_is_cleared_away(folder):
    cached = folder.parent / ".rulezoo-cache"
    datasets.packed(images(folder))
    name = place(folder).name
    shutil.rmtree(place(folder))
    (cached / f".{name}.0123456789abcdef.tmp").mkdir()
    datasets.packed(images(folder))
    assert left(folder) == [name]


def test_a_corrupt_image_leaves_no_cache(folder):
    (folder / "cat" / "cat_3.JPEG").write_bytes(b"x")
    with pytest.raises(datasets.CorruptImage):
        datasets.packed(images(folder))
    assert left(folder) == []


_PACK = """
import sys
from pathlib import Path
from rulezoo import datasets
from rulezoo.datasets import cache

def noted(*args, pack=cache._write):
    with Path(sys.argv[2]).open("a") as file:
        file.write("packed\\n")
    return pack(*args)

cache._write, cache._WAIT = noted, 0.05
datasets.packed(datasets.ImageFolder(sys.argv[1], SIZE), workers=0)
"""


def test_several_processes_pack_once(folder, tmp_path):
    notes = tmp_path / "notes"
    code = _PACK.replace("SIZE", str(images(folder).size))
    processes = [subprocess.Popen([sys.executable, "-c", code, folder, notes]) for _ in range(4)]
    assert [process.wait(240) for process in processes] == [0] * 4
    assert notes.read_text() == "packed\n"


def test_it_goes_where_the_variable_says(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.CACHE, str(tmp_path / "elsewhere" / "deep"))
    datasets.packed(images(folder))
    assert [p.name.split("-")[0] for p in (tmp_path / "elsewhere" / "deep").glob("[!.]*")] == ["train"]
    assert not (folder.parent / ".rulezoo-cache").exists()


def test_where_the_data_cannot_be_written_it_goes_to_the_users_own_cache(folder, tmp_path):
    (folder.parent / ".rulezoo-cache").write_text(
        "no folder can be made here"
    )  # as in a read-only one, also for root
    datasets.packed(images(folder))
    assert len(list((tmp_path / "own" / "rulezoo").glob("train-*"))) == 1
    (tmp_path / "own" / "rulezoo").rename(tmp_path / "moved")
    (tmp_path / "own" / "rulezoo").write_text("nor here")
    with pytest.raises(
        datasets.CacheError,
        match=r"cannot write a packed cache of .*train into .*\.rulezoo-cache \(.*\) or .*own/rulezoo \(.*\); set \$RULEZOO_CACHE to a folder that can be written",
    ):
        datasets.packed(images(folder))


class Pairs(torch.utils.data.Dataset):
    """A data set as people have them: PIL images and labels, without a list of targets."""

    def __init__(self, sizes=(12,) * 5, convert=None):
        self.sizes, self.convert = sizes, convert

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, i):
        image = picture(i, self.sizes[i], self.sizes[i])
        return (self.convert(image) if self.convert else image), i % 2


@pytest.mark.parametrize("convert", [None, pil_to_tensor])
def test_any_data_set_of_torch_can_be_packed_or_loaded(convert):
    dataset = Pairs(convert=convert)
    packed, loaded = datasets.packed(dataset, key="five pictures"), datasets.loaded(dataset)
    assert packed.y.tolist() == loaded.y.tolist() == [0, 1, 0, 1, 0]
    true = torch.stack([pil_to_tensor(picture(i)) for i in range(5)])
    for split in (packed, loaded):
        assert torch.equal(split.x.read(torch.arange(5)), true)
        (streamed,) = split.x.stream([torch.tensor([3, 1])])
        assert torch.equal(streamed, true[[3, 1]])
    assert datasets.packed(Pairs(sizes=(12,) * 4), key="five pictures").x.digest() != packed.x.digest()


def test_a_data_set_without_a_name_or_a_common_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"packed\(\) needs a key for a Pairs: a name for what its items are"
    ):
        datasets.packed(Pairs())
    uneven = Pairs(sizes=(12, 12, 16))
    with pytest.raises(
        UserError,
        match=r"example 2 of odd has shape \(3, 16, 16\) and type uint8, the first one \(3, 12, 12\)",
    ):
        datasets.packed(uneven, key="odd")
    with pytest.raises(
        UserError, match=r"example 2 of the data set has shape \(3, 16, 16\), the first one \(3, 12, 12\)"
    ):
        datasets.loaded(uneven).x.read(torch.arange(3))
    with pytest.raises(UserError, match="a data set of 5 examples has 4 targets"):
        datasets.loaded(Pairs(), targets=torch.arange(4))


def test_held_out_parts_are_disjoint_and_always_the_same(tmp_path):
    split = datasets.packed(images(fill(tmp_path / "many" / "train", each=10)))
    parts = datasets.held_out(split, 0.2, 0.1)
    assert [len(part.y) for part in parts] == [21, 6, 3]
    rows = [row.numpy().tobytes() for part in parts for row in part.x.read(torch.arange(len(part.y)))]
    assert len(set(rows)) == 30
    again = datasets.held_out(split, 0.2, 0.1)
    assert [part.x.digest() for part in again] == [part.x.digest() for part in parts]
    for part in parts:
        assert torch.equal(part.y, split.y[part.x.index])
    with pytest.raises(ValueError, match=r"30 examples are too few to hold out 0.01 of them"):
        datasets.held_out(split, 0.01)
