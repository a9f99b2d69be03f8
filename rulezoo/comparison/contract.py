"""What a task promises of its data, loss and score, checked; a broken promise is a sentence.

The check before a training and the conformance suite share these functions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from rulezoo.discovery.plugins import reason
from rulezoo.errors import UserError
from rulezoo.inputs import Inputs, prepared
from rulezoo.net import Site
from rulezoo.source import Source, draw
from rulezoo.task import Budget, Data, Split, Task
from rulezoo.training import optimizers, schedules

SIZES = (
    8,
    7,
    6,
    5,
    4,
    3,
    2,
    1,
)  # of a small batch; one that is no other dimension, so that shapes are told apart
_WHOLE_NUMBERS = {"epochs": 1, "batch": 1, "warmup_steps": 0, "warmup_epochs": 0, "evaluation_batch": 1}
_NOUN = {"x": "inputs", "y": "targets"}
_READ = 256  # examples of a source that are looked at
_FEW = 4  # examples that are prepared

Stored = Data[Tensor | Source]


def declaration_problem(task: Task) -> str | None:
    """Why the budget, the score's name, its value by chance or what targets are cannot be used, if one cannot."""
    if problem := budget_problem(getattr(task, "budget", None)):
        return problem
    if not isinstance(metric := getattr(task, "metric", None), str):
        return f"metric must be a text, the name of the score, got {metric!r}"
    chance = getattr(task, "chance", None)
    if isinstance(chance, bool) or not isinstance(chance, int | float) or not math.isfinite(chance):
        return f"chance must be a finite number, the score of guessing, got {chance!r}"
    return targets_problem(task)


def targets_problem(task: Task) -> str | None:
    """Why what a task declares of its targets cannot be used, if it cannot."""
    targets, classes = getattr(task, "targets", None), getattr(task, "classes", None)
    if targets is None or callable(targets):  # not declared: what a task calls so otherwise is its own affair
        return None
    if targets not in ("labels", "numbers"):
        return f"targets must be 'labels', 'numbers' or None (not declared), got {targets!r}"
    if targets == "numbers":
        return (
            None
            if classes is None
            else f"classes are of 'labels', and targets are 'numbers'; got classes={classes!r}"
        )
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        return f"classes must be a whole number, 2 or more, where targets are 'labels', got {classes!r}"
    return None


def budget_problem(budget: object, *, decoupled: bool = False) -> str | None:
    """Why a task cannot be trained with this budget, if it cannot.

    Args:
        budget: what a task gives as its budget.
        decoupled: whether the rule has its weight decay decoupled, `rulezoo.LearningRule.decoupled_decay`.
    """
    if not isinstance(budget, Budget):
        return f"budget must be a rulezoo.Budget, got {budget!r}"
    return (
        _number_problem(budget)
        or optimizers.problem(budget, decoupled=decoupled)
        or schedules.problem(budget)
    )


def _number_problem(budget: Budget) -> str | None:
    for name, low in _WHOLE_NUMBERS.items():
        value = getattr(budget, name)
        if type(value) is not int or value < low:
            return f"budget.{name} must be a whole number, {low} or more, got {value!r}"
    for name, least in (("lr", "above 0"), ("weight_decay", "0 or more"), ("clip_norm", "above 0, or none")):
        value = getattr(budget, name)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if value is None and name == "clip_norm":
            continue
        if not fits or (name != "weight_decay" and value == 0):
            return f"budget.{name} must be a number {least}, got {value!r}"
    return None


def data_problems(data: object) -> list[str]:
    """What is wrong with the three parts of the data."""
    if problems := structure_problems(data):
        return problems
    assert isinstance(data, Data)
    return list(_sizes(data)) or [*_alike(data), *_not_finite(data)]


def structure_problems(data: object) -> list[str]:
    """What is wrong with the kinds of the three parts, whatever they contain."""
    return list(_structure(data))


