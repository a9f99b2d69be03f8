"""Where the sites go that `add_sites` asks for: from a recorded pass to places in it.

A site holds activity whose first axis is the batch, and is placed nowhere else: where attention folds batch and time
into one axis, the site goes to the last tensor in front that has not been folded, and a drive gets none. By itself, a
hidden layer gets

- ``<layer>.post`` on every tensor that feeds a layer and that a layer lies in front of: all that read it see the site,
  a skip connection, too. It is called after the deepest layer in front of it.
- ``<layer>.pre`` on what enters the first non-linearity behind it, or on its output where there is none.
- ``<layer>.recurrent`` on the edge into a layer that is called once per time step from its own past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import nn

from rulezoo.net.calls import ACTIVATIONS, Function, Place
from rulezoo.net.errors import NetError
from rulezoo.net.layers import LayerCall, depths
from rulezoo.net.sites import Kind, Request, Where
from rulezoo.net.tracing import Call, Graph, Held, Recorder


class Placed(NamedTuple):
    """A tap on a call.

    Attributes:
        place: which tensor.
        site: name of the site.
        kind: its kind.
        shape: shape of the activity of one example.
        after: names of the weights of the layer it is called after, or of the one in front.
        call: the label of that layer's call.
    """

    place: Place
    site: str
    kind: Kind
    shape: tuple[int, ...]
    after: tuple[str, ...]
    call: str = ""


class Key(NamedTuple):
    """A visit of a placed site: its key, and what `rulezoo.net.Visit` wants to know."""

    key: str
    site: str
    kind: Kind


@dataclass(frozen=True)
class Pass:
    """A recorded pass, in which layers have labels.

    Attributes:
        recorder: what was recorded.
        layers: its layers.
        exits: name of a module → what it returned, call by call; a tensor as it was then.
        larger: shapes in a pass with one example more.
    """

    recorder: Recorder
    layers: Sequence[LayerCall]
    exits: Mapping[str, Sequence[object]]
    larger: Mapping[Place, tuple[int, ...]]

    @cached_property
    def graph(self) -> Graph:
        """Autograd's graph, with the outputs of layers as labels."""
        return Graph({node: one.label for one in self.layers for node in one.call.nodes})

    @cached_property
    def shapes(self) -> dict[Place, tuple[int, ...]]:
        """The shape of the tensor in every place."""
        return shapes_of(self.recorder)

    def in_rows(self, where: Place) -> bool:
        """Whether a tensor has an example in each row: whether its first axis alone grows with the batch."""
        shape, larger = self.shapes.get(where, ()), self.larger.get(where, ())
        return bool(shape) and shape[1:] == larger[1:] and shape[0] + 1 == larger[0] == self.rows + 1

    @property
    def rows(self) -> int:
        """Examples in the pass."""
        return len(self.recorder.x)

    def last_in_rows(self, where: Place) -> Place | None:
        """The place itself, or the last one in front of it, on a way without branches, that has examples in rows."""
        calls = self._calls
        layers = {(one.call.function, one.call.number) for one in self.layers}
        while not self.in_rows(where):
            call = calls[where.function, where.number]
            before = [one.place for one in call.arguments if one.node is not None]
            if (call.function, call.number) in layers or len(before) != 1 or before[0] is None:
                return None
            where = before[0]
        return where

    @cached_property
    def _calls(self) -> dict[tuple[Function, int], Call]:
        return {(call.function, call.number): call for call in self.recorder.calls}

    @cached_property
    def depth(self) -> dict[str, int]:
        """Label of a layer → layers in series up to it."""
        return depths(self.layers, self.graph)

    @cached_property
    def _deepest(self) -> dict[tuple[str, ...], int]:
        """Weights of a layer → layers in series up to the deepest of its calls."""
        deepest: dict[tuple[str, ...], int] = {}
        for one in self.layers:
            deepest[one.call.weights] = max(deepest.get(one.call.weights, 0), self.depth[one.label])
        return deepest

    def in_front(self, held: Held) -> list[LayerCall]:
        """The layers right in front of a tensor, the deepest last; of two, the one that goes deeper in other calls.

        So the first state of a recurrent network is behind the recurrent layer, like all that follow.
        """
        found = set(self.graph.behind(held.node))
        return sorted(
            (one for one in self.layers if one.label in found),
            key=lambda one: (self.depth[one.label], self._deepest[one.call.weights]),
        )


