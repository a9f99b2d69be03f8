"""A site that is chosen on other data, and the bootstrap over stimuli and subjects."""

import numpy as np
import pytest
from rsatoolbox.inference import eval_dual_bootstrap
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs, compare

from rulezoo_evaluations import controls
from rulezoo_evaluations.dissimilarity import similarities
from rulezoo_evaluations.resampling import Matrices, Variances, halves, intervals, resampled, split

GROUPS = ("network", "network", "untrained", "pixels", "luminance")


def pairs(stimuli, rows, seed):
    return np.random.default_rng(seed).random((rows, stimuli * (stimuli - 1) // 2))


def related(stimuli, models, subjects, seed):
    """Dissimilarities of models and subjects with something in common."""
    common = pairs(stimuli, 1, seed)
    return common + pairs(stimuli, models, seed + 1), common + pairs(stimuli, subjects, seed + 2)


def test_similarities_among_all_stimuli_are_those_of_all_pairs():
    models, measured = related(12, 2, 3, 0)
    found = Matrices.of(models, measured, "spearman").among(np.arange(12))
    assert found == pytest.approx(similarities(models, measured, "spearman"))


@pytest.mark.parametrize("comparator", ["rho-a", "tau-a", "corr", "cosine_cov"])
def test_a_bootstrap_sample_is_that_of_rsatoolbox(comparator):
    models, measured = related(12, 2, 3, 0)
    drawn = np.random.default_rng(1).integers(0, 12, 12)
    assert len(set(drawn)) < 12
    theirs = [RDMs(some).subsample_pattern("index", drawn) for some in (models, measured)]
    found = Matrices.of(models, measured, comparator).among(drawn)
    assert found == pytest.approx(compare(*theirs, comparator))


def test_halves_have_no_stimulus_in_common():
    first, second = halves(np.arange(13), np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(13))
    assert abs(len(first) - len(second)) == 1


def test_copies_of_a_stimulus_are_in_the_same_half():
    gen = np.random.default_rng(0)
    for _ in range(20):
        drawn = resampled(9, gen)
        first, second = halves(drawn, gen)
        assert sorted([*first, *second]) == sorted(drawn)
        assert not set(first) & set(second)
        assert min(len(set(first)), len(set(second))) >= 3


def test_what_is_reported_is_of_the_candidate_that_the_other_half_chose():
    choice = np.array([0.1, 0.2, 0.0, 0.5, 0.5])
    report = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert controls.report_chosen(GROUPS, choice, report).tolist() == [2, 4, 5, 3]


def test_a_chosen_site_has_no_advantage_by_chance():
    """The best of 20 unrelated sites is above 0 where it was chosen, and at 0 where it was not."""
    groups = ("network",) * 20 + ("untrained", "pixels", "luminance")
    fair, unfair = [], []
    for seed in range(40):
        matrices = Matrices.of(pairs(20, 23, seed), pairs(20, 2, 1000 + seed), "corr")
        plain = split(matrices, groups, 4, np.random.default_rng(seed))
        fair.append(plain.chosen().mean(0)[0])
        unfair.append(matrices.among(np.arange(20)).mean(-1)[:20].max())
    error = np.std(fair, ddof=1) / np.sqrt(len(fair))
    assert abs(np.mean(fair)) < 4 * error
    assert np.mean(unfair) > 0.08


def test_candidates_that_are_the_same_differ_by_exactly_nothing():
    models, measured = related(16, 3, 4, 0)
    models = models[[0, 1, 0, 1, 2]]
    groups = ("network", "network", "untrained", "untrained", "pixels")
    matrices = Matrices.of(np.concatenate([models, models[:1]]), measured, "rho-a")
    groups = (*groups, "luminance")
    gen = np.random.default_rng(0)
    plain = split(matrices, groups, 10, gen)
    chosen = plain.chosen().mean(0)
    untrained = controls.GROUPS.index("untrained")
    assert chosen[0] == chosen[untrained]
    assert intervals(matrices, groups, plain, 30, gen).above[untrained - 1] == 0


@pytest.mark.slow
def test_intervals_are_those_of_the_dual_bootstrap_of_rsatoolbox():
    """Two estimates of an SD from 400 samples each differ by 0.05 (SD), relative; four of them are allowed."""
    draws = 400
    models, _ = related(20, 5, 1, 0)
    unlike = np.array([[0.0], [0.5], [2.0]])  # subjects differ, so that resampling them matters
    measured = unlike * pairs(20, 1, 0) + pairs(20, 3, 2)
    np.random.seed(0)  # noqa: NPY002  rsatoolbox draws from the global generator
    theirs = eval_dual_bootstrap(
        [ModelFixed(f"m{n}", one) for n, one in enumerate(models)], RDMs(measured), method="corr", N=draws
    )
    low, high = theirs.get_ci(0.95)
    gen = np.random.default_rng(0)
    matrices = Matrices.of(models, measured, "corr")
    plain = split(matrices, GROUPS, 2, gen)
    found = intervals(matrices, GROUPS, plain, draws, gen).models
    assert 2 * found == pytest.approx(high - low, rel=0.2)


def test_intervals_of_one_subject_are_over_stimuli():
    models, measured = related(20, 5, 1, 0)
    gen = np.random.default_rng(0)
    matrices = Matrices.of(models, measured, "corr")
    found = intervals(matrices, GROUPS, split(matrices, GROUPS, 2, gen), 100, gen)
    assert (found.models > 0).all()
    assert np.isfinite(found.above).all()


@pytest.mark.slow
def test_the_interval_of_the_headline_is_without_the_noise_of_a_single_split():
    """The SD over 400 bootstrap samples of the average of 40 splits, and the estimate from 4 splits of other 400.

    A split adds about 6 times the variance. So the variance of the mean of 4 is 2.5 times too large, and its estimate has an
    SD of 2.5 × sqrt(2 / 400) of what is left: the SD is known to 0.09, and twice that and the bias of 40 are allowed.
    """
    groups = ("network",) * 6 + GROUPS[2:]
    models, measured = related(14, 9, 1, 0)
    matrices, gen = Matrices.of(models, measured, "corr"), np.random.default_rng(0)
    plain = split(matrices, groups, 10, gen)
    drawn = [split(matrices, groups, 40, gen, resampled(14, gen)) for _ in range(400)]
    averages = np.array([one.above().mean(0) for one in drawn])
    single = np.array([one.above()[0] for one in drawn])
    expected = Variances(*[averages.var(0, ddof=1)] * 3).half_widths(subjects=1, stimuli=14)
    with_noise = Variances(*[single.var(0, ddof=1)] * 3).half_widths(subjects=1, stimuli=14)
    found = intervals(matrices, groups, plain, 400, gen).above
    assert (with_noise > 2 * expected).all()
    assert found == pytest.approx(expected, rel=0.27)


def test_an_interval_has_its_level():
    """Half the width is Student's t times the SD."""
    found = Variances(np.ones(1), np.zeros(1), np.ones(1)).half_widths(subjects=1, stimuli=1001)
    assert found[0] == pytest.approx(1.962 * np.sqrt(1001 / 1000), rel=1e-3)
