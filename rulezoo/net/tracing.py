"""One forward pass, watched: which calls were made, on what, and what autograd knows of how they hang together.

Two sources are used for what each knows best. The calls of torch's functions tell which weight a layer has and which
tensors hold activity (`Recorder`); autograd's graph tells what depends on what, whoever computed it (`Graph`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rulezoo.net import dropout
from rulezoo.net.calls import COMPOSITE, ELEMENTWISE, MIXING, MULTIPLYING, Function, Place, moved_statistics

Node = Any  # a node of autograd's graph; torch has no public type for it


class Held(NamedTuple):
    """A tensor as it was at one moment of a pass: what is written over later hangs elsewhere.

    Attributes:
        tensor: the tensor.
        node: where it hung in autograd's graph.
        place: the call that made it, where it was its only result and nothing has been written over it since.
        at: its position among arguments; ``-1`` = inside a sequence or a keyword.
    """

    tensor: Tensor
    node: Node | None
    place: Place | None
    at: int = -1


@dataclass(frozen=True)
class Call:
    """One call of a function of torch in a forward pass.

    Attributes:
        function: what was called.
        number: how many calls of it came before.
        arguments: its tensor arguments.
        nodes: where its results hang in autograd's graph, right after the call.
        made: shapes of its results.
        module: name of the innermost module at work.
        activity: position of the argument that holds activity, if one argument does and another is a weight.
        weights: names of the parameters and buffers that its weight is made of; empty when it has none.
        plain: whether the weight is a parameter or buffer itself.
        parameters: names of all parameters and buffers in its arguments, a bias among them.
        sources: where all of its arguments that are not made of weights alone come from.
        in_place: whether its result is its first argument, written over.
        enclosed: whether it is inside of an autograd function, which pulls gradients back in its own way.
        rows: examples in the pass.
    """

    function: Function
    number: int
    arguments: tuple[Held, ...]
    nodes: tuple[Node, ...]
    made: tuple[tuple[int, ...], ...]
    module: str
    activity: int | None = None
    weights: tuple[str, ...] = ()
    plain: bool = False
    parameters: tuple[str, ...] = ()
    sources: tuple[Node, ...] = ()
    in_place: bool = False
    enclosed: bool = False
    rows: int = 0

    @property
    def input(self) -> Held | None:
        """The activity on its way in."""
        return next((one for one in self.arguments if one.at == self.activity), None)

    @property
    def start(self) -> Node | None:
        """Where its activity comes from."""
        return None if self.input is None else self.input.node


class Recorder(TorchFunctionMode):
    """Records every call whose result is a tensor.

    Args:
        named: name → parameter or buffer.
        x: the network's input.
        module: tells the name of the innermost module at work.
    """

    def __init__(self, named: Mapping[str, Tensor], x: Tensor, module: Callable[[], str]) -> None:
        super().__init__()
        self.x = x
        self.calls: list[Call] = []
        self.drops: list[tuple[int, ...]] = []  # shape of the mask of every call that drops out
        self.moved: set[str] = set()  # names of running statistics that a call moved
        self.transformed = False  # whether a call was inside of a transform of torch.func
        self.opened: set[Function] = set()  # composite functions whose inner calls are recorded
        self.counts: Counter[Function] = Counter()
        # id of a tensor → the call that made it, where it is its only result, and the tensor's version right after it
        self.producer: dict[int, tuple[Place, int]] = {}
        self._named = {id(t): name for name, t in named.items()}
        self._roots: dict[int, frozenset[str]] = {i: frozenset({n}) for i, n in self._named.items()}
        self._activity = {id(x)}
        self._read: set[int] = set()  # ids of the arguments of all calls
        self._weights: list[Tensor] = list(named.values())  # and what is made of them alone
        self._inside: dict[
            int, int
        ] = {}  # id of what a call inside of an autograd function made → position of the call
        self._alive: list[Any] = [x]  # or the id of a tensor could be given to another
        self._module = module

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        self.transformed |= torch._C._functorch.peek_interpreter_stack() is not None
        if func in COMPOSITE:
            self.opened.add(func)
            with self:
                return COMPOSITE[func](*args, **kwargs)
        if dropout.drops(func, args, kwargs):
            self.drops.append(dropout.mask_shape(func, args, kwargs))
        given = tuple(self.held(t, at) for at, t in _tensors(args, kwargs))
        self._read |= {id(one.tensor) for one in given}
        self.moved |= {
            self._named[id(t)] for t in moved_statistics(func, args, kwargs) if id(t) in self._named
        }
        number = self.counts[func]
        self.counts[func] += 1
        result = self.carry_out(func, args, kwargs, number, given)
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if made:
            self._note(func, number, given, result, made)
        return result

    def unseen(self, output: Tensor) -> set[str]:
        """Names of what the output depends on by a function that was not seen, a kernel of someone's own, say."""
        nodes = set(nodes_behind(output.grad_fn))
        leaves = {id(node.variable) for node in nodes if hasattr(node, "variable")}
        return {
            name
            for tensor in self._weights
            if id(tensor) not in self._read and (id(tensor) in leaves or tensor.grad_fn in nodes)
            for name in self._roots[id(tensor)]
        }

    def carry_out(
        self,
        func: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        number: int,
        given: tuple[Held, ...],
    ) -> Any:  # noqa: ANN401
        """Make the call; here as it is."""
        return func(*args, **kwargs)

    def held(self, tensor: Tensor, at: int = -1) -> Held:
        """A tensor as it is now."""
        number = self._inside.pop(id(tensor), None) if tensor.grad_fn is not None else None
        if number is not None:
            self.calls[number] = replace(self.calls[number], nodes=(tensor.grad_fn,), enclosed=True)
        place, version = self.producer.get(id(tensor), (None, 0))
        return Held(tensor, tensor.grad_fn, place if version == tensor._version else None, at)

    def _note(
        self,
        func: Function,
        number: int,
        given: tuple[Held, ...],
        result: object,
        made: list[Tensor],
    ) -> None:
        roots, active = self._sides(func, given)
        self.calls.append(self._call(func, number, given, made, result))
        self._alive.append((given, result))
        if isinstance(result, Tensor) and not torch.is_grad_enabled():
            self._inside[id(result)] = len(self.calls) - 1
        for tensor in made:
            if id(tensor) in self._named:
                continue  # e.g. a buffer that is written to
            if tensor is result and torch.is_grad_enabled():
                self.producer[id(tensor)] = Place(func, number, "out"), tensor._version
            if active:
                self._activity.add(id(tensor))
            elif roots:
                self._roots[id(tensor)] = frozenset(self._names(roots))
                self._weights.append(tensor)

    def _sides(self, func: Function, given: tuple[Held, ...]) -> tuple[list[Tensor], list[int]]:
        """What a call is given that is made of parameters alone, and the positions of what holds activity."""
        roots = [t for t, *_ in given if id(t) not in self._activity and self._roots.get(id(t))]
        active = [one.at for one in given if id(one.tensor) in self._activity]
        if roots and not active and func in MIXING:  # e.g. a state of zeros at the first step
            active = [one.at for one in given if self._roots.get(id(one.tensor)) is None]
        return roots, active

    def _call(
        self,
        func: Function,
        number: int,
        given: tuple[Held, ...],
        made: Sequence[Tensor],
        result: object = None,
    ) -> Call:
        roots, active = self._sides(func, given)
        nodes = tuple(t.grad_fn for t in made if t.grad_fn is not None)
        call = Call(
            func, number, given, nodes, tuple(tuple(t.shape) for t in made), self._module(),
            sources=tuple(one.node for one in given if one.node is not None and not self._is_weight(one.tensor)),
            in_place=bool(given) and given[0].tensor is result, rows=len(self.x),
        )  # fmt: skip
        if not roots or not active or active[0] < 0:
            return call
        if func in ELEMENTWISE and not (func in MULTIPLYING and _spreads(given, active[0], made)):
            return call
        matrices = [t for t in roots if t.ndim > 1] or (roots if func in MIXING | MULTIPLYING else [])
        return replace(
            call,
            activity=active[0],
            weights=self._names(matrices),
            plain=len(matrices) == 1 and id(matrices[0]) in self._named,
            parameters=self._names(roots),
        )

    def _is_weight(self, tensor: Tensor) -> bool:
        return id(tensor) not in self._activity and bool(self._roots.get(id(tensor)))

    def _names(self, tensors: Sequence[Tensor]) -> tuple[str, ...]:
        return tuple(sorted({name for t in tensors for name in self._roots[id(t)]}))


