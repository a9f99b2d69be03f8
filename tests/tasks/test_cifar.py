"""CIFAR as the literature trains on it, against plain torch and torchvision."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as images

from rulezoo import Net, Split
from rulezoo.seeding import generator, number
from rulezoo.source import draw
from rulezoo.training.run import RunRequest
from rulezoo.training.runner import run
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_tasks.architectures import ResNet20, alexnet, lenet, resnet18
from rulezoo_tasks.cifar import CIFAR10LeNet, CIFAR10ResNet20, CIFAR100ResNet20
from rulezoo_tasks.images import Source

CPU = torch.device("cpu")
TRAIN, BATCH, EPOCHS = 160, 32, 3


@pytest.fixture
def stand_in(monkeypatch):
    """Random images in place of those of CIFAR; nine tenths are for training."""
    gen = torch.Generator().manual_seed(0)

    def read(self, root, *, download):
        n = TRAIN * 10 // 9
        classes = 100 if self.dataset == "CIFAR100" else 10
        return tuple(
            Split(
                torch.randint(256, (size, 3, 32, 32), dtype=torch.uint8, generator=gen.manual_seed(size)),
                torch.randint(classes, (size,), generator=gen),
            )
            for size in (n, 40)
        )

    monkeypatch.setattr(Source, "read", read)


@dataclass(frozen=True)
class Doubled(CIFAR10ResNet20):
    """In float64."""

    def prepare(self, x, draw):
        return super().prepare(x, draw).double()

    def network(self):
        return super().network().double()


@dataclass(frozen=True)
class Watched(Backprop):
    """Backprop that notes the loss of every step."""

    losses = []  # noqa: RUF012

    def step(self, *arguments):
        step = super().step(*arguments)
        self.losses.append(float(step.loss))
        return step


def augmented(task, stored, epoch, which):
    """Image by image with torchvision, from the same random numbers."""
    drawn = draw(0, epoch, which)
    top, left = (drawn.integers(f"crop: {side}", 9).tolist() for side in ("top", "left"))
    mirrored = drawn.integers("flip", 2).tolist()
    batch = []
    for i, t, l, mirror in zip(which.tolist(), top, left, mirrored, strict=True):
        image = images.crop(images.pad(stored[i], [4]), t, l, 32, 32)
        image = images.hflip(image) if mirror else image
        batch.append(images.normalize(image.float() / 255, task.mean, task.sd))
    return torch.stack(batch).double()


def test_resnet20_is_trained_as_by_a_plain_torch_recipe_step_by_step(stand_in):
    task = Doubled(width=0.25)
    data = task.data(None)
    assert len(data.train.x) == TRAIN
    budget = replace(
        task.budget, epochs=EPOCHS, batch=BATCH, schedule_options={"milestones": [1, 2], "gamma": 0.1}
    )
    Watched.losses.clear()
    ((_, outcome),) = run(RunRequest(Watched(), task, [0], budget, data, CPU))

    with torch.random.fork_rng():
        torch.manual_seed(number(0, "init"))
        model = ResNet20(10, width=0.25).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2], 0.1)
    losses = []
    for epoch in range(EPOCHS):
        for which in torch.randperm(TRAIN, generator=generator(0, "order", epoch)).split(BATCH):
            x = augmented(task, data.train.x, epoch, which)
            loss = F.cross_entropy(model(x), data.train.y[which])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
    assert Watched.losses[-len(losses) :] == pytest.approx(losses, rel=1e-6)
    plain = torch.stack([images.normalize(x.float() / 255, task.mean, task.sd) for x in data.test.x]).double()
    right = model.eval()(plain).argmax(1) == data.test.y
    assert outcome.status == "ok", outcome.reason
    assert outcome.scores["test"] == pytest.approx(right.double().mean().item())


def test_a_step_of_augmentation_off_sees_images_as_they_are(stand_in):
    task = CIFAR10LeNet(augment=False)
    x = task.data(None).train.x[:4]
    assert torch.equal(task.prepare(x, draw(0, 0, torch.arange(4))), task.prepare(x, None))
    task = CIFAR10LeNet()
    assert not torch.equal(task.prepare(x, draw(0, 0, torch.arange(4))), task.prepare(x, None))


@pytest.mark.parametrize(
    ("network", "size", "parameters"),
    [
        (ResNet20(), 32, 269_722),  # 0.27 million, as published
        (lenet(), 32, 128_842),
        (alexnet(100, 64), 64, None),
        (alexnet(100, 32, 0.25), 32, None),
        (resnet18(100, 64), 64, None),
        (resnet18(10, 32, 0.25), 32, None),
    ],
    ids=["resnet20", "lenet", "alexnet-64", "alexnet-32", "resnet18-64", "resnet18-32"],
)
def test_networks_have_the_published_size_and_a_site_behind_every_layer(network, size, parameters):
    from rulezoo import add_sites

    net = Net(add_sites(network), torch.randn(2, 3, size, size))
    assert net.depth == 1
    if parameters:
        assert sum(p.numel() for p in network.parameters()) == parameters


def test_resnet18_at_224_px_is_torchvision_s():
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        mine = resnet18(10, size=224)
        torch.manual_seed(0)
        theirs = models.resnet18(num_classes=10)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert all(p.shape == q.shape for p, q in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_cifar100_has_a_hundred_classes(stand_in):
    task = CIFAR100ResNet20(width=0.125)
    data = task.data(None)
    assert task.network()(torch.randn(2, 3, 32, 32)).shape == (2, task.classes) == (2, 100)
    assert data.train.y.max() > 10


def test_the_real_images_are_split_into_45_5_and_10_thousand(real_root):
    data = CIFAR10LeNet().data(real_root)
    assert [len(part.x) for part in data] == [45_000, 5_000, 10_000]
    assert data.train.x.dtype == torch.uint8
    x = CIFAR10LeNet().prepare(data.train.x, None)
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.02)
    assert x.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.02)


@pytest.mark.parametrize("size", [16, 31, 33, 47, 63, 64])
def test_alexnet_takes_images_of_any_size(size):
    assert alexnet(3, size, 0.0625)(torch.randn(2, 3, size, size)).shape == (2, 3)


def test_the_stages_of_resnet20_have_the_published_maps_and_channels():
    """He et al. 2016, section 4.2: 32×32 with 16 channels, 16×16 with 32, 8×8 with 64; a shortcut without parameters."""
    network, x = ResNet20(), torch.randn(2, 3, 32, 32)
    h = torch.relu(network.bn1(network.conv1(x)))
    shapes = []
    for stage in (network.layer1, network.layer2, network.layer3):
        h = stage(h)
        shapes.append(tuple(h.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    block, h = network.layer2[0].eval(), torch.randn(2, 16, 32, 32)
    torch.nn.init.zeros_(block.bn2.weight)  # then the block is its shortcut
    expected = torch.cat([torch.zeros(2, 8, 16, 16), h[..., ::2, ::2], torch.zeros(2, 8, 16, 16)], dim=1)
    torch.testing.assert_close(block(h), torch.relu(expected))
