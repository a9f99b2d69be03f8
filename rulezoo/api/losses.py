"""Losses as people write them, made into losses per example, which is what learning rules need."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo.api.errors import CallError, name_of
from rulezoo.comparison.contract import loss_problems
from rulezoo.task import Task

_WEIGHTED_MEAN = (
    nn.CrossEntropyLoss,
    nn.NLLLoss,
    F.cross_entropy,
    F.nll_loss,
)  # with a weight for each class
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative rounding of a mean; coarser types: _COARSE
_COARSE = 2e-2
_SELDOM = 64  # steps between two looks at targets on an accelerator
_PER_EXAMPLE = (
    "give a function of outputs and targets that returns one number for each example, of shape (batch,)"
)


class ExampleLoss:
    """A loss as a function of outputs and targets that returns one number for each example, ``(batch,)``.

    Losses of torch with a ``reduction`` are called with ``"none"``; what they return for the parts of one example (its
    pixels or time steps, say) is reduced as they would reduce it. Any other callable is taken as it is.

    Args:
        loss: a function such as ``F.cross_entropy``, with fixed arguments as ``functools.partial``; a module such as
            ``nn.MSELoss()``; or any callable that returns a loss for each example.

    Raises:
        CallError: if the mean over a batch of examples is not what the loss returns.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        if not callable(loss):
            raise CallError(f"loss must be a loss function or module, got {loss!r}; {_PER_EXAMPLE}")
        self.original, self.name = loss, name_of(loss)
        self.reduction = _setting(loss, "reduction")
        self._ignored = _setting(loss, "ignore_index") if self.reduction == "mean" else None
        self._refuse()
        self._each = _unreduced(loss) if isinstance(self.reduction, str) else loss

    def _refuse(self) -> None:
        if isinstance(self.original, nn.Module) and any(p.requires_grad for p in self.original.parameters()):
            raise CallError(
                f"{self.name} has trainable parameters, and learning rules train those of the model only; move them into "
                "the model, or freeze them (requires_grad_(False))"
            )
        if isinstance(self.reduction, str) and self.reduction not in ("none", "mean", "batchmean"):
            raise CallError(
                f"{self.name} has reduction={self.reduction!r}, and rules descend the mean over the examples of a batch; "
                "use reduction='mean', and multiply the learning rate instead"
            )
        if self.reduction == "mean" and _is_weighted(self.original):
            raise CallError(
                f"{self.name} with class weights divides by the sum of the weights in a batch, which is no mean over "
                "examples; use reduction='none' for the mean of the weighted losses"
            )

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each example, ``(batch,)``."""
        values = self._each(output, target)
        if not isinstance(self.reduction, str) or values.ndim < 2:
            return values
        return values.flatten(1).sum(1) if self.reduction == "batchmean" else values.flatten(1).mean(1)

    def check(self, task: Task, output: Tensor, target: Tensor) -> None:
        """See that the loss of these outputs is one number for each example, whose mean is what the loss means.

        Args:
            task: one whose loss this is.
            output: ``(batch, *out)``.
            target: ``(batch, ...)``.

        Raises:
            CallError: if it is not.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warning of broadcasting, which is an error here
            if isinstance(self.reduction, str):
                self._check_shape(output, target)
            if problem := next(loss_problems(task, output, target), None):
                raise CallError(f"{self.name} cannot be used: {problem}")
        self._check_mean(output, target)

    def _check_shape(self, output: Tensor, target: Tensor) -> None:
        try:
            shape = self._each(output, target).shape
        except Exception:  # noqa: BLE001  which `loss_problems` puts into words
            return
        if len(shape) > 1 and shape not in (output.shape, target.shape):
            raise CallError(
                f"{self.name} returns shape {tuple(shape)} for outputs of shape {tuple(output.shape)} and targets of shape "
                f"{tuple(target.shape)}, which broadcast against each other; give them the same shape, as with "
                "output.squeeze(-1)"
            )

    def _check_mean(self, output: Tensor, target: Tensor) -> None:
        if self.reduction in (None, "none"):
            return
        with torch.no_grad():
            whole, mean = self.original(output, target), self(output, target).mean()
        close = _CLOSE.get(whole.dtype, _COARSE)
        if not torch.allclose(whole, mean, rtol=close, atol=close, equal_nan=True):
            raise CallError(
                f"{self.name} returns {float(whole):.6g} for the first batch, and the mean of its losses of the examples "
                f"is {float(mean):.6g}; {_PER_EXAMPLE}"
            )

    def check_targets(self, target: Tensor, t: int) -> None:
        """See that no target is one that the loss ignores, which changes what it divides by.

        Args:
            target: ``(batch, ...)``; on an accelerator, which would have to be waited for, looked at now and then only.
            t: the number of the step.

        Raises:
            CallError: if one is.
        """
        if (
            self._ignored is None
            or target.is_floating_point()
            or (target.device.type != "cpu" and t % _SELDOM)
        ):
            return
        if number := int((target == self._ignored).sum()):
            raise CallError(
                f"{number} of {target.numel()} targets are {self._ignored}, which {self.name} ignores: it divides by the "
                "number of the others, which is no mean over examples; use reduction='none', for which an ignored target "
                "is a loss of 0"
            )


def _setting(loss: Any, name: str) -> Any:  # noqa: ANN401
    """A module's attribute, or the default of a function's parameter; ``None`` where there is none."""
    if isinstance(loss, nn.Module):
        return getattr(loss, name, None)
    try:
        parameter = inspect.signature(loss).parameters.get(name)
    except (TypeError, ValueError):  # some callables have no signature
        return None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _is_weighted(loss: Any) -> bool:  # noqa: ANN401
    if isinstance(loss, functools.partial):
        return loss.func in _WEIGHTED_MEAN and loss.keywords.get("weight") is not None
    return isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and loss.weight is not None


def _unreduced(loss: Any) -> Callable[[Tensor, Tensor], Tensor]:  # noqa: ANN401
    if not isinstance(loss, nn.Module):
        return functools.partial(loss, reduction="none")
    made = copy.copy(loss)
    made.__dict__["reduction"] = "none"
    return made
