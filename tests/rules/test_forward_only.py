"""Forward-forward, its self-contrastive form and PEPITA, held to their updates written out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.forward_only.goodness import ForwardForward, SelfContrastive
from rulezoo_plugins.forward_only.pepita import Pepita

ALL = [ForwardForward(), SelfContrastive(), Pepita()]
EXACT = {"rtol": 1e-9, "atol": 1e-13}
TINY = 1e-4  # added to a root mean square, as the rules do


@pytest.fixture
def cnn():
    return tiny_net("cnn")


def start(rule, tiny, size=12, seed=1):
    """What a first step is made with: parameters, batch, state and noise."""
    params, batch, gen = tiny.params(), tiny.batch(size), torch.Generator().manual_seed(seed)
    state = rule.init(tiny.net, params, batch, gen)
    return params, batch, state, rule.noise(tiny.net, state, batch, gen, 0)


def step(rule, tiny, params, batch, state, noise):
    return rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, 0)


def assert_equal(grads, expected):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, **EXACT, msg=lambda m, name=name: f"{name}: {m}")


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def cosine(some, others, names):
    flat = (torch.cat([one[name].flatten() for name in names]) for one in (some, others))
    return torch.cosine_similarity(*flat, dim=0).item()


def hidden(tiny):
    return [name for name in tiny.params() if name not in tiny.net.readout]


# Forward-forward -----------------------------------------------------------------------------------------------------


def by_length(h):
    return h / ((h**2).mean().sqrt() + TINY)


def ff_by_hand(params, x, y, wrong, labels, keep, theta, mean):
    """One example and one layer at a time: the slope of each layer's objective, by the chain rule within the layer."""
    grads = {name: torch.zeros_like(p) for name, p in params.items() if not name.startswith("readout")}
    for i in range(len(x)):
        for label, sign in ((y[i], 1.0), (wrong[i], -1.0)):
            below = x[i] * keep + labels[label]
            for layer in ("fc1", "fc2"):
                h = torch.tanh(params[f"{layer}.weight"] @ below + params[f"{layer}.bias"])
                units = 1 if mean else len(h)
                good = (h**2).sum() / (len(h) if mean else 1)
                # d softplus(sign (θ − G)) / dG = −sign σ(sign (θ − G))
                by_goodness = -sign * sigmoid(sign * (units * theta - good))
                by_drive = by_goodness * 2 * h / (len(h) if mean else 1) * (1 - h**2)
                grads[f"{layer}.weight"] += torch.outer(by_drive, below) / len(x)
                grads[f"{layer}.bias"] += by_drive / len(x)
                below = by_length(h)
    return grads


@pytest.mark.parametrize("goodness", ["mean", "sum"])
@pytest.mark.parametrize("label", ["pattern", "pixels"])
def test_forward_forward_written_out(mlp, goodness, label):
    rule = ForwardForward(goodness=goodness, label=label, threshold=0.4, size=1.3)
    params, batch, state, noise = start(rule, mlp)
    labels, keep = state.buffers["labels"], state.buffers["keep"]
    wrong = torch.tensor([(int(y) + int(n)) % 3 for y, n in zip(batch.y, noise["wrong"], strict=True)])
    assert not (wrong == batch.y).any()

    result = step(rule, mlp, params, batch, state, noise)

    assert_equal(result.grads, ff_by_hand(params, *batch, wrong, labels, keep, 0.4, goodness == "mean"))
    assert result.loss is None


def test_every_wrong_label_is_drawn_and_the_true_one_never(mlp):
    rule = ForwardForward()
    noise = start(rule, mlp, size=300)[3]["wrong"]

    assert set(noise.tolist()) == {1, 2}
    assert 100 < (noise == 1).sum() < 200  # of a fair coin, five standard deviations are 43


