"""Blocks on given activity, held to networks written out in float64; and derivatives of any function."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from rulezoo import Net, Site, add_sites, credit
from rulezoo.net import NetError
from rulezoo.testing import tiny_net
from rulezoo.testing.nets import TinyRNN

ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(got, wanted):
    torch.testing.assert_close(got, wanted, **ROUNDING)


# --------------------------------------------------------------------------------------------------------------------
# Networks, and each block of them written out: name of the end → (what it is made from, the formula)


def mlp_blocks(p, x, given):
    return {
        "pre1": x @ p["fc1.weight"].T + p["fc1.bias"],
        "post1": torch.tanh(given["pre1"]),
        "pre2": given["post1"] @ p["fc2.weight"].T + p["fc2.bias"],
        "post2": torch.tanh(given["pre2"]),
        None: given["post2"] @ p["readout.weight"].T + p["readout.bias"],
    }


def cnn_blocks(p, x, given):
    return {
        "pre1": F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1),
        "post1": F.max_pool2d(given["pre1"].relu(), 2),
        "pre2": F.conv2d(given["post1"], p["conv2.weight"], p["conv2.bias"], padding=1),
        "post2": given["post1"] + given["pre2"].relu(),
        None: given["post2"].flatten(1) @ p["readout.weight"].T + p["readout.bias"],
    }


def rnn_blocks(p, x, given):
    found, h = {}, x.new_zeros(len(x), 6)
    for t in range(4):
        found[f"recurrent[{t}]"] = h
        drive = given[f"recurrent[{t}]"] @ p["w_rec.weight"].T + x[:, t] @ p["w_in.weight"].T + p["w_in.bias"]
        found[f"pre[{t}]"] = drive
        found[f"hidden[{t}]"] = (1 - TinyRNN.LEAK) * h + TinyRNN.LEAK * torch.tanh(given[f"pre[{t}]"])
        h = given[f"hidden[{t}]"]
    return {**found, None: h @ p["w_out.weight"].T + p["w_out.bias"]}


class Residual(nn.Module):
    """One block of a ResNet, normalisation included, between a convolution and a read-out."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.readout = nn.Conv2d(2, 4, 3), BasicBlock(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.readout(self.block(F.relu(self.stem(x))).mean((2, 3)))


def residual_blocks(p, x, given):
    def normed(h, name):
        return F.batch_norm(h, None, None, p[f"{name}.weight"], p[f"{name}.bias"], training=True)

    block = F.conv2d(given["block.relu:0"], p["block.conv2.weight"], padding=1)
    return {
        "stem": F.conv2d(x, p["stem.weight"], p["stem.bias"]),
        "block.relu:0": normed(
            F.conv2d(given["stem"].relu(), p["block.conv1.weight"], padding=1), "block.bn1"
        ).relu(),
        "block": F.relu(normed(block, "block.bn2") + given["stem"].relu()),
        None: given["block"].mean((2, 3)) @ p["readout.weight"].T + p["readout.bias"],
    }


def residual():
    torch.manual_seed(0)
    sites = {"stem": "pre", "block.relu:0": "post", "block": "post"}
    module = add_sites(Residual().double(), sites)
    return Net(module, draw(2, 2, 6, 6)), draw(5, 2, 6, 6, seed=1)


def case(name):
    if name == "resnet":
        net, x = residual()
        return net, net.init_params(), x, residual_blocks
    tiny = tiny_net(name)
    twins = {"mlp": mlp_blocks, "cnn": cnn_blocks, "rnn": rnn_blocks}
    return tiny.net, tiny.params(), tiny.batch(5).x, twins[name]


def composed(twin, net, p, x, given):
    """All activity, and the output, where some activity is given: the blocks again and again, until all is passed on."""
    found = {key: torch.zeros(len(x), *net.visits[key].shape, dtype=x.dtype) for key in net.visits}
    for _ in range(len(net.visits) + 1):
        found = twin(p, x, {**found, **given})
    return found


def activity(net, rows, seed=2):
    return {key: draw(rows, *visit.shape, seed=seed + i) for i, (key, visit) in enumerate(net.visits.items())}


