"""Rules that are not what they say, each caught by the check that is meant for it, and an honest twin that passes it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch.func import functional_call

from rulezoo import LearningRule, Net, Plausibility, RuleSpec, State, Step, credit
from rulezoo.testing import CheckFailed, rule_checks
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.node_perturbation.rules import NodePerturbation

DIRECT = Plausibility(
    weight_transport=False, backward_pass=False, update_locking=True, signal="vector", perturbation=False
)
PERTURBING = Plausibility(
    weight_transport=False, backward_pass=False, update_locking=True, signal="scalar", perturbation=True
)
SILENT = Plausibility(
    weight_transport=False, backward_pass=False, update_locking=False, signal="none", perturbation=False
)
KEPT: dict[object, dict[str, torch.Tensor]] = {}


@dataclass(frozen=True)
class Direct(DirectFeedbackAlignment):
    """Honest."""


@dataclass(frozen=True)
class Sometimes(DirectFeedbackAlignment):
    """Backprop, unless it is (or believes to be) looked at."""

    def looked_at(self, net, params, batch, t):
        raise NotImplementedError

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        if self.looked_at(net, params, batch, t):
            return step
        return step._replace(grads=credit.backprop(net, loss, params, *batch)[0])


class UnlessFirstStep(Sometimes):
    """Dishonest."""

    def looked_at(self, net, params, batch, t):
        return t == 0


class UnlessEarly(Sometimes):
    """Dishonest: short trials never see it."""

    def looked_at(self, net, params, batch, t):
        return t < 10


class UnlessKnownByName(Sometimes):
    """Dishonest."""

    def looked_at(self, net, params, batch, t):
        return "fc1.weight" in params or "conv1.weight" in params


class UnlessKnownByShape(Sometimes):
    """Dishonest."""

    def looked_at(self, net, params, batch, t):
        return net.output_shape == (3,) and batch.x[0].numel() == 5


class UnlessLargeBatch(Sometimes):
    """Dishonest: comparisons have larger batches than a check may have."""

    def looked_at(self, net, params, batch, t):
        return len(batch.x) < 42


class TransportUnlessRepeated(DirectFeedbackAlignment):
    """Dishonest: a batch with an example twice is a check's."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        rows = batch.x.flatten(1)
        twice = (rows[:, None] == rows[None]).all(-1).sum() > len(rows)
        true, _ = credit.backprop(net, loss, params, *batch)
        grads = {n: torch.where(twice, g, true[n] + 0.1 * g) for n, g in step.grads.items()}
        return step._replace(grads=grads)


class StandsStill(DirectFeedbackAlignment):
    """Dishonest: gradients of the right size, at a learning rate of nothing."""

    def rates(self, net):
        return dict.fromkeys(net.shapes.keys() - net.readout, 1e-12)


@dataclass(frozen=True)
class Deaf(LearningRule):
    """Honest: hidden layers shrink, whatever the targets are."""

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, *batch, only=net.readout)
        hidden = {n: p * 0.01 for n, p in params.items() if n not in net.readout}
        return Step({**hidden, **grads}, state, mean)


class UnlessFloat64(Sometimes):
    """Dishonest."""

    def looked_at(self, net, params, batch, t):
        return batch.x.dtype == torch.float64


class UnlessBatchOf12(Sometimes):
    """Dishonest."""

    def looked_at(self, net, params, batch, t):
        return len(batch.x) in (1, 12)


class UnlessMarked(Sometimes):
    """Dishonest: it knows the network that watches gradients, and adds just enough to be at an angle."""

    def looked_at(self, net, params, batch, t):
        return type(net) is not Net


@dataclass(frozen=True)
class TinyElsewhere(Direct):
    """Dishonest: on all networks but the first, hidden layers learn nothing."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        if "fc1.weight" in params:
            return step
        return step._replace(grads={n: g if n in net.readout else 1e-30 * g for n, g in step.grads.items()})


@dataclass(frozen=True)
class SkipsWhatItDoesNotKnow(Direct):
    """Dishonest."""

    def skip(self, net, task):
        return None if "fc1.weight" in net.shapes else "it knows one network only"


@dataclass(frozen=True)
class UphillElsewhere(Direct):
    """Dishonest: it learns on the first network only. (With -B direct feedback would be as good as with B.)"""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        if "fc1.weight" in params:
            return step
        true, _ = credit.backprop(net, loss, params, *batch)
        return step._replace(grads={n: g if n in net.readout else -g for n, g in true.items()})


@dataclass(frozen=True)
class Perturbing(NodePerturbation):
    """Honest."""


@dataclass(frozen=True)
class BackpropUnlessSilent(Perturbing):
    """Dishonest: it is backprop unless all its noise is zero, past `Net.run`."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        if not any(bool(z.any()) for z in noise.values()):
            return step
        off = {n: 0.05 * torch.sin(torch.arange(p.numel()).to(p)).view_as(p) for n, p in params.items()}

        def mean(p):
            return loss(functional_call(net.module, p, (batch.x,)), batch.y).mean()

        grads = torch.func.grad(mean)(params)
        return step._replace(grads={n: g + g.norm() * off[n] for n, g in grads.items()})


