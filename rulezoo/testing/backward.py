"""Checks of how errors travel: by which passes, and from block to block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rulezoo import credit
from rulezoo.measures.locality import Marked
from rulezoo.rule import Batch, directions
from rulezoo.testing.byhand import marking_products
from rulezoo.testing.case import Case, Moment, flat, flat_step, generator, moments, needs_declaration
from rulezoo.testing.expect import expect, expect_close, expect_same, listed
from rulezoo.testing.watch import Watch

TURNED = 1e-6  # of a gradient's direction: what rounding may turn it by
WATCHED, WATCHED_SINGLE = 1e-9, 1e-4  # of a tensor's norm: marks add nothing but copies


def check_net_run(case: Case) -> str:
    """Passes go through Net.run, and nothing is read from the module behind it.

    Seen are calls of the module, of its parts, of copies of it, and of any module that holds the network's weights; and
    results that depend on the module's own parameters, which are not those that are trained.
    """
    passes = 0
    for variant in case.variants:
        for moment in moments(variant):
            t, params, state, batch, noise, step = moment
            watch = Watch(params)
            with watch.watching():
                variant.begin(batch=batch)
                variant.noise(state, batch, generator(t), t)
                seen = variant.step(params, state, batch, noise, t)
                passes = max(passes, watch.passes)
                variant.predict(params, state, batch.x)
            expect(
                not watch.modules,
                f"a {listed(watch.modules)} with the network's weights is called past Net.run, where neither passes nor "
                "gradients can be watched; call net.run(params, x, tap), or credit.between for a part",
            )
            expect_same(f"step {t}, taken while it is watched", flat_step(seen), flat_step(step))
            _expect_module_unread(variant, moment)
    return f"{passes} pass{'es' * (passes != 1)} in a step"


def _expect_module_unread(case: Case, moment: Moment) -> None:
    t, params, state, batch, noise, step = moment
    with _other_values(case.tiny.net.module):
        begun = flat(case.begin(batch=batch)[1])
        again = case.step(params, state, batch, noise, t)
        answer = case.predict(params, state, batch.x)
    what = "after the parameters of the module behind the network were changed (they are not those that are trained)"
    expect_same(f"step {t}, {what}", flat_step(again), flat_step(step))
    expect_same(f"the state of init, {what}", begun, flat(case.begin(batch=batch)[1]))
    expect_same(f"predict(), {what}", {"output": answer}, {"output": case.predict(params, state, batch.x)})


@contextmanager
def _other_values(module: nn.Module) -> Iterator[None]:
    """Give a module's own parameters other values for a while."""
    kept = [p.detach().clone() for p in module.parameters()]
    with torch.no_grad():
        for p, old in zip(module.parameters(), kept, strict=True):
            p.copy_(0.5 * old.flip(0) + 0.1)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(module.parameters(), kept, strict=True):
                p.copy_(old)


def check_backward_pass(case: Case) -> str:
    """No gradient passes from one block of the network into the block in front, where backward_pass=False.

    Seen is what autograd does, in passes of Net.run and in products with the network's weights elsewhere. What a rule
    that makes one pass without noise computes by hand shows in its result: the gradients of the first block do not
    depend on what the blocks behind are, as long as the output is the same.
    """
    needs_declaration(case, "backward_pass")
    for variant in (*case.variants, *case.disguised):
        for moment in moments(variant):
            _expect_no_crossing(variant, moment)
    for variant in case.variants:
        _expect_blocks_behind_unheard(variant)
    return f"0 of {len(case.tiny.net.keys('post'))} sites crossed"


def _expect_no_crossing(case: Case, moment: Moment) -> None:
    t, params, state, batch, noise, step = moment
    net = Marked(case.tiny.net)
    with marking_products(net, params):
        other = flat_step(case.rule.step(net, case.tiny.task.loss, params, state, batch, noise, t))
    found = net.travel()
    expect(
        not found.sites,
        f"gradients went through {listed(found.sites)} into the block in front, though the spec declares "
        "backward_pass=False; cut the graph there (rulezoo.credit.cut)",
    )
    deepest = max(net.depth, 1)
    expect(
        found.depth <= deepest,
        f"an error went through {found.depth} layers one behind another, and no block of the network has more than "
        f"{deepest}, though the spec declares backward_pass=False",
    )
    for name, tensor in flat_step(step).items():
        what = f"{name} of step {t}, taken while gradients are watched,"
        expect_close(what, other[name], tensor, WATCHED if tensor.dtype == torch.float64 else WATCHED_SINGLE)


def _expect_blocks_behind_unheard(case: Case) -> None:
    """Change all blocks but the first and the last so that the output stays, and compare gradients of the first."""
    net = case.tiny.net
    keys = net.keys("post")
    bias = next((n for n in sorted(net.readout) if net.shapes[n] == net.output_shape), None)
    if bias is None or len(keys) < 2 or net.keys("recurrent") or any("[" in key for key in keys):
        return
    x, y = case.tiny.batch(1, seed=7)
    batch = Batch(x.expand(12, *x.shape[1:]).clone(), y.expand(12, *y.shape[1:]).clone())
    for moment in moments(case):
        noise = case.noise(moment.state, batch, generator(moment.t), moment.t)
        moment = moment._replace(batch=batch, noise=noise)
        watch = Watch(moment.params)
        with watch.watching():
            step = case.step(moment.params, moment.state, batch, noise, moment.t)
        if watch.passes > 1 or noise:
            return
        first = _in_front_of(case, moment, keys[0])
        behind = {n: p for n, p in moment.params.items() if n not in first and n not in net.readout}
        gen = generator(moment.t)
        moved = {
            n: p + 0.5 * p.square().mean().sqrt() * torch.randn(p.shape, generator=gen, dtype=p.dtype)
            for n, p in behind.items()
        }
        params = {**moment.params, **moved}
        change = net.run(params, batch.x) - net.run(moment.params, batch.x)
        params[bias] = params[bias] - change[0]
        again = case.step(params, moment.state, batch, noise, moment.t)
        for name in sorted(first):
            before, after = (_direction(directions(one).get(name)) for one in (step, again))
            if before is None or after is None:
                continue
            turned = float((before - after).norm())
            expect(
                turned < TURNED,
                f"blocks behind {keys[0]} were changed so that the output stays, yet the gradient of {name} turned by "
                f"{turned:.2g}: its error comes through them, though the spec declares backward_pass=False",
            )


def _in_front_of(case: Case, moment: Moment, key: str) -> set[str]:
    """Names of the parameters that the activity at a site depends on."""
    cut = credit.cut(case.tiny.net, moment.params, moment.batch.x, [key])
    signal = torch.randn(cut.sites[key].shape, generator=generator(0), dtype=cut.output.dtype)
    grads = cut.pull(torch.zeros_like(cut.output), {key: signal})
    return {name for name, grad in grads.items() if grad.any()}


def _direction(gradient: Tensor | None) -> Tensor | None:
    return gradient / gradient.norm() if gradient is not None and gradient.any() else None
