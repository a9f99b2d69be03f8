"""How a network is read once: a few watched passes with its example, from which `rulezoo.net.Net` knows what it is."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rulezoo.net.calls import COMPOSITE, Place
from rulezoo.net.errors import NetError
from rulezoo.net.functional import Tensors, call_with
from rulezoo.net.layers import layer_calls, read_layers
from rulezoo.net.placement import Key, Pass, place, shapes_of
from rulezoo.net.purity import check_pulled_outside, check_repeats, refuse_side_effects, same_values
from rulezoo.net.sites import Request, Tap, Visit, request_of
from rulezoo.net.tracing import Graph, Held, Recorder, watching_modules

if TYPE_CHECKING:
    from rulezoo.net.network import Net


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


class Reading:
    """Reads a module once, by a few passes with its example."""

    def __init__(self, net: Net) -> None:
        self.net, self.module = net, net.module
        self.named = dict(net.module.named_parameters()) | dict(net.module.named_buffers())

    def read(self, request: Request | None) -> None:
        """Find out what the network is, with the sites that were asked for."""
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
        if recorder.transformed:
            raise NetError(
                "the network uses torch.func (vmap, grad, …) in its forward pass, inside of which layers cannot be seen; "
                "write it with operations on whole batches"
            )
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
            # A copy of an expanded tensor would no longer show that it was.
            passed = activity.expand_as(activity) if 0 in activity.stride() else activity.clone()
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
        return bound.run(given, x, tap)

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
