"""The layers of a network: its operations with a weight, in the order of the forward pass, seen and not declared.

A **layer** is one weight (a matrix, a kernel, an embedding) with every call that uses it. A **block** is what lies
between two cuts. The **depth** of a block is the number of layers in series in it: with sites of kind ``post`` between
all layers it is 1, and no error can travel from layer to layer within a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rulezoo.net.calls import CONVOLUTIONS, LINEAR, OPAQUE, PRODUCTS
from rulezoo.net.sites import Visit
from rulezoo.net.tracing import Call, Graph, Node, leaves_behind

Operation = Literal["linear", "convolution", "embedding", "product", "recurrent", "other"]


@dataclass(frozen=True)
class Use:
    """One use of a layer's weight in a forward pass.

    Attributes:
        fed_by: visits of sites that feed it with no layer in between.
        pre: visits of the ``pre`` sites right behind it.
        post: visits of the ``post`` sites right behind it.
        depth: layers in series within its block, up to this one, where every ``post`` site is cut.
        passes_error: whether something trainable lies in front of it, so that an error has to travel on through it.
    """

    fed_by: tuple[str, ...]
    pre: tuple[str, ...]
    post: tuple[str, ...]
    depth: int
    passes_error: bool


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    Attributes:
        name: of the module that first uses it.
        operation: ``linear`` (also a product with a matrix), ``convolution``, ``embedding``, ``recurrent`` (a whole
            recurrent layer of torch, inside which nothing is seen), or ``other``.
        weights: names of the parameters (or buffers) that its weight is made of: one, but for weight normalisation and
            its like.
        plain: whether its weight is that one, used as it is in every use.
        parameters: the trainable parameters in its calls: those of its weight, and its bias.
        uses: every use of the weight in a forward pass.
    """

    name: str
    operation: Operation
    weights: tuple[str, ...]
    plain: bool
    parameters: tuple[str, ...]
    uses: tuple[Use, ...]

    @property
    def fed_by(self) -> tuple[str, ...]:
        """The visits of sites that feed it, in the order of its uses."""
        return tuple(dict.fromkeys(key for use in self.uses for key in use.fed_by))

    @property
    def pre(self) -> tuple[str, ...]:
        """The visits of the ``pre`` sites right behind it."""
        return tuple(dict.fromkeys(key for use in self.uses for key in use.pre))

    @property
    def post(self) -> tuple[str, ...]:
        """The visits of the ``post`` sites right behind it; none for a read-out."""
        return tuple(dict.fromkeys(key for use in self.uses for key in use.post))

    @property
    def passes_error(self) -> bool:
        """Whether an error has to travel on through one of its uses."""
        return any(use.passes_error for use in self.uses)


def operation_of(call: Call) -> Operation | None:
    """What kind of layer a call is; ``None`` when no weight mixes units in it."""
    if call.function in OPAQUE:
        return "recurrent"
    if not call.weights or call.activity is None:
        return None
    if call.enclosed:
        return "other"
    if call.function in (F.embedding, F.embedding_bag):
        return "embedding"
    if call.function in CONVOLUTIONS:
        return "convolution"
    if call.function in LINEAR or (call.function in PRODUCTS and _with_matrix(call)):
        return "linear"
    return "other"


