"""Hebbian rules, held to their updates written out in loops, and to the principal components that they must find."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, State, credit
from rulezoo.rule import directions
from rulezoo.testing import tiny_net
from rulezoo_plugins.hebbian.rules import Oja, Sanger, SoftHebb

ALL = [SoftHebb(), Oja(), Sanger()]
EXACT = {"rtol": 1e-9, "atol": 1e-13}


@pytest.fixture
def cnn():
    return tiny_net("cnn")


def step(rule, tiny, params=None, batch=None):
    params, batch = params or tiny.params(), batch or tiny.batch()
    return rule.step(tiny.net, tiny.task.loss, params, State(), batch, {}, 0)


# The update of each rule, of one layer, for one input at a time ------------------------------------------------------


def softhebb(w, rows, sharp, anti, power):
    """Journé et al. 2023: Δw_k = η |‖w_k‖ − 1|^power · y_k (x − u_k w_k), with −y_k for all units but the winner."""
    change = torch.zeros_like(w)
    for row in rows:
        x = row / (row**2).sum().sqrt()
        u = torch.stack([(w[k] * x).sum() for k in range(len(w))])
        y, winner = torch.exp(sharp * u) / torch.exp(sharp * u).sum(), int(u.argmax())
        for k in range(len(w)):
            sign = -1 if anti and k != winner else 1
            change[k] += sign * y[k] * (x - u[k] * w[k]) / len(rows)
    for k in range(len(w)):
        change[k] *= abs((w[k] ** 2).sum().sqrt() - 1) ** power
    return change


def principal(w, rows, explains):
    """Δw_j = u_j (x − Σ_k u_k w_k), the sum over the units k that explain the input of unit j."""
    change = torch.zeros_like(w)
    size = sum((row**2).sum() for row in rows)
    for x in rows:
        u = [(w[k] * x).sum() for k in range(len(w))]
        for j in range(len(w)):
            rest = x - sum(u[k] * w[k] for k in range(len(w)) if explains(j, k))
            change[j] += u[j] * rest / size
    return change


TWINS = {
    SoftHebb(rate=0.3, sharp=4.0, anti=True, power=0.5): lambda w, x: softhebb(w, x, 4.0, True, 0.5),
    SoftHebb(rate=0.3, sharp=9.0, anti=False, power=0.0): lambda w, x: softhebb(w, x, 9.0, False, 0.0),
    Oja(rate=0.3): lambda w, x: principal(w, x, lambda j, k: True),
    Oja(rate=0.3, coupling="none"): lambda w, x: principal(w, x, lambda j, k: k == j),
    Sanger(rate=0.3): lambda w, x: principal(w, x, lambda j, k: k <= j),
}


def patches(x):
    """The 3 × 3 patches of padded images, in the order example, row, column."""
    padded = F.pad(x, (1, 1, 1, 1))
    size = x.shape[-1]
    return torch.stack(
        [
            padded[i, :, r : r + 3, c : c + 3].flatten()
            for i in range(len(x))
            for r in range(size)
            for c in range(size)
        ]
    )


def layers_of_mlp(params, x):
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    return {"fc1": x, "fc2": h1}, h2


def layers_of_cnn(params, x):
    h1 = F.max_pool2d(F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=1).relu(), 2)
    h2 = h1 + F.conv2d(h1, params["conv2.weight"], params["conv2.bias"], padding=1).relu()
    return {"conv1": patches(x), "conv2": patches(h1)}, h2.flatten(1)


@pytest.mark.parametrize("rule", TWINS, ids=str)
@pytest.mark.parametrize(("kind", "layers"), [("mlp", layers_of_mlp), ("cnn", layers_of_cnn)])
def test_written_out(rule, kind, layers):
    tiny = tiny_net(kind)
    params, batch = tiny.params(), tiny.batch(4)
    inputs, last = layers(params, batch.x)
    updates = {}
    for name, rows in inputs.items():
        weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
        mean = rows.mean(0)
        updates[f"{name}.weight"] = 0.3 * TWINS[rule](weight.flatten(1), rows - mean).view_as(weight)
        updates[f"{name}.bias"] = 0.3 * (-weight.flatten(1) @ mean - bias)
    output = last @ params["readout.weight"].T + params["readout.bias"]
    error = (output.softmax(1) - F.one_hot(batch.y, 3)) / len(batch.x)

    result = step(rule, tiny, params, batch)

    assert result.updates.keys() == updates.keys()
    for name, update in updates.items():
        torch.testing.assert_close(result.updates[name], update, **EXACT, msg=lambda m, n=name: f"{n}: {m}")
    assert result.grads.keys() == {"readout.weight", "readout.bias"}
    torch.testing.assert_close(result.grads["readout.weight"], error.T @ last, **EXACT)
    torch.testing.assert_close(result.grads["readout.bias"], error.sum(0), **EXACT)
    torch.testing.assert_close(result.loss, F.cross_entropy(output, batch.y), **EXACT)


# Fixed points ------------------------------------------------------------------------------------------------------------


def layer_of(units, x):
    """A linear network with one hidden layer, whose inputs are always the same."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(x.shape[1], units), Site("post"), nn.Linear(units, 3)).double()
    net = Net(module, x[:2])
    batch = Batch(x, torch.arange(len(x)) % 3)
    return SimpleNamespace(net=net, task=tiny_net("mlp").task, params=net.init_params, batch=lambda: batch)


