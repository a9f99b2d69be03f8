"""The manifold of activity, held to scikit-learn's PCA and to the definition, in float64 where nothing else is said."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch.overrides import TorchFunctionMode

from rulezoo import manifold
from rulezoo_plugins.shared.in_manifold import InManifold

SHAPES = {"fewer samples than units": (9, 14), "as many": (10, 10), "more": (40, 12)}


def activity(samples, units, seed=0, dtype=torch.float64):
    """Correlated, off the origin, with well separated variances."""
    gen = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, units, generator=gen, dtype=torch.float64) * 0.7 ** torch.arange(units)
    mixing = torch.linalg.qr(torch.randn(units, units, generator=gen, dtype=torch.float64)).Q
    return (z @ mixing.T + torch.randn(units, generator=gen, dtype=torch.float64)).to(dtype)


def aligned(basis, directions):
    """|cosine| of each pair of columns."""
    return (basis * directions).sum(0).abs()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_directions_and_their_order_are_scikit_learns(shape):
    rows = activity(*shape)
    rank = 6

    basis = manifold.principal_basis(rows, rank)

    oracle = torch.from_numpy(PCA(rank).fit(rows.numpy()).components_).T
    torch.testing.assert_close(
        aligned(basis, oracle), torch.ones(rank, dtype=torch.float64), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_uncentred_directions_are_singular_vectors(shape):
    rows = activity(*shape)

    basis = manifold.principal_basis(rows, 6, centred=False)

    oracle = torch.linalg.svd(rows).Vh[:6].T
    torch.testing.assert_close(aligned(basis, oracle), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-10)
    mean = rows.mean(0) / rows.mean(0).norm()
    assert aligned(basis[:, 0], mean) > 0.9  # the mean of this data is its largest direction


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_columns_are_orthonormal_and_the_largest_entry_of_each_is_positive(shape):
    basis = manifold.principal_basis(activity(*shape), 5)

    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_signs_do_not_depend_on_the_order_of_the_examples():
    rows = activity(9, 14)

    basis = manifold.principal_basis(rows, 5)
    again = manifold.principal_basis(rows.flip(0), 5)

    torch.testing.assert_close(again, basis, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("centred", "directions"), [(True, 4), (False, 5)])
def test_directions_that_the_data_lack_are_columns_of_zeros(centred, directions):
    rows = activity(5, 12)

    basis = manifold.principal_basis(rows, 8, centred=centred)

    assert basis.shape == (12, 8)
    assert (basis[:, directions:] == 0).all()
    torch.testing.assert_close(
        basis[:, :directions].T @ basis[:, :directions],
        torch.eye(directions, dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )
    torch.testing.assert_close(
        manifold.dimensions(basis), torch.tensor(float(directions), dtype=torch.float64)
    )


def test_flat_data_in_many_examples_have_few_dimensions():
    rows = activity(50, 3) @ torch.randn(
        3, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )

    assert float(manifold.dimensions(manifold.principal_basis(rows, 12))) == pytest.approx(3)


@pytest.mark.parametrize(
    "rows", [torch.zeros(6, 10), torch.full((6, 10), 0.3), torch.rand(1, 10)], ids=["0", "0.3", "one"]
)
def test_activity_that_does_not_vary_has_no_manifold(rows):
    basis = manifold.principal_basis(rows, 4)

    assert (basis == 0).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("variance", [0.3, 0.8, 0.95, 1.0])
def test_a_fraction_of_the_variance_keeps_the_fewest_directions_that_reach_it(shape, variance):
    rows = activity(*shape)
    most = min(shape)

    basis = manifold.principal_basis(rows, most, variance=variance)

    explained = PCA(most).fit(rows.numpy()).explained_variance_ratio_
    wanted = next((k for k in range(1, most + 1) if explained[:k].sum() >= variance - 1e-12), most)
    assert round(float(manifold.dimensions(basis))) == wanted


def test_float32_keeps_orthogonality_where_variances_differ_by_a_million():
    """Gram PCA divides by the square root of the variance, which blows up the rounding of the small directions."""
    samples, units, rank = 64, 200, 13
    gen = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(samples, rank, generator=gen, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(units, rank, generator=gen, dtype=torch.float64)).Q
    variances = 10.0 ** -torch.linspace(0, 6, rank, dtype=torch.float64)
    rows = (left * variances.sqrt() @ right.T).float()

    basis = manifold.principal_basis(rows, rank, centred=False)

    kept = basis.square().sum(0).round()
    torch.testing.assert_close(basis.T @ basis, torch.diag(kept), rtol=0, atol=1e-5)
    above_rounding = variances > 10 * samples * torch.finfo(torch.float32).eps
    assert kept[above_rounding].all()
    assert (aligned(basis[:, above_rounding].double(), right[:, above_rounding]) > 0.99).all()


@pytest.mark.parametrize(("samples", "units"), [(8, 16), (16, 8)], ids=["fewer samples than units", "more"])
def test_the_eigenvectors_of_float32_activity_are_found_in_double(samples, units):
    """Variances 1e6 : 9 : 4, in directions that are known, of activity whose products are exact in float32.

    The two small eigenvalues lie 5e-6 of the largest apart. An eigendecomposition in float32, which errs by a few 1e-7
    of the largest, would turn their directions by some percent; what rounding to float32 leaves is 1e-6.
    """
    left, right = hadamard(samples)[:, 1:4], hadamard(units)[:, 1:4]
    rows = left @ torch.diag(torch.tensor([1000.0, 3.0, 2.0], dtype=torch.float64)) @ right.T

    for centred in (True, False):  # the mean is zero
        basis = manifold.principal_basis(rows.float(), 3, centred=centred)

        cosines = basis.double().T @ right / units**0.5
        torch.testing.assert_close(cosines.abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-5)


def hadamard(size):
    """An orthogonal matrix of ones and minus ones; the first column is all ones."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1, 1], [1, -1]], dtype=torch.float64), matrix)
    return matrix


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_vmap_is_the_loop(shape):
    rows = torch.stack([activity(*shape, seed=seed) for seed in range(3)])

    together = torch.func.vmap(lambda r: manifold.principal_basis(r, 6, variance=0.99))(rows)

    alone = torch.stack([manifold.principal_basis(r, 6, variance=0.99) for r in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


class AtMost(TorchFunctionMode):
    """Fails as soon as a function returns a tensor with more entries (and before anything is made of it)."""

    def __init__(self, entries):
        super().__init__()
        self.entries = entries

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else [result]:
            assert not isinstance(tensor, torch.Tensor) or tensor.numel() <= self.entries
        return result


def test_a_wide_site_never_meets_a_square_matrix_of_its_width():
    samples, units = 32, 16_384
    rows = torch.randn(samples, units, generator=torch.Generator().manual_seed(0))

    with AtMost(samples * units):  # the activity itself, centred
        basis = manifold.principal_basis(rows, 8)

    assert basis.shape == (units, 8)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_site_that_is_read_in_chunks_and_parts_has_the_same_basis(monkeypatch, shape, centred):
    rows = activity(*shape)
    whole = manifold.principal_basis(rows, 5, centred=centred)
    parts = manifold.principal_basis([rows[:2], rows[2:7], rows[7:]], 5, centred=centred)
    monkeypatch.setattr(manifold, "_CHUNK", 3 * len(rows))  # three units at a time

    chunks = manifold.principal_basis([rows[:4], rows[4:]], 5, centred=centred)

    assert torch.equal(parts, whole)
    torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-9)


def test_no_second_copy_is_made_of_the_activity_of_a_very_wide_site(monkeypatch):
    samples, units, chunk = 32, 16_384, 2**16
    monkeypatch.setattr(manifold, "_CHUNK", chunk)
    gen = torch.Generator().manual_seed(0)
    parts = [torch.randn(samples // 2, units, generator=gen) for _ in range(2)]

    with AtMost(max(chunk, units * 3)):  # a chunk, or the basis; the activity has 2**19 entries
        manifold.principal_basis(parts, 3)


@pytest.mark.parametrize(("rank", "variance"), [(0, 1.0), (13, 1.0), (3, 0.0), (3, 1.5)])
def test_impossible_requests_are_refused(rank, variance):
    with pytest.raises(ValueError, match=r"rank must lie between 1 and the 12 units|variance must lie in"):
        manifold.principal_basis(activity(9, 12), rank, variance=variance)


# --------------------------------------------------------------------------------------------------------------------
# Rules that perturb in the manifold


def test_patches_are_thinned_over_the_whole_image():
    """16 images of 8 x 8 patches, 64 of which are kept: not one column, as with every 16th patch, nor one image."""
    images, rows, columns = torch.meshgrid(torch.arange(16), torch.arange(8), torch.arange(8), indexing="ij")
    patches = torch.stack([images, rows, columns], -1).view(-1, 3).double()

    kept = InManifold(samples=64, rank=1).first_manifold({"conv": patches})["recent.conv.0"]

    assert len(kept) == 64
    for place, size in enumerate((16, 8, 8)):
        counts = torch.bincount(kept[:, place].long(), minlength=size)
        assert counts.min() >= 64 / size / 2
        assert counts.max() <= 64 / size * 2


def test_few_activities_are_kept_as_they_are():
    rows = activity(9, 14)

    buffers = InManifold(samples=20, rank=2).first_manifold({"a": rows})

    assert [name for name in buffers if name.startswith("recent")] == [
        "recent.a.0",
        "recent.a.1",
        "recent.a.2",
    ]
    assert torch.equal(buffers["recent.a.2"], rows)
    assert torch.equal(buffers["basis.a"], manifold.principal_basis(rows, 2))


def test_activity_is_looked_at_only_on_the_steps_before_a_refresh():
    """Three slots of 9 rows; the manifold is found after the first three steps, and every ten from then on."""
    rule = InManifold(samples=20, rank=2, refresh=10)
    activities = [activity(9, 14, seed=t) for t in range(32)]
    buffers, looked, found = rule.first_manifold({"a": activities[0]}), [], []
    for t, rows in enumerate(activities):
        before = buffers["basis.a"]

        def look(t=t, rows=rows):
            looked.append(t)
            return {"a": rows}

        buffers = rule.followed_manifold(buffers, t, look)
        if not torch.equal(buffers["basis.a"], before):
            found.append(t)

    assert looked == [0, 1, 2, 7, 8, 9, 17, 18, 19, 27, 28, 29]
    assert found == [3, 10, 20, 30]
    assert torch.equal(buffers["basis.a"], manifold.principal_basis(torch.cat(activities[27:30]), 2))


@pytest.mark.parametrize("columns", [None, 5])
def test_the_scale_of_noise_gives_it_the_energy_that_is_asked_for(columns):
    """In as many dimensions as the basis spans: a column of zeros takes none of it."""
    x = activity(9, 14)
    basis = None if columns is None else torch.linalg.qr(activity(14, 8)).Q * (torch.arange(8) < columns)
    directions = 14 if columns is None else columns

    scale = manifold.noise_scale(x, 0.3, basis)

    energy = 0.3**2 * x.square().sum(1).mean()
    torch.testing.assert_close(directions * scale**2, energy, rtol=1e-12, atol=0)
    torch.testing.assert_close(manifold.noise_energy(x, 0.3), energy, rtol=1e-12, atol=0)


def test_a_silent_site_is_perturbed_a_little():
    assert 0 < float(manifold.noise_scale(torch.zeros(3, 4), 0.1)) < 1e-3