@dataclass(frozen=True)
class TransportByNoise(Direct):
    """Dishonest: the weights of the read-out, times how large the noise is."""

    def noise(self, net, state, batch, gen, t):
        return {"z": torch.randn(len(batch.x), 3, generator=gen, dtype=batch.x.dtype)}

    def step(self, net, loss, params, state, batch, noise, t):
        last = net.visits[net.keys("post")[-1]].site
        weight = next(params[n] for n in net.readout if params[n].ndim == 2)
        size = noise["z"].abs().mean()
        buffers = {**state.buffers, f"feedback.{last}": size * weight}
        step = super().step(net, loss, params, State({}, buffers), batch, noise, t)
        return step._replace(state=state)


@dataclass(frozen=True)
class NoisyDirect(Direct):
    """Honest: noise that it does not need."""

    def noise(self, net, state, batch, gen, t):
        return {"z": torch.randn(len(batch.x), 3, generator=gen, dtype=batch.x.dtype)}


@dataclass(frozen=True)
class TransportWhenLate(Direct):
    """Dishonest."""

    def step(self, net, loss, params, state, batch, noise, t):
        last = net.visits[net.keys("post")[-1]].site
        weight = next(params[n] for n in net.readout if params[n].ndim == 2)
        buffers = {**state.buffers, **({f"feedback.{last}": weight} if t > 5 else {})}
        return super().step(net, loss, params, State({}, buffers), batch, noise, t)._replace(state=state)


@dataclass(frozen=True)
class TransportInBatches(TransportWhenLate):
    """Dishonest."""

    def step(self, net, loss, params, state, batch, noise, t):
        return super().step(net, loss, params, state, batch, noise, 6 if len(batch.x) > 1 else 0)


@dataclass(frozen=True)
class TransportInSingle(TransportWhenLate):
    """Dishonest: what is trained is in float32, what is checked mostly in float64."""

    def step(self, net, loss, params, state, batch, noise, t):
        return super().step(
            net, loss, params, state, batch, noise, 6 if batch.x.dtype == torch.float32 else 0
        )


@dataclass(frozen=True)
class BackwardWhenLate(Direct):
    """Dishonest: feedback alignment, layer by layer, after a few steps."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        if t < 9:
            return step
        feedback = {n: params[n].flip(0) for n in credit.backward_layers(net, params)}
        grads, _ = credit.through_feedback(net, loss, params, feedback, *batch)
        return step._replace(grads=grads)


@dataclass(frozen=True)
class Pepita(LearningRule):
    """Honest: the error perturbs the input of a second pass, in whose activity it learns."""

    def init(self, net, params, batch, gen):
        shape = net.output_shape[0], batch.x[0].numel()
        return State(buffers={"F": 0.1 * torch.randn(shape, generator=gen).to(batch.x)})

    def feedback(self, net, params, state):
        return state.buffers["F"]

    def step(self, net, loss, params, state, batch, noise, t):
        keys = net.keys("post")
        clean = credit.cut(net, params, batch.x, keys)
        error, mean = credit.output_error(loss, clean.output, batch.y)
        pushed = len(batch.x) * error @ self.feedback(net, params, state)
        second = credit.cut(net, params, batch.x + pushed.view_as(batch.x), keys)
        signals = {k: (h - second.sites[k]) / len(batch.x) for k, h in clean.sites.items()}
        return Step(second.pull(error, signals), state, mean)


@dataclass(frozen=True)
class PepitaByTheWeights(Pepita):
    """Dishonest: the error is projected to the input by the forward weights."""

    def feedback(self, net, params, state):
        first, second, last = (p for p in params.values() if p.ndim == 2)
        return 0.1 * last @ second @ first


@dataclass(frozen=True)
class Mirror(LearningRule):
    """Honest: feedback of the last site is learnt from the read-out's response to noise, by hand."""

    def init(self, net, params, batch, gen):
        return State(buffers={n: torch.zeros_like(params[n]) for n in self.last(net, params)})

    def last(self, net, params):
        return [n for n in net.readout if params[n].ndim == 2]

    def noise(self, net, state, batch, gen, t):
        return {
            n: torch.randn(50, b.shape[1], generator=gen, dtype=b.dtype) for n, b in state.buffers.items()
        }

    def learnt(self, weight, z):
        return (z @ weight.T).T @ z / len(z)

    def step(self, net, loss, params, state, batch, noise, t):
        (name,) = self.last(net, params)
        feedback = self.learnt(params[name], noise[name])
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        return Step(
            cut.pull(error, {net.keys("post")[-1]: error @ feedback}), State({}, {name: feedback}), mean
        )


