# own_loop.py: a plain training loop, for several learning rules: python own_loop.py
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import rulezoo

digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
data = TensorDataset(x, torch.tensor(digits.target))
train, test = torch.utils.data.random_split(data, [1500, 297], torch.Generator().manual_seed(0))


def trained(rule: str, epochs: int = 10) -> tuple[nn.Module, float]:
    """The trained model, and the angle of its last gradient to backprop's, in degrees."""
    torch.manual_seed(0)
    convolution = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
    )
    model = nn.Sequential(convolution, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    learner = rulezoo.Learner(rule, model, F.cross_entropy, optimizer)
    for _ in range(epochs):
        for batch in DataLoader(train, 64, shuffle=True):
            learner.step(*batch)
        schedule.step()
    return model.eval(), learner.angles(*batch)["parameters"]["*"]


for rule in ("backprop", "feedback-alignment", "nmnc", "frozen"):
    model, angle = trained(rule)
    x, y = next(iter(DataLoader(test, len(test))))
    accuracy = (model(x).argmax(1) == y).float().mean()
    print(f"{rule:20} accuracy {accuracy:.3f}   angle to backprop {angle:.0f}°")
