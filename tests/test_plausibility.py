"""What rules declare of their plausibility: variants by options, and the built-in rules' declarations against what they do."""

import pytest
import torch

from rulezoo import Net, Plausibility, RuleSpec, State, Variant, credit
from rulezoo.credit import derivatives
from rulezoo.discovery.registry import discover
from rulezoo.options import configure, is_written
from rulezoo.rule import LearningRule
from rulezoo.specs import SpecError
from rulezoo.testing import CheckFailed, rule_checks, tiny_net

ONLINE = Plausibility(True, False, True, "vector", False, phases=2, past_storage=False)
RANDOM = Variant(("mode=random",), {"weight_transport": False})


def spec(*variants, plausibility=ONLINE, target="m:C"):
    return RuleSpec("a", target, "A rule.", plausibility=plausibility, variants=variants)


@pytest.mark.parametrize(
    ("options", "transport"),
    [({}, True), ({"mode": "symmetric"}, True), ({"mode": "random"}, False), ({"other": "random"}, True)],
)
def test_options_decide_what_holds(options, transport):
    assert spec(RANDOM).plausibility_with(options).weight_transport is transport
    assert spec().plausibility_with(options) == ONLINE
    assert spec(plausibility=None).plausibility_with(options) is None


def test_of_several_variants_the_later_ones_win():
    one = spec(
        Variant(("a=1",), {"phases": 1, "perturbation": True}),
        Variant(("b=true",), {"phases": 5}),
        Variant(("a=1", "b=true"), {"phases": "3 per site"}),
    )
    marks = {
        key: one.plausibility_with(dict(key)).phases
        for key in [(("a", 1),), (("b", True),), (("a", 1.0), ("b", True))]
    }
    assert list(marks.values()) == [1, 5, "3 per site"]
    assert one.plausibility_with({"a": 1, "b": True}).perturbation is True


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [
        (1e-5, "1e-5", True), (1e-5, "0.00001", True), (1, "1.0", True), (1, "true", False), (True, "true", True),
        (True, "1", False), (None, "none", True), (None, "0", False), ("auto", "auto", True), ("1", "1", True),
        (32, "auto", False), (float("nan"), "nan", False),
    ],
)  # fmt: skip
def test_a_value_has_the_words_of_the_command_line(value, text, same):
    assert is_written(value, text) is same


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variant(("mode",), {"phases": 1}), "an option of a variant must read 'option=value', got 'mode'"),
        (lambda: Variant((), {"phases": 1}), "a variant must name options and what they change, like Variant("),
        (lambda: Variant(("a=1",), {}), "a variant must name options and what they change"),
        (lambda: Variant(("a=1",), (("phases", 1),)), "a variant must name options and what they change"),
        (lambda: Variant(("a=1",), {"weight_transprt": False}), "did you mean 'weight_transport'?"),
        (lambda: Variant(("a=1",), {"x": False}), "its fields are weight_transport, backward_pass"),
        (lambda: spec(RANDOM, plausibility=None), "a has variants, but no plausibility that they could change"),
        (lambda: spec("mode=random"), "variants of a must be a tuple of Variant"),
        (lambda: spec(Variant(("mode=x",), {"signal": "local"})), "a with mode=x: signal 'local' is now called"),
        (lambda: spec(Variant(("mode=x",), {"phases": -1})), "a with mode=x: phases must be a whole number"),
        (
            lambda: spec(Variant(("a=1",), {"signal": "none", "hidden_learning": False}), Variant(("b=1",), {"signal": "scalar"})),
            "a with a=1, b=1: hidden layers that do not learn receive no error signal",
        ),
        (
            lambda: spec(Variant(("a=1", "b=none"), {"phases": 1}), Variant(("b=None", "a=1.0"), {"phases": 2})),
            "a has two variants with a=1 and b=none; give one, with the changes of both",
        ),
    ],
)  # fmt: skip
def test_a_variant_that_says_nothing_is_refused(make, message):
    with pytest.raises(SpecError) as caught:
        make()
    assert message in str(caught.value)