@dataclass(frozen=True)
class MirrorThatCopies(Mirror):
    """Dishonest: the noise is for show."""

    def learnt(self, weight, z):
        return weight + 0 * z.mean()


@dataclass(frozen=True)
class CallsTheModule(Direct):
    """Dishonest: it differentiates the module itself, and says that there is no backward pass."""

    def called(self, net):
        return net.module

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        module = self.called(net)
        true = torch.func.grad(lambda p: loss(functional_call(module, p, (batch.x,)), batch.y).mean())(params)
        return step._replace(grads={n: g + 0.5 * step.grads[n] for n, g in true.items()})


@dataclass(frozen=True)
class CallsACopy(CallsTheModule):
    """Dishonest."""

    def called(self, net):
        return copy.deepcopy(net.module)


@dataclass(frozen=True)
class ReadsTheModule(Direct):
    """Dishonest: its feedback is the read-out's weight as the module holds it."""

    def step(self, net, loss, params, state, batch, noise, t):
        last = net.visits[net.keys("post")[-1]].site
        own = dict(net.module.named_parameters())
        weight = next(own[n].detach() for n in net.readout if own[n].ndim == 2)
        buffers = {**state.buffers, f"feedback.{last}": weight}
        return super().step(net, loss, params, State({}, buffers), batch, noise, t)._replace(state=state)


@dataclass(frozen=True)
class KeepsTheFirstWeights(Direct):
    """Dishonest: a global variable holds the weights of the first training."""

    def init(self, net, params, batch, gen):
        KEPT.setdefault(tuple(net.shapes), {n: p.clone() for n, p in params.items()})
        return super().init(net, params, batch, gen)

    def step(self, net, loss, params, state, batch, noise, t):
        last = net.visits[net.keys("post")[-1]].site
        weight = next(KEPT[tuple(net.shapes)][n] for n in net.readout if params[n].ndim == 2)
        buffers = {**state.buffers, f"feedback.{last}": weight}
        return super().step(net, loss, params, State({}, buffers), batch, noise, t)._replace(state=state)


@dataclass(frozen=True)
class KeepsTheLastWeights(KeepsTheFirstWeights):
    """Dishonest: a global variable holds the weights that init() saw last."""

    def init(self, net, params, batch, gen):
        KEPT[tuple(net.shapes)] = {n: p.clone() for n, p in params.items()}
        return DirectFeedbackAlignment.init(self, net, params, batch, gen)


