"""The check of a rule that declares that its feedback path reads no forward weight.

Each weight through which errors of backprop travel is changed, but only for inputs that it never sees: orthogonally to
all that its rows are multiplied with in the rule's own step, in every pass that the rule makes. All activity stays as it
is, in perturbed, second and relaxing passes, too. Whatever changes then has read the weight in another way.

Noise is that of the rule, as large as it is in training. So that it leaves directions free, the batch holds a few
examples many times, and the noise a few draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Tensors
from rulezoo.rule import Batch, State, Step, directions
from rulezoo.testing.case import Case, Moment, flat, flat_step, generator, moments, needs_declaration
from rulezoo.testing.drawn import is_drawn
from rulezoo.testing.expect import NotApplicable, expect, listed
from rulezoo.testing.gradients import true_gradient
from rulezoo.testing.watch import Watch
from rulezoo.text import percent

# Of a tensor's norm: the activity moves by rounding, since weights change where it is zero. By type.
UNHEARD = {torch.float64: 1e-9, torch.float32: 1e-2}
# Of the largest singular value of the inputs: what is below it is rounding. The moves of a rule that relaxes by small steps are as small
# as 1e-11, and its errors depend on them.
OCCUPIED = {torch.float64: 1e-13, torch.float32: 1e-6}
ROWS = 11  # of a batch; no other size of a tiny network is a multiple of it
# Different examples of a batch, and draws of noise (None = all draws); all different where directions stay free.
FEW = ((ROWS, None), (2, 2), (1, 1), (1, None))


def check_weight_transport(case: Case) -> str:
    """The feedback path reads no forward weight, where the rule declares weight_transport=False.

    On the standard and on the drawn network, in several steps. A weight is left out where the passes of the rule use all
    directions of its input, and said to be so.
    """
    needs_declaration(case, "weight_transport")
    would, verified = 0.0, set[str]()
    for variant in (*case.variants, *case.disguised):
        for moment in moments(variant):
            for name, change in _examined(variant, moment):
                verified.add(_place(variant, name))
                would = max(would, change)
    weights = {_place(v, name) for v in case.variants for name in _weights(v)}
    if not would:
        raise NotApplicable(
            "not verified: the passes of the rule use all directions of the input of every layer, so no weight can be "
            "changed without changing activity"
        )
    note = f"; not verified: {listed(weights - verified)}" if weights - verified else ""
    return f"0 where backprop's gradient changes by {percent(would, 0)}{note}"


def _weights(case: Case) -> list[str]:
    """Names of the weights through which errors travel."""
    return sorted(credit.backward_layers(case.tiny.net, case.tiny.params()) & case.tiny.net.shapes.keys())


def _place(case: Case, name: str) -> str:
    return f"{name} (drawn network)" if is_drawn(case.tiny) else name


class _Seen(NamedTuple):
    """A step, what `init` returned before it, and the inputs of every weight in both: of the step, of `init`."""

    step: Step
    begun: State
    stepping: dict[str, list[Tensor]]
    beginning: dict[str, list[Tensor]]


def _examined(case: Case, moment: Moment) -> Iterator[tuple[str, float]]:
    """Names of the weights that could be changed, each with the change of backprop's gradient by it."""
    left = _weights(case)
    for examples, draws in FEW:
        if not left:
            return
        few = _few(case, moment, examples, draws)
        seen = _seen(case, few)
        if not all(bool(tensor.isfinite().all()) for tensor in flat_step(seen.step).values()):
            continue  # a rule that cannot do with the same noise many times
        for name in list(left):
            for whole in (True, False):  # with what `init` sees; or else the step alone
                inputs = seen.stepping.get(name, []) + (seen.beginning.get(name, []) if whole else [])
                params = _elsewhere(few.params, name, inputs)
                if params is not None:
                    _expect_independent(case, few, seen, name, params, whole=whole)
                    left.remove(name)
                    yield name, _heard_by_backprop(case, few, params)
                    break


