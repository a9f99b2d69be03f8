"""Folders of brain data, good and bad."""

import numpy as np
import pytest

from rulezoo import DataMissing
from rulezoo_evaluations import brain_data
from rulezoo_evaluations.brain_data import BrainDataError

PAIRS = 20 * 19 // 2


def test_a_folder_is_read(brain):
    data = brain_data.read(brain.parent, "tiny")
    assert data.areas == ("it", "v4")
    (it,), (v4,) = data.recordings("it"), data.recordings("v4")
    assert (it.subjects, it.rdms.shape, it.responses) == (("S0", "S1", "S2"), (3, PAIRS), None)
    assert (v4.subjects, v4.responses.shape, v4.rdms) == (("M",), (4, 20, 5), None)
    assert [path.name for path in v4.stimuli] == [f"image{n:02d}.png" for n in range(20)]


def test_the_mean_leaves_out_repeats_that_were_not_shown(brain, tiny):
    responses = np.ones((3, 20, 5)) * np.array([1, 2, 6])[:, None, None]
    responses[2, 4] = np.nan
    np.savez(brain / "responses.npz", v4=responses)
    (found,) = brain_data.read(brain.parent, "tiny").recordings("v4")
    assert found.mean_responses[3, 0] == 3
    assert found.mean_responses[4, 0] == 1.5


def test_dissimilarities_are_no_responses(brain):
    (found,) = brain_data.read(brain.parent, "tiny").recordings("it")
    with pytest.raises(BrainDataError, match="only dissimilarities"):
        _ = found.mean_responses


def test_recordings_may_have_stimuli_of_their_own(tmp_path, tiny):
    folder = tmp_path / "two"
    for name, number in (("a", 8), ("b", 9)):
        tiny.write_stimuli(folder / "stimuli" / name, number)
    np.savez(folder / "responses.npz", one=np.ones((1, 8, 2)), two=np.ones((1, 9, 3)))
    table = {"area": "v4", "subjects": ["M"]}
    tiny.write_about(folder, {"one": table | {"stimuli": "a"}, "two": table | {"stimuli": "b"}})
    data = brain_data.read(tmp_path, "two")
    assert [len(one.stimuli) for one in data.recordings("v4")] == [8, 9]
    assert [one.name for one in data.recordings("v4", "two")] == ["two"]


def test_files_that_are_no_images_are_no_stimuli(brain):
    (brain / "stimuli" / ".hidden.png").write_bytes(b"")
    (brain / "stimuli" / "notes.txt").write_text("x", encoding="utf-8")
    assert len(brain_data.read(brain.parent, "tiny").recordings("it")[0].stimuli) == 20


def test_a_missing_folder_is_named_with_what_there_is(brain):
    with pytest.raises(
        DataMissing, match=r"tiny2, which does not exist; did you mean 'tiny'\? brain data in .*: tiny;"
    ):
        brain_data.read(brain.parent, "tiny2")
    with pytest.raises(DataMissing, match=r"--data \(or \$RULEZOO_DATA\)"):
        brain_data.read(None, "tiny")


def test_unknown_areas_and_recordings_are_named_with_near_ones(brain):
    data = brain_data.read(brain.parent, "tiny")
    with pytest.raises(BrainDataError, match=r"has no area 'V4'; did you mean 'v4'\? it has it, v4"):
        data.recordings("V4")
    with pytest.raises(BrainDataError, match="has no recording of v4 'it'; it has v4"):
        data.recordings("v4", "it")


def rewrite(name, **arrays):
    return lambda folder, tiny: np.savez(folder / name, **arrays)


def about(text=None, **tables):
    def write(folder, tiny):
        if text is None:
            tiny.write_about(folder, tables)
        else:
            (folder / "about.toml").write_text(text, encoding="utf-8")

    return write


def remove(*names):
    def unlink(folder, tiny):
        for name in names:
            (folder / name).unlink()

    return unlink


IT = {"area": "it", "subjects": ["S0", "S1", "S2"]}
V4 = {"area": "v4", "subjects": ["M"]}
HEAD = 'name = "x"\nlicence = "x"\nsource = "x"\n'

BROKEN = {
    "no about": (remove("about.toml"), r"about\.toml does not exist"),
    "no toml": (about("name ="), "cannot be read as TOML"),
    "no licence": (about('name = "x"\n'), "licence must be a text, got None"),
    "no recordings": (about(HEAD), "describes no recordings"),
    "an unknown key": (about(HEAD + 'licens = "y"\n'), "unknown key 'licens'; did you mean 'licence'"),
    "an unknown key of a recording": (
        about(HEAD + '[recordings.it]\narea = "it"\nsubjects = ["A"]\ndegres = 2.0'),
        "it: unknown key 'degres'; did you mean 'degrees'",
    ),
    "no size of a stimulus": (
        about(HEAD + '[recordings.it]\narea = "it"\nsubjects = ["A"]\ndegrees = -1'),
        "degrees must be a number above 0, got -1",
    ),
    "no truth value": (
        about(HEAD + '[recordings.it]\narea = "it"\nsubjects = ["A"]\naveraged = "yes"'),
        "averaged must be true or false, got 'yes'",
    ),
    "a recording without an area": (
        about(HEAD + '[recordings.it]\nsubjects = ["A"]'),
        "it: area must be a text",
    ),
    "a recording without subjects": (
        about(HEAD + '[recordings.it]\narea = "it"'),
        "subjects must be a list of texts",
    ),
    "a recording that is a number": (about(HEAD + "[recordings]\nit = 3"), "must be a table"),
    "stimuli that are a number": (
        about(it=IT | {"stimuli": 3}, v4=V4),
        "must be a folder below stimuli/, got 3",
    ),
    "no measurements": (remove("rdms.npz", "responses.npz"), r"neither rdms\.npz nor responses\.npz"),
    "no array of a recording": (remove("responses.npz"), r"recording 'v4' of about\.toml has no array"),
    "a recording that is not described": (about(it=IT), r"does not describe 'v4'; add \[recordings\.v4\]"),
    "a recording in both files": (
        rewrite("responses.npz", it=np.ones((1, 20, 2)), v4=np.ones((1, 20, 2))),
        "rename one",
    ),
    "no zip file": (
        lambda folder, tiny: (folder / "rdms.npz").write_bytes(b"x"),
        "cannot be read as an .npz file",
    ),
}

