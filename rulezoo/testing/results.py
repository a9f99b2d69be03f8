"""Checks of what a step returns: gradients, updates, loss and logs.

The first line of a check's docstring is the promise to which it holds a rule, as a report prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rulezoo.testing.case import Case, flat_step, walk
from rulezoo.testing.expect import CheckFailed, expect, expect_close, expect_finite, expect_like
from rulezoo.training.rule_output import check_directions, check_rates

ROUNDING = 1e-7  # of a tensor's norm, in float64


def check_gradients(case: Case) -> None:
    """Gradients, updates and rates belong to parameters; tensors have their shapes and dtypes, are finite, carry no graph."""
    for moment in walk(case):
        known = moment.params | {f"rule.{n}": p for n, p in moment.state.params.items()}
        step = moment.step
        with _as_failure():
            check_rates(case.rule.rates(case.tiny.net), known)
            check_directions(step.grads, step.updates, {name: tuple(p.shape) for name, p in known.items()})
        for kind, tensors in (("grads", step.grads), ("updates", step.updates)):
            for name, tensor in tensors.items():
                expect_like(f"{kind}[{name!r}] of step {moment.t}", tensor, known[name])
        expect_finite(f"of step {moment.t}", flat_step(moment.step))
        for name, tensor in flat_step(moment.step).items():
            expect(not tensor.requires_grad, f"{name} of step {moment.t} still carries a graph; detach it")


@contextmanager
def _as_failure() -> Iterator[None]:
    """What the trainer refuses, in its words."""
    try:
        yield
    except ValueError as error:
        raise CheckFailed(str(error)) from error


def check_loss(case: Case) -> None:
    """The loss, if there is one, is the mean loss, before the update, of what the rule predicts; logs are scalars."""
    for t, params, state, batch, _, step in walk(case):
        if step.loss is not None:
            expect(
                step.loss.shape == (),
                f"the loss of step {t} must be a scalar, got shape {tuple(step.loss.shape)}",
            )
            mean = case.tiny.task.loss(case.predict(params, state, batch.x), batch.y).mean()
            expect_close(
                f"the loss of step {t}, next to the mean loss of predict(),", step.loss, mean, ROUNDING
            )
        for name, log in step.logs.items():
            expect(
                log.shape == (), f"logs[{name!r}] of step {t} must be a scalar, got shape {tuple(log.shape)}"
            )
