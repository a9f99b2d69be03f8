"""Calibration: whether the probability that a network gives to its answer is the probability that it is right.

Guo, Pleiss, Sun & Weinberger 2017, https://arxiv.org/abs/1706.04599, for the expected calibration error (ECE) and
temperature scaling; Nixon et al. 2019, https://arxiv.org/abs/1904.01685, for bins of equal mass; Brier 1950,
https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Bröcker & Smith 2007, https://doi.org/10.1175/WAF993.1, for
the error that a calibrated forecast has with as few examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from rulezoo import Evaluation, Measurement, hp
from rulezoo_evaluations.classifiers import Array, not_a_classifier, outputs, without_memory

if TYPE_CHECKING:
    from rulezoo import TrainedNetwork

_TEMPERATURES = (1e-3, 1e3)
_SCALED = ("ece-scaled", "brier-scaled", "nll-scaled")
UNDETERMINED = "the validation part does not determine a temperature: all answers are right, or no outputs beat equal ones"


class Reliability(NamedTuple):
    """A reliability diagram: for each bin of confidence, what is in it.

    Attributes:
        share: of all examples, ``(bins,)``.
        confidence: mean confidence; NaN where a bin is empty.
        accuracy: share of right answers; NaN where a bin is empty.
    """

    share: Array
    confidence: Array
    accuracy: Array

    @property
    def error(self) -> float:
        """The expected calibration error: Σ share · |accuracy − confidence|."""
        return float(np.nansum(self.share * np.abs(self.accuracy - self.confidence)))


def equal_width(bins: int) -> Array:
    """Edges of bins of equal width in [0, 1], ``(bins + 1,)``."""
    return np.linspace(0.0, 1.0, bins + 1)


def equal_mass(confidence: Array, bins: int) -> Array:
    """Edges of bins with equally many examples; equal confidences stay together, so there may be fewer bins."""
    return np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1)))


def reliability(confidence: Array, correct: Array, edges: Array) -> Reliability:
    """The reliability diagram.

    Args:
        confidence: of each answer, ``(examples,)``.
        correct: whether each answer is right, ``(examples,)``.
        edges: ascending, as from `equal_width`; a bin contains its upper edge, as in Guo et al. 2017.
    """
    bins = max(1, len(edges) - 1)
    which = np.searchsorted(edges[1:-1], confidence, side="left")
    number, sure, right = (
        np.bincount(which, weights, minlength=bins)
        for weights in (None, confidence, np.asarray(correct, float))
    )
    with np.errstate(invalid="ignore"):
        return Reliability(number / len(confidence), sure / number, right / number)


def error_of_a_calibrated_network(confidence: Array, edges: Array, resamples: int, seed: int) -> Array:
    """The ECE in resampled data in which each answer is right with the probability of its confidence, ``(resamples,)``.

    With few examples the ECE of a perfectly calibrated network is above zero; this is its distribution.
    """
    rng = np.random.default_rng(seed)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(resamples))
    return np.array([reliability(confidence, correct, edges).error for correct in drawn])


def negative_log_likelihood(logits: Array, labels: Array) -> float:
    """Mean negative log probability of the labels, in nats."""
    return float(-log_softmax(logits, -1)[np.arange(len(labels)), labels].mean())


def brier(logits: Array, labels: Array) -> float:
    """Mean squared distance of the probabilities from the one-hot label, summed over classes: 0 to 2."""
    p = np.exp(log_softmax(logits, -1))
    p[np.arange(len(labels)), labels] -= 1
    return float(np.square(p).sum(-1).mean())


def temperature(logits: Array, labels: Array) -> float:
    """The temperature T for which logits / T have the smallest negative log-likelihood.

    It is a convex problem in 1 / T; the search is over log T between 0.001 and 1000. NaN where the data do not determine T:
    all answers are right, so that T = 0 is best, or no logits are better than equal ones.
    """
    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits / np.exp(log_t), labels),
        bounds=(low, high),
        method="bounded",
    )
    if (logits.argmax(-1) == labels).all() or found.x > high - 0.01:
        return math.nan
    return float(np.exp(found.x))


def answers(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The confidence of each answer, and whether it is right: ``(examples,)`` each."""
    return np.exp(log_softmax(logits, -1).max(-1)), logits.argmax(-1) == labels


@dataclass(frozen=True)
class Calibration(Evaluation):
    """Calibration of the answers to the test part, as they are and after temperature scaling on the validation part."""

    headline: ClassVar[str] = "ece"
    higher_is_better: ClassVar[bool | None] = False

    bins: int = hp(15, "bins of confidence", low=1, high=1000)
    resamples: int = hp(100, "resampled data sets for the error of a calibrated network", low=1, high=100_000)
    seed: int = hp(0, "seed of the resampling", low=0)

    def skip(self, network: TrainedNetwork) -> str | None:
        """Tasks without classes, and rules whose memory is needed and was not kept."""
        return not_a_classifier(network) or without_memory(network)

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Expected calibration error, Brier score, negative log-likelihood, and the temperature that scaling fits."""
        data = network.data(root)
        validation, test = (outputs(network, part.x) for part in (data.validation, data.test))
        t = temperature(validation, data.validation.y.cpu().numpy())
        return self.of(test, data.test.y.cpu().numpy(), t)

    def of(self, logits: Array, labels: Array, t: float) -> Measurement:
        """The measurement for outputs ``(examples, classes)``, labels ``(examples,)`` and a fitted temperature."""
        confidence, correct = answers(logits, labels)
        fixed, adaptive = equal_width(self.bins), equal_mass(confidence, self.bins)
        diagram = reliability(confidence, correct, fixed)
        calibrated = error_of_a_calibrated_network(confidence, fixed, self.resamples, self.seed)
        values = {
            "ece": diagram.error,
            "ece-adaptive": reliability(confidence, correct, adaptive).error,
            "ece-if-calibrated": float(calibrated.mean()),
            "ece-if-calibrated-95": float(np.quantile(calibrated, 0.95)),
            "accuracy": float(correct.mean()),
            "overconfidence": float(confidence.mean() - correct.mean()),
            "brier": brier(logits, labels),
            "nll": negative_log_likelihood(logits, labels),
            "temperature": t,
        }
        arrays = {"edges": fixed, **diagram._asdict()}
        if math.isnan(t):
            values |= dict.fromkeys(_SCALED, t)
            return Measurement(values, arrays, dict.fromkeys(("temperature", *_SCALED), UNDETERMINED))
        scaled = reliability(*answers(logits / t, labels), fixed)
        found = scaled.error, brier(logits / t, labels), negative_log_likelihood(logits / t, labels)
        values |= dict(zip(_SCALED, found, strict=True))
        arrays |= {f"{name}-scaled": array for name, array in scaled._asdict().items()}
        return Measurement(values, arrays)