def in_series(call: Call) -> int:
    """How many times an error passes weights within one call: 1, but for a recurrent layer of torch each step of each layer.

    Counted from its input ``(batch, time, features)``, in either order, and its two matrices for each layer.
    """
    if call.function not in OPAQUE or call.input is None or call.rows == 0:
        return 1
    steps = call.input.tensor.shape[:-1].numel() // call.rows
    return max(1, steps) * max(1, len(call.weights) // 2)


def _with_matrix(call: Call) -> bool:
    """Whether rows of activity stand in front of a matrix."""
    if len(call.arguments) != 2:
        return False
    x, matrix = call.arguments
    if call.function is Tensor.__rmatmul__:
        x, matrix = matrix, x
    return call.activity == x.at and matrix.tensor.ndim == 2 and x.tensor.ndim > 1


@dataclass(frozen=True)
class LayerCall:
    """A call that is a layer, in a recorded pass, with a label that tells it from the others."""

    label: str
    operation: Operation
    call: Call

    @property
    def name(self) -> str:
        """The name of its weight, without the word "weight"."""
        whole = self.operation == "recurrent" or not self.call.weights
        weight = self.call.module if whole else self.call.weights[0]
        owner, _, _ = weight.partition(".parametrizations.")
        return re.sub(r"(?<=.)[._]weight(_(g|v|orig|mask))?$", "", owner)


def layer_calls(calls: Sequence[Call]) -> list[LayerCall]:
    """The calls that are layers, in their order."""
    found = [(kind, call) for call in calls if (kind := operation_of(call)) is not None]
    return [LayerCall(f"layer {number}", kind, call) for number, (kind, call) in enumerate(found)]


def depths(calls: Sequence[LayerCall], graph: Graph) -> dict[str, int]:
    """Label of a layer → layers in series up to it; where the graph has sites as labels, up to it in its block."""
    depth: dict[str, int] = {}
    for one in calls:
        before = graph.behind(one.call.sources)
        depth[one.label] = in_series(one.call) + max((depth.get(label, 0) for label in before), default=0)
    return depth


def read_layers(
    calls: Sequence[LayerCall],
    graph: Graph,
    visits: Mapping[str, Visit],
    at: Mapping[str, Node | None],
    named: Mapping[str, Tensor],
    trainable: frozenset[str],
) -> tuple[Layer, ...]:
    """The layers of a traced network.

    Args:
        calls: the calls that are layers.
        graph: with the outputs of layers and the visits of sites as labels.
        visits: of sites.
        at: key of a visit → where its activity comes from.
        named: the parameters and buffers that the pass was made with.
        trainable: which of them are trained.
    """
    labels = [one.label for one in calls]
    post = {key: v for key, v in visits.items() if v.kind == "post"}
    behind = {
        kind: _right_behind(
            graph, {k: at[k] for k, v in visits.items() if v.kind == kind}, labels, post, kind
        )
        for kind in ("pre", "post")
    }
    depth: dict[str, int] = {}
    groups: dict[tuple[str, ...], list[tuple[LayerCall, Use]]] = {}
    names = {id(t): n for n, t in named.items() if n in trainable}
    for one in calls:
        start = one.call.sources
        before = graph.behind(start, lambda label: label not in labels and label not in post)
        depth[one.label] = in_series(one.call) + max((depth.get(label, 0) for label in before), default=0)
        use = Use(
            fed_by=tuple(label for label in graph.behind(start, lambda _: False) if label in visits),
            pre=tuple(key for key in visits if one.label in behind["pre"].get(key, ())),
            post=tuple(key for key in visits if one.label in behind["post"].get(key, ())),
            depth=depth[one.label],
            # Within a recurrent layer of torch an error travels from step to step.
            passes_error=one.operation == "recurrent"
            or any(id(leaf) in names for leaf in leaves_behind(*start)),
        )
        groups.setdefault(one.call.weights, []).append((one, use))
    return tuple(_layer(weights, members, trainable) for weights, members in groups.items())


def _right_behind(
    graph: Graph,
    at: Mapping[str, Node | None],
    labels: Sequence[str],
    post: Mapping[str, Visit],
    kind: str,
) -> dict[str, list[str]]:
    """Visit → the layers in front of it, with no layer and no site of that kind (or ``post``) in between."""

    def by(label: str) -> bool:
        return label not in labels and label not in post and (label not in at or kind == "post")

    return {key: [label for label in graph.behind(node, by) if label in labels] for key, node in at.items()}


def _layer(
    weights: tuple[str, ...], members: Sequence[tuple[LayerCall, Use]], trainable: frozenset[str]
) -> Layer:
    first = members[0][0]
    used = dict.fromkeys(name for one, _ in members for name in one.call.parameters)
    return Layer(
        name=first.name,
        operation=first.operation if len({one.operation for one, _ in members}) == 1 else "other",
        weights=weights,
        plain=all(one.call.plain for one, _ in members),
        parameters=tuple(name for name in used if name in trainable),
        uses=tuple(use for _, use in members),
    )
