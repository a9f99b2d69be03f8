"""Whether a saved state is one of a learner: the same rule, model and optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rulezoo.api.errors import CallError
from rulezoo.net import Tensors
from rulezoo.rule import LearningRule

FORMAT = 1  #: of a learner's state


def check_state(
    saved: Mapping[str, Any], rule: LearningRule, model: Tensors, optimizer: Optimizer, device: torch.device
) -> None:
    """See that a state fits.

    Args:
        saved: what ``Learner.state_dict()`` returned.
        rule: the learner's rule.
        model: its model's tensors by name.
        optimizer: its optimizer.
        device: its model's device.

    Raises:
        CallError: if it does not; the message says where.
    """
    if not isinstance(saved, Mapping) or saved.get("format") != FORMAT:
        raise CallError("this is not the state of a Learner; give what learner.state_dict() returned")
    _check_rule(saved, rule)
    _check_model(saved["model"], model)
    _check_optimizer(saved, optimizer)
    memory = saved["memory"]
    if memory is not None and (left := memory["example"].device.type) != device.type:
        raise CallError(
            f"the state was left on {left}, and the model is on {device.type}, whose random numbers are others; move the "
            "model there, or load the model's own state_dict and start a new Learner"
        )


def _check_rule(saved: Mapping[str, Any], rule: LearningRule) -> None:
    name = type(rule).__name__
    if saved["rule"] != name:
        raise CallError(
            f"the state is of the rule {saved['rule']}, and the learner has {name}; use the same rule"
        )
    then, now = saved["options"], rule.resolved()
    if differ := sorted(one for one in now.keys() | then.keys() if now.get(one) != then.get(one)):
        first = differ[0]
        raise CallError(
            f"the state is of {name} with {first}={then.get(first)!r}, and the learner has {first}={now.get(first)!r}; give "
            "the same options"
        )


def _check_model(saved: Mapping[str, Tensor], model: Tensors) -> None:
    for name in [*model, *saved]:
        here, there = (_described(tensors.get(name)) for tensors in (model, saved))
        if here != there:
            raise CallError(
                f"the state is of another model: {name!r} is {there} in the state and {here} in the model; build the model "
                "as it was"
            )


def _check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    kind = type(optimizer).__name__
    if saved["optimizer_class"] != kind:
        raise CallError(
            f"the state is of {saved['optimizer_class']}, and the learner has {kind}; use the same optimizer"
        )
    then, now = ([len(group["params"]) for group in groups]
                 for groups in (saved["optimizer"]["param_groups"], optimizer.param_groups))  # fmt: skip
    if then != now:
        raise CallError(
            f"the optimizer of the state has groups of {then} parameters, and that of the learner of {now}; make the same "
            "groups"
        )


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
