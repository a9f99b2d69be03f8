"""The numerics of credit assignment, held to slow twins in float64: plain autograd, and recursions written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rulezoo import Net, NetError, Site, credit

RTOL = 1e-9  # of the largest entry; float64 leaves about 1e-15, added up over a network


def assert_equal(got, wanted):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=RTOL * float(tensor.abs().max()), msg=name)


def autograd(tiny, params, x, y, keys=()):
    """Gradients of the mean loss with respect to parameters and activity, by one plain backward pass."""
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    sites = {}

    def tap(key, activity):
        # A copy, since one tensor may pass two sites: a state, and the recurrent edge that leaves it. It is a leaf
        # where activity is a constant, like the first state.
        sites[key] = activity.clone() if activity.requires_grad else activity.clone().requires_grad_()
        return sites[key]

    mean = tiny.task.loss(tiny.net.run(leaves, x, tap), y).mean()
    wanted = list(leaves.values()) + [sites[key] for key in keys]
    grads = torch.autograd.grad(mean, wanted)
    return (
        dict(zip(leaves, grads, strict=False)),
        dict(zip(keys, grads[len(leaves) :], strict=True)),
        mean.detach(),
    )


def start(tiny):
    return tiny.params(), *tiny.batch()


def random_like(params, names, seed=1):
    gen = torch.Generator().manual_seed(seed)
    return {n: torch.randn(params[n].shape, generator=gen, dtype=params[n].dtype) for n in names}


# --------------------------------------------------------------------------------------------------------------------
# The cut


def keys_of(tiny, kinds):
    return [key for key, visit in tiny.net.visits.items() if visit.kind in kinds]


@pytest.mark.parametrize(
    "kinds", [("post",), ("pre",), ("pre", "post"), ("recurrent", "pre", "post")], ids="+".join
)
def test_a_cut_with_the_true_site_gradients_is_backprop(tiny, kinds):
    params, x, y = start(tiny)
    keys = keys_of(tiny, kinds)
    true, signals, _ = autograd(tiny, params, x, y, keys)

    cut = credit.cut(tiny.net, params, x, keys)
    error, _ = credit.output_error(tiny.task.loss, cut.output, y)

    assert_equal(cut.pull(error, signals), true)


def test_a_cut_at_a_recurrent_edge_alone_is_backprop(tiny):
    """The true gradient of an edge is less than that of the state behind it: cuts must not mix the two up."""
    params, x, y = start(tiny)
    keys = tiny.net.keys("recurrent")
    true, signals, _ = autograd(tiny, params, x, y, keys)
    cut = credit.cut(tiny.net, params, x, keys)

    assert_equal(cut.pull(credit.output_error(tiny.task.loss, cut.output, y)[0], signals), true)


def test_a_cut_leaves_the_forward_pass_alone(tiny):
    params, x, _ = start(tiny)
    seen = {}
    output = tiny.net.run(params, x, lambda key, h: seen.setdefault(key, h))

    cut = credit.cut(tiny.net, params, x, tiny.net.keys("post"))

    assert torch.equal(cut.output, output)
    assert list(cut.sites) == tiny.net.keys("post")
    assert all(torch.equal(cut.sites[key], seen[key]) for key in cut.sites)
    assert not any(h.requires_grad for h in [cut.output, *cut.sites.values()])


def test_without_signals_the_read_out_learns_by_the_exact_gradient_and_nothing_else_does(tiny):
    params, x, y = start(tiny)
    true, _, _ = autograd(tiny, params, x, y)
    cut = credit.cut(tiny.net, params, x, tiny.net.keys("post"))

    grads = cut.pull(credit.output_error(tiny.task.loss, cut.output, y)[0], {})

    zero = {name: torch.zeros_like(p) for name, p in params.items()}
    assert_equal(grads, {name: true[name] if name in tiny.net.readout else zero[name] for name in params})


def test_no_signal_crosses_a_cut(mlp):
    params, x, _ = start(mlp)
    cut = credit.cut(mlp.net, params, x, mlp.net.keys("post"))

    grads = cut.pull(torch.zeros_like(cut.output), {"post2": torch.ones_like(cut.sites["post2"])})

    assert {name for name, grad in grads.items() if grad.any()} == {"fc2.weight", "fc2.bias"}


def test_local_gradients_of_a_multilayer_perceptron_written_out(mlp):
    params, x, _ = start(mlp)
    cut = credit.cut(mlp.net, params, x, mlp.net.keys("post"))
    gen = torch.Generator().manual_seed(2)
    error, v1, v2 = (
        torch.randn(h.shape, generator=gen, dtype=h.dtype) for h in (cut.output, *cut.sites.values())
    )

    grads = cut.pull(error, {"post1": v1, "post2": v2})

    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    d1, d2 = v1 * (1 - h1**2), v2 * (1 - h2**2)
    assert_equal(
        grads,
        {
            "fc1.weight": d1.T @ x,
            "fc1.bias": d1.sum(0),
            "fc2.weight": d2.T @ h1,
            "fc2.bias": d2.sum(0),
            "readout.weight": error.T @ h2,
            "readout.bias": error.sum(0),
        },
    )


def test_a_site_may_be_the_output():
    x = torch.randn(4, 5, dtype=torch.float64)
    net = Net(nn.Sequential(nn.Linear(5, 3), Site()).double(), x)
    params = net.init_params()
    signal = torch.randn(4, 3, dtype=torch.float64)

    grads = credit.cut(net, params, x, ["1"]).pull(torch.ones(4, 3, dtype=torch.float64), {"1": signal})

    assert_equal(grads, {"0.weight": signal.T @ x, "0.bias": signal.sum(0)})


# --------------------------------------------------------------------------------------------------------------------
# Backprop and its pieces


def test_backprop_is_autograd(tiny):
    params, x, y = start(tiny)
    true, _, mean = autograd(tiny, params, x, y)

    grads, loss = credit.backprop(tiny.net, tiny.task.loss, params, x, y)

    assert_equal(grads, true)
    assert torch.equal(loss, mean)


def test_backprop_for_some_parameters_alone(tiny):
    params, x, y = start(tiny)
    true, _, mean = autograd(tiny, params, x, y)

    grads, loss = credit.backprop(tiny.net, tiny.task.loss, params, x, y, only=tiny.net.readout)

    assert_equal(grads, {name: true[name] for name in params if name in tiny.net.readout})
    assert torch.equal(loss, mean)


def test_site_gradients_are_autograds(tiny):
    params, x, y = start(tiny)
    keys = list(tiny.net.visits)
    _, true, _ = autograd(tiny, params, x, y, keys)

    assert_equal(credit.site_gradients(tiny.net, tiny.task.loss, params, x, y, keys), true)


def test_the_error_is_the_gradient_of_the_mean_loss(mlp):
    """Cross-entropy: (softmax - one-hot) / batch."""
    params, x, y = start(mlp)
    output = mlp.net.run(params, x)

    error, mean = credit.output_error(mlp.task.loss, output, y)

    torch.testing.assert_close(error, (output.softmax(1) - F.one_hot(y, 3)) / len(y), rtol=RTOL, atol=0)
    torch.testing.assert_close(
        mean, -output.log_softmax(1)[torch.arange(len(y)), y].mean(), rtol=RTOL, atol=0
    )


# --------------------------------------------------------------------------------------------------------------------
# Feedback weights


def test_feedback_through_the_forward_weights_is_backprop(tiny):
    params, x, y = start(tiny)
    true, _, mean = autograd(tiny, params, x, y)
    feedback = {name: params[name].clone() for name in credit.feedback_layers(tiny.net, params)}

    grads, loss = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, x, y)

    assert feedback.keys() == {name for name, p in params.items() if p.ndim > 1}
    assert_equal(grads, true)
    assert torch.equal(loss, mean)


def test_the_loss_does_not_depend_on_the_feedback(tiny):
    params, x, y = start(tiny)
    plain = tiny.task.loss(tiny.net.run(params, x), y).mean()
    huge = {
        name: 1e200 * b for name, b in random_like(params, credit.feedback_layers(tiny.net, params)).items()
    }

    _, loss = credit.through_feedback(tiny.net, tiny.task.loss, params, huge, x, y)

    assert torch.equal(loss, plain)


def test_feedback_alignment_on_a_multilayer_perceptron_written_out(mlp):
    params, x, y = start(mlp)
    feedback = random_like(params, ["fc2.weight", "readout.weight"])

    grads, _ = credit.through_feedback(mlp.net, mlp.task.loss, params, feedback, x, y)

    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    output = h2 @ params["readout.weight"].T + params["readout.bias"]
    d3 = (output.softmax(1) - F.one_hot(y, 3)) / len(y)
    d2 = (d3 @ feedback["readout.weight"]) * (1 - h2**2)
    d1 = (d2 @ feedback["fc2.weight"]) * (1 - h1**2)
    assert_equal(
        grads,
        {
            "fc1.weight": d1.T @ x,
            "fc1.bias": d1.sum(0),
            "fc2.weight": d2.T @ h1,
            "fc2.bias": d2.sum(0),
            "readout.weight": d3.T @ h2,
            "readout.bias": d3.sum(0),
        },
    )


@pytest.mark.parametrize("tiny", ["cnn"], indirect=True)
def test_feedback_alignment_on_a_convolutional_network_written_out(tiny):
    """Along the branch and along the skip connection; convolutions turned round by torch.nn.grad."""
    params, x, y = start(tiny)
    feedback = random_like(params, ["conv2.weight", "readout.weight"])

    grads, _ = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, x, y)

    s1 = F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=1)
    h1, where = F.max_pool2d(s1.relu(), 2, return_indices=True)
    s2 = F.conv2d(h1, params["conv2.weight"], params["conv2.bias"], padding=1)
    h2 = h1 + s2.relu()
    output = h2.flatten(1) @ params["readout.weight"].T + params["readout.bias"]
    d_out = (output.softmax(1) - F.one_hot(y, 3)) / len(y)
    d_h2 = (d_out @ feedback["readout.weight"]).view_as(h2)
    d_s2 = d_h2 * (s2 > 0)
    d_h1 = d_h2 + nn.grad.conv2d_input(h1.shape, feedback["conv2.weight"], d_s2, padding=1)
    d_s1 = F.max_unpool2d(d_h1, where, 2) * (s1 > 0)
    assert_equal(
        grads,
        {
            "conv1.weight": nn.grad.conv2d_weight(x, params["conv1.weight"].shape, d_s1, padding=1),
            "conv1.bias": d_s1.sum((0, 2, 3)),
            "conv2.weight": nn.grad.conv2d_weight(h1, params["conv2.weight"].shape, d_s2, padding=1),
            "conv2.bias": d_s2.sum((0, 2, 3)),
            "readout.weight": d_out.T @ h2.flatten(1),
            "readout.bias": d_out.sum(0),
        },
    )


@pytest.mark.parametrize("tiny", ["rnn", "rnn-every-step"], indirect=True)
def test_feedback_alignment_through_time_written_out(tiny):
    params, x, y = start(tiny)
    feedback = random_like(params, ["w_rec.weight", "w_out.weight"])
    leak, steps = tiny.net.module.LEAK, x.shape[1]

    grads, _ = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, x, y)

    states, rates = [x.new_zeros(len(x), 6)], []
    for t in range(steps):
        drive = (
            states[-1] @ params["w_rec.weight"].T + x[:, t] @ params["w_in.weight"].T + params["w_in.bias"]
        )
        rates.append(torch.tanh(drive))
        states.append((1 - leak) * states[-1] + leak * rates[-1])
    wanted = {name: torch.zeros_like(p) for name, p in params.items()}
    d_h = x.new_zeros(len(x), 6)  # what reaches the state of this step from later ones
    for t in reversed(range(steps)):
        if tiny.name == "rnn-every-step" or t == steps - 1:
            output = states[t + 1] @ params["w_out.weight"].T + params["w_out.bias"]
            target, share = (y[:, t], steps) if y.ndim == 2 else (y, 1)
            error = (output.softmax(1) - F.one_hot(target, 3)) / len(y) / share
            wanted["w_out.weight"] += error.T @ states[t + 1]
            wanted["w_out.bias"] += error.sum(0)
            d_h = d_h + error @ feedback["w_out.weight"]
        d_s = leak * d_h * (1 - rates[t] ** 2)
        wanted["w_rec.weight"] += d_s.T @ states[t]
        wanted["w_in.weight"] += d_s.T @ x[:, t]
        wanted["w_in.bias"] += d_s.sum(0)
        d_h = (1 - leak) * d_h + d_s @ feedback["w_rec.weight"]
    assert_equal(grads, wanted)


class Two(nn.Module):
    """A layer, tanh, the layer under test, and its output as one vector."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(torch.tanh(self.first(x))).flatten(1)


