"""What a source and `prepare` promise is checked before anything is trained."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from rulezoo import Budget, Data, DataMissing, OptionError, Split, datasets, hp
from rulezoo.comparison import contract
from rulezoo.comparison.examination import examine
from rulezoo.errors import UserError
from rulezoo.testing import TinyTask, check_task
from rulezoo_tasks.image_folder import ImageFolder

from .conftest import fill

SOUND = torch.randint(0, 256, (300, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Stored(datasets.Source):
    def __init__(self, tensor=SOUND, shape=None, dtype=None, digest="digest", read=None):
        self.tensor, self._digest = tensor, digest
        self.shape, self.dtype = shape or tuple(tensor.shape[1:]), dtype or tensor.dtype
        self._read = read

    def __len__(self):
        return len(self.tensor)

    def read(self, index):
        return self._read(index) if self._read else self.tensor[index]

    def digest(self):
        return self._digest


def split(**options):
    return Split(Stored(**options), torch.arange(300) % 3)


def data(**train):
    return Data(split(**train), split(), split())


def raises(error):
    def read(index):
        raise error

    return read


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"shape": (1, 6, 5)}, "inputs of train come from a Stored whose read() returned shape (256, 1, 6, 6), uint8; expected (256, *shape) of its dtype, uint8, with shape (1, 6, 5)"),
        ({"dtype": torch.float32}, "expected (256, *shape) of its dtype, float32"),
        ({"digest": None}, "inputs of train come from a Stored whose digest() returned None; expected a text"),
        ({"read": lambda index: [1]}, "inputs of train are a list; expected a torch.Tensor"),
        ({"read": raises(datasets.CorruptImage("cannot read the image a.jpg"))}, "inputs of train cannot be read: cannot read the image a.jpg"),
        ({"read": raises(KeyError("a"))}, "inputs of train cannot be read: Stored raised KeyError: 'a'"),
        ({"tensor": SOUND[:200]}, "train has 200 inputs and 300 targets"),
        ({"tensor": SOUND[..., :5]}, "have shape (1, 6, 6) for an example, those of train (1, 6, 5)"),
        ({"tensor": SOUND.float()}, "inputs of validation are of type uint8, those of train float32"),
        ({"tensor": torch.full((300, 1, 6, 6), torch.nan)}, "inputs of train contain NaN in 256 of 256 examples"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_source_is_a_sentence(train, said):
    assert said in "; ".join(contract.data_problems(data(**train)))


def test_a_sound_source_has_no_problem_and_its_own_digest():
    assert contract.data_problems(data()) == []
    one, same, other = (contract.digest(data(digest=word)) for word in ("a", "a", "b"))
    assert one == same != other


@dataclass(frozen=True)
class Case(TinyTask):
    """Stored bytes, prepared in one of several ways."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=16, lr=0.01)
    kind: str = hp("cnn", "network")
    how: str = hp("fine", "what prepare does")

    def data(self, root=None, *, download=False):
        return data()

    def prepare(self, x, draw):
        plain = x.float() / 255
        match self.how:
            case "raises":
                raise KeyError("mean")
            case "list":
                return [plain]
            case "fewer":
                return plain[:-1]
            case "shapes" if draw is not None:
                return plain[..., 1:]
            case "types" if draw is None:
                return plain.double()
            case "random":
                return plain + torch.rand(len(plain), 1, 1, 1)
            case "batch":
                return plain - plain.mean()
            case "infinite":
                return plain / 0
            case "crop":
                return datasets.crop(x, draw, 7) if draw else plain
        return plain


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "prepare() raised KeyError: 'mean'"),
        ("list", "prepare() returned a list for evaluation; expected a torch.Tensor"),
        ("fewer", "prepare() returned shape (3, 1, 6, 6) for 4 examples; expected one entry for each"),
        ("shapes", "prepare() returned shape (4, 1, 6, 5), float32, for training, and (4, 1, 6, 6), float32, for"),
        ("types", "prepare() returned shape (4, 1, 6, 6), float32, for training, and (4, 1, 6, 6), float64, for"),
        ("random", "prepare() returned other inputs when it was called again; take random numbers from draw alone"),
        ("batch", "prepare() returned another input for an example alone than for it in a batch"),
        ("infinite", "prepare() returned numbers that are not finite"),
        ("crop", "prepare() raised ValueError: a crop of 7×7 does not fit into images of 6×6"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_prepare_is_a_sentence(how, said):
    (problem,) = examine(Case(how=how), None).problems
    assert said in problem


def test_a_task_with_a_source_passes_the_examination():
    found = examine(Case(), None)
    assert found.problems == []
    assert found.sizes == {"train": 300, "validation": 300, "test": 300}
    assert found.data is not None


@pytest.fixture
def pictures(tmp_path):
    """A task on a folder of 3 × 100 images."""
    folder = fill(tmp_path / "pictures", each=100)
    return ImageFolder(folder=str(folder), size=16, classes=3)


def test_an_image_folder_passes_the_examination(pictures):
    found = examine(pictures, None)
    assert found.problems == []
    assert found.sizes == {"train": 240, "validation": 30, "test": 30}
    assert found.output_shape == [3]


def test_an_image_folder_keeps_what_a_task_promises(pictures):
    results = check_task(pictures)
    assert {r.check: r.message for r in results if r.outcome == "failed"} == {}
    assert sum(r.outcome == "passed" for r in results) >= 12


def test_a_folder_with_train_and_val_has_val_as_its_test(tmp_path):
    fill(tmp_path / "both" / "train", each=20)
    fill(tmp_path / "both" / "val", each=3, seed=1)
    task = ImageFolder(folder="both", size=16, classes=2, examples=10)
    found = task.data(tmp_path)
    assert [len(part.y) for part in found] == [18, 2, 6]
    assert found.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    (tmp_path / "both" / "val" / "ant").rename(tmp_path / "both" / "val" / "ape")
    with pytest.raises(UserError, match=r"differ: .*val lacks 'ant'"):
        task.data(tmp_path)


def test_any_network_of_torchvision_takes_its_images(tmp_path):
    network = ImageFolder(classes=7, size=32, model="resnet18").network()
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(OptionError, match=r"a classification network of torchvision .*, got 'resnet19'"):
        ImageFolder(model="resnet19").network()
    with pytest.raises(DataMissing, match="none was given; set --data"):
        ImageFolder().data(None)
