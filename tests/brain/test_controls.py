"""Which sites are looked at, and what a network is compared with."""

import numpy as np
import pandas as pd
import pytest
import torch

from rulezoo import OptionError
from rulezoo_evaluations import controls, stimuli


@pytest.fixture
def shown(tiny, tmp_path):
    return stimuli.shown_to(tiny.Images(), None, tiny.write_stimuli(tmp_path / "s", 10))


def test_sites_are_chosen_by_name_or_kind(tiny):
    network = tiny.trained(tiny.Images())
    assert controls.chosen_sites(network, "post") == controls.chosen_sites(network, "all") == ["2", "6"]
    assert controls.chosen_sites(network, "pre") == []
    assert controls.chosen_sites(network, "6") == ["6"]
    with pytest.raises(OptionError, match="no site '7'; it has 2, 6"):
        controls.chosen_sites(network, "2, 7")


def test_features_are_the_activities_of_the_model(tiny, shown):
    network = tiny.trained(tiny.Images(), strength=0.1)
    pixels, inputs = shown
    found = {
        one.label: one.features
        for one in controls.candidates(network, pixels, inputs, sites="all", units=10_000, seed=0)
    }
    assert list(found) == ["network/2", "network/6", "untrained/2", "untrained/6", "pixels", "luminance"]
    with torch.no_grad():
        first = network.model()[:2](inputs).flatten(1).double().numpy()
        untrained = network.untrained().model()[:2](inputs).flatten(1).double().numpy()
    assert found["network/2"] == pytest.approx(first, abs=1e-5)
    assert found["untrained/2"] == pytest.approx(untrained, abs=1e-5)
    assert np.abs(first - untrained).max() > 0.01
    assert found["pixels"] == pytest.approx(inputs.flatten(1).numpy())
    assert found["luminance"].mean(0) == pytest.approx([0, 0], abs=1e-12)
    assert found["luminance"].std(0) == pytest.approx([1, 1])


def test_large_sites_are_projected_alike_for_the_trained_and_the_untrained_network(tiny, shown):
    network = tiny.trained(tiny.Images())
    pixels, inputs = shown
    found = {
        one.label: one.features
        for one in controls.candidates(network, pixels, inputs, sites="all", units=200, seed=0)
    }
    assert found["network/2"].shape == found["pixels"].shape == (10, 200)
    assert found["network/6"].shape == (10, 20)
    assert (found["network/2"] == found["untrained/2"]).all()


def test_projections_keep_distances(tiny):
    features = np.random.default_rng(0).normal(size=(20, 5000)).astype(np.float32)
    found = controls._projected(features, 1000, 0)
    ratio = [
        np.square(found[n] - found[n - 1]).sum() / np.square(features[n] - features[n - 1]).sum()
        for n in range(20)
    ]
    assert np.std(ratio) < 4 * np.sqrt(2 / 1000)
    assert np.mean(ratio) == pytest.approx(1, abs=0.05)


def test_stimuli_are_shown_in_parts_without_a_difference(tiny, tmp_path):
    network = tiny.trained(tiny.Images())
    inputs = torch.rand(300, 3, tiny.SIDE, tiny.SIDE)
    found = controls.activities(network, inputs, ["6"], units=100, seed=0)["6"]
    whole = network.activities(inputs)["6"].double().numpy()
    assert found == pytest.approx(whole, abs=1e-5)


def test_a_diverged_network_is_skipped_with_a_sentence(tiny):
    network = tiny.trained(tiny.Images())
    assert controls.why_not_finite(network) is None
    network.params["7.bias"][0] = torch.nan
    assert controls.why_not_finite(network) == "the weights '7.bias' are not finite: the run diverged"


def test_a_constant_column_is_standardised_to_0():
    assert controls.standardised(np.ones((5, 2))).tolist() == [[0, 0]] * 5


def frame(*rows):
    return pd.DataFrame(rows, columns=["rule", "task", "seed", "test", "above_control"])


def test_backprop_of_nearest_score_is_found_within_the_task():
    found = controls.at_equal_score(
        frame(
            ("backprop", "a", 0, 0.70, 0.10),
            ("backprop", "a", 1, 0.60, 0.08),
            ("backprop", "b", 0, 0.55, 0.90),
            ("nmnc", "a", 0, 0.61, 0.05),
            ("nmnc", "c", 0, 0.61, 0.05),
        ),
        "above_control",
        score="test",
    )
    assert found["rule"].tolist() == ["nmnc", "nmnc"]
    assert found.loc[0, "reference_seed"] == 1
    assert found.loc[0, "reference_score"] == 0.60
    assert found.loc[0, "difference"] == pytest.approx(-0.03)
    assert np.isnan(found.loc[1, "difference"])


def test_without_a_run_of_backprop_nothing_is_compared():
    found = controls.at_equal_score(frame(("nmnc", "a", 0, 0.6, 0.1)), "above_control", score="test")
    assert found["difference"].isna().all()
