"""Dissimilarities, comparators and ceilings, against slow twins and against rsatoolbox on the 92 images."""

from itertools import combinations

import numpy as np
import pytest
from rsatoolbox.inference import eval_fixed
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs
from scipy.stats import rankdata

from rulezoo_evaluations import brain_data
from rulezoo_evaluations.dissimilarity import (
    COMPARATORS,
    DISSIMILARITIES,
    dissimilarities,
    noise_ceiling,
    similarities,
)

EXACT = 1e-9  # float64, sums of a few hundred terms


def slow_cosine(x, y):
    return sum(x * y) / np.sqrt(sum(x * x) * sum(y * y))


def slow_whitened(x, y):
    """The cosine after whitening with the covariance of dissimilarities of independent, equally noisy patterns."""
    n = round((1 + np.sqrt(1 + 8 * len(x))) / 2)
    contrasts = np.zeros((len(x), n))
    for row, (i, j) in enumerate(combinations(range(n), 2)):
        contrasts[row, i], contrasts[row, j] = 1, -1
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    return x @ inverse @ y / np.sqrt((x @ inverse @ x) * (y @ inverse @ y))


def slow_tau_a(x, y):
    pairs = list(combinations(range(len(x)), 2))
    return sum(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs) / len(pairs)


def slow_rho_a(x, y):
    x, y = rankdata(x), rankdata(y)
    return 12 * sum((x - x.mean()) * (y - y.mean())) / (len(x) ** 3 - len(x))


TWINS = {
    "rho-a": slow_rho_a,
    "spearman": lambda x, y: np.corrcoef(rankdata(x), rankdata(y))[0, 1],
    "tau-a": slow_tau_a,
    "corr": lambda x, y: np.corrcoef(x, y)[0, 1],
    "cosine": slow_cosine,
    "corr_cov": lambda x, y: slow_whitened(x - x.mean(), y - y.mean()),
    "cosine_cov": slow_whitened,
}


@pytest.mark.parametrize("comparator", COMPARATORS)
def test_comparators_equal_slow_twins(comparator):
    gen = np.random.default_rng(0)
    models = gen.random((2, 45)).round(1)  # with ties
    measured = gen.random((3, 45))
    slow = [[TWINS[comparator](x, y) for y in measured] for x in models]
    assert similarities(models, measured, comparator) == pytest.approx(np.array(slow), abs=EXACT)


def test_every_comparator_has_a_twin():
    assert set(TWINS) == set(COMPARATORS)


@pytest.mark.parametrize("kind", DISSIMILARITIES)
def test_dissimilarities_equal_a_loop_over_pairs(kind):
    x = np.random.default_rng(0).normal(size=(6, 30))
    slow = {
        "correlation": lambda a, b: 1 - np.corrcoef(a, b)[0, 1],
        "euclidean": lambda a, b: np.mean((a - b) ** 2),
    }[kind]
    found = dissimilarities(x, kind)
    assert found == pytest.approx([slow(a, b) for a, b in combinations(x, 2)], abs=EXACT)


def test_stimuli_to_which_all_units_respond_alike_have_finite_dissimilarities():
    x = np.random.default_rng(0).normal(size=(5, 30))
    x[1], x[3] = 2.0, 0.0
    found = dissimilarities(x, "correlation")
    pairs = dict(zip(combinations(range(5), 2), found, strict=True))
    assert pairs[1, 3] == 0
    assert {pairs[pair] for pair in ((0, 1), (1, 2), (0, 3), (3, 4))} == {1}
    assert pairs[0, 2] == pytest.approx(1 - np.corrcoef(x[0], x[2])[0, 1])


