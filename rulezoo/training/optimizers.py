"""The optimiser of a budget, over tensors of one network or with a leading axis of seeds.

Nearly all optimisers of torch act element by element: one over stacked tensors is one for each seed. One that looks at
a tensor as a whole (`WHOLE`) is given each seed's part of a stacked tensor as a parameter of its own, a view. What is
right in neither way is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from rulezoo.task import SHORT_OPTIMIZERS, Budget
from rulezoo.training.rule_output import check_rates
from rulezoo.training.torch_classes import call, near, options_problem, subclasses

ELEMENTWISE = frozenset(
    {"ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"}
)
WHOLE = frozenset({"Adafactor"})  #: it scales an update by statistics of rows, columns and the whole tensor
REFUSED = {
    "LBFGS": "it evaluates the loss several times in a step, and a learning rule returns one gradient",
    "Muon": "it takes matrices only, and networks have biases and convolutions, too",
    "SparseAdam": "it takes sparse gradients only, and learning rules return dense ones",
}  #: name → why it cannot train
_SHORT = {"adam": ("AdamW", {}), "sgd": ("SGD", {"momentum": 0.9})}
_FUSED = frozenset({"Adam", "AdamW", "SGD"})
_HOW = "rulezoo chooses how torch computes"
_EXCLUDED = {
    "lr": "give it as the budget's lr",
    "weight_decay": "give it as the budget's weight_decay",
    "maximize": "a step descends the loss",
    "foreach": _HOW,
    "fused": _HOW,
    "capturable": _HOW,
    "differentiable": _HOW,
}


def names() -> list[str]:
    """The optimisers of torch that a budget may name."""
    return [name for name in subclasses(torch.optim, torch.optim.Optimizer) if name not in REFUSED]


def problem(budget: Budget, *, decoupled: bool = False) -> str | None:
    """Why the budget's optimiser cannot be used, if it cannot.

    Args:
        budget: with any fields.
        decoupled: whether the rule has its weight decay decoupled, `rulezoo.LearningRule.decoupled_decay`.
    """
    name, options = budget.optimizer, budget.optimizer_options
    known = [*SHORT_OPTIMIZERS, *names()]
    if isinstance(name, str) and name in REFUSED:
        return (
            f"budget.optimizer: {name} cannot be used, because {REFUSED[name]}; use one of {', '.join(known)}"
        )
    if name not in known:
        return (
            f"budget.optimizer must be 'adam', 'sgd' or an optimiser of torch.optim ({', '.join(names())}), "
            f"got {name!r}{near(name, known)}"
        )
    cls, fixed = _class(budget)
    if wrong := options_problem("budget.optimizer_options", cls, options, _EXCLUDED, "params"):
        return wrong
    if budget.weight_decay and not decoupled and not _decays(cls):
        return f"budget.weight_decay must be 0 with {cls.__name__}, which has no weight decay, got {budget.weight_decay!r}"
    try:
        p = torch.zeros(2, requires_grad=True)
        optimizer = cls([p], **_arguments(budget, ours=0.0))
        p.grad = torch.ones(2)
        optimizer.step()
    except Exception as error:  # noqa: BLE001  torch raises errors of any kind
        return f"budget.optimizer_options: torch refuses {call(cls, {**fixed, **options})}: {error}"
    return None


def make(
    budget: Budget, params: Mapping[str, Sequence[Tensor]], rates: Mapping[str, float], *, decoupled: bool
) -> torch.optim.Optimizer:
    """The budget's optimiser, with a group of parameters for each stretch of them that has one factor on its rate.

    A group has two numbers of ours: ``rate``, the factor, and ``decoupled``, the weight decay that the trainer carries
    out in place of the optimiser.

    Args:
        budget: one without a `problem`.
        params: what is trained, each in its `parts`.
        rates: factors on the learning rate by name.
        decoupled: whether the weight decay is that of the rule, `rulezoo.LearningRule.decoupled_decay`.
    """
    check_rates(rates, params)
    cls, _ = _class(budget)
    if cls is torch.optim.Rprop and any(rate != 1 for rate in rates.values()):
        raise ValueError(
            "Rprop finds its own step sizes, on which the rule's factors on the learning rate would have no effect; use "
            "another optimiser"
        )
    ours = budget.weight_decay if decoupled else 0.0
    # In the order of the parameters: checkpoints number them so.
    stretches = groupby(params, lambda name: float(rates.get(name, 1.0)))
    groups: list[dict[str, Any]] = [
        {
            "params": [part for name in stretch for part in params[name]],
            "rate": rate,
            "decoupled": ours,
        }
        for rate, stretch in stretches
    ]
    made: torch.optim.Optimizer = cls(groups, **_arguments(budget, ours))
    return made


def parts(budget: Budget, tensor: Tensor, seeds: int) -> Sequence[Tensor]:
    """What the optimiser takes for a parameter: the tensor of all seeds, or a view of each seed's part of it."""
    if seeds == 1 or _class(budget)[0].__name__ in ELEMENTWISE:
        return [tensor]
    return tensor.unbind()


