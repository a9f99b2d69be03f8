"""What is refused is refused in one sentence; and the way out that the sentence names is open."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from rulezoo import Net, Site, add_sites
from rulezoo.net import NetError

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A layer, a function of your choice, a layer; what the function keeps is in ``kept``."""

    def __init__(self, function, kept=None, **children):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)
        if isinstance(kept, torch.Tensor):
            self.register_buffer("kept", kept)
        else:
            self.kept = kept

    def forward(self, x):
        return self.b(self.function(self, torch.relu(self.a(x))))


class Returns(nn.Module):
    """A layer, and what a function makes of its output."""

    def __init__(self, function):
        super().__init__()
        self.a, self.function = nn.Linear(5, 3), function

    def forward(self, x):
        return self.function(self.a(x))


def adds_up(self, h):
    self.kept = self.kept + 0.1 * h.detach().mean()
    return h + self.kept


def recomputes(self, h):
    return checkpoint(self.c, h, use_reentrant=False)


def attention(*, batch_first):
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=batch_first)

    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) if batch_first else self.layer(x.transpose(0, 1)).transpose(0, 1)

    return BatchFirst()


class Part(nn.Module):
    """The first part of what a module returns."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 3, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.w).abs()


class TwoReal(nn.Module):
    def __init__(self):
        super().__init__()
        self.real, self.imaginary = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5, 3))

    def forward(self, x):
        return (x.to(torch.complex64) @ torch.complex(self.real, self.imaginary)).abs()


class Written(nn.Module):
    """Counts its passes in something."""

    def __init__(self, *, buffer):
        super().__init__()
        self.a = nn.Linear(5, 3)
        passes = torch.zeros(())
        if buffer:
            self.register_buffer("passes", passes)
        else:
            self.passes = nn.Parameter(passes, requires_grad=False)

    def forward(self, x):
        self.passes.add_(1)
        return self.a(x)


def lazy(*, passed):
    module = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))
    if passed:
        module(X)
    return module


def frozen(*, all_of_it):
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    (module if all_of_it else module[0]).requires_grad_(False)
    return module


def two_visits(site):
    return nn.Sequential(nn.Linear(5, 5), site, nn.Linear(5, 5), site)


CASES = {
    # (refused, its sentence, the way out, inputs)
    "attribute": (
        lambda: Between(adds_up, kept=0.0), r"attribute 'kept'.*\(register_buffer\)",
        lambda: Between(adds_up, kept=torch.zeros(())), X,
    ),
    "checkpoint": (
        lambda: Between(recomputes, c=nn.Linear(6, 6)), r"torch\.utils\.checkpoint.*call the blocks directly",
        lambda: Between(lambda self, h: self.c(h), c=nn.Linear(6, 6)), X,
    ),
    "noise": (
        lambda: Between(lambda self, h: h * torch.rand_like(h)), r"draws from torch's global generator.*nn\.Dropout",
        lambda: Between(lambda self, h: self.drop(h), drop=nn.Dropout(0.3)), X,
    ),
    "dropout in evaluation": (
        lambda: Between(lambda self, h: F.dropout(h, 0.3)), r"drops out in evaluation mode.*training=self\.training",
        lambda: Between(lambda self, h: F.dropout(h, 0.3, self.training)), X,
    ),
    "dropout, batch second": (
        lambda: attention(batch_first=False), r"dropout acts on .* first axis is not the batch.*batch_first=True",
        lambda: attention(batch_first=True), TOKENS,
    ),
    "tuple": (
        lambda: Returns(lambda h: (h, h.mean())), r"returns a tuple.*wrap it in a module",
        lambda: Part(Returns(lambda h: (h, h.mean()))), X,
    ),
    "batch second": (
        lambda: Returns(lambda h: h.T), r"returns shape \(3, 2\) for 2 examples.*first axis must be the batch",
        lambda: Returns(lambda h: h.T.T), X,
    ),
    "integers": (
        lambda: Returns(lambda h: h.argmax(1)), r"returns torch\.int64; rules need real floating-point",
        lambda: Returns(lambda h: h), X,
    ),
    "complex": (Complex, r"'w' is complex.*real and imaginary parts as two", TwoReal, X),
    "lazy": (
        lambda: lazy(passed=False), r"lazy parameters.*pass one batch through it", lambda: lazy(passed=True), X,
    ),
    "written parameter": (
        lambda: Written(buffer=False), r"writes to one of its parameters.*\(register_buffer\)",
        lambda: Written(buffer=True), X,
    ),
    "nothing to train": (
        lambda: frozen(all_of_it=True), r"nothing to train: no parameter has requires_grad=True",
        lambda: frozen(all_of_it=False), X,
    ),
    "site twice": (
        lambda: two_visits(Site()), r"site '1' was visited twice.*Site\(unrolled=True\)",
        lambda: two_visits(Site(unrolled=True)), X,
    ),
    "site on a tuple": (
        lambda: Returns(nn.Sequential(Cast(), Site(), Take())), r"site 'function\.1' was given a tuple.*behind the part",
        lambda: Returns(nn.Sequential(Cast(), Take(), Site())), X,
    ),
}  # fmt: skip


class Cast(nn.Module):
    def forward(self, x):
        return x, x


class Take(nn.Module):
    def forward(self, x):
        return x[0]


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:enable_nested_tensor")
@pytest.mark.parametrize("kind", CASES)
def test_the_sentence_and_the_way_out(kind):
    refused, sentence, way_out, x = CASES[kind]
    with pytest.raises(NetError, match=sentence):
        Net(refused(), x)

    net = Net(way_out(), x)

    assert torch.equal(net.run(net.init_params(), x), net.run(net.init_params(), x))
    assert net.shapes


def test_a_sentence_is_one_sentence():
    for refused, _, _, x in CASES.values():
        with pytest.raises(NetError) as caught:
            Net(refused(), x)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


# --------------------------------------------------------------------------------------------------------------------
# A course that depends on the input


class DataDependent(nn.Module):
    """Another layer, for large inputs."""

    def __init__(self, *, sites):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.first, self.second = (Site(), Site()) if sites else (nn.Identity(), nn.Identity())

    def forward(self, x):
        h = self.first(torch.relu(self.a(x)))
        if x.abs().max() > 100:
            h = self.second(torch.relu(self.b(h)))
        return self.c(h)


def test_a_number_of_calls_that_depends_on_the_data_is_refused_when_it_is_met():
    net = Net(add_sites(DataDependent(sites=False)), X)
    params = net.init_params()

    with pytest.raises(
        NetError, match=r"called relu 2 times, and 1 times when it was read.*rulezoo\.Site modules"
    ):
        net.run(params, 1000 * X, lambda key, h: h)


def test_its_way_out_is_sites_in_the_network():
    net, seen = Net(DataDependent(sites=True), X), []
    net.run(net.init_params(), 1000 * X, lambda key, h: seen.append(key) or h)
    assert seen == ["first", "second"]


def test_dropout_that_depends_on_the_data_is_refused_when_it_is_met():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.drop = nn.Linear(5, 3), nn.Dropout(0.5)

        def forward(self, x):
            h = self.drop(self.a(x))
            return self.drop(h) if x.abs().max() > 100 else h

    net = Net(Drops(), X)
    bound = net.bind({}, {}, net.draw_masks(torch.Generator().manual_seed(0), len(X)))
    with pytest.raises(NetError, match=r"drops out 2 times or more, and 1 times when it was read"):
        bound.run(net.init_params(), 1000 * X)


def test_a_network_that_drops_out_is_not_trained_without_masks():
    net = Net(nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)), X)
    with pytest.raises(NetError, match=r"was given no masks; bind it with draw_masks"):
        net.bind({}, {}).run(net.init_params(), X)

    masks = net.draw_masks(torch.Generator().manual_seed(0), len(X))
    assert (net.bind({}, {}, masks).run(net.init_params(), X) == 0).any()
    assert not (net.bind({}, {}, training=False).run(net.init_params(), X) == 0).any()


# --------------------------------------------------------------------------------------------------------------------
# A batch of one


def normalising(norm):
    return nn.Sequential(nn.Linear(5, 6), norm, nn.ReLU(), nn.Linear(6, 3))


def test_a_batch_of_one_is_refused_where_it_is_normalised_over():
    with pytest.raises(
        NetError, match=r"normalises over a batch of 1.*two or more, GroupNorm, or BatchNorm with"
    ):
        Net(normalising(nn.BatchNorm1d(6)), X[:1])

    net = Net(normalising(nn.BatchNorm1d(6)), X)
    with pytest.raises(NetError, match="normalises over a batch of 1"):
        net.run(net.init_params(), X[:1])


def test_its_ways_out():
    net = Net(normalising(nn.BatchNorm1d(6)), X)
    params = net.init_params()
    assert net.run(params, X[:2]).isfinite().all()
    whole = net.evaluation().run(params, X)
    torch.testing.assert_close(net.evaluation().run(params, X[:1]), whole[:1])  # a last chunk of one
    assert Net(normalising(nn.GroupNorm(2, 6)), X[:1]).depth == 2  # no sites were asked for: one block
    assert Net(normalising(nn.BatchNorm1d(6)).eval(), X[:1]).depth == 2


# --------------------------------------------------------------------------------------------------------------------
# Sites that are asked for where there is no tensor of its own


class Pair(nn.Module):
    """A module that returns two tensors; one that is called twice; one that works in place."""

    def __init__(self, *, assigned=True):
        super().__init__()
        self.a, self.pair, self.relu = nn.Linear(5, 6), Cast(), nn.ReLU(inplace=True)
        self.b, self.assigned = nn.Linear(6, 3), assigned

    def forward(self, x):
        h = self.pair(self.a(x))[0]
        if self.assigned:
            h = self.relu(h)
        else:
            self.relu(h)
        return self.b(h)


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({"pair": "post"}, r"behind 'pair', which returns a tuple.*rulezoo\.Site behind the tensor"),
        ({"relu:3": "post"}, r"'relu:3': 'relu' is called 1 times, and calls count from 0"),
        ({F.gelu: "post"}, r"does not call gelu"),
        ({"relu": "post", F.relu: "post"}, r"are the same activity; ask for one of them"),
        ({3: "post"}, r"3 does not say where to put a site: give the name"),
    ],
)
def test_a_place_without_a_tensor_of_its_own_is_refused(after, sentence):
    with pytest.raises(NetError, match=sentence):
        Net(add_sites(Pair(), after), X)


def test_a_result_that_nobody_reads_is_no_place_for_a_site():
    with pytest.raises(
        NetError, match=r"behind 'relu' the network writes over its activity.*assign the result"
    ):
        Net(add_sites(Pair(assigned=False), {"relu": "post"}), X)

    net = Net(add_sites(Pair(), {"relu": "post"}), X)  # assigned
    params = net.init_params()
    silent = net.run(params, X, lambda key, h: torch.zeros_like(h))
    torch.testing.assert_close(silent, params["b.bias"].expand_as(silent))

    net = Net(add_sites(Pair(assigned=False)), X)  # without a mapping it goes where it is read
    silent = net.run(net.init_params(), X, lambda key, h: torch.zeros_like(h) if key == "a.post" else h)
    torch.testing.assert_close(silent, net.init_params()["b.bias"].expand_as(silent))
