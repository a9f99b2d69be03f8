"""Networks that do something unusual, and what must come of it: the numbers of torch, or a refusal in a sentence."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from .networks import Network


class Hidden(nn.Module):
    """Two layers with a function in between; more layers by name; what it keeps is in ``kept``."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **children: object) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        for name, child in children.items():
            setattr(self, name, child)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self, torch.tanh(self.a(x))))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


def assigned(self: nn.Module, h: Tensor) -> Tensor:
    out = torch.zeros(len(h), 6, dtype=h.dtype)
    out[:, 0] = h[:, 1]
    out[:, 1:] = torch.relu(self.c(h))[:, 1:]
    return out


def relu_in_place(self: nn.Module, h: Tensor) -> Tensor:
    h = self.c(h)
    h.relu_()
    return h


def module_in_place(self: nn.Module, h: Tensor) -> Tensor:
    h = self.c(h)
    self.relu(h)  # in place, and its result is not used
    return h + self.d(h)


def in_place_sum(self: nn.Module, h: Tensor) -> Tensor:
    c = self.c(h)
    c += h
    d = self.d(torch.relu(c))
    d += c
    return torch.relu(d)


class DroppedInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(5, 6), nn.Dropout(0.5, inplace=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        self.drop(h)
        return self.b(h)


def without_gradient(self: nn.Module, h: Tensor) -> Tensor:
    with torch.no_grad():
        c = torch.relu(self.c(h))
    return h + c


def shared(self: nn.Module, h: Tensor) -> Tensor:
    for layer in self.layers:
        h = torch.tanh(layer(h))
    return h


class Binary(torch.autograd.Function):
    """The sign, whose gradient passes."""

    @staticmethod
    def forward(ctx, w):
        return w.sign()

    @staticmethod
    def backward(ctx, grad):
        return grad


class HookedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        self.a.weight.register_hook(lambda grad: 0.1 * grad)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def hooked(*, output: bool) -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    if output:
        net[0].register_forward_hook(lambda module, args, result: 2 * result)
    else:
        net[0].register_full_backward_hook(lambda module, grads, outs: tuple(g and 2 * g for g in grads))
    return net


def pruned() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    prune.random_unstructured(net[2], "weight", 0.5)
    return net


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, scale: float = 2.0, *, flip: bool = True) -> Tensor:
        h = torch.relu(input=self.a(x)) * scale
        return -self.b(h) if flip else self.b(h)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("mask", (torch.rand(6, 6) < 0.5).double())

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.c(torch.relu(F.linear(h, self.b.weight * self.mask, self.b.bias)))


class Nested(nn.Module):
    """Calls another module functionally."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.inner = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        own = {name: 0.5 * p for name, p in self.inner.named_parameters()}
        return self.b(torch.relu(torch.func.functional_call(self.inner, own, (torch.relu(self.a(x)),))))


class InAList(nn.Module):
    """A layer that is no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        self.others = [nn.Linear(6, 6).double()]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.others[0](torch.relu(self.a(x)))))


class PlainTensor(nn.Module):
    """A random projection that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = torch.randn(5, 6).double()
        self.b = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(x @ self.projection))


class Clamped(nn.Module):
    """Makes its weights positive, past autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.a.weight.data.clamp_(min=0)
        return self.b(torch.relu(self.a(x)))


def tied() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    net[4].weight = net[2].weight
    return net


