"""Blocks of a network on given activity: all of them in one pass, or only what lies between two sites.

A **block** is what lies between two sites. Rules that relax (predictive coding, equilibrium propagation) and rules that
learn inverses (target propagation) evaluate blocks on activity that the rule gives, and not the block in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rulezoo.net import Net, NetError, Tensors


class Blocks(NamedTuple):
    """What the blocks of a network compute from given activity.

    Attributes:
        sites: key → activity ``(batch, *shape)`` that the block in front of the site computes, of every site.
        output: ``(batch, *out)``, what the last block computes.
    """

    sites: Tensors
    output: Tensor


def blocks(net: Net, params: Tensors, x: Tensor, given: Mapping[str, Tensor]) -> Blocks:
    """Evaluate every block on given activity, in one pass.

    Behind a site in ``given`` the network sees the given activity in place of what the block in front computes. With
    all ``post`` sites given, each block depends on the activity right in front of it and on nothing else. The result
    can be differentiated with respect to ``params``, ``x`` and ``given``. It costs one forward pass.

    Args:
        net: the network.
        params: its parameters.
        x: inputs, ``(batch, ...)``.
        given: key → activity ``(batch, *shape)``.

    Raises:
        NetError: if a key is not a site's, or an activity does not have the site's shape or is not of as many examples as
            ``x``.
    """
    for key, activity in given.items():
        _check_activity(net, key, activity)
    sites: Tensors = {}

    def tap(key: str, activity: Tensor) -> Tensor:
        sites[key] = activity
        return _replaced(key, activity, given)

    output = net.run(params, x, tap)
    return Blocks(sites, output)


def between(
    net: Net, params: Tensors, a: str | None, b: str | None, h: Tensor, x: Tensor | None = None
) -> Tensor:
    """Evaluate only what lies between two sites: the activity at ``b``, or the output, for activity ``h`` at ``a``.

    The result can be differentiated with respect to ``params`` and ``h``; no statistics move. The pass stops at ``b``.
    What it costs in front of ``a`` depends on the module; whether the cheaper ways are exact is checked once for each
    network and pair of sites:

    - a chain (``nn.Sequential``, nested or not, with `rulezoo.Site` modules, and without dropout in training): the pass
      begins in the module of the chain that holds ``a``, so it costs the block alone.
    - any other module: nothing of the front part is used, so it is passed through by the one or two examples that the
      network was read with. It costs their share of the batch, and the time to start its operations, which is most of
      the time of a small network.
    - a module that reshapes by the number of rows of its input, or one for which ``x`` is needed: the whole front part.

    Args:
        net: the network.
        params: its parameters.
        a: a site; ``None`` = the input, so that ``h`` is ``(batch, ...)`` as the network's input.
        b: a site behind ``a``; ``None`` = the output.
        h: activity at ``a``, ``(batch, *shape)``.
        x: inputs, ``(batch, ...)``: needed where a path from the input to ``b`` does not pass ``a``, as in a recurrent
            network, which reads its input at every step, or where a skip connection passes by. Otherwise ignored.

    Raises:
        NetError: if a site is unknown, the sites are the same or in the wrong order, ``h`` does not have the shape of
            ``a``, or ``x`` is needed and not given, or not of as many examples as ``h``.
    """
    _check_order(net, a, b)
    net = net.without_moving()
    if a is None:
        _check_shape("the input", h, tuple(net.example.shape[1:]))
        return _stopped(net, params, h, b, {})
    _check_activity(net, a, h)
    front = _front_of(net, a, b)
    if front.part is not None:
        return front.part.run(net, params, b, {a: h}, _by_key)
    inputs = net.example if front.kind == "example" else _rows_of(net.example, len(h))
    if front.kind == "input":
        if x is None:
            raise NetError(
                f"{_named(b)} depends on the network's input by a path that does not pass {_named(a)}, so the activity "
                "there does not determine it; give credit.between the inputs, too: x=batch.x"
            )
        inputs = x
    return _stopped(net, params, inputs, b, {a: h}, replaced=_replaced if front.kind == "input" else _by_key)


def from_sites(net: Net, params: Tensors, given: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The output for activity given at several sites, at each of them for examples of its own, in one pass.

    Where all of the network's input passes through each of these sites, and examples do not depend on one another,
    examples join the pass at their site, and what lies in front of it is not computed for them. Whether this is exact
    is checked once for each network and sites. Otherwise all examples pass through the whole network. The result can
    be differentiated with respect to ``params`` and ``given``; no statistics move.

    Args:
        net: the network.
        params: its parameters.
        given: key → activity ``(examples of this site, *shape)``, at least one, in the order of the forward pass.
        x: inputs ``(batch, ...)`` of all these examples, those of the first site first.

    Returns:
        ``(batch, *out)``, in the order of ``x``.

    Raises:
        NetError: if a site is unknown or out of order, an activity does not have the site's shape, or there are not as
            many inputs as examples.
    """
    _check_entries(net, given, x)
    net = net.without_moving()
    entry = _entry_of(net, tuple(given))
    return _entered(net, params, given, x) if entry is None else entry.run(net, params, given)


