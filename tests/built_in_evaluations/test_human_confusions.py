import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from torch import nn

from rulezoo import Data, DataMissing, MeasurementError, Site, Split
from rulezoo_evaluations.human_confusions import (
    FOLDER,
    HumanConfusions,
    agreement,
    check_order,
    class_only_cross_entropy,
    confusions,
    cross_entropy,
    entropy,
    error_consistency,
    human_error_consistency,
    label_only_cross_entropy,
    off_diagonal_correlation,
    read_counts,
    split_half,
    split_in_half,
)

from .conftest import Stripes, trained_on


def people(images=400, classes=4, seed=0, judgements=(5, 9), clear=2.5):
    """Counts of judgements of images with hidden probabilities, which differ between images of a class; labels; those."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    similar = rng.normal(size=(classes, classes))
    logits = similar[labels] + 1.5 * rng.normal(size=(images, classes)) + clear * np.eye(classes)[labels]
    p = np.exp(log_softmax(logits, -1))
    counts = np.stack([rng.multinomial(rng.integers(*judgements), row) for row in p])
    return counts, labels, p


def shares(counts):
    return counts / counts.sum(1, keepdims=True)


# Slow twins ------------------------------------------------------------------------------------------------------------


def slow_kappa(pairs, one, other):
    """Cohen's κ from the agreement of pairs (weight, right, right) and the two accuracies."""
    observed = sum(weight for weight, a, b in pairs if a == b)
    expected = one * other + (1 - one) * (1 - other)
    return (observed - expected) / (1 - expected)


def judgements(row):
    return [k for k, n in enumerate(row) for _ in range(n)]


def test_error_consistency_equals_the_loop_over_judgements():
    counts, labels, _ = people(60)
    correct = np.random.default_rng(1).random(60) < 0.7
    pairs = [
        (1 / 60 / row.sum(), bool(c), k == label)
        for row, label, c in zip(counts, labels, correct, strict=True)
        for k in judgements(row)
    ]
    right = np.mean([row[label] / row.sum() for row, label in zip(counts, labels, strict=True)])
    assert error_consistency(correct.astype(float), shares(counts)[np.arange(60), labels]) == pytest.approx(
        slow_kappa(pairs, correct.mean(), right), abs=1e-12
    )


def test_the_consistency_of_people_equals_the_loop_over_pairs_of_judgements():
    counts, labels, _ = people(60)
    pairs = []
    for row, label in zip(counts, labels, strict=True):
        both = list(itertools.permutations(judgements(row), 2))
        pairs += [(1 / 60 / len(both), a == label, b == label) for a, b in both]
    right = np.mean([row[label] / row.sum() for row, label in zip(counts, labels, strict=True)])
    assert human_error_consistency(counts, labels) == pytest.approx(
        slow_kappa(pairs, right, right), abs=1e-12
    )


def test_with_one_judgement_each_it_is_cohen_s_kappa():
    rng = np.random.default_rng(0)
    correct = rng.random(500) < 0.6
    right = np.where(rng.random(500) < 0.5, correct, rng.random(500) < 0.8)
    expected = cohen_kappa_score(correct, right)
    assert error_consistency(correct.astype(float), right.astype(float)) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(error_consistency(np.ones(5), np.ones(5)))


def test_confusions_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, answer = rng.integers(5, size=300), rng.integers(5, size=300)
    found = confusions(np.eye(5)[answer], labels)
    np.testing.assert_allclose(found, confusion_matrix(labels, answer, normalize="true"), atol=1e-12)
    other = rng.random((5, 5))
    off = [(i, j) for i in range(5) for j in range(5) if i != j]
    slow = np.corrcoef([found[ij] for ij in off], [other[ij] for ij in off])[0, 1]
    assert off_diagonal_correlation(found, other) == pytest.approx(slow, abs=1e-12)
    assert math.isnan(off_diagonal_correlation(np.eye(5), other))


def test_cross_entropies_equal_the_slow_loop():
    counts, labels, p = people(50)
    q = shares(counts)
    slow = -np.mean([sum(q[i, k] * math.log(p[i, k]) for k in range(4)) for i in range(50)])
    assert cross_entropy(q, np.log(p)) == pytest.approx(slow, abs=1e-12)
    slow = -np.mean([sum(q[i, k] * math.log(q[i, k]) for k in range(4) if q[i, k] > 0) for i in range(50)])
    assert entropy(q) == pytest.approx(slow, abs=1e-12)
    table = {
        (a, k): np.mean([q[i, k] for i in range(50) if labels[i] == a]) for a in range(4) for k in range(4)
    }
    slow = -np.mean(
        [sum(q[i, k] * math.log(table[labels[i], k]) for k in range(4) if q[i, k] > 0) for i in range(50)]
    )
    assert class_only_cross_entropy(q, labels) == pytest.approx(slow, abs=1e-12)
    grid = [
        cross_entropy(q, np.log(np.where(np.eye(4, dtype=bool)[labels], a, (1 - a) / 3)))
        for a in np.linspace(0.01, 0.99, 4000)
    ]
    assert label_only_cross_entropy(q, labels) == pytest.approx(min(grid), abs=1e-6)


