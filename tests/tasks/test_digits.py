import torch
from sklearn.datasets import load_digits

from rulezoo import Net
from rulezoo_tasks.digits import DigitsCNN, DigitsRNN


def test_parts_are_all_the_digits_in_the_declared_sizes():
    data = DigitsCNN().data(None)
    assert [tuple(part.x.shape) for part in data] == [(1257, 1, 8, 8), (180, 1, 8, 8), (360, 1, 8, 8)]
    ours = {
        (*x.flatten().mul(16).tolist(), int(y)) for part in data for x, y in zip(part.x, part.y, strict=True)
    }
    images, labels = load_digits(return_X_y=True)
    assert ours == {(*x.tolist(), int(y)) for x, y in zip(images, labels, strict=True)}


def test_every_part_has_every_class_in_proportion():
    data = DigitsCNN().data(None)
    whole = torch.cat([part.y for part in data]).bincount(minlength=10) / 1797
    for part in data:
        share = part.y.bincount(minlength=10) / len(part.y)
        assert (share - whole).abs().max() < 1.01 / len(part.y)  # rounding to whole images


def test_the_split_is_the_one_of_version_1():
    """A change here changes every result: raise the version of both tasks."""
    data = DigitsCNN().data(None)
    assert data.test.y[:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]
    assert [int(part.x.mul(16).long().sum()) for part in data] == [392434, 56934, 112350]


def test_rnn_reads_the_same_digits_row_by_row():
    rows, images = DigitsRNN().data(None), DigitsCNN().data(None)
    for a, b in zip(rows, images, strict=True):
        assert torch.equal(a.x, b.x[:, 0])  # step t is row t
        assert torch.equal(a.y, b.y)


def test_post_sites_are_wide():
    cnn = Net(DigitsCNN().network(), torch.zeros(1, 1, 8, 8))
    assert {key: cnn.visits[key].width for key in cnn.keys("post")} == {
        "conv1.post": 1024,
        "conv2.post": 256,
        "fc.post": 128,
    }


def test_options_set_widths_and_leak():
    cnn = Net(DigitsCNN(width=0.5).network(), torch.zeros(1, 1, 8, 8))
    assert [cnn.visits[key].width for key in cnn.keys("post")] == [512, 128, 64]
    rnn = DigitsRNN(width=7, leak=0.25).network()
    assert rnn.w_rec.weight.shape == (7, 7)
    assert rnn.leak == 0.25


def test_cross_entropy_and_accuracy_by_hand():
    output = torch.zeros(3, 10, dtype=torch.float64)
    output[0, 4], output[1, 4], output[2, 9] = 2.0, 2.0, -1.0
    target = torch.tensor([4, 5, 9])
    total = torch.tensor([2.0, 2.0, -1.0], dtype=torch.float64).exp() + 9
    expected = total.log() - torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(DigitsCNN().loss(output, target), expected)
    assert DigitsCNN().score(output, target).tolist() == [1.0, 0.0, 0.0]
