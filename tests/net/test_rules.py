"""Rules other than backprop on networks as people bring them: they learn something of their own, or say why not."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from rulezoo import Net, OptionError, add_sites, credit
from rulezoo.testing.nets import TinyTask
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.feedback_weights.feedback_alignment import FeedbackAlignment, UniformSign
from rulezoo_plugins.feedback_weights.kolen_pollack import KolenPollack
from rulezoo_plugins.feedback_weights.weight_mirror import WeightMirror
from rulezoo_plugins.node_perturbation.rules import NodePerturbation
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation, NoiseCorrelation

from .harness import Course, trained
from .networks import NETWORKS, loss

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

RULES = {
    "direct-feedback-alignment": DirectFeedbackAlignment(),
    "noise-correlation": NoiseCorrelation(),
    "nmnc": ManifoldNoiseCorrelation(rank=3),
    "node-perturbation": NodePerturbation(),
    "feedback-alignment": FeedbackAlignment(),
    "usf": UniformSign(),
    "kolen-pollack": KolenPollack(),
    "weight-mirror": WeightMirror(perturbations=16),
}

ROUNDING = r"sigma=.* drowns in the rounding of torch.bfloat16"
COMPUTED = r"is computed from .*, and this rule needs weights that are parameters"
NO_FEEDBACK = (
    r"would have to travel back through '{}', and feedback weights exist for linear and convolution layers"
)
SPECTRAL = {
    "spectral-norm": NO_FEEDBACK.format("2.weight_orig"),
    "parametrized-spectral-norm": NO_FEEDBACK.format(r"2\.parametrizations\.weight\.original"),
}

OPAQUE = NO_FEEDBACK.format(r"recurrent\.weight_hh_l0")  # from step to step

# (network, rule) → the sentence that refuses it; every other pair trains.
REFUSED = {
    **{(name, rule): sentence for name, sentence in SPECTRAL.items() for rule in list(RULES)[4:]},
    **{(name, rule): OPAQUE for name in ("gru", "lstm") for rule in list(RULES)[4:]},
    ("weight-norm", "weight-mirror"): COMPUTED,
    ("parametrized-weight-norm", "weight-mirror"): COMPUTED,
    ("decoder", "weight-mirror"): COMPUTED,  # cross attention uses its packed in-projection in two parts
    ("tied-autoencoder", "weight-mirror"): COMPUTED,  # transposed
    (
        "frozen",
        "kolen-pollack",
    ): r"'b.weight' does not learn, so no increments could make its feedback weight agree",
    ("bfloat16", "noise-correlation"): ROUNDING,
    ("bfloat16", "nmnc"): ROUNDING,
    ("bfloat16", "node-perturbation"): ROUNDING,
}


@pytest.fixture(scope="module")
def net_of():
    return cache(lambda name: Net(add_sites(NETWORKS[name].module()), NETWORKS[name].inputs()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_or_says_in_a_sentence_why_not(name, rule, net_of):
    if (name, rule) in REFUSED:
        reason = RULES[rule].skip(net_of(name), TinyTask())
        if reason is None:  # else the options do not fit the network
            with pytest.raises(OptionError) as caught:
                Course(NETWORKS[name], (0,), RULES[rule]).trainer()
            reason = str(caught.value)
        assert re.search(REFUSED[name, rule], reason)
        return
    assert RULES[rule].skip(net_of(name), TinyTask()) is None

    trainer, _ = trained(Course(NETWORKS[name], (0,), RULES[rule]), range(2))
    course = Course(NETWORKS[name], (0,), Backprop())
    bound, batch = trainer.network(0, course.network.batch), course.stacked(2)
    exact, _ = credit.backprop(bound, loss, trainer.params, batch.x[0], batch.y[0])
    grads, _, mean, _ = trainer.gradients(batch)

    assert mean.isfinite()
    assert all(grad.isfinite().all() for grad in grads.values())
    hidden = [
        n for n, p in trainer.params.items() if p.ndim > 1 and n not in bound.readout and exact[n].any()
    ]
    assert hidden
    for weight in hidden:
        assert grads[weight].any(), f"{weight} is not trained"
        assert not torch.allclose(grads[weight], exact[weight], rtol=1e-3, atol=0), (
            f"{weight} is trained by backprop"
        )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["batch-norm", "instance-norm", "running-mean", "resnet"])
def test_however_many_passes_a_step_makes_it_moves_statistics_as_one_clean_pass_does(name, rule):
    course, plain = Course(NETWORKS[name], (0,), RULES[rule]), NETWORKS[name].module()
    trainer = course.trainer()
    before = {key: buffer.clone() for key, buffer in plain.named_buffers()}
    with torch.no_grad():
        plain(course.batches[0][0][0])

    trainer.step(course.stacked(0))

    assert trainer.statistics
    for key, moved in trainer.statistics.items():
        torch.testing.assert_close(moved, plain.get_buffer(key))
        assert not torch.equal(moved, before[key])


def test_examples_that_are_evaluated_move_nothing():
    trainer, _ = trained(Course(NETWORKS["batch-norm"], (0,), Backprop()), range(2))
    before = {key: buffer.clone() for key, buffer in trainer.statistics.items()}

    trainer.predict(NETWORKS["batch-norm"].inputs())

    assert all(torch.equal(buffer, before[key]) for key, buffer in trainer.statistics.items())