NETS = ("mlp", "cnn", "rnn", "resnet")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("every", [1, 2, 10**6], ids=["all", "every second", "one"])
def test_blocks_on_given_activity_written_out(name, every):
    net, params, x, twin = case(name)
    given = {key: h for i, (key, h) in enumerate(activity(net, len(x)).items()) if i % every == 0}

    got = credit.blocks(net, params, x, given)

    wanted = composed(twin, net, params, x, given)
    assert list(got.sites) == list(net.visits)
    assert_close({**got.sites, None: got.output}, wanted)


@pytest.mark.parametrize("name", NETS)
def test_blocks_are_differentiated_by_parameters_and_given_activity(name):
    net, params, x, twin = case(name)
    given = activity(net, len(x))
    values = credit.blocks(net, params, x, given)
    cotangents = {key: draw(*h.shape, seed=50) for key, h in {**values.sites, None: values.output}.items()}

    _, pull = credit.value_and_pull(
        lambda at: tuple({**(b := credit.blocks(net, at[0], x, at[1])).sites, None: b.output}.values()),
        (params, given),
    )
    got = pull(tuple(cotangents.values()))

    leaves = {**params, **given}
    leaves = {k: v.clone().requires_grad_() for k, v in leaves.items()}
    made = twin({k: leaves[k] for k in params}, x, {k: leaves[k] for k in given})
    total = sum((made[key] * c).sum() for key, c in cotangents.items())
    wanted = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True, allow_unused=True)
    assert_close([*got[0].values(), *got[1].values()], list(wanted))


def pairs(net):
    keys = [*net.visits, None]
    return [(a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]]


@pytest.mark.parametrize("name", NETS)
def test_between_any_two_sites_written_out(name):
    net, params, x, twin = case(name)
    at = activity(net, len(x))

    for a, b in pairs(net):
        got = credit.between(net, params, a, b, at[a], x)

        torch.testing.assert_close(
            got, composed(twin, net, params, x, {a: at[a]})[b], **ROUNDING, msg=f"{a} to {b}"
        )


def test_from_the_input_to_a_site_and_to_the_output():
    net, params, x, twin = case("cnn")
    wanted = composed(twin, net, params, x, {})

    assert_close(credit.between(net, params, None, "pre2", x), wanted["pre2"])
    assert_close(credit.between(net, params, None, None, x), wanted[None])


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_between_is_differentiated_by_parameters_and_activity(name):
    net, params, x, twin = case(name)
    a, b = ("stem", "block") if name == "resnet" else ("post1", "post2")
    h = draw(len(x), *net.visits[a].shape)
    c = draw(len(x), *net.visits[b].shape, seed=1)

    got = credit.grad(lambda at: (credit.between(net, at[0], a, b, at[1]) * c).sum(), (params, h))

    leaves, leaf = {k: v.clone().requires_grad_() for k, v in params.items()}, h.clone().requires_grad_()
    total = (composed(twin, net, leaves, x, {a: leaf})[b] * c).sum()
    wanted = torch.autograd.grad(total, [*leaves.values(), leaf], materialize_grads=True, allow_unused=True)
    assert_close([*got[0].values(), got[1]], list(wanted))
    assert got[1].any()


@pytest.mark.parametrize("name", NETS)
def test_many_networks_in_one_vmap_are_each_on_its_own(name):
    net, params, x, _ = case(name)
    a, b = next(iter(net.visits)), list(net.visits)[-1]
    stacked = {k: v + 0.1 * draw(3, *v.shape, seed=9) for k, v in params.items()}
    given = {key: torch.stack([h, -h, 2 * h]) for key, h in activity(net, len(x)).items()}

    statistics = {k: torch.stack([v] * 3) for k, v in net.statistics.items()}

    def step(p, g, s):
        bound = net.bind(net.fixed, s)
        found = credit.blocks(bound, p, x, g)
        there = credit.between(bound, p, a, b, g[a], x)
        slopes = credit.grad(lambda q: credit.between(bound, q, a, b, g[a], x).square().sum(), p)
        up = credit.grad(lambda q: credit.blocks(bound, p, x, q).output.square().sum(), g)
        return found.sites, found.output, there, slopes, up

    got = torch.func.vmap(step)(stacked, given, statistics)

    for seed in range(3):
        alone = step(*({k: v[seed] for k, v in tensors.items()} for tensors in (stacked, given, statistics)))
        assert_close(torch.utils._pytree.tree_map(lambda t, s=seed: t[s], got), alone)


