"""Checks of what a rule does to hidden layers: whether they learn, how far compared with backprop, in which direction.

The first line of a check's docstring is the promise to which it holds a rule, as a report prints it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rulezoo.net import Tensors
from rulezoo.rule import directions
from rulezoo.testing.case import Case, Moment, moments, other_targets, walk
from rulezoo.testing.drawn import title
from rulezoo.testing.expect import NotApplicable, expect, expect_close, listed

ROUNDING = 1e-7  # of a tensor's norm, in float64
MIN_ANGLE = 1.0  # degrees; backprop under another name differs by rounding, the best of approximations by 2
# Times backprop's. Gradients of tiny networks have a size of about 1e-2; a millionth of that is what Adam's epsilon of
# 1e-8 swallows.
SMALLEST, LARGEST = 1e-6, 1e6
SCHEDULE = (
    60  # steps in which every hidden parameter is taught by a rule that does not teach all of them in each
)


def check_hidden_gradients(case: Case) -> str:
    """Every hidden parameter learns, by gradients of a size like backprop's; none does, where the rule declares so.

    On the standard and on drawn networks, in a few steps taken together: feedback may start from zero. A rule that
    sends no error signal to hidden layers may leave biases alone.
    """
    variants = (*case.variants, *case.disguised)
    counts = [_taught(variant, moments(variant)) for variant in variants]
    return f"{counts[0]} of {len(case.hidden)} hidden parameters taught"


def _taught(case: Case, steps: Sequence[Moment]) -> int:
    sizes, taught = _measured(case, steps)
    if case.silent:
        expect(
            not taught, f"the rule declares that hidden layers do not learn, yet it teaches {listed(taught)}"
        )
        return 0
    needed = {n for n in case.hidden if not case.unsupervised or len(case.tiny.net.shapes[n]) > 1}
    if needed - taught:  # a rule may teach hidden layers in some steps only
        steps = [*steps, *walk(case, range(SCHEDULE))]
        sizes, taught = _measured(case, steps)
    untaught = needed - taught
    where = f"on {title(case.tiny)}, in {len(steps)} steps,"
    expect(not untaught, f"{where} no gradient other than zero reached {listed(untaught)}")
    true = _largest(case, [true_gradient(case, moment) for moment in steps])
    for name in sorted(taught):
        expect(
            not true[name] or SMALLEST <= sizes[name] / true[name] <= LARGEST,
            f"{where} gradients of {name} have a size of {sizes[name]:.2g} at most, and those of backprop of "
            f"{true[name]:.2g}; expected between {SMALLEST:g} and {LARGEST:g} times as much, so that an optimiser "
            "notices them",
        )
    return len(taught)


def _measured(case: Case, steps: Sequence[Moment]) -> tuple[dict[str, float], set[str]]:
    """The largest gradient of each hidden parameter, and which of them learn: at a rate that is worth it, if one is set."""
    sizes = _largest(case, [directions(moment.step) for moment in steps])
    rates = case.rule.rates(case.tiny.net)
    return sizes, {name for name, size in sizes.items() if size and rates.get(name, 1.0) >= SMALLEST}


def _largest(case: Case, every: list[Tensors]) -> dict[str, float]:
    """Norm of the largest of several gradients of each hidden parameter; 0 where there is none."""
    return {
        name: max((float(grads[name].double().norm()) for grads in every if name in grads), default=0.0)
        for name in case.hidden
    }


def check_signal(case: Case) -> str:
    """Hidden layers learn the same whatever the targets are, where the rule declares signal="none"."""
    if not case.unsupervised:
        raise NotApplicable("an error signal is declared")
    looks = 0
    for variant in case.variants:
        for moment in moments(variant):
            others = moment.batch._replace(y=other_targets(moment.batch.y))
            step = variant.step(moment.params, moment.state, others, moment.noise, moment.t)
            got, wanted = directions(step), directions(moment.step)
            affected = [
                n
                for n in variant.hidden
                if not torch.equal(*(d.get(n, torch.zeros(())) for d in (got, wanted)))
            ]
            expect(
                not affected,
                f"in step {moment.t} on {title(variant.tiny)} other targets changed what is taught to {listed(affected)}, though "
                'the spec declares signal="none": hidden layers do receive an error signal',
            )
            looks += 1
    return f"the same with other targets, in {looks} steps"


def check_backprop(case: Case) -> str:
    """Hidden gradients differ from backprop's in every step; all equal them, where the rule is tagged "exact".

    On the standard and on the drawn network, and in float32 on batches of another size.
    """
    looks = [
        (variant, moment) for variant in (*case.variants, *case.disguised) for moment in moments(variant)
    ]
    if case.exact:
        for variant, moment in looks:
            if variant.tiny.net.example.dtype == torch.float64:
                _expect_exact(variant, moment)
        return "0° from autograd"
    angles = [(angle, v, m) for v, m in looks if (angle := _angle(v, m)) is not None]
    if not angles:
        return "hidden gradients are still zero"
    least, variant, moment = min(angles, key=lambda one: one[0])
    expect(
        least > MIN_ANGLE,
        f"hidden gradients lie {least:.2g}° from those of backprop in step {moment.t} on {title(variant.tiny)}, expected "
        f"more than {MIN_ANGLE:g}°: this is backprop under another name. If it is meant to be, tag its spec "
        '"exact"; if it comes that near by other means, declare the failure as expected, with the reason',
    )
    return f"{angles[0][0]:.0f}° from backprop ({least:.0f}° or more in {len(angles)} steps)"


def _angle(case: Case, moment: Moment) -> float | None:
    """Degrees between the hidden gradients of a step and those of backprop; ``None`` if either is zero."""
    got, true = directions(moment.step), true_gradient(case, moment)
    one, other = _joined(got, true, case.hidden), _joined(true, true, case.hidden)
    if not one.any() or not other.any():
        return None
    cosine = float((_unit(one) * _unit(other)).sum())
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def _expect_exact(case: Case, moment: Moment) -> None:
    true = true_gradient(case, moment)
    got = _joined(directions(moment.step), true, list(true))
    name = 'the gradient of a rule that is tagged "exact", compared with that of autograd,'
    expect_close(name, got, _joined(true, true, list(true)), ROUNDING)


def _joined(grads: Tensors, like: Tensors, names: list[str]) -> Tensor:
    return torch.cat([grads.get(n, torch.zeros_like(like[n])).double().flatten() for n in names])


def _unit(vector: Tensor) -> Tensor:
    """The vector at length 1, however short it is."""
    scaled = vector / vector.abs().max()
    unit: Tensor = scaled / scaled.norm()
    return unit


def true_gradient(case: Case, moment: Moment) -> Tensors:
    """By plain autograd, which shares nothing with the numerics that rules are made of."""
    leaves = {name: p.clone().requires_grad_() for name, p in moment.params.items()}
    mean = case.tiny.task.loss(case.tiny.net.run(leaves, moment.batch.x), moment.batch.y).mean()
    return dict(zip(leaves, torch.autograd.grad(mean, list(leaves.values())), strict=True))
