"""The optimizer of a `rulezoo.Learner`: one of the user's, or made here, and what a rule adds to its steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rulezoo.api.errors import CallError, name_of
from rulezoo.net import Tensors
from rulezoo.task import SHORT_OPTIMIZERS
from rulezoo.training import optimizers
from rulezoo.training.networks import OWN, add_updates, as_gradient, shrink
from rulezoo.training.rule_output import check_rates
from rulezoo.training.torch_classes import near

MakesOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

_UNSUITED = ("LBFGS", "SparseAdam")
_NOT_SETTINGS = ("params", "param_names")  # of a group: what it holds, not how it is trained


def made(
    given: Optimizer | MakesOptimizer | str,
    options: Mapping[str, Any],
    model: nn.Module,
) -> Optimizer:
    """The optimizer over the trainable parameters of a model.

    Args:
        given: an optimizer, which is checked; a class of optimizers or any function that makes one of parameters; or a
            name as in `rulezoo.Budget`.
        options: for a class or a name, as its constructor takes them.
        model: the model.

    Raises:
        CallError: if it cannot be made, or is over other parameters.
    """
    if isinstance(given, Optimizer):
        if options:
            raise CallError(
                f"optimizer_options={dict(options)!r} are those of an optimizer that is yet to be made; set them where the "
                f"{type(given).__name__} is made, or give its class"
            )
        optimizer = given
    else:
        optimizer = _new(given, options, [p for p in model.parameters() if p.requires_grad])
    if (name := type(optimizer).__name__) in _UNSUITED:
        raise CallError(f"{name} cannot be used, because {optimizers.REFUSED[name]}; use SGD or AdamW, say")
    _check_parameters(optimizer, model)
    return optimizer


def _new(
    given: MakesOptimizer | str, options: Mapping[str, Any], params: Sequence[nn.Parameter]
) -> Optimizer:
    make, settings = _named(given) if isinstance(given, str) else (given, {})
    if not callable(make):
        raise CallError(
            f"optimizer must be an optimizer of torch.optim, its class or its name, got {given!r}"
        )
    word = name_of(make)
    if not params:
        raise CallError("the model has nothing to train: no parameter has requires_grad=True")
    try:
        optimizer = make(params, **{**settings, **options})
    except Exception as error:
        raise CallError(f"torch refuses {word} with {dict(options)!r}: {error}") from error
    if not isinstance(optimizer, Optimizer):
        raise CallError(
            f"optimizer {word} made a {type(optimizer).__name__}; expected a torch.optim.Optimizer"
        )
    return optimizer


def _named(name: str) -> tuple[MakesOptimizer, dict[str, Any]]:
    found = optimizers.by_name(name)
    if found is None:
        known = [*SHORT_OPTIMIZERS, *optimizers.names()]
        why = f", because {optimizers.REFUSED[name]}" if name in optimizers.REFUSED else near(name, known)
        raise CallError(f"optimizer {name!r} cannot be used{why}; expected one of {', '.join(known)}")
    return found


def _check_parameters(optimizer: Optimizer, model: nn.Module) -> None:
    """See that an optimizer is over the model's parameters, all that are trainable and no others."""
    names = {id(p): name for name, p in model.named_parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = [p for p in held if id(p) not in names]
    kind = type(optimizer).__name__
    if foreign:
        raise CallError(
            f"the {kind} holds {len(foreign)} of {len(held)} parameters that are not the model's, the first of shape "
            f"{tuple(foreign[0].shape)}; make it of model.parameters(), after the last change of the model"
        )
    ours = {id(p) for p in held}
    if left := [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in ours]:
        raise CallError(
            f"the {kind} does not hold {len(left)} trainable parameters of the model ({left[0]!r}, …); make it of "
            "model.parameters(), or freeze those that are not to be trained (requires_grad_(False))"
        )


class Descent:
    """Carries a rule's gradients and updates through the steps of an optimizer, whoever calls them.

    After `hand_over`, the next ``optimizer.step()`` is that of a rule: the rule's own parameters are trained by an
    optimizer of the same class with the settings of the first group of parameters; updates go past the optimizer;
    factors on the learning rate multiply the change of a parameter. The optimizer's own groups stay as they are, since
    schedules of torch break where a group is added after they were made.

    Args:
        optimizer: over the model's parameters.
        params: the model's trainable parameters by name.
        own: the rule's own parameters by name, ``rule.<name>``.
        rates: factors on the learning rate by name; 1 where there is none.
        decay: weight decay of each step that the rule wants apart from the optimizer, as the exponent of a factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        params: Mapping[str, nn.Parameter],
        own: Tensors,
        rates: Mapping[str, float],
        decay: float,
    ) -> None:
        self.optimizer = optimizer
        self.trained: dict[str, Tensor] = {**params, **own}
        check_rates(rates, self.trained)
        self._rates = {name: rate for name, rate in rates.items() if rate != 1}
        if self._rates and isinstance(optimizer, torch.optim.Rprop):
            raise CallError(
                "Rprop finds its own step sizes, on which the rule's factors on the learning rate would have no effect; "
                "use another optimizer"
            )
        self.own = _twin(optimizer, list(own.values())) if own else None
        self._decay = decay
        self._updates: Tensors | None = None  # of the step that was handed over and not made yet
        self._before: Tensors = {}
        try:
            begin, end = (
                optimizer.register_step_pre_hook(self._begin),
                optimizer.register_step_post_hook(self._end),
            )
        except AttributeError as error:
            raise CallError(
                f"a {type(optimizer).__name__} has no hooks on its steps, which torch.optim.Optimizer has; call "
                "super().__init__() in it, or use another optimizer"
            ) from error
        self._handles = begin, end

    def close(self) -> None:
        """Leave the optimizer alone from now on."""
        for handle in self._handles:
            handle.remove()

    def hand_over(self, grads: Tensors, updates: Tensors) -> None:
        """Set ``.grad`` of everything that is trained, copies of ``grads``, and keep ``updates`` for the next step.

        What gets no gradient has ``None``, so that neither momentum nor weight decay reach it.
        """
        for name, p in self.trained.items():
            if name in grads:
                # A copy: a gradient may be part of a rule's memory, and gradients are clipped in place.
                p.grad = as_gradient(grads[name], p).clone(memory_format=torch.preserve_format)
            else:
                p.grad = None
        self._updates = updates

    def _begin(self, *_: object) -> None:
        if self._updates is None:
            return  # a step of the user's own
        if self._decay:
            shrink(self.trained.values(), math.exp(-self._decay))
        self._before = {name: self.trained[name].detach().clone() for name in self._rates}

    def _end(self, *_: object) -> None:
        if self._updates is None:
            return
        if self.own is not None:
            self.own.param_groups[0].update(_settings(self.optimizer))
            self.own.step()
        with torch.no_grad():
            for name, before in self._before.items():
                p = self.trained[name]
                p.copy_(before + self._rates[name] * (p - before))
        add_updates(self.trained, self._updates)
        self._updates, self._before = None, {}


def _settings(optimizer: Optimizer) -> dict[str, Any]:
    """How the first group of parameters is trained."""
    return {name: value for name, value in optimizer.param_groups[0].items() if name not in _NOT_SETTINGS}


def _twin(optimizer: Optimizer, params: Sequence[Tensor]) -> Optimizer:
    """An optimizer of the same class and settings over other parameters."""
    cls = type(optimizer)
    known = inspect.signature(cls).parameters
    defaults = {name: value for name, value in optimizer.defaults.items() if name in known}
    try:
        return cls([{"params": list(params), **_settings(optimizer)}], **defaults)
    except Exception as error:
        raise CallError(
            f"the rule has {len(params)} parameters of its own, over which no {cls.__name__} can be made: {error}; use SGD "
            "or AdamW, say"
        ) from error


def owned(params: Tensors) -> Tensors:
    """The parameters that a rule owns, under the names by which it gives their gradients."""
    return {OWN + name: p for name, p in params.items()}
