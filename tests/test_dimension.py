"""Dimension probes on manifolds whose dimension is known, against scikit-learn and against naive loops.

Monte-Carlo tolerances: the maximum-likelihood twoNN has a standard error of d/√N on a flat manifold; `TWO_NN_SEMS` of
them leave room for the neighbours that points share and for curvature.
"""

import math

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.datasets import make_swiss_roll
from sklearn.decomposition import PCA

from rulezoo.measures import dimension

TWO_NN_SEMS = 5


def gaussian(rng, samples, d, n):
    """d equal directions in n."""
    return rng.standard_normal((samples, d)) @ ortho_group.rvs(n, random_state=rng)[:d]


def with_spectrum(rng, eigenvalues, samples=50):
    """Samples whose covariance has exactly these eigenvalues."""
    k = len(eigenvalues)
    centred = rng.standard_normal((samples, k))
    scores = np.linalg.qr(centred - centred.mean(0))[0] * math.sqrt(samples - 1)
    return scores * np.sqrt(eigenvalues) @ ortho_group.rvs(k, random_state=rng) + 3.0


# --- linear dimension


@pytest.mark.parametrize("shape", [(200, 12), (30, 80)], ids=["tall", "wide"])
def test_spectrum_and_counts_agree_with_scikit_learn(shape):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1])) + 5
    pca = PCA(svd_solver="full").fit(x)
    np.testing.assert_allclose(dimension.spectrum(x), pca.explained_variance_, rtol=1e-9, atol=1e-9)
    found = dimension.linear_dimension(x)
    for fraction, count in [(0.90, found.d90), (0.95, found.d95), (0.99, found.d99)]:
        assert count == PCA(n_components=fraction, svd_solver="full").fit(x).n_components_


def test_exact_spectrum():
    """λ = 8, 1, 1: PR = 100/66; 80 % in one, 90 % in two, the rest in three."""
    x = with_spectrum(np.random.default_rng(2), np.array([8.0, 1.0, 1.0]))
    np.testing.assert_allclose(dimension.spectrum(x), [8, 1, 1])
    found = dimension.linear_dimension(x)
    assert found.participation_ratio == pytest.approx(100 / 66)
    assert (found.d90, found.d95, found.d99, found.samples) == (2, 3, 3, 50)


def test_equal_components_count_exactly():
    for n in range(1, 60):
        assert [dimension.components_for(np.full(n, 0.1), k / n) for k in range(1, n + 1)] == list(
            range(1, n + 1)
        )
    assert dimension.components_for(np.full(10, 0.1), 0.91) == 10
    assert dimension.participation_ratio(np.full(10, 0.1)) == pytest.approx(10)
    assert dimension.participation_ratio(np.array([4.0, 0.0])) == 1


def test_order_of_eigenvalues_does_not_matter():
    assert dimension.components_for(np.array([1.0, 1.0, 8.0]), 0.8) == 1


@pytest.mark.parametrize("samples", [50, 1000])
def test_participation_ratio_of_a_gaussian(samples):
    """Wishart moments: E PR ≈ dN/(N+d+1), N = samples − 1. 20 repetitions, 4 standard errors and 1 % of Jensen."""
    rng = np.random.default_rng(3)
    d, n, dof = 20, 60, samples - 1
    ratios = [dimension.linear_dimension(gaussian(rng, samples, d, n)).participation_ratio for _ in range(20)]
    expected = d * dof / (dof + d + 1)
    assert np.mean(ratios) == pytest.approx(
        expected, abs=4 * np.std(ratios) / math.sqrt(20) + 0.01 * expected
    )


def test_input_is_not_modified_and_may_be_float32():
    x = np.random.default_rng(4).standard_normal((40, 6)).astype(np.float32) + 100
    before = x.copy()
    found = dimension.linear_dimension(x), dimension.two_nn(x)
    np.testing.assert_array_equal(x, before)
    assert found == (dimension.linear_dimension(x.astype(float)), dimension.two_nn(x.astype(float)))
    assert all(type(v) in (int, float) for f in found for v in vars(f).values())


# --- twoNN


def naive_two_nn(x, fraction):
    ratios = []
    for i, point in enumerate(x):
        others = sorted(math.dist(point, other) for j, other in enumerate(x) if j != i)
        ratios.append(others[1] / others[0])
    ratios.sort()
    pairs = [
        (math.log(mu), -math.log(1 - i / len(x))) for i, mu in enumerate(ratios, 1) if i <= fraction * len(x)
    ]
    fit = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
    return fit, len(x) / sum(math.log(mu) for mu in ratios)