# --------------------------------------------------------------------------------------------------------------------
# What it costs, counted


class Counted(nn.Module):
    """A dense layer that keeps the rows of each of its passes outside of itself."""

    seen: list[tuple[str, int]]

    def __init__(self, name, seen):
        super().__init__()
        self.layer, self.name, self.note = nn.Linear(6, 6), name, lambda rows: seen.append((name, rows))

    def forward(self, x):
        self.note(len(x))
        return torch.tanh(self.layer(x))


class Own(nn.Module):
    """A forward pass of its own through a chain."""

    def __init__(self, chain, *, by_rows=False):
        super().__init__()
        self.chain, self.by_rows = chain, by_rows

    def forward(self, x):
        rows = len(x)
        h = self.chain[:2](x)
        return self.chain[2:](h.view(rows, -1) if self.by_rows else h)


def counted(kind):
    """Five layers with a site behind each, and what they see."""
    seen = []
    torch.manual_seed(0)
    chain = nn.Sequential(*(nn.Sequential(Counted(f"layer {i}", seen), Site("post")) for i in range(5)))
    module = {"chain": chain, "own": Own(chain), "by rows": Own(chain, by_rows=True)}[kind].double()
    net = Net(module, draw(2, 6))
    start = "" if kind == "chain" else "chain."
    return net, f"{start}1.1", f"{start}2.1", seen


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("chain", [("layer 2", 7)]),
        ("own", [("layer 0", 2), ("layer 1", 2), ("layer 2", 7)]),
        ("by rows", [("layer 0", 7), ("layer 1", 7), ("layer 2", 7)]),
    ],
)
def test_what_is_computed_for_a_block(kind, wanted):
    net, a, b, seen = counted(kind)
    params, h = net.init_params(), draw(7, 6)
    credit.between(net, params, a, b, h)  # which way is exact is found at the first call
    seen.clear()

    got = credit.between(net, params, a, b, h)

    assert seen == wanted
    layer = "2.0.layer" if kind == "chain" else "chain.2.0.layer"
    assert_close(got, torch.tanh(h @ params[f"{layer}.weight"].T + params[f"{layer}.bias"]))


def test_rows_of_the_input_that_are_used_behind_a_site():
    net, a, _, _ = counted("by rows")
    params, h = net.init_params(), draw(7, 6)

    got = credit.between(net, params, a, None, h)

    for i in (2, 3, 4):
        h = torch.tanh(h @ params[f"chain.{i}.0.layer.weight"].T + params[f"chain.{i}.0.layer.bias"])
    assert_close(got, h)


def test_a_chain_with_shared_modules_and_tied_weights():
    torch.manual_seed(0)
    relu, one, tied = nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight, tied.bias = one.weight, one.bias
    module = nn.Sequential(
        one, relu, Site(), nn.Linear(4, 4), relu, Site(), tied, relu, Site(), nn.Linear(4, 2)
    )
    net = Net(module.double(), draw(2, 4))
    params, h = {name: p + 1 for name, p in net.init_params().items()}, draw(5, 4)

    got = credit.between(net, params, "5", "8", h)

    assert_close(got, (h @ params["0.weight"].T + params["0.bias"]).relu())


def test_a_chain_with_dropout_drops_what_the_whole_pass_drops():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(4, 4), nn.Dropout(), Site()) for _ in range(3)]
    net = Net(nn.Sequential(*layers).double(), draw(2, 4))
    net = net.bind({}, {}, net.draw_masks(torch.Generator().manual_seed(1), 5))
    params, sites = net.init_params(), {}
    net.run(params, draw(5, 4), lambda key, h: sites.setdefault(key, h))

    assert_close(credit.between(net, params, "0.2", "2.2", sites["0.2"]), sites["2.2"])
    assert not sites["2.2"].all()