def _spreads(given: Sequence[Held], at: int, made: Sequence[Tensor]) -> bool:
    """Whether a product makes several numbers of one of activity: it is the first half of a weighted sum."""
    x = next(one.tensor for one in given if one.at == at)
    repeated = any(size > 1 and stride == 0 for size, stride in zip(x.shape, x.stride(), strict=True))
    return repeated or any(t.numel() > x.numel() for t in made)


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[int, Tensor], ...]:
    found = [(at, arg) for at, arg in enumerate(args) if isinstance(arg, Tensor)]
    if isinstance(kwargs.get("input"), Tensor):
        found.append((0, kwargs["input"]))
    inner = [a for a in args if not isinstance(a, Tensor)] + [v for k, v in kwargs.items() if k != "input"]
    return (*found, *((-1, t) for t in tree_leaves(inner) if isinstance(t, Tensor)))


class Graph:
    """Autograd's graph of a forward pass, in which some nodes have labels.

    Args:
        labels: node → what it stands for.
    """

    def __init__(self, labels: Mapping[Node, str]) -> None:
        self.labels = dict(labels)

    def passes_by(self, start: Node | None, label: str, end: Node) -> bool:
        """Whether a way back from one node to another meets no node of that label."""
        seen, stack = set(), [start]
        while stack:
            node = stack.pop()
            if node is None or node in seen or self.labels.get(node) == label:
                continue
            if node is end:
                return True
            seen.add(node)
            stack.extend(following for following, _ in node.next_functions)
        return False

    def behind(
        self, start: Node | tuple[Node, ...] | None, through: Callable[[str], bool] = lambda label: False
    ) -> list[str]:
        """The labels that are met first on the way back from a node, in no order; the node's own counts.

        Args:
            start: where to begin; several nodes in a tuple.
            through: labels to pass by.
        """
        found, seen, stack = set(), set(), list(start) if isinstance(start, tuple) else [start]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            label = self.labels.get(node)
            if label is not None and not through(label):
                found.add(label)
                continue
            stack.extend(following for following, _ in node.next_functions)
        return sorted(found)