@pytest.mark.parametrize("alive", [0, 1])
@pytest.mark.parametrize("comparator", COMPARATORS)
def test_a_dead_site_is_like_nothing(alive, comparator):
    x = np.zeros((8, 30))
    x[:alive] = np.random.default_rng(0).normal(size=(alive, 30))
    measured = np.random.default_rng(1).random((2, 28))
    found = similarities(dissimilarities(x, "correlation")[None], measured, comparator)
    assert np.isfinite(found).all()
    if not alive:
        assert (found == 0).all()


def subjects(gen, *, number, signal, pairs=300):
    return signal * gen.random(pairs) + gen.random((number, pairs))


@pytest.mark.parametrize("comparator", COMPARATORS)
def test_the_ceiling_equals_a_loop_over_subjects_and_is_above_chance(comparator):
    measured = subjects(np.random.default_rng(0), number=4, signal=1.0)
    lower, upper = noise_ceiling(measured, comparator)
    assert lower <= upper <= 1
    assert lower > 0.2
    if comparator in ("rho-a", "spearman"):
        ranks = np.array([rankdata(one) for one in measured])
        slow = [TWINS[comparator](np.delete(ranks, n, 0).mean(0), measured[n]) for n in range(4)]
        assert lower == pytest.approx(np.mean(slow), abs=EXACT)
        slow = [TWINS[comparator](ranks.mean(0), one) for one in measured]
        assert upper == pytest.approx(np.mean(slow), abs=EXACT)


def test_subjects_with_nothing_in_common_have_a_lower_ceiling_of_chance():
    found = [
        noise_ceiling(subjects(np.random.default_rng(n), number=4, signal=0.0), "spearman")[0]
        for n in range(30)
    ]
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error


def test_one_subject_has_no_ceiling():
    assert np.isnan(noise_ceiling(np.random.default_rng(0).random((1, 45)), "spearman")).all()


PRINTED = {  # by rsatoolbox 0.3.2 from the published files: similarity of the monkeys' to four humans', and its ceiling
    "rho-a": (0.2963, 0.3723, 0.6657),
    "spearman": (0.2963, 0.3723, 0.6657),
    "tau-a": (0.2009, 0.2539, 0.4767),
    "corr": (0.3335, 0.3944, 0.6804),
    "cosine": (0.9884, 0.9881, 0.9933),
    "corr_cov": (0.3656, 0.4298, 0.6958),
    "cosine_cov": (0.6501, 0.6647, 0.8173),
}


@pytest.mark.parametrize("comparator", COMPARATORS)
@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
def test_numbers_of_rsatoolbox_on_the_92_images(objects, comparator):
    data = brain_data.read(objects, "kriegeskorte92")
    monkey = data.recordings("monkey-it")[0].rdms
    human = data.recordings("human-it")[0].rdms
    theirs = eval_fixed(ModelFixed("monkey", monkey[0]), RDMs(human), method=comparator)
    found = similarities(monkey, human, comparator)
    assert found[0] == pytest.approx(theirs.evaluations[0, 0], abs=EXACT)
    ceiling = noise_ceiling(human, comparator)
    assert ceiling == pytest.approx(np.ravel(theirs.noise_ceiling), abs=EXACT)
    assert (found.mean(), *ceiling) == pytest.approx(PRINTED[comparator], abs=5e-5)
    assert 0 < ceiling[0] < ceiling[1] <= 1


@pytest.mark.slow
def test_tau_and_whitened_twins_on_the_92_images(objects):
    data = brain_data.read(objects, "kriegeskorte92")
    monkey, human = (data.recordings(area)[0].rdms[:1] for area in ("monkey-it", "human-it"))
    x, y = monkey[0], human[0]
    signs = [np.sign(x[n] - x[:n]) @ np.sign(y[n] - y[:n]) for n in range(len(x))]
    assert similarities(monkey, human, "tau-a")[0, 0] == pytest.approx(
        2 * sum(signs) / (len(x) * (len(x) - 1))
    )
    assert similarities(monkey, human, "corr_cov")[0, 0] == pytest.approx(TWINS["corr_cov"](x, y), abs=1e-7)
