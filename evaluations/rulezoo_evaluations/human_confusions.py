"""Whether a network confuses the test images of CIFAR-10 as people do.

People's answers are CIFAR-10H: Peterson, Battleday, Griffiths & Russakovsky 2019, https://arxiv.org/abs/1908.07086, about 50
judgements of each of the 10,000 test images. Error consistency: Geirhos, Meding & Wichmann 2020,
https://arxiv.org/abs/2006.16736. Confusions of classes: Rajalingham et al. 2018,
https://doi.org/10.1523/JNEUROSCI.0388-18.2018.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.special import log_softmax

from rulezoo import DataMissing, Evaluation, Measurement, MeasurementError, hp
from rulezoo_evaluations.calibration import UNDETERMINED, temperature
from rulezoo_evaluations.classifiers import Array, not_a_classifier, outputs, without_memory

if TYPE_CHECKING:
    from rulezoo import TrainedNetwork

FOLDER = "cifar10h"
FILES = (
    "cifar10h-counts.npy",
    "cifar10h.npz",
)  # as distributed; an archive with the same array as ``counts``
_IMAGES, _CLASSES = 10_000, 10
_AGREEMENT = 0.95  # of people's most frequent answer with the label; 0.992 in the right order, 0.1 in another
_SHAPE = (3, 32, 32)


# People's answers ------------------------------------------------------------------------------------------------------


def read_counts(root: Path | None) -> Array:
    """How often each class was chosen for each test image, int64 ``(10000, 10)``, in the order of the test batch.

    Raises:
        DataMissing: if the file is not there, or is not such an array.
    """
    if root is None:
        raise DataMissing(f"people's answers to CIFAR-10 need a data folder, and none was given; {_remedy()}")
    found = [root / FOLDER / name for name in FILES if (root / FOLDER / name).is_file()]
    if not found:
        raise DataMissing(f"looked in {root / FOLDER} and found neither {' nor '.join(FILES)}; {_remedy()}")
    try:
        read = np.load(found[0], allow_pickle=False)
        counts = np.asarray(read if isinstance(read, np.ndarray) else read["counts"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataMissing(
            f"{found[0]} cannot be read ({type(error).__name__}: {error}); {_remedy()}"
        ) from error
    if counts.shape != (_IMAGES, _CLASSES) or not np.issubdtype(counts.dtype, np.integer):
        raise DataMissing(
            f"{found[0]} holds {counts.dtype} of shape {counts.shape}; expected whole numbers of shape "
            f"{(_IMAGES, _CLASSES)}, how often people chose each class; {_remedy()}"
        )
    if counts.min() < 0 or counts.sum(1).min() < 2:
        raise DataMissing(
            f"{found[0]} holds negative numbers or images with fewer than two judgements; {_remedy()}"
        )
    return counts.astype(np.int64)


def _remedy() -> str:
    return (
        f"put {FILES[0]} of the repository github.com/jcpeterson/cifar-10h into the folder {FOLDER}/ of the data folder "
        "(--data or $RULEZOO_DATA)"
    )


def check_order(counts: Array, labels: Array) -> None:
    """See that the labels belong to the images that people saw, in the same order.

    Raises:
        MeasurementError: if people's most frequent answer is the label for too few images.
    """
    if labels.shape != (len(counts),):
        raise MeasurementError(
            f"the task's test part has labels of shape {labels.shape}; people answered to the {len(counts):,} images of "
            "CIFAR-10's test batch, so it must consist of all of them"
        )
    agreement = float((counts.argmax(1) == labels).mean())
    if agreement < _AGREEMENT:
        raise MeasurementError(
            f"people's most frequent answer is the label for {agreement:.1%} of the task's test images, expected 99 %; the "
            "test part must be CIFAR-10's test batch, in its order and with its numbering of the classes"
        )


def split_in_half(counts: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """The judgements of each image, divided at random into two halves; the second has one more where they are odd."""
    rest, wanted = counts.sum(1), counts.sum(1) // 2
    half = np.zeros_like(counts)
    for k in range(counts.shape[1]):
        rest = rest - counts[:, k]
        half[:, k] = rng.hypergeometric(counts[:, k], rest, wanted)
        wanted = wanted - half[:, k]
    return half, counts - half


# What is compared ------------------------------------------------------------------------------------------------------


def cross_entropy(people: Array, log_p: Array) -> float:
    """Mean over images of −Σ q log p, in nats, for people's shares ``q`` and a network's log probabilities."""
    return float(-(people * log_p).sum(1).mean())


def entropy(people: Array) -> float:
    """Mean entropy of people's shares, in nats: the smallest cross-entropy that any network can have."""
    logs = np.log(people, out=np.zeros_like(people), where=people > 0)
    return float(-(people * logs).sum(1).mean())