def test_a_label_overwrites_the_first_pixels(mlp, monkeypatch):
    rule = ForwardForward(label="pixels", size=2.0)
    params, batch, state, _ = start(rule, mlp)
    seen, run = [], Net.run
    monkeypatch.setattr(Net, "run", lambda net, p, x, *tap: (seen.append(x), run(net, p, x, *tap))[1])

    rule.predict(mlp.net, params, state, batch.x)

    (x,) = seen
    for i in range(len(batch.x)):
        for k in range(3):
            expected = torch.cat([2.0 * torch.eye(3, dtype=x.dtype)[k], batch.x[i, 3:]])
            torch.testing.assert_close(x[3 * i + k], expected)


def test_a_pattern_is_added_to_the_whole_input(mlp):
    rule = ForwardForward(label="pattern", size=0.5)
    params, batch, state, _ = start(rule, mlp)

    assert torch.equal(state.buffers["keep"], torch.ones(5, dtype=torch.float64))
    many = Batch(torch.zeros(2, 4000, dtype=torch.float64), batch.y[:2])
    drawn = rule.init(mlp.net, params, many, torch.Generator().manual_seed(0)).buffers["labels"]
    assert drawn.shape == (3, 4000)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("counted", ["all", "all-but-first"])
def test_the_answer_is_the_goodness_of_each_label(mlp, counted):
    rule = ForwardForward(counted=counted)
    params, batch, state, _ = start(rule, mlp)

    output = rule.predict(mlp.net, params, state, batch.x)

    for i, x in enumerate(batch.x):
        for k in range(3):
            h1 = torch.tanh(params["fc1.weight"] @ (x + state.buffers["labels"][k]) + params["fc1.bias"])
            h2 = torch.tanh(params["fc2.weight"] @ by_length(h1) + params["fc2.bias"])
            good = (h2**2).sum() + ((h1**2).sum() if counted == "all" else 0)
            torch.testing.assert_close(output[i, k], good, **EXACT)


def test_a_read_out_answers_from_the_pass_with_a_neutral_label(mlp):
    rule = ForwardForward(answer="readout", label="pixels", size=1.0)
    params, batch, state, noise = start(rule, mlp)
    x = torch.cat([torch.full((len(batch.x), 3), 1 / 3, dtype=torch.float64), batch.x[:, 3:]], 1)
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h1 = torch.stack([by_length(h) for h in h1])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    h2 = torch.stack([by_length(h) for h in h2])
    output = h2 @ params["readout.weight"].T + params["readout.bias"]
    error = (output.softmax(1) - F.one_hot(batch.y, 3)) / len(x)

    result = step(rule, mlp, params, batch, state, noise)
    by_goodness = step(ForwardForward(label="pixels", size=1.0), mlp, params, batch, state, noise).grads

    assert_equal(result.grads, by_goodness | {"readout.weight": error.T @ h2, "readout.bias": error.sum(0)})
    torch.testing.assert_close(result.loss, F.cross_entropy(output, batch.y), **EXACT)
    torch.testing.assert_close(rule.predict(mlp.net, params, state, batch.x), output, **EXACT)


def test_goodness_separates_true_from_wrong_labels_after_training(mlp):
    rule = ForwardForward(goodness="sum", threshold=0.3)
    params, batch, state, noise = start(rule, mlp, size=64)

    def separated(params):
        good = rule.predict(mlp.net, params, state, batch.x)
        right = good.gather(1, batch.y[:, None])[:, 0]
        return (right > (good.sum(1) - right) / 2).double().mean()

    assert separated(params) < 0.7
    for t in range(300):
        noise = rule.noise(mlp.net, state, batch, torch.Generator().manual_seed(t), t)
        grads = step(rule, mlp, params, batch, state, noise).grads
        params = {name: p - 0.1 * grads.get(name, 0) for name, p in params.items()}
    assert separated(params) > 0.8


# The same on a convolutional network -----------------------------------------------------------------------------------


def conv_layers(params, x, normalised):
    """The activity of both sites of the tiny convolutional network, and what its read-out computes, with autograd."""
    h1 = F.max_pool2d(F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=1).relu(), 2)
    seen = torch.stack([normalised(h) for h in h1.detach()])
    h2 = seen + F.conv2d(seen, params["conv2.weight"], params["conv2.bias"], padding=1).relu()
    last = torch.stack([normalised(h) for h in h2.detach()])
    return h1, h2, last.flatten(1) @ params["readout.weight"].T + params["readout.bias"]


