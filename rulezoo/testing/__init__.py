"""The conformance suites that every rule and task must pass, built in or not, and tiny networks to test on.

`check_rule` and `check_task` give results to report; `parametrize_rule_checks` and its sibling give tests to pytest::

    from rulezoo.testing import parametrize_rule_checks

    @parametrize_rule_checks([MyRule()])
    def test_conformance(check):
        check()

All checks of rules run in float64 on the CPU, but for those that are about something else.
"""

from __future__ import annotations

from rulezoo.testing.case import Case
from rulezoo.testing.check import Check, CheckResult
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
    "NotApplicable",
    "NotExamined",
    "RuleCheck",
    "TaskCase",
    "TaskCheck",
    "TaskNet",
    "TinyNet",
    "TinyTask",
    "check_rule",
    "check_task",
    "parametrize_rule_checks",
    "parametrize_task_checks",
    "rule_checks",
    "task_net",
    "tiny_net",
    "tiny_nets",
]
