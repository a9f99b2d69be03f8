"""The closed forms of `rulezoo.measures.theory` against a slow simulation of noise correlation, in float64.

`estimate` below is the naive estimator: a loop over perturbations, an outer product each. Every stochastic test has a
fixed seed and states its budget, the number of repetitions of an estimate; its tolerance is `SEMS` standard errors of
the mean over those repetitions, and `monte_carlo` refuses a budget so small that the tolerance says nothing.
A failure after a change of the seed alone has a chance below 1e-4; then double the repetitions before anything else.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rulezoo.measures import theory

SEMS = 4  # standard errors of a Monte-Carlo mean: two-sided chance of a false alarm 6e-5
LOOSEST = 0.08  # relative tolerance above which a test would not see what it should: then raise its budget
JVP_SIGMA = 1e-4  # small enough for the cubic term of tanh (1e-8 relative), large against rounding


def estimate(rng, jacobian, k, basis=None, sigma=0.05, response=None):
    """The mean of K outer products of response and noise, over the noise's variance per coordinate: (out, n).

    ``basis`` is (n, d): manifold noise; without it noise on every unit. ``response(xi)`` defaults to the linear one.
    """
    out, n = jacobian.shape
    basis = np.eye(n) if basis is None else basis
    total = np.zeros((out, n))
    for _ in range(k):
        xi = sigma * basis @ rng.standard_normal(basis.shape[1])
        total += np.outer(jacobian @ xi if response is None else response(xi), xi)
    return total / (k * sigma**2)


def monte_carlo(values, loosest=LOOSEST):
    """Mean and tolerance."""
    values = np.asarray(values)
    mean, tolerance = values.mean(), SEMS * values.std(ddof=1) / math.sqrt(len(values))
    assert tolerance < loosest * abs(mean), "too few repetitions for a test with power"
    return mean, tolerance


def orthonormal(rng, n, d):
    return np.linalg.qr(rng.standard_normal((n, d)))[0]


def gradients_with_share(rng, basis, alpha, rows=3):
    """Rows of length n, each with exactly the share alpha of its energy in the span of ``basis``."""
    n, d = basis.shape
    inside = rng.standard_normal((rows, d)) @ basis.T
    outside = rng.standard_normal((rows, n))
    outside -= outside @ basis @ basis.T
    unit_in, unit_out = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (inside, outside))
    return math.sqrt(alpha) * unit_in + math.sqrt(1 - alpha) * unit_out


def energy(x):
    return float((x**2).sum())


def squared_error(found, true):
    return energy(found - true) / energy(true)


def cosine_of(a, b):
    return float((a * b).sum() / math.sqrt(energy(a) * energy(b)))


def leading_order(d, k):
    """What the cosine of (1), (2) may be off, being a ratio of expectations: as `theory.cosine` documents."""
    return max(1 / (4 * k), 1 / (k + d - 1)) * theory.cosine(d, k)


# --- (1), (2): the estimator's mean, error and angle


@pytest.mark.parametrize(("k", "repetitions"), [(16, 1600), (256, 160)])
@pytest.mark.parametrize("alpha", [None, 0.6])
def test_equations_1_and_2_mean_error_and_cosine(k, repetitions, alpha):
    rng = np.random.default_rng(1)
    n, d = 64, 12
    basis = orthonormal(rng, n, d)
    jacobian = gradients_with_share(rng, basis, alpha or 0.6)
    share, dim = (1.0, n) if alpha is None else (alpha, d)
    projector = np.eye(n) if alpha is None else basis @ basis.T
    found = [estimate(rng, jacobian, k, None if alpha is None else basis) for _ in range(repetitions)]

    mean, tolerance = monte_carlo([squared_error(f, jacobian) for f in found], loosest=0.05)
    assert mean == pytest.approx(theory.relative_error(dim, k, share), abs=tolerance)

    # Unbiased for JP: what is left of the mean's error is its own noise, the variance part of the error / repetitions.
    noise = share * (dim + 1) / k / repetitions
    assert squared_error(np.mean(found, axis=0), jacobian @ projector) * share < 2 * noise

    mean, tolerance = monte_carlo([cosine_of(f[0], jacobian[0]) for f in found])
    assert mean == pytest.approx(theory.cosine(dim, k, share), abs=tolerance + leading_order(dim, k))
    assert theory.squared_cosine(dim, k, share) == pytest.approx(theory.cosine(dim, k, share) ** 2)


def test_small_site_shows_the_constants():
    """n = 3, d = 2: d+1 is far from d and d+2. K = 4, 12000 repetitions."""
    rng = np.random.default_rng(21)
    basis = orthonormal(rng, 3, 2)
    row = gradients_with_share(rng, basis, 0.6, rows=1)
    for directions, share in [(basis, 0.6), (np.eye(3), 1.0)]:
        mean, tolerance = monte_carlo(
            [squared_error(estimate(rng, row, 4, directions), row) for _ in range(12_000)]
        )
        assert mean == pytest.approx(theory.relative_error(directions.shape[1], 4, share), abs=tolerance)


@pytest.mark.parametrize("k", [1, 2, 16, 1024])
@pytest.mark.parametrize("d", [2, 12, 64, 4096])
def test_cosine_is_as_close_to_the_mean_as_it_says(k, d):
    exact = stats.beta(k / 2, (d - 1) / 2).expect(np.sqrt)
    assert 1 - 1 / (4 * k) <= exact / theory.cosine(d, k) <= 1 + 1 / (k + d - 1)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_squared_cosine_follows_a_beta_distribution(k):
    """Exact at every K. 1000 repetitions: Kolmogorov-Smirnov sees a shift of the distribution by 0.06."""
    rng = np.random.default_rng(2)
    n, d, alpha, repetitions = 30, 8, 0.5, 1000
    basis = orthonormal(rng, n, d)
    row = gradients_with_share(rng, basis, alpha, rows=1)
    squares = [cosine_of(estimate(rng, row, k, basis), row) ** 2 for _ in range(repetitions)]
    assert stats.kstest(np.array(squares) / alpha, stats.beta(k / 2, (d - 1) / 2).cdf).pvalue > 1e-3
    mean, tolerance = np.mean(squares), SEMS * np.std(squares) / math.sqrt(repetitions)
    assert mean == pytest.approx(theory.mean_squared_cosine(d, k, alpha), abs=tolerance)


def test_one_perturbation_of_one_unit_is_exact_only_in_the_exact_law():
    assert theory.mean_squared_cosine(1, 1) == 1.0
    assert theory.squared_cosine(1, 1) == pytest.approx(1 / 3)


def test_full_rank_manifold_is_vanilla_in_distribution():
    """400 repetitions of each, two-sample Kolmogorov-Smirnov on the error; the random rotation is the only change."""
    rng = np.random.default_rng(3)
    n, k, repetitions = 20, 16, 400
    jacobian, rotation = rng.standard_normal((2, n)), orthonormal(rng, n, n)
    vanilla = [squared_error(estimate(rng, jacobian, k), jacobian) for _ in range(repetitions)]
    manifold = [squared_error(estimate(rng, jacobian, k, rotation), jacobian) for _ in range(repetitions)]
    smaller = [
        squared_error(estimate(rng, jacobian, k, rotation[:, :10]), jacobian) for _ in range(repetitions)
    ]
    assert stats.ks_2samp(vanilla, manifold).pvalue > 1e-3
    assert stats.ks_2samp(vanilla, smaller).pvalue < 1e-6  # the test can tell
    assert theory.matched_sigma(0.3, n, n) == pytest.approx(0.3)


def test_random_subspace_has_chance_share():
    """2000 repetitions, a new random subspace each: mean squared cosine (d/n)/(1+(d+1)/K)."""
    rng = np.random.default_rng(4)
    n, d, k, repetitions = 64, 16, 32, 2000
    row = rng.standard_normal((1, n))
    squares = []
    for _ in range(repetitions):
        basis = orthonormal(rng, n, d)
        squares.append(cosine_of(estimate(rng, row, k, basis), row) ** 2)
    mean, tolerance = monte_carlo(squares)
    assert mean == pytest.approx(theory.mean_squared_cosine(d, k, d / n), abs=tolerance)
    predicted = theory.squared_cosine(d, k, d / n)  # (2) has d+1 where the exact law has d−1: here 4 %
    assert mean == pytest.approx(predicted, abs=tolerance + predicted * 2 / (k + d - 1))
    assert theory.squared_cosine(d, k, d / n) < theory.squared_cosine(n, k)  # no better than vanilla


# --- noise energy and the response


def test_matched_noise_has_equal_energy():
    """4000 draws; the energy of one has relative variance 2/d or 2/n."""
    rng = np.random.default_rng(5)
    n, d, sigma, draws = 50, 8, 0.05, 4000
    basis = orthonormal(rng, n, d)
    manifold = [energy(sigma * basis @ rng.standard_normal(d)) for _ in range(draws)]
    sigma_vanilla = theory.matched_sigma(sigma, d, n)
    vanilla = [energy(sigma_vanilla * rng.standard_normal(n)) for _ in range(draws)]
    for energies in (manifold, vanilla):
        mean, tolerance = monte_carlo(energies)
        assert mean == pytest.approx(sigma**2 * d, abs=tolerance)


def test_antithetic_differences_approach_the_directional_derivative():
    rng = np.random.default_rng(6)
    n, out = 30, 4
    weight, site = rng.standard_normal((out, n)) / math.sqrt(n), rng.standard_normal(n)
    jacobian = (1 - np.tanh(weight @ site) ** 2)[:, None] * weight

    def difference(xi):
        return (np.tanh(weight @ (site + xi)) - np.tanh(weight @ (site - xi))) / 2

    by_difference = estimate(np.random.default_rng(7), jacobian, 16, sigma=JVP_SIGMA, response=difference)
    by_derivative = estimate(np.random.default_rng(7), jacobian, 16, sigma=JVP_SIGMA)
    np.testing.assert_allclose(by_difference, by_derivative, rtol=1e-2)
    too_large = estimate(np.random.default_rng(7), jacobian, 16, sigma=1.0, response=difference)
    assert squared_error(too_large, by_derivative) > 1e-2  # with noise as large as activity it does not hold


def test_antithetic_differences_cancel_even_orders():
    """Quadratic net: exact, whatever the size of the noise; one-sided differences keep the quadratic term."""
    rng = np.random.default_rng(8)
    n, k = 12, 16
    jacobian, site = rng.standard_normal((1, n)), rng.standard_normal(n)
    curvature = rng.standard_normal((n, n))
    curvature += curvature.T

    def net(x):
        return jacobian @ (x - site) + (x - site) @ curvature @ (x - site)

    def both_sides(xi):
        return (net(site + xi) - net(site - xi)) / 2

    def one_side(xi):
        return net(site + xi) - net(site)

    linear, antithetic, one_sided = (
        estimate(np.random.default_rng(9), jacobian, k, sigma=0.5, response=r)
        for r in (None, both_sides, one_side)
    )
    np.testing.assert_allclose(antithetic, linear, rtol=1e-10)
    assert squared_error(one_sided, linear) > 0.1


# --- (3), (4): where vanilla overtakes


def test_equation_3_angles_cross_at_alpha_star():
    """K = 32, 500 repetitions of each: equal at α*, manifold ahead above, vanilla ahead below."""
    rng = np.random.default_rng(10)
    n, d, k, repetitions = 48, 8, 32, 500
    star = theory.crossover_alpha(k, d, n)
    assert star == pytest.approx((k + d + 1) / (k + n + 1))
    basis = orthonormal(rng, n, d)

    def lead(alpha):  # of the manifold, in cosine, with its tolerance
        row = gradients_with_share(rng, basis, alpha, rows=1)
        pairs = [
            (cosine_of(estimate(rng, row, k, basis), row), cosine_of(estimate(rng, row, k), row))
            for _ in range(repetitions)
        ]
        differences = np.subtract(*np.transpose(pairs))
        return differences.mean(), SEMS * differences.std() / math.sqrt(repetitions)

    at, tolerance = lead(star)
    assert at == pytest.approx(0, abs=tolerance + leading_order(d, k))
    above, tolerance = lead(star + 0.1)
    assert above > tolerance
    below, tolerance = lead(star - 0.1)
    assert below < -tolerance


@pytest.mark.parametrize(
    ("crossover", "measure", "better"),
    [
        (theory.crossover_budget, cosine_of, max),
        (theory.error_crossover_budget, squared_error, min),
    ],
    ids=["angle (3)", "error (4)"],
)
def test_order_turns_at_the_crossover_budget(crossover, measure, better):
    """At half the budget K* the manifold wins, at twice vanilla does; 60 repetitions of each."""
    rng = np.random.default_rng(11)
    n, d, alpha, repetitions = 32, 6, 0.6, 60
    basis = orthonormal(rng, n, d)
    row = gradients_with_share(rng, basis, alpha, rows=1)
    star = crossover(alpha, d, n)
    for k, winner in [(round(star / 2), "manifold"), (round(star * 2), "vanilla")]:
        means = {
            "manifold": np.mean([measure(estimate(rng, row, k, basis), row) for _ in range(repetitions)]),
            "vanilla": np.mean([measure(estimate(rng, row, k), row) for _ in range(repetitions)]),
        }
        assert better(means, key=means.get) == winner


def test_crossovers_are_where_the_curves_meet():
    n, d, alpha, rho = 512, 32, 0.3, 1.4
    k = theory.crossover_budget(alpha, d, n, rho)
    assert theory.cosine(d, k, alpha, rho) == pytest.approx(theory.cosine(n, k, 1, rho))
    assert theory.crossover_alpha(k, d, n, rho) == pytest.approx(alpha)
    k = theory.error_crossover_budget(alpha, d, n, rho)
    assert theory.relative_error(d, k, alpha, rho) == pytest.approx(theory.relative_error(n, k, 1, rho))
    assert theory.crossover_alpha(1e-9, d, n) == pytest.approx((d + 1) / (n + 1))
    assert theory.crossover_alpha(math.inf, d, n) == 1


# --- (5), (6): without division by the variance, and all sites at once


def test_equation_5_progress_without_variance_normalisation():
    """K = 1, 20000 perturbations, each an estimate."""
    rng = np.random.default_rng(12)
    n, d, alpha, sigma, repetitions = 40, 10, 0.5, 0.3, 20_000
    basis = orthonormal(rng, n, d)
    row = gradients_with_share(rng, basis, alpha, rows=1)[0]
    for directions, scale, share in [
        (basis, sigma, alpha),
        (np.eye(n), theory.matched_sigma(sigma, d, n), 1.0),
    ]:
        xi = scale * rng.standard_normal((repetitions, directions.shape[1])) @ directions.T
        mean, tolerance = monte_carlo((xi @ row) ** 2 / energy(row))
        assert mean == pytest.approx(theory.covariance_progress(scale**2, share), abs=tolerance)
    assert theory.covariance_progress(theory.matched_sigma(sigma, d, n) ** 2) == pytest.approx(
        sigma**2 * d / n
    )


@pytest.mark.parametrize("manifold", [False, True])
def test_equation_6_all_sites_at_once(manifold):
    """A linear net of two sites with noise of different size; K = 16, 3000 repetitions of the loop."""
    rng = np.random.default_rng(13)
    n, m, k, repetitions = 24, 16, 16, 3000
    sigma, sigma_other = 0.1, 0.17
    upper = rng.standard_normal((1, m))
    lower = (
        upper @ rng.standard_normal((m, n)) / math.sqrt(n)
    )  # the gradient at the lower site, through the upper
    basis, basis_other = (orthonormal(rng, s, 6) if manifold else np.eye(s) for s in (n, m))

    def response(xi):
        return lower @ xi + upper @ (sigma_other * basis_other @ rng.standard_normal(basis_other.shape[1]))

    found = [estimate(rng, lower, k, basis, sigma, response) for _ in range(repetitions)]
    mean, tolerance = monte_carlo([squared_error(f, lower) for f in found])
    d, alpha = basis.shape[1], energy(lower @ basis) / energy(lower)
    own, others = sigma**2 * energy(lower), sigma_other**2 * energy(upper @ basis_other)
    alone, more = theory.relative_error(d, k, alpha), theory.cross_talk(d, k, own, others)
    assert mean == pytest.approx(alone + more, abs=tolerance)
    assert more > 5 * tolerance  # the term is seen


# --- (7): examples whose Jacobians differ


def differing_jacobians(rng, examples, mean, deviation):
    deviations = rng.standard_normal((examples, *mean.shape)) / math.sqrt(mean.shape[1])
    return mean + deviation * (deviations - deviations.mean(0))


@pytest.mark.parametrize("manifold", [False, True])
def test_equation_7_error_about_the_mean_jacobian(manifold):
    """K = 4 random examples, one row, a site so small that constants show; 10000 repetitions."""
    rng = np.random.default_rng(14)
    n, d, k, repetitions = 4, 2, 4, 10_000
    basis = orthonormal(rng, n, d)
    error = np.array([[0.0, 1.0, 0.0]])
    jacobians = differing_jacobians(rng, 20, gradients_with_share(rng, basis, 0.6), 1.4)
    mean_gradient = error @ jacobians.mean(0)
    directions = basis if manifold else np.eye(n)
    rho = theory.jacobian_spread(jacobians @ directions, error)[0]
    alpha = energy(mean_gradient @ directions) / energy(mean_gradient)
    assert 2 < rho < 5  # the case is not the trivial one

    def response(xi):
        return jacobians[rng.integers(len(jacobians))] @ xi

    found = [
        squared_error(error @ estimate(rng, jacobians[0], k, directions, response=response), mean_gradient)
        for _ in range(repetitions)
    ]
    mean, tolerance = monte_carlo(found)
    assert mean == pytest.approx(theory.relative_error(directions.shape[1], k, alpha, rho), abs=tolerance)


def test_spread_and_ceiling_by_loops():
    rng = np.random.default_rng(15)
    jacobians, errors = rng.standard_normal((7, 3, 10)) + 0.5, rng.standard_normal((7, 3))
    mean = sum(jacobians) / 7
    for e, j, rho, angle in zip(
        errors,
        jacobians,
        theory.jacobian_spread(jacobians, errors),
        theory.ceiling_angle(jacobians, errors),
        strict=True,
    ):
        assert rho == pytest.approx(np.mean([energy(e @ other) for other in jacobians]) / energy(e @ mean))
        assert angle == pytest.approx(math.degrees(math.acos(cosine_of(e @ j, e @ mean))))


def test_equal_jacobians_have_no_spread_and_no_ceiling():
    rng = np.random.default_rng(16)
    jacobians, errors = np.tile(rng.standard_normal((3, 10)), (5, 1, 1)), rng.standard_normal((5, 3))
    np.testing.assert_allclose(theory.jacobian_spread(jacobians, errors), 1)
    np.testing.assert_allclose(theory.ceiling_angle(jacobians, errors), 0, atol=1e-5)  # arccos near 1: √eps


@pytest.mark.parametrize("manifold", [False, True])
def test_predicted_angle_composes_ceiling_and_noise(manifold):
    """K = 48, 60 estimates, each against 100 new examples; within 2° of what was measured."""
    rng = np.random.default_rng(17)
    n, d, k = 96, 12, 48
    basis = orthonormal(rng, n, d)
    mean = gradients_with_share(rng, basis, 0.7)
    jacobians, errors = differing_jacobians(rng, 100, mean, 0.6), rng.standard_normal((100, 3))
    directions = basis if manifold else np.eye(n)

    def response(xi):
        return jacobians[rng.integers(100)] @ xi

    measured = []
    for _ in range(60):
        feedback = estimate(rng, mean, k, directions, response=response)
        cosines = [cosine_of(e @ feedback, e @ j) for e, j in zip(errors, jacobians, strict=True)]
        measured.append(np.degrees(np.arccos(cosines)).mean())

    mean_gradients = errors @ jacobians.mean(0)
    alphas = ((mean_gradients @ directions) ** 2).sum(1) / (mean_gradients**2).sum(1)
    rhos = theory.jacobian_spread(jacobians @ directions, errors)
    ceilings = theory.ceiling_angle(jacobians, errors)
    predicted = theory.predicted_angle(directions.shape[1], k, np.minimum(alphas, 1), ceilings, rhos).mean()
    assert np.mean(measured) == pytest.approx(predicted, abs=2)
    without_ceiling = theory.predicted_angle(directions.shape[1], k, np.minimum(alphas, 1), rho=rhos).mean()
    assert predicted - without_ceiling > 3  # the ceiling matters here, so leaving it out would have been seen


def test_infinite_budget_leaves_ceiling_and_manifold():
    assert theory.predicted_angle(512, math.inf, ceiling=24.0) == pytest.approx(24)
    assert theory.predicted_angle(64, math.inf, 0.5) == pytest.approx(45)
    assert theory.predicted_angle(64, math.inf, 1 + 5e-7) == 0  # a share rounded past one in float32


@pytest.mark.parametrize(
    ("n", "k", "vanilla"),
    [
        (512, 128, 63),
        (512, 1024, 35),
        (512, 4992, 18),
        (4096, 1024, 63),
        (24_576, 4992, 66),
        (65_536, 20_000, 61),
    ],
)
def test_angles_of_the_budget_table(n, k, vanilla):
    """Whole degrees, worked out by hand when the equations were derived."""
    assert round(theory.predicted_angle(n, k)) == vanilla


# --- (8): the running average


@pytest.mark.parametrize("updates", [1, 5, 150])
def test_equation_8_variance_of_a_running_average(updates):
    """η = .1, 2 perturbations an update; repetitions scaled to 30000 updates; 150 updates leave 1e-7 of the start."""
    rng = np.random.default_rng(18)
    n, k_step, rate, repetitions = 16, 2, 0.1, max(200, 5000 // updates)
    row = rng.standard_normal((1, n))
    errors = []
    for _ in range(repetitions):
        feedback = np.zeros((1, n))
        for _ in range(updates):
            feedback = (1 - rate) * feedback + rate * estimate(rng, row, k_step)
        errors.append(squared_error(feedback / (1 - (1 - rate) ** updates), row))
    mean, tolerance = np.mean(errors), SEMS * np.std(errors) / math.sqrt(repetitions)
    k_eff = theory.effective_perturbations(k_step, rate, updates)
    assert mean == pytest.approx(theory.relative_error(n, k_eff), abs=tolerance)
    if updates == 1:
        assert k_eff == pytest.approx(k_step)
    if updates == 150:
        assert k_eff == pytest.approx(theory.effective_perturbations(k_step, rate))


# --- (9): the rank


@pytest.mark.parametrize(("k", "best"), [(128, 36), (1024, 101), (5000, 224)])
def test_equation_9_best_rank_of_a_curve(k, best):
    """α(d) = d/(d+10): the optimum is √(10(K+1)), by hand."""
    ranks = np.arange(1, 600)
    assert theory.best_rank(ranks, ranks / (ranks + 10), k) == best == round(math.sqrt(10 * (k + 1)))


def test_best_rank_wins_in_simulation():
    """Candidates 2, 8, 32 and vanilla, K = 24, 300 repetitions of each; the predicted best has the best mean cosine."""
    rng = np.random.default_rng(19)
    n, k, repetitions = 128, 24, 300
    row = np.arange(1, n + 1)[None] ** -0.6  # energy falls along the axes of the basis
    ranks = [2, 8, 32, n]
    alphas = [energy(row[:, :d]) / energy(row) for d in ranks]
    found = [
        np.mean([cosine_of(estimate(rng, row, k, np.eye(n)[:, :d]), row) for _ in range(repetitions)])
        for d in ranks
    ]
    assert theory.best_rank(ranks, alphas, k) == ranks[int(np.argmax(found))]


def test_best_rank_falls_back_to_vanilla_when_appended():
    assert theory.best_rank([8, 64, 512], [0.2, 0.4, 1.0], k=10_000) == 512
    assert theory.best_rank([8, 64, 512], [0.2, 0.4, 1.0], k=16) == 8


# --- what goes in and comes out

ELEMENTWISE = [
    (theory.relative_error, (8.0, 32.0, 0.5, 1.2)),
    (theory.squared_cosine, (8.0, 32.0, 0.5, 1.2)),
    (theory.cosine, (8.0, 32.0, 0.5, 1.2)),
    (theory.mean_squared_cosine, (8.0, 32.0, 0.5)),
    (theory.crossover_alpha, (32.0, 8.0, 64.0, 1.2)),
    (theory.crossover_budget, (0.5, 8.0, 64.0, 1.2)),
    (theory.error_crossover_budget, (0.5, 8.0, 64.0, 1.2)),
    (theory.matched_sigma, (0.05, 8.0, 64.0)),
    (theory.covariance_progress, (0.05, 0.5)),
    (theory.cross_talk, (8.0, 32.0, 0.3, 0.4)),
    (theory.effective_perturbations, (32.0, 0.1, 20.0)),
    (theory.predicted_angle, (8.0, 32.0, 0.5, 20.0, 1.2)),
]


@pytest.mark.parametrize(("formula", "arguments"), ELEMENTWISE, ids=[f.__name__ for f, _ in ELEMENTWISE])
def test_floats_arrays_tensors_and_vmap_agree(formula, arguments):
    expected = formula(*arguments)
    assert type(expected) is float
    for at in range(len(arguments)):  # one argument an array, the others floats
        array = np.full(3, arguments[at])
        mixed = [*arguments[:at], array, *arguments[at + 1 :]]
        np.testing.assert_allclose(formula(*mixed), np.full(3, expected))
        mixed[at] = torch.from_numpy(array)
        torch.testing.assert_close(formula(*mixed), torch.full((3,), expected, dtype=torch.float64))
    stacked = [torch.full((3,), a, dtype=torch.float64) for a in arguments]
    torch.testing.assert_close(
        torch.func.vmap(formula)(*stacked), torch.full((3,), expected, dtype=torch.float64)
    )


def test_jacobian_functions_take_tensors():
    rng = np.random.default_rng(20)
    arrays = rng.standard_normal((7, 3, 10)), rng.standard_normal((7, 3))
    tensors = [torch.from_numpy(a) for a in arrays]
    for function in (theory.jacobian_spread, theory.ceiling_angle):
        np.testing.assert_allclose(function(*tensors).numpy(), function(*arrays))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.relative_error(0, 8), r"d must be at least 1, got 0"),
        (lambda: theory.cosine(8, 0), r"k must be a positive number of perturbations, got 0"),
        (lambda: theory.cosine(8, 8, 1.2), r"alpha must be a share in \[0, 1\], got 1.2"),
        (lambda: theory.cosine(8, 8, math.nan), r"alpha must be a share in \[0, 1\], got nan"),
        (lambda: theory.cosine(8, 8, np.array([0.5, -0.1])), r"alpha must be .* got \[ 0.5 -0.1\]"),
        (lambda: theory.cosine(8, 8, torch.tensor([0.5, 2.0])), r"alpha must be .* got tensor"),
        (lambda: theory.cosine(8, 8, 0.5, rho=0.9), r"rho must be at least 1, got 0.9"),
        (lambda: theory.crossover_alpha(8, 65, 64), r"d must be at most n = 64, got 65"),
        (lambda: theory.crossover_budget(1.0, 8, 64), r"alpha must be a share in \[0, 1\): .* got 1.0"),
        (lambda: theory.matched_sigma(-1, 8, 64), r"sigma must be zero or more, got -1"),
        (lambda: theory.covariance_progress(-1), r"variance must be zero or more, got -1"),
        (lambda: theory.cross_talk(8, 8, 0, 1), r"own must be a positive energy, got 0"),
        (lambda: theory.effective_perturbations(8, 0), r"rate must be in \(0, 1\], got 0"),
        (lambda: theory.effective_perturbations(8, 0.1, 0), r"updates must be at least 1, got 0"),
        (
            lambda: theory.predicted_angle(8, 8, ceiling=91),
            r"ceiling must be an angle in \[0, 90\] degrees, got 91",
        ),
        (lambda: theory.best_rank([], [], 8), r"ranks is empty"),
        (lambda: theory.best_rank([1, 2], [0.5], 8), r"zip\(\) argument 2 is shorter"),
        (lambda: theory.ceiling_angle(np.ones((2, 3, 4)), np.zeros((2, 3))), r"errors must be errors whose"),
        (
            lambda: theory.jacobian_spread(np.ones((2, 3, 4)), np.zeros((2, 3))),
            r"errors must be errors whose",
        ),
    ],
)
def test_values_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
