import pytest
import torch

from rulezoo import OptionError
from rulezoo_tasks.adding import LEVELS, AddingRNN, targets


def slow_targets(x, first, second):
    y = torch.zeros_like(x)
    for n in range(x.shape[0]):
        for t in range(x.shape[1]):
            y[n, t] = 0.5
            if t >= first:
                y[n, t] += 0.5 * x[n, t - first]
            if t >= second:
                y[n, t] -= 0.25 * x[n, t - second]
    return y


@pytest.mark.parametrize(("first", "second"), [(2, 5), (0, 1), (7, 24)])
def test_targets_equal_the_slow_loop(first, second):
    x = AddingRNN().data(None).validation.x[:20]
    assert torch.equal(targets(x, first, second), slow_targets(x, first, second))


def test_options_choose_the_coins():
    data = AddingRNN(first=3, second=8).data(None)
    assert torch.equal(data.test.x, AddingRNN().data(None).test.x)
    for part in data:
        assert torch.equal(part.y, targets(part.x, 3, 8))


def test_sizes_and_coins():
    data = AddingRNN().data(None)
    assert [tuple(part.x.shape) for part in data] == [(2000, 25, 1), (500, 25, 1), (1000, 25, 1)]
    for part in data:
        assert part.y.shape == part.x.shape
        assert set(part.x.unique().tolist()) == {0.0, 1.0}
        assert part.x.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / part.x.numel() ** 0.5)


def test_where_it_counts_the_four_levels_are_equally_frequent():
    """Binomial: 40,000 of them, p = 1/4; neighbours share coins, hence 8 standard errors."""
    y = AddingRNN().data(None).train.y[:, 5:]
    assert set(y.unique().tolist()) == set(LEVELS)
    for level in LEVELS:
        share = (y == level).float().mean().item()
        assert share == pytest.approx(0.25, abs=8 * (3 / 16 / y.numel()) ** 0.5)


def test_the_data_are_those_of_version_1():
    """A change here changes every result: raise the version of the task."""
    data = AddingRNN().data(None)
    assert [int(part.x.sum()) for part in data] == [24962, 6328, 12435]
    assert data.test.x[0].flatten().int().tolist() == [
        1,
        1,
        0,
        1,
        1,
        1,
        1,
        1,
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        1,
        0,
        1,
        0,
        1,
        0,
        0,
        1,
        1,
        0,
    ]


def test_loss_and_score_by_hand():
    task = AddingRNN()
    target = torch.full((2, 25, 1), 0.75, dtype=torch.float64)
    output = target.clone()
    output[0, :5] = 100.0  # before the second coin can be known: does not count
    output[1, 5:10] += 0.2  # a quarter of the 20 steps that count: nearer to 1
    output[1, 10:15] -= 0.1  # another: still nearest to 0.75
    torch.testing.assert_close(
        task.loss(output, target), torch.tensor([0.0, (0.2**2 + 0.1**2) / 4], dtype=torch.float64)
    )
    assert task.score(output, target).tolist() == [1.0, 0.75]


@pytest.mark.parametrize(("known", "score"), [((), 0.25), (("first",), 0.5), (("first", "second"), 1.0)])
def test_the_score_tells_how_many_coins_are_remembered(known, score):
    """Best guesses without the others, by squared error; 4 standard errors of the mean over 1,000 sequences."""
    task = AddingRNN()
    x, y = task.data(None).test
    # Halfway between two levels it has to choose one, so a guess stands a little above the mean of its levels.
    output = torch.full_like(y, 0.5 + 1e-3)
    for name, size, mean in (("first", 0.5, 0.25), ("second", -0.25, -0.125)):
        lag = getattr(task, name)
        coin = torch.nn.functional.pad(x, (0, 0, lag, 0))[:, :25]
        output += size * coin if name in known else mean
    scores = task.score(output, y)
    assert abs(scores.mean() - score) <= 4 * scores.std() / len(scores) ** 0.5


def test_coins_in_the_wrong_order_are_refused():
    with pytest.raises(OptionError, match="second must be more than first=5, got 5"):
        AddingRNN(first=5)
    with pytest.raises(OptionError, match="second must be a whole number in"):
        AddingRNN(second=25)
