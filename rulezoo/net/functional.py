"""A module called with tensors and modes that are handed over, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rulezoo.net.errors import NetError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Modes:
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


def aliases_of(module: nn.Module) -> dict[str, list[str]]:
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


def refuse_unusable(module: nn.Module) -> None:
    """See that a module can be called with other parameters, and watched.

    Raises:
        NetError: if it cannot.
    """
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
