"""Image folders: what is read, and what is refused in a sentence."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets

from rulezoo import DataMissing, datasets
from rulezoo.errors import UserError

from .conftest import fill, picture

no_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)


def test_it_reads_what_torchvision_reads(folder):
    ours, theirs = datasets.ImageFolder(folder, 12), torchvision_datasets.ImageFolder(folder)
    assert ours.classes == theirs.classes
    assert [str(folder / file) for file in ours.files] == [path for path, _ in theirs.samples]
    assert ours.targets == theirs.targets
    for (x, y), (image, label) in zip((ours[i] for i in range(len(ours))), theirs, strict=True):
        assert torch.equal(x, torch.from_numpy(np.array(image)).permute(2, 0, 1))
        assert y == label


def test_nested_images_count_and_hidden_files_and_other_files_do_not(folder):
    (folder / "ant" / "more").mkdir()
    picture(9).save(folder / "ant" / "more" / "nested.png")
    (folder / "ant" / "._ant_0.JPEG").write_bytes(b"a fork of another system")
    (folder / "ant" / "notes.txt").write_text("no image")
    (folder / "ant" / "Thumbs.db").write_bytes(b"no image")
    (folder / ".hidden").mkdir()
    (folder / "list.JPEG").write_bytes(b"beside the class folders")
    found = datasets.ImageFolder(folder, 12)
    assert found.classes == ["ant", "bee", "cat"]
    assert sorted(f for f in found.files if f.startswith("ant")) == [
        *(f"ant/ant_{i}.JPEG" for i in range(4)),
        "ant/more/nested.png",
    ]


def test_links_are_followed_once(folder, tmp_path):
    (folder / "dog").symlink_to(folder / "cat")
    (folder / "ant" / "circle").symlink_to(folder / "ant")
    found = datasets.ImageFolder(folder, 12)
    assert found.classes == ["ant", "bee", "cat", "dog"]
    assert len(found) == 16


def test_images_of_any_kind_become_rgb(tmp_path):
    folder = tmp_path / "kinds" / "one"
    folder.mkdir(parents=True)
    colour = picture(1)
    colour.convert("L").save(folder / "a_grey.jpg")
    colour.convert("CMYK").save(folder / "b_cmyk.jpg", quality=100, subsampling=0)
    colour.convert("P").save(folder / "c_palette.png")
    colour.convert("RGBA").save(folder / "d_alpha.png")
    colour.convert("1").save(folder / "e_binary.png")
    grey16 = np.array(colour.convert("L"), dtype=np.uint16) * 257
    Image.fromarray(grey16).save(folder / "f_sixteen.png")
    images = datasets.ImageFolder(folder.parent, 12)
    stored = [images[i][0] for i in range(len(images))]
    assert {(x.shape, x.dtype) for x in stored} == {((3, 12, 12), torch.uint8)}
    true = torch.from_numpy(np.array(colour)).permute(2, 0, 1).int()
    grey = torch.from_numpy(np.array(colour.convert("L"))).int()
    assert (stored[0].int() - grey).abs().max() < 30  # of a JPEG
    assert (stored[1].int() - true).abs().float().mean() < 6
    assert torch.equal(stored[3].int(), true)
    assert (stored[5].int() - grey).abs().max() <= 1


def test_images_of_any_size_become_squares(tmp_path):
    folder = tmp_path / "sizes" / "one"
    folder.mkdir(parents=True)
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, 10:30] = 200  # the middle square is bright
    Image.fromarray(wide).save(folder / "a.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(folder / "b.png")
    Image.fromarray(wide[:1, 10:11]).save(folder / "c.png")
    images = datasets.ImageFolder(folder.parent, 10)
    for i in range(3):
        assert images[i][0].shape == (3, 10, 10)
        assert (images[i][0][:, 1:-1, 1:-1] == 200).all()


def test_a_part_of_the_classes_and_of_their_images(folder):
    two = datasets.ImageFolder(folder, 12, classes=2, per_class=3)
    assert (two.classes, two.targets) == (["ant", "bee"], [0, 0, 0, 1, 1, 1])
    named = datasets.ImageFolder(folder, 12, classes=["cat", "ant"], per_class=1)
    assert named.classes == ["ant", "cat"]
    assert set(named.files[:1]) <= set(two.files), "fewer are some of more"
    with pytest.raises(UserError, match=r"classes is 4, and .*train has 3 class folders; set classes to 3"):
        datasets.ImageFolder(folder, 12, classes=4)
    with pytest.raises(UserError, match=r"train has no class folders 'dog'; it has 'ant', 'bee', 'cat'"):
        datasets.ImageFolder(folder, 12, classes=["dog"])


def test_where_a_folder_is_missing_the_others_are_named(tmp_path):
    for name in ("train", "test", ".hidden"):
        (tmp_path / "set" / name).mkdir(parents=True)
    with pytest.raises(
        DataMissing, match=r"set.val, which does not exist; .*set has the folders 'test', 'train'; check"
    ):
        datasets.ImageFolder(tmp_path / "set" / "val", 12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissing, match=r"which does not exist; .*empty has no folders; check the path"):
        datasets.ImageFolder(tmp_path / "empty" / "val", 12)


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path, folder):
    with pytest.raises(
        DataMissing,
        match=r"looked for a folder of class folders in .*nowhere, which does not exist; .* has the folders .*; check the path, and --data or \$RULEZOO_DATA",
    ):
        datasets.ImageFolder(tmp_path / "nowhere", 12)
    with pytest.raises(UserError, match=r"ant has no class folders; expected a folder for each class"):
        datasets.ImageFolder(folder / "ant", 12)
    (folder / "dog").mkdir()
    (folder / "dog" / "notes.txt").write_text("none")
    with pytest.raises(
        UserError, match=r"class folders in .*train without images \(\.bmp, .*\): 'dog'; delete them"
    ):
        datasets.ImageFolder(folder, 12)


def test_folders_with_other_classes_are_refused(folder, tmp_path):
    other = fill(tmp_path / "images" / "val", ("ant", "bee", "dog"))
    one, two = datasets.ImageFolder(folder, 12), datasets.ImageFolder(other, 12)
    with pytest.raises(
        UserError, match=r"differ: .*val lacks 'cat'; .*train lacks 'dog'; labels are numbered"
    ):
        datasets.check_same_classes(one, two)
    datasets.check_same_classes(one, datasets.ImageFolder(folder, 12))


@pytest.fixture
def corrupt(folder):
    """Its first and its last class have an image that is cut off, and one that is none."""
    path = folder / "ant" / "ant_1.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    (folder / "cat" / "cat_2.JPEG").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(
    "read", [datasets.packed, datasets.loaded, lambda images: datasets.loaded(images, workers=0)]
)
def test_a_corrupt_image_is_named(corrupt, read):
    with pytest.raises(
        datasets.CorruptImage, match=r"cannot read the image .*ant_1\.JPEG \(OSError: .*\); repair or delete"
    ) as e:
        for _ in read(datasets.ImageFolder(corrupt, 12)).x.stream(torch.arange(12).split(4)):
            pass
    assert "Traceback" not in str(e.value)


def test_corrupt_images_are_left_out_and_named_once_found(corrupt, capsys, monkeypatch):
    images = datasets.ImageFolder(corrupt, 12, corrupt="skip")
    assert len(images) == 10
    assert {"ant/ant_1.JPEG", "cat/cat_2.JPEG"}.isdisjoint(images.files)
    said = capsys.readouterr().err
    assert "left out an image that cannot be read: " in said
    assert "ant_1.JPEG (OSError: " in said
    assert "cat_2.JPEG (UnidentifiedImageError: cannot identify image file)" in said
    monkeypatch.setattr(datasets.ImageFolder, "_unreadable", None)  # it is not looked for a second time
    assert datasets.ImageFolder(corrupt, 12, corrupt="skip").files == images.files
    assert len(datasets.packed(images).x) == 10
    monkeypatch.undo()
    (corrupt / "bee" / "bee_0.JPEG").write_bytes(b"")
    assert len(datasets.ImageFolder(corrupt, 12, corrupt="skip")) == 9


def test_a_class_of_corrupt_images_alone_is_refused(corrupt):
    for path in (corrupt / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"without images that can be read: 'cat'"):
        datasets.ImageFolder(corrupt, 12, corrupt="skip")
    with pytest.raises(ValueError, match="corrupt must be 'refuse' or 'skip', got 'ignore'"):
        datasets.ImageFolder(corrupt, 12, corrupt="ignore")


def test_a_link_that_leads_nowhere_is_a_corrupt_image(folder):
    (folder / "ant" / "ant_9.JPEG").symlink_to(folder / "gone.JPEG")
    with pytest.raises(datasets.CorruptImage, match=r"ant_9\.JPEG \(No such file or directory\)"):
        datasets.packed(datasets.ImageFolder(folder, 12))


@no_root
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / "ant" / "ant_2.JPEG").chmod(0)
    with pytest.raises(datasets.CorruptImage, match=r"ant_2\.JPEG \(Permission denied\)"):
        datasets.packed(datasets.ImageFolder(folder, 12))
    (folder / "ant").chmod(0)
    try:
        with pytest.raises(
            UserError, match=r"cannot list .*ant \(Permission denied\); check its permissions"
        ):
            datasets.ImageFolder(folder, 12)
    finally:
        (folder / "ant").chmod(0o755)


def test_unreadable_files_are_named_whoever_reads(folder, monkeypatch):
    """What `root` may read, a mock may not."""

    def refused(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("PIL.Image.open", refused)
    with pytest.raises(datasets.CorruptImage, match=r"ant_0\.JPEG \(Permission denied\)"):
        datasets.ImageFolder(folder, 12)[0]


def test_a_copy_has_the_same_listing_and_another_identity(folder, tmp_path):
    copy = tmp_path / "copy" / "train"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*.JPEG"):
        os.utime(path, (1, 1))
    one, other = datasets.ImageFolder(folder, 12), datasets.ImageFolder(copy, 12)
    assert one.listing() == other.listing()
    assert one.identity() != other.identity()
    assert datasets.loaded(one).x.digest() == datasets.loaded(other).x.digest()
    assert datasets.packed(one).x.digest() == datasets.packed(other).x.digest()
    assert datasets.loaded(datasets.ImageFolder(folder, 8)).x.digest() != datasets.loaded(one).x.digest()
