"""A network as a pure function of its parameters, with named sites.

A `Site` is a point of a network where a rule may read, replace or cut activity. It is an identity unless `Net.run` is
given a tap. Sites are what rules know of a network; nothing here knows of any rule.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rulezoo.errors import UserError

Tensors = dict[str, Tensor]
Tap = Callable[[str, Tensor], Tensor]
"""``tap(key, activity)`` returns the activity that the network sees downstream of the visit ``key`` of a site."""

Kind = Literal["pre", "post", "recurrent"]


class NetError(UserError, ValueError):
    """A network that cannot be seen as a pure function with sites; the message says where and what to do."""


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
    """

    site: str
    kind: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of units of one example."""
        return math.prod(self.shape)


class Net:
    """A module, seen as a function of its parameters.

    Args:
        module: any module; its own sites are found by name. Parameters are read once, by `init_params`.
        example: an input of shape ``(batch, ...)``; it is passed through once, to learn the order and the shapes.

    Attributes:
        visits: key of every visit → `Visit`, in the order of the forward pass.
        shapes: name of every parameter → its shape.
        output_shape: shape of the output of one example.
        readout: names of the parameters behind the last site: those that change the output while every site is held.

    Raises:
        NetError: if the forward pass is not pure (running statistics, dropout), if it writes over the activity of a
            site in place, or if a site is visited twice without being declared ``unrolled``.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        _refuse_impure(module)
        self.module = module
        self.example = example[:1]
        self._sites = {name: site for name, site in module.named_modules() if isinstance(site, Site)}
        self.shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self.visits: dict[str, Visit] = {}
        output = self._trace()
        self.output_shape = tuple(output.shape[1:])

    @torch.enable_grad()
    def _trace(self) -> Tensor:
        names = {id(site): name for name, site in self._sites.items()}
        leaves = {name: p.detach().requires_grad_() for name, p in self.module.named_parameters()}

        seen: dict[str, tuple[Tensor, int]] = {}

        def note(key: str, activity: Tensor) -> Tensor:
            site = self._sites[key.partition("[")[0]]
            self.visits[key] = Visit(names[id(site)], site.kind, tuple(activity.shape[1:]))
            seen[key] = activity, activity._version
            return activity.detach()

        with _refusing_side_effects(self.module):
            output = self.run(leaves, self.example, note)
        for key, (activity, version) in seen.items():
            if activity._version != version:
                raise NetError(
                    f"what follows site {key!r} writes over its activity in place, so a rule could not read it; "
                    "use inplace=False (add_sites sees to it)"
                )
        reached = (
            torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
            if output.requires_grad
            else [None] * len(leaves)
        )
        self.readout = frozenset(n for n, g in zip(leaves, reached, strict=True) if g is not None)
        return output.detach()

    def init_params(self) -> Tensors:
        """A copy of the module's parameters: name → tensor."""
        return {name: p.detach().clone() for name, p in self.module.named_parameters()}

    def keys(self, kind: Kind = "post") -> list[str]:
        """The keys of all visits of sites of one kind, in the order of the forward pass."""
        return [key for key, visit in self.visits.items() if visit.kind == kind]

    def run(self, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
        """The output for ``x``, of shape ``(batch, *output_shape)``.

        Args:
            params: name → tensor, as from `init_params`.
            x: inputs, ``(batch, ...)``.
            tap: reads or replaces the activity at every visit of every site; ``None`` = leave it alone.
        """
        if tap is None:
            return self._call(params, x)
        with self._tapped(tap):
            return self._call(params, x)

    def _call(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = functional_call(self.module, dict(params), (x,))
        return output

    @contextmanager
    def _tapped(self, tap: Tap) -> Iterator[None]:
        visits: Counter[str] = Counter()

        def at(name: str, unrolled: bool) -> Callable[[Tensor], Tensor]:
            def visit(activity: Tensor) -> Tensor:
                number = visits[name]
                visits[name] += 1
                if number and not unrolled:
                    raise NetError(
                        f"site {name!r} was visited twice in one forward pass; give every place a Site of its own, "
                        "or declare Site(unrolled=True) when it is visited once per time step"
                    )
                return tap(f"{name}[{number}]" if unrolled else name, activity)

            return visit

        for name, site in self._sites.items():
            site.tap = at(name, site.unrolled)
        try:
            yield
        finally:
            for site in self._sites.values():
                site.tap = None


def _refuse_impure(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._NormBase) and child.track_running_stats:
            raise NetError(
                f"{name!r} is a {type(child).__name__} with running statistics, which a pure step cannot change; "
                "use GroupNorm, or track_running_stats=False"
            )
        if isinstance(child, nn.modules.dropout._DropoutNd) and child.p > 0:
            raise NetError(
                f"{name!r} is a {type(child).__name__}, which draws from the global generator; set p=0"
            )


@contextmanager
def _refusing_side_effects(module: nn.Module) -> Iterator[None]:
    """Notice what no type of module gives away: functional dropout, a buffer that is written to."""
    generator, versions = torch.get_rng_state(), {name: b._version for name, b in module.named_buffers()}
    yield
    if not torch.equal(torch.get_rng_state(), generator):
        raise NetError(
            "the network draws from torch's global generator in its forward pass; take the dropout out"
        )
    for name, buffer in module.named_buffers():
        if buffer._version != versions.get(name):
            raise NetError(
                f"the network writes to its buffer {name!r} in its forward pass, which a pure step cannot"
            )


def add_sites(module: nn.Module, after: Mapping[str, Kind] | Mapping[type[nn.Module], Kind]) -> nn.Module:
    """Give a foreign network sites, in place.

    Args:
        module: e.g. torchvision's AlexNet.
        after: where: ``{"features.1": "post"}`` by name, or ``{nn.ReLU: "post"}`` by type of module. The site is
            put behind the module and called ``<name>.site``.

    Returns:
        The same module. Parameters keep their tensors; those of a named module with parameters of its own get
        ``<name>.module.`` before their name. Layers that work in place no longer do: they would write over the
        activity of a site.

    Raises:
        NetError: if a name does not exist or nothing of a type is found, or if a place is asked for twice.
    """
    wanted: dict[str, Kind] = {}
    for where, kind in after.items():
        for name in _places(module, where):
            if name in wanted:
                raise NetError(
                    f"{name!r} is asked for twice; a second site there would see the same activity"
                )
            wanted[name] = kind
    for name in sorted(wanted, reverse=True):  # what is inside first, as wrapping what is outside renames it
        _put_behind(module, name, wanted[name])
    for child in module.modules():
        if getattr(child, "inplace", False):
            child.inplace = False  # type: ignore[assignment]  # not every attribute of a module is a tensor
    return module


def _places(module: nn.Module, where: str | type[nn.Module]) -> list[str]:
    names = [
        name
        for name, child in module.named_modules(remove_duplicate=False)
        if name and (name == where if isinstance(where, str) else isinstance(child, where))
    ]
    if not names:
        raise NetError(f"found no place {where!r} to put a site behind; names: {_some_names(module)}")
    return names


class _Sited(nn.Module):
    """A module with a site behind it."""

    def __init__(self, module: nn.Module, kind: Kind) -> None:
        super().__init__()
        self.module = module
        self.site = Site(kind)

    def forward(self, *args: Tensor) -> Tensor:
        activity: Tensor = self.site(self.module(*args))
        return activity


def _put_behind(root: nn.Module, name: str, kind: Kind) -> None:
    parent, _, child = name.rpartition(".")
    owner = root.get_submodule(parent)
    setattr(owner, child, _Sited(owner.get_submodule(child), kind))


def _some_names(module: nn.Module) -> str:
    names = [name for name, _ in module.named_modules() if name]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