def digests(data: Stored) -> dict[tuple[str, str], str]:
    """``("train", "inputs")`` and the like → hexadecimal digits of its type, shape and every byte.

    A source says itself what its digest covers.
    """
    return {
        name: stored.digest() if isinstance(stored, Source) else _digest(stored)
        for name, stored in _tensors(data).items()
    }


def digest(data: Stored) -> str | None:
    """16 hexadecimal digits of all the data; ``None`` where they are not what a task promises."""
    try:
        each = digests(data)
    except (AttributeError, TypeError, RuntimeError):  # not three parts of tensors; the training says so
        return None
    return joined(each)


def joined(each: Mapping[tuple[str, str], str]) -> str:
    """One digest of `digests`."""
    text = " ".join(f"{part} {what} {value}" for (part, what), value in each.items())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def declared_problem(part: str, task: Task, target: Tensor, output_shape: tuple[int, ...]) -> str | None:
    """Why the targets of a part are not what the task declares them to be, if they are not.

    Args:
        part: name of the part.
        task: the task.
        target: all targets of the part.
        output_shape: shape of the network's output for one example.
    """
    if task.targets == "labels":
        if target.is_floating_point():
            return f"targets are declared to be 'labels', and those of {part} are of type {_type(target)}; expected integers"
        low, high = int(target.min()), int(target.max())
        if isinstance(task.classes, int) and not 0 <= low <= high < task.classes:
            return (
                f"{task.classes} classes are declared, and the labels of {part} reach from {low} to {high}; expected labels "
                f"from 0 to {task.classes - 1}"
            )
    if task.targets == "numbers":
        if not target.is_floating_point():
            return (
                f"targets are declared to be 'numbers', and those of {part} are of type {_type(target)}; expected "
                "floating-point numbers"
            )
        if tuple(target.shape[1:]) != output_shape:
            return (
                f"targets are declared to be 'numbers', and those of {part} have shape {tuple(target.shape[1:])}; expected "
                f"{output_shape}, the shape of the output"
            )
    return None


def small_batch(split: Split[Tensor | Inputs], *shapes: tuple[int, ...]) -> Split:
    """A few examples, their number being none of the dimensions in these shapes where that can be."""
    taken = {size for shape in shapes for size in shape}
    size = next((n for n in SIZES if n <= len(split.y) and n not in taken), 1)
    return Split(split.x[:size], split.y[:size])


def function_problems(task: Task, output: Tensor, target: Tensor) -> list[str]:
    """What is wrong with the loss and the score of some outputs ``(batch, ...)``."""
    return [*loss_problems(task, output, target), *score_problems(task, output, target)]


def loss_problems(task: Task, output: Tensor, target: Tensor) -> Iterator[str]:
    """What is wrong with the loss of some outputs ``(batch, ...)``."""
    leaf = output.detach().clone().requires_grad_()
    with torch.enable_grad():
        values, problems = _called("loss", task.loss, leaf * 1, target)
    yield from problems
    if values is None or problems:
        return
    if not values.is_floating_point():
        yield f"loss() returned type {_type(values)}; expected floating-point numbers, which have a gradient"
    elif not values.requires_grad:
        yield "loss() has no gradient with respect to the output; compute it by differentiable operations of torch"


def score_problems(task: Task, output: Tensor, target: Tensor) -> Iterator[str]:
    """What is wrong with the score of some outputs ``(batch, ...)``."""
    with torch.no_grad():
        _, problems = _called("score", task.score, output.detach().clone(), target)
    yield from problems


