"""A network as a pure function of everything that one seed has of it.

What a seed has of a network (`Values`): the parameters that rules train; what stays as it is (frozen parameters, and
buffers such as a mask or a random projection); and **statistics**, buffers that a pass moves (those of BatchNorm, and
any other). Rules see the trainable parameters. The rest is bound to the network that a rule is given (`Net.bind`), for
each seed its own, together with the masks of dropout.

One rule for statistics: **the first pass of a step moves them, and no other pass does.** It must be the clean pass.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rulezoo.net.calls import Calls, Function, Place
from rulezoo.net.errors import NetError
from rulezoo.net.functional import Modes, Tensors, aliases_of, call_with, refuse_unusable
from rulezoo.net.layers import Layer
from rulezoo.net.placement import Key
from rulezoo.net.reading import Reading
from rulezoo.net.sites import Kind, Site, Tap, Visit, request_of


class Values(NamedTuple):
    """Everything that one seed has of a network: name → tensor.

    Attributes:
        params: what rules train.
        fixed: what stays as it is: frozen parameters, and buffers that no pass moves.
        statistics: the buffers that a training pass moves.
    """

    params: Tensors
    fixed: Tensors
    statistics: Tensors


class Net:
    """A module, seen as a function of its parameters.

    Args:
        module: any module; its sites are `Site` modules, or what `rulezoo.add_sites` asked for.
        example: inputs of shape ``(batch, ...)``; at most two are passed through, to learn the order and the shapes. A
            network that normalises over the batch needs two.

    Attributes:
        visits: key of every visit → `Visit`, in the order of the forward pass.
        layers: its `rulezoo.net.Layer` s, in the order of the forward pass.
        shapes: name of every trainable parameter → its shape.
        output_shape: shape of the output of one example; ``()`` where an output is one number.
        output_dtype: its type.
        unseen: names of parameters that the output depends on by no function of torch that was seen.
        readout: names of the parameters behind the last site: those that change the output while every site is held.
        fixed: what stays as it is, as bound.
        statistics: what the first pass of a step moves, as bound.

    A module's training flags are taken as they are: BatchNorm in evaluation mode (``model.eval()``) uses its running
    statistics in training, too, and dropout drops nothing there.

    Raises:
        NetError: if the network is no function of its parameters, its buffers and its input (see
            `rulezoo.net.purity`), returns anything but one tensor with an example in each row, has nothing to train,
            or if a site is visited twice without being declared ``unrolled``.
    """

    visits: dict[str, Visit]
    layers: tuple[Layer, ...]
    output_shape: tuple[int, ...]
    output_dtype: torch.dtype
    readout: frozenset[str]
    unseen: frozenset[str]
    fixed: Tensors
    statistics: Tensors

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.module = module
        self.example = example[:2]
        self._modes = Modes({child: child.training for child in module.modules()})
        self._training = True
        self._sites = {name: site for name, site in module.named_modules() if isinstance(site, Site)}
        self._places: dict[Place, str] = {}
        self._totals: dict[Function, int] = {}
        self._site_of: dict[str, Key] = {}
        self._protected: set[str] = set()
        self._constants: tuple[str, ...] = ()  # names of buffers that no pass may move
        self._aliases = aliases_of(module)
        self._drops: list[tuple[int, ...]] = []
        self._opens = self._copies_input = False
        self.masks: Tensors | None = None
        self.moved: Tensors = {}
        refuse_unusable(module)
        self.shapes = {n: tuple(p.shape) for n, p in module.named_parameters() if p.requires_grad}
        if not self.shapes:
            raise NetError("the network has nothing to train: no parameter has requires_grad=True")
        Reading(self).read(request_of(module))

    # What it is ------------------------------------------------------------------------------------------------------

    def init_params(self) -> Tensors:
        """A copy of the module's trainable parameters: name → tensor."""
        return self.values_of(self.module).params

    def values_of(self, module: nn.Module) -> Values:
        """Copies of what a module of the same kind holds; another seed's network, say.

        Raises:
            NetError: if it differs from this one in more than parameters and buffers.
        """
        if module is not self.module:
            self._check_kind(module)
        params: Tensors = {}
        fixed: Tensors = {}
        statistics: Tensors = {}
        for name, p in module.named_parameters():
            (params if name in self.shapes else fixed)[name] = p.detach().clone()
        for name, b in module.named_buffers():
            (statistics if name in self.statistics else fixed)[name] = b.detach().clone()
        return Values(params, fixed, statistics)

    def _check_kind(self, module: nn.Module) -> None:
        """See that nothing but parameters and buffers tells another module from this one."""
        own = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        its = dict(module.named_parameters()) | dict(module.named_buffers())
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in its.items()}:
            strange = sorted(
                n
                for n in own.keys() | its.keys()
                if n not in own or n not in its or own[n].shape != its[n].shape
            )
            raise NetError(
                f"two networks of the task differ in the shape of {strange[0]!r}; network() must build the same network "
                "each time, and draw nothing but its parameters and buffers"
            )
        bound = self.bind({n: t.detach() for n, t in its.items()}, {}, training=False)
        modes = Modes({child: child.training for child in module.modules()})
        with torch.no_grad(), modes.training(False):
            ours, theirs = bound.run({}, self.example), module(self.example.clone())
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise NetError(
                "two networks of the task differ in something that is neither a parameter nor a buffer (a tensor or a "
                "module in a plain attribute, say): it would be the same for all seeds; register it (register_buffer, "
                "nn.ModuleList)"
            )

    def tensors(self, params: Mapping[str, Tensor]) -> Tensors:
        """Every tensor that a layer may be made of, by name: trainable, frozen and constant."""
        return {**self.fixed, **params}

    def state_dict(self, params: Mapping[str, Tensor]) -> Tensors:
        """The module's ``state_dict`` with these parameters, and what is bound: it loads into the plain model."""
        own = {**self.fixed, **self.statistics, **params}
        same: dict[int, str] = {}
        for name, tensor in [
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ]:
            same.setdefault(id(tensor), name)
        state = self.module.state_dict(keep_vars=True)
        return {name: own[same[id(tensor)]].detach() for name, tensor in state.items()}

    def keys(self, kind: Kind = "post") -> list[str]:
        """The keys of all visits of sites of one kind, in the order of the forward pass."""
        return [key for key, visit in self.visits.items() if visit.kind == kind]

    def zeros(self, key: str, rows: int) -> Tensor:
        """Zeros of the shape and type of the activity at a visit of a site, ``(rows, *shape)``."""
        visit = self.visits[key]
        return torch.zeros(rows, *visit.shape, dtype=visit.dtype, device=self.example.device)

    def normal(self, shape: Sequence[int], gen: torch.Generator) -> Tensor:
        """Standard normal numbers of that shape, for a rule's memory or noise: of `memory_dtype`, on the network's device.

        Args:
            shape: the whole shape.
            gen: draws them on its own device, so the numbers of a CPU generator are the same for every device.
        """
        drawn = torch.randn(tuple(shape), generator=gen, dtype=self.memory_dtype(), device=gen.device)
        return drawn.to(self.example.device)

    def memory_dtype(self, *keys: str) -> torch.dtype:
        """The type in which a rule should remember what is about activity at these visits and the output's error.

        Never that of the input, which may be integers; and float32 or more precise, whatever the network computes in.
        """
        dtype = torch.promote_types(self.output_dtype, torch.float32)
        for key in keys or self.visits:
            dtype = torch.promote_types(dtype, self.visits[key].dtype)
        return dtype

    @property
    def output_width(self) -> int:
        """Number of units of the output of one example."""
        return math.prod(self.output_shape)

    @property
    def depth(self) -> int:
        """Layers in series in the deepest block, where every ``post`` site is cut; 1 where no block is deep."""
        return max((use.depth for layer in self.layers for use in layer.uses), default=1)

    # What is bound ---------------------------------------------------------------------------------------------------

    def bind(
        self, fixed: Tensors, statistics: Tensors, masks: Tensors | None = None, *, training: bool = True
    ) -> Net:
        """The same network with what one seed has of it in addition to its parameters.

        Args:
            fixed: see `Values`.
            statistics: see `Values`.
            masks: of dropout, from `draw_masks`; needed in training where there is dropout.
            training: else evaluation, as after ``model.eval()``: running statistics, no dropout.
        """
        bound = copy.copy(self)
        bound.fixed, bound.statistics, bound._training, bound.moved = fixed, statistics, training, {}
        bound.masks = masks if training and self._drops else None
        return bound

    def draw_masks(self, gen: torch.Generator, rows: int) -> Tensors:
        """Uniform numbers for every dropout of a pass with that many rows, see `rulezoo.net.dropout`."""
        each = len(self.example)
        return {
            str(number): torch.rand(shape[0] // each * rows, *shape[1:], generator=gen, device=gen.device)
            for number, shape in enumerate(self._drops)
        }

    def moved_statistics(self) -> Tensors:
        """The statistics after the first pass since the network was bound; as bound where there was none."""
        unwrapped = torch._C._functorch.unwrap_if_dead  # the pass may have been made inside a transform
        return {name: unwrapped(self.moved.get(name, value)) for name, value in self.statistics.items()}

    def evaluation(self) -> Net:
        """The same network as it is evaluated: with running statistics, and without dropout."""
        return self.bind(self.fixed, self.statistics, training=False)

    def without_moving(self) -> Net:
        """The same network as it is bound, whose passes leave this one's statistics alone."""
        return self.bind(self.fixed, self.statistics, self.masks, training=self.training)

    def through(self, part: nn.Module) -> Net:
        """The same network with the forward pass of another module that holds some of its modules, and their sites."""
        bound = self.without_moving()
        modules = dict(part.named_modules())
        bound.module, bound._aliases = part, aliases_of(part)
        bound._sites = {name: site for name, site in modules.items() if isinstance(site, Site)}
        flags = self._modes.flags
        bound._modes = Modes({child: flags[child] for child in modules.values() if child in flags})
        return bound

    @property
    def training(self) -> bool:
        """Whether passes are those of training: batch statistics and dropout, where the module has them."""
        return self._training

    @property
    def drops(self) -> bool:
        """Whether there is dropout, so that a step needs masks."""
        return bool(self._drops)

    # The forward pass ------------------------------------------------------------------------------------------------

    def run(self, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
        """The output for ``x``, of shape ``(batch, *output_shape)``.

        Args:
            params: name → tensor, as from `init_params`.
            x: inputs, ``(batch, ...)``.
            tap: reads or replaces the activity at every visit of every site; ``None`` = leave it alone.
        """
        if self._drops and self._training and self.masks is None:
            raise NetError(
                "the network drops out in training and was given no masks; bind it with draw_masks(...)"
            )
        if tap is not None and self._protected:
            tap = self._protecting(tap)
        calls = Calls(self._places, tap, self._totals, self.masks)
        needed = self._opens or self.masks is not None or (tap is not None and self._places)
        with self._tapped(tap) if tap is not None else nullcontext(), calls if needed else nullcontext():
            output = self._call(params, x)
        if needed and tap is not None:
            calls.check()
        return output

    def _call(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        given = {**self.fixed, **{name: s.clone() for name, s in self.statistics.items()}, **params}
        with self._modes.training(self._training):
            before = self._versions(given)
            output = call_with(self.module, given, self._aliases, x.clone() if self._copies_input else x)
            if before and (
                moved := [name for name, now in self._versions(given).items() if now != before[name]]
            ):
                raise NetError(
                    f"the network changes its buffer {moved[0]!r} in this pass, and did not when it was read; let every "
                    "training pass change it, and no pass in evaluation"
                )
        if self.statistics and not self.moved:
            # A pass may put a new tensor in the place of a buffer: functional_call tells which one.
            self.moved.update({name: given[name].detach() for name in self.statistics})
        return output

    def _versions(self, given: Tensors) -> dict[str, tuple[int, int]]:
        """What tells whether a constant buffer was changed."""
        if torch.compiler.is_compiling():
            return {}
        return {n: (id(given[n]), given[n]._version) for n in self._constants if n in given}

    def _protecting(self, tap: Tap) -> Tap:
        """What follows some sites writes over their activity: it gets a copy."""

        def protected(key: str, activity: Tensor) -> Tensor:
            seen = tap(key, activity)
            return seen.clone() if key in self._protected else seen

        return protected

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