def shapes_of(recorder: Recorder) -> dict[Place, tuple[int, ...]]:
    """The shape of the tensor in every place of a recorded pass."""
    found: dict[Place, tuple[int, ...]] = {}
    for call in recorder.calls:
        for one in call.arguments:
            if one.at >= 0:
                found[Place(call.function, call.number, "in", one.at)] = tuple(one.tensor.shape)
        if len(call.made) == 1:
            found[Place(call.function, call.number, "out")] = call.made[0]
    return found


def place(
    request: Request, seen: Pass, module: nn.Module, passed_by: Container[Place] = ()
) -> dict[Place, Key]:
    """The places of all sites that were asked for, in no order.

    Args:
        request: what was asked for.
        seen: a recorded pass.
        module: the network.
        passed_by: results that the network does not read where they are returned, because it wrote over an activity.
    """
    if request.after is None:
        return _named(_of_layers(seen, passed_by))
    placed = _as_mapped(request.after, seen, module)
    for one in placed:
        if one.place in passed_by:
            raise NetError(
                f"behind {one.site!r} the network writes over its activity and does not use what is returned; assign "
                "the result (h = relu(h)), or take inplace=True away"
            )
    return _named(placed)


def _named(placed: Iterable[Placed]) -> dict[Place, Key]:
    """Give every visit its key: ``site``; ``site[0]``, … in time; ``site:0``, … in different places."""
    sites: dict[tuple[str, str], dict[tuple[object, ...], list[Placed]]] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for one in placed:
        again = one.site, one.kind, one.shape, one.after, one.call
        # Visits in time have one shape and follow different calls of one layer.
        course = one.shape, one.after, seen[again]
        seen[again] += 1
        sites.setdefault((one.site, one.kind), {}).setdefault(course, []).append(one)
    keys: dict[Place, Key] = {}
    for (site, _), courses in sites.items():
        for number, members in enumerate(courses.values()):
            name = site if len(courses) == 1 else f"{site}:{number}"
            for step, one in enumerate(members):
                key = name if len(members) == 1 else f"{name}[{step}]"
                if one.place in keys:
                    raise NetError(
                        f"{keys[one.place].key!r} and {key!r} are the same activity; ask for one of them"
                    )
                keys[one.place] = Key(key, name, one.kind)
    return keys


# --------------------------------------------------------------------------------------------------------------------
# Of every hidden layer


def _of_layers(seen: Pass, passed_by: Container[Place]) -> list[Placed]:
    posts = _posts(seen, passed_by)
    return [*posts, *_pres(seen, posts), *_recurrent(seen)]


def _posts(seen: Pass, passed_by: Container[Place]) -> list[Placed]:
    placed: dict[Place, Placed] = {}
    for one in seen.layers:
        held = one.call.input
        if held is None or not (front := seen.in_front(held)):
            continue
        where = held.place
        if where is None or _in_place(where.function) or where in passed_by:
            where = Place(one.call.function, one.call.number, "in", one.call.activity or 0)
        found = seen.last_in_rows(where)
        if found is None:
            continue
        where, deepest = found, front[-1]
        name, shape, weights = f"{deepest.name}.post", seen.shapes[where][1:], deepest.call.weights
        placed.setdefault(where, Placed(where, name, "post", shape, weights, deepest.label))
    return list(placed.values())