LAYERS = {
    "conv2d": (2, nn.Conv2d, {}),
    "stride": (2, nn.Conv2d, {"stride": 2}),
    "uneven": (2, nn.Conv2d, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    "padding": (2, nn.Conv2d, {"padding": 2}),
    "dilation": (2, nn.Conv2d, {"dilation": 2, "padding": 1}),
    "groups": (2, nn.Conv2d, {"groups": 2}),
    "depthwise, no bias": (2, nn.Conv2d, {"groups": 4, "bias": False}),
    "same": (2, nn.Conv2d, {"padding": "same", "dilation": 2}),
    "same, even": (2, nn.Conv2d, {"padding": "same", "kernel_size": (2, 4), "dilation": (1, 3)}),
    "valid": (2, nn.Conv2d, {"padding": "valid"}),
    "circular": (2, nn.Conv2d, {"padding": 1, "padding_mode": "circular"}),
    "conv1d": (1, nn.Conv1d, {"stride": 2, "padding": 1}),
    "conv1d, same": (1, nn.Conv1d, {"padding": "same", "kernel_size": 4}),
    "conv3d": (3, nn.Conv3d, {"padding": 1}),
}


def squares(output, target):
    return output.square().sum(1)


@pytest.fixture(params=LAYERS)
def convolution(request):
    """A convolution behind another, in every geometry: its net, an input, and the class of the layer."""
    dims, kind, options = LAYERS[request.param]
    torch.manual_seed(0)
    first = kind(2, 4, 3, padding=1)
    module = Two(first, kind(4, 8, **{"kernel_size": 3, **options})).double()
    x = torch.randn(3, 2, *[7, 6, 5][:dims], dtype=torch.float64)
    return Net(module, x), x


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's hint about even kernels
def test_every_geometry_of_convolutions_with_forward_weights_is_backprop(convolution):
    net, x = convolution
    params = net.init_params()
    feedback = {name: params[name].clone() for name in credit.feedback_layers(net, params)}

    grads, _ = credit.through_feedback(net, squares, params, feedback, x, x)

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    true = torch.autograd.grad(squares(net.run(leaves, x), x).mean(), list(leaves.values()))
    assert feedback.keys() == {"first.weight", "second.weight"}
    assert_equal(grads, dict(zip(leaves, true, strict=True)))


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's hint about even kernels
def test_every_geometry_of_convolutions_sends_the_error_through_the_feedback_weight(convolution):
    """The twin: the pull-back of the same layer with B in W's place gives the error, that with W the weight gradient."""
    net, x = convolution
    params = net.init_params()
    feedback = random_like(params, ["second.weight"])
    second = net.module.second

    grads, _ = credit.through_feedback(net, squares, params, feedback, x, x)

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    hidden = torch.tanh(torch.func.functional_call(net.module.first, {
        name: leaves[f"first.{name}"] for name, _ in net.module.first.named_parameters()}, (x,)))  # fmt: skip
    below = hidden.detach().requires_grad_()
    own = {name.removeprefix("second."): p for name, p in leaves.items() if name.startswith("second.")}
    output = torch.func.functional_call(second, own, (below,))
    error = 2 * output.detach() / len(x)
    through = torch.func.functional_call(second, own | {"weight": feedback["second.weight"]}, (below,))
    (delta,) = torch.autograd.grad(through, below, error)
    top = torch.autograd.grad(output, list(own.values()), error)
    bottom = [leaves[name] for name in leaves if name.startswith("first.")]
    wanted = [*torch.autograd.grad(hidden, bottom, delta), *top]
    assert_equal(grads, dict(zip(leaves, wanted, strict=True)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_sequences(bias):
    """``(batch, time, features)``, as in an attention block."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    net = Net(Two(nn.Linear(5, 6, bias=bias), nn.Linear(6, 2, bias=bias)).double(), x)
    params = net.init_params()
    b = random_like(params, ["second.weight"])

    grads, _ = credit.through_feedback(net, squares, params, b, x, x)

    hidden = torch.tanh(x @ params["first.weight"].T + (params["first.bias"] if bias else 0))
    error = 2 * (hidden @ params["second.weight"].T + (params["second.bias"] if bias else 0)) / len(x)
    delta = (error @ b["second.weight"]) * (1 - hidden**2)
    wanted = {
        "first.weight": torch.einsum("bto,bti->oi", delta, x),
        "first.bias": delta.sum((0, 1)),
        "second.weight": torch.einsum("bto,bti->oi", error, hidden),
        "second.bias": error.sum((0, 1)),
    }
    assert_equal(grads, {name: wanted[name] for name in params})


def test_layers_called_by_keyword_are_found():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(4, 1, 3, dtype=torch.float64))
            self.b = nn.Parameter(torch.randn(2, 20, dtype=torch.float64))

        def forward(self, x):
            h = torch.tanh(F.conv1d(input=x, weight=self.a, padding=1))
            return F.linear(input=h.flatten(1), weight=self.b)

    torch.manual_seed(0)
    x = torch.randn(3, 1, 5, dtype=torch.float64)
    net = Net(Keywords(), x)
    params = net.init_params()
    assert credit.feedback_layers(net, params) == {"a", "b"}

    b = random_like(params, ["b"])
    grads, _ = credit.through_feedback(net, squares, params, b, x, x)
    true, _ = credit.backprop(net, squares, params, x, x)
    assert not torch.allclose(grads["a"], true["a"])


CONVOLUTIONS = {"conv1d": (F.conv1d, 1), "conv2d": (F.conv2d, 2), "conv3d": (F.conv3d, 3)}
CALLS = {  # groups, and how a network calls a convolution with an input, a weight and, perhaps, a bias
    "input and weight alone": (1, lambda conv, x, w, b: conv(x, w)),
    "by keyword": (1, lambda conv, x, w, b: conv(input=x, weight=w)),
    "weight by keyword": (1, lambda conv, x, w, b: conv(x, weight=w)),
    "no bias": (1, lambda conv, x, w, b: conv(x, w, None)),
    "bias": (1, lambda conv, x, w, b: conv(x, w, b)),
    "bias by keyword": (1, lambda conv, x, w, b: conv(x, bias=b, weight=w)),
    "stride": (1, lambda conv, x, w, b: conv(x, w, b, 2)),
    "stride by keyword": (1, lambda conv, x, w, b: conv(x, w, stride=2)),
    "padding by keyword": (1, lambda conv, x, w, b: conv(x, w, padding=1)),
    "dilation by keyword": (1, lambda conv, x, w, b: conv(x, w, dilation=2)),
    "groups by keyword": (2, lambda conv, x, w, b: conv(x, w, groups=2)),
    "same": (1, lambda conv, x, w, b: conv(x, w, padding="same")),
    "same by position": (1, lambda conv, x, w, b: conv(x, w, b, 1, "same")),
    "same, dilated": (1, lambda conv, x, w, b: conv(x, w, padding="same", dilation=3)),
    "valid": (1, lambda conv, x, w, b: conv(x, w, padding="valid")),
    "all by position": (2, lambda conv, x, w, b: conv(x, w, b, 2, 1, 2, 2)),
    "all by keyword": (
        2,
        lambda conv, x, w, b: conv(groups=2, padding=1, stride=2, bias=b, weight=w, input=x),
    ),
}


class Called(nn.Module):
    """A linear layer along the last dimension and a tanh, and behind it a convolution that is called as a function."""

    def __init__(self, convolve, weight):
        super().__init__()
        self.convolve = convolve
        self.first = nn.Linear(weight.shape[-1] + 4, weight.shape[-1] + 4).double()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.randn(len(weight)).double())

    def forward(self, x):
        return self.convolve(torch.tanh(self.first(x)), self.weight, self.bias).flatten(1)


@pytest.fixture(params=CALLS)
def called(request):
    return CALLS[request.param]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's hint about even kernels
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize(("conv", "dims"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_however_a_convolution_is_called_the_error_goes_through_the_feedback_weight(
    called, conv, dims, kernel
):
    """Defaults are torch's: the twin makes the same call with B in W's place, and autograd pulls the error back."""
    groups, call = called
    torch.manual_seed(0)
    weight = torch.randn(6, 4 // groups, *[kernel] * dims, dtype=torch.float64)
    x = torch.randn(3, 4, *[kernel + 4] * dims, dtype=torch.float64)
    net = Net(Called(lambda h, w, b: call(conv, h, w, b), weight), x)
    params = net.init_params()
    feedback = random_like(params, ["weight"])
    assert "weight" in credit.feedback_layers(net, params)

    grads, _ = credit.through_feedback(net, squares, params, feedback, x, x)
    (seen,) = credit.layer_inputs(net, params, x, ["weight"]).values()

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    hidden = torch.tanh(F.linear(x, leaves["first.weight"], leaves["first.bias"]))
    below = hidden.detach().requires_grad_()
    output = call(conv, below, leaves["weight"], leaves["bias"])
    error = 2 * output.detach() / len(x)
    (delta,) = torch.autograd.grad(call(conv, below, feedback["weight"], leaves["bias"]), below, error)
    squares(output.flatten(1), x).mean().backward(inputs=[leaves["weight"], leaves["bias"]])
    hidden.backward(delta, inputs=[leaves["first.weight"], leaves["first.bias"]])
    assert_equal(grads, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()})

    filters = params["weight"].flatten(1).unflatten(0, (groups, -1))
    response = torch.einsum("bgpi,gfi->bgfp", seen.unflatten(0, (len(x), groups, -1)), filters)
    without_bias = call(conv, hidden, params["weight"], torch.zeros_like(params["bias"]))
    torch.testing.assert_close(response.flatten(1), without_bias.detach().flatten(1), rtol=RTOL, atol=1e-12)


def test_weights_of_other_layers_are_no_feedback_layers():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.readout = nn.Embedding(6, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.readout(self.embedding(x).mean(1))

    x = torch.zeros(1, 3, dtype=torch.long)
    net = Net(Embedded(), x)
    assert credit.feedback_layers(net, net.init_params()) == {"readout.weight"}


def test_feedback_weights_are_not_in_force_after_a_failure(mlp):
    params, x, y = start(mlp)

    def failing(output, target):
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        credit.through_feedback(mlp.net, failing, params, random_like(params, ["fc2.weight"]), x, y)

    assert_equal(credit.backprop(mlp.net, mlp.task.loss, params, x, y)[0], autograd(mlp, params, x, y)[0])


# --------------------------------------------------------------------------------------------------------------------
# What layers are fed with


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's hint about even kernels
def test_what_a_convolution_is_fed_with_times_its_weight_is_its_response(convolution):
    """In every geometry; rows go by example, group and position."""
    net, x = convolution
    params, second = net.init_params(), net.module.second
    hidden = torch.tanh(net.module.first(x))

    rows = credit.layer_inputs(net, params, x, ["first.weight", "second.weight"])

    filters = (
        params["second.weight"].flatten(1).unflatten(0, (second.groups, -1))
    )  # (groups, filters of each, in)
    patches = rows["second.weight"].unflatten(
        0, (len(x), second.groups, -1)
    )  # (batch, groups, positions, in)
    response = torch.einsum("bgpi,gfi->bgfp", patches, filters).flatten(1)
    bias = 0 if second.bias is None else second.bias.detach().repeat_interleave(response.shape[1] // 8)
    torch.testing.assert_close(response + bias, second(hidden).detach().flatten(1), rtol=RTOL, atol=1e-12)
    assert rows["first.weight"].shape[1] == params["first.weight"][0].numel()


@pytest.mark.parametrize("tiny", ["rnn"], indirect=True)
def test_what_recurrent_weights_are_fed_with_is_every_state_that_enters_them(tiny):
    params, x, _ = start(tiny)
    states = {}
    tiny.net.run(params, x, lambda key, h: states.setdefault(key, h))

    rows = credit.layer_inputs(tiny.net, params, x, ["w_rec.weight", "w_in.weight"])

    entering = [states[key] for key in tiny.net.keys("recurrent")]
    assert torch.equal(rows["w_rec.weight"], torch.cat(entering))
    assert torch.equal(rows["w_in.weight"], x.transpose(0, 1).flatten(0, 1))


def test_what_layers_are_fed_with_under_vmap_is_the_same(tiny):
    params, _, _ = start(tiny)
    xs = torch.stack([tiny.batch(seed=seed).x for seed in range(2)])
    names = sorted(credit.feedback_layers(tiny.net, params))

    together = torch.func.vmap(lambda x: credit.layer_inputs(tiny.net, params, x, names))(xs)

    for i, x in enumerate(xs):
        assert_equal(
            {n: rows[i] for n, rows in together.items()}, credit.layer_inputs(tiny.net, params, x, names)
        )


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_chosen_rows_are_those_of_all_rows_in_every_geometry(convolution):
    net, x = convolution
    params, names = net.init_params(), ["first.weight", "second.weight"]

    def choose(rows):
        return torch.arange(7) * 5 % rows

    chosen = credit.layer_inputs(net, params, x, names, choose)
    for name, rows in credit.layer_inputs(net, params, x, names).items():
        assert torch.equal(chosen[name], rows[choose(len(rows))])


def test_chosen_rows_of_all_visits_under_vmap_too(tiny):
    params, x, _ = start(tiny)
    names = sorted(credit.feedback_layers(tiny.net, params))

    def choose(rows):
        return torch.tensor([rows - 1, 0, rows // 2])

    every = credit.layer_inputs(tiny.net, params, x, names)
    chosen = credit.layer_inputs(tiny.net, params, x, names, choose)
    together = torch.func.vmap(lambda x: credit.layer_inputs(tiny.net, params, x, names, choose))(x[None])
    for name, rows in every.items():
        assert torch.equal(chosen[name], rows[choose(len(rows))])
        torch.testing.assert_close(together[name][0], chosen[name], rtol=RTOL, atol=1e-12)


class Largest(TorchDispatchMode):
    """Notes the largest tensor with memory of its own that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_patches_that_are_not_chosen_are_not_copied():
    """8 images of 4 × 12 × 12 have 1,152 patches of 4 × 3 × 3; ten are asked for."""
    torch.manual_seed(0)
    x = torch.randn(8, 4, 12, 12)
    net = Net(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1)), x)
    params = net.init_params()
    with Largest() as every:
        credit.layer_inputs(net, params, x, ["2.weight"])
    with Largest() as few:
        credit.layer_inputs(net, params, x, ["2.weight"], lambda rows: torch.arange(10))

    assert every.numbers >= 8 * 144 * 36
    assert few.numbers <= 8 * 4 * 14 * 14  # the padded input


def test_no_error_passes_a_layer_that_is_fed_by_the_input_alone(tiny):
    params, _, _ = start(tiny)
    first = {"fc1.weight", "conv1.weight", "w_in.weight"}

    assert credit.backward_layers(tiny.net, params) == credit.feedback_layers(tiny.net, params) - first


# A network with feedback weights --------------------------------------------------------------------------------------


def feedback_for(tiny):
    gen = torch.Generator().manual_seed(5)
    layers = sorted(credit.backward_layers(tiny.net, tiny.params()))
    return {name: tiny.net.normal(tiny.params()[name].shape, gen) for name in layers}


def test_backprop_on_a_network_with_feedback_weights_is_the_pass_through_them(tiny):
    params, batch, feedback = tiny.params(), tiny.batch(), feedback_for(tiny)

    grads, mean = credit.backprop(
        credit.with_feedback(tiny.net, feedback), tiny.task.loss, params, batch.x, batch.y
    )

    expected, same = credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, batch.x, batch.y)
    assert_equal(grads, expected)
    assert torch.equal(mean, same)