INSIDE = {
    "no stimuli": (
        about(it=IT | {"stimuli": "set"}, v4=V4),
        r"looked for stimuli in .*set, which does not exist",
    ),
    "text": (rewrite("rdms.npz", it=np.array([["a"]])), "cannot be read as an array of numbers"),
    "objects": (rewrite("rdms.npz", it=np.array([{}])), "cannot be read as an array of numbers"),
    "matrices": (rewrite("rdms.npz", it=np.ones((3, 20, 20))), r"must have the shape \(subjects, pairs\)"),
    "another number of subjects": (
        rewrite("rdms.npz", it=np.ones((2, PAIRS))),
        "of 2 subjects, and about.toml names 3",
    ),
    "no number of pairs": (
        rewrite("rdms.npz", it=np.ones((3, PAIRS - 1))),
        r"189 pairs, which are not n\(n-1\)/2",
    ),
    "stimuli without responses": (
        rewrite("rdms.npz", it=np.ones((3, 171))),
        "of 19 stimuli.*20 images.*1 stimuli without",
    ),
    "responses without stimuli": (rewrite("rdms.npz", it=np.ones((3, 210))), "of 21 stimuli.*only 20 images"),
    "NaN": (rewrite("rdms.npz", it=np.full((3, PAIRS), np.nan)), "570 of 570 dissimilarities are NaN"),
}


def absent(stimulus):
    responses = np.ones((2, 20, 5))
    responses[:, stimulus, 3] = np.nan
    return responses


RESPONSES = {
    "averages": (np.ones((20, 5)), r"must have the shape \(repeats, stimuli, neurons\), got \(20, 5\)"),
    "nothing": (np.ones((0, 20, 5)), r"got \(0, 20, 5\)"),
    "stimuli without responses": (
        np.ones((1, 18, 5)),
        "of 18 stimuli.*20 images.*2 stimuli without responses",
    ),
    "infinite": (np.full((1, 20, 5), np.inf), "100 responses are infinite"),
    "NaN": (absent(7), "all repeats are NaN in 1 cases, the first one neuron 3 and stimulus image07.png"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_says_what_is_wrong(brain, tiny, case):
    break_it, message = BROKEN[case]
    break_it(brain, tiny)
    with pytest.raises(BrainDataError, match=message):
        brain_data.read(brain.parent, "tiny")


@pytest.mark.parametrize("case", INSIDE)
def test_broken_dissimilarities_say_what_is_wrong(brain, tiny, case):
    break_it, message = INSIDE[case]
    break_it(brain, tiny)
    with pytest.raises(BrainDataError, match=message):
        brain_data.read(brain.parent, "tiny").recordings("it")


@pytest.mark.parametrize("case", RESPONSES)
def test_broken_responses_say_what_is_wrong(brain, case):
    array, message = RESPONSES[case]
    np.savez(brain / "responses.npz", v4=array)
    with pytest.raises(BrainDataError, match=message):
        brain_data.read(brain.parent, "tiny").recordings("v4")


def test_responses_of_two_subjects_are_two_recordings(brain, tiny):
    tiny.write_about(brain, {"it": IT, "v4": V4 | {"subjects": ["M", "N"]}})
    with pytest.raises(BrainDataError, match="must have one subject"):
        brain_data.read(brain.parent, "tiny").recordings("v4")


def test_a_folder_of_stimuli_without_images_is_named(brain):
    for path in (brain / "stimuli").iterdir():
        path.unlink()
    with pytest.raises(BrainDataError, match="has no images"):
        brain_data.read(brain.parent, "tiny").recordings("it")


def test_the_digest_depends_on_stimuli_and_measurements_and_on_no_path(tmp_path, tiny):
    def digest(name, **changes):
        tiny.write_brain(tmp_path / name, **changes)
        return brain_data.digest(brain_data.read(tmp_path / name, "tiny").recordings("it"))

    gen = np.random.default_rng(7)
    rdms = gen.random((3, PAIRS))
    found = digest("a", rdms=rdms)
    assert found == digest("b", rdms=rdms)
    assert found != digest("c", rdms=rdms + 1e-9)
    assert found != digest("d", rdms=rdms, seed=3)