def network_problem(module: object, x: Tensor) -> str | None:
    """Why a network cannot be trained with inputs ``x`` of shape ``(batch, ...)``, if a forward pass shows it."""
    if not isinstance(module, nn.Module):
        return f"network() returned a {type(module).__name__}; expected a torch.nn.Module"
    strange: list[str] = []

    def look(name: str, given: tuple[object, ...]) -> None:
        strange.extend(
            f"the site {name!r} is given a {type(one).__name__}; expected a tensor: what stands in front of the site "
            "returns more than its activity, so wrap it in a module that returns the activity alone"
            for one in given
            if not isinstance(one, Tensor)
        )

    sites = [(name, site) for name, site in module.named_modules() if isinstance(site, Site)]
    hooks = [site.register_forward_pre_hook(lambda _, given, n=name: look(n, given)) for name, site in sites]
    try:
        output = module(x)
    except Exception as error:  # noqa: BLE001  foreign code may raise anything
        types = ", ".join(sorted({_type(p) for p in module.parameters()})) or "none"
        return (
            strange[0]
            if strange
            else (
                f"the network raised {reason(error)} for inputs of shape {tuple(x.shape)}, {_type(x)} (parameters: {types})"
            )
        )
    finally:
        for hook in hooks:
            hook.remove()
    if strange:
        return strange[0]
    if not isinstance(output, Tensor):
        return (
            f"the network returned a {type(output).__name__}; it must return one tensor of shape (batch, ...)"
        )
    if output.ndim == 0 or len(output) != len(x):
        return f"the network returned shape {tuple(output.shape)} for {len(x)} inputs; expected {len(x)} along the first axis"
    if not output.is_floating_point():
        return f"the network returned type {_type(output)}; expected floating-point numbers"
    return None


def label_problem(
    part: str, task: Task, outputs: Callable[[Tensor], Tensor], split: Split[Tensor | Inputs]
) -> str | None:
    """Why the labels of a part do not fit the network's outputs, if the targets are labels and they do not.

    A label is out of range if the loss does not take it: where it has one to ignore, such as -100, that is fine.

    Args:
        part: name of the part.
        task: the task.
        outputs: gives the network's outputs of inputs.
        split: the part.
    """
    x, y = split
    if y.is_floating_point() or y.dtype == torch.bool:
        return None
    flat = y.flatten(1) if y.ndim > 1 else y[:, None]
    low, high = flat.min(1).values, flat.max(1).values
    for place in (int(low.argmin()), int(high.argmax())):
        output = outputs(x[[place, place]])[:1]  # two of them, for a network that normalises over the batch
        classes = _classes(output, y)
        wrong = (low < 0) | (high >= classes) if classes else torch.zeros(len(y), dtype=torch.bool)
        if classes and wrong[place]:
            try:
                task.loss(output.clone(), y[place : place + 1].clone())
            except Exception as error:  # noqa: BLE001  foreign code; any failure is the sign
                first = int(wrong.nonzero()[0])
                return (
                    f"{int(wrong.sum())} of {len(y)} examples of {part} have labels out of range: the labels reach "
                    f"from {int(low.min())} to {int(high.max())}, the first out of range is in example {first}, and "
                    f"{classes} outputs stand for labels from 0 to {classes - 1} (loss() raised {reason(error)})"
                )
    return None


def _structure(data: object) -> Iterator[str]:
    if not isinstance(data, Data):
        yield f"data() returned a {type(data).__name__}; expected rulezoo.Data(train, validation, test)"
        return
    for part, split in data._asdict().items():
        if not isinstance(split, Split):
            yield f"{part} is a {type(split).__name__}; expected rulezoo.Split(x, y)"
            continue
        for field, tensor in split._asdict().items():
            source = field == "x" and isinstance(tensor, Source)
            if problem := _source_problem(tensor) if source else _tensor_problem(tensor):
                yield f"{_NOUN[field]} of {part} {problem}"


def _tensor_problem(tensor: object) -> str | None:
    if not isinstance(tensor, Tensor):
        return f"are a {type(tensor).__name__}; expected a torch.Tensor, which torch.as_tensor makes"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "are not dense; expected a dense tensor, which to_dense() or dequantize() makes"
    if tensor.device.type != "cpu":
        return f"are on {tensor.device}; expected the CPU: the runner moves them to the device it trains on"
    if tensor.requires_grad:
        return "require a gradient; return them without one: tensor.detach()"
    if tensor.is_complex():
        return f"are of type {_type(tensor)}; expected real numbers or integers"
    if tensor.ndim == 0:
        return "are a single number; expected one entry for each example along the first axis"
    return None