def leaves_of(params):
    return {name: p.clone().requires_grad_() for name, p in params.items()}


def test_forward_forward_on_convolutions(cnn):
    rule = ForwardForward(goodness="sum", threshold=0.2)
    params, batch, state, noise = start(rule, cnn)
    labels, leaves = state.buffers["labels"], leaves_of(params)
    wrong = (batch.y + noise["wrong"]) % 3
    total = 0
    for label, sign in ((batch.y, 1), (wrong, -1)):
        for h in conv_layers(leaves, batch.x + labels[label], by_length)[:2]:
            for i in range(len(h)):
                for r in range(3):
                    for c in range(3):
                        off = sign * (4 * 0.2 - (h[i, :, r, c] ** 2).sum())
                        total = total + torch.log(1 + torch.exp(off)) / (len(h) * 9)
    total.backward()

    grads = step(rule, cnn, params, batch, state, noise).grads

    assert_equal(grads, {name: leaves[name].grad for name in hidden(cnn)})


# Self-contrastive -------------------------------------------------------------------------------------------------------


def standardised(h):
    flat = h.flatten()
    deviation = ((flat - flat.mean()) ** 2).mean().sqrt()
    return (h - flat.mean()) / (deviation + TINY)


def test_self_contrastive_on_convolutions(cnn):
    rule = SelfContrastive(positive=0.3, negative=0.7, penalty=0.1)
    params, batch, state, noise = start(rule, cnn)
    leaves, size = leaves_of(params), len(batch.x)
    x = torch.stack([standardised(one) for one in batch.x])
    mixed = torch.stack([(x[i] + x[(i + int(noise["partner"][i])) % size]) / 2 for i in range(size)])
    *positive, output = conv_layers(leaves, x, standardised)
    *negative, _ = conv_layers(leaves, mixed, standardised)
    total = F.cross_entropy(output, batch.y)
    for plus, minus in zip(positive, negative, strict=True):
        for i in range(size):
            for r in range(3):
                for c in range(3):
                    g, b = (plus[i, :, r, c].relu() ** 2).mean(), (minus[i, :, r, c].relu() ** 2).mean()
                    each = torch.log(1 + torch.exp(0.3 - g)) + torch.log(1 + torch.exp(b - 0.7)) + 0.1 * g
                    total = total + each / (size * 9)
    total.backward()

    result = step(rule, cnn, params, batch, state, noise)

    assert_equal(result.grads, {name: leaf.grad for name, leaf in leaves.items()})
    torch.testing.assert_close(result.loss, F.cross_entropy(output, batch.y).detach(), **EXACT)
    torch.testing.assert_close(rule.predict(cnn.net, params, state, batch.x), output.detach(), **EXACT)


def test_self_contrastive_written_out(mlp):
    rule = SelfContrastive(positive=0.3, negative=0.7, penalty=0.1)
    params, batch, state, noise = start(rule, mlp)
    size, grads = len(batch.x), {name: torch.zeros_like(p) for name, p in params.items()}
    x = [standardised(one) for one in batch.x]
    for i in range(size):
        mixed = (x[i] + x[(i + int(noise["partner"][i])) % size]) / 2
        for below, sign in ((x[i], 1.0), (mixed, -1.0)):
            for layer in ("fc1", "fc2"):
                h = torch.tanh(params[f"{layer}.weight"] @ below + params[f"{layer}.bias"])
                up = h.clamp_min(0)
                good = (up**2).mean()
                theta = 0.3 if sign > 0 else 0.7
                slope = -sign * sigmoid(sign * (theta - good)) + (0.1 if sign > 0 else 0)
                by_drive = slope * 2 * up / len(h) * (1 - h**2)
                grads[f"{layer}.weight"] += torch.outer(by_drive, below) / size
                grads[f"{layer}.bias"] += by_drive / size
                below = standardised(h)
            if sign > 0:
                output = params["readout.weight"] @ below + params["readout.bias"]
                error = output.softmax(0) - F.one_hot(batch.y[i], 3)
                grads["readout.weight"] += torch.outer(error, below) / size
                grads["readout.bias"] += error / size

    assert_equal(step(rule, mlp, params, batch, state, noise).grads, grads)


