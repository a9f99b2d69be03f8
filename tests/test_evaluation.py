"""The contract of evaluations: what a measurement may hold."""

import math

import numpy as np
import pytest

from rulezoo import Evaluation, Measurement
from rulezoo.evaluation import MeasurementError


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"values": [1.0]}, "values of a measurement must be a dict, got a list"),
        ({"values": {1: 1.0}}, "names in values of a measurement must be texts, got 1"),
        ({"values": {"error": "low"}}, "value 'error' of a measurement must be a number, got 'low'"),
        ({"values": {"error": math.nan}}, r"or NaN with the reason in notes\['error'\], got nan"),
        ({"values": {"error": math.inf}, "notes": {"error": "why"}}, r"must be finite \(at most 1e\+100 in size\), .* got inf"),
        ({"values": {}, "arrays": {"curve": [1.0]}}, "array 'curve' of a measurement must be a numpy array, got list"),
        ({"values": {}, "arrays": {"a": np.array([None])}}, "must be a numpy array, got an array of object"),
        ({"values": {}, "notes": {"error": 3}}, "note 'error' of a measurement must be a text, got 3"),
        ({"values": {}, "data": None}, "data of a measurement must be a text, a hash, got None"),
    ],
)  # fmt: skip
def test_a_measurement_that_breaks_the_contract_says_which_value(kwargs, reason):
    with pytest.raises(MeasurementError, match=reason):
        Measurement(**kwargs)


def test_a_value_that_could_not_be_determined_has_its_reason():
    found = Measurement({"error": math.nan, "n": np.float32(3)}, notes={"error": "no example of this class"})
    assert math.isnan(found.values["error"])
    assert found.values["n"] == 3.0
    assert type(found.values["n"]) is float


def test_an_evaluation_without_measure_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"Evaluation must define measure\(\)"):
        Evaluation().measure(None, None)
