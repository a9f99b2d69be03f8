import pytest
import torch
from torchvision import datasets

from rulezoo import DataMissing, Net, OptionError
from rulezoo_tasks.images import moments
from rulezoo_tasks.vision import CIFAR10CNN, MNISTMLP, FashionCNN

TASKS = [MNISTMLP, FashionCNN, CIFAR10CNN]
FILES = {
    MNISTMLP: ("MNIST/raw", "t10k-labels-idx1-ubyte"),
    FashionCNN: ("FashionMNIST/raw", "t10k-labels-idx1-ubyte"),
    CIFAR10CNN: ("cifar-10-batches-py", "data_batch_5"),
}


@pytest.fixture
def data(mnist_root):
    return MNISTMLP().data(mnist_root)


@pytest.fixture
def raw(mnist_root):
    return datasets.MNIST(mnist_root, train=True)


@pytest.fixture
def scale(data):
    """The mean and sd that were used, found from the darkest and the brightest pixel, 0 and 255."""
    low, high = data.train.x.double().min().item(), data.train.x.double().max().item()
    sd = 255 / (high - low)
    return -low * sd, sd


def numbers(part, scale):
    """Which images a part holds: `mnist_root` wrote the number of an image into its first two pixels."""
    mean, sd = scale
    low, high = (part.x[:, 0, 0, i] * sd + mean for i in (0, 1))
    return (low.round() + 256 * high.round()).long().tolist()


def test_validation_is_a_tenth_of_the_training_images_and_nothing_is_shared(data, raw, scale):
    train, validation = numbers(data.train, scale), numbers(data.validation, scale)
    assert len(validation) == 40
    assert sorted(train + validation) == list(range(400))
    assert numbers(data.test, scale) == list(range(50))
    for part, where in ((data.train, train), (data.validation, validation)):
        assert torch.equal(part.y, raw.targets[where])


def test_the_split_is_the_one_of_version_1(data, scale):
    """A change here changes every result: raise the version of the tasks."""
    assert numbers(data.train, scale)[:6] == [44, 214, 287, 174, 155, 34]


def test_inputs_are_standardised_with_the_training_part(data, raw, scale):
    training = raw.data[numbers(data.train, scale)].double()
    mean, sd = training.mean(), training.std(correction=0)
    for part in (data.train, data.validation):
        expected = (raw.data[numbers(part, scale)].double() - mean) / sd
        torch.testing.assert_close(part.x[:, 0].double(), expected, rtol=0, atol=1e-6)