def examine_sites(net: Net, keys: Sequence[str]) -> None:
    """See, once for each network, whether examples can join a pass at some sites.

    `from_sites` does this itself, except in compiled code, where all examples pass through a network that was not examined.

    Args:
        net: the network.
        keys: sites, in the order of the forward pass.
    """
    known, which = _entries(net, tuple(keys))
    if which not in known:
        with ThreadPoolExecutor(1) as thread:  # see _front_of
            known[which] = thread.submit(_examine_entry, net, tuple(keys)).result()


def _check_entries(net: Net, given: Mapping[str, Tensor], x: Tensor) -> None:
    for key, activity in given.items():
        _check_activity(net, key, activity)
    if not given or list(given) != [key for key in net.visits if key in given]:
        raise NetError(
            f"credit.from_sites was given activity at {', '.join(map(repr, given)) or 'no site'}; give at least one "
            f"site, and the sites in the order of the forward pass: {', '.join(map(repr, net.visits))}"
        )
    if len(x) != (examples := sum(map(len, given.values()))):
        raise NetError(
            f"credit.from_sites was given {len(x)} inputs and {examples} examples at sites; give the input of each example"
        )


def _named(site: str | None) -> str:
    return "the output" if site is None else f"site {site!r}"


def _check_order(net: Net, a: str | None, b: str | None) -> None:
    for key in (a, b):
        if key is not None:
            _check_known(net, key)
    keys = list(net.visits)
    if a is not None and a == b:
        raise NetError(
            f"credit.between was given the site {a!r} twice, and nothing lies between; give a later site, or None for the "
            "output, as the second"
        )
    if a is not None and b is not None and keys.index(b) < keys.index(a):
        raise NetError(
            f"credit.between was given the sites {a!r} and {b!r} in the wrong order: {b!r} does not come after {a!r} in "
            "the forward pass; give the earlier one first"
        )


def _check_known(net: Net, key: str) -> None:
    if key not in net.visits:
        keys = list(net.visits)
        shown = ", ".join(map(repr, keys[:12])) + (", …" if len(keys) > 12 else "")
        raise NetError(
            f"the network has no site {key!r}; its sites are {shown or 'none: use rulezoo.add_sites'}"
        )


def _check_activity(net: Net, key: str, activity: Tensor) -> None:
    _check_known(net, key)
    _check_shape(f"site {key!r}", activity, net.visits[key].shape)