def _in_place(function: Function) -> bool:
    name = getattr(function, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _pres(seen: Pass, posts: Sequence[Placed]) -> list[Placed]:
    """In front of the first non-linearity of every hidden layer."""
    placed: dict[str, Placed] = {}
    taken = {post.place for post in posts}
    for call in seen.recorder.calls:
        held = next((one for one in call.arguments if one.at == 0), None)
        where = Place(call.function, call.number, "in")
        if call.function not in ACTIVATIONS or held is None or not seen.in_rows(where):
            continue
        if not (front := seen.in_front(held)):
            continue
        deepest = front[-1]
        if call.in_place:  # it has to get the tensor itself: the site goes behind the call that made it
            if held.place is None or held.place in taken:
                continue
            where = held.place
        found = Placed(
            where,
            f"{deepest.name}.pre",
            "pre",
            tuple(held.tensor.shape[1:]),
            deepest.call.weights,
            deepest.label,
        )
        placed.setdefault(deepest.label, found)
    hidden = {one.label for other in seen.layers if other.call.input is not None
              for one in seen.in_front(other.call.input)}  # fmt: skip
    for one in seen.layers:
        where = Place(one.call.function, one.call.number, "out")
        if one.label in hidden and one.label not in placed and seen.in_rows(where) and where not in taken:
            shape = seen.shapes[where][1:]
            placed[one.label] = Placed(where, f"{one.name}.pre", "pre", shape, one.call.weights, one.label)
    order = {one.label: number for number, one in enumerate(seen.layers)}
    return [placed[label] for label in sorted(placed, key=order.__getitem__)]


def _recurrent(seen: Pass) -> list[Placed]:
    """The edges into layers that are called again on what they helped to make."""
    calls = Counter(one.call.weights for one in seen.layers)
    own: dict[tuple[str, ...], list[LayerCall]] = {}
    for one in seen.layers:
        if calls[one.call.weights] > 1 and one.call.input is not None:
            own.setdefault(one.call.weights, []).append(one)
    placed = []
    for weights, uses in own.items():
        fed = [any(f.call.weights == weights for f in seen.in_front(one.call.input)) for one in uses
               if one.call.input is not None]  # fmt: skip
        if not all(fed[1:]):
            continue
        for one in uses:
            where = Place(one.call.function, one.call.number, "in", one.call.activity or 0)
            if seen.in_rows(where):
                shape = seen.shapes[where][1:]
                placed.append(Placed(where, f"{one.name}.recurrent", "recurrent", shape, weights, one.label))
    return placed


# --------------------------------------------------------------------------------------------------------------------
# As a mapping says


def _as_mapped(after: Mapping[Where, Kind], seen: Pass, module: nn.Module) -> list[Placed]:
    placed: dict[Place, Placed] = {}
    for where, kind in after.items():
        for one in _outputs(where, kind, seen, module):
            if one.place in placed:
                raise NetError(
                    f"{placed[one.place].site!r} and {one.site!r} are the same activity; ask for one of them"
                )
            placed[one.place] = one
    order = {(call.function, call.number): at for at, call in enumerate(seen.recorder.calls)}
    return sorted(placed.values(), key=lambda one: order[one.place.function, one.place.number])


def _outputs(where: Where, kind: Kind, seen: Pass, module: nn.Module) -> list[Placed]:
    if isinstance(where, str):
        name, _, number = where.partition(":")
        results = seen.exits.get(_first_name(module, name), ())
        if number and not (number.isdigit() and int(number) < len(results)):
            raise NetError(f"{where!r}: {name!r} is called {len(results)} times, and calls count from 0")
        chosen = [results[int(number)]] if number else list(results)
        return [_output(where, kind, result, seen) for result in chosen]
    if isinstance(where, type):
        found = []
        for name, child in module.named_modules():
            if name and isinstance(child, where):
                aliases = [n for n, m in module.named_modules(remove_duplicate=False) if m is child]
                results = seen.exits.get(name, ())
                names = aliases if len(aliases) == len(results) else [name] * len(results)
                found += [_output(n, kind, result, seen) for n, result in zip(names, results, strict=True)]
        return found
    calls = [call for call in seen.recorder.calls if call.function is where]
    if not calls:
        raise NetError(f"the network does not call {getattr(where, '__name__', where)}")
    return [_of_call(call, kind, seen) for call in calls]


def _first_name(module: nn.Module, name: str) -> str:
    """The name under which `watching_modules` knows a module that has several."""
    child = module.get_submodule(name)
    return next(str(n) for n, m in module.named_modules() if m is child)


def _output(name: str, kind: Kind, result: object, seen: Pass) -> Placed:
    if not isinstance(result, Held):
        raise NetError(
            f"a site was asked for behind {name!r}, which returns a {type(result).__name__} and not one tensor; put a "
            "rulezoo.Site behind the tensor you mean, or add_sites(model) without a mapping"
        )
    if result.place is None:
        raise NetError(
            f"a site was asked for behind {name!r}, and what it returns is not the result of one function of torch; "
            "put a rulezoo.Site there"
        )
    front = seen.in_front(result)
    after, label = (front[-1].call.weights, front[-1].label) if front else ((), repr(result.place))
    return Placed(result.place, name, kind, tuple(result.tensor.shape[1:]), after, label)


def _of_call(call: Call, kind: Kind, seen: Pass) -> Placed:
    word = getattr(call.function, "__name__", "call")
    name = f"{call.module}.{word}" if call.module else word
    where = Place(call.function, call.number, "out")
    if len(call.made) != 1:
        raise NetError(f"a site was asked for behind {word!r}, which does not return one tensor")
    return Placed(where, name, kind, call.made[0][1:], call.weights, repr(where))
