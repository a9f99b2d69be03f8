from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from rulezoo import Net, add_sites
from rulezoo.net import NetError
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.feedback_weights.feedback_alignment import refusal

from .harness import Course, FeedbackIsForward, state_of, trained
from .networks import Network, evaluated, train_plainly
from .odd_networks import (
    REFUSED,
    RIGHT,
    HookedParameter,
    InAList,
    LateBuffer,
    PlainTensor,
    hooked,
    mlp,
    scripted,
)

EXACT = 1e-12  # float64, after five steps
STEPS = range(5)

NO_FEEDBACK = {
    # No feedback weight takes the place of these: rules of feedback weights refuse the network.
    "einsum", "bmm", "weight in front", "addmm", "conv_transpose", "bilinear", "custom function, then einsum",
    "product and sum", "expanded, product and sum", "product with a vector", "custom linear function", "custom linear function on a computed weight",
}  # fmt: skip


@pytest.fixture(params=RIGHT)
def name(request):
    return request.param


def sited(network: Network) -> Net:
    return Net(add_sites(network.module()), network.inputs())


@pytest.mark.parametrize("rule", [Backprop(), FeedbackIsForward()], ids=["backprop", "B=W"])
def test_it_is_trained_as_by_a_plain_loop(name, rule):
    course, plain = Course(RIGHT[name], (0,), rule), RIGHT[name].module()
    trainer, masks = trained(course, STEPS)

    train_plainly(plain, [step[0] for step in course.batches[:5]], [m[0] for m in masks])

    for key, expected in plain.state_dict().items():
        torch.testing.assert_close(state_of(trainer)[key], expected, atol=EXACT, rtol=0)
    x = RIGHT[name].inputs(9)
    torch.testing.assert_close(trainer.predict(x)[0], evaluated(plain, x), atol=EXACT, rtol=0)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_seeds_in_one_vmap_equal_each_on_its_own(name):
    together = Course(RIGHT[name], (0, 1, 2), Backprop())
    if RIGHT[name].alone:
        with pytest.raises(RuntimeError, match=RIGHT[name].alone):
            trained(together, STEPS)
        return
    trainer, _ = trained(together, STEPS)

    alone, _ = trained(Course(RIGHT[name], (2,), Backprop()), STEPS)
    for key, expected in state_of(alone).items():
        torch.testing.assert_close(state_of(trainer, 2)[key], expected, atol=EXACT, rtol=0)


def test_no_layer_lies_behind_another_in_a_block_or_the_depth_says_so(name):
    assert sited(RIGHT[name]).depth == RIGHT[name].depth


def test_rules_of_feedback_weights_serve_it_or_name_the_weight(name):
    reason = refusal(sited(RIGHT[name]))

    assert (reason is not None) == (name in NO_FEEDBACK)
    assert reason is None or "errors would have to travel back through" in reason


def test_a_tap_that_returns_a_copy_changes_nothing(name):
    net = sited(RIGHT[name])
    params, x = net.init_params(), RIGHT[name].inputs()

    output = net.run(params, x, lambda key, h: h.clone())

    assert torch.equal(output, net.run(params, x))


def test_a_tap_is_read_by_all_that_follows(name):
    """Whatever is put in the place of the last activities decides the output: nothing gets past them."""
    net = sited(RIGHT[name])
    params, x = net.init_params(), RIGHT[name].inputs()
    last = net.layers[-1]
    keys = set(last.uses[-1].fed_by) & set(net.keys("post"))

    outputs = (
        [
            net.run(params, inputs, lambda key, h: torch.ones_like(h) if key in keys else h)
            for inputs in (x, 2 * x)
        ]
        if not RIGHT[name].tokens
        else []
    )

    assert keys
    assert not outputs or torch.equal(*outputs)


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")
@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_a_sentence(kind):
    network, sentence = REFUSED[kind]
    with pytest.raises(NetError, match=sentence):
        sited(network)


def without_hook():
    module = HookedParameter()
    module.a.weight._backward_hooks.clear()
    return module


def test_without_its_hooks_a_network_is_accepted():
    assert sited(Network(without_hook)).depth == 1
    module = hooked(output=False)
    module[0]._backward_hooks.clear()
    assert sited(Network(lambda: module)).depth == 1


@pytest.mark.parametrize("wrapped", [nn.DataParallel(mlp())], ids=["data parallel"])
def test_what_was_wrapped_is_accepted(wrapped):
    assert sited(Network(lambda: wrapped.module)).depth == 1


