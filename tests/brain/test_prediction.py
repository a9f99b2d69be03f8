"""Ridge regression, PLS and the ceiling of noise, against slow twins, planted maps and shuffled stimuli."""

import numpy as np
import pytest

from rulezoo_evaluations.prediction import (
    METHODS,
    correlations,
    folds,
    held_out,
    predictions,
    reliability,
    rotated,
)

ALPHAS = np.logspace(-4, 4, 17)


def planted(*, stimuli=300, units=10, neurons=8, repeats=4, noise=1.0, seed=0):
    """Features, and repeated responses that are linear in them, with noise of that SD at each repeat; signals have SD 1."""
    gen = np.random.default_rng(seed)
    features = gen.normal(size=(stimuli, units))
    signal = features @ gen.normal(size=(units, neurons)) / np.sqrt(units)
    signal /= signal.std(0)
    return features, signal + noise * gen.normal(size=(repeats, stimuli, neurons))


@pytest.mark.parametrize("units", [5, 80])
def test_rotated_features_have_the_inner_products_of_the_features(units):
    features = np.random.default_rng(0).normal(size=(30, units)) + 3
    found = rotated(features)
    centred = features - features.mean(0)
    gram = centred @ centred.T
    assert found.shape[1] <= min(30, units)
    assert found @ found.T == pytest.approx(gram * 30 / np.trace(gram))


def test_features_without_variance_stay_finite():
    assert (rotated(np.ones((30, 4))) == 0).all()


def slow_ridge(x, y, alpha, new):
    mean_x, mean_y = x.mean(0), y.mean()
    inside = (x - mean_x).T @ (x - mean_x) + alpha * np.eye(x.shape[1])
    return mean_y + (new - mean_x) @ np.linalg.solve(inside, (x - mean_x).T @ (y - mean_y))


def slow_nested_ridge(x, y, new):
    """The penalty with the least squared error when each training stimulus is left out in turn."""
    errors = []
    for alpha in ALPHAS:
        left_out = [
            slow_ridge(np.delete(x, n, 0), np.delete(y, n), alpha, x[n : n + 1])[0] - y[n]
            for n in range(len(x))
        ]
        errors.append(np.mean(np.square(left_out)))
    return slow_ridge(x, y, ALPHAS[np.argmin(errors)], new)


@pytest.mark.parametrize("units", [6, 60])
def test_ridge_equals_a_slow_nested_cross_validation(units):
    features, responses = planted(stimuli=40, units=units, neurons=3, noise=2.0)
    y = responses.mean(0)
    train, test = folds(40, 5, 0)[0]
    found = predictions(rotated(features), y, train, test, method="ridge", components=1)
    x = (features - features.mean(0)) / np.sqrt(np.square(features - features.mean(0)).sum() / 40)
    slow = [slow_nested_ridge(x[train], y[train, n], x[test]) for n in range(3)]
    assert found == pytest.approx(np.array(slow).T, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_predictions_do_not_depend_on_responses_to_the_test_stimuli(method):
    features, responses = planted(stimuli=40)
    y = responses.mean(0)
    train, test = folds(40, 5, 0)[0]
    changed = y.copy()
    changed[test] = 1e3
    found = [
        predictions(rotated(features), some, train, test, method=method, components=3)
        for some in (y, changed)
    ]
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_linear_map_is_recovered_at_its_ceiling(method):
    """With 240 training stimuli for 10 units, r² loses about 10 / 240 of the noise's share: 1 % of r."""
    features, responses = planted(stimuli=300, units=10, neurons=40, repeats=8, noise=1.0)
    ceiling = np.sqrt(reliability(responses, seed=0))
    parts = folds(300, 5, 0)
    found = held_out(rotated(features), responses.mean(0), parts, method=method, components=10).mean(0)
    assert ceiling.mean() == pytest.approx(1 / np.sqrt(1 + 1 / 8), abs=0.01)
    assert (found / ceiling).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_shuffled_stimuli_are_predicted_at_chance(method):
    """The mean r over folds and independent neurons has an SD of at most 1 / sqrt(stimuli × neurons)."""
    features, responses = planted(stimuli=200, neurons=60, noise=1.0)
    independent = np.random.default_rng(5)
    shuffled = np.stack([independent.permutation(one) for one in responses.mean(0).T], 1)
    found = held_out(rotated(features), shuffled, folds(200, 5, 0), method=method, components=10)
    assert abs(found.mean()) < 4 / np.sqrt(200 * 60)


@pytest.mark.parametrize(("repeats", "noise"), [(2, 1.0), (9, 2.0), (10, 0.5)])
def test_reliability_is_the_share_of_the_signal(repeats, noise):
    _, responses = planted(stimuli=800, neurons=30, repeats=repeats, noise=noise)
    expected = 1 / (1 + noise**2 / repeats)
    assert reliability(responses, seed=0, halvings=20).mean() == pytest.approx(expected, abs=0.02)


def test_reliability_with_different_numbers_of_repeats():
    _, responses = planted(stimuli=800, neurons=30, repeats=10, noise=1.0)
    count = np.random.default_rng(3).integers(4, 11, 800)
    responses[np.arange(10)[:, None] >= count] = np.nan
    expected = 1 / (1 + np.mean(1 / count))
    assert reliability(responses, seed=0, halvings=20).mean() == pytest.approx(expected, abs=0.02)


def test_noise_has_no_reliability():
    responses = np.random.default_rng(0).normal(size=(6, 400, 40))
    assert reliability(responses, seed=0, halvings=20).mean() < 0.06  # clipped at 0, SD 1 / sqrt(400)


def test_reliability_without_repeats_is_not_known():
    _, responses = planted(repeats=1)
    assert reliability(responses, seed=0) is None
    _, responses = planted(repeats=4)
    responses[1:, 5:] = np.nan
    assert reliability(responses, seed=0) is None


def test_a_constant_has_no_correlation():
    x = np.random.default_rng(0).normal(size=(20, 2))
    y = x * [1, 0] + [0, 3]
    assert correlations(x, y).tolist() == pytest.approx([1, 0])


def test_the_ceiling_of_macaque_v4_is_above_chance(macaque):
    from rulezoo_evaluations import brain_data

    (session,) = brain_data.read(macaque, "v4-cowley").recordings("v4", "210325")
    found = reliability(session.responses, seed=0, halvings=10)
    assert found.min() > 0.4
    assert found.mean() == pytest.approx(0.743, abs=0.01)
