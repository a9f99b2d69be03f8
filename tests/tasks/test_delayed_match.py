import pytest
import torch

from rulezoo import Net
from rulezoo_tasks.delayed_match import NOISE, SHOWN, STRENGTH, DelayedMatchRNN, trials


def stimulus(x, start):
    """Which channel is stronger over the steps for which a stimulus is shown, ``(trials,)``."""
    return x[:, start : start + SHOWN].sum(1).argmax(1)


@pytest.mark.parametrize("delay", [0, 6, 11])
def test_the_answer_is_whether_the_two_stimuli_match(delay):
    data = DelayedMatchRNN(delay=delay).data(None)
    for part in data:
        assert part.x.shape[1:] == (2 * SHOWN + delay + 2, 2)
        assert torch.equal((stimulus(part.x, 0) == stimulus(part.x, SHOWN + delay)).long(), part.y)


def test_all_four_pairs_are_equally_frequent_and_answers_balanced():
    for part in DelayedMatchRNN().data(None):
        pairs = 2 * stimulus(part.x, 0) + stimulus(part.x, SHOWN + 6)
        assert pairs.bincount().tolist() == [len(part.y) // 4] * 4
        assert part.y.bincount().tolist() == [len(part.y) // 2] * 2


def test_neither_stimulus_alone_tells_the_answer():
    part = DelayedMatchRNN().data(None).train
    for start in (0, SHOWN + 6):
        told = part.y[stimulus(part.x, start) == 0]
        assert told.float().mean() == 0.5


def test_between_stimuli_there_is_noise_alone():
    x = DelayedMatchRNN().data(None).train.x
    quiet = torch.cat([x[:, SHOWN : SHOWN + 6], x[:, -2:]], 1)
    assert quiet.abs().max() <= NOISE
    assert quiet.abs().max() > 0.99 * NOISE
    assert abs(quiet.mean()) < 4 * NOISE / (3 * quiet.numel()) ** 0.5
    shown = x[:, :SHOWN].amax(2)
    assert shown.min() >= STRENGTH - NOISE
    assert shown.max() <= STRENGTH + NOISE


def test_the_order_of_trials_is_random():
    part = DelayedMatchRNN().data(None).train
    changes = (part.y[1:] != part.y[:-1]).float().mean().item()
    assert changes == pytest.approx(0.5, abs=4 * 0.5 / len(part.y) ** 0.5)


def test_sizes_and_the_data_of_version_1():
    """A change here changes every result: raise the version of the task."""
    data = DelayedMatchRNN().data(None)
    assert [tuple(part.x.shape) for part in data] == [(2000, 12, 2), (500, 12, 2), (1000, 12, 2)]
    assert data.test.y[:20].tolist() == [1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0]
    assert [round(float(part.x.double().sum()), 2) for part in data] == [6012.89, 1515.56, 2991.33]


def test_trials_of_another_number():
    part = trials(5, 1, torch.Generator().manual_seed(0))
    assert part.x.shape == (5, 7, 2)
    assert part.y.shape == (5,)


def test_options_set_width_and_leak():
    module = DelayedMatchRNN(width=1024, leak=0.4).network()
    net = Net(module, torch.zeros(1, 12, 2))
    assert module.leak == 0.4
    assert net.visits["hidden[0]"].width == 1024
    assert net.output_shape == (2,)