def test_halves_are_without_replacement_and_unbiased():
    """Of 8 judgements 5 to 3, a half of 4 has 2.5 to 1.5 in the mean; its variance is hypergeometric: 15/28."""
    counts = np.tile([5, 3, 0], (20_000, 1))
    one, other = split_in_half(counts, np.random.default_rng(0))
    assert (one + other == counts).all()
    assert (one.sum(1) == 4).all()
    assert one.min() >= 0
    assert one[:, 0].mean() == pytest.approx(2.5, abs=4 * (15 / 28 / 20_000) ** 0.5)
    assert one[:, 0].var() == pytest.approx(15 / 28, rel=0.05)
    odd = split_in_half(np.array([[4, 3]]), np.random.default_rng(0))
    assert [int(half.sum()) for half in odd] == [3, 4]


# Limits ------------------------------------------------------------------------------------------------------------------


def test_people_s_own_probabilities_reach_every_ceiling():
    counts, labels, _ = people(1000, judgements=(60, 61))
    counts = counts + 1  # so that no share is zero, and has a logarithm
    values, _ = HumanConfusions(splits=3).of(np.log(shares(counts)), counts, labels, 1.0)
    assert values["cross-entropy"] == pytest.approx(values["cross-entropy/entropy"], abs=1e-12)
    assert values["kl"] == pytest.approx(0, abs=1e-12)
    assert values["confusion-correlation-soft"] == pytest.approx(1, abs=1e-12)
    assert values["confusion-correlation/people"] > 0.97
    for control in ("people", "class-only", "label-only"):
        assert values["cross-entropy"] < values[f"cross-entropy/{control}"]
    assert values["cross-entropy/class-only"] < values["cross-entropy/label-only"]


def test_one_more_person_has_the_consistency_of_people():
    """Its standard error over 20,000 images is about 0.01; a person who knows the classes alone has less by 0.2."""
    counts, labels, p = people(20_000, judgements=(20, 30))
    answer = (p.cumsum(1) > np.random.default_rng(7).random((len(p), 1))).argmax(1)
    found, _ = agreement(np.log(1e-9 + np.eye(4)[answer]), counts, labels)
    ceiling = human_error_consistency(counts, labels)
    assert found["error-consistency"] == pytest.approx(ceiling, abs=0.04)
    assert found["confusion-correlation"] > 0.99
    values, arrays = HumanConfusions(splits=2).of(np.eye(4)[answer], counts, labels, 1.0)
    assert values["error-consistency/people"] == ceiling
    assert values["error-consistency/class-only"] < ceiling - 0.1
    assert arrays["confusions-people"].shape == (4, 4)


def test_errors_that_know_the_class_alone_have_the_consistency_of_the_control():
    counts, labels, _ = people(20_000)
    rate = np.array([0.95, 0.8, 0.6, 0.9])[labels]
    wrong = np.random.default_rng(3).random(len(labels)) > rate
    answer = np.where(wrong, (labels + 1) % 4, labels)
    values, _ = HumanConfusions(splits=1).of(np.eye(4)[answer], counts, labels, 1.0)
    assert values["error-consistency"] == pytest.approx(values["error-consistency/class-only"], abs=0.03)
    independent = np.where(np.random.default_rng(4).random(len(labels)) > 0.8, (labels + 1) % 4, labels)
    values, _ = HumanConfusions(splits=1).of(np.eye(4)[independent], counts, labels, 1.0)
    assert values["error-consistency"] == pytest.approx(0, abs=0.03)


def test_the_ceilings_are_seeded_and_what_they_say():
    counts, labels, p = people(2000, judgements=(40, 50))
    first, second = (split_half(counts, labels, 4, seed=1) for _ in range(2))
    assert first == second
    assert first != split_half(counts, labels, 4, seed=2)
    truth = cross_entropy(p, np.log(p))
    assert truth < first.cross_entropy < truth + 0.15
    assert 0.95 < first.correlation <= 1


# Files, and the order of images ------------------------------------------------------------------------------------------


def write_counts(root, counts, name="cifar10h-counts.npy"):
    (root / FOLDER).mkdir(exist_ok=True)
    if name.endswith("npz"):
        np.savez(root / FOLDER / name, counts=counts)
    else:
        np.save(root / FOLDER / name, counts)


LABELS = np.random.default_rng(0).integers(10, size=10_000)
COUNTS = 40 * np.eye(10, dtype=np.int64)[LABELS] + np.random.default_rng(1).integers(3, size=(10_000, 10))