def _few(case: Case, moment: Moment, examples: int, draws: int | None) -> Moment:
    """The moment with a batch of a few examples, and a few draws of noise, many times each."""
    x, y = case.tiny.batch(examples, seed=7 + moment.t)
    which = torch.arange(ROWS) % examples
    batch = Batch(x[which], y[which])
    noise = case.noise(moment.state, batch, generator(moment.t), moment.t)
    if draws is not None:
        noise = {name: _repeated(z, examples, draws) for name, z in noise.items()}
    return moment._replace(batch=batch, noise=noise)


def _repeated(noise: Tensor, examples: int, draws: int) -> Tensor:
    """The same for the same example, and for ``draws`` others; the last axis is that of units, unless it is the only."""
    for axis in range(max(1, noise.ndim - 1)):
        rows = torch.arange(noise.shape[axis])
        block, row = rows // ROWS, rows % ROWS
        whole = len(rows) % ROWS == 0
        noise = noise.index_select(axis, block % draws * ROWS + row % examples if whole else rows % draws)
    return noise


def _seen(case: Case, moment: Moment) -> _Seen:
    t, params, state, batch, noise, _ = moment
    first, second = Watch(params), Watch(params)
    with first.watching():  # before the step, so that what it may keep outside of the state is there
        begun = case.rule.init(case.tiny.net, params, batch, generator(0))
    with second.watching():
        step = case.step(params, state, batch, noise, t)
    return _Seen(step, begun, second.rows, first.rows)


def _elsewhere(params: Tensors, name: str, inputs: list[Tensor]) -> Tensors | None:
    """Parameters in which a weight is another one for inputs orthogonal to these; ``None`` if there are none."""
    weight = params[name]
    rows = torch.cat([*(row.to(weight) for row in inputs), weight.new_zeros(1, weight[0].numel())])
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=True)
    free = basis[int((sizes > OCCUPIED[rows.dtype] * sizes.max()).sum()) :]
    if not inputs or not len(free):
        return None
    drawn = torch.randn(len(weight), len(free), generator=generator(3), dtype=weight.dtype)
    delta = (drawn @ free).view_as(weight)
    return {**params, name: weight + 3 * delta * weight.norm() / delta.norm()}


def _expect_independent(
    case: Case, moment: Moment, seen: _Seen, name: str, params: Tensors, *, whole: bool
) -> None:
    begun = case.rule.init(case.tiny.net, params, moment.batch, generator(0))
    step = case.step(params, moment.state, moment.batch, moment.noise, moment.t)
    for kind, got, wanted in (
        ("the gradient of", directions(step), directions(seen.step)),
        ("after the step,", flat(step.state), flat(seen.step.state)),
    ):
        affected = [n for n, p in got.items() if n != name and n in wanted and _moved(p, wanted[n])]
        expect(
            not affected,
            f"{name} was changed so that no activity changes, yet {kind} {listed(affected)} did (step {moment.t}): the "
            "feedback path reads a forward weight, though the spec declares weight_transport=False",
        )
    if whole:
        before, after = ({n: _direction(p) for n, p in flat(s).items()} for s in (seen.begun, begun))
        copied = [n for n in before if n in after and _moved(after[n], before[n])]
        expect(not copied, f"init() copies {name} into state.{listed(copied)}, though weight_transport=False")


def _moved(tensor: Tensor, wanted: Tensor) -> bool:
    if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
        return True
    if not wanted.is_floating_point():
        return not torch.equal(tensor, wanted)
    return float((tensor - wanted).double().norm()) > UNHEARD[wanted.dtype] * max(
        float(wanted.double().norm()), 1e-12
    )


def _direction(tensor: Tensor) -> Tensor:
    """A size may be read off, as feedback alignment does; a direction may not."""
    if not tensor.is_floating_point():
        return tensor
    size = tensor.double().norm()
    return tensor / size if size else tensor


def _heard_by_backprop(case: Case, moment: Moment, params: Tensors) -> float:
    before, after = (true_gradient(case, moment._replace(params=p)) for p in (moment.params, params))
    change = sum(float((after[n] - before[n]).norm()) ** 2 for n in case.hidden)
    size = sum(float(before[n].norm()) ** 2 for n in case.hidden)
    return float((change / size) ** 0.5) if size else 0.0
