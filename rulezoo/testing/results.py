"""Checks of what a step returns: gradients, updates, loss and logs.

The first line of a check's docstring is the promise to which it holds a rule, as a report prints it.
"""

from __future__ import annotations

from rulezoo.testing.case import Case, flat_step, walk
from rulezoo.testing.expect import expect, expect_close, expect_finite, expect_like, listed

ROUNDING = 1e-7  # of a tensor's norm, in float64


def check_gradients(case: Case) -> None:
    """Gradients and updates have the names, shapes and dtypes of parameters, are finite, and carry no graph."""
    for moment in walk(case):
        known = moment.params | {f"rule.{n}": p for n, p in moment.state.params.items()}
        step = moment.step
        for kind, tensors in (("grads", step.grads), ("updates", step.updates)):
            for name, tensor in tensors.items():
                expect(name in known, f"{kind}[{name!r}] belongs to no parameter; there are {listed(known)}")
                expect_like(f"{kind}[{name!r}] of step {moment.t}", tensor, known[name])
        both = sorted(step.grads.keys() & step.updates.keys())
        expect(
            not both,
            f"step {moment.t} returns a gradient and an update of {listed(both)}; return one of the two",
        )
        expect_finite(f"of step {moment.t}", flat_step(moment.step))
        for name, tensor in flat_step(moment.step).items():
            expect(not tensor.requires_grad, f"{name} of step {moment.t} still carries a graph; detach it")


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
                f"the loss of step {t}, beside the mean loss of predict(),", step.loss, mean, ROUNDING
            )
        for name, log in step.logs.items():
            expect(
                log.shape == (), f"logs[{name!r}] of step {t} must be a scalar, got shape {tuple(log.shape)}"
            )
