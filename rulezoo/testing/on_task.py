"""The network of a real task, as the checks of a rule need it, with examples of the task's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from rulezoo.discovery.registry import discover
from rulezoo.inputs import Inputs, prepared
from rulezoo.net import Net, NetError, Tensors
from rulezoo.rule import Batch
from rulezoo.seeding import number
from rulezoo.task import Data, DataMissing, Task
from rulezoo.testing.expect import NotExamined


@dataclass(frozen=True, eq=False)
class TaskNet:
    """A task's network with everything that a step needs; see `rulezoo.testing.networks.Network`.

    Where the network has dropout, or statistics that a training pass moves, it is seen as it is evaluated: then a pass
    depends on its arguments alone.

    Attributes:
        name: by which reports call it: the task's name.
        task: the task.
        root: folder of data sets.
        dtype: in which it computes.
        device: where it is.
        memo: what several checks share, such as scores after a training.
    """

    name: str
    task: Task
    root: Path | None = None
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    memo: dict[object, object] = field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> Data[Tensor | Inputs]:
        """The task's data, as its network sees them."""
        try:
            return prepared(self.task.data(self.root), self.task, torch.device("cpu"))
        except DataMissing as missing:
            raise NotExamined(f"the data of task {self.name!r} are not there: {missing}") from missing

    @cached_property
    def net(self) -> Net:
        """The network of seed 0."""
        module, example = self._module(0), self._inputs(self.data.train.x[:2])
        try:
            net = Net(module, example)
        except NetError:
            raise
        except Exception as error:
            raise NotExamined(
                f"the network of task {self.name!r} does not compute in {str(self.dtype).removeprefix('torch.')}, in "
                f"which rules are checked ({type(error).__name__}: {error}); make new tensors like those that are there: "
                "x.new_zeros(…)"
            ) from error
        values = net.values_of(module)
        moves = net.drops or bool(values.statistics)
        return net.bind(values.fixed, values.statistics, training=not moves)

    def params(self, seed: int = 0) -> Tensors:
        """Initial parameters, as a training with this seed has them."""
        drawn = dict(self._module(seed).named_parameters())
        return {name: drawn[name].detach().clone() for name in self.net.shapes}

    def batch(self, size: int = 12, seed: int = 0) -> Batch:
        """``size`` examples of the training data, the same for the same seed."""
        x, y = self.data.train
        which = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:size]
        return Batch(self._inputs(x[which]), self._inputs(y[which]))

    def to(self, dtype: torch.dtype, device: str = "cpu") -> TaskNet:
        """The same network in another type, or elsewhere."""
        other = TaskNet(self.name, self.task, self.root, dtype, device)
        other.__dict__["data"] = self.data  # read once
        return other

    def _inputs(self, tensor: Tensor) -> Tensor:
        """On the device, and in the network's type unless they are integers."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def _module(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number(seed, "init"))
            return self.task.network().to(self.device, self.dtype)


def task_net(
    name: str,
    options: Mapping[str, str] | None = None,
    *,
    root: Path | None = None,
    files: Sequence[Path] = (),
) -> TaskNet:
    """The network of a task, to check rules on; data are read when a check needs them.

    Args:
        name: of the task.
        options: as on the command line; the rest keep their defaults.
        root: folder of data sets.
        files: single-file plugins, in addition to those of ``$RULEZOO_PLUGINS``.

    Raises:
        UserError: if there is no such task or option.
    """
    return TaskNet(name, discover(files).make_task(name, options or {}), root)