def _source_problem(source: Source) -> str | None:
    """What is wrong with a source, going by a few examples."""
    name = type(source).__name__
    try:
        number = len(source)
        index = torch.arange(min(_READ, number))
        read = source.read(index) if number else torch.empty(0, *source.shape, dtype=source.dtype)
    except UserError as error:
        return f"cannot be read: {error}"
    except Exception as error:  # noqa: BLE001  foreign code may raise anything
        return f"cannot be read: {name} raised {reason(error)}"
    if problem := _tensor_problem(read):
        return problem
    expected = (
        f"expected ({len(index)}, *shape) of its dtype, {_name(source.dtype)}, with shape {source.shape}"
    )
    if tuple(read.shape) != (len(index), *source.shape) or read.dtype != source.dtype:
        return (
            f"come from a {name} whose read() returned shape {tuple(read.shape)}, {_type(read)}; {expected}"
        )
    if not isinstance(source.digest(), str):
        return f"come from a {name} whose digest() returned {source.digest()!r}; expected a text"
    return None


def prepare_problems(task: Task, data: Stored) -> list[str]:
    """What is wrong with what `Task.prepare` makes of a few examples."""
    if type(task).prepare is Task.prepare:
        return []
    return list(_prepare_problems(task, data))


def _prepare_problems(task: Task, data: Stored) -> Iterator[str]:
    inputs = prepared(data, task, torch.device("cpu")).train.x
    assert isinstance(inputs, Inputs)
    which = torch.arange(min(_FEW, len(inputs)))
    drawn, other = draw(0, 0, which), draw(0, 1, which)
    try:
        evaluated, again = inputs[which], inputs[which]
        trained, repeated = inputs.training(which, drawn), inputs.training(which, drawn)
        inputs.training(which, other)
        alone = inputs.training(which[:1], draw(0, 0, which[:1]))
    except UserError as error:
        yield str(error)
        return
    except Exception as error:  # noqa: BLE001  foreign code may raise anything
        yield f"prepare() raised {reason(error)}"
        return
    for what, x in (("evaluation", evaluated), ("training", trained)):
        if not isinstance(x, Tensor):
            yield f"prepare() returned a {type(x).__name__} for {what}; expected a torch.Tensor"
            return
        if len(x) != len(which):
            yield f"prepare() returned shape {tuple(x.shape)} for {len(which)} examples; expected one entry for each"
            return
    if evaluated.shape != trained.shape or evaluated.dtype != trained.dtype:
        yield (
            f"prepare() returned shape {tuple(trained.shape)}, {_type(trained)}, for training, and "
            f"{tuple(evaluated.shape)}, {_type(evaluated)}, for evaluation; expected the same"
        )
    elif trained.is_floating_point() and not bool(trained.isfinite().all() and evaluated.isfinite().all()):
        yield "prepare() returned numbers that are not finite"
    elif not (torch.equal(evaluated, again) and torch.equal(trained, repeated)):
        yield "prepare() returned other inputs when it was called again; take random numbers from draw alone"
    elif not torch.allclose(alone, trained[:1], rtol=1e-5, atol=1e-6):
        yield "prepare() returned another input for an example alone than for it in a batch; treat examples one by one"


def _sizes(data: Stored) -> Iterator[str]:
    for part, (x, y) in data._asdict().items():
        if len(x) != len(y):
            yield f"{part} has {len(x)} inputs and {len(y)} targets; expected one target for each input"
        elif not len(x):
            yield f"{part} is empty; expected one example or more"


def _alike(data: Stored) -> Iterator[str]:
    tensors = _tensors(data)
    for (part, what), tensor in tensors.items():
        like = tensors["train", what]
        if _shape(tensor) != _shape(like):
            yield (
                f"{what} of {part} have shape {_shape(tensor)} for an example, those of train {_shape(like)}; expected "
                "the same"
            )
        if tensor.dtype != like.dtype:
            yield (
                f"{what} of {part} are of type {_type(tensor)}, those of train {_type(like)}; expected the same"
            )