@pytest.mark.parametrize("sequential", [True, False])
def test_a_block_moves_no_statistics_and_normalises_over_the_activity_it_is_given(sequential):
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), Site(), nn.Linear(4, 4), nn.BatchNorm1d(4), Site()
    )
    net = Net((chain if sequential else nn.Sequential(Own(chain))).double(), draw(2, 4))
    net = net.bind(net.fixed, net.statistics)
    start = "" if sequential else "0.chain."
    params, h = net.init_params(), draw(5, 4)

    got = credit.between(net, params, f"{start}2", None, h)

    drive = h @ params[f"{start}3.weight"].T + params[f"{start}3.bias"]
    assert_close(got, F.batch_norm(drive, None, None, training=True))
    assert not net.moved
    net.run(params, draw(5, 4))  # the first pass of the step is still to come, and moves them
    assert net.moved.keys() == net.statistics.keys()


# --------------------------------------------------------------------------------------------------------------------
# What is refused


def test_sites_in_the_wrong_order_are_one_error():
    net, params, _, _ = case("mlp")

    with pytest.raises(
        NetError, match=r"'post2' and 'post1' in the wrong order: .*give the earlier one first"
    ):
        credit.between(net, params, "post2", "post1", draw(5, 7))


def test_one_site_given_twice_is_one_error():
    net, params, _, _ = case("mlp")

    with pytest.raises(NetError, match="the site 'post1' twice, and nothing lies between; give a later site"):
        credit.between(net, params, "post1", "post1", draw(5, 8))


@pytest.mark.parametrize("call", ["a", "b", "given"])
def test_unknown_sites_are_named_with_those_there_are(call):
    net, params, x, _ = case("mlp")
    calls = {
        "a": lambda: credit.between(net, params, "fc9", "post1", x),
        "b": lambda: credit.between(net, params, "post1", "fc9", x),
        "given": lambda: credit.blocks(net, params, x, {"fc9": x}),
    }

    with pytest.raises(NetError, match="no site 'fc9'; its sites are 'pre1', 'post1', 'pre2', 'post2'"):
        calls[call]()


def test_activity_of_another_shape_is_refused():
    net, params, x, _ = case("mlp")

    with pytest.raises(NetError, match=r"at site 'post1' has shape \(5, 7\); expected \(batch, 8\)"):
        credit.between(net, params, "post1", "post2", draw(5, 7))
    with pytest.raises(NetError, match=r"at site 'post1' has shape \(5,\); expected \(batch, 8\)"):
        credit.blocks(net, params, x, {"post1": draw(5)})
    with pytest.raises(NetError, match=r"at the input has shape \(5, 8\); expected \(batch, 5\)"):
        credit.between(net, params, None, "post2", draw(5, 8))
    with pytest.raises(NetError, match="what was given at site 'post1' is a float; expected a tensor"):
        credit.blocks(net, params, x, {"post1": 0.0})


def test_flattened_activity_is_refused_with_the_way_to_put_it_right():
    net, params, x, _ = case("cnn")

    with pytest.raises(
        NetError, match=r"has shape \(5, 36\); expected \(batch, 4, 3, 3\); use activity.view_as\(…\)"
    ):
        credit.blocks(net, params, x, {"post1": draw(5, 36)})


def test_activity_and_inputs_of_different_examples_are_refused():
    net, params, x, _ = case("cnn")
    message = r"at site '{}' has shape \(4, .*, and for the given inputs the network has \(5, .* of the same examples"

    with pytest.raises(NetError, match=message.format("post1")):
        credit.blocks(net, params, x, {"post1": draw(4, 4, 3, 3)})
    with pytest.raises(NetError, match=message.format("pre2")):
        credit.between(net, params, "pre2", "post2", draw(4, 4, 3, 3), x)