def confusions(shares: Array, labels: Array) -> Array:
    """Mean of the answers to the images of each class, ``(classes, classes)``: rows are labels, columns answers."""
    return np.stack([shares[labels == k].mean(0) for k in range(shares.shape[1])])


def off_diagonal_correlation(one: Array, other: Array) -> float:
    """Pearson's correlation of two matrices of confusions off the diagonal; NaN where one of them is constant there."""
    off = ~np.eye(len(one), dtype=bool)
    a, b = (m[off] - m[off].mean() for m in (one, other))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 1e-12 else math.nan


def error_consistency(correct: Array, right: Array) -> float:
    """Cohen's κ of being right or wrong on the same images, see `kappa`.

    Args:
        correct: whether (or how probably) the network is right on each image.
        right: the share of judgements of each image that are right; κ is that with one judgement drawn for each.
    """
    return kappa(
        float((correct * right + (1 - correct) * (1 - right)).mean()),
        float(correct.mean()),
        float(right.mean()),
    )


def human_error_consistency(counts: Array, labels: Array) -> float:
    """The κ of two different judgements of each image, drawn at random: what one person's errors have in common with another's."""
    n = counts.sum(1).astype(float)
    right = counts[np.arange(len(labels)), labels].astype(float)
    same = (right * (right - 1) + (n - right) * (n - right - 1)) / (n * (n - 1))
    accuracy = float((right / n).mean())
    return kappa(float(same.mean()), accuracy, accuracy)


def kappa(observed: float, one: float, other: float) -> float:
    """(observed − expected) / (1 − expected), where expected is the agreement of independent errors at these accuracies.

    Geirhos et al. 2020; NaN where both are always right, or always wrong.
    """
    expected = one * other + (1 - one) * (1 - other)
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def label_only_cross_entropy(people: Array, labels: Array) -> float:
    """The smallest cross-entropy of a predictor that knows the label and spreads the rest evenly over the other classes."""
    a = float(people[np.arange(len(labels)), labels].mean())
    rest = (1 - a) * math.log((1 - a) / (people.shape[1] - 1)) if a < 1 else 0.0
    return -(a * math.log(a) if a > 0 else 0.0) - rest


def class_only_cross_entropy(people: Array, labels: Array) -> float:
    """The cross-entropy of a predictor that knows the label and people's mean confusions of its class, but not the image."""
    table = confusions(people, labels)
    logs = np.log(
        table, out=np.zeros_like(table), where=table > 0
    )  # people have no share where the mean is 0
    return cross_entropy(people, logs[labels])


@dataclass(frozen=True)
class Ceiling:
    """What one half of people's judgements says of the other, the mean over random halves.

    Attributes:
        cross_entropy: of one half under the shares of the other with one judgement more, spread evenly over the classes.
        correlation: of their confusions off the diagonal, corrected to the whole number of judgements (Spearman-Brown).
    """

    cross_entropy: float
    correlation: float