def _shape(stored: Tensor | Source) -> tuple[int, ...]:
    """Of one example."""
    return tuple(stored.shape[1:] if isinstance(stored, Tensor) else stored.shape)


def _not_finite(data: Stored) -> Iterator[str]:
    for (part, what), stored in _tensors(data).items():
        tensor = stored
        if isinstance(stored, Source):
            if not stored.dtype.is_floating_point:
                continue
            tensor = stored.read(torch.arange(min(_READ, len(stored))))
        assert isinstance(tensor, Tensor)
        if not tensor.is_floating_point() or bool((finite := tensor.isfinite()).all()):
            continue
        wrong = ~(finite.flatten(1).all(1) if finite.ndim > 1 else finite)
        kinds = [
            word for word, found in (("NaN", tensor.isnan()), ("infinity", tensor.isinf())) if found.any()
        ]
        yield (
            f"{what} of {part} contain {' and '.join(kinds)} in {int(wrong.sum())} of {len(tensor)} examples, the "
            f"first at index {int(wrong.nonzero()[0])}; expected finite numbers"
        )


def _tensors(data: Stored) -> dict[tuple[str, str], Tensor | Source]:
    return {
        (part, _NOUN[field]): tensor
        for part, split in data._asdict().items()
        for field, tensor in split._asdict().items()
    }


def _digest(tensor: Tensor) -> str:
    content = hashlib.blake2b(f"{_type(tensor)} {tuple(tensor.shape)}".encode(), digest_size=16)
    flat = tensor.detach().cpu().contiguous().flatten()
    content.update(flat.view(torch.uint8).numpy().data)  # numpy has no bfloat16
    return content.hexdigest()


def _type(tensor: Tensor | Source) -> str:
    return _name(tensor.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _classes(output: Tensor, target: Tensor) -> int | None:
    """How many classes the output tells apart, going by the shapes; ``None`` where it has no such axis."""
    one, label = output.shape[1:], target.shape[1:]
    if len(one) != len(label) + 1:
        return None
    sizes = [one[axis] for axis in (-1, 0) if (*one[:axis], *one[axis:][1:]) == tuple(label)]
    return sizes[0] if sizes and sizes[0] > 1 else None


def _called(
    name: str, function: Callable[[Tensor, Tensor], object], output: Tensor, target: Tensor
) -> tuple[Tensor | None, list[str]]:
    """What a loss or score returns, and what is wrong with it."""
    given = target.clone()
    before = output.detach().clone()
    shapes = f"output of shape {tuple(output.shape)} and target of shape {tuple(target.shape)}"
    try:
        values = function(output, given)
    except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code may raise anything
        return None, [f"{name}() raised {reason(error)} for {shapes}, {_type(target)}"]
    examples = len(target)
    expected = f"expected shape ({examples},), one number for each example"
    if not isinstance(values, Tensor):
        return None, [f"{name}() returned a {type(values).__name__}; expected a tensor; {expected}"]
    problems = []
    if tuple(values.shape) != (examples,):
        cause = _cause(values, output, target)
        problems.append(f"{name}() returned shape {tuple(values.shape)} for {shapes}; {expected}{cause}")
    if values.is_complex():
        problems.append(f"{name}() returned type {_type(values)}; expected real numbers")
    for what, now, then in (("output", output.detach(), before), ("target", given, target)):
        if not torch.equal(now.nan_to_num(), then.nan_to_num()):
            problems.append(f"{name}() writes over its {what}; compute with a copy: {what}.clone()")
    return values, problems


def _cause(values: Tensor, output: Tensor, target: Tensor) -> str:
    """The usual cause of a wrong shape, if it is one of the usual ones."""
    examples = len(target)
    if values.ndim == 0:
        return "; it is one number for the whole batch: use reduction='none', and no mean() or sum() over the batch"
    if tuple(values.shape) == (examples, examples) and output.shape != target.shape:
        return "; output and target broadcast against each other: give them the same shape, as with output.squeeze(-1)"
    if values.ndim > 1 and len(values) == examples:
        return "; take the mean over the other axes: .flatten(1).mean(1)"
    return ""
