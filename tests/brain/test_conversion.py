"""The two public data sets, from stand-ins for their published files."""

import io
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.io import savemat
from scipy.spatial.distance import squareform

from rulezoo_evaluations import brain_data
from rulezoo_evaluations.brain_conversion import convert, main
from rulezoo_evaluations.brain_data import BrainDataError

OBJECTS = 9


@pytest.fixture
def packed():
    """What the 92-image set holds, with fewer images."""
    gen = np.random.default_rng(0)
    n = OBJECTS
    human = [
        [squareform(gen.random(n * (n - 1) // 2)).astype(np.float32) for _ in range(2)] for _ in range(4)
    ]
    return {
        "images": gen.integers(0, 256, (n, 20, 20, 3), dtype=np.uint8),
        "monkey_it_rdm": squareform(gen.random(n * (n - 1) // 2)),
        "human_it_rdm_subject_session": np.array(human),
        "human_subjects": np.array(["BE", "KO", "SN", "TI"]),
    }


def as_matlab(folder, packed):
    """The same in the published files."""
    folder.mkdir()
    measured = np.zeros((1, 4, 2), dtype=[("RDM", object), ("name", object)])
    for n, subject in enumerate(packed["human_subjects"]):
        for session in range(2):
            matrix = packed["human_it_rdm_subject_session"][n, session]
            measured[0, n, session] = (matrix, f"hIT | {subject} | Session: {session + 1}")
    savemat(folder / "92_brainRDMs.mat", {"RDMs": measured})
    figure = np.zeros((1, 2), dtype=[("name", object), ("RDM", object)])
    figure[0, 0] = ("mIT_674neurons", squareform(packed["monkey_it_rdm"])[None])
    figure[0, 1] = ("hITvisStim_316vx", np.ones((1, 36)))
    images = np.zeros((1, OBJECTS), dtype=[("image", object), ("human", object)])
    for n, image in enumerate(packed["images"]):
        images[0, n] = (image, 0)
    savemat(
        folder / "Kriegeskorte_Neuron2008_supplementalData.mat",
        {"RDMs_mIT_hIT_fig1": figure, "stimuli_92objs": images},
    )
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_92_image_set_is_the_same_from_either_form(tmp_path, packed):
    np.savez(tmp_path / "packed.npz", **packed)
    one = convert("kriegeskorte92", tmp_path / "packed.npz", tmp_path / "one")
    two = convert("kriegeskorte92", as_matlab(tmp_path / "published", packed), tmp_path / "two")
    assert files(one) == files(two)
    data = brain_data.read(tmp_path / "one", "kriegeskorte92")
    (human,), (monkey,) = data.recordings("human-it"), data.recordings("monkey-it")
    assert human.subjects == ("BE", "KO", "SN", "TI")
    expected = packed["human_it_rdm_subject_session"].astype(float).mean(1)[1]
    assert squareform(human.rdms[1]) == pytest.approx(expected)
    assert squareform(monkey.rdms[0]) == pytest.approx(packed["monkey_it_rdm"])
    assert (np.array(Image.open(human.stimuli[4])) == packed["images"][4]).all()


def v4(folder, *, flat):
    """Two sessions, of which one has single repeats; as published, or all files in one folder."""
    gen = np.random.default_rng(0)
    raw = gen.random((3, 12, 4))
    raw[:, 2, 3] = np.nan
    places = (
        dict.fromkeys(("images", "raw", "averaged"), "")
        if flat
        else {"images": "images", "raw": "responses_raw", "averaged": "responses_repeat_averaged"}
    )
    for place in places.values():
        (folder / place).mkdir(parents=True, exist_ok=True)
    np.save(folder / places["averaged"] / "responses_190923.npy", gen.random((5, 12)))
    np.save(folder / places["averaged"] / "responses_210325.npy", np.nanmean(raw, 2))
    np.save(folder / places["raw"] / f"responses_{'raw_' if flat else ''}210325.npy", raw)
    for session in ("190923", "210325"):
        with zipfile.ZipFile(folder / places["images"] / f"images_{session}.zip", "w") as file:
            for n in reversed(range(1, 13)):
                jpeg = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), 20 * n, dtype=np.uint8)).save(jpeg, "JPEG")
                file.writestr(f"image{n:04d}.jpg", jpeg.getvalue())
    return raw


@pytest.mark.parametrize("flat", [True, False])
def test_sessions_of_v4(tmp_path, flat):
    raw = v4(tmp_path / "published", flat=flat)
    convert("v4-cowley", tmp_path / "published", tmp_path)
    one, two = brain_data.read(tmp_path, "v4-cowley").recordings("v4")
    assert (one.name, one.subjects, one.responses.shape) == ("190923", ("WE",), (1, 12, 5))
    assert (two.name, two.subjects, two.responses.shape) == ("210325", ("PE",), (4, 12, 3))
    assert two.mean_responses == pytest.approx(np.nanmean(raw, 2).T)
    assert np.array(Image.open(two.stimuli[2])).mean() == pytest.approx(60, abs=2)  # image 3


def test_converting_again_gives_the_same_bytes(tmp_path):
    v4(tmp_path / "published", flat=True)
    one, two = (convert("v4-cowley", tmp_path / "published", tmp_path / name) for name in ("a", "b"))
    assert files(one) == files(two)


def test_what_was_converted_is_not_overwritten_and_half_a_conversion_leaves_nothing(tmp_path, packed):
    np.savez(tmp_path / "packed.npz", **packed)
    convert("kriegeskorte92", tmp_path / "packed.npz", tmp_path / "data")
    with pytest.raises(BrainDataError, match="exists; delete it to convert again"):
        convert("kriegeskorte92", tmp_path / "packed.npz", tmp_path / "data")
    v4(tmp_path / "published", flat=True)
    np.save(tmp_path / "published" / "responses_190923.npy", np.ones((5, 11)))
    with pytest.raises(BrainDataError, match="has 12 images, and there are responses to 11"):
        convert("v4-cowley", tmp_path / "published", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["kriegeskorte92"]


def test_files_that_are_missing_are_named(tmp_path, packed):
    del packed["monkey_it_rdm"]
    np.savez(tmp_path / "packed.npz", **packed)
    with pytest.raises(BrainDataError, match="has no array 'monkey_it_rdm'"):
        convert("kriegeskorte92", tmp_path / "packed.npz", tmp_path / "data")
    with pytest.raises(BrainDataError, match=r"looked for .*92_brainRDMs\.mat"):
        convert("kriegeskorte92", tmp_path, tmp_path / "data")
    with pytest.raises(BrainDataError, match=r"no file images_SESSION\.zip"):
        convert("v4-cowley", tmp_path, tmp_path / "data")


def test_the_command(tmp_path, packed):
    np.savez(tmp_path / "packed.npz", **packed)
    arguments = ["kriegeskorte92", str(tmp_path / "packed.npz"), str(tmp_path / "data")]
    first, second = (CliRunner().invoke(main, arguments) for _ in range(2))
    assert first.exit_code == 0
    assert "wrote" in first.output
    assert second.exit_code == 1
    assert second.output.startswith("Error: ")