class ByTokens(nn.Module):
    """Tokens whose embedding is added again at the end, or looked at again as a mask."""

    def __init__(self, again):
        super().__init__()
        self.embed, self.layer, self.readout = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.first, self.second, self.again = Site(), Site(), again

    def forward(self, x):
        h = self.first(self.embed(x).mean(1))
        h = torch.tanh(self.layer(h))
        if self.again == "mask":
            h = h.masked_fill((x[:, :1] > 2), 0.0)
        if self.again == "add":
            h = h + self.embed(x).mean(1)
        return self.readout(self.second(h))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [("cnn", "pre2", "post2"), ("rnn", "hidden[0]", None), ("rnn", "recurrent[1]", "pre[1]")],
)
def test_what_depends_on_the_input_by_another_path_asks_for_it(name, a, b):
    net, params, _, _ = case(name)

    with pytest.raises(
        NetError, match=r"by a path that does not pass site .* give credit.between the inputs"
    ):
        credit.between(net, params, a, b, draw(5, *net.visits[a].shape))


@pytest.mark.parametrize("again", ["", "mask", "add"])
def test_paths_of_integers_are_seen(again):
    net = Net(ByTokens(again).double(), torch.arange(6).view(2, 3))
    params, h = net.init_params(), draw(5, 4)

    if again:
        with pytest.raises(NetError, match="by a path that does not pass site 'first'"):
            credit.between(net, params, "first", "second", h)
    else:
        wanted = torch.tanh(h @ params["layer.weight"].T + params["layer.bias"])
        assert_close(credit.between(net, params, "first", "second", h), wanted)


# --------------------------------------------------------------------------------------------------------------------
# Derivatives of any function


def squares(at):
    return {"a": at["x"] ** 2, "b": 3 * at["y"], "c": torch.ones(2, dtype=torch.float64)}


@pytest.mark.parametrize("vmapped", [False, True])
def test_the_value_and_what_is_pulled_back(vmapped):
    at = {"x": draw(4, 2), "y": draw(4, 2, seed=1), "z": draw(4, 2, seed=2)}
    c = {"a": draw(4, 2, seed=3), "b": draw(4, 2, seed=4), "c": draw(4, 2, seed=5)}

    def both(at, c):
        value, pull = credit.value_and_pull(squares, at)
        first = pull(c, keep=True)
        return value, first, pull(c)

    run = torch.func.vmap(both) if vmapped else lambda at, c: both(at, c)
    if not vmapped:
        at, c = {k: v[0] for k, v in at.items()}, {k: v[0] for k, v in c.items()}
    value, first, second = run(at, c)

    assert_close((value["a"], value["b"]), (at["x"] ** 2, 3 * at["y"]))
    wanted = {"x": 2 * at["x"] * c["a"], "y": 3 * c["b"], "z": torch.zeros_like(at["z"])}
    assert_close(first, wanted)
    assert_close(second, wanted)
    assert not any(t.requires_grad for t in [*value.values(), *first.values()])


def test_the_graph_is_freed_unless_it_is_kept():
    _, pull = credit.value_and_pull(lambda x: x.square(), draw(3))
    pull(draw(3))

    with pytest.raises(RuntimeError, match="second time"):
        pull(draw(3))


@pytest.mark.parametrize("vmapped", [False, True])
def test_the_gradient_of_a_scalar(vmapped):
    x = draw(3, 4)

    def slope(row):
        return credit.grad(lambda at: at["x"].square().sum(), {"x": row})["x"]

    assert_close(torch.func.vmap(slope)(x) if vmapped else slope(x), 2 * x)


@pytest.mark.parametrize(
    ("function", "got"), [(lambda x: x**2, r"shape \(3,\)"), (lambda x: (x.sum(), x), "tuple")]
)
def test_a_gradient_of_anything_but_a_scalar_is_refused(function, got):
    with pytest.raises(ValueError, match=f"differentiates a scalar, and the function returned {got}"):
        credit.grad(function, draw(3))


