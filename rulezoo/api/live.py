"""A model that is trained in place, as learning rules see it: read once for each mode, its tensors taken as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rulezoo.api.errors import CallError
from rulezoo.errors import UserError
from rulezoo.net import Net, Tensors, Values
from rulezoo.net.functional import refuse_unusable
from rulezoo.net.sites import with_sites


class LiveModel:
    """A model, and how it is to be understood in the modes (`train`, `eval`) that its parts have been in.

    Args:
        module: the model.

    Raises:
        ValueError: if it is no module, or one that cannot be called with other parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Module):
            raise CallError(f"model must be a torch.nn.Module, got a {type(module).__name__}")
        refuse_unusable(module)
        self.module = module
        self._nets: dict[
            tuple[bool, ...], Net
        ] = {}  # training flags of all submodules → the network in this mode

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(iter(self.module.parameters()), torch.empty(0)).device

    def tensors(self) -> Tensors:
        """All parameters and buffers by name, as they are now."""
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def values(self, net: Net) -> Values:
        """What it holds now, in the parts that rules know; no copies."""
        values = Values({}, {}, {})
        for name, tensor in self.tensors().items():
            part = (
                values.params
                if name in net.shapes
                else (values.statistics if name in net.statistics else values.fixed)
            )
            part[name] = tensor.detach()
        return values

    def keep_statistics(self, moved: Tensors) -> None:
        """Put into its buffers what a pass made of them."""
        buffers = dict(self.module.named_buffers())
        with torch.no_grad():
            for name, value in moved.items():
                buffers[name].copy_(value)

    def forget(self) -> None:
        """Read the network again when it is asked for."""
        self._nets = {}

    def read(self, example: Tensor) -> Net:
        """The network in the mode that the model is in.

        Args:
            example: inputs, ``(batch, ...)``; of later calls, those of the first one.
        """
        flags = tuple(child.training for child in self.module.modules())
        if flags not in self._nets:
            with with_sites(self.module), self._calling(example):
                self._nets[flags] = Net(self.module, example)
        return self._nets[flags]

    @contextmanager
    def _calling(self, x: Tensor) -> Iterator[None]:
        """What the model raises is put into a sentence."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            types = ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in self.module.parameters()}))
            raise CallError(
                f"the {type(self.module).__name__} raised {type(error).__name__} for inputs of shape {tuple(x.shape)}, "
                f"{str(x.dtype).removeprefix('torch.')} (its parameters: {types}): {error}"
            ) from error

    def now(self, first: Net) -> Net:
        """The network in the mode that the model is in, which must be the one that was read first in all else.

        Raises:
            CallError: if it is not.
        """
        shapes = {name: tuple(p.shape) for name, p in self.module.named_parameters() if p.requires_grad}
        if shapes != first.shapes:
            name = min(shapes.items() ^ first.shapes.items())[0]
            raise CallError(
                f"what is trainable of the model has changed since the first batch ({name!r}); make a new Learner, whose "
                "memory fits it"
            )
        if first.example.device != self.device:
            raise CallError(
                f"the model was moved from {first.example.device} to {self.device} after the first batch, and the rule's "
                "memory was not; move the model before"
            )
        net = self.read(first.example)
        if net.visits != first.visits:
            raise CallError(
                "the model has other sites in the mode that it is in now than at the first batch (see model.train() and "
                "model.eval()); make a new Learner, whose memory fits them"
            )
        return net
