"""What the codes and trials of the spiking tasks hold, and the data of version 1."""

import pytest
import torch

from rulezoo import Net, OptionError, nets
from rulezoo_tasks.digits import digits
from rulezoo_tasks.spiking import (
    ACTIVE,
    ASKED,
    CHANNELS,
    CUES,
    SHOWN,
    SILENT,
    DigitsSNN,
    RecallSNN,
    latency_code,
    rate_code,
    recall_trials,
)

RATE, LATENCY, RECALL = [392561, 56901, 112769], [41074, 5915, 11747], [25261, 6351, 12480]
CUES_OF_TEST = [2, 1, 2, 2, 1, 0, 1, 2, 1, 3, 0, 2]
FOUR = 4  # standard errors


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_rate_a_pixel_spikes_as_often_as_it_is_bright():
    x = torch.tensor([[0.0, 0.25, 0.8, 1.0]]).expand(300, 4)
    spikes = rate_code(x, 20, seeded())
    assert spikes.shape == (300, 20, 4)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    for place, p in enumerate((0.0, 0.25, 0.8, 1.0)):
        error = FOUR * (p * (1 - p) / 6000) ** 0.5
        assert spikes[..., place].mean().item() == pytest.approx(p, abs=max(error, 1e-9))
    steps = spikes[:, :, 1].mean(0)  # at every step alike
    assert (steps - 0.25).abs().max() < 5 * (0.25 * 0.75 / 300) ** 0.5


def test_by_latency_a_pixel_spikes_once_and_the_earlier_the_brighter_it_is():
    x = torch.tensor([[1.0, 0.5, 0.01, 0.0]])
    spikes = latency_code(x, 9)
    assert spikes.shape == (1, 9, 4)
    assert spikes[0].nonzero().tolist() == [[0, 0], [4, 1], [8, 2]]


@pytest.mark.parametrize("code", ["rate", "latency"])
def test_digits_as_spikes_are_the_digits(code):
    for part, images in zip(DigitsSNN(code=code, steps=30).data(None), digits(), strict=True):
        assert torch.equal(part.y, images.y)
        assert part.x.shape == (len(part.y), 30, 64)
        pixels = images.x.flatten(1)
        if code == "rate":
            assert (
                part.x.mean(1) - pixels
            ).abs().mean() < 0.06  # the mean deviation of 30 coin flips is less
        else:
            assert torch.equal(part.x.sum(1), (pixels > 0).to(part.x.dtype))
            first = part.x.argmax(1)
            assert torch.equal(first[pixels > 0], ((1 - pixels) * 29).round().long()[pixels > 0])


def test_sizes_and_the_data_of_version_1():
    """A change here changes every result: raise the version of the task."""
    rate, latency, recall = (
        task.data(None) for task in (DigitsSNN(), DigitsSNN(code="latency"), RecallSNN())
    )
    assert [tuple(part.x.shape) for part in rate] == [(1257, 16, 64), (180, 16, 64), (360, 16, 64)]
    assert [tuple(part.x.shape) for part in recall] == [(1000, 20, 25), (250, 20, 25), (500, 20, 25)]
    assert [int(part.x.sum()) for part in rate] == RATE
    assert [int(part.x.sum()) for part in latency] == LATENCY
    assert [int(part.x.sum()) for part in recall] == RECALL
    assert recall.test.y[:12].tolist() == CUES_OF_TEST


def test_a_cue_is_shown_first_and_asked_for_last():
    n, delay = 2000, 7
    trials = recall_trials(n, delay, seeded())
    assert trials.y.bincount().tolist() == [n // CUES] * CUES
    rates = trials.x.unflatten(2, (CUES + 1, CHANNELS)).mean(3)  # (trials, steps, groups)
    assert rates.shape == (n, SHOWN + delay + ASKED, CUES + 1)
    shown = torch.arange(rates.shape[1]) < SHOWN
    asked = torch.arange(rates.shape[1]) >= rates.shape[1] - ASKED

    def expect(values, p):
        assert values.mean().item() == pytest.approx(
            p, abs=FOUR * (p * (1 - p) / (values.numel() * CHANNELS)) ** 0.5
        )

    own = rates[torch.arange(n), :, trials.y]
    expect(own[:, shown], ACTIVE)
    expect(own[:, ~shown], SILENT)
    expect(rates[torch.arange(n), :, (trials.y + 1) % CUES], SILENT)
    expect(rates[:, asked, CUES], ACTIVE)
    expect(rates[:, ~asked, CUES], SILENT)


def test_the_order_of_cues_is_random():
    y = recall_trials(2000, 1, seeded()).y
    assert (y[1:] != y[:-1]).float().mean().item() == pytest.approx(0.75, abs=FOUR * (0.1875 / 2000) ** 0.5)
    assert recall_trials(5, 1, seeded()).x.shape == (5, 9, 25)


def test_the_options_that_results_are_stored_with():
    assert DigitsSNN().resolved() == {"code": "rate", "steps": 16, "width": 64}
    assert RecallSNN().resolved() == {"delay": 12, "width": 64, "adaptation": 0.5}


def test_options_set_the_networks():
    module = DigitsSNN(width=7, steps=5).network()
    net = Net(module, torch.zeros(2, 5, 64))
    assert net.keys("post") == [f"lif{n}.post[{t}]" for n in (1, 2) for t in range(5)]
    assert net.visits["lif2.post[0]"].width == net.visits["lif1.post[0]"].width == 7
    assert not net.keys("recurrent")
    assert module.lif1.adaptation == 0
    assert (module.lif1.decay, module.readout_decay) == (0.95, 0.95)
    recall = RecallSNN(width=9, adaptation=0.25).network()
    assert (recall.lif1.width, recall.lif1.adaptation, recall.readout_decay) == (9, 0.25, 0.8)
    assert recall.lif1.w_rec.weight.shape == (9, 9)
    assert RecallSNN(delay=3).data(None).train.x.shape == (1000, 11, 25)
    with pytest.raises(OptionError, match="'rate' or 'latency'"):
        DigitsSNN(code="phase")


def sizes(task):
    torch.manual_seed(0)
    return [layer.w_in.weight.std().item() * layer.w_in.in_features**0.5
            for layer in task.network().children() if isinstance(layer, nets.LIF)]  # fmt: skip


def test_inputs_that_spike_rarely_have_larger_weights():
    assert sizes(DigitsSNN()) == pytest.approx([1, 3], rel=0.05)
    assert sizes(DigitsSNN(code="latency")) == pytest.approx([3, 3], rel=0.05)
    assert sizes(RecallSNN()) == pytest.approx([1.5], rel=0.08)


@pytest.mark.parametrize("task", [DigitsSNN(), DigitsSNN(code="latency"), RecallSNN()])
def test_before_training_neither_all_nor_no_neurons_spike(task):
    torch.manual_seed(0)
    network, x = task.network(), task.data(None).train.x[:200]
    for layer in network.children():
        if isinstance(layer, nets.LIF):
            x = layer(x).detach()
            assert 0.01 < x.mean() < 0.4
            assert (x.sum((0, 1)) > 0).float().mean() > 0.85