@pytest.mark.parametrize("vmapped", [False, True])
def test_the_derivative_along_a_direction(vmapped):
    at = {"x": draw(4, 2), "y": draw(4, 2, seed=1), "z": draw(4, 2, seed=2)}
    along = {"x": draw(4, 2, seed=3), "y": draw(4, 2, seed=4), "z": draw(4, 2, seed=5)}
    if not vmapped:
        at, along = {k: v[0] for k, v in at.items()}, {k: v[0] for k, v in along.items()}

    def both(at, along):
        return credit.value_and_derivative(squares, at, along)

    value, derivative = torch.func.vmap(both)(at, along) if vmapped else both(at, along)

    assert_close((value["a"], value["b"]), (at["x"] ** 2, 3 * at["y"]))
    assert_close((derivative["a"], derivative["b"]), (2 * at["x"] * along["x"], 3 * along["y"]))


@pytest.mark.parametrize("name", NETS)
def test_the_derivative_along_a_direction_is_that_of_backprop(name):
    """⟨∇f, v⟩ for the loss of a whole network, which `credit.grad` computes in the other order."""
    net, params, x, _ = case(name)
    along = {key: draw(*p.shape, seed=3) for key, p in params.items()}

    def f(p):
        return net.without_moving().run(p, x).square().sum()

    value, derivative = credit.value_and_derivative(f, params, along)

    gradient = credit.grad(f, params)
    assert_close((value, derivative), (f(params), sum((gradient[key] * v).sum() for key, v in along.items())))


def test_cotangents_in_another_order_are_refused():
    """Their shapes agree, so each would silently be taken for that of the other tensor."""
    a, b = draw(3), draw(3)
    _, pull = credit.value_and_pull(lambda x: {"a": x * a, "b": x * b}, draw(3))
    with pytest.raises(ValueError, match="the same keys in the same order"):
        pull({"b": torch.zeros_like(b), "a": torch.ones_like(a)}, keep=True)
    torch.testing.assert_close(pull({"a": torch.ones_like(a), "b": torch.zeros_like(b)}), a)


# --------------------------------------------------------------------------------------------------------------------
# Several sites at once


def whole(net, params, given, x):
    """Each site's examples in a pass of their own through the whole network, with their activity at the site."""
    parts = x.split([len(h) for h in given.values()])
    return torch.cat(
        [
            net.run(params, part, lambda k, h, key=key: given[key] if k == key else h)
            for key, part in zip(given, parts, strict=True)
        ]
    )


def entering(net, keys, rows=(3, 1, 2, 5)):
    """Activity at some sites, each for another number of examples."""
    return {
        key: draw(rows[i % len(rows)], *net.visits[key].shape, seed=i).to(net.visits[key].dtype)
        for i, key in enumerate(keys)
    }


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize("kind", ["post", "pre"])
def test_examples_that_enter_at_several_sites(name, kind):
    tiny = tiny_net(name)
    params, keys = tiny.params(), tiny.net.keys(kind)
    for chosen in (keys, keys[:1], keys[1:]):
        given = entering(tiny.net, chosen)
        x = tiny.batch(sum(map(len, given.values()))).x
        assert_close(credit.from_sites(tiny.net, params, given, x), whole(tiny.net, params, given, x))


def chain():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Site(),
        nn.Conv2d(3, 4, 3, padding=1),
    ]
    layers += [nn.GroupNorm(2, 4), nn.Tanh(), Site(), nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), Site()]
    return Net(nn.Sequential(*layers, nn.Linear(5, 3)).double(), draw(2, 2, 6, 6))


def test_of_a_chain_nothing_is_computed_in_front_of_where_an_example_enters(monkeypatch):
    """The convolution in front is not called, and later layers see the examples that have entered."""
    net = chain()
    params, given = net.init_params(), entering(chain(), chain().keys())
    x = draw(6, 2, 6, 6, seed=3)
    credit.from_sites(net, params, given, x)  # what is exact is seen once
    rows = []
    convolution, linear = F.conv2d, F.linear
    monkeypatch.setattr(F, "conv2d", lambda h, *args: rows.append(len(h)) or convolution(h, *args))
    monkeypatch.setattr(F, "linear", lambda h, *args: rows.append(len(h)) or linear(h, *args))
    got = credit.from_sites(net, params, given, x)
    assert rows == [3, 4, 6]
    rows.clear()
    assert_close(got, whole(net, params, given, x))


