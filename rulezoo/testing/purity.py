"""Checks that a rule is pure: it changes nothing, remembers nothing outside its state, and peeks at nothing."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import torch

from rulezoo.net import Tensors
from rulezoo.rule import LearningRule
from rulezoo.testing.case import (
    TIMES,
    Case,
    Moment,
    first_served,
    flat,
    flat_step,
    generator,
    other_targets,
    walk,
)
from rulezoo.testing.expect import NotApplicable, copied, expect, expect_close, expect_same, listed

COMPANY = 1e-9  # of a tensor's norm: a batch of another size is added up in another order


def check_arguments_unmodified(case: Case) -> None:
    """No argument is written to: not parameters, state, batch or noise, nor the network or the rule itself."""
    options = {field.name: getattr(case.rule, field.name) for field in fields(case.rule)}
    for moment in walk(case):
        t, params, state, batch, noise, _ = moment
        before = {what: copied(tensors) for what, tensors in _arguments(case, moment).items()}
        case.step(params, state, batch, noise, t)
        case.predict(params, state, batch.x)
        case.noise(state, batch, generator(0), t)
        case.rule.init(case.tiny.net, params, batch, generator(0))
        for what, tensors in _arguments(case, moment).items():
            expect_same(f"{what} of step {t}, after the rule's methods were called", tensors, before[what])
        for name, value in vars(case.rule).items():
            kept = name in options and value is options[name]
            expect(kept, f"the rule wrote to its own attribute {name!r}; memory belongs into its State")


def _arguments(case: Case, moment: Moment) -> dict[str, Tensors]:
    return {
        "the parameters": moment.params,
        "the state": flat(moment.state),
        "the batch": moment.batch._asdict(),
        "the noise": moment.noise,
        "the network": dict(case.tiny.net.module.state_dict()),
    }


def check_deterministic(case: Case) -> None:
    """The same arguments give the same result, bit for bit, whatever happened in between."""
    moments = list(walk(case))
    expect_same("the state, after init with the same seed,", flat(case.begin()[1]), flat(moments[0].state))
    for moment, again in zip(moments, walk(case), strict=True):
        expect_same(
            f"the noise of step {moment.t}, drawn again with the same seed", again.noise, moment.noise
        )
    for _ in walk(case, seed=1):  # another network: what init() keeps outside of the state is now of that one
        pass
    for t, params, state, batch, noise, step in moments:
        again_step = case.step(params, state, batch, noise, t)
        expect_same(f"step {t}, taken again after later ones", flat_step(again_step), flat_step(step))


def check_memory(case: Case) -> str:
    """Nothing is remembered outside of the State: a fresh import of the rule's module gives the same as this one.

    The rule has already met the first initial parameters; the fresh one has not, and trains others.
    """
    served = first_served(case)
    fresh = _imported_again(case.rule)
    if fresh is None:
        raise NotApplicable("the rule's class is not one of a module that can be imported again")
    for _ in walk(served):
        pass
    for moment, anew in zip(walk(served, seed=1), walk(replace(served, rule=fresh), seed=1), strict=True):
        what = f"step {moment.t}, by a fresh import of the rule's module"
        expect_same(what, flat_step(anew.step), flat_step(moment.step))
    return f"{len(TIMES)} steps by a fresh import"


def _imported_again(rule: LearningRule) -> LearningRule | None:
    """The same rule of a module that is executed again, with global variables of its own."""
    made = type(rule)
    module = sys.modules.get(made.__module__)
    file = getattr(module, "__file__", None)
    if file is None or getattr(module, made.__qualname__, None) is not made:
        return None
    spec = importlib.util.spec_from_file_location(made.__module__, file)
    if spec is None or spec.loader is None:
        return None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    fresh: LearningRule = getattr(again, made.__qualname__)(**rule.resolved())
    return fresh


def check_randomness(case: Case) -> None:
    """Randomness comes from the generator that is given; the global ones are not used."""
    before = _global_generators()
    for moment in walk(case):
        case.predict(moment.params, moment.state, moment.batch.x)
        other = case.noise(moment.state, moment.batch, generator(99), moment.t)
        for name, z in moment.noise.items():
            constant = name in other and torch.equal(z, other[name])
            expect(
                not constant,
                f"noise {name!r} is the same for two seeds; draw it from the generator that is given",
            )
    used = [name for name, state in _global_generators().items() if state != before[name]]
    expect(
        not used, f"the global generator of {listed(used)} was used; draw from the generator that is given"
    )


def _global_generators() -> dict[str, object]:
    import numpy as np

    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002  the legacy generator is the one to watch
        "python's random": random.getstate(),
    }


def check_global_settings(case: Case) -> None:
    """Torch's global settings are left alone."""
    before = _settings()
    for moment in walk(case):
        case.predict(moment.params, moment.state, moment.batch.x)
    changed = [
        f"{name} from {before[name]} to {now}" for name, now in _settings().items() if now != before[name]
    ]
    expect(not changed, f"the rule changed {listed(changed)}")


def _settings() -> dict[str, object]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the gradient mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the number of threads": torch.get_num_threads(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back what a broken rule may have changed, so that one check cannot fail another."""
    dtype, grad_mode, numbers = torch.get_default_dtype(), torch.is_grad_enabled(), random.getstate()
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad_mode)
            random.setstate(numbers)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def check_predict(case: Case) -> None:
    """Predictions depend on parameters, state and an example's own input; not on labels, nor on its company."""
    asked = set(inspect.signature(case.rule.predict).parameters) & {
        "y",
        "batch",
        "target",
        "targets",
        "label",
        "labels",
    }
    expect(not asked, f"predict() must not ask for {listed(asked)}")
    for t, params, _, batch, noise, step in walk(case):
        state = step.state  # it has seen the labels of this very batch
        output = case.predict(params, state, batch.x)
        wanted = (len(batch.x), *case.tiny.net.output_shape)
        expect(output.shape == wanted, f"predict() must return shape {wanted}, got {tuple(output.shape)}")

        relabelled = batch._replace(y=other_targets(batch.y))
        case.step(
            params, step.state, relabelled, noise, t
        )  # its result is not kept, so nothing may come of it
        again = case.predict(params, state, batch.x)
        expect_same(
            "a prediction, after a step whose result was not kept", {"output": again}, {"output": output}
        )

        others = torch.arange(
            len(batch.x) - 1, 1, -1, device=batch.x.device
        )  # turned round, and two left out
        part = case.predict(params, state, batch.x[others])
        expect_close("a prediction for the same examples in another batch", part, output[others], COMPANY)