@pytest.mark.parametrize("name", ["cifar10h-counts.npy", "cifar10h.npz"])
def test_both_forms_of_the_file_are_read(tmp_path, name):
    write_counts(tmp_path, COUNTS.astype(np.uint8), name)
    found = read_counts(tmp_path)
    assert found.dtype == np.int64
    assert (found == COUNTS).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (COUNTS[:100], r"shape \(100, 10\); expected whole numbers of shape \(10000, 10\)"),
        (COUNTS / 50, "float64"),
        (COUNTS - 5, "negative"),
        (0 * COUNTS, "fewer than two judgements"),
        (np.array([{}]), "cannot be read"),
    ],
)
def test_what_is_no_count_is_refused(tmp_path, counts, message):
    write_counts(tmp_path, counts)
    with pytest.raises(DataMissing, match=message) as told:
        read_counts(tmp_path)
    assert "cifar-10h" in str(told.value)


def test_a_missing_file_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(DataMissing, match=r"neither cifar10h-counts\.npy nor cifar10h\.npz; put .*--data"):
        read_counts(tmp_path)
    with pytest.raises(DataMissing, match="none was given"):
        read_counts(None)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "cifar10h.npz").write_bytes(b"not an archive")
    with pytest.raises(DataMissing, match="cannot be read"):
        read_counts(tmp_path)


def test_another_order_of_the_images_is_refused():
    check_order(COUNTS, LABELS)
    with pytest.raises(MeasurementError, match=r"the label for (9|10|11)\.\d% of the task's test images"):
        check_order(COUNTS, np.roll(LABELS, 1))
    with pytest.raises(MeasurementError, match=r"shape \(9000,\).*10,000 images"):
        check_order(COUNTS, LABELS[:9000])


# On a network ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LikeCIFAR(Stripes):
    """10,000 test images of 3×32×32 whose colour is a hint at the class."""

    classes: ClassVar[int] = 10

    def data(self, root, *, download=False):
        def part(labels, seed):
            gen = torch.Generator().manual_seed(seed)
            y = torch.from_numpy(labels)
            colour = torch.stack([y % 2, y // 2 % 3, y // 4], 1) * 40.0
            colour = colour + 20 * torch.randn(len(y), 3, generator=gen) + 60
            return Split(colour.clamp(0, 255).to(torch.uint8).view(-1, 3, 1, 1).expand(-1, 3, 32, 32), y)

        return Data(part(LABELS[:500], 0), part(LABELS[500:700], 1), part(LABELS, 2))

    def prepare(self, x, draw):
        return x.float() / 100 - 1

    def network(self):
        pool = nn.Sequential(nn.AvgPool2d(32), nn.Flatten())
        return nn.Sequential(pool, nn.Linear(3, 16), Site("pre"), nn.Tanh(), Site("post"), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def network():
    return trained_on(LikeCIFAR())


def test_it_measures_a_network_with_its_controls(network, tmp_path):
    write_counts(tmp_path, COUNTS)
    evaluation = HumanConfusions(splits=2)
    assert evaluation.skip(network) is None
    found = evaluation.measure(network, tmp_path)
    assert found.values == evaluation.measure(network, tmp_path).values
    assert found.values["accuracy"] > 0.3
    assert found.values["cross-entropy"] < found.values["cross-entropy/untrained"]
    assert found.values.keys() >= {HumanConfusions.headline, "error-consistency/untrained", "kl"}
    assert found.arrays["correct"].shape == (10_000,)
    assert len(found.data) == 64
    assert not found.notes
    write_counts(tmp_path, COUNTS[::-1])
    with pytest.raises(MeasurementError, match="in its order"):
        evaluation.measure(network, tmp_path)


def test_tasks_other_than_cifar_10_are_skipped(stripes, with_memory):
    reason = HumanConfusions().skip(stripes)
    assert reason.startswith(
        "people answered to the test images of CIFAR-10 alone, and the task stripes is not CIFAR-10"
    )
    assert "(1, 8, 8) and 3 classes" in reason


@pytest.fixture
def real_counts(real_root):
    if not (real_root / FOLDER).is_dir():
        pytest.skip(f"no folder {FOLDER}/ in $RULEZOO_DATA")
    return read_counts(real_root)


def test_the_real_answers_belong_to_the_real_images(real_counts, real_root):
    """Known of the published data: 99.21 % of first choices are the label, whose mean share is 0.952; 0.154 nats."""
    from rulezoo_tasks.images import CIFAR10

    _, test = CIFAR10.read(real_root, download=False)
    labels = test.y.numpy()
    check_order(real_counts, labels)
    assert (real_counts.argmax(1) == labels).mean() == pytest.approx(0.9921, abs=1e-9)
    q = shares(real_counts)
    assert q[np.arange(10_000), labels].mean() == pytest.approx(0.952, abs=1e-3)
    assert entropy(q) == pytest.approx(0.154, abs=1e-3)
    ceiling = split_half(real_counts, labels, 2, 0)
    assert 0.98 < ceiling.correlation < 1
    assert 0.2 < human_error_consistency(real_counts, labels) < 0.6
    assert entropy(q) < ceiling.cross_entropy < class_only_cross_entropy(q, labels)
