"""A network as a pure function of everything that one seed has of it.

What a seed has of a network (`Values`): the parameters that rules train; what stays as it is (frozen parameters, and
buffers such as a mask or a random projection); and **statistics**, buffers that a pass moves (those of BatchNorm, and
any other). Rules see the trainable parameters. The rest is bound to the network that a rule is given (`Net.bind`), for
each seed its own, together with the masks of dropout.

One rule for statistics: **the first pass of a step moves them, and no other pass does.** It must be the clean pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rulezoo.net.calls import COMPOSITE, Calls, Function, Place
from rulezoo.net.errors import NetError
from rulezoo.net.layers import Layer, layer_calls, read_layers
from rulezoo.net.placement import Key, Pass, place, shapes_of
from rulezoo.net.purity import check_pulled_outside, check_repeats, refuse_side_effects, same_values
from rulezoo.net.sites import Kind, Request, Site, Tap, Visit, request_of
from rulezoo.net.tracing import Graph, Held, Recorder, watching_modules

Tensors = dict[str, Tensor]


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


@dataclass(frozen=True)
class _Modes:
    """The training flags of all submodules, as they were when the network was read."""

    flags: Mapping[nn.Module, bool]

    @contextmanager
    def training(self, training: bool) -> Iterator[None]:
        """See that they are so for a pass, or all in evaluation, whoever may have changed them since."""
        changed = [child for child, flag in self.flags.items() if child.training != (flag and training)]
        for child in changed:
            child.training = not child.training
        try:
            yield
        finally:
            for child in changed:
                child.training = not child.training


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
        self._modes = _Modes({child: child.training for child in module.modules()})
        self._training = True
        self._sites = {name: site for name, site in module.named_modules() if isinstance(site, Site)}
        self._places: dict[Place, str] = {}
        self._totals: dict[Function, int] = {}
        self._site_of: dict[str, Key] = {}
        self._protected: set[str] = set()
        self._constants: tuple[str, ...] = ()  # names of buffers that no pass may move
        self._aliases = _aliases(module)
        self._drops: list[tuple[int, ...]] = []
        self._opens = self._copies_input = False
        self.masks: Tensors | None = None
        self.moved: Tensors = {}
        _refuse_parameters(module)
        self.shapes = {n: tuple(p.shape) for n, p in module.named_parameters() if p.requires_grad}
        if not self.shapes:
            raise NetError("the network has nothing to train: no parameter has requires_grad=True")
        _Reading(self).read(request_of(module))

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
        modes = _Modes({child: child.training for child in module.modules()})
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

    def memory_dtype(self, *keys: str) -> torch.dtype:
        """The type in which a rule should remember what is about activity at these visits and the output's error.

        Never that of the input, which may be integers; and float32 or more precise, whatever the network computes in.
        """
        dtype = torch.promote_types(self.output_dtype, torch.float32)
        for key in keys or self.visits:
            dtype = torch.promote_types(dtype, self.visits[key].dtype)
        return dtype

    @property
    def depth(self) -> int:
        """Layers in series in the deepest block, where every ``post`` site is cut; 1 where no block is deep."""
        return max((use.depth for layer in self.layers for use in layer.uses), default=1)

    # What is bound ---------------------------------------------------------------------------------------------------

    def bind(
        self, fixed: Tensors, statistics: Tensors, masks: Tensors | None = None, *, training: bool = True
    ) -> Net:
        """The same network with what one seed has of it besides its parameters.

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


def call_with(module: nn.Module, given: Tensors, aliases: Mapping[str, Sequence[str]], x: Tensor) -> Tensor:
    """The output of a module with these tensors; one that it puts in the place of a buffer is put into ``given``."""
    every = {**given, **{alias: given[name] for name, more in aliases.items() for alias in more}}
    # Left to torch, tied tensors of a module that is there under several names would not be put back afterwards.
    try:
        output: Tensor = functional_call(module, every, (x,), tie_weights=False)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise NetError(
            f"the network normalises over a batch of {len(x)}, which has no variance; use batches of two or more, GroupNorm, "
            "or BatchNorm with running statistics in evaluation mode"
        ) from error
    given.update({name: every[name] for name in given})
    return output


