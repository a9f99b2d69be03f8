import torch

from rulezoo import Net
from rulezoo_tasks.vision import FashionCNN, FashionRNN


def test_a_step_is_a_row_of_the_images_that_the_convolutional_network_sees(tmp_path, write_idx):
    write_idx(tmp_path / "FashionMNIST" / "raw")
    rows, images = FashionRNN().data(tmp_path), FashionCNN().data(tmp_path)
    for a, b in zip(rows, images, strict=True):
        assert torch.equal(a.x, b.x[:, 0])
        assert a.x.is_contiguous()
        assert torch.equal(a.y, b.y)


def test_examples_limits_the_training_part(tmp_path, write_idx):
    write_idx(tmp_path / "FashionMNIST" / "raw")
    assert len(FashionRNN(examples=128).data(tmp_path).train.y) == 128


def test_the_answer_comes_after_the_last_of_28_rows():
    net = Net(FashionRNN(width=64, leak=0.25).network(), torch.zeros(1, 28, 28))
    assert net.keys("post") == [f"hidden[{t}]" for t in range(28)]
    assert net.visits["hidden[0]"].width == 64
    assert net.output_shape == (10,)
    assert net.module.leak == 0.25