class OwnPass(nn.Module):
    """A chain with a forward pass of its own, which may look at its input again, or at the other examples."""

    def __init__(self, trick=None):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
        self.one, self.two, self.trick = Site(), Site(), trick

    def forward(self, x):
        h = self.one(torch.tanh(self.first(x)))
        h = self.second(h)
        if self.trick == "batch":
            h = h - h.mean(0)
        if self.trick == "input":
            h = h + x[:, :1]
        if self.trick == "mean of the input":
            h = h + x.mean()
        if self.trick == "rows":
            h = h.view(len(x), 6)
        return self.third(self.two(torch.tanh(h)))


@pytest.mark.parametrize("trick", [None, "input", "mean of the input", "batch", "rows"])
def test_where_examples_cannot_join_all_of_them_pass_through_the_network(trick):
    """Equal to one whole pass of all examples, also where they depend on one another."""
    torch.manual_seed(0)
    net = Net(OwnPass(trick).double(), draw(2, 4))
    params, given, x = net.init_params(), entering(net, ["one", "two"]), draw(4, 4, seed=2)

    def tap(key, h):
        return torch.cat([given["one"], h[3:]]) if key == "one" else torch.cat([h[:3], given["two"]])

    assert_close(credit.from_sites(net, params, given, x), net.run(params, x, tap))


@pytest.mark.parametrize("training", [True, False])
def test_examples_that_enter_a_network_with_batch_normalisation(training):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 5), Site(), nn.Linear(5, 6), nn.BatchNorm1d(6), Site(), nn.Linear(6, 2)
    )
    net = Net(module.double(), draw(2, 4))
    net = net if training else net.evaluation()
    params, given, x = net.init_params(), entering(net, ["1", "4"]), draw(4, 4, seed=2)

    def tap(key, h):
        return torch.cat([given["1"], h[3:]]) if key == "1" else torch.cat([h[:3], given["4"]])

    assert_close(credit.from_sites(net, params, given, x), net.without_moving().run(params, x, tap))


def test_examples_that_enter_under_vmap_and_can_be_differentiated():
    net = chain()
    params, x = net.init_params(), draw(6, 2, 6, 6, seed=3)
    given = entering(net, net.keys())
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}

    def loss(p, h):
        return credit.from_sites(net, p, {**given, "7": h}, x).square().sum()

    for got, p in zip(
        torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None))(stacked, given["7"])[1],
        (params, {name: 2 * v for name, v in params.items()}),
        strict=True,
    ):
        wanted = torch.func.grad(lambda h, p=p: whole(net, p, {**given, "7": h}, x).square().sum())(
            given["7"]
        )
        assert_close(got, wanted)


@pytest.mark.parametrize(
    ("keys", "rows", "message"),
    [
        (["7", "3"], 4, "the sites in the order of the forward pass"),
        ([], 0, "at no site; give at least one"),
        (["3"], 5, "given 5 inputs and 3 examples"),
        (["nowhere"], 3, "no site 'nowhere'"),
    ],
)
def test_what_cannot_enter_is_refused(keys, rows, message):
    net = chain()
    given = {key: draw(3 if i == 0 else 1, *net.visits[key].shape) if key in net.visits else draw(3)
             for i, key in enumerate(keys)}  # fmt: skip
    with pytest.raises(NetError, match=message):
        credit.from_sites(net, net.init_params(), given, draw(rows, 2, 6, 6))


@pytest.mark.parametrize("examined", [True, False])
def test_compiled_code_enters_at_sites_of_a_network_that_was_examined(examined):
    net = chain()
    params, given = net.init_params(), entering(net, net.keys())
    x, rows = draw(6, 2, 6, 6, seed=3), []
    if examined:
        credit.examine_sites(net, net.keys())

    def watched(gm, inputs):
        rows.extend(len(n.meta["example_value"]) for n in gm.graph.nodes if "conv2d" in str(n.target))
        return gm.forward

    torch._dynamo.reset()
    got = torch.compile(lambda p: credit.from_sites(net, p, given, x), backend=watched, fullgraph=True)(
        params
    )
    assert rows == ([3] if examined else [6, 6])
    assert_close(got, whole(net, params, given, x))
