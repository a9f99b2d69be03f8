"""Random numbers of an example: a known hash, uniform, and a function of seed, epoch and index alone."""

import pytest
import torch
from scipy import stats

from rulezoo.seeding import number
from rulezoo.source import Draw, Source, draw

WORD = (1 << 64) - 1
LIKELY = 1e-4  # a p-value below which numbers are not uniform; about 20 tests with fixed seeds


def splitmix64(z):
    """The output function of splitmix64, in Python's integers."""
    z &= WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def test_keys_are_those_of_splitmix64():
    """Reference values of the generator seeded with 0: its first outputs are known."""
    golden = 0x9E3779B97F4A7C15
    assert [splitmix64(i * golden) for i in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    index = torch.tensor([0, 1, 5, 1_281_166])
    keys = draw(3, 7, index).keys.tolist()
    begin = number(3, "augment", 7)
    assert [k & WORD for k in keys] == [splitmix64(begin + (i + 1) * golden) for i in index.tolist()]


def chi_square(values, bins):
    counts = torch.bincount(values, minlength=bins)
    assert len(counts) == bins
    return stats.chisquare(counts.numpy()).pvalue


@pytest.mark.parametrize("purpose", ["crop: top", "flip", "x"])
def test_numbers_are_uniform_over_examples_epochs_and_seeds(purpose):
    index = torch.arange(100_000)
    one = torch.zeros(1, dtype=torch.int64)
    over = {
        "examples": draw(0, 0, index).uniform(purpose),
        "epochs": torch.cat([draw(0, e, one).uniform(purpose) for e in range(2000)]),
        "seeds": torch.cat([draw(s, 0, one).uniform(purpose) for s in range(2000)]),
        "numbers of an example": draw(0, 0, one).uniform(purpose, 100_000).flatten(),
    }
    for what, u in over.items():
        assert 0 <= float(u.min()) <= float(u.max()) < 1, what
        assert stats.kstest(u.double().numpy(), "uniform").pvalue > LIKELY, what
        pairs = (u[:-1] * 16).long() * 16 + (u[1:] * 16).long()  # neighbours are independent
        if len(u) > 10_000:
            assert chi_square(pairs[::2], 256) > LIKELY, what


def test_whole_numbers_are_uniform_and_in_range():
    drawn = draw(1, 2, torch.arange(90_000))
    for high in (2, 9, 17):
        assert chi_square(drawn.integers("x", high), high) > LIKELY
    assert int(drawn.integers("x", 1).max()) == 0


def test_normal_numbers_are_normal():
    x = draw(0, 0, torch.arange(20_000)).normal("x", 3)
    assert x.shape == (20_000, 3)
    assert stats.kstest(x.double().flatten().numpy(), "norm").pvalue > LIKELY


def test_purposes_seeds_and_epochs_are_independent():
    index = torch.arange(50_000)
    base = draw(0, 0, index).uniform("a")
    for other in (
        draw(0, 0, index).uniform("b"),
        draw(1, 0, index).uniform("a"),
        draw(0, 1, index).uniform("a"),
    ):
        both = (base * 16).long() * 16 + (other * 16).long()
        assert chi_square(both, 256) > LIKELY


def test_numbers_belong_to_the_example_whatever_the_batch():
    index = torch.tensor([7, 3, 11, 3])
    together = draw(0, 4, index).uniform("x", 2, 3)
    for row, i in enumerate(index):
        assert torch.equal(draw(0, 4, i[None]).uniform("x", 2, 3)[0], together[row])
    assert not torch.equal(together[0], together[1])


def test_numbers_can_be_drawn_under_vmap():
    keys = draw(0, 0, torch.arange(6)).keys.view(3, 2)

    def of(keys):
        drawn = Draw(keys)
        return drawn.uniform("a", 2), drawn.integers("b", 5)

    for together, alone in zip(torch.func.vmap(of)(keys), of(keys.flatten()), strict=True):
        assert torch.equal(together.flatten(0, 1), alone)


class Counting(Source):
    """Its example ``i`` is the number ``i``."""

    shape, dtype = (1,), torch.int64

    def __len__(self):
        return 10

    def read(self, index):
        return index[:, None]

    def digest(self):
        return "counting"


def test_a_subset_reads_its_examples_in_its_order():
    part = Counting().subset([4, 2, 9]).subset([2, 0])
    assert len(part) == 2
    assert part.read(torch.tensor([1, 0, 1])).flatten().tolist() == [4, 9, 4]
    assert [x.flatten().tolist() for x in part.stream(torch.tensor([[0, 1], [1, 1]]))] == [[9, 4], [4, 4]]
    assert part.digest() != Counting().subset([9]).digest() != Counting().digest()
    with pytest.raises(IndexError, match="indices reach from 3 to 10; the source has 10 examples"):
        Counting().subset([3, 10])
