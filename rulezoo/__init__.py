"""rulezoo: a zoo of biologically plausible learning rules for PyTorch, compared fairly.

Everything a plugin needs is imported from here. Names are loaded when they are first used, so that
``import rulezoo`` and the listing commands stay free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rulezoo import claims as claims
    from rulezoo import credit as credit
    from rulezoo import datasets as datasets
    from rulezoo import manifold as manifold
    from rulezoo import nets as nets
    from rulezoo.api.calls import compare as compare
    from rulezoo.api.calls import load as load
    from rulezoo.api.calls import train as train
    from rulezoo.api.learner import Learner as Learner
    from rulezoo.api.results import Results as Results
    from rulezoo.api.run import Run as Run
    from rulezoo.discovery.hookspecs import hookimpl as hookimpl
    from rulezoo.errors import UserError as UserError
    from rulezoo.errors import WeightsError as WeightsError
    from rulezoo.evaluation import Evaluation as Evaluation
    from rulezoo.evaluation import Measurement as Measurement
    from rulezoo.evaluation import MeasurementError as MeasurementError
    from rulezoo.net import Layer as Layer
    from rulezoo.net import Net as Net
    from rulezoo.net import NetError as NetError
    from rulezoo.net import Site as Site
    from rulezoo.net import add_sites as add_sites
    from rulezoo.options import OptionError as OptionError
    from rulezoo.options import hp as hp
    from rulezoo.rule import Batch as Batch
    from rulezoo.rule import LearningRule as LearningRule
    from rulezoo.rule import State as State
    from rulezoo.rule import Step as Step
    from rulezoo.specs import ClaimSpec as ClaimSpec
    from rulezoo.specs import EvaluationSpec as EvaluationSpec
    from rulezoo.specs import Limit as Limit
    from rulezoo.specs import Plausibility as Plausibility
    from rulezoo.specs import RuleSpec as RuleSpec
    from rulezoo.specs import TaskSpec as TaskSpec
    from rulezoo.specs import Variant as Variant
    from rulezoo.task import Budget as Budget
    from rulezoo.task import Data as Data
    from rulezoo.task import DataMissing as DataMissing
    from rulezoo.task import Split as Split
    from rulezoo.task import Task as Task
    from rulezoo.trained import TrainedNetwork as TrainedNetwork

__version__ = "0.2.0"

_HOME = {
    "Batch": "rule",
    "Budget": "task",
    "ClaimSpec": "specs",
    "Data": "task",
    "DataMissing": "task",
    "Evaluation": "evaluation",
    "EvaluationSpec": "specs",
    "Learner": "api.learner",
    "LearningRule": "rule",
    "Limit": "specs",
    "Layer": "net",
    "Measurement": "evaluation",
    "MeasurementError": "evaluation",
    "Net": "net",
    "NetError": "net",
    "OptionError": "options",
    "Plausibility": "specs",
    "Results": "api.results",
    "RuleSpec": "specs",
    "Run": "api.run",
    "Site": "net",
    "Split": "task",
    "State": "rule",
    "Step": "rule",
    "Task": "task",
    "TaskSpec": "specs",
    "TrainedNetwork": "trained",
    "UserError": "errors",
    "Variant": "specs",
    "WeightsError": "errors",
    "add_sites": "net",
    "compare": "api.calls",
    "hookimpl": "discovery.hookspecs",
    "hp": "options",
    "load": "api.calls",
    "train": "api.calls",
}
_MODULES = ("claims", "credit", "datasets", "manifold", "nets")  # public modules: what plugins are made of

__all__ = [*sorted(_HOME), *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:  # noqa: ANN401  what it returns is declared above, for type checkers
    if name in _MODULES:
        return importlib.import_module(f"rulezoo.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'rulezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rulezoo.{_HOME[name]}"), name)
    globals()[name] = value
    return value