@pytest.mark.parametrize("units", [4, 40], ids=["tree", "brute force"])  # scikit-learn changes over at 15
@pytest.mark.parametrize("fraction", [0.9, 0.5])
def test_two_nn_agrees_with_the_naive_loop(units, fraction):
    x = np.random.default_rng(5).standard_normal((100, units)) + 10
    found = dimension.two_nn(x, fraction)
    assert (found.fit, found.mle) == pytest.approx(naive_two_nn(x, fraction))
    assert (found.samples, found.dropped) == (100, 0)


def test_two_nn_keeps_its_precision_among_far_clusters():
    """Distances of one, norms of 1e6: differences of squared norms would be wrong in the fifth digit."""
    rng = np.random.default_rng(12)
    x = rng.standard_normal((60, 40)) + np.repeat([[-1e6], [1e6]], 30, axis=0)
    assert dimension.two_nn(x).fit == pytest.approx(naive_two_nn(x, 0.9)[0], rel=1e-8)


def sphere(rng, samples):
    x = rng.standard_normal((samples, 4))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def coil(rng, samples):
    """A curve, rolled up: one dimension in a plane, drawn evenly along its angle."""
    t = rng.uniform(math.pi, 4 * math.pi, samples)
    return np.stack([t * np.cos(t), t * np.sin(t)], axis=1)


@pytest.mark.parametrize(
    ("manifold", "intrinsic", "linear"),
    [
        (lambda rng, n: gaussian(rng, n, 5, 30), 5, 5),
        (sphere, 3, 4),
        (coil, 1, 2),
        (lambda rng, n: make_swiss_roll(n, random_state=6)[0], 2, 3),
    ],
    ids=["gaussian", "hyper-sphere", "coil", "swiss roll"],
)
def test_known_manifolds(manifold, intrinsic, linear):
    """N = 2000 points of one draw."""
    rng = np.random.default_rng(6)
    x = manifold(rng, 2000)
    x = np.pad(x, ((0, 0), (0, 20))) @ ortho_group.rvs(
        x.shape[1] + 20, random_state=rng
    )  # a rotation changes nothing
    found = dimension.two_nn(x)
    tolerance = TWO_NN_SEMS * intrinsic / math.sqrt(2000)
    assert found.mle == pytest.approx(intrinsic, abs=tolerance)
    assert found.fit == pytest.approx(intrinsic, abs=tolerance)
    assert dimension.linear_dimension(x).d99 == linear


@pytest.mark.parametrize("units", [4, 40], ids=["tree", "brute force"])
def test_duplicates_count_once(units):
    x = np.random.default_rng(7).standard_normal((300, units)) + 10
    repeated = dimension.two_nn(np.concatenate([x, x[:50], x[:20]]))
    once = dimension.two_nn(x)
    assert (repeated.samples, repeated.dropped) == (300, 70)
    assert (repeated.fit, repeated.mle) == pytest.approx((once.fit, once.mle))


def test_ties_are_dropped():
    """The corners of the square have both neighbours at distance one."""
    x = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [5, 0], [5.5, 0], [7, 0]])
    found = dimension.two_nn(x)
    assert (found.samples, found.dropped) == (3, 4)


def test_blocks_are_nested_and_cover_all_samples():
    x = np.random.default_rng(8).standard_normal((1001, 3))
    blocks = dimension.two_nn_blocks(x, np.random.default_rng(0), smallest=100)
    assert [(b.size, len(b.fits)) for b in blocks] == [(1001, 1), (500, 2), (250, 4), (125, 8)]
    assert blocks[0].mean == pytest.approx(dimension.two_nn(x).fit)
    assert math.isnan(blocks[0].sd)
    assert blocks[1].sd == pytest.approx(abs(blocks[1].fits[0] - blocks[1].fits[1]) / math.sqrt(2))
    assert blocks == dimension.two_nn_blocks(x, np.random.default_rng(0), smallest=100)


def test_blocks_are_random_subsamples():
    """A line followed by a cube: the order of the samples must not show."""
    rng = np.random.default_rng(13)
    x = np.concatenate([rng.uniform(0, 1, (400, 3)) * [1, 0, 0], rng.uniform(0, 1, (400, 3)) + 5])
    one, two = dimension.two_nn_blocks(x, rng, smallest=400)[1].fits
    assert abs(one - two) < 0.5