def test_every_other_example_may_be_the_partner(mlp):
    rule = SelfContrastive()
    partners = start(rule, mlp, size=400)[3]["partner"]

    assert partners.min() == 1
    assert partners.max() <= 399
    assert partners.double().mean().item() == pytest.approx(
        200, abs=30
    )  # of 400 draws, 5 standard deviations


def test_the_mean_of_two_inputs_gives_half_the_drive_of_the_two_presented_together():
    """Which is why an input together with itself is the input: W x₁ + W x₂ + 2 b = 2 (W (x₁ + x₂)/2 + b)."""
    gen = torch.Generator().manual_seed(0)
    w, b, one, two = (torch.randn(*s, generator=gen, dtype=torch.float64) for s in ((4, 6), (4,), (6,), (6,)))
    torch.testing.assert_close(w @ one + w @ two + 2 * b, 2 * (w @ ((one + two) / 2) + b))


def test_no_layer_learns_from_the_goodness_of_a_layer_behind_or_in_front(mlp):
    """Only the length of the activity changes with the scale of a ReLU layer, and the next layer does not see it."""
    for rule in (ForwardForward(), SelfContrastive()):
        params, batch, state, noise = start(rule, mlp)
        before = step(rule, mlp, params, batch, state, noise).grads
        changed = {**params, "fc2.weight": params["fc2.weight"] + 1}
        after = step(rule, mlp, changed, batch, state, noise).grads

        assert torch.equal(before["fc1.weight"], after["fc1.weight"])
        assert not torch.equal(before["fc2.weight"], after["fc2.weight"])


# PEPITA -----------------------------------------------------------------------------------------------------------------


def test_pepita_written_out(mlp):
    """Two passes of one example at a time, and the products of algorithm 1."""
    rule = Pepita(size=0.7)
    params, batch, state, _ = start(rule, mlp)
    size, grads = len(batch.x), {name: torch.zeros_like(p) for name, p in params.items()}
    feedback = state.buffers["F"]
    losses = []

    def passed(x):
        h1 = torch.tanh(params["fc1.weight"] @ x + params["fc1.bias"])
        h2 = torch.tanh(params["fc2.weight"] @ h1 + params["fc2.bias"])
        return h1, h2, params["readout.weight"] @ h2 + params["readout.bias"]

    for x, y in zip(*batch, strict=True):
        target = F.one_hot(y, 3)
        h1, h2, output = passed(x)
        losses.append(-output.log_softmax(0)[y])
        modulated = x + (output.softmax(0) - target) @ feedback
        m1, m2, second = passed(modulated)
        for layer, change, below in (
            ("fc1", h1 - m1, modulated),
            ("fc2", h2 - m2, m1),
            ("readout", second.softmax(0) - target, m2),
        ):
            grads[f"{layer}.weight"] += torch.outer(change, below) / size
            grads[f"{layer}.bias"] += change / size

    result = step(rule, mlp, params, batch, state, {})

    assert_equal(result.grads, grads)
    torch.testing.assert_close(result.loss, torch.stack(losses).mean(), **EXACT)


