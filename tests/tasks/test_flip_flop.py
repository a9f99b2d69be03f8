import pytest
import torch

from rulezoo_tasks.flip_flop import PULSE, FlipFlopRNN, last_pulse


def slow_last_pulse(x):
    target = torch.zeros_like(x)
    for n in range(x.shape[0]):
        for bit in range(x.shape[2]):
            held = 0.0
            for t in range(x.shape[1]):
                if x[n, t, bit] != 0:
                    held = float(x[n, t, bit])
                target[n, t, bit] = held
    return target


def test_targets_equal_the_slow_loop():
    part = FlipFlopRNN().data(None).validation
    assert torch.equal(part.y, slow_last_pulse(part.x))


def test_nothing_is_held_before_the_first_pulse():
    x = torch.tensor([0.0, 0, -1, 0, 1, 0]).view(1, 6, 1)
    assert last_pulse(x).flatten().tolist() == [0, 0, -1, -1, 1, 1]


def test_sizes_and_a_pulse_on_every_bit_first():
    data = FlipFlopRNN().data(None)
    assert [tuple(part.x.shape) for part in data] == [(2000, 20, 3), (500, 20, 3), (1000, 20, 3)]
    for part in data:
        assert (part.x[:, 0] != 0).all()
        assert set(part.x.unique().tolist()) == {-1.0, 0.0, 1.0}
        assert set(part.y.unique().tolist()) == {-1.0, 1.0}


def test_pulse_statistics():
    """Binomial: 114,000 draws of p = 0.15 and about 23,000 signs, 4 standard errors each."""
    x = FlipFlopRNN().data(None).train.x
    later = x[:, 1:]
    assert (later != 0).float().mean() == pytest.approx(
        PULSE, abs=4 * (PULSE * (1 - PULSE) / later.numel()) ** 0.5
    )
    signs = x[x != 0]
    assert (signs > 0).float().mean() == pytest.approx(0.5, abs=4 * 0.5 / len(signs) ** 0.5)


def test_the_data_are_those_of_version_1():
    """A change here changes every result: raise the version of the task."""
    data = FlipFlopRNN().data(None)
    assert [int(part.y.sum()) for part in data] == [-536, -48, -10]
    assert [int(part.x.abs().sum()) for part in data] == [22921, 5719, 11676]


def test_loss_and_score_by_hand():
    target = torch.ones(2, 20, 3, dtype=torch.float64)
    output = torch.ones(2, 20, 3, dtype=torch.float64)
    output[1, :5] = -0.5  # a quarter of the steps: wrong sign, error 1.5
    output[1, 5:10] = 0.2  # right sign, error 0.8
    task = FlipFlopRNN()
    torch.testing.assert_close(
        task.loss(output, target), torch.tensor([0.0, (1.5**2 + 0.8**2) / 4], dtype=torch.float64)
    )
    assert task.score(output, target).tolist() == [1.0, 0.75]


def test_silence_is_no_answer():
    assert FlipFlopRNN().score(torch.zeros(1, 20, 3), torch.ones(1, 20, 3)).item() == 0
