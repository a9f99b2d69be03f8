"""The conformance suite of evaluations, as results to report or as tests for pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.evaluation import Evaluation
from rulezoo.specs import EvaluationSpec
from rulezoo.testing import declarations, evaluation_checks, purity
from rulezoo.testing.check import ByFunction, CheckResult, outcomes, parametrized
from rulezoo.testing.evaluation_checks import EvaluationCase, trained_network
from rulezoo.testing.nets import KINDS, TinyTask

if TYPE_CHECKING:
    import pytest

    from rulezoo.testing.on_task import TaskNet
    from rulezoo.trained import TrainedNetwork

CHECKS = (
    evaluation_checks.check_evaluation_spec,
    declarations.check_options,
    declarations.check_frozen_value,
    evaluation_checks.check_headline,
    evaluation_checks.check_applies,
    evaluation_checks.check_values,
    evaluation_checks.check_repeatable,
    evaluation_checks.check_network_unmodified,
    evaluation_checks.check_other_network,
)


@dataclass(frozen=True)
class EvaluationCheck(ByFunction):
    """One check of one evaluation; see `rulezoo.testing.Check`.

    Attributes:
        evaluation: the evaluation, or the spec that loads it (when the check is called, not before).
        function: the check.
        spec: what a plugin says about the evaluation.
        root: the folder of data sets.
        on: networks of tasks to check it on, in addition to the tiny ones.
        made: what the checks of one evaluation share, so that networks are trained once.
    """

    evaluation: Evaluation | EvaluationSpec
    function: Callable[[EvaluationCase], str | None]
    spec: EvaluationSpec | None
    root: Path | None
    on: tuple[TaskNet, ...] = field(repr=False)
    made: dict[str, EvaluationCase] = field(repr=False)

    @property
    def id(self) -> str:
        """``calibration:repeatable``; an evaluation without a spec goes by the name of its class."""
        return f"{type(self.evaluation).__name__ if self.spec is None else self.spec.name}:{self.name}"

    def __call__(self) -> str | None:
        """Run it; returns what was measured."""
        with purity.undisturbed():
            if "case" not in self.made:
                given = self.evaluation
                made: Evaluation = given.load()() if isinstance(given, EvaluationSpec) else given
                self.made["case"] = EvaluationCase(made, self.spec, self.root, _networks(self.on, self.root))
            return self.function(self.made["case"])


def _networks(on: Sequence[TaskNet], root: Path | None) -> dict[str, Callable[[], TrainedNetwork]]:
    tiny = {kind: partial(trained_network, f"tiny-{kind}", TinyTask(kind)) for kind in KINDS}
    return {
        **tiny,
        **{one.name: partial(trained_network, one.name, one.task, one.root or root) for one in on},
    }


def evaluation_checks_of(
    evaluation: Evaluation | EvaluationSpec,
    *,
    spec: EvaluationSpec | None = None,
    root: Path | None = None,
    on: Sequence[TaskNet] = (),
) -> Iterator[EvaluationCheck]:
    """Every check of an evaluation; nothing is loaded or run before a check is called."""
    known = evaluation if isinstance(evaluation, EvaluationSpec) else spec
    made: dict[str, EvaluationCase] = {}
    yield from (EvaluationCheck(evaluation, function, known, root, tuple(on), made) for function in CHECKS)


def check_evaluation(
    evaluation: Evaluation | EvaluationSpec,
    *,
    spec: EvaluationSpec | None = None,
    root: Path | None = None,
    on: Sequence[TaskNet] = (),
    expected_failures: Mapping[str, str] | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> list[CheckResult]:
    """Run the conformance suite on an evaluation.

    Args:
        evaluation: a spec, or an evaluation made with options of your choice.
        spec: of an evaluation that was made with options: what its plugin says about it.
        root: the folder of data sets; where data are missing, the evaluation is not examined.
        on: networks of tasks to check it on, in addition to the tiny ones; see `rulezoo.testing.task_net`.
        expected_failures: as for `rulezoo.testing.check_rule`.
        report: likewise.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    return outcomes(evaluation_checks_of(evaluation, spec=spec, root=root, on=on), expected_failures, report)


def parametrize_evaluation_checks(
    evaluations: Iterable[Evaluation | EvaluationSpec],
    *,
    root: Path | None = None,
    on: Sequence[TaskNet] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test for each check of each evaluation; see `parametrize_rule_checks`."""
    return parametrized(
        (check for one in evaluations for check in evaluation_checks_of(one, root=root, on=on)),
        expected_failures,
    )
