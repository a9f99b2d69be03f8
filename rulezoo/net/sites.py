"""Sites: the points of a network at which a rule may read, replace or cut activity.

A site is either a `Site` module that the network's author put there, or a tap on a call, which `add_sites` asks for
and `rulezoo.net.placement` finds: the network itself is not changed, and its parameters keep their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rulezoo.net.errors import NetError

Tap = Callable[[str, Tensor], Tensor]
"""``tap(key, activity)`` returns the activity that the network sees downstream of the visit ``key`` of a site."""

Kind = Literal["pre", "post", "recurrent"]
Where = str | type[nn.Module] | Callable[..., Any]
"""A module by name, one call of it (``"name:1"``), all modules of a type, or all calls of a function."""

_REQUEST = "_rulezoo_sites"  # the attribute of a module that holds what `add_sites` was asked for


class Site(nn.Module):
    """A named point of a network; it takes its name from its place in the module tree.

    Args:
        kind: ``"pre"``, the drive of a layer before its non-linearity; ``"post"``, what the next layer sees (after
            pooling, where there is pooling); ``"recurrent"``, the edge from a past state into recurrent weights.
        unrolled: the site is visited once per time step; visits are called ``name[0]``, ``name[1]``, …
    """

    def __init__(self, kind: Kind = "post", *, unrolled: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.unrolled = unrolled
        self.tap: Callable[[Tensor], Tensor] | None = None

    def forward(self, activity: Tensor) -> Tensor:
        """The activity itself, or what the tap makes of it."""
        return activity if self.tap is None else self.tap(activity)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.kind}, unrolled" if self.unrolled else self.kind


class Visit(NamedTuple):
    """One visit of a site in a forward pass.

    Attributes:
        site: the site's name.
        kind: the site's kind.
        shape: shape of the activity of one example.
        dtype: type of the activity.
    """

    site: str
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def width(self) -> int:
        """Number of units of one example."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Request:
    """What `add_sites` was asked for; ``None`` = the sites of every hidden layer."""

    after: Mapping[Where, Kind] | None


def add_sites(module: nn.Module, after: Mapping[Any, Kind] | None = None) -> nn.Module:
    """Ask for sites in a network as it is; `rulezoo.Net` places them when it reads the network.

    Without a mapping every hidden layer gets two: ``<layer>.pre``, the drive in front of its non-linearity (or the
    layer's output where none follows), and ``<layer>.post``, what the next layer sees. A layer that is called once
    per time step gets a visit for each call, ``<layer>.post[0]``, and its recurrent edge ``<layer>.recurrent[0]``.

    Args:
        module: e.g. torchvision's ResNet-18.
        after: where, and of which kind: ``{"features.1": "post"}`` by the name of a module, ``{"relu:1": "post"}`` by
            name and call, ``{nn.ReLU: "post"}`` by type, ``{F.relu: "post"}`` by function. The site is the output.

    Returns:
        The same module; neither its function nor its parameters change.

    Raises:
        NetError: if no module has the name or type, or if a place is asked for twice.
    """
    if after is not None:
        asked: set[str] = set()
        for where in after:
            for name in _places(module, where):
                if name in asked:
                    raise NetError(
                        f"{name!r} is asked for twice; a second site there would see the same activity"
                    )
                asked.add(name)
    module.__dict__[_REQUEST] = Request(None if after is None else dict(after))
    return module


def request_of(module: nn.Module) -> Request | None:
    """What `add_sites` was asked for, if it was."""
    return module.__dict__.get(_REQUEST)


@contextmanager
def with_sites(module: nn.Module) -> Iterator[None]:
    """For as long as it lasts, a request for the sites of every hidden layer in a module that has no sites at all."""
    if request_of(module) is not None or any(isinstance(child, Site) for child in module.modules()):
        yield
        return
    add_sites(module)
    try:
        yield
    finally:
        del module.__dict__[_REQUEST]


def _places(module: nn.Module, where: Where) -> list[str]:
    """Names of the modules (or, for one call or a function, the words themselves) that ``where`` stands for."""
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    if isinstance(where, str):
        found = [where] if where.partition(":")[0] in names else []
    elif isinstance(where, type):
        found = [n for n, m in module.named_modules(remove_duplicate=False) if n and isinstance(m, where)]
    elif callable(where):
        return [f"the function {getattr(where, '__name__', where)}"]
    else:
        raise NetError(
            f"{where!r} does not say where to put a site: give the name of a module, a type of module, or a function"
        )
    if not found:
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise NetError(f"found no place {where!r} to put a site behind; names: {shown}")
    return found
