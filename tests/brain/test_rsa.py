"""The evaluation rsa, from a folder of brain data to its headline."""

import numpy as np
import pytest
from rsatoolbox.rdm import compare

from rulezoo import DataMissing
from rulezoo_evaluations import brain_data, stimuli
from rulezoo_evaluations.brain_data import BrainDataError
from rulezoo_evaluations.dissimilarity import dissimilarities
from rulezoo_evaluations.rsa import RSA

FEW = {"data": "tiny", "area": "it", "draws": 30, "splits": 10}


def site(network, brain, key):
    """Activity at a site for the stimuli of a folder, from the plain model."""
    shown = brain_data.read(brain.parent, brain.name).recordings("it")[0].stimuli
    _, inputs = stimuli.shown_to(network.made_task, None, shown)
    return network.activities(inputs)[key].flatten(1).double().numpy()


def test_similarities_are_those_of_rsatoolbox_for_the_dissimilarities_of_the_model(brain, tiny):
    network = tiny.trained(tiny.Images(), strength=0.2)
    found = RSA(**FEW, comparator="corr").measure(network, brain.parent)
    (recording,) = brain_data.read(brain.parent, "tiny").recordings("it")
    for key in ("2", "6"):
        x = site(network, brain, key)
        mine = (1 - np.corrcoef(x))[np.triu_indices(20, 1)]
        expected = compare(mine[None], recording.rdms, "corr").mean()
        assert found.values[f"similarity/{key}"] == pytest.approx(expected, abs=1e-5)
        assert found.values[f"similarity/{key}/low"] < expected < found.values[f"similarity/{key}/high"]
    assert found.arrays["labels"].tolist() == [
        "similarity/2",
        "similarity/6",
        "untrained/2",
        "untrained/6",
        "pixels/all",
        "luminance/all",
    ]
    assert found.arrays["similarities"].shape == (6, 3)


def test_luminance_is_compared_by_the_distance_of_mean_and_contrast(brain, tiny):
    """Whatever the dissimilarity of sites: a correlation over two numbers is 1 or -1."""
    found = RSA(**FEW, comparator="corr").measure(tiny.trained(tiny.Images()), brain.parent)
    (recording,) = brain_data.read(brain.parent, "tiny").recordings("it")
    x = stimuli.luminance(stimuli.pixels(recording.stimuli, (3, tiny.SIDE, tiny.SIDE))).numpy()
    x = (x - x.mean(0)) / x.std(0)
    distance = np.square(x[:, None] - x).sum(-1)[np.triu_indices(20, 1)]
    assert found.values["luminance/all"] == pytest.approx(
        compare(distance[None], recording.rdms, "corr").mean()
    )


def test_a_brain_that_is_the_trained_network_is_found(tmp_path, tiny):
    """Dissimilarities of a site plus a little noise: the network is more similar than every control."""
    network = tiny.trained(tiny.Images(), strength=0.5)
    brain = tiny.write_brain(tmp_path)
    own = dissimilarities(site(network, brain, "6"), "correlation")
    noisy = own + 0.05 * own.std() * np.random.default_rng(0).normal(size=(3, len(own)))
    np.savez(brain / "rdms.npz", it=noisy)
    values = RSA(**FEW).measure(network, tmp_path).values
    assert values["similarity/6"] > 0.99
    assert values["similarity"] > 0.99
    assert values["above_control/low"] > 0
    assert values["above_control"] == min(
        values[f"above_{one}"] for one in ("pixels", "luminance", "untrained")
    )
    assert values["above_untrained"] == pytest.approx(values["similarity"] - values["untrained"])
    assert values["ceiling/lower"] > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_pixels_as_a_network_are_nothing_above_pixels(tmp_path, tiny, seed):
    tiny.write_brain(tmp_path, seed=seed)
    values = RSA(**FEW).measure(tiny.trained(tiny.Pixels()), tmp_path).values
    assert values["similarity"] == values["pixels"] == values["untrained"]
    assert values["above_pixels"] == values["above_pixels/low"] == values["above_pixels/high"] == 0
    assert values["above_control"] <= 0


def test_an_untrained_network_is_nothing_above_itself(brain, tiny):
    values = RSA(**FEW).measure(tiny.trained(tiny.Images()), brain.parent).values
    assert values["above_untrained"] == values["above_untrained/low"] == 0
    assert values["above_control"] <= 0


