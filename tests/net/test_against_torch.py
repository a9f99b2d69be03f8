"""rulezoo's training of a network, and torch's own, to the last digits."""

from __future__ import annotations

import copy

import pytest
import torch

from rulezoo_plugins.baselines.backprop import Backprop

from .harness import Course, FeedbackIsForward, state_of, trained
from .networks import NETWORKS, Network, evaluated, train_plainly

EXACT = 1e-10  # float64, after 20 steps: sums come out in another order
COARSE = 0.05  # bfloat16 has 8 bits; 20 steps of rounding in another order
SEEDS = (0, 1, 2)
SOME = 8  # steps, where two of rulezoo's own trainings are compared

# torch has no fast rule for it under vmap, and says so
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.fixture(params=NETWORKS, scope="module")
def name(request):
    return request.param


@pytest.fixture
def network(name) -> Network:
    return NETWORKS[name]


@pytest.mark.parametrize("rule", [Backprop(), FeedbackIsForward()], ids=["backprop", "B=W"])
def test_twenty_steps_equal_those_of_a_plain_loop(network, rule):
    course = Course(network, (0,), rule)
    trainer, masks = trained(course)
    plain = network.module()
    start = copy.deepcopy(plain.state_dict())
    tolerance = EXACT if network.dtype == torch.float64 else COARSE

    train_plainly(plain, [step[0] for step in course.batches], [m[0] for m in masks])

    state = state_of(trainer)
    assert state.keys() == plain.state_dict().keys()
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(
            state[name], expected, atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
    x = network.inputs(77)
    torch.testing.assert_close(trainer.predict(x)[0], evaluated(plain, x), atol=10 * tolerance, rtol=0)
    moved = [n for n, p in plain.named_parameters() if p.requires_grad and not torch.equal(p, start[n])]
    assert moved  # the loop did train


def test_three_seeds_in_one_vmap_equal_each_seed_on_its_own(network):
    together = Course(network, SEEDS, Backprop())
    if network.alone:  # then the runner trains them one by one
        with pytest.raises(RuntimeError, match=network.alone):
            trained(together, range(1))
        return
    trainer, _ = trained(together, range(SOME))
    tolerance = 1e-9 if network.dtype == torch.float64 else COARSE

    for place, seed in enumerate(SEEDS):
        alone, _ = trained(Course(network, (seed,), Backprop()), range(SOME))
        expected = state_of(alone)
        for key, value in state_of(trainer, place).items():
            torch.testing.assert_close(value, expected[key], atol=tolerance, rtol=tolerance)


def test_a_training_that_is_resumed_equals_one_that_ran_through(network):
    course = Course(network, (0,), Backprop())
    through, _ = trained(course, range(12))

    broken, _ = trained(course, range(7))
    saved = copy.deepcopy(broken.state_dict())
    resumed = course.trainer()
    resumed.load_state_dict(saved)
    trained(course, range(7, 12), resumed)

    expected = state_of(through)
    assert all(torch.equal(value, expected[key]) for key, value in state_of(resumed).items())


def test_what_comes_out_loads_into_the_plain_model(network):
    trainer, _ = trained(Course(network, (0,), Backprop()), range(3))
    plain, x = network.module(seed=5), network.inputs(77)

    plain.load_state_dict(state_of(trainer), strict=True)

    tolerance = EXACT if network.dtype == torch.float64 else COARSE
    torch.testing.assert_close(evaluated(plain, x), trainer.predict(x)[0], atol=tolerance, rtol=tolerance)