def _check_shape(where: str, activity: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(activity, Tensor):
        raise NetError(f"what was given at {where} is a {type(activity).__name__}; expected a tensor")
    if activity.ndim != 1 + len(shape) or tuple(activity.shape[1:]) != shape:
        expected = ", ".join(("batch", *map(str, shape)))
        hint = "; use activity.view_as(…) where it was flattened" if activity.ndim < 1 + len(shape) else ""
        raise NetError(
            f"the activity given at {where} has shape {tuple(activity.shape)}; expected ({expected}){hint}"
        )


def _replaced(key: str, activity: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """The activity that is given at a site, where one is, which must be of as many examples as the input."""
    if key in given and given[key].shape != activity.shape:
        raise NetError(
            f"the activity given at site {key!r} has shape {tuple(given[key].shape)}, and for the given inputs the network "
            f"has {tuple(activity.shape)} there; give activity and inputs of the same examples"
        )
    return given.get(key, activity)


class _Reached(Exception):
    """Raised in the forward pass at the site behind which nothing is needed."""


def _by_key(key: str, activity: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    return given.get(key, activity)


Replaced = Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]  # key, activity, what is given


def _joined(key: str, activity: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """The examples that are in the pass already and those that join it here; the first ones take the others' place."""
    if key not in given:
        return activity
    own = given[key].to(activity.dtype)
    return own if key == next(iter(given)) else torch.cat([activity, own])


def _entered(net: Net, params: Tensors, given: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The same by a pass of all examples through the whole network."""
    before = dict(zip(given, itertools.accumulate(map(len, given.values()), initial=0), strict=False))

    def tap(key: str, activity: Tensor) -> Tensor:
        if key not in given:
            return activity
        first, last = before[key], before[key] + len(given[key])
        return torch.cat([activity[:first], given[key].to(activity.dtype), activity[last:]])

    return net.run(params, x, tap)


def _stopped(
    net: Net,
    params: Mapping[str, Tensor],
    x: Tensor,
    b: str | None,
    given: Mapping[str, Tensor],
    replaced: Replaced = _by_key,
) -> Tensor:
    """The activity at ``b`` in a pass that goes no further."""
    reached: list[Tensor] = []

    def tap(key: str, activity: Tensor) -> Tensor:
        if key == b:
            reached.append(activity)
            raise _Reached
        return replaced(key, activity, given)

    try:
        return net.run(params, x, tap)
    except _Reached:
        return reached[0]


# --------------------------------------------------------------------------------------------------------------------
# What is done about the part in front of a site


@dataclass(frozen=True)
class _Part:
    """A part of a chain of modules that is run in place of the whole.

    Attributes:
        net: of the modules from the one that holds ``a`` to the one that holds ``b``, by their names.
        entry: an input of the first.
        names: name of each parameter and buffer of the network → its name in the part, ``None`` where it has none.
    """

    net: Net
    entry: Tensor
    names: Mapping[str, str | None]

    def run(
        self,
        net: Net,
        params: Mapping[str, Tensor],
        b: str | None,
        given: Mapping[str, Tensor],
        replaced: Replaced,
    ) -> Tensor:
        """The activity at ``b``; no statistics move."""

        def own(tensors: Mapping[str, Tensor]) -> Tensors:
            # Others may be among the parameters, such as the offsets by which signals are seen.
            named = {self.names.get(name): value for name, value in tensors.items()}
            return {name: value for name, value in named.items() if name is not None}

        bound = self.net.bind(own(net.fixed), own(net.statistics), net.masks, training=net.training)
        return _stopped(bound, own(params), self.entry, b, given, replaced)


@dataclass(frozen=True)
class _Front:
    """What a pass does about the part in front of a site.

    Attributes:
        kind: leave it out; pass through it the example, as many rows as the activity has, or the true inputs.
        part: what is left, where it is left out.
    """

    kind: Literal["chain", "example", "rows", "input"]
    part: _Part | None = None


@dataclass(frozen=True)
class _Entry:
    """A pass that examples join at several sites.

    Attributes:
        part: what is left of the network without what lies in front of the first site; ``None`` = the example passes there.
    """

    part: _Part | None

    def run(self, net: Net, params: Tensors, given: Mapping[str, Tensor]) -> Tensor:
        """See `from_sites`."""
        if self.part is not None:
            return self.part.run(net, params, None, given, _joined)
        return _stopped(net, params, net.example, None, given, _joined)


_FRONTS: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], _Front]] = WeakKeyDictionary()
_ENTRIES: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], _Entry | None]] = WeakKeyDictionary()
# An example that depends on others is off by about its own size; fewer rows in a product, by rounding.
_ROUNDING = 1e-3


def _front_of(net: Net, a: str, b: str | None) -> _Front:
    known = _FRONTS.setdefault(net.module, {})
    which = (a, b, net.training, net.example.device, net.example.dtype, net.example.shape)
    if which not in known:
        # Transforms, modes and autocast are a thread's own: in another one the network is seen as it is.
        with ThreadPoolExecutor(1) as thread:
            known[which] = thread.submit(_examine, net, a, b).result()
    return known[which]


def _entries(
    net: Net, keys: tuple[str, ...]
) -> tuple[dict[tuple[object, ...], _Entry | None], tuple[object, ...]]:
    """What is known of a module, and the key of these sites in it."""
    which = (keys, net.training, net.example.device, net.example.dtype, net.example.shape)
    return _ENTRIES.setdefault(net.module, {}), which


def _entry_of(net: Net, keys: tuple[str, ...]) -> _Entry | None:
    """How examples join a pass at some sites; ``None`` where they cannot."""
    if not torch.compiler.is_compiling():
        examine_sites(net, keys)
    known, which = _entries(net, keys)
    return known.get(which)


def _examine_entry(net: Net, keys: tuple[str, ...]) -> _Entry | None:
    if net.training and net.statistics:  # those of the batch, or of a part of it
        return None
    plain = _Plain.of(net)
    if any(plain.passes_by(key, None) for key in keys):
        return None
    part = plain.part(keys[0], None)
    entries = [*([] if part is None else [_Entry(part)]), _Entry(None)]
    return next((entry for entry in entries if plain.enters(entry, keys)), None)


def _examine(net: Net, a: str, b: str | None) -> _Front:
    plain = _Plain.of(net)
    if plain.passes_by(a, b):
        return _Front("input")
    part = plain.part(a, b)
    fronts = [*([] if part is None else [_Front("chain", part)]), _Front("example")]
    return next((front for front in fronts if plain.is_exact(front, a, b)), _Front("rows"))


@dataclass(frozen=True)
class _Plain:
    """A network with the values that its module holds, whatever transform the caller is in."""

    net: Net
    params: Tensors

    @classmethod
    def of(cls, net: Net) -> _Plain:
        values = net.values_of(net.module)
        gen = torch.Generator(net.example.device).manual_seed(0)
        masks = net.draw_masks(gen, len(net.example)) if net.drops else None
        bound = Net.bind(net, values.fixed, values.statistics, masks, training=net.training)
        return cls(bound, values.params)

    def passes_by(self, a: str, b: str | None) -> bool:
        """Whether the activity at ``b`` depends on the input while that at ``a`` is held: autograd knows."""
        x = self.net.example.detach().clone()
        held = {a: self.net.zeros(a, len(x))}
        with torch.enable_grad(), _Following(x.requires_grad_(x.is_floating_point())):
            reached = _stopped(self.net, self.params, x, b, held)
        return reached.requires_grad

    def part(self, a: str, b: str | None) -> _Part | None:
        """What is left of a chain of modules without those in front of ``a`` and behind ``b``."""
        chain = _chain(self.net.module)
        if chain is None or self.net.masks is not None:
            return None
        names = list(chain)
        holds = {key: _holder(names, visit.site) for key, visit in self.net.visits.items()}
        first, last = holds[a], len(names) - 1 if b is None else holds[b]
        if first is None or last is None:  # a site that is no module, but a tap on a call
            return None
        entries: list[Tensor] = []
        handle = chain[names[first]].register_forward_pre_hook(
            lambda _, args: entries.append(args[0].detach())
        )
        try:
            with torch.no_grad():
                self.net.run(self.params, self.net.example)
        finally:
            handle.remove()
        part = nn.Sequential()
        for name in names[first : last + 1]:
            _put(part, name, chain[name])
        whole, names_in = _named_tensors(self.net.module), _named_tensors(part)
        own = {id(tensor): name for name, tensor in names_in.items()}
        return _Part(
            self.net.through(part), entries[0], {name: own.get(id(tensor)) for name, tensor in whole.items()}
        )

    def is_exact(self, front: _Front, a: str, b: str | None) -> bool:
        """Whether the activity at ``b`` is the same as with as many rows in front of ``a`` as there are behind."""
        rows = len(self.net.example) + 1
        h = _wave(self.net.zeros(a, rows))
        with torch.no_grad():
            wanted = _stopped(self.net, self.params, _rows_of(self.net.example, rows), b, {a: h})
            try:
                if front.part is not None:
                    got = front.part.run(self.net, self.params, b, {a: h}, _by_key)
                else:
                    got = _stopped(self.net, self.params, self.net.example, b, {a: h})
            except (RuntimeError, ValueError, IndexError):
                return False
        return got.shape == wanted.shape and torch.equal(got, wanted)

    def enters(self, entry: _Entry, keys: Sequence[str]) -> bool:
        """Whether the output is that of whole passes, with other numbers of examples at every site."""
        given = {
            key: _wave(self.net.zeros(key, len(self.net.example) + 1 + i % 3)) for i, key in enumerate(keys)
        }
        x = _rows_of(self.net.example, sum(map(len, given.values())))
        with torch.no_grad():
            try:
                wanted = _entered(self.net, self.params, given, x)
                got = entry.run(self.net, self.params, given)
            except (RuntimeError, ValueError, IndexError):
                return False
        if got.shape != wanted.shape or not wanted.isfinite().all():
            return False
        return bool((got - wanted).abs().max() <= _ROUNDING * wanted.abs().max())


def _wave(h: Tensor) -> Tensor:
    """Numbers between -1 and 1 in the shape and type of some activity."""
    return h + torch.arange(h.numel(), device=h.device).sin().view_as(h).to(h.dtype)


def _chain(module: nn.Module, prefix: str = "") -> dict[str, nn.Module] | None:
    """The modules of a chain by name, with nested chains taken apart; ``None`` for any other module."""
    if not _is_sequential(module):
        return None
    found: dict[str, nn.Module] = {}
    for name, child in module._modules.items():
        if child is not None:
            found |= _chain(child, f"{prefix}{name}.") or {prefix + name: child}
    return found


def _is_sequential(module: nn.Module) -> bool:
    """Whether it does nothing but call its modules one after the other."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    plain = type(module).forward is nn.Sequential.forward and "forward" not in vars(module)
    return isinstance(module, nn.Sequential) and plain and not hooks


def _holder(names: Sequence[str], site: str) -> int | None:
    """Position of the module of a chain in which a site lies."""
    return next((i for i, name in enumerate(names) if f"{site}.".startswith(f"{name}.")), None)


def _put(chain: nn.Sequential, name: str, module: nn.Module) -> None:
    """Put a module into a chain of chains, by its dotted name."""
    *outer, last = name.split(".")
    for one in outer:
        if one not in chain._modules:
            chain.add_module(one, nn.Sequential())
        inner = chain._modules[one]
        assert isinstance(inner, nn.Sequential)
        chain = inner
    chain.add_module(last, module)


def _named_tensors(module: nn.Module) -> Tensors:
    return dict(module.named_parameters()) | dict(module.named_buffers())


class _Following(TorchFunctionMode):
    """Lets autograd follow an input through integers, too: what is computed from them gets a gradient of its own.

    Args:
        x: the input.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._integers = (
            {} if x.is_floating_point() else {id(x): x}
        )  # made of the input; kept, as ids are given again

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        integers = any(id(t) in self._integers for t in given)
        if integers or any(t.requires_grad for t in given):
            for made in tree_leaves(result):
                if not isinstance(made, Tensor):
                    continue
                if not made.is_floating_point():
                    self._integers[id(made)] = made
                elif integers and not made.requires_grad:
                    made.requires_grad_()
        return result


def _rows_of(example: Tensor, rows: int) -> Tensor:
    """That many rows, the example's again and again."""
    return example[torch.arange(rows, device=example.device) % len(example)]
