"""The conformance suites that every plugin must pass, built in or not, and tiny networks to test on.

`check_rule` and its siblings give results to report; `parametrize_rule_checks` and its siblings give tests to pytest::

    from rulezoo.testing import parametrize_rule_checks

    @parametrize_rule_checks([MyRule()])
    def test_conformance(check):
        check()

All checks of rules run in float64 on the CPU, but for those that are about something else.
"""

from __future__ import annotations

from rulezoo.testing.case import Case
from rulezoo.testing.check import Check, CheckResult
from rulezoo.testing.claim_suite import ClaimCheck, check_claim, parametrize_claim_checks
from rulezoo.testing.evaluation_checks import EvaluationCase, trained_network
from rulezoo.testing.evaluation_suite import (
    EvaluationCheck,
    check_evaluation,
    parametrize_evaluation_checks,
)
from rulezoo.testing.expect import CheckFailed, NotApplicable, NotExamined
from rulezoo.testing.nets import TinyNet, TinyTask, tiny_net, tiny_nets
from rulezoo.testing.on_task import TaskNet, task_net
from rulezoo.testing.suite import RuleCheck, check_rule, parametrize_rule_checks, rule_checks
from rulezoo.testing.task_checks import TaskCase
from rulezoo.testing.task_suite import TaskCheck, check_task, parametrize_task_checks

__all__ = [
    "Case",
    "Check",
    "CheckFailed",
    "CheckResult",
    "ClaimCheck",
    "EvaluationCase",
    "EvaluationCheck",
    "NotApplicable",
    "NotExamined",
    "RuleCheck",
    "TaskCase",
    "TaskCheck",
    "TaskNet",
    "TinyNet",
    "TinyTask",
    "check_claim",
    "check_evaluation",
    "check_rule",
    "check_task",
    "parametrize_claim_checks",
    "parametrize_evaluation_checks",
    "parametrize_rule_checks",
    "parametrize_task_checks",
    "rule_checks",
    "task_net",
    "tiny_net",
    "tiny_nets",
    "trained_network",
]
