"""Checks of a rule's memory, and of the ways in which a runner trains: together, interrupted, in any size and dtype."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from rulezoo.net import Tensors
from rulezoo.rule import Batch, State, Step
from rulezoo.testing.case import TIMES, Case, descend, flat, flat_step, generator, walk
from rulezoo.testing.expect import (
    CheckFailed,
    NotApplicable,
    expect,
    expect_close,
    expect_finite,
    expect_like,
    expect_same,
    listed,
)

SCHEDULED = (0, 1, 2, 3, 9, 10, 11, 99, 100, 101)  # where "every 10 steps" and the like fall due
SEEDS = range(3)
TOGETHER = (
    1e-8  # of a tensor's norm, in float64: batched kernels add up in another order, and steps amplify it
)
OTHER_MACHINE = 1e-6  # of a tensor's norm, in float64


def check_state_layout(case: Case) -> None:
    """The state keeps its keys, shapes, dtypes and devices at every step, and holds tensors only."""
    for t, _, state, _, _, step in walk(case, SCHEDULED):
        expect(
            isinstance(step.state, State), f"step {t} must return a State, got a {type(step.state).__name__}"
        )
        before, after = flat(state), flat(step.state)
        for name, tensor in after.items():
            expect(isinstance(tensor, Tensor), f"state.{name} is a {type(tensor).__name__}, not a tensor")
        expect(
            before.keys() == after.keys(), f"step {t} added or lost state.{listed(set(before) ^ set(after))}"
        )
        for name, tensor in after.items():
            expect_like(f"state.{name} of step {t}", tensor, before[name])


def check_vmap(case: Case) -> str:
    """Seeds trained together by torch.func.vmap equal seeds trained one by one."""
    if not case.rule.vmappable:
        raise NotApplicable("the rule declares vmappable = False")
    alone = [list(walk(case, seed=seed)) for seed in SEEDS]
    params = _stacked([moments[0].params for moments in alone])
    state = _stacked_states([moments[0].state for moments in alone])
    gens = [generator(seed + 1) for seed in SEEDS]
    largest = 0.0
    for t in TIMES:
        batches = [moments[t].batch for moments in alone]
        noise = [case.noise(_state_of(state, s), batches[s], gens[s], t) for s in SEEDS]
        step = _together(case, params, state, _stacked([b._asdict() for b in batches]), _stacked(noise), t)
        for name, tensors in flat_step(step).items():
            for seed in SEEDS:
                wanted = flat_step(alone[seed][t].step)[name]
                expect_close(
                    f"{name} of step {t}, trained with other seeds,", tensors[seed], wanted, TOGETHER
                )
                apart = float((tensors[seed] - wanted).double().norm())
                largest = max(largest, apart / max(float(wanted.double().norm()), 1e-300))
        params, state = descend(params, step)
    return f"{len(SEEDS)} seeds, apart by {largest:.0e} or less"


def _together(case: Case, params: Tensors, state: State, batch: Tensors, noise: Tensors, t: int) -> Step:
    def step(
        params: Tensors, owned: Tensors, buffers: Tensors, batch: Tensors, noise: Tensors
    ) -> tuple[Tensors, ...]:
        one = case.step(params, State(owned, buffers), Batch(**batch), noise, t)
        loss = {} if one.loss is None else {"loss": one.loss}
        return one.grads, one.state.params, one.state.buffers, loss, one.logs, one.updates

    try:
        made = torch.func.vmap(step)(params, state.params, state.buffers, batch, noise)
    except RuntimeError as error:
        raise CheckFailed(
            f"torch.func.vmap cannot take the step ({error}); mend it, or set vmappable = False"
        ) from error
    grads, owned, buffers, loss, logs, updates = made
    return Step(grads, State(owned, buffers), loss.get("loss"), logs, updates)


def _stacked(every: list[Tensors]) -> Tensors:
    return {name: torch.stack([tensors[name] for tensors in every]) for name in every[0]}


def _stacked_states(states: list[State]) -> State:
    return State(_stacked([s.params for s in states]), _stacked([s.buffers for s in states]))


def _state_of(state: State, seed: int) -> State:
    return State(
        {n: p[seed] for n, p in state.params.items()}, {n: b[seed] for n, b in state.buffers.items()}
    )


def check_checkpoint(case: Case) -> None:
    """Saved, loaded with weights_only=True and continued equals uninterrupted, bit for bit."""
    moments = list(walk(case))
    for moment, after in pairwise(moments):
        params, state = descend(moment.params, moment.step)
        file = io.BytesIO()
        torch.save({"net": params, "params": state.params, "buffers": state.buffers}, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        restored = State(loaded["params"], loaded["buffers"])
        step = case.step(loaded["net"], restored, after.batch, after.noise, after.t)
        expect_same(f"step {after.t}, after a checkpoint", flat_step(step), flat_step(after.step))


def check_float32(case: Case) -> None:
    """It works in float32, without float64 in what it returns."""
    single = replace(case, tiny=case.tiny.to(torch.float32))
    for moment in walk(single):
        made = flat_step(moment.step)
        double = [name for name, tensor in made.items() if tensor.dtype == torch.float64]
        expect(not double, f"on a float32 network {listed(double)} of step {moment.t} is float64")
        expect_finite(f"of step {moment.t} on a float32 network", made)


def check_batch_of_one(case: Case) -> None:
    """A batch of one example works, from the first step on."""
    params, state = case.begin(batch=case.tiny.batch(1))
    for t in TIMES:
        batch = case.tiny.batch(1, seed=t)
        step = case.step(params, state, batch, case.noise(state, batch, generator(t), t), t)
        expect_finite(f"of step {t} on a batch of one", flat_step(step))
        params, state = descend(params, step)


def check_changing_batch(case: Case) -> None:
    """Shorter and longer batches may follow each other; the state keeps its shapes."""
    sizes = (12, 5, 12, 1, 17)
    for moment in walk(case, range(len(sizes)), size=lambda t: sizes[t]):
        before, after = flat(moment.state), flat(moment.step.state)
        changed = [name for name in before if name in after and after[name].shape != before[name].shape]
        expect(not changed, f"a batch of {sizes[moment.t]} changed the shape of state.{listed(changed)}")
        expect_finite(f"of a batch of {sizes[moment.t]}", flat_step(moment.step))


def check_gpu(case: Case) -> None:
    """A step on a GPU equals the step on the CPU."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no GPU")
    there = replace(case, tiny=case.tiny.to(torch.float64, "cuda"))
    for t, params, state, batch, noise, step in walk(case):
        moved = State(_on_gpu(state.params), _on_gpu(state.buffers))
        made = there.step(_on_gpu(params), moved, Batch(batch.x.cuda(), batch.y.cuda()), _on_gpu(noise), t)
        for name, tensor in flat_step(made).items():
            expect(tensor.is_cuda, f"{name} of step {t} left the GPU")
            wanted = flat_step(step)[name]
            expect_close(f"{name} of step {t}, computed on the GPU,", tensor.cpu(), wanted, OTHER_MACHINE)


def _on_gpu(tensors: Tensors) -> Tensors:
    return {name: tensor.cuda() for name, tensor in tensors.items()}
