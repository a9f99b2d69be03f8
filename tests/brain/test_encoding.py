"""The evaluation encoding, from a folder of brain data to its headline."""

import numpy as np
import pytest

from rulezoo import DataMissing
from rulezoo_evaluations import brain_data, stimuli
from rulezoo_evaluations.brain_data import BrainDataError
from rulezoo_evaluations.encoding import Encoded, Encoding, interval, over_subjects

FEW = {"data": "tiny", "area": "v4", "draws": 50}


def planted(root, tiny, network, *, key="6", number=120, neurons=20, repeats=6, noise=0.5, seed=0):
    """Brain data whose neurons are linear in a site of the network, with noise at each repeat."""
    brain = tiny.write_brain(root, number=number, responses=np.ones((1, number, 1)))
    shown = brain_data.read(root, "tiny").recordings("v4")[0].stimuli
    _, inputs = stimuli.shown_to(network.made_task, None, shown)
    features = network.activities(inputs)[key].flatten(1).double().numpy()
    gen = np.random.default_rng(seed)
    signal = (features - features.mean(0)) @ gen.normal(size=(features.shape[1], neurons))
    signal /= signal.std(0)
    np.savez(brain / "responses.npz", v4=signal + noise * gen.normal(size=(repeats, number, neurons)))
    return brain


@pytest.mark.parametrize("method", ["ridge", "pls"])
def test_neurons_that_are_linear_in_a_site_are_predicted_at_their_ceiling(tmp_path, tiny, method):
    """20 units and 96 training stimuli: the lost r² is about 20 / 96 of the noise's share of the mean, 4 %."""
    network = tiny.trained(tiny.Images(), strength=0.5)
    planted(tmp_path, tiny, network)
    values = Encoding(**FEW, method=method, components=15).measure(network, tmp_path).values
    assert values["normalised/6"] == pytest.approx(1.0, abs=0.04)
    assert values["normalised"] == pytest.approx(1.0, abs=0.04)
    assert values["ceiling"] == pytest.approx(1 / np.sqrt(1 + 0.25 / 6), abs=0.01)
    assert values["above_control/low"] > 0
    assert values["above_control"] == min(
        values[f"above_{one}"] for one in ("pixels", "luminance", "untrained")
    )


@pytest.mark.parametrize("method", ["ridge", "pls"])
def test_shuffled_stimuli_are_predicted_at_chance(tmp_path, tiny, method):
    """Each neuron's responses in an order of its own: an SD of 1 / sqrt(stimuli × neurons) for each candidate."""
    network = tiny.trained(tiny.Images(), strength=0.5)
    brain = planted(tmp_path, tiny, network, neurons=40)
    (recording,) = brain_data.read(tmp_path, "tiny").recordings("v4")
    gen = np.random.default_rng(3)
    shuffled = np.stack([recording.responses[:, gen.permutation(120), n] for n in range(40)], -1)
    np.savez(brain / "responses.npz", v4=shuffled)
    values = Encoding(**FEW, method=method).measure(network, tmp_path).values
    for name in ("r", "r/2", "r/6", "pixels", "luminance", "untrained"):
        assert abs(values[name]) < 4 / np.sqrt(120 * 40)
    assert values["ceiling"] > 0.95


def test_pixels_as_a_network_are_nothing_above_pixels(tmp_path, tiny):
    network = tiny.trained(tiny.Pixels())
    planted(tmp_path, tiny, network, key="0", number=60)
    values = Encoding(**FEW).measure(network, tmp_path).values
    assert values["r"] == values["pixels"] == values["untrained"] > 0.3
    assert values["above_control"] == values["above_control/low"] == values["above_control/high"] == 0


def test_a_chosen_site_has_no_advantage_by_chance():
    """Scores of 30 unrelated sites in 5 folds: the best on average is above 0, the one chosen in other folds is not."""
    groups = ("network",) * 30 + ("pixels", "luminance", "untrained")
    fair, unfair = [], []
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(33, 5, 4))
        fair.append(Encoded(groups, scores, None, np.zeros(4, bool)).chosen()[0].mean())
        unfair.append(scores[:30].mean((1, 2)).max())
    assert abs(np.mean(fair)) < 4 * np.std(fair, ddof=1) / np.sqrt(len(fair))
    assert np.mean(unfair) > 0.3