def test_blocks_and_parts_of_a_network_with_feedback_weights_pull_back_through_them():
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Linear(5, 4), nn.Tanh(), Site("post"), nn.Linear(4, 3), nn.Tanh(), Site("post"), nn.Linear(3, 2)
    )
    x = torch.randn(6, 5, dtype=torch.float64)
    net = Net(chain.double(), x)
    params, gen = net.init_params(), torch.Generator().manual_seed(1)
    feedback = {"3.weight": net.normal((3, 4), gen), "6.weight": net.normal((2, 3), gen)}
    bound = credit.with_feedback(net, feedback)
    first, second = net.keys("post")
    h = torch.randn(6, 4, dtype=torch.float64)
    error = torch.randn(6, 3, dtype=torch.float64)
    out = torch.tanh(h @ params["3.weight"].T + params["3.bias"])
    expected = (error * (1 - out**2)) @ feedback["3.weight"]

    by_part, pull_part = credit.value_and_pull(lambda at: credit.between(bound, params, first, second, at), h)
    by_blocks, pull_blocks = credit.value_and_pull(
        lambda at: credit.blocks(bound, params, x, {first: at}).sites[second], h
    )

    for value, pull in ((by_part, pull_part), (by_blocks, pull_blocks)):
        torch.testing.assert_close(value, out)
        torch.testing.assert_close(pull(error), expected)


def test_a_network_is_given_further_feedback_weights_and_refuses_strange_ones(tiny):
    params, batch, feedback = tiny.params(), tiny.batch(), feedback_for(tiny)
    bound = tiny.net
    for name, weight in feedback.items():
        bound = credit.with_feedback(bound, {name: weight})
    grads, _ = credit.backprop(bound, tiny.task.loss, params, batch.x, batch.y)
    assert_equal(
        grads, credit.through_feedback(tiny.net, tiny.task.loss, params, feedback, batch.x, batch.y)[0]
    )
    assert type(tiny.net) is Net
    with pytest.raises(NetError, match="the network has no weight 'nowhere'"):
        credit.with_feedback(tiny.net, {"nowhere": params[next(iter(feedback))]})
