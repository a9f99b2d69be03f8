"""Networks as people bring them: small, in float64, each with inputs; and a plain loop of torch that trains them.

Nothing here is made with rulezoo, so that what rulezoo makes of these networks can be compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models.resnet import BasicBlock
from torchvision.ops import MLP, FrozenBatchNorm2d

LR = 0.02
STEPS = 20


@dataclass(frozen=True)
class Network:
    """A network and its inputs.

    Attributes:
        make: draws one from torch's global generator.
        shape: of one input.
        tokens: inputs are integers below this; 0 = they are normally distributed.
        depth: what `rulezoo.Net.depth` is with sites by themselves; 1 where no layer lies behind a layer in a block.
        dtype: of its parameters.
        batch: examples in a batch.
        alone: why its seeds are trained one by one, as a pattern; empty where vmap takes them.
        feedback: why `credit.through_feedback` cannot replace every weight, as a pattern; empty where it can.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (5,)
    tokens: int = 0
    depth: int = 1
    dtype: torch.dtype = torch.float64
    batch: int = 6
    alone: str = ""
    feedback: str = ""

    def module(self, seed: int = 0) -> nn.Module:
        """The network of a seed: called twice, it draws the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().to(self.dtype)

    def inputs(self, seed: int = 0, rows: int | None = None) -> Tensor:
        """One batch of inputs."""
        gen = torch.Generator().manual_seed(1000 + seed)
        shape = (rows or self.batch, *self.shape)
        if self.tokens:
            return torch.randint(self.tokens, shape, generator=gen)
        return torch.randn(shape, generator=gen, dtype=torch.float64).to(self.dtype)


def targets(output_shape: Sequence[int], rows: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normally distributed targets."""
    gen = torch.Generator().manual_seed(2000 + seed)
    return torch.randn(rows, *output_shape, generator=gen, dtype=torch.float64).to(dtype)


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Half the squared error of each example."""
    return (output - target).square().reshape(len(target), -1).mean(1) / 2


# --------------------------------------------------------------------------------------------------------------------
# A plain loop


@contextmanager
def given_dropout(masks: Sequence[Tensor]) -> Iterator[None]:
    """Dropout keeps where these uniform numbers are p or more, call by call; written out from torch's documentation."""
    left = list(masks)

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
        if not training or p == 0:
            return input
        dropped = torch.where(left.pop(0) >= p, input / (1 - p), torch.zeros_like(input))
        return input.copy_(dropped) if inplace else dropped

    attention = F.scaled_dot_product_attention

    def attend(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **kwargs):
        if dropout_p == 0:
            return attention(q, k, v, attn_mask, 0.0, is_causal, **kwargs)
        scores = torch.einsum("...ld,...sd->...ls", q, k) / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            scores = scores + attn_mask
        return torch.einsum("...ls,...sd->...ld", dropout(scores.softmax(-1), dropout_p), v)

    with (
        mock.patch.object(F, "dropout", dropout),
        mock.patch.object(F, "scaled_dot_product_attention", attend),
    ):
        yield
    assert not left, f"{len(left)} masks were left over"


def train_plainly(
    module: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    masks: Sequence[Sequence[Tensor]],
    lr: float = LR,
) -> nn.Module:
    """Train a module by autograd and SGD with momentum, in the modes its submodules are in."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr, momentum=0.9)
    for (x, y), uniform in zip(batches, masks, strict=True):
        optimizer.zero_grad()
        with given_dropout(uniform):
            loss(module(x), y).mean().backward()
        optimizer.step()
    return module


def evaluated(module: nn.Module, x: Tensor) -> Tensor:
    """The output in evaluation mode."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    with torch.no_grad():
        output = module(x)
    for child, training in modes.items():
        child.training = training
    return output


# --------------------------------------------------------------------------------------------------------------------
# Small modules


class Tokens(nn.Module):
    """Embedded tokens through a module; the mean over tokens, read out."""

    def __init__(self, body: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(11, width), body, nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(tokens)).mean(1))


class Decoder(nn.Module):
    """A decoder layer over a learnt memory: cross attention splits its packed in-projection in two."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.memory, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x, torch.tanh(self.memory(x[:, :2]))).mean(1))


class Attention(nn.Module):
    """nn.MultiheadAttention between two layers."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True, **options)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        h = self.attention(h, h, h)[0]
        return self.head(torch.relu(h).mean(1))


