"""The conformance suite that every rule must pass, built in or not, and tiny networks to test on.

`check_rule` gives results to report; `parametrize_rule_checks` gives tests to pytest::

    from rulezoo.testing import parametrize_rule_checks

    @parametrize_rule_checks([MyRule()])
    def test_conformance(check):
        check()

All checks run in float64 on the CPU, but for those that are about something else.
"""

from __future__ import annotations

from rulezoo.testing.case import Case
from rulezoo.testing.check import Check, CheckResult
from rulezoo.testing.expect import CheckFailed, NotApplicable
from rulezoo.testing.nets import TinyNet, TinyTask, tiny_net, tiny_nets
from rulezoo.testing.suite import RuleCheck, check_rule, parametrize_rule_checks, rule_checks

__all__ = [
    "Case",
    "Check",
    "CheckFailed",
    "CheckResult",
    "NotApplicable",
    "RuleCheck",
    "TinyNet",
    "TinyTask",
    "check_rule",
    "parametrize_rule_checks",
    "rule_checks",
    "tiny_net",
    "tiny_nets",
]