def test_the_headline_of_unrelated_data_is_at_0(tmp_path, tiny):
    network, found = tiny.trained(tiny.Images(), strength=0.3), []
    for seed in range(12):
        gen = np.random.default_rng(seed)
        tiny.write_brain(tmp_path, f"b{seed}", rdms=gen.random((3, 190)), seed=seed)
        found.append(RSA(**FEW | {"data": f"b{seed}"}).measure(network, tmp_path).values["similarity"])
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / np.sqrt(len(found))


def test_measuring_twice_gives_the_same(brain, tiny):
    network = tiny.trained(tiny.Images(), strength=0.2)
    one, two = (RSA(**FEW).measure(network, brain.parent) for _ in range(2))
    assert one.values == two.values
    assert one.data == two.data
    assert len(one.data) == 32
    other = RSA(**FEW, seed=1).measure(network, brain.parent).values
    assert other["similarity/2"] == one.values["similarity/2"]
    assert other["similarity/2/low"] != one.values["similarity/2/low"]


def test_the_headline_is_among_the_values_and_the_missing_control_is_said(brain, tiny):
    found = RSA(**FEW).measure(tiny.trained(tiny.Images()), brain.parent)
    assert RSA.headline in found.values
    assert "is missing" in found.notes["backprop"]


def test_one_subject_has_no_ceiling_and_says_so(tmp_path, tiny):
    tiny.write_brain(tmp_path, rdms=np.random.default_rng(0).random((1, 190)))
    found = RSA(**FEW).measure(tiny.trained(tiny.Images(), strength=0.2), tmp_path)
    assert np.isnan(found.values["ceiling/lower"])
    assert "one subject" in found.notes["ceiling/lower"]
    assert np.isfinite(found.values["above_control/low"])


def test_a_dead_network_is_measured_and_noted(brain, tiny):
    network = tiny.trained(tiny.Images(), strength=0.2)
    network.params["4.bias"][:] = -100
    found = RSA(**FEW).measure(network, brain.parent)
    assert found.values["similarity/6"] == 0
    assert found.notes["similarity/6"].startswith("20 stimuli to which all units respond alike")


def test_responses_have_dissimilarities_too(brain, tiny):
    network = tiny.trained(tiny.Images(), strength=0.2)
    found = RSA(**FEW | {"area": "v4"}).measure(network, brain.parent)
    (recording,) = brain_data.read(brain.parent, "tiny").recordings("v4")
    expected = (1 - np.corrcoef(recording.mean_responses))[np.triu_indices(20, 1)]
    assert found.arrays["measured"][0] == pytest.approx(expected)


def test_recordings_with_different_stimuli_are_not_compared(tmp_path, tiny):
    folder = tmp_path / "tiny"
    for name in "ab":
        tiny.write_stimuli(folder / "stimuli" / name, 10)
    np.savez(folder / "responses.npz", one=np.random.rand(1, 10, 4), two=np.random.rand(1, 10, 4))  # noqa: NPY002
    table = {"area": "v4", "subjects": ["M"]}
    tiny.write_about(folder, {"one": table | {"stimuli": "a"}, "two": table | {"stimuli": "b"}})
    network = tiny.trained(tiny.Images())
    with pytest.raises(BrainDataError, match=r"have different stimuli.*recordings=one"):
        RSA(**FEW | {"area": "v4"}).measure(network, tmp_path)
    RSA(**FEW | {"area": "v4", "recordings": "one"}).measure(network, tmp_path)


def test_too_few_stimuli_are_refused(tmp_path, tiny):
    tiny.write_brain(tmp_path, number=7, rdms=np.ones((2, 21)))
    with pytest.raises(BrainDataError, match="7 stimuli; rsa needs 8 or more"):
        RSA(**FEW).measure(tiny.trained(tiny.Images()), tmp_path)


def test_networks_whose_inputs_are_no_images_are_skipped(tiny):
    assert RSA().skip(tiny.trained(tiny.Images())) is None
    assert "the shape (7,) and are not images" in RSA().skip(tiny.trained(tiny.Vectors(), shape=(7,)))


def test_missing_brain_data_are_named(tiny, tmp_path):
    with pytest.raises(DataMissing, match=r"looked for brain data in .*kriegeskorte92"):
        RSA().measure(tiny.trained(tiny.Images()), tmp_path)


def test_the_92_images(objects, tiny):
    """A network with random weights: pixels and luminance are in the range that is known, the ceiling above them."""
    found = RSA(draws=50, splits=10).measure(tiny.trained(tiny.Images()), objects).values
    assert found["ceiling/lower"] == pytest.approx(0.3723, abs=5e-5)
    assert 0 < found["pixels/all"] < 0.2 < found["ceiling/lower"]
    assert found["above_control"] <= 0