def nodes_behind(*start: Node | None) -> Iterator[Node]:
    """Nodes of autograd's graph, and all that they depend on."""
    seen, stack = set(), list(start)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


def leaves_behind(*start: Node | None) -> Iterator[Tensor]:
    """The leaves of autograd's graph that nodes depend on."""
    return (node.variable for node in nodes_behind(*start) if hasattr(node, "variable"))


@contextmanager
def watching_modules(
    module: nn.Module, on_exit: Callable[[str, int, object], None] = lambda name, number, result: None
) -> Iterator[Callable[[], str]]:
    """Give a function that tells the name of the innermost module at work; hear of every module that returns.

    Args:
        module: the network.
        on_exit: called with a module's name, the number of its call, and what it returned.
    """
    inside: list[str] = []
    numbers: Counter[str] = Counter()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    def leave(name: str) -> Callable[..., None]:
        def left(_module: nn.Module, _args: object, result: object) -> None:
            inside.pop()
            on_exit(name, numbers[name], result)
            numbers[name] += 1

        return left

    handles: list[Any] = []
    for name, child in module.named_modules():
        handles += [
            child.register_forward_pre_hook(enter(name)),
            child.register_forward_hook(leave(name)),
        ]
    try:
        yield lambda: inside[-1] if inside else ""
    finally:
        for handle in handles:
            handle.remove()