def correlated_inputs():
    """200 inputs of 6 numbers, with a mean, and principal components of clearly different variance, by eigh."""
    gen = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=gen, dtype=torch.float64))
    scales = torch.tensor([3.0, 2.0, 1.4, 0.8, 0.5, 0.3], dtype=torch.float64)
    x = torch.randn(200, 6, generator=gen, dtype=torch.float64) * scales @ basis.T + 2.0
    _, vectors = torch.linalg.eigh(torch.cov(x.T))
    return x, vectors.flip(1).T  # rows by falling variance


def converged(rule, units, x, steps=400):
    tiny = layer_of(units, x)
    params = tiny.params()
    for _ in range(steps):
        updates = step(rule, tiny, params).updates
        params = {name: p + updates.get(name, 0) for name, p in params.items()}
    return params


def test_a_single_unit_finds_the_principal_direction():
    x, components = correlated_inputs()

    for rule in (Oja(rate=1.0), Sanger(rate=1.0)):
        (w,) = converged(rule, 1, x)["0.weight"]
        assert w.norm().item() == pytest.approx(1, abs=1e-9)
        assert (w @ components[0]).abs().item() == pytest.approx(1, abs=1e-9)


def test_units_that_are_not_coupled_all_find_the_principal_direction():
    x, components = correlated_inputs()

    w = converged(Oja(rate=1.0, coupling="none"), 3, x)["0.weight"]

    torch.testing.assert_close((w @ components[0]).abs(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(w.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_ojas_units_span_the_principal_subspace():
    x, components = correlated_inputs()

    w = converged(Oja(rate=1.0), 3, x)["0.weight"]

    torch.testing.assert_close(w @ w.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-8)
    projector = components[:3].T @ components[:3]
    torch.testing.assert_close(w.T @ w, projector, rtol=0, atol=1e-8)
    assert (w @ components[:3].T).abs().max() < 0.999, "a basis of the subspace, but not the components"


def test_sangers_units_are_the_principal_components_in_order():
    x, components = correlated_inputs()

    w = converged(Sanger(rate=1.0), 3, x)["0.weight"]

    torch.testing.assert_close(
        (w @ components[:3].T).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_sangers_learning_rate_falls_with_the_number_of_steps_and_that_of_the_others_does_not(mlp):
    params, batch = mlp.params(), mlp.batch()
    for rule, factor in ((Sanger(halving=30), 0.25), (Oja(), 1.0), (SoftHebb(), 1.0)):
        first, later = (
            rule.step(mlp.net, mlp.task.loss, params, State(), batch, {}, t).updates for t in (0, 90)
        )
        for name, update in first.items():
            by = 1.0 if name.endswith("bias") else factor  # biases follow a mean that moves
            torch.testing.assert_close(later[name], by * update)


def test_biases_come_to_centre_the_drives():
    x, _ = correlated_inputs()

    params = converged(Oja(rate=0.5), 3, x, steps=200)

    drives = x @ params["0.weight"].T + params["0.bias"]
    assert drives.mean(0).abs().max() < 1e-6


def test_softhebbs_weights_grow_to_length_one_and_to_the_mean_of_the_inputs_that_they_win():
    """With hard competition and without anti-Hebbian learning, w settles at the direction of E[y x]."""
    gen = torch.Generator().manual_seed(5)
    centres = F.normalize(torch.tensor([[3.0, 0, 0], [-1.0, 3, 0], [-1.0, -2, 2]], dtype=torch.float64))
    x = centres.repeat_interleave(40, 0) + 0.05 * torch.randn(120, 3, generator=gen, dtype=torch.float64)
    rule = SoftHebb(rate=0.2, sharp=100.0, anti=False, power=0.0)

    w = converged(rule, 3, x, steps=1000)["0.weight"]

    unit = F.normalize(x - x.mean(0), dim=1)
    y = torch.softmax(100.0 * unit @ w.T, 1)
    settled = (y.T @ unit) / (y * (unit @ w.T)).sum(0)[:, None]
    torch.testing.assert_close(w, settled, rtol=1e-6, atol=1e-8)
    assert (w.norm(dim=1) - 1).abs().max() < 0.01
    assert y.amax(1).mean() > 0.95, "each input has one winner"


def test_learning_slows_down_near_length_one(mlp):
    params = mlp.params()
    near = {**params, "fc1.weight": 1.01 * F.normalize(params["fc1.weight"])}
    always, slowed = (step(SoftHebb(power=p), mlp, near).updates["fc1.weight"] for p in (0.0, 2.0))

    torch.testing.assert_close(slowed, always * 0.01**2, rtol=1e-6, atol=1e-13)


def test_the_step_of_a_principal_rule_does_not_depend_on_the_size_of_its_inputs(mlp):
    params, (x, y) = mlp.params(), mlp.batch()

    for rule in (Oja(), Sanger()):
        small, large = (step(rule, mlp, params, Batch(size * x, y)).updates["fc1.weight"] for size in (1, 7))
        torch.testing.assert_close(small, large)


def test_a_silent_layer_is_left_alone(mlp):
    batch = Batch(torch.zeros(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0]))

    for rule in ALL:
        updates = step(rule, mlp, batch=batch).updates
        assert all(torch.isfinite(update).all() for update in updates.values())
        assert updates["fc1.weight"].abs().max() < 1e-9


# All of them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_none_is_backprop_and_only_the_read_out_hears_the_targets(rule, kind):
    tiny = tiny_net(kind)
    batch = tiny.batch()
    true, _ = credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *batch)
    result = step(rule, tiny, batch=batch)
    got = directions(result)
    hidden = [name for name in true if name not in tiny.net.readout]
    flat = (torch.cat([one[name].flatten() for name in hidden]) for one in (got, true))

    others = step(rule, tiny, batch=batch._replace(y=(batch.y + 1) % 3))

    assert abs(torch.cosine_similarity(*flat, dim=0)) < 0.8
    assert all(torch.equal(result.updates[name], others.updates[name]) for name in hidden)
    assert not torch.equal(result.grads["readout.weight"], others.grads["readout.weight"])
    torch.testing.assert_close(result.grads["readout.weight"], true["readout.weight"], **EXACT)


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
def test_what_it_cannot_serve_is_skipped_in_a_sentence(rule, mlp):
    rnn, task = tiny_net("rnn"), mlp.task

    def skipped(*modules, x):
        return rule.skip(Net(nn.Sequential(*modules), x), task)

    images = torch.randn(2, 4, 5, 5)
    grouped = (nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), Site("post"), nn.Flatten(), nn.Linear(36, 3))
    ungrouped = (nn.Conv2d(4, 4, 3), *grouped[1:])
    words = (nn.Embedding(9, 4), Site("post"), nn.Flatten(), nn.Linear(8, 3))
    normed = (nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), Site("post"), nn.Linear(4, 3))

    assert "read-out" in skipped(nn.Linear(5, 3), Site("post"), x=torch.randn(2, 5))
    assert "recurrent" in rule.skip(rnn.net, rnn.task)
    assert "hidden layers" in skipped(nn.Linear(5, 3), x=torch.randn(2, 5))
    assert "without groups" in skipped(*grouped, x=images)
    assert skipped(*ungrouped, x=images) is None
    assert "linear or convolutional" in skipped(*words, x=torch.zeros(2, 2, dtype=torch.int64))
    assert "plain weight" in skipped(*normed, x=torch.randn(2, 5))
    assert rule.skip(mlp.net, task) is None


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: type(rule).__name__)
def test_a_frozen_layer_and_one_without_bias(rule, mlp):
    module = nn.Sequential(
        nn.Linear(5, 4), Site("post"), nn.Linear(4, 4, bias=False), Site("post"), nn.Linear(4, 3)
    ).double()
    module[0].requires_grad_(False)
    batch = mlp.batch()
    net = Net(module, batch.x)
    net = net.bind(net.values_of(module).fixed, {})

    result = rule.step(net, mlp.task.loss, net.init_params(), State(), batch, {}, 0)

    assert result.updates.keys() == {"2.weight"}