def _aliases(module: nn.Module) -> dict[str, list[str]]:
    """Name of a parameter or buffer → its names in other modules, for one that several modules hold."""
    first: dict[int, str] = {}
    more: dict[str, list[str]] = {}
    for prefix, child in module.named_modules():
        for own, tensor in [*child._parameters.items(), *child._buffers.items()]:
            if tensor is not None:
                name = f"{prefix}.{own}" if prefix else own
                if first.setdefault(id(tensor), name) != name:
                    more.setdefault(first[id(tensor)], []).append(name)
    return more


def _refuse_parameters(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if (reason := _no_plain_module(child)) is not None:
            raise NetError(f"{f'the submodule {name!r}' if name else 'the network'} {reason}")
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise NetError(
                f"a hook is registered on the gradient of the parameter {name!r}, and rules hand gradients over without "
                "calling it; remove it (handle.remove())"
            )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise NetError(
                f"{name!r} is complex, and learning rules are written for real numbers; keep its real and imaginary "
                "parts as two parameters"
            )
    if any(nn.parameter.is_lazy(p) for p in module.parameters()):
        raise NetError(
            "the network has lazy parameters whose shape is not known yet; pass one batch through it in network()"
        )


def _no_plain_module(module: nn.Module) -> str | None:
    """Why a module cannot be called with other parameters, or watched; ``None`` where it can."""
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is scripted (torch.jit.script), so nothing inside can be seen; give the module that was scripted"
        )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return f"is a {type(module).__name__}, which copies it to several devices; give its .module"
    if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
        return "is compiled (torch.compile); give the plain module, and let rulezoo compile whole steps (--compile)"
    if module._backward_hooks or module._backward_pre_hooks:
        return (
            "has a backward hook, which changes error signals outside of the rule; remove it (handle.remove()), or write "
            "a torch.autograd.Function"
        )
    return None


@contextmanager
def _naming_written_parameters() -> Iterator[None]:
    """Say what torch means: in a reading all parameters can be differentiated by, frozen ones, too."""
    try:
        yield
    except RuntimeError as error:
        if "leaf Variable that requires grad" not in str(error):
            raise
        raise NetError(
            "the network writes to one of its parameters in its forward pass; make it a buffer (register_buffer)"
        ) from error


