import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brute
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from rulezoo import MeasurementError, State
from rulezoo_evaluations.calibration import (
    Calibration,
    answers,
    brier,
    equal_mass,
    equal_width,
    error_of_a_calibrated_network,
    negative_log_likelihood,
    reliability,
    temperature,
)


def drawn(examples=4000, classes=5, scale=2.0, seed=0):
    """Outputs of a perfectly calibrated network, and labels that are drawn from its own probabilities."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(examples, classes))
    labels = (softmax(logits, -1).cumsum(-1) > rng.random((examples, 1))).argmax(-1)
    return logits, labels


def slow_error(confidence, correct, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (low == edges[0] and c == low)]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            total += (
                len(inside)
                / len(confidence)
                * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
            )
    return total


@pytest.mark.parametrize("edges", [equal_width(15), equal_width(1), np.array([0.0, 0.3, 0.5, 1.0])])
def test_the_error_equals_the_slow_loop(edges):
    confidence, correct = answers(*drawn(300))
    assert reliability(confidence, correct, edges).error == pytest.approx(
        slow_error(confidence, correct, edges), abs=1e-14
    )


def test_confidences_on_an_edge_are_in_the_bin_below():
    edges = equal_width(4)
    found = reliability(np.array([0.25, 0.5, 0.75, 1.0]), np.array([1, 0, 1, 1]), edges)
    assert found.share.tolist() == [0.25] * 4
    assert found.confidence.tolist() == [0.25, 0.5, 0.75, 1.0]


def test_the_diagram_is_that_of_scikit_learn():
    confidence, correct = answers(*drawn())
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    found = reliability(confidence, correct, equal_width(10))
    full = found.share > 0
    np.testing.assert_allclose(found.accuracy[full], accuracy, atol=1e-12)
    np.testing.assert_allclose(found.confidence[full], mean, atol=1e-12)


def test_bins_of_equal_mass_hold_equally_many_and_keep_ties_together():
    confidence, correct = answers(*drawn(3000))
    np.testing.assert_allclose(
        reliability(confidence, correct, equal_mass(confidence, 15)).share, 1 / 15, atol=1e-3
    )
    sure = np.ones(100)
    assert reliability(sure, np.arange(100) < 90, equal_mass(sure, 15)).error == pytest.approx(0.1)


def test_scores_are_those_of_scikit_learn():
    logits, labels = drawn(500)
    p = softmax(logits, -1)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, p), rel=1e-12)
    assert brier(logits, labels) == pytest.approx(brier_score_loss(labels, p, scale_by_half=False), rel=1e-12)


def test_the_error_of_a_calibrated_network_vanishes_with_the_examples_as_expected():
    """It falls as 1 / sqrt(examples): by 10 from 1,000 to 100,000, up to a third, and is within the resampled range."""
    found = {}
    for examples in (1000, 100_000):
        logits, labels = drawn(examples)
        confidence, correct = answers(logits, labels)
        resampled = error_of_a_calibrated_network(confidence, equal_width(15), 50, seed=0)
        found[examples] = reliability(confidence, correct, equal_width(15)).error
        assert resampled.min() / 1.5 < found[examples] < resampled.max() * 1.5
    assert found[100_000] < 0.006
    assert 7 < found[1000] / found[100_000] < 30


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_scaling_finds_the_factor_and_restores_calibration(factor):
    logits, labels = drawn(20_000)
    t = temperature(factor * logits, labels)
    assert t == pytest.approx(factor, rel=0.03)  # one standard error is about 0.01
    values = Calibration().of(factor * logits, labels, t).values
    assert values["ece-scaled"] < 0.015
    assert (values["ece"] > 0.05) == (factor != 1.0)
    assert np.sign(round(values["overconfidence"], 1)) == np.sign(factor - 1)


def test_the_temperature_is_the_minimum():
    logits, labels = drawn(400)
    grid = brute(
        lambda t: negative_log_likelihood(logits / t[0], labels), ((0.2, 5.0),), Ns=4000, finish=None
    )
    assert temperature(logits, labels) == pytest.approx(float(grid), abs=2e-3)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_temperature_that_is_not_determined_is_noted(shift):
    """All answers are right, so that a temperature of 0 is best, or all are wrong, so that an infinite one is."""
    logits, labels = np.eye(3)[np.arange(30) % 3], (np.arange(30) + shift) % 3
    found = Calibration().of(logits, labels, temperature(logits, labels))
    assert math.isnan(found.values["temperature"])
    assert math.isnan(found.values["nll-scaled"])
    assert "does not determine a temperature" in found.notes["ece-scaled"]
    assert found.values["accuracy"] == 1 - shift


def test_a_network_that_says_the_frequencies_is_calibrated_and_knows_nothing():
    labels = np.repeat(np.arange(4), 25)
    values = Calibration().of(np.zeros((100, 4)), labels, 1.0).values
    assert values["ece"] == pytest.approx(0, abs=1e-12)
    assert values["accuracy"] == 0.25
    assert values["brier"] == pytest.approx(0.75)
    assert values["nll"] == pytest.approx(np.log(4))


def test_it_measures_a_network_the_same_each_time(stripes):
    assert Calibration().skip(stripes) is None
    first, second = (Calibration().measure(stripes, None) for _ in range(2))
    assert first.values == second.values
    test = stripes.data(None).test
    assert first.values["accuracy"] == pytest.approx(
        float((stripes.predict(test.x).argmax(-1) == test.y).float().mean())
    )
    assert first.arrays["edges"].shape == (16,)
    assert first.arrays["accuracy"].shape == first.arrays["share-scaled"].shape == (15,)
    assert first.values.keys() >= {Calibration.headline}


def test_it_skips_what_is_no_classification_and_answers_that_are_not_known(no_labels, with_memory):
    assert "not a classification" in Calibration().skip(no_labels)
    assert "--keep-memory" in Calibration().skip(with_memory)
    kept = dataclasses.replace(with_memory, state=State({}, {"gain": torch.tensor(1.0)}))
    assert Calibration().skip(kept) is None


def test_outputs_that_are_not_finite_are_refused(stripes):
    broken = dataclasses.replace(stripes, params={n: p * float("nan") for n, p in stripes.params.items()})
    with pytest.raises(MeasurementError, match="not finite for 100 of 100 examples"):
        Calibration().measure(broken, None)