def test_variants_that_exclude_each_other_need_not_agree():
    fixed = Variant(("mode=fixed",), {"signal": "none", "hidden_learning": False})
    scalar = Variant(("mode=scalar",), {"signal": "scalar"})
    assert spec(fixed, scalar).plausibility_with({"mode": "fixed"}).hidden_learning is False
    assert hash(spec(fixed, scalar)) == hash(spec(fixed, scalar))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mod=random", "an option 'mod' that the rule does not have; did you mean 'mode'?"),
        ("mode=radnom", "a variant of a cannot hold: mode must be 'symmetric' or 'random', got 'radnom'"),
    ],
)
def test_verify_holds_a_variant_to_the_options_of_the_rule(word, message):
    variant = Variant((word,), {"weight_transport": False})
    (check,) = [
        one
        for one in rule_checks(spec(variant, target="rulezoo_plugins.recurrent.online:EProp"))
        if one.name == "spec"
    ]
    with pytest.raises(CheckFailed) as caught:
        check()
    assert message in str(caught.value)


BUILT_IN = discover().specs()
RELAXING = {"predictive coding", "equilibrium propagation", "contrastive Hebbian learning"}
VARIANTS = [(name, ()) for name in BUILT_IN] + [
    (name, one.options) for name, spec in BUILT_IN.items() for one in spec.variants
]


def made(name, options) -> LearningRule:
    return configure(BUILT_IN[name].load(), name, dict(word.split("=") for word in options))


@pytest.mark.parametrize("name", [name for name, spec in BUILT_IN.items() if spec.variants])
def test_the_variants_of_a_built_in_rule_are_options_that_it_has(name):
    (check,) = [one for one in rule_checks(BUILT_IN[name]) if one.name == "spec"]
    check()


def served(rule, first):
    """A tiny network that the rule serves."""
    nets = (tiny_net(kind) for kind in (first, "snn-deep", "snn"))
    return next(tiny for tiny in nets if rule.skip(tiny.net, tiny.task) is None)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_built_in_rule_makes_as_many_passes_as_it_declares(name, options, monkeypatch):
    """Forward passes are counted; a backward pass, or the noise of a weight mirror through single layers, is one more.

    A rule that relaxes pulls errors back at every step of its relaxation, each time a pass.
    """
    rule = made(name, options)
    tiny = served(rule, "rnn" if "rnn" in BUILT_IN[name].tags else "mlp")
    params, batch = tiny.params(), tiny.batch()
    gen = torch.Generator().manual_seed(0)
    state = rule.init(tiny.net, params, batch, gen)
    t = 50  # no step at which a manifold is looked for, which would be one more
    noise = rule.noise(tiny.net, state, batch, gen, t)
    runs, run = [], Net.run

    def counted(self, *words, **more):
        runs.append(1)
        return run(self, *words, **more)

    def pulled(function, at):
        value, pull = value_and_pull(function, at)

        def counted(cotangents, **more):
            pulls.append(1)
            return pull(cotangents, **more)

        return value, counted

    pulls, value_and_pull = [], derivatives.value_and_pull
    if BUILT_IN[getattr(rule, "rule", name)].family in RELAXING:
        monkeypatch.setattr(derivatives, "value_and_pull", pulled)
        monkeypatch.setattr(credit, "value_and_pull", pulled)
    monkeypatch.setattr(Net, "run", counted)
    rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)

    declared = BUILT_IN[name].plausibility_with(rule.resolved())
    layers = name in (
        "mirrored",
        "mirrored-manifold",
        "weight-mirror",
        "nmnc-layerwise",
        "nmnc-layerwise-regression",
        "spike-timing-alignment",
    )
    extra = len(runs) - 1 + (len(pulls) or declared.backward_pass) + layers
    if isinstance(declared.phases, str):
        assert extra == int(declared.phases.split()[0]) * len(tiny.net.keys("post"))
    else:
        assert extra == declared.phases


@pytest.mark.parametrize("name", ["lagged-noise-correlation", "lagged-nmnc"])
@pytest.mark.parametrize("options", [(), ("horizon=0",)])
def test_lagged_noise_correlation_needs_the_past_unless_its_horizon_is_zero(name, options):
    tiny = tiny_net("rnn-every-step")
    rule, params, batch = made(name, options), tiny.params(), tiny.batch()
    state = rule.init(tiny.net, params, batch, torch.Generator().manual_seed(0))
    ones = {key: torch.ones_like(b) if key.startswith("feedback") else b for key, b in state.buffers.items()}
    error = torch.zeros(len(batch.x), *tiny.net.output_shape, dtype=batch.x.dtype)
    error[:, 2] = 1.0
    signals = rule.signals(tiny.net, error, State(state.params, ones))
    taught = [t for t, key in enumerate(tiny.net.keys("post")) if signals[key].any()]
    stored = BUILT_IN[name].plausibility_with(rule.resolved()).past_storage
    assert taught == ([0, 1, 2] if stored else [2])
    assert stored is (not options)