class OwnLinear(torch.autograd.Function):
    """A linear layer with a backward pass of its own, through W."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return F.linear(x, w)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, grad.T @ x


class LateBuffer(nn.Module):
    """A buffer that moves at every third pass only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.register_buffer("late", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        if self.training:
            self.passes += 1
            if self.passes % 3 == 0:
                self.late.copy_(h.detach().mean(0))
        return self.b(h + self.late)


class Adapter(nn.Module):
    """A frozen weight and a product of two that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.W, self.c = nn.Linear(5, 6), weight(6, 6), nn.Linear(6, 3)
        self.W.requires_grad_(False)
        self.A, self.B = weight(6, 2), weight(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(F.linear(torch.relu(self.a(x)), self.W + self.A @ self.B)))


def keeps(container: object) -> nn.Module:
    def keep(self: nn.Module, h: Tensor) -> Tensor:
        self.kept.append(h.detach())
        return h

    return Hidden(keep, kept=container)


def keeps_tensor() -> nn.Module:
    def keep(self: nn.Module, h: Tensor) -> Tensor:
        self.kept = h
        return torch.relu(self.c(h))

    return Hidden(keep, kept=None, c=nn.Linear(6, 6))


def remembers() -> nn.Module:
    def remember(self: nn.Module, h: Tensor) -> Tensor:
        old, self.kept = self.kept, h.detach().mean()
        return h + old

    return Hidden(remember, kept=torch.zeros((), dtype=torch.float64))


def counts() -> nn.Module:
    def count(self: nn.Module, h: Tensor) -> Tensor:
        self.kept += 1
        return h

    return Hidden(count, kept=0)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)))


def partly_scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(
            nn.Linear(5, 6),
            nn.ReLU(),
            torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU())),
            nn.Linear(6, 3),
        )


def compiled_in_place() -> nn.Module:
    net = mlp()
    net.compile()
    return net


def over_saved(self: nn.Module, h: Tensor) -> Tensor:
    h += 1  # tanh needs it in its backward pass
    return h


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


L = nn.Linear

RIGHT: Mapping[str, Network] = {
    "assignment to a column": Network(lambda: Hidden(assigned, c=L(6, 6)), alone="inplace"),
    "relu_ without assignment": Network(lambda: Hidden(relu_in_place, c=L(6, 6))),
    "in-place module without assignment": Network(
        lambda: Hidden(module_in_place, c=L(6, 6), d=L(6, 6), relu=nn.ReLU(inplace=True))
    ),
    "+=": Network(lambda: Hidden(in_place_sum, c=L(6, 6), d=L(6, 6))),
    "no_grad inside": Network(lambda: Hidden(without_gradient, c=L(6, 6))),
    "view": Network(lambda: Hidden(lambda m, h: torch.relu(m.c(h.view(-1, 2, 3)).flatten(1)), c=L(3, 3))),
    "shared modules": Network(lambda: Hidden(shared, layers=nn.ModuleList([L(6, 6)] * 3))),
    "unused parameters": Network(lambda: Hidden(lambda m, h: torch.relu(h), c=L(6, 6))),
    "einsum": Network(
        lambda: Hidden(lambda m, h: torch.relu(torch.einsum("bi,oi->bo", h, m.w)), w=weight(6, 6))
    ),
    "bmm": Network(
        lambda: Hidden(
            lambda m, h: torch.relu(
                torch.bmm(h.view(-1, 2, 3).transpose(0, 1), m.w).transpose(0, 1).flatten(1)
            ),
            w=weight(2, 3, 3),
        )
    ),
    "weight in front": Network(lambda: Hidden(lambda m, h: torch.relu((m.w @ h.T).T), w=weight(6, 6))),
    "addmm": Network(
        lambda: Hidden(lambda m, h: torch.relu(torch.addmm(m.v, h, m.w)), w=weight(6, 6), v=weight(6))
    ),
    "conv_transpose": Network(
        lambda: Hidden(
            lambda m, h: torch.relu(m.c(h.view(-1, 2, 3))).flatten(1),
            c=nn.ConvTranspose1d(2, 2, 3, padding=1),
        )
    ),
    "bilinear": Network(  # its second input has no site of its own
        lambda: Hidden(lambda m, h: torch.relu(m.c(h[:, :3], h[:, 3:])), c=nn.Bilinear(3, 3, 6)), depth=2
    ),
    "grouped": Network(
        lambda: Hidden(lambda m, h: torch.relu(m.c(h[..., None])).flatten(1), c=nn.Conv1d(6, 6, 1, groups=3))
    ),
    "depthwise": Network(
        lambda: Hidden(
            lambda m, h: torch.relu(m.c(h.view(-1, 2, 3))).flatten(1), c=nn.Conv1d(2, 2, 3, 1, 1, groups=2)
        )
    ),
    "masked weight": Network(Masked),
    "pruned": Network(pruned),
    "low-rank adapter": Network(Adapter),
    "hypernetwork": Network(
        lambda: Hidden(
            lambda m, h: torch.relu(torch.bmm(m.c(h).view(-1, 6, 6), h[..., None]).squeeze(-1)), c=L(6, 36)
        )
    ),
    "custom function on a weight": Network(
        lambda: Hidden(lambda m, h: torch.relu(F.linear(h, Binary.apply(m.w - m.w.mean()))), w=weight(6, 6)),
        alone="setup_context",
    ),
    "custom function, then einsum": Network(
        lambda: Hidden(
            lambda m, h: torch.relu(torch.einsum("bi,oi->bo", Binary.apply(h), m.w)), w=weight(6, 6)
        ),
        alone="setup_context",
    ),
    "custom linear function": Network(
        lambda: Hidden(lambda m, h: torch.relu(OwnLinear.apply(h, m.w)), w=weight(6, 6)),
        alone="setup_context",
    ),
    "custom linear function on a computed weight": Network(
        lambda: Hidden(lambda m, h: torch.relu(OwnLinear.apply(h, m.w - m.w.mean())), w=weight(6, 6)),
        alone="setup_context",
    ),
    "product and sum": Network(
        lambda: Hidden(lambda m, h: torch.relu((h[:, None, :] * m.w).sum(-1)), w=weight(6, 6))
    ),
    "expanded, product and sum": Network(
        lambda: Hidden(
            lambda m, h: torch.relu((h.unsqueeze(1).expand(-1, 6, -1) * m.w).sum(-1)), w=weight(6, 6)
        )
    ),
    "product with a vector": Network(
        lambda: Hidden(
            lambda m, h: torch.relu((h @ m.w)[:, None].expand(-1, 6) + m.c(h)), w=weight(6), c=L(6, 6)
        )
    ),
    "dropout in place without assignment": Network(DroppedInPlace),
    "keyword defaults": Network(Keywords),
    "nested functional call": Network(Nested),
    "forward hook": Network(lambda: hooked(output=True)),
    "keeps a tensor to be looked at": Network(keeps_tensor),
    "modules that share a parameter": Network(tied),
    "embedding in time": Network(
        lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2)),
        (3,),
        7,
    ),
}


REFUSED: Mapping[str, tuple[Network, str]] = {
    "a transform inside": (
        Network(lambda: Hidden(lambda m, h: torch.vmap(lambda v: m.w @ v)(h), w=weight(6, 6))),
        "uses torch.func.*operations on whole batches",
    ),
    "keeps a list": (Network(lambda: keeps([])), "changes its attribute 'kept'.*register_buffer"),
    "keeps a deque": (
        Network(lambda: keeps(deque(maxlen=2))),
        "changes its attribute 'kept'.*register_buffer",
    ),
    "remembers a tensor": (Network(remembers), "changes its attribute 'kept'.*register_buffer"),
    "counts": (Network(counts), "changes its attribute 'kept'.*register_buffer"),
    "parameter hook": (Network(HookedParameter), "hook"),
    "backward hook": (Network(lambda: hooked(output=False)), "hook"),
    "clamps its weights": (Network(Clamped), "writes to its parameter 'a.weight'"),
    "scripted": (Network(scripted), "script"),
    "compiled": (Network(lambda: torch.compile(mlp())), "compile"),
    "partly scripted": (Network(partly_scripted), "submodule '2' is scripted.*give the module"),
    "data parallel": (Network(lambda: nn.DataParallel(mlp())), "DataParallel.*give its .module"),
    "compiled in place": (Network(compiled_in_place), "is compiled.*give the plain module"),
    "not differentiable": (Network(lambda: Hidden(over_saved)), "torch cannot pull a gradient.*inplace"),
    "all under no_grad": (Network(lambda: NoGrad()), "no trainable parameter"),
}


class NoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)
