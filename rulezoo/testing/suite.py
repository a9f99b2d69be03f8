"""The conformance suite of rules: every check on every network, as results to report or as tests for pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rulezoo.rule import LearningRule
from rulezoo.specs import RuleSpec
from rulezoo.testing import (
    backward,
    by_heart,
    declarations,
    gradients,
    learning,
    limits,
    purity,
    results,
    states,
    transport,
)
from rulezoo.testing.case import Case
from rulezoo.testing.check import ByFunction, CheckResult, outcomes, parametrized
from rulezoo.testing.examined import Examined
from rulezoo.testing.expect import NotApplicable, NotExamined, expect_sentence
from rulezoo.testing.nets import KINDS, SPIKING, cached_net
from rulezoo.testing.networks import Network
from rulezoo.testing.on_task import TaskNet

if TYPE_CHECKING:
    import pytest

ONCE = (
    declarations.check_spec,
    declarations.check_options,
    declarations.check_frozen_value,
    declarations.check_no_sites,
    declarations.check_no_readout,
    limits.check_limits,
    purity.check_memory,
)
ON_EVERY_NET = (
    results.check_gradients,
    results.check_loss,
    learning.check_learns,
    gradients.check_hidden_gradients,
    gradients.check_signal,
    gradients.check_backprop,
    transport.check_weight_transport,
    backward.check_backward_pass,
    backward.check_net_run,
    purity.check_arguments_unmodified,
    purity.check_deterministic,
    purity.check_randomness,
    purity.check_global_settings,
    purity.check_predict,
    states.check_state_layout,
    states.check_vmap,
    states.check_checkpoint,
    states.check_float32,
    states.check_batch_of_one,
    states.check_changing_batch,
    states.check_gpu,
)
# Whether a rule learns within a small budget is asked of tiny networks; on tasks it is trained for longer, as they say.
ON_TASKS = (
    *(check for check in ON_EVERY_NET if check is not learning.check_learns),
    by_heart.check_noise,
    by_heart.check_from_training,
    by_heart.check_other_data,
)


@dataclass(frozen=True)
class RuleCheck(ByFunction):
    """One check of one rule; see `rulezoo.testing.Check`.

    Attributes:
        rule: the rule, or the spec that loads it (when the check is called, not before).
        function: the check.
        net: name of the network; ``None`` for a check that does not go through all of them.
        spec: what a plugin says about the rule, where ``rule`` is not the spec itself.
        seed: of the sizes, names and data of the drawn networks.
        on: the network of a task, where it is none of the tiny ones.
    """

    rule: LearningRule | RuleSpec
    function: Callable[[Case], str | None]
    net: str | None
    spec: RuleSpec | None = None
    seed: int = 0
    on: TaskNet | None = None

    @property
    def id(self) -> str:
        """``nmnc:vmap:cnn``; a rule without a spec goes by the name of its class."""
        return ":".join(filter(None, (_called(self.rule, self.spec), self.name, self.net)))

    def _spec(self) -> RuleSpec | None:
        return self.rule if isinstance(self.rule, RuleSpec) else self.spec

    def __call__(self) -> str | None:
        """Run it; returns what was measured."""
        with purity.undisturbed():
            rule = self.rule.load()() if isinstance(self.rule, RuleSpec) else self.rule
            tiny = self._network()
            reason = rule.skip(tiny.net, tiny.task) if self.net else None
            if reason is not None:
                expect_sentence(reason)
                raise NotApplicable(f"the rule skips this network: {reason}")
            if self.name == "weight_transport" and tiny.net.depth > 1:
                raise NotApplicable(
                    f"this network has blocks of {tiny.net.depth} layers in series, in which the errors of every rule travel "
                    "through forward weights; a comparison measures how far they do"
                )
            return self.function(Case(rule, self._spec(), tiny, self.seed))

    def _network(self) -> Network:
        if self.on is None:
            return cached_net(self.net or KINDS[0])
        try:
            _ = self.on.net
        except NotExamined as reason:  # which the check that it is examined tells, once
            raise NotApplicable(str(reason)) from reason
        return self.on


def _kinds(spec: RuleSpec | None) -> tuple[str, ...]:
    return KINDS if spec is None or "snn" not in spec.tags else (*KINDS, *SPIKING)


def _itself(on: TaskNet) -> TaskNet:
    return on


def _called(rule: LearningRule | RuleSpec, spec: RuleSpec | None) -> str:
    known = rule if isinstance(rule, RuleSpec) else spec
    return type(rule).__name__ if known is None else known.name


def rule_checks(
    rule: LearningRule | RuleSpec,
    nets: Collection[str] | None = None,
    *,
    spec: RuleSpec | None = None,
    seed: int = 0,
    on: Sequence[TaskNet] = (),
) -> Iterator[RuleCheck | Examined]:
    """Every check of a rule, on the tiny networks ``nets`` and those of tasks; each is run when it is called.

    ``None`` stands for a multilayer perceptron, a convolutional and two recurrent networks; and for two of spiking neurons,
    if the rule's spec has the tag ``snn``.
    """
    called = _called(rule, spec)
    nets = _kinds(rule if isinstance(rule, RuleSpec) else spec) if nets is None else nets
    yield from (RuleCheck(rule, function, None, spec, seed) for function in ONCE)
    if not on:
        yield Examined(rule, called, {net: partial(cached_net, net) for net in nets})
    yield from (RuleCheck(rule, function, net, spec, seed) for net in nets for function in ON_EVERY_NET)
    for task in on:
        yield Examined(rule, called, {task.name: partial(_itself, task)}, task.name)
        yield from (RuleCheck(rule, function, task.name, spec, seed, task) for function in ON_TASKS)


def check_rule(
    rule: LearningRule | RuleSpec,
    *,
    spec: RuleSpec | None = None,
    nets: Collection[str] | None = None,
    on: Sequence[TaskNet] = (),
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
    report: Callable[[int, int, str], None] | None = None,
) -> list[CheckResult]:
    """Run the conformance suite on a rule.

    A `RuleSpec` is checked for what it declares, too: the tag ``exact`` says that the rule is the exact gradient; its
    plausibility, that hidden layers do not learn (``hidden_learning=False``), that the feedback path reads no forward
    weight (``weight_transport=False``), that no gradient goes from block to block (``backward_pass=False``); its
    limits, which other rule it becomes with which options.

    Args:
        rule: a spec, or a rule made with options of your choice.
        spec: of a rule that was made with options: what its plugin says about it.
        nets: the tiny networks to check it on; see `rule_checks`.
        on: networks of tasks to check it on, too, with their data; see `task_net`.
        expected_failures: pattern of `Check.id` (``"my-rule:vmap:*"``) → the reason why it cannot hold. A check that
            passes although it was declared to fail is reported as failed.
        seed: of the sizes, names and data of networks that are drawn for some checks.
        report: called before each check with the number of those done, that of all, and the check's `Check.id`.

    Returns:
        what came of each check; of a rule that cannot be loaded or made with its defaults the check ``spec`` alone. Where
        the rule skips every network, or the network of a task in ``on``, the check
        ``examined`` says so, and its outcome is ``"not examined"``.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    if isinstance(rule, RuleSpec) and not _can_be_made(
        rule
    ):  # then every check would fail for the same reason
        return outcomes([RuleCheck(rule, declarations.check_spec, None, spec, seed)], None, report)
    return outcomes(rule_checks(rule, nets, spec=spec, seed=seed, on=on), expected_failures, report)


def _can_be_made(spec: RuleSpec) -> bool:
    try:
        spec.load()()
    except Exception:  # noqa: BLE001  foreign code raises anything; the check of the spec reports it
        return False
    return True


def parametrize_rule_checks(
    rules: Iterable[LearningRule | RuleSpec],
    *,
    nets: Collection[str] | None = None,
    on: Sequence[TaskNet] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test for each check of each rule.

    A rule that skips every network fails the test ``examined``.

    ::

        @parametrize_rule_checks([MyRule()])
        def test_conformance(check):
            check()

    Args:
        rules: specs, or rules made with options of your choice.
        nets: the tiny networks to check them on; see `rule_checks`.
        on: networks of tasks to check them on, too, with their data; see `task_net`.
        expected_failures: as for `check_rule`; they become strict xfails.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    checks = (check for rule in rules for check in rule_checks(rule, nets, on=on))
    return parametrized(checks, expected_failures)