def test_pepita_on_convolutions(cnn):
    """The unpooled layer by the product of the paper, averaged over positions; the pooled one through its pooling."""
    rule = Pepita(size=0.7)
    params, batch, state, _ = start(rule, cnn)
    size = len(batch.x)

    def passed(x):
        pre = F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=1)
        h1 = F.max_pool2d(pre.relu(), 2)
        h2 = h1 + F.conv2d(h1, params["conv2.weight"], params["conv2.bias"], padding=1).relu()
        return h1, h2, h2.flatten(1) @ params["readout.weight"].T + params["readout.bias"]

    h1, h2, output = passed(batch.x)
    error = output.softmax(1) - F.one_hot(batch.y, 3)
    modulated = batch.x + (error @ state.buffers["F"]).view_as(batch.x)
    m1, m2, second = passed(modulated)
    own = second.softmax(1) - F.one_hot(batch.y, 3)

    expected = {"readout.weight": own.T @ m2.flatten(1) / size, "readout.bias": own.mean(0)}
    change, padded = h2 - m2, F.pad(m1, (1, 1, 1, 1))
    weight, bias = torch.zeros(4, 4, 3, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for i in range(size):
        for r in range(3):
            for c in range(3):
                patch = padded[i, :, r : r + 3, c : c + 3]
                weight += torch.einsum("o,ikl->oikl", change[i, :, r, c], patch) / (size * 9)
                bias += change[i, :, r, c] / (size * 9)
    expected |= {"conv2.weight": weight, "conv2.bias": bias}
    leaves = {name: params[name].clone().requires_grad_() for name in ("conv1.weight", "conv1.bias")}
    pre = F.conv2d(modulated, leaves["conv1.weight"], leaves["conv1.bias"], padding=1)
    (F.max_pool2d(pre.relu(), 2) * (h1 - m1)).sum().div(size * 9).backward()
    expected |= {name: leaf.grad for name, leaf in leaves.items()}

    assert_equal(step(rule, cnn, params, batch, state, {}).grads, expected)


def test_pepita_averages_over_the_positions_of_convolutions_alone():
    """A dense layer at three positions of an input: its product is a sum over them, as a gradient is."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 4), Site("pre"), nn.Tanh(), Site("post"), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    x = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net, batch, rule = Net(module, x[:2]), Batch(x, torch.arange(6) % 3), Pepita(size=0.7)
    params, task = net.init_params(), tiny_net("mlp").task
    assert rule.skip(net, task) is None
    state = rule.init(net, params, batch, torch.Generator().manual_seed(2))

    grads = rule.step(net, task.loss, params, state, batch, {}, 0).grads

    h = torch.tanh(x @ params["0.weight"].T + params["0.bias"])
    output = h.flatten(1) @ params["5.weight"].T + params["5.bias"]
    error = output.softmax(1) - F.one_hot(batch.y, 3)
    modulated = x + (error @ state.buffers["F"]).view_as(x)
    change = h - torch.tanh(modulated @ params["0.weight"].T + params["0.bias"])
    torch.testing.assert_close(grads["0.weight"], torch.einsum("bpo,bpi->oi", change, modulated) / 6, **EXACT)
    torch.testing.assert_close(grads["0.bias"], change.sum((0, 1)) / 6, **EXACT)


def linear_net():
    """5 → 4 → 3 without nonlinearity or biases, and something that answers as a tiny network does."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 4, bias=False), Site("pre"), Site("post"), nn.Linear(4, 3, bias=False)
    ).double()
    batch = tiny_net("mlp").batch()
    net = Net(module, batch.x[:2])
    return SimpleNamespace(net=net, task=tiny_net("mlp").task, params=net.init_params, batch=lambda: batch)


def test_pepita_is_backprop_where_the_error_reaches_the_hidden_layer_as_by_the_transpose():
    """In a linear network h − h' = −W F e, so F with W F = −ε W₂ᵀ gives ε times backprop as ε goes to 0."""
    tiny = linear_net()
    params, batch = tiny.params(), tiny.batch()
    true, _ = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    off = []
    for size in (1e-2, 1e-3):
        feedback = -size * torch.linalg.pinv(params["0.weight"]) @ params["3.weight"].T
        grads = step(Pepita(), tiny, params, batch, State(buffers={"F": feedback.T}), {}).grads
        distance = (grads["0.weight"] / size - true["0.weight"]).norm() / true["0.weight"].norm()
        off.append(distance.item())
        assert (grads["3.weight"] - true["3.weight"]).norm() < 10 * size * true["3.weight"].norm()
    assert off[1] < 1e-2
    assert off[0] / off[1] == pytest.approx(10, rel=0.2), "the difference is of first order in F"


