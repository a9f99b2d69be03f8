import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rulezoo import Net
from rulezoo_tasks.networks import MLP, ConvNet, LeakyRNN

RNN_TOLERANCE = 1e-12  # float64, six steps of tanh


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def record(net, params, x):
    seen = {}

    def tap(key, activity):
        seen[key] = activity
        return activity

    return net.run(params, x, tap), seen


def test_mlp_by_hand():
    x = torch.randn(3, 1, 2, 2)
    net = Net(MLP((4, 6, 5, 2)), x)
    p = net.init_params()
    output, seen = record(net, p, x)

    pre1 = x.reshape(3, 4) @ p["fc1.layer.weight"].T + p["fc1.layer.bias"]
    pre2 = pre1.clamp(min=0) @ p["fc2.layer.weight"].T + p["fc2.layer.bias"]
    expected = {
        "fc1.pre": pre1,
        "fc1.post": pre1.clamp(min=0),
        "fc2.pre": pre2,
        "fc2.post": pre2.clamp(min=0),
    }
    assert list(seen) == list(expected)
    for key, activity in expected.items():
        torch.testing.assert_close(seen[key], activity)
    torch.testing.assert_close(output, pre2.clamp(min=0) @ p["readout.weight"].T + p["readout.bias"])


def test_convnet_by_hand_with_the_post_site_behind_the_pooling():
    x = torch.randn(2, 3, 9, 6)
    net = Net(ConvNet((3, 9, 6), channels=(4, 5), pool=(False, True), hidden=7, classes=2), x)
    p = net.init_params()
    output, seen = record(net, p, x)

    pre1 = F.conv2d(x, p["conv1.layer.weight"], p["conv1.layer.bias"], padding=1)
    post1 = pre1.clamp(min=0)
    pre2 = F.conv2d(post1, p["conv2.layer.weight"], p["conv2.layer.bias"], padding=1)
    windows = pre2.clamp(min=0)[:, :, :8].reshape(
        2, 5, 4, 2, 3, 2
    )  # nine rows make four windows, one is left out
    post2 = windows.amax((3, 5))
    pre3 = post2.reshape(2, -1) @ p["fc.layer.weight"].T + p["fc.layer.bias"]
    expected = {
        "conv1.pre": pre1,
        "conv1.post": post1,
        "conv2.pre": pre2,
        "conv2.post": post2,
        "fc.pre": pre3,
        "fc.post": pre3.clamp(min=0),
    }
    assert list(seen) == list(expected)
    for key, activity in expected.items():
        torch.testing.assert_close(seen[key], activity)
    torch.testing.assert_close(output, pre3.clamp(min=0) @ p["readout.weight"].T + p["readout.bias"])


def slow_rnn(p, x, leak, *, disturb=0.0, silence_past=False):
    """One unit, one step, one example at a time; ``disturb`` is added to the state after step 2."""
    w_in, w_rec, w_out = (p[f"{name}.weight"].numpy() for name in ("w_in", "w_rec", "w_out"))
    b, b_out = p["w_in.bias"].numpy(), p["w_out.bias"].numpy()
    outputs = np.zeros((x.shape[0], x.shape[1], len(w_out)))
    for n, sequence in enumerate(x.numpy()):
        h = np.zeros(len(w_rec))
        for t, drive in enumerate(sequence):
            new = np.zeros_like(h)
            for i in range(len(h)):
                past = 0.0 if silence_past else sum(w_rec[i, j] * h[j] for j in range(len(h)))
                new[i] = (1 - leak) * h[i] + leak * np.tanh(past + sum(w_in[i] * drive) + b[i])
            h = new + (disturb if t == 2 else 0.0)
            outputs[n, t] = w_out @ h + b_out
    return torch.from_numpy(outputs)


@pytest.fixture(params=[0.3, 1.0])
def leak(request):
    return request.param


@pytest.mark.parametrize("every_step", [True, False])
def test_rnn_equals_the_slow_loop(leak, every_step):
    x = torch.randn(3, 6, 2)
    net = Net(LeakyRNN(2, 5, 4, leak, every_step=every_step), x)
    params = net.init_params()
    slow = slow_rnn(params, x, leak)
    expected = slow if every_step else slow[:, -1]
    torch.testing.assert_close(net.run(params, x), expected, rtol=0, atol=RNN_TOLERANCE)


def test_rnn_visits_its_sites_once_per_step():
    net = Net(LeakyRNN(2, 5, 4, 0.5, every_step=False), torch.randn(3, 6, 2))
    for site, kind in (("recurrent", "recurrent"), ("pre", "pre"), ("hidden", "post")):
        assert net.keys(kind) == [f"{site}[{t}]" for t in range(6)]
    assert {visit.shape for visit in net.visits.values()} == {(5,)}


def test_what_the_hidden_site_returns_reaches_leak_recurrence_and_read_out(leak):
    x = torch.randn(3, 6, 2)
    net = Net(LeakyRNN(2, 5, 4, leak, every_step=True), x)
    params = net.init_params()
    output = net.run(params, x, lambda key, a: a + 0.7 if key == "hidden[2]" else a)
    torch.testing.assert_close(output, slow_rnn(params, x, leak, disturb=0.7), rtol=0, atol=RNN_TOLERANCE)
    assert not torch.allclose(output[:, 3:], net.run(params, x)[:, 3:])


def test_the_recurrent_site_cuts_the_recurrence_and_keeps_the_leak():
    x = torch.randn(3, 6, 2)
    net = Net(LeakyRNN(2, 5, 4, 0.3, every_step=True), x)
    params = net.init_params()
    output = net.run(params, x, lambda key, a: a * 0 if key.startswith("recurrent") else a)
    torch.testing.assert_close(
        output, slow_rnn(params, x, 0.3, silence_past=True), rtol=0, atol=RNN_TOLERANCE
    )


def test_recurrent_weights_start_orthogonal():
    w = LeakyRNN(2, 16, 4, 0.5, every_step=True).w_rec.weight
    torch.testing.assert_close(w @ w.T, torch.eye(16))