class _Reading:
    """Reads a module once, by a few passes with its example."""

    def __init__(self, net: Net) -> None:
        self.net, self.module = net, net.module
        self.named = dict(net.module.named_parameters()) | dict(net.module.named_buffers())

    def read(self, request: Request | None) -> None:
        # What the network is does not depend on the precision or the gradients of whoever asks.
        with torch.enable_grad(), torch.autocast(self.net.example.device.type, enabled=False):
            self._read(request)

    def _read(self, request: Request | None) -> None:
        net = self.net
        net.fixed, net.statistics = {}, {}
        first = self._first_pass()
        if request is not None:
            self._place(request, first)
        net._drops = first.recorder.drops
        net._opens = any(f in COMPOSITE for f in first.recorder.opened)
        values = net.values_of(self.module)
        net.fixed, net.statistics = values.fixed, values.statistics
        buffers = dict(self.module.named_buffers())
        net._constants = tuple(name for name in values.fixed if name in buffers)
        gen = torch.Generator(net.example.device).manual_seed(0)
        net.masks = net.draw_masks(gen, len(net.example)) if net._drops else None
        passed_by = self._site_pass()
        if request is not None and passed_by:
            self._place(request, first, passed_by)
            self._site_pass()
        self._purity()
        net.moved = {}

    def _place(self, request: Request, first: Pass, passed_by: Collection[Place] = ()) -> None:
        net, counts = self.net, first.recorder.counts
        keys = place(request, first, self.module, passed_by)
        net._places = {where: key.key for where, key in keys.items()}
        net._site_of = {key.key: key for key in keys.values()}
        net._totals = {where.function: counts[where.function] for where in keys}

    def _first_pass(self) -> Pass:
        """Without sites: what is called, and which buffers move."""
        net, x = self.net, self._input()
        given = self._given()
        versions = {name: (id(t), t._version) for name, t in given.items()}
        values = {name: t.detach().clone() for name, t in given.items()}
        exits: dict[str, list[Held | object]] = {}

        def left(name: str, number: int, result: object) -> None:
            held = recorder.held(result) if isinstance(result, Tensor) else result
            exits.setdefault(name, []).append(held)

        recorder: Recorder
        with (
            torch.random.fork_rng(devices=_gpus(x)),  # of torch's own dropout, whose masks we do not draw yet
            watching_modules(self.module, left) as inside,
        ):
            recorder = Recorder(given, x, inside)
            held = dict(given)
            entered = x._version
            with recorder, _naming_written_parameters():
                output = call_with(self.module, held, net._aliases, x)
        net._copies_input = x._version != entered
        moved = recorder.moved | {
            n for n, t in held.items() if (id(t), t._version) != versions[n] or not same_values(t, values[n])
        }
        if strange := sorted(moved & dict(self.module.named_parameters()).keys()):
            raise NetError(
                f"the network writes to its parameter {strange[0]!r} in its forward pass; make it a buffer "
                "(register_buffer)"
            )
        net.statistics = {name: given[name].detach() for name in sorted(moved)}
        self._check_output(output, x)
        for shape in recorder.drops:
            if not shape or shape[0] % len(x):
                raise NetError(
                    f"dropout acts on an activity of shape {shape}, whose first axis is not the batch of {len(x)}; "
                    "use batch_first=True, or set its p to 0"
                )
        return Pass(recorder, layer_calls(recorder.calls), exits, self._larger_shapes())

    def _larger_shapes(self) -> dict[Place, tuple[int, ...]]:
        """The shapes in a pass with one example more: the axes that have grown are those of the batch."""
        if request_of(self.module) is None:
            return {}
        x = self.net.example.detach()
        recorder = Recorder(self.named, torch.cat([x, x[:1]]), lambda: "")
        given = {name: t.detach().clone() for name, t in self.named.items()}
        with torch.no_grad(), torch.random.fork_rng(devices=_gpus(x)), recorder:
            call_with(self.module, given, self.net._aliases, recorder.x)
        return shapes_of(recorder)

    def _given(self) -> Tensors:
        """A copy of everything, of which parameters can be differentiated by."""
        copies = {name: t.detach().clone() for name, t in self.named.items()}
        for name, _ in self.module.named_parameters():
            copies[name].requires_grad_(copies[name].is_floating_point())
        return copies

    def _input(self) -> Tensor:
        x = self.net.example.detach()
        return x.clone().requires_grad_().clone() if x.is_floating_point() else x.clone()

    def _check_output(self, output: object, x: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise NetError(
                f"the network returns a {type(output).__name__}; it must return one tensor with an example in each row: "
                "wrap it in a module that returns the part that the loss is about"
            )
        if output.shape[:1] != (len(x),):
            raise NetError(
                f"the network returns shape {tuple(output.shape)} for {len(x)} examples; the first axis must be the "
                "batch"
            )
        if output.is_complex() or not output.is_floating_point():
            raise NetError(f"the network returns {output.dtype}; rules need real floating-point outputs")
        self.net.output_shape, self.net.output_dtype = tuple(output.shape[1:]), output.dtype

    def _site_pass(self) -> set[Place]:
        """With sites: visits, layers, the read-out, and which activity is written over.

        Returns:
            Places of sites that the network passes by: it does not read what is returned there.
        """
        net, x = self.net, self._input()
        given = self._given()
        recorder_box: list[Recorder] = []
        visits: dict[str, Visit] = {}
        at: dict[str, object] = {}
        labels: dict[object, str] = {}
        copies: dict[str, tuple[Tensor, int]] = {}

        def note(key: str, activity: Tensor) -> Tensor:
            if not isinstance(activity, Tensor):
                raise NetError(
                    f"site {key!r} was given a {type(activity).__name__}; a site holds one tensor, so put it behind "
                    "the part of it that is meant"
                )
            if activity.shape[:1] != (len(x),):
                raise NetError(
                    f"the activity at site {key!r} has shape {tuple(activity.shape)} for {len(x)} examples; its first "
                    "axis must be the batch, so put the site where it is (batch_first=True)"
                )
            site = self._site(key)
            visits[key] = Visit(site.site, site.kind, tuple(activity.shape[1:]), activity.dtype)
            at[key] = activity.grad_fn
            passed = activity.clone()
            if passed.grad_fn is not None:
                labels[passed.grad_fn] = key
            copies[key] = passed, passed._version
            return passed

        with watching_modules(self.module) as inside:
            recorder_box.append(Recorder(given, x, inside))
            with recorder_box[0]:
                output = self._run_with(given, x, note)
        net.visits = visits
        net._protected = {key for key, (t, version) in copies.items() if t._version != version}
        calls = layer_calls(recorder_box[0].calls)
        for one in calls:
            labels |= dict.fromkeys(one.call.nodes, one.label)
        net.layers = read_layers(
            calls, Graph(labels), visits, at, given, frozenset(net.shapes)
        )  # fmt: skip
        net.unseen = frozenset(recorder_box[0].unseen(output) & net.shapes.keys())
        net.readout = self._readout(x)
        graph = Graph({node: key for node, key in labels.items() if key in visits})
        taps = [(where, key) for where, key in net._places.items() if where.side == "out" and at.get(key)]
        return {where for where, key in taps if graph.passes_by(output.grad_fn, key, at[key])}

    def _site(self, key: str) -> Key:
        if key in self.net._site_of:
            return self.net._site_of[key]
        name = key.partition("[")[0]
        return Key(key, name, self.net._sites[name].kind)

    def _run_with(self, given: Tensors, x: Tensor, tap: Tap | None) -> Tensor:
        bound = copy.copy(self.net)
        bound.statistics, bound.fixed, bound.moved = {}, {}, {}
        return Net.run(bound, given, x, tap)

    def _readout(self, x: Tensor) -> frozenset[str]:
        given = self._given()
        output = self._run_with(given, x.detach(), lambda key, h: h.detach())
        names = list(self.net.shapes)
        if not output.requires_grad:
            return frozenset()
        reached = torch.autograd.grad(output.sum(), [given[n] for n in names], allow_unused=True)
        return frozenset(n for n, g in zip(names, reached, strict=True) if g is not None)

    def _purity(self) -> None:
        net, x = self.net, self.net.example.detach()
        others = {n: 0.9 * p + 0.01 for n, p in net.init_params().items()}
        with torch.no_grad():
            refuse_side_effects(self.module, lambda: net.run(net.init_params(), x))
            first = net.run(net.init_params(), x)
            net.run(others, x)
            again = net.run(net.init_params(), x)
        check_repeats(first, again)

        def forward() -> tuple[Tensor, Tensors]:
            given = self._given() | {n: p.clone().requires_grad_() for n, p in others.items()}
            output = self._run_with(given, x, None)
            if not output.requires_grad:
                raise NetError(
                    "no trainable parameter changes the output: the forward pass is under torch.no_grad(), or detaches "
                    "its activity; take that out"
                )
            return output, given

        small = sorted(net.shapes, key=lambda name: others[name].numel())
        check_pulled_outside(self.module, forward, small[: 1 + len(small) // 2])
        recorder = Recorder(self.named, x, lambda: "")
        with torch.no_grad(), torch.random.fork_rng(devices=_gpus(x)), recorder:
            net.evaluation().run(net.init_params(), x)
        if recorder.drops:
            raise NetError(
                "the network drops out in evaluation mode, too; give F.dropout training=self.training, or use "
                "torch.nn.Dropout"
            )
        with torch.no_grad():
            refuse_side_effects(self.module, lambda: net.evaluation().run(net.init_params(), x))


def _gpus(x: Tensor) -> list[int]:
    return [x.device.index or 0] if x.is_cuda else []