class GRUCell(nn.Module):
    """A hand-written gated recurrent unit, unrolled."""

    def __init__(self) -> None:
        super().__init__()
        self.update, self.reset = nn.Linear(9, 6), nn.Linear(9, 6)
        self.candidate, self.head = nn.Linear(9, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 6)
        for x_t in x.unbind(1):
            both = torch.cat([x_t, h], 1)
            z, r = torch.sigmoid(self.update(both)), torch.sigmoid(self.reset(both))
            h = (1 - z) * h + z * torch.tanh(self.candidate(torch.cat([x_t, r * h], 1)))
        return self.head(h)


class LeakyRNN(nn.Module):
    """A leaky network with plain parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.W_in, self.W = nn.Parameter(torch.randn(3, 6) / 2), nn.Parameter(torch.randn(6, 6) / 3)
        self.b, self.W_out = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.randn(6, 2) / 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 6, dtype=x.dtype)
        for x_t in x.unbind(1):
            h = 0.6 * h + 0.4 * torch.tanh(h @ self.W + x_t @ self.W_in + self.b)
        return h @ self.W_out


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.code = nn.Linear(5, 7), nn.Linear(7, 3)
        self.b1, self.b0 = nn.Parameter(torch.zeros(7)), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.code(torch.tanh(self.encode(x))))
        h = torch.tanh(F.linear(code, self.code.weight.t(), self.b1))
        return F.linear(h, self.encode.weight.t(), self.b0)


class FunctionalMLP(nn.Module):
    """F.relu behind its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class RandomProjection(nn.Module):
    """A layer behind a fixed random projection, which each seed draws."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(5, 9) / 2)
        self.hidden, self.head = nn.Linear(9, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(torch.relu(x @ self.projection))))


class Frozen(nn.Module):
    """The middle layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 6), nn.Linear(6, 3)
        self.b.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class RunningMean(nn.Module):
    """An exponential average of activity, kept in a buffer that is assigned anew."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 7), nn.Linear(7, 3)
        self.register_buffer("average", torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        if self.training:
            self.average = 0.9 * self.average + 0.1 * h.detach().mean(0)
        return self.b(h - self.average)


class OneNumber(nn.Module):
    """Outputs of shape (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 7), nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x))).squeeze(1)


class LastState(nn.Module):
    """A recurrent layer of torch, and a read-out of its last state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent, self.head = kind(3, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


def convolutional(norm: Callable[[int], nn.Module], *, bias: bool = True) -> nn.Module:
    """Two convolutions, each with a norm."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias), norm(4), nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1, bias=bias), norm(3), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip


def normalised(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A multilayer perceptron whose weights are computed."""
    return nn.Sequential(norm(nn.Linear(5, 7)), nn.Tanh(), norm(nn.Linear(7, 6)), nn.Tanh(), nn.Linear(6, 3))


def fine_tuned() -> nn.Module:
    """In evaluation mode, with running statistics that are not those of a new network."""
    module = convolutional(nn.BatchNorm2d).double()
    for x in torch.randn(3, 8, 2, 6, 6, dtype=torch.float64):
        module(x)
    return module.eval()


def narrow_resnet() -> nn.Module:
    """Blocks of torchvision's ResNet, an eighth as wide."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        BasicBlock(8, 8),
        BasicBlock(8, 12, 2, nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12))),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip


def narrow_vgg() -> nn.Module:
    """torchvision's VGG with batch norm and dropout, narrow."""
    return nn.Sequential(
        torchvision.models.vgg.make_layers([4, "M", 6, "M", 6, 6, "M"], batch_norm=True), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 9), nn.ReLU(True), nn.Dropout(), nn.Linear(9, 8), nn.ReLU(True), nn.Dropout(),
        nn.Linear(8, 3),
    )  # fmt: skip


