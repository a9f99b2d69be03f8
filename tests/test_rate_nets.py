"""Networks of rate units, held to their equations written out by hand, to torch's GRU, and to BPTT."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from rulezoo import Net, credit, nets
from rulezoo_tasks import networks

EXACT = 1e-12  # float64, a few steps
BATCH, STEPS, N_IN, WIDTH, N_OUT, LEAK = 5, 6, 3, 4, 2, 0.3
SITES = {
    "leaky": {"recurrent": WIDTH, "pre": WIDTH, "hidden": WIDTH},
    "gru": {"recurrent": WIDTH, "gates": 2 * WIDTH, "pre": WIDTH, "hidden": WIDTH},
}
KINDS = pytest.mark.parametrize("kind", ["leaky", "gru"])
EVERY = pytest.mark.parametrize("every_step", [True, False])


def module_of(kind, *, n_out=N_OUT, every_step=False, **options):
    if kind == "gru":
        return nets.GRU(N_IN, WIDTH, n_out, every_step=every_step)
    return nets.LeakyRNN(N_IN, WIDTH, n_out, LEAK, every_step=every_step, **options)


def network(kind, **options):
    torch.manual_seed(3)
    module = module_of(kind, **options).double()
    x = torch.randn(BATCH, STEPS, N_IN, dtype=torch.float64)
    return Net(module, x), x


def leaky_by_hand(params, x, phi=math.tanh):
    """One example: arguments of φ and rates, ``(time, width)``."""
    w_in, b, w_rec = (params[name] for name in ("w_in.weight", "w_in.bias", "w_rec.weight"))
    rates, pres, states = [0.0] * WIDTH, [], []
    for u in x:
        before = list(rates)
        pre = [
            float(sum(w_rec[i, j] * before[j] for j in range(WIDTH)) + sum(w_in[i, j] * u[j] for j in range(N_IN)) + b[i])
            for i in range(WIDTH)
        ]  # fmt: skip
        rates = [(1 - LEAK) * before[i] + LEAK * phi(pre[i]) for i in range(WIDTH)]
        pres.append(pre)
        states.append(rates)
    keys = {"pre": pres, "hidden": states}
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in keys.items()}


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def gru_by_hand(params, x):
    """One example: arguments of the gates and of the candidate, and states, ``(time, …)``."""
    w, b, v, c = (params[name] for name in ("w_in.weight", "w_in.bias", "w_rec.weight", "w_rec.bias"))
    h, gates, pres, states = [0.0] * WIDTH, [], [], []
    for u in x:
        of_u = [float(sum(w[i, j] * u[j] for j in range(N_IN)) + b[i]) for i in range(3 * WIDTH)]
        of_h = [float(sum(v[i, j] * h[j] for j in range(WIDTH)) + c[i]) for i in range(3 * WIDTH)]
        gate = [of_u[i] + of_h[i] for i in range(2 * WIDTH)]
        r, z = [sigmoid(a) for a in gate[:WIDTH]], [sigmoid(a) for a in gate[WIDTH:]]
        pre = [of_u[2 * WIDTH + i] + r[i] * of_h[2 * WIDTH + i] for i in range(WIDTH)]
        h = [(1 - z[i]) * math.tanh(pre[i]) + z[i] * h[i] for i in range(WIDTH)]
        gates.append(gate)
        pres.append(pre)
        states.append(h)
    keys = {"gates": gates, "pre": pres, "hidden": states}
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in keys.items()}


BY_HAND = {"leaky": leaky_by_hand, "gru": gru_by_hand}


@KINDS
@EVERY
def test_a_network_equals_its_equations(kind, every_step):
    net, x = network(kind, every_step=every_step)
    params, seen = net.init_params(), {}
    output = net.run(params, x, lambda key, h: seen.setdefault(key, h))

    for one in range(BATCH):
        by_hand = BY_HAND[kind](params, x[one])
        for site, values in by_hand.items():
            for t in range(STEPS):
                torch.testing.assert_close(
                    seen[f"{site}[{t}]"][one],
                    values[t],
                    rtol=0,
                    atol=EXACT,
                )
        answers = by_hand["hidden"] @ params["w_out.weight"].T + params["w_out.bias"]
        torch.testing.assert_close(output[one], answers if every_step else answers[-1], rtol=0, atol=EXACT)
        for t in range(STEPS):
            before = by_hand["hidden"][t - 1] if t else torch.zeros(WIDTH, dtype=torch.float64)
            torch.testing.assert_close(seen[f"recurrent[{t}]"][one], before, rtol=0, atol=EXACT)


def test_another_activation():
    net, x = network("leaky", activation=torch.relu)
    by_hand = leaky_by_hand(net.init_params(), x[0], phi=lambda a: max(a, 0.0))["hidden"]
    answer = by_hand[-1] @ net.init_params()["w_out.weight"].T + net.init_params()["w_out.bias"]
    torch.testing.assert_close(net.run(net.init_params(), x)[0], answer, rtol=0, atol=EXACT)


@EVERY
def test_with_its_weights_torchs_gru_computes_the_same(every_step):
    torch.manual_seed(0)
    ours, theirs = (
        module_of("gru", every_step=every_step).double(),
        torch.nn.GRU(N_IN, WIDTH, batch_first=True).double(),
    )
    names = {
        "w_in.weight": "weight_ih_l0", "w_in.bias": "bias_ih_l0", "w_rec.weight": "weight_hh_l0", "w_rec.bias": "bias_hh_l0",
    }  # fmt: skip
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(ours.get_parameter(next(own for own, of in names.items() if of == name)))
    x = torch.randn(BATCH, STEPS, N_IN, dtype=torch.float64)
    states, last = theirs(x)
    expected = ours.w_out(states if every_step else last[0])
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=EXACT)

    loss = ours(x).square().sum()
    grads = torch.autograd.grad(loss, [ours.get_parameter(name) for name in names])
    wanted = torch.autograd.grad(
        expected.square().sum(), [theirs.get_parameter(name) for name in names.values()]
    )
    torch.testing.assert_close(grads, wanted, rtol=0, atol=EXACT)


def test_without_a_leak_it_is_torchs_rnn():
    torch.manual_seed(0)
    ours = nets.LeakyRNN(N_IN, WIDTH, None, 1.0).double()
    theirs = torch.nn.RNN(N_IN, WIDTH, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.w_in.weight)
        theirs.bias_ih_l0.copy_(ours.w_in.bias)
        theirs.weight_hh_l0.copy_(ours.w_rec.weight)
        theirs.bias_hh_l0.zero_()
    x = torch.randn(BATCH, STEPS, N_IN, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x)[0], rtol=0, atol=EXACT)


@EVERY
def test_it_is_the_leaky_network_of_the_built_in_tasks(every_step):
    def made(cls):
        torch.manual_seed(7)
        return cls(N_IN, WIDTH, N_OUT, LEAK, every_step=every_step)

    ours, theirs = made(nets.LeakyRNN), made(networks.LeakyRNN)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(BATCH, STEPS, N_IN)
    assert torch.equal(ours(x), theirs(x))
    assert {name for name, _ in Net(ours, x).module.named_modules()} == {
        name for name, _ in theirs.named_modules()
    }


def loss(output, y):
    steps = output[0].numel() // N_OUT
    return (
        F.cross_entropy(output.flatten(0, -2), y.repeat_interleave(steps), reduction="none")
        .view(len(y), -1)
        .sum(1)
    )


@KINDS
@EVERY
def test_true_signals_at_the_states_give_backprop_through_time(kind, every_step):
    net, x = network(kind, every_step=every_step)
    params, y = net.init_params(), torch.tensor([0, 1, 0, 1, 1])
    cut = credit.cut(net, params, x, net.keys("post"))
    error, _ = credit.output_error(loss, cut.output, y)

    grads = cut.pull(error, credit.site_gradients(net, loss, params, x, y, net.keys("post")))

    for name, true in credit.backprop(net, loss, params, x, y)[0].items():
        torch.testing.assert_close(grads[name], true, rtol=0, atol=EXACT, msg=name)
        assert true.abs().max() > 1e-4, name


@KINDS
def test_seeds_together_equal_seeds_one_by_one(kind):
    net, x = network(kind)
    y = torch.tensor([0, 1, 0, 1, 1])
    seeds = [dict(module_of(kind).double().named_parameters()) for _ in range(3)]
    stacked = {name: torch.stack([one[name].detach() for one in seeds]) for name in seeds[0]}

    together = torch.func.vmap(lambda params: credit.backprop(net, loss, params, x, y)[0])(stacked)

    for seed in range(3):
        alone = credit.backprop(net, loss, {name: p[seed] for name, p in stacked.items()}, x, y)[0]
        for name, grad in alone.items():
            torch.testing.assert_close(together[name][seed], grad, rtol=0, atol=EXACT)


@KINDS
def test_sites_and_the_read_out(kind):
    net, _ = network(kind)
    kinds = {
        "recurrent": ["recurrent"],
        "pre": [s for s in ("gates", "pre") if s in SITES[kind]],
        "post": ["hidden"],
    }
    for of_kind, sites in kinds.items():
        assert sorted(net.keys(of_kind)) == sorted(f"{site}[{t}]" for site in sites for t in range(STEPS))
    assert all(net.visits[f"{site}[0]"].width == width for site, width in SITES[kind].items())
    assert net.readout == {"w_out.weight", "w_out.bias"}


@KINDS
def test_without_a_read_out_it_returns_its_states(kind):
    module = module_of(kind, n_out=None).double()
    x = torch.randn(BATCH, STEPS, N_IN, dtype=torch.float64)
    params = {name: p.detach() for name, p in module.named_parameters()}
    torch.testing.assert_close(module(x)[0], BY_HAND[kind](params, x[0])["hidden"], rtol=0, atol=EXACT)
    assert not any(name.startswith("w_out") for name in params)
    with pytest.raises(ValueError, match="n_out=None is without a read-out"):
        module_of(kind, n_out=None, every_step=True)


@KINDS
def test_a_tap_on_the_recurrent_edge_reaches_the_weights_and_not_the_leak(kind):
    net, x = network(kind)
    params, seen, other = net.init_params(), {}, {}
    net.run(params, x, lambda key, h: seen.setdefault(key, h))

    def cut(key, h):
        other[key] = h
        return torch.zeros_like(h) if key == "recurrent[1]" else h

    net.run(params, x, cut)

    pre = seen["pre[1]"] - seen["recurrent[1]"] @ params["w_rec.weight"].T if kind == "leaky" else None
    if pre is not None:
        torch.testing.assert_close(other["pre[1]"], pre, rtol=0, atol=EXACT)
        state = (1 - LEAK) * seen["hidden[0]"] + LEAK * torch.tanh(pre)
    else:
        gates = x[:, 1] @ params["w_in.weight"].T + params["w_in.bias"]
        bias = params["w_rec.bias"]
        r, z = torch.sigmoid(gates[:, : 2 * WIDTH] + bias[: 2 * WIDTH]).chunk(2, -1)
        state = (1 - z) * torch.tanh(gates[:, 2 * WIDTH :] + r * bias[2 * WIDTH :]) + z * seen["hidden[0]"]
    torch.testing.assert_close(other["hidden[1]"], state, rtol=0, atol=EXACT)


@pytest.mark.parametrize("leak", [0, -0.1, 1.5, math.nan])
def test_a_leak_that_is_none_is_refused(leak):
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"leak must be above 0 and at most 1, the share of a rate that is new at each step, got {leak}"
        ),
    ):
        nets.LeakyRNN(2, 3, 1, leak)


def test_the_size_of_initial_weights():
    torch.manual_seed(0)
    recurrent = nets.LeakyRNN(3, 50, 2, 0.5).w_rec.weight
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(50), rtol=0, atol=1e-5)
    gated = nets.GRU(30, 100, 2)
    for parameter in (*gated.w_in.parameters(), *gated.w_rec.parameters()):
        assert 0.09 < parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)