def test_the_same_at_every_call(mnist_root, data):
    torch.manual_seed(5)
    for a, b in zip(data, MNISTMLP().data(mnist_root), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_examples_takes_the_first_of_the_training_part_only(mnist_root, data):
    few = MNISTMLP(examples=130).data(mnist_root)
    assert torch.equal(few.train.y, data.train.y[:130])
    assert torch.equal(few.validation.y, data.validation.y)
    assert torch.equal(few.test.y, data.test.y)
    assert few.train.x.mean().item() == pytest.approx(0, abs=1e-5)  # with the mean of these 130


def test_moments_are_per_channel_and_exact():
    pixels = torch.randint(256, (20, 3, 5, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels[:, 1] //= 3
    mean, sd = moments(pixels)
    values = pixels.double()
    torch.testing.assert_close(mean.flatten().double(), values.mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(sd.flatten().double(), values.std((0, 2, 3), correction=0), rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", TASKS)
def test_examples_is_bounded_by_a_batch_and_by_the_data(kind):
    most = 45_000 if kind is CIFAR10CNN else 54_000
    assert kind(examples=most).resolved()["examples"] == most
    assert kind(examples=kind.budget.batch)
    for wrong in (kind.budget.batch - 1, most + 1):
        with pytest.raises(OptionError, match=f"examples must be .*got {wrong}"):
            kind(examples=wrong)


@pytest.mark.parametrize("kind", TASKS)
def test_missing_files_are_named_with_the_folder_and_the_remedies(kind, tmp_path):
    folder, file = FILES[kind]
    with pytest.raises(DataMissing) as caught:
        kind().data(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / folder) in message
    for part in (file, "--download", "--data", "$RULEZOO_DATA", f"DIR/{folder}/"):
        assert part in message
    assert "\n" not in message


def test_only_what_is_missing_is_called_missing(mnist_root):
    (mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataMissing, match="did not find train-labels-idx1-ubyte; "):
        MNISTMLP().data(mnist_root)


@pytest.mark.parametrize("download", [True, False])
def test_no_folder_at_all(download):
    with pytest.raises(
        DataMissing, match=r"MNIST needs a data folder .*--data .*RULEZOO_DATA.*MNIST/raw.*--download"
    ):
        MNISTMLP().data(None, download=download)


@pytest.mark.parametrize("kind", TASKS)
def test_download_without_a_network_says_so_in_one_line(kind, tmp_path, no_network, capsys):
    with pytest.raises(DataMissing) as caught:
        kind().data(tmp_path, download=True)
    message = str(caught.value)
    for part in ("could not be downloaded", "Name or service not known", "without a network", "--data"):
        assert part in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


def test_download_fetches_what_is_missing_and_keeps_stdout_clean(tmp_path, monkeypatch, write_idx, capsys):
    def download(self):
        print("Downloading")
        if not self._check_exists():
            write_idx(tmp_path / "FashionMNIST" / "raw")

    monkeypatch.setattr(datasets.FashionMNIST, "download", download)
    data = FashionCNN().data(tmp_path, download=True)
    assert [len(part.y) for part in data] == [360, 40, 50]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0, 6, 1000])
def test_a_cut_file_is_called_damaged_not_missing(mnist_root, keep):
    path = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataMissing, match=r"MNIST is in .*raw but cannot be read .*delete that folder"):
        MNISTMLP().data(mnist_root)


def test_files_with_a_wrong_checksum_are_called_damaged(tmp_path):
    task = CIFAR10CNN()
    (tmp_path / task.source.folder).mkdir()
    for file in task.source.files:
        (tmp_path / task.source.folder / file).write_bytes(b"not a batch")
    with pytest.raises(DataMissing, match=r"cannot be read .*corrupted"):
        task.data(tmp_path)


@pytest.mark.parametrize(
    ("task", "shape", "widths"),
    [
        (MNISTMLP(), (1, 28, 28), [512, 256]),
        (FashionCNN(), (1, 28, 28), [32 * 14 * 14, 64 * 7 * 7, 128]),
        (CIFAR10CNN(), (3, 32, 32), [16_384, 8_192, 4_096, 512]),
        (CIFAR10CNN(width=0.5), (3, 32, 32), [8_192, 4_096, 2_048, 256]),
        (CIFAR10CNN(width=4), (3, 32, 32), [65_536, 32_768, 16_384, 2_048]),
    ],
)
def test_widths_of_the_post_sites(task, shape, widths):
    net = Net(task.network(), torch.zeros(1, *shape))
    assert [net.visits[key].width for key in net.keys("post")] == widths


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_the_real_data(kind, real_root):
    folder = real_root / FILES[kind][0]
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    data = kind().data(real_root)
    held = 5_000 if kind is CIFAR10CNN else 6_000
    assert [len(part.y) for part in data] == [9 * held, held, 10_000]
    assert data.train.x.dtype == torch.float32
    channels = data.train.x.transpose(0, 1).flatten(1)
    for channel in channels:
        assert channel.double().mean().item() == pytest.approx(0, abs=1e-6)
        assert channel.double().std().item() == pytest.approx(1, abs=1e-5)
    for part in data:  # the classes are even but for MNIST's, whose ones are a quarter more than its fives
        assert part.y.bincount(minlength=10).sub(len(part.y) / 10).abs().max() < 0.015 * len(part.y)
    assert Net(kind().network(), data.train.x[:1]).output_shape == (10,)
