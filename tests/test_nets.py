"""Spiking networks, held to their equations written out one neuron and step at a time, and to BPTT written by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rulezoo import Net, credit, nets

EXACT = 1e-12  # float64, a few steps
DECAY, RHO, KAPPA, GAMMA = 0.8, 0.9, 0.7, 0.4


def network(kind, every_step=False):
    """A network with lively weights, and inputs of five examples and six steps; a spike in about every fourth place."""
    torch.manual_seed(3)
    widths, adaptation, recurrent = {
        "recurrent": ((3, 5, 2), 0.6, True),
        "deep": ((3, 5, 4, 2), 0.0, False),
        "deep recurrent": ((3, 5, 4, 2), 0.6, True),
    }[kind]
    module = nets.SpikingNetwork(
        widths, recurrent=recurrent, every_step=every_step, decay=DECAY, adaptation=adaptation,
        adaptation_decay=RHO, readout_decay=KAPPA, dampening=GAMMA, gain=(2.5, 5.0),
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer in module.children():
            if isinstance(layer, nets.LIF):
                layer.w_in.bias.normal_(mean=0.2, std=0.3)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    return Net(module, x), x, adaptation


KINDS = pytest.mark.parametrize("kind", ["recurrent", "deep", "deep recurrent"])
EVERY = pytest.mark.parametrize("every_step", [True, False])


def layers_of(params):
    return sorted({name.split(".")[0] for name in params if name.startswith("lif")})


def run_by_hand(params, x, beta):
    """One example: per layer the inputs, potentials above threshold and spikes, ``(time, n)``; and the outputs."""
    record, seen = {}, x
    for layer in layers_of(params):
        w, b = params[f"{layer}.w_in.weight"], params[f"{layer}.w_in.bias"]
        w_rec = params.get(f"{layer}.w_rec.weight")
        n = len(w)
        v, a, z = [0.0] * n, [0.0] * n, [0.0] * n
        above, spikes = [], []
        for x_t in seen:
            before = list(z)
            for i in range(n):
                drive = float(sum(w[i, j] * x_t[j] for j in range(len(x_t))) + b[i])
                if w_rec is not None:
                    drive += float(sum(w_rec[i, j] * before[j] for j in range(n)))
                v[i] = DECAY * v[i] + drive - before[i]
                a[i] = RHO * a[i] + before[i]
            u = [v[i] - 1 - beta * a[i] for i in range(n)]
            z = [1.0 if u[i] > 0 else 0.0 for i in range(n)]
            above.append(u)
            spikes.append(z)
        spikes = torch.tensor(spikes, dtype=torch.float64)
        record[layer] = (seen, torch.tensor(above, dtype=torch.float64), spikes)
        seen = spikes
    s, outputs, memory = torch.zeros(seen.shape[1], dtype=torch.float64), [], []
    for z in seen:
        s = KAPPA * s + (1 - KAPPA) * z
        memory.append(s)
        outputs.append(params["w_out.weight"] @ s + params["w_out.bias"])
    return record, torch.stack(memory), torch.stack(outputs)


def bptt_by_hand(params, x, beta, errors):
    """The gradient for one example: adjoints of potentials and adaptation, from the last step to the first.

    ``errors`` is ``(time, outputs)``, zero at steps without an answer.
    """
    record, memory, _ = run_by_hand(params, x, beta)
    grads = {"w_out.weight": errors.T @ memory, "w_out.bias": errors.sum(0)}
    of_memory, of_spikes = torch.zeros(memory.shape[1], dtype=torch.float64), []
    for e in reversed(errors):
        of_memory = params["w_out.weight"].T @ e + KAPPA * of_memory
        of_spikes.insert(0, (1 - KAPPA) * of_memory)
    for layer in reversed(layers_of(params)):
        inputs, above, spikes = record[layer]
        w_rec = params.get(f"{layer}.w_rec.weight")
        n = above.shape[1]
        of_v = of_a = torch.zeros(n, dtype=torch.float64)
        below = []
        grads[f"{layer}.w_in.weight"] = torch.zeros_like(params[f"{layer}.w_in.weight"])
        grads[f"{layer}.w_in.bias"] = torch.zeros(n, dtype=torch.float64)
        if w_rec is not None:
            grads[f"{layer}.w_rec.weight"] = torch.zeros_like(w_rec)
        for t in reversed(range(len(inputs))):
            of_z = of_spikes[t] + of_a  # the adaptation of the next step
            if w_rec is not None:
                of_z = of_z + w_rec.T @ of_v  # the potentials of the next step; nothing through the reset
            of_u = GAMMA * (1 - above[t].abs()).clamp(min=0) * of_z
            of_v, of_a = of_u + DECAY * of_v, RHO * of_a - beta * of_u
            grads[f"{layer}.w_in.weight"] += torch.outer(of_v, inputs[t])
            grads[f"{layer}.w_in.bias"] += of_v
            if w_rec is not None and t:
                grads[f"{layer}.w_rec.weight"] += torch.outer(of_v, spikes[t - 1])
            below.insert(0, params[f"{layer}.w_in.weight"].T @ of_v)
        of_spikes = below
    return grads


@KINDS
@EVERY
def test_a_spiking_network_equals_its_equations(kind, every_step):
    net, x, beta = network(kind, every_step)
    params, seen = net.init_params(), {}
    output = net.run(params, x, lambda key, h: seen.setdefault(key, h))

    for one in range(len(x)):
        record, _, outputs = run_by_hand(params, x[one], beta)
        torch.testing.assert_close(output[one], outputs if every_step else outputs[-1], rtol=0, atol=EXACT)
        for layer, (_, above, spikes) in record.items():
            for t in range(6):
                torch.testing.assert_close(seen[f"{layer}.pre[{t}]"][one], above[t], rtol=0, atol=EXACT)
                assert torch.equal(seen[f"{layer}.post[{t}]"][one], spikes[t])
    for layer in layers_of(params):
        rate = torch.stack([seen[f"{layer}.post[{t}]"] for t in range(6)]).mean()
        assert 0.1 < rate < 0.6, "the test sees spikes and silence"


def loss(output, y):
    losses = F.cross_entropy(
        output.flatten(0, -2), y.repeat_interleave(output[0].numel() // 2), reduction="none"
    )
    return losses.view(len(y), -1).sum(1)


@KINDS
@EVERY
def test_backprop_is_backprop_through_time_with_the_pseudo_derivative(kind, every_step):
    net, x, beta = network(kind, every_step)
    params, y = net.init_params(), torch.tensor([0, 1, 0, 1, 1])
    grads, _ = credit.backprop(net, loss, params, x, y)

    error, _ = credit.output_error(loss, net.run(params, x), y)
    if not every_step:
        error = F.pad(error.unsqueeze(1), (0, 0, 5, 0))
    by_hand = [bptt_by_hand(params, x[one], beta, error[one]) for one in range(len(x))]
    assert grads.keys() == by_hand[0].keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, sum(one[name] for one in by_hand), rtol=0, atol=EXACT, msg=name)
        assert grad.abs().max() > 1e-4, name


@KINDS
def test_true_signals_at_the_spikes_give_backprop(kind):
    net, x, _ = network(kind)
    params, y = net.init_params(), torch.tensor([0, 1, 0, 1, 1])
    cut = credit.cut(net, params, x, net.keys("post"))
    error, _ = credit.output_error(loss, cut.output, y)

    grads = cut.pull(error, credit.site_gradients(net, loss, params, x, y, net.keys("post")))

    for name, true in credit.backprop(net, loss, params, x, y)[0].items():
        torch.testing.assert_close(grads[name], true, rtol=0, atol=EXACT, msg=name)


def test_a_tap_on_spikes_reaches_other_neurons_and_not_the_reset_or_the_adaptation():
    net, x, _ = network("recurrent")
    params = net.init_params() | {"lif1.w_rec.weight": torch.zeros(5, 5, dtype=torch.float64)}
    seen, other = {}, {}
    plain = net.run(params, x, lambda key, h: seen.setdefault(key, h))

    def more(key, h):
        other[key] = h
        return h + 1 if key == "lif1.post[2]" else h

    changed = net.run(params, x, more)

    assert all(torch.equal(seen[key], other[key]) for key in seen if ".post" in key or ".pre" in key)
    weight = (
        (1 - KAPPA) * KAPPA**3 * params["w_out.weight"].sum(1)
    )  # of a spike three steps before the answer
    torch.testing.assert_close(changed - plain, weight.expand(5, 2))
    params["lif1.w_rec.weight"] = torch.eye(5, dtype=torch.float64)
    assert not torch.allclose(net.run(params, x, more), net.run(params, x) + weight)


def test_sites_and_the_read_out():
    net, _, _ = network("deep recurrent")
    kinds = {"recurrent": "recurrent", "pre": "pre", "post": "post"}
    for site, kind in kinds.items():
        assert net.keys(kind) == [f"lif{n}.{site}[{t}]" for n in (1, 2) for t in range(6)]
    assert net.readout == {"w_out.weight", "w_out.bias"}


def test_a_spike_and_its_pseudo_derivative():
    u = torch.tensor([-2.0, -1.0, -0.5, 0.0, 1e-9, 0.25, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    z = nets.spike(u, 0.3)
    assert z.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]

    slope = torch.tensor([0, 0, 0.15, 0.3, 0.3, 0.225, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(z.sum(), u)[0], slope)
    ones = torch.ones_like(slope)
    _, forward = credit.value_and_derivative(lambda v: nets.spike(v, 0.3), u.detach(), ones)
    torch.testing.assert_close(forward, slope)
    batched = torch.func.vmap(torch.func.grad(lambda v: nets.spike(v, 0.3)))(u.detach())
    torch.testing.assert_close(batched, slope)


def test_the_size_of_initial_weights():
    torch.manual_seed(0)
    net = nets.SpikingNetwork((400, 300, 200, 2), gain=(2.0, 0.5), recurrent=True)
    for weight, std in (
        (net.lif1.w_in.weight, 2 / 400**0.5), (net.lif2.w_in.weight, 0.5 / 300**0.5), (net.lif1.w_rec.weight, 300**-0.5),
    ):  # fmt: skip
        assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel()))
    assert not net.lif1.w_in.bias.any()
    same = nets.SpikingNetwork((400, 300, 200, 2), gain=2.0)
    assert same.lif2.w_in.weight.std().item() == pytest.approx(2 / 300**0.5, rel=0.02)
    assert not hasattr(same.lif1, "w_rec")
