"""A site that is chosen on other data, and the bootstrap over stimuli and subjects."""

import numpy as np
import pytest
from rsatoolbox.inference import eval_dual_bootstrap
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs, compare

from rulezoo_evaluations import controls
from rulezoo_evaluations.dissimilarity import similarities
from rulezoo_evaluations.resampling import Matrices, half_widths, halves, intervals, split

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
    first, second = halves(13, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(13))
    assert abs(len(first) - len(second)) == 1


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
        plain = split(matrices, groups, 4, np.random.default_rng(seed), resample=False)
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
    plain = split(matrices, groups, 10, gen, resample=False)
    chosen = plain.chosen().mean(0)
    untrained = controls.GROUPS.index("untrained")
    assert chosen[0] == chosen[untrained]
    assert intervals(matrices, groups, plain, 30, gen).above[untrained - 1] == 0


@pytest.mark.filterwarnings("ignore:Noise ceiling for tau")
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
    plain = split(matrices, GROUPS, 2, gen, resample=False)
    found = intervals(matrices, GROUPS, plain, draws, gen).models
    assert 2 * found == pytest.approx(high - low, rel=0.2)


def test_intervals_of_one_subject_are_over_stimuli():
    models, measured = related(20, 5, 1, 0)
    gen = np.random.default_rng(0)
    matrices = Matrices.of(models, measured, "corr")
    found = intervals(matrices, GROUPS, split(matrices, GROUPS, 2, gen, resample=False), 100, gen)
    assert (found.models > 0).all()
    assert np.isfinite(found.above).all()


def test_an_interval_has_its_level():
    """Patterns that vary by 1 and nothing else: half the width is Student's t times 1."""
    gen = np.random.default_rng(0)
    patterns = gen.normal(size=(20_000, 1))
    found = half_widths(patterns, np.zeros((2, 1)), patterns, subjects_n=1, stimuli_n=1001)
    assert found[0] == pytest.approx(1.962, rel=0.03)