def placeholder(budget: Budget) -> torch.optim.Optimizer:
    """The budget's optimiser over nothing that is trained, for a schedule to act on."""
    cls, _ = _class(budget)
    made: torch.optim.Optimizer = cls([torch.zeros(1)], **_arguments(budget, ours=0.0))
    return made


def clipped(grads: dict[str, Tensor], largest: float, seeds: int) -> dict[str, Tensor]:
    """Gradients scaled so that, for each seed, their common norm is at most ``largest``, as `torch.nn.utils` does it."""
    if not grads:
        return grads
    if seeds == 1:
        norms = torch.nn.utils.get_total_norm(list(grads.values()))
        factor = (largest / (norms + 1e-6)).clamp(max=1.0)
        return {name: grad * factor.to(grad.dtype) for name, grad in grads.items()}
    each = [torch.nn.utils.get_total_norm([grad[s] for grad in grads.values()]) for s in range(seeds)]
    factors = (largest / (torch.stack(each) + 1e-6)).clamp(max=1.0)
    return {
        name: grad * factors.to(grad.dtype).view(-1, *[1] * (grad.ndim - 1)) for name, grad in grads.items()
    }


def load_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Go on from a ``state_dict``; as `torch.optim.Optimizer.load_state_dict`, but numbers keep their precision.

    torch converts what an optimiser keeps to the dtype of its parameter, also where it was kept in another.
    """
    optimizer.load_state_dict(dict(saved))
    for number, p in enumerate(_parameters(optimizer)):
        for name, value in saved["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.dtype != optimizer.state[p][name].dtype:
                optimizer.state[p][name] = value.clone()


def state_like(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """What the optimiser keeps of each parameter after a step, by the numbers of its ``state_dict``; no values."""
    groups = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    found = (
        _kept(type(optimizer), {**settings, "fused": None} if "fused" in settings else settings, p)
        for settings, group in zip(groups, optimizer.param_groups, strict=True)
        for p in group["params"]
    )
    return dict(enumerate(found))


def _kept(cls: Any, settings: dict[str, Any], p: Tensor) -> dict[str, Any]:  # noqa: ANN401
    with suppress(RuntimeError, NotImplementedError):
        return _after_a_step(cls, settings, torch.zeros_like(p, device="meta"))
    return _after_a_step(cls, settings, torch.zeros_like(p, device="cpu"))  # some read numbers in Python


def _after_a_step(cls: Any, settings: dict[str, Any], p: Tensor) -> dict[str, Any]:  # noqa: ANN401
    optimizer = cls([{"params": [p], **settings}])
    p.grad = torch.zeros_like(p)
    optimizer.step()
    return dict(optimizer.state[p])


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def class_of(name: str) -> type | None:
    """The class that a budget's name of an optimiser stands for, if there is one."""
    return subclasses(torch.optim, torch.optim.Optimizer).get(_SHORT.get(name, (name, {}))[0])


def by_name(name: str) -> tuple[Any, dict[str, Any]] | None:
    """The class that a budget's name of an optimiser stands for, and the settings that a budget gives it by default."""
    if class_of(name) is None or name in REFUSED:
        return None
    budget = Budget(1, 1, 1e-3, optimizer=name)
    return _class(budget)[0], _arguments(budget, ours=0.0)


def _class(budget: Budget) -> tuple[Any, dict[str, Any]]:
    """The optimiser's class, and the options that its short name stands for."""
    name, fixed = _SHORT.get(budget.optimizer, (budget.optimizer, {}))
    return getattr(torch.optim, name), fixed


def _arguments(budget: Budget, ours: float) -> dict[str, Any]:
    cls, fixed = _class(budget)
    own = {"weight_decay": budget.weight_decay - ours} if _decays(cls) else {}
    fused = {"fused": True} if cls.__name__ in _FUSED else {}
    given = {name: _tuple(value) for name, value in budget.optimizer_options.items()}
    return {"lr": budget.lr, **own, **fused, **fixed, **given}


def _tuple(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value


def _decays(cls: type) -> bool:
    return "weight_decay" in inspect.signature(cls).parameters