def test_the_projection_is_uniform_in_the_papers_range(mlp):
    rule = Pepita(size=0.5)
    batch = Batch(torch.zeros(2, 900, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    feedback = rule.init(mlp.net, mlp.params(), batch, torch.Generator().manual_seed(0)).buffers["F"]

    limit = 0.5 * (6 / 900) ** 0.5
    assert feedback.shape == (3, 900)
    assert feedback.abs().max() <= limit
    assert feedback.max() > 0.98 * limit
    assert feedback.min() < -0.98 * limit
    assert feedback.mean().abs() < 0.05 * limit
    assert feedback.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)


def test_pepita_moves_towards_feedback_alignment_as_the_projection_shrinks(mlp):
    """To first order, h − h' = −(dh/dx) F e (Srinivasan et al. 2024)."""
    rule = Pepita(size=1e-5)
    params, batch, state, _ = start(rule, mlp)
    error, _ = credit.output_error(mlp.task.loss, mlp.net.run(params, batch.x), batch.y)

    grads = step(rule, mlp, params, batch, state, {}).grads

    expected = torch.zeros_like(params["fc2.weight"])
    for i, x in enumerate(batch.x):
        slope = torch.autograd.functional.jacobian(
            lambda z: torch.tanh(
                params["fc2.weight"] @ torch.tanh(params["fc1.weight"] @ z + params["fc1.bias"])
                + params["fc2.bias"]
            ),
            x,
        )
        h1 = torch.tanh(params["fc1.weight"] @ x + params["fc1.bias"])
        expected -= torch.outer(slope @ (error[i] @ state.buffers["F"]), h1)
    torch.testing.assert_close(grads["fc2.weight"], expected, rtol=1e-3, atol=1e-9)


# All of them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_none_is_backprop(rule, kind):
    tiny = tiny_net(kind)
    true, _ = credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())

    assert abs(cosine(step(rule, tiny, *start(rule, tiny)).grads, true, hidden(tiny))) < 0.99


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
def test_what_it_cannot_serve_is_skipped_in_a_sentence(rule, mlp):
    bare = Net(nn.Linear(5, 3), torch.zeros(2, 5))
    rnn = tiny_net("rnn")
    words = Net(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 4), Site("pre"), nn.ReLU(),
                              Site("post"), nn.Linear(4, 3)), torch.zeros(2, 2, dtype=torch.int64))  # fmt: skip

    assert "kind 'post'" in rule.skip(bare, mlp.task)
    assert "recurrent" in rule.skip(rnn.net, rnn.task)
    assert "real numbers" in rule.skip(words, mlp.task)
    assert rule.skip(mlp.net, mlp.task) is None


def test_forward_forward_needs_labels_that_fit(mlp):
    numbers = SimpleNamespace(targets="numbers", classes=None)
    thin = Net(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), Site("post"), nn.Linear(4, 3)), torch.zeros(2, 2))

    assert "one label for each example" in ForwardForward().skip(mlp.net, numbers)
    assert "one label for each example" in ForwardForward().skip(
        tiny_net("rnn-every-step").net, tiny_net("rnn-every-step").task
    )
    assert "do not fit" in ForwardForward(label="pixels").skip(thin, mlp.task)
    assert ForwardForward(label="pattern").skip(thin, mlp.task) is None


def test_rules_that_answer_by_a_read_out_need_one(mlp):
    blind = Net(nn.Sequential(nn.Linear(5, 3), Site("pre"), nn.ReLU(), Site("post")), torch.zeros(2, 5))

    for rule in (ForwardForward(answer="readout"), SelfContrastive(), Pepita()):
        assert "no parameters behind the last site" in rule.skip(blind, mlp.task)
    assert ForwardForward().skip(blind, mlp.task) is None


def test_hidden_layers_may_learn_at_a_rate_of_their_own(mlp):
    assert Pepita(hidden_rate=0.1).rates(mlp.net) == dict.fromkeys(hidden(mlp), 0.1)


def test_pepita_needs_a_pre_site_behind_every_layer(mlp):
    half = Net(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), Site("post"), nn.Linear(4, 3)), torch.zeros(2, 5))

    assert "kind 'pre'" in Pepita().skip(half, mlp.task)