@dataclass(frozen=True)
class ForwardByHand(Direct):
    """Dishonest: it multiplies copies of the weights by itself, and differentiates that."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)

        def mean(p):
            h, layers = batch.x, [n.removesuffix(".weight") for n in p if n.endswith("weight")]
            for name in layers:
                h = (h if name == layers[0] else torch.tanh(h)) @ p[f"{name}.weight"].T.clone()
                h = h + p[f"{name}.bias"]
            return loss(h, batch.y).mean()

        true = torch.func.grad(mean)(params)
        return step._replace(grads={n: g + 0.5 * step.grads[n] for n, g in true.items()})


@dataclass(frozen=True)
class BackwardByHand(Direct):
    """Dishonest: feedback alignment, layer by layer, written without autograd."""

    def step(self, net, loss, params, state, batch, noise, t):
        keys = net.keys("post")
        cut = credit.cut(net, params, batch.x, keys)
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals, above = {}, error
        for key in reversed(keys):
            h = cut.sites[key]
            draw = torch.Generator().manual_seed(above[0].numel())
            random = torch.randn(above[0].numel(), h[0].numel(), generator=draw).to(h)
            signals[key] = above @ random
            above = signals[key] * (1 - h.square())  # the derivative of tanh, one layer after the other
        return Step(cut.pull(error, signals), state, mean)


@dataclass(frozen=True)
class ByDifferences(LearningRule):
    """Dishonest: the gradient by finite differences, one parameter after the other, forwards."""

    def step(self, net, loss, params, state, batch, noise, t):
        flat = torch.cat([p.flatten() for p in params.values()])

        def mean(vector):
            parts = vector.split([p.numel() for p in params.values()])
            own = {n: part.view_as(p) for (n, p), part in zip(params.items(), parts, strict=True)}
            return loss(net.run(own, batch.x), batch.y).mean()

        slope = torch.func.vmap(
            lambda d: (mean(flat + 1e-5 * d) - mean(flat - 1e-5 * d)) / 2e-5, chunk_size=64
        )
        slopes = slope(torch.eye(len(flat)).to(flat)).split([p.numel() for p in params.values()])
        grads = {n: s.view_as(p) for (n, p), s in zip(params.items(), slopes, strict=True)}
        return Step(grads, state, mean(flat))


CAUGHT = [
    (BackpropUnlessSilent, "net_run", "mlp", "is called past Net.run", Perturbing, PERTURBING),
    (BackpropUnlessSilent, "weight_transport", "mlp", "reads a forward weight", Perturbing, PERTURBING),
    (TinyElsewhere, "hidden_gradients", "cnn", "have a size of .*e-3", Direct, DIRECT),
    (TinyElsewhere, "hidden_gradients", "mlp", "have a size of .*e-3", Direct, DIRECT),
    (SkipsWhatItDoesNotKnow, "hidden_gradients", "mlp", "skips a network of the same kind", Direct, DIRECT),
    (UphillElsewhere, "learns", "cnn", "training the read-out alone", Direct, DIRECT),
    (UnlessFirstStep, "backprop", "mlp", r"in step [1-9]\d* on mlp, .*another name", Direct, DIRECT),
    (UnlessEarly, "backprop", "mlp", "another name", Direct, DIRECT),
    (UnlessKnownByName, "backprop", "mlp", "on mlp of seed .*another name", Direct, DIRECT),
    (UnlessKnownByShape, "backprop", "mlp", "on mlp of seed .*another name", Direct, DIRECT),
    (UnlessFloat64, "backprop", "mlp", "on mlp of seed .*another name", Direct, DIRECT),
    (UnlessBatchOf12, "backprop", "mlp", "on mlp of seed .*another name", Direct, DIRECT),
    (UnlessLargeBatch, "backprop", "mlp", "on mlp of seed .*another name", Direct, DIRECT),
    (TransportUnlessRepeated, "weight_transport", "mlp", "reads a forward weight", Direct, DIRECT),
    (StandsStill, "hidden_gradients", "mlp", "no gradient other than zero reached", Direct, DIRECT),
    (StandsStill, "learns", "mlp", "training the read-out alone", Direct, DIRECT),
    (Direct, "signal", "mlp", "hidden layers do receive an error signal", Deaf, SILENT),
    (ByDifferences, "backprop", "mlp", "another name", Direct, DIRECT),
    (UnlessMarked, "backward_pass", "mlp", "while gradients are watched", Direct, DIRECT),
    (TransportByNoise, "weight_transport", "mlp", "reads a forward weight", NoisyDirect, DIRECT),
    (TransportWhenLate, "weight_transport", "mlp", r"did \(step \d{2,}\)", Direct, DIRECT),
    (TransportInBatches, "weight_transport", "mlp", "reads a forward weight", Direct, DIRECT),
    (TransportInSingle, "weight_transport", "mlp", "reads a forward weight", Direct, DIRECT),
    (BackwardWhenLate, "backward_pass", "mlp", "into the block in front", Direct, DIRECT),
    (PepitaByTheWeights, "weight_transport", "mlp", "reads a forward weight", Pepita, PERTURBING),
    (MirrorThatCopies, "weight_transport", "mlp", "reads a forward weight", Mirror, PERTURBING),
    (CallsTheModule, "net_run", "mlp", "is called past Net.run", Direct, DIRECT),
    (CallsACopy, "net_run", "cnn", "is called past Net.run", Direct, DIRECT),
    (ReadsTheModule, "net_run", "mlp", "the parameters of the module behind the network", Direct, DIRECT),
    (KeepsTheFirstWeights, "memory", None, "by a fresh import", Direct, DIRECT),
    (KeepsTheLastWeights, "deterministic", "mlp", "taken again after later ones", Direct, DIRECT),
    (KeepsTheLastWeights, "weight_transport", "mlp", "reads a forward weight", Direct, DIRECT),
    (ForwardByHand, "backward_pass", "mlp", "layers one behind another", Direct, DIRECT),
    (BackwardByHand, "backward_pass", "mlp", "its error comes through them", Direct, DIRECT),
]  # fmt: skip


def check_of(rule, name, net, marks):
    """One check of a rule that declares these marks."""
    spec = RuleSpec("mine", f"{__name__}:{rule.__name__}", "A rule.", plausibility=marks)
    return next(c for c in rule_checks(rule(), spec=spec) if c.name == name and c.net == net)


@pytest.mark.parametrize(
    ("rule", "name", "net", "message", "twin", "marks"),
    CAUGHT,
    ids=[f"{rule.__name__}-{name}-{net}" for rule, name, net, *_ in CAUGHT],
)
def test_a_dishonest_rule_is_caught_and_its_honest_twin_passes(rule, name, net, message, twin, marks):
    with pytest.raises(CheckFailed, match=message):
        check_of(rule, name, net, marks)()

    check_of(twin, name, net, marks)()