def narrow_alexnet() -> nn.Module:
    """torchvision's AlexNet layer by layer, narrow, at 64 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Conv2d(4, 6, 5, padding=2), nn.ReLU(True),
        nn.MaxPool2d(3, 2), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(), nn.Linear(24, 10), nn.ReLU(True), nn.Dropout(), nn.Linear(10, 8), nn.ReLU(True),
        nn.Linear(8, 3),
    )  # fmt: skip


def narrow_mobilenet() -> nn.Module:
    """torchvision's MobileNetV3: depthwise convolutions, squeeze and excitation, hard swish, dropout."""
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(8, 3, 8, 8, True, "RE", 2, 1, 0.5),
        InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 0.5),
    ]
    return MobileNetV3(blocks, last_channel=12, num_classes=3)


def small_vit() -> nn.Module:
    """torchvision's vision transformer."""
    net = torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, dropout=0.1,
        attention_dropout=0.1, num_classes=3,
    )  # fmt: skip
    nn.init.normal_(
        net.heads[0].weight, std=0.3
    )  # torchvision's start is zero, and no error would travel back
    return net


def encoder(*, norm_first: bool) -> nn.Module:
    """Two layers of torch's transformer, over tokens."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, norm_first=norm_first)
    return Tokens(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def old_weight_norm(module: nn.Module) -> nn.Module:
    """torch.nn.utils.weight_norm, without its warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


IMAGE = (2, 6, 6)

NETWORKS: Mapping[str, Network] = {
    "resnet": Network(narrow_resnet, (3, 16, 16), batch=4),
    "alexnet": Network(narrow_alexnet, (3, 64, 64), batch=2),
    "vgg-bn": Network(narrow_vgg, (3, 16, 16), batch=4),
    "mobilenet": Network(narrow_mobilenet, (3, 16, 16), batch=4),
    "vit": Network(small_vit, (3, 8, 8), batch=3),
    "encoder": Network(lambda: encoder(norm_first=False), (4,), 11, batch=4),
    "encoder-norm-first": Network(lambda: encoder(norm_first=True), (4,), 11, batch=4),
    "decoder": Network(Decoder, (3, 8), batch=4),
    "attention": Network(Attention, (4, 8), depth=2),  # with need_weights, heads are folded into the batch
    "gru-cell": Network(GRUCell, (4, 3)),
    "leaky-rnn": Network(LeakyRNN, (4, 3)),
    "tied-autoencoder": Network(TiedAutoencoder),
    "weight-norm": Network(lambda: normalised(old_weight_norm)),
    "parametrized-weight-norm": Network(lambda: normalised(parametrizations.weight_norm)),
    "spectral-norm": Network(lambda: normalised(nn.utils.spectral_norm), alone="div.out"),
    "parametrized-spectral-norm": Network(
        lambda: normalised(parametrizations.spectral_norm), alone="div.out"
    ),
    "functional-mlp": Network(FunctionalMLP),
    "random-projection": Network(RandomProjection),
    "frozen": Network(Frozen),
    "frozen-batch-norm": Network(lambda: convolutional(FrozenBatchNorm2d), IMAGE),
    "fine-tuned": Network(fine_tuned, IMAGE),
    "group-norm": Network(lambda: convolutional(lambda n: nn.GroupNorm(1, n)), IMAGE),
    "layer-norm": Network(lambda: MLP(5, [7, 6, 3], norm_layer=nn.LayerNorm)),
    "batch-norm": Network(lambda: convolutional(nn.BatchNorm2d, bias=False), IMAGE),
    "batch-norm-untracked": Network(
        lambda: convolutional(lambda n: nn.BatchNorm2d(n, track_running_stats=False)), IMAGE
    ),
    "batch-norm-cumulative": Network(
        lambda: convolutional(lambda n: nn.BatchNorm2d(n, momentum=None)), IMAGE, alone=r"\.item\(\)"
    ),
    "instance-norm": Network(
        lambda: convolutional(lambda n: nn.InstanceNorm2d(n, affine=True, track_running_stats=True)), IMAGE
    ),
    "running-mean": Network(RunningMean),
    "one-number": Network(OneNumber),
    "bfloat16": Network(FunctionalMLP, dtype=torch.bfloat16),
    "gru": Network(lambda: LastState(nn.GRU), (4, 3), depth=4),  # once for each time step
    "lstm": Network(lambda: LastState(nn.LSTM), (4, 3), depth=4),
}