def test_without_repeats_there_is_no_ceiling_and_it_is_said(tmp_path, tiny):
    network = tiny.trained(tiny.Images(), strength=0.5)
    planted(tmp_path, tiny, network, number=60, repeats=1)
    found = Encoding(**FEW).measure(network, tmp_path)
    for name in ("normalised", "normalised/6", "ceiling", "normalised_pixels"):
        assert np.isnan(found.values[name])
        assert "no recording has repeats" in found.notes[name]
    assert found.values["r"] > 0.3


def test_unreliable_neurons_are_not_divided_by_their_ceiling(tmp_path, tiny):
    network = tiny.trained(tiny.Images(), strength=0.5)
    brain = planted(tmp_path, tiny, network, neurons=10)
    (recording,) = brain_data.read(tmp_path, "tiny").recordings("v4")
    noise = np.random.default_rng(0).normal(size=(6, 120, 10))
    np.savez(brain / "responses.npz", v4=np.concatenate([recording.responses, noise], -1))
    found = Encoding(**FEW, reliability=0.5).measure(network, tmp_path)
    assert "v4 (10 of 20 neurons)" in found.notes["ceiling"]
    assert found.values["normalised"] == pytest.approx(1.0, abs=0.05)
    assert found.values["r"] < 0.7


def test_recordings_are_averaged_within_a_subject_first():
    assert over_subjects([1.0, 3.0, 8.0], ["a", "a", "b"]) == 5.0


def test_the_interval_is_over_neurons():
    """Differences with an SD of 1 over 400 neurons: the interval is twice 1.96 / 20 wide."""
    gen = np.random.default_rng(0)
    scores = np.zeros((4, 400))
    scores[0] = gen.normal(size=400)
    low, high = interval([scores], ["a"], 2000, gen)
    assert high - low == pytest.approx([2 * 1.96 / 20] * 3, rel=0.1)


def test_sessions_with_stimuli_of_their_own_are_measured_one_by_one(tmp_path, tiny):
    folder, gen = tmp_path / "tiny", np.random.default_rng(0)
    for name in "ab":
        tiny.write_stimuli(folder / "stimuli" / name, 30)
    np.savez(folder / "responses.npz", one=gen.normal(size=(2, 30, 4)), two=gen.normal(size=(1, 30, 3)))
    table = {"area": "v4"}
    tiny.write_about(
        folder,
        {
            "one": table | {"stimuli": "a", "subjects": ["M"]},
            "two": table | {"stimuli": "b", "subjects": ["N"]},
        },
    )
    found = Encoding(**FEW).measure(tiny.trained(tiny.Images()), tmp_path)
    assert found.values["r"] == pytest.approx((found.values["one/r"] + found.values["two/r"]) / 2)
    assert found.arrays["scores/one"].shape == (6, 4)
    assert found.arrays["ceiling/one"].shape == (4,)
    assert "ceiling/two" not in found.arrays


def test_measuring_twice_gives_the_same(tmp_path, tiny):
    network = tiny.trained(tiny.Images(), strength=0.5)
    planted(tmp_path, tiny, network, number=40)
    one, two = (Encoding(**FEW).measure(network, tmp_path) for _ in range(2))
    assert one.values == two.values
    assert Encoding(**FEW, seed=1).measure(network, tmp_path).values["r"] != one.values["r"]


def test_what_cannot_be_measured_says_why(brain, tiny, tmp_path):
    network = tiny.trained(tiny.Images())
    with pytest.raises(BrainDataError, match="only dissimilarities"):
        Encoding(**FEW | {"area": "it"}).measure(network, brain.parent)
    with pytest.raises(BrainDataError, match="20 stimuli, too few for 11 folds"):
        Encoding(**FEW, folds=11).measure(network, brain.parent)
    with pytest.raises(DataMissing, match="v4-cowley"):
        Encoding().measure(network, tmp_path)
    assert "not images" in Encoding().skip(tiny.trained(tiny.Vectors(), shape=(7,)))


@pytest.mark.slow
def test_macaque_v4(macaque, tiny):
    """Pixels, luminance and random weights predict neurons; nothing exceeds the ceiling."""
    found = Encoding(recordings="210325").measure(tiny.trained(tiny.Images()), macaque).values
    assert 0.1 < found["luminance"] < found["pixels"] < found["r"] < found["ceiling"] < 1
    assert found["above_control"] == 0
