"""A trained network as a value: what to ask of a network after training, wherever its weights come from.

It knows nothing of stores and files: whoever has a task, a rule and a ``state_dict`` can make one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rulezoo.errors import WeightsError
from rulezoo.inputs import Inputs, prepared
from rulezoo.net import Net, NetError, Tensors
from rulezoo.rule import LearningRule, State
from rulezoo.seeding import initial_network
from rulezoo.task import Data, Task

_STATE = ("params", "buffers")  # the parts of a rule's memory
_NAMED = 3  # names that a message gives at most


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network of one run after training.

    Attributes:
        rule: name of the rule.
        task: name of the task.
        seed: the seed of the run.
        net: the network in evaluation mode, bound to everything that is not trained.
        params: its trainable parameters: name → tensor.
        made_rule: the rule with its options.
        made_task: the task with its options.
        scores: ``validation`` and ``test``, as fractions of 1; empty for an untrained network.
        state: the rule's memory after training; ``None`` where it was not kept.
        precision: floating-point precision in which the run was trained and scored; predictions and activities are computed
            in the same.
    """

    rule: str
    task: str
    seed: int
    net: Net = field(repr=False)
    params: Tensors = field(repr=False)
    made_rule: LearningRule = field(repr=False)
    made_task: Task = field(repr=False)
    scores: Mapping[str, float] = field(default_factory=dict)
    state: State | None = field(default=None, repr=False)
    precision: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Tensor],
        example: Tensor,
        *,
        rule: str,
        task: str,
        seed: int,
        made_rule: LearningRule,
        made_task: Task,
        scores: Mapping[str, float] | None = None,
        state: State | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> TrainedNetwork:
        """A trained network from the weights of the plain model.

        Args:
            state_dict: as of the task's module, with buffers.
            example: two inputs of the network, ``(2, ...)``, on the device to compute on; any values.
            rule: name of the rule.
            task: name of the task.
            seed: the seed of the run.
            made_rule: the rule with its options.
            made_task: the task with its options.
            scores: of the run.
            state: the rule's memory after training, if it is known.
            precision: floating-point precision.

        Raises:
            WeightsError: if the weights are those of another network.
        """
        module = initial_network(made_task, seed)
        load_strictly(module, state_dict, f"task {task!r}")
        net, params = _read(module, example)
        state = None if state is None else _to(state, example.device)
        return cls(rule, task, seed, net, params, made_rule, made_task, dict(scores or {}), state, precision)

    def state_dict(self) -> Tensors:
        """The weights under the names of the plain model, buffers included; they share memory with this network."""
        return self.net.state_dict(self.params)

    def model(self) -> nn.Module:
        """A new plain module with these weights, as the task builds it, in evaluation mode on the CPU."""
        module = initial_network(self.made_task, self.seed)
        module.load_state_dict(self.state_dict(), strict=True)
        return module.eval()

    def activities(self, x: Tensor | Inputs) -> Tensors:
        """The activity at every visit of every site: key, as in ``net.visits`` → ``(examples, *shape)``.

        Args:
            x: inputs as the network takes them, ``(examples, ...)``, for example ``data(root).test.x``.
        """
        parts: dict[str, list[Tensor]] = {key: [] for key in self.net.visits}

        def note(key: str, activity: Tensor) -> Tensor:
            parts[key].append(activity.detach().clone())
            return activity

        self._in_parts(x, lambda part: self.net.run(self.params, part, note))
        return {key: torch.cat(found) for key, found in parts.items()}

    def predict(self, x: Tensor | Inputs) -> Tensor:
        """The rule's output for inputs as the network takes them, ``(examples, ...)``: ``(examples, *out)``.

        Raises:
            WeightsError: if the rule predicts with its memory, and that is not known.
        """
        state = self.state
        if state is None and needs_memory(self.made_rule):
            raise WeightsError(
                f"rule {self.rule!r} predicts with its memory, which an untrained network does not have, and a stored run "
                "only if it was kept; run again with --keep-memory, or use .model() for the network's own output"
            )
        return torch.cat(
            self._in_parts(
                x, lambda part: self.made_rule.predict(self.net, self.params, state or State(), part)
            )
        )

    def untrained(self) -> TrainedNetwork:
        """The network with which the run began: the same task and seed, with initial weights and no memory."""
        net, params = _read(initial_network(self.made_task, self.seed), self.net.example)
        return replace(self, net=net, params=params, scores={}, state=None)

    def data(self, root: Path | None = None, *, download: bool = False) -> Data[Tensor | Inputs]:
        """The task's data on the network's device, with inputs prepared for evaluation.

        Where a task prepares its inputs or reads them from files, ``x`` is no tensor; index it with a slice or with
        indices to get one, as in ``data.test.x[:100]``. `predict` and `activities` take either.

        Args:
            root: folder of data sets.
            download: whether data sets that are missing may be downloaded into it.

        Raises:
            DataMissing: if they are missing.
        """
        data = self.made_task.data(root, download=download)
        return prepared(data, self.made_task, self.net.example.device)

    def _in_parts(self, x: Tensor | Inputs, compute: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What is computed of each part, as large as those that a run is scored in."""
        if not isinstance(x, Tensor | Inputs):
            expected = ", ".join(map(str, ("examples", *self.net.example.shape[1:])))
            raise NetError(f"inputs must be a tensor of shape ({expected}), got a {type(x).__name__}")
        device = self.net.example.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.no_grad(), autocast:
            return [compute(part.to(device)) for part in parts(x, self.made_task.budget.evaluation_batch)]


def parts(x: Tensor | Inputs, most: int) -> Iterator[Tensor]:
    """Inputs in parts of equal size: a network that normalises over the batch needs two rows."""
    number = max(1, -(-len(x) // most))
    if isinstance(x, Tensor):
        yield from x.tensor_split(number)
    else:
        yield from x.chunks(torch.arange(len(x)).tensor_split(number))


def needs_memory(rule: LearningRule) -> bool:
    """Whether a rule's prediction may depend on its memory: it does not leave it to the network."""
    return type(rule).predict is not LearningRule.predict


def check_restorable(net: Net) -> None:
    """See that the ``state_dict`` of the module holds all that training changes.

    Raises:
        WeightsError: if it does not.
    """
    module = net.module
    kept = module.state_dict(keep_vars=True)
    known = {id(t) for t in (*module.parameters(), *module.buffers())}
    if strange := [name for name, value in kept.items() if id(value) not in known]:
        raise WeightsError(
            f"the weights cannot be kept: {strange[0]!r} in the network's state_dict is neither a parameter nor a buffer; "
            "register it with register_buffer"
        )
    if lost := [name for name in net.statistics if name not in kept]:
        raise WeightsError(
            f"the weights cannot be kept: the buffer {lost[0]!r} changes in training and is not in the network's state_dict; "
            "register it with persistent=True"
        )


def state_tensors(state: State) -> Tensors:
    """A rule's memory under one name for each tensor: ``params.<name>`` and ``buffers.<name>``."""
    return {f"{part}.{name}": tensor for part in _STATE for name, tensor in getattr(state, part).items()}


def state_of(tensors: Mapping[str, Tensor]) -> State:
    """The memory that `state_tensors` gave."""
    parts: dict[str, Tensors] = {part: {} for part in _STATE}
    for name, tensor in tensors.items():
        part, _, own = name.partition(".")
        parts[part][own] = tensor
    return State(**parts)


def load_strictly(module: nn.Module, state_dict: Mapping[str, Tensor], whose: str) -> None:
    """Load weights into a module whose names, shapes and types are theirs.

    Args:
        module: the module.
        state_dict: the weights.
        whose: what the module belongs to, for the message.

    Raises:
        WeightsError: if they differ; the message says in what.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    if problem := misfit(expected, state_dict):
        raise WeightsError(f"these are not the weights of the network of {whose}: {problem}")
    module.load_state_dict(dict(state_dict), strict=True)


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """How weights differ from those of a network in names, shapes and types, in words; ``None`` where they do not."""
    said = []
    if missing := [name for name in expected if name not in found]:
        said.append(f"{_names(missing)} missing")
    if extra := [name for name in found if name not in expected]:
        said.append(f"{_names(extra)} unknown to the network")
    for name, tensor in expected.items():
        if name in found and (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            said.append(f"{name!r} is {_kind(found[name])}, expected {_kind(tensor)}")
            break
    return "; ".join(said) or None


def _names(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_NAMED]))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _read(module: nn.Module, example: Tensor) -> tuple[Net, Tensors]:
    """A module as a network in evaluation mode on the example's device, and its parameters."""
    net = Net(module.to(example.device), example)
    values = net.values_of(net.module)
    return net.bind(values.fixed, values.statistics, training=False), values.params


def _to(state: State, device: torch.device) -> State:
    params = {name: value.to(device) for name, value in state.params.items()}
    return State(params, {name: value.to(device) for name, value in state.buffers.items()})