def test_compiled_and_scripted_modules_have_a_plain_one():
    assert sited(Network(lambda: torch.compile(mlp())._orig_mod)).depth == 1
    assert isinstance(scripted(), torch.jit.ScriptModule)
    assert sited(Network(mlp)).depth == 1


@pytest.mark.parametrize("make", [PlainTensor, InAList])
def test_what_differs_between_seeds_must_be_a_parameter_or_a_buffer(make):
    network = Network(make)
    net = sited(network)

    with pytest.raises(NetError, match=r"neither a parameter nor a buffer.*register_buffer, nn\.ModuleList"):
        net.values_of(network.module(seed=1))


def test_registered_it_may_differ_between_seeds():
    class Registered(PlainTensor):
        def __init__(self):
            super().__init__()
            projection = self.projection
            del self.projection
            self.register_buffer("projection", projection)

    class InAModuleList(InAList):
        def __init__(self):
            super().__init__()
            self.others = nn.ModuleList(self.others)

    for make in (Registered, InAModuleList):
        network = Network(make)
        net, other = sited(network), network.module(seed=1)
        values = net.values_of(other)
        bound = net.bind(values.fixed, values.statistics)
        assert torch.equal(bound.run(values.params, network.inputs()), other(network.inputs()))


def test_networks_of_different_shapes_are_refused_by_the_name_that_differs():
    net = Net(mlp().double(), Network(mlp).inputs())
    with pytest.raises(NetError, match=r"differ in the shape of '2\.bias'.*network\(\) must build the same"):
        net.values_of(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)).double())


def test_a_buffer_that_moves_at_a_later_pass_only_is_refused_there():
    with pytest.raises(NetError, match=r"changes its buffer 'late' in this pass.*every training pass"):
        trained(Course(Network(LateBuffer), (0,), Backprop()), range(6))


def test_a_buffer_that_moves_at_every_pass_is_its_way_out():
    class Every(LateBuffer):
        def forward(self, x):
            h = torch.relu(self.a(x))
            if self.training:
                self.passes += 1
                new = h.detach().mean(0)
                self.late.copy_(torch.where(self.passes % 3 == 0, new, self.late))
            return self.b(h + self.late)

    course, plain = Course(Network(Every), (0,), Backprop()), Network(Every).module()
    trainer, masks = trained(course, range(6))
    train_plainly(plain, [step[0] for step in course.batches[:6]], [m[0] for m in masks])
    torch.testing.assert_close(state_of(trainer)["late"], plain.late, atol=EXACT, rtol=0)
    assert plain.late.any()


# --------------------------------------------------------------------------------------------------------------------
# Copies, and two networks of one module


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("after", [None, {nn.ReLU: "post"}, {"1": "post"}], ids=["all", "type", "name"])
def test_a_copy_keeps_the_sites_that_were_asked_for(copied, after):
    module = add_sites(mlp().double(), after)
    x = Network(mlp).inputs()

    net, other = Net(module, x), Net(copied(module), x)

    assert list(net.visits) == list(other.visits)
    assert net.visits
    assert torch.equal(net.run(net.init_params(), x), other.run(other.init_params(), x))


def test_two_nets_of_one_module_keep_the_modes_they_were_read_in():
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = Network(mlp).inputs()
    training = Net(module, x)
    module.eval()
    evaluating = Net(module, x)
    params = training.init_params()

    in_training, in_evaluation = training.run(params, x), evaluating.run(params, x)

    assert not module[1].training  # as the user left it
    assert torch.equal(in_evaluation, module(x))
    assert torch.equal(in_training, module.train()(x))
    assert not torch.equal(in_training, in_evaluation)
    assert torch.equal(training.evaluation().run(params, x), in_evaluation)


def test_reading_and_running_leave_the_module_as_it_was(name):
    module = add_sites(RIGHT[name].module())
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    modes = [child.training for child in module.modules()]

    net = Net(module, RIGHT[name].inputs())
    net.run({key: 2 * p for key, p in net.init_params().items()}, RIGHT[name].inputs())

    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert modes == [child.training for child in module.modules()]


class Cells(nn.Module):
    """A cell of torch, step by step."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        state = None
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_the_state_of_a_cell_is_a_way_of_the_error_too(kind):
    """Its input at each step is data, but what it was given of itself is not."""
    net = sited(Network(lambda: Cells(kind), (4, 3)))

    assert net.depth == 4  # a cell is one call, and its state gets no site
    assert "'cell.weight_hh'" in refusal(net)