def test_blocks_show_that_noise_is_seen_at_small_scales():
    """A line with noise in 10 dimensions: flat at few points, thick at many."""
    rng = np.random.default_rng(9)
    line = np.pad(rng.uniform(0, 100, (4000, 1)), ((0, 0), (0, 9)))
    noisy = dimension.two_nn_blocks(line + 0.03 * rng.standard_normal(line.shape), rng, smallest=60)
    clean = dimension.two_nn_blocks(line, rng, smallest=60)
    assert noisy[0].mean > noisy[-1].mean + 1
    assert clean[0].mean == pytest.approx(clean[-1].mean, abs=0.2)


# --- principal angles


def test_principal_angles_of_a_rotated_plane():
    turn = np.radians(30)
    a = np.eye(4)[:, :2]
    b = np.array([[1, 0], [0, math.cos(turn)], [0, math.sin(turn)], [0, 0]]) @ [
        [2.0, 1.0],
        [0.0, 3.0],
    ]  # any basis
    found = dimension.principal_angles(a, b)
    assert found.degrees == pytest.approx((0, 30), abs=1e-6)
    assert found.overlap == pytest.approx((1 + 0.75) / 2)
    assert found.chance == 0.5
    assert dimension.principal_angles(a, np.eye(4)[:, 2:]).degrees == pytest.approx((90, 90))
    assert dimension.principal_angles(a[:, :1], a) == dimension.principal_angles(a, a[:, :1])
    assert dimension.principal_angles(a[:, :1], a).overlap == 1  # contained


def test_overlap_of_random_subspaces_is_chance():
    """200 repetitions, 4 standard errors."""
    rng = np.random.default_rng(10)
    found = [
        dimension.principal_angles(rng.standard_normal((40, 4)), rng.standard_normal((40, 10)))
        for _ in range(200)
    ]
    overlaps = [f.overlap for f in found]
    assert found[0].chance == 0.25
    assert len(found[0].degrees) == 4
    assert found[0].degrees == tuple(sorted(found[0].degrees))
    assert np.mean(overlaps) == pytest.approx(0.25, abs=4 * np.std(overlaps) / math.sqrt(200))


# --- bad input

X = np.random.default_rng(11).standard_normal((100, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dimension.linear_dimension(X[:1]),
            r"x must have at least 2 samples \(rows\), got shape \(1, 5\)",
        ),
        (lambda: dimension.two_nn(X[:2]), r"x must have at least 3 samples \(rows\), got shape \(2, 5\)"),
        (
            lambda: dimension.linear_dimension(np.full((9, 5), 0.1)),
            r"no variance: its 9 samples are all the same",
        ),
        (lambda: dimension.two_nn(np.full((9, 5), 0.1)), r"no variance"),
        (
            lambda: dimension.linear_dimension(X[0]),
            r"x must be a matrix \(samples, units\), got shape \(5,\)",
        ),
        (lambda: dimension.linear_dimension(X[:, :0]), r"x must be a matrix .* got shape \(100, 0\)"),
        (lambda: dimension.two_nn(np.where(X > 2, np.nan, X)), r"x must be finite, got \d+ inf or nan"),
        (
            lambda: dimension.two_nn(np.repeat(X[:2], 9, axis=0)),
            r"x has 2 different samples of 18; twoNN needs",
        ),
        (lambda: dimension.two_nn(np.eye(9)), r"x has 0 usable points among 9 different ones"),
        (lambda: dimension.two_nn(X, fraction=1), r"fraction of the ratios must be in \(0, 1\), got 1"),
        (
            lambda: dimension.components_for(np.ones(3), 90),
            r"fraction of the variance must be in \(0, 1\], got 90",
        ),
        (lambda: dimension.participation_ratio(np.zeros(3)), r"eigenvalues must be finite and not negative"),
        (
            lambda: dimension.participation_ratio(np.array([1.0, -1.0])),
            r"eigenvalues must be .* got \[ 1. -1.\]",
        ),
        (
            lambda: dimension.two_nn_blocks(X, np.random.default_rng(0), smallest=101),
            r"smallest must be from 3 to the 100 samples of x, got 101",
        ),
        (lambda: dimension.principal_angles(X, X[:50]), r"equally many rows, got \(100, 5\) and \(50, 5\)"),
        (
            lambda: dimension.principal_angles(X, X[:, [0, 0]]),
            r"b must have independent columns, got rank 1 of 2",
        ),
        (
            lambda: dimension.principal_angles(X[:, 0], X),
            r"a must be a matrix \(n, dimensions\), got shape \(100,\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