def split_half(counts: Array, labels: Array, splits: int, seed: int) -> Ceiling:
    """The `Ceiling` over so many random halves."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        one, other = split_in_half(counts, rng)
        log_p = np.log((one + 1 / counts.shape[1]) / (one.sum(1, keepdims=True) + 1))
        r = off_diagonal_correlation(*(confusions(_shares(half), labels) for half in (one, other)))
        found.append((cross_entropy(_shares(other), log_p), 2 * r / (1 + r)))
    return Ceiling(*(float(mean) for mean in np.mean(found, 0)))


def _shares(counts: Array) -> Array:
    shares: Array = counts / counts.sum(1, keepdims=True)
    return shares


# The evaluation ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HumanConfusions(Evaluation):
    """Agreement with people's answers to CIFAR-10's test images, with ceilings from people and controls."""

    headline: ClassVar[str] = "error-consistency"
    higher_is_better: ClassVar[bool | None] = True

    splits: int = hp(20, "random halves of the judgements, for the ceilings", low=1, high=10_000)
    seed: int = hp(0, "seed of the halves", low=0)

    def skip(self, network: TrainedNetwork) -> str | None:
        """Tasks other than CIFAR-10, and rules whose memory is needed and was not kept."""
        shape, classes = tuple(network.net.example.shape[1:]), network.made_task.classes
        if shape != _SHAPE or classes != _CLASSES:
            return (
                f"people answered to the test images of CIFAR-10 alone, and the task {network.task} is not CIFAR-10: it has "
                f"inputs of shape {shape} and {classes or 'no'} classes"
            )
        return not_a_classifier(network) or without_memory(network)

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Cross-entropy to people's answers, correlation of confusions, and error consistency."""
        counts, data = read_counts(root), network.data(root)
        labels = data.test.y.cpu().numpy()
        check_order(counts, labels)
        t = temperature(outputs(network, data.validation.x), data.validation.y.cpu().numpy())
        values, arrays = self.of(outputs(network, data.test.x), counts, labels, t)
        notes = {}
        untrained = network.untrained()
        if (reason := without_memory(untrained)) is None:
            control, _ = agreement(outputs(untrained, data.test.x), counts, labels)
        else:
            control = dict.fromkeys(_AGREEMENTS, math.nan)
            notes = {f"{name}/untrained": reason for name in _AGREEMENTS}
        values |= {f"{name}/untrained": value for name, value in control.items()}
        if math.isnan(t):
            notes["cross-entropy-scaled"] = UNDETERMINED
        notes |= {
            name: _UNDETERMINED for name, value in values.items() if math.isnan(value) and name not in notes
        }
        digest = hashlib.sha256(np.ascontiguousarray(counts, "<i8").tobytes()).hexdigest()
        return Measurement(values, arrays, notes, data=digest)

    def of(
        self, logits: Array, counts: Array, labels: Array, t: float
    ) -> tuple[dict[str, float], dict[str, Array]]:
        """Values and arrays for outputs ``(images, classes)``, people's counts, labels, and a fitted temperature."""
        people = _shares(counts)
        values, arrays = agreement(logits, counts, labels)
        ceiling = split_half(counts, labels, self.splits, self.seed)
        correct = arrays["correct"].astype(float)
        by_class = np.array([correct[labels == k].mean() for k in range(counts.shape[1])])
        right = people[np.arange(len(labels)), labels]
        values |= {
            "error-consistency/people": human_error_consistency(counts, labels),
            "error-consistency/class-only": error_consistency(by_class[labels], right),
            "confusion-correlation/people": ceiling.correlation,
            "cross-entropy/people": ceiling.cross_entropy,
            "cross-entropy/entropy": entropy(people),
            "cross-entropy/label-only": label_only_cross_entropy(people, labels),
            "cross-entropy/class-only": class_only_cross_entropy(people, labels),
            "cross-entropy-scaled": cross_entropy(people, log_softmax(logits / t, -1)) if t > 0 else math.nan,
            "kl": values["cross-entropy"] - entropy(people),
            "accuracy": float(correct.mean()),
            "accuracy/people": float(right.mean()),
        }
        return values, arrays


_AGREEMENTS = ("error-consistency", "confusion-correlation", "confusion-correlation-soft", "cross-entropy")
_UNDETERMINED = "not determined: one of the two has no errors, or the same number of each"


def agreement(logits: Array, counts: Array, labels: Array) -> tuple[dict[str, float], dict[str, Array]]:
    """How outputs ``(images, classes)`` agree with people's counts, and the matrices that were compared."""
    people, log_p, answer = _shares(counts), log_softmax(logits, -1), logits.argmax(-1)
    ours, soft = confusions(np.eye(counts.shape[1])[answer], labels), confusions(np.exp(log_p), labels)
    theirs = confusions(people, labels)
    correct = answer == labels
    values = (
        error_consistency(correct.astype(float), people[np.arange(len(labels)), labels]),
        off_diagonal_correlation(ours, theirs),
        off_diagonal_correlation(soft, theirs),
        cross_entropy(people, log_p),
    )
    arrays = {"confusions": ours, "confusions-soft": soft, "confusions-people": theirs, "correct": correct}
    return dict(zip(_AGREEMENTS, values, strict=True)), arrays
