"""Hyper-parameters: what is legal, how text becomes a value, what a bad declaration is told."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import ClassVar, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulezoo import OptionError, hp
from rulezoo.options import Configurable, Option, as_text, configure, declared


@dataclass(frozen=True)
class Thing(Configurable):
    constant: ClassVar[int] = 3
    sigma: float = hp(0.1, "size of the noise", low=0, high=1)
    every: int = hp(10, "period in steps", low=1)
    rank: int | float = hp(8, "number, or fraction of variance", low=0)
    clip: float | None = hp(None, "largest norm; none = no limit", low=0)
    both: bool = hp(False, "two sides")
    mode: str = hp("slow", "how", choices=("slow", "fast"))


OPTIONS = declared(Thing)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sigma", "1", 1.0),
        ("sigma", "2e-3", 0.002),
        ("every", "3", 3),
        ("rank", "16", 16),
        ("rank", "0.9", 0.9),
        ("rank", "1.0", 1.0),
        ("clip", "None", None),
        ("clip", "5", 5.0),
        ("both", "TRUE", True),
        ("mode", "fast", "fast"),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(name, text, value):
    read = OPTIONS[name].read(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sigma", "1.0001"),
        ("sigma", "-1e-9"),
        ("sigma", "nan"),
        ("sigma", "none"),
        ("sigma", "true"),
        ("every", "0"),
        ("every", "2.5"),
        ("every", "1e3"),
        ("clip", "inf"),
        ("both", "1"),
        ("mode", "Fast"),
        ("mode", ""),
    ],
)
def test_a_refusal_names_option_bounds_value_and_meaning(name, text):
    option = OPTIONS[name]
    with pytest.raises(OptionError) as caught:
        configure(Thing, "thing", {name: text})
    legal = re.split(r", (?![^\[(]*[\])])", option.bounds)  # not at the comma of an interval
    for part in (f"thing.{name} ", *legal, repr(text), option.doc):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", "0.5"),
        ("sigma", True),
        ("sigma", [0.5]),
        ("every", True),
        ("every", 1.0),
        ("rank", math.inf),
    ],
)
def test_values_from_python_are_checked_too(name, value):
    with pytest.raises(OptionError, match=f"{name} must be"):
        Thing(**{name: value})


def test_bounds_in_words():
    words = {name: option.bounds for name, option in OPTIONS.items()}
    assert words == {
        "sigma": "[0, 1]",
        "every": "[1, inf)",
        "rank": "[0, inf)",
        "clip": "none, [0, inf)",
        "both": "true, false",
        "mode": "slow, fast",
    }
    assert Option("x", "", "doc", (str,)).bounds == "any text"


def test_an_unknown_option_is_told_the_near_names_or_else_all():
    with pytest.raises(OptionError, match=r"thing has no option 'sigmma'; did you mean 'sigma'\?"):
        configure(Thing, "thing", {"sigmma": "1"})
    with pytest.raises(OptionError, match="it has sigma, every, rank, clip, both, mode"):
        configure(Thing, "thing", {"qqq": "1"})


def test_equal_values_give_one_identity():
    from_python, from_text = Thing(sigma=1, clip=2), configure(Thing, "thing", {"sigma": "1", "clip": "2"})
    assert repr(from_python.resolved()) == repr(from_text.resolved())


def test_every_field_is_in_the_identity_and_no_constant():
    assert list(Thing().resolved()) == [field.name for field in dataclasses.fields(Thing)]


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.none() | st.booleans() | NUMBERS | st.sampled_from(["slow", "fast"]))
def test_the_text_of_a_value_reads_back_as_it(value):
    option = Option("x", None, "doc", (type(None), bool, int, float, str), choices=("slow", "fast"))
    read = option.read(as_text(value))
    assert (read, type(read)) == (value, type(value))


def test_older_spellings_of_a_union_are_understood():
    @dataclass(frozen=True)
    class Old(Configurable):
        clip: Optional[float] = hp(None, "limit")  # noqa: UP045  what is tested

    assert declared(Old)["clip"].types == (type(None), float)


def test_a_field_outside_of_the_identity_is_refused():
    @dataclass(frozen=True)
    class Forgotten(Thing):
        gain: float = 1.0

    with pytest.raises(OptionError, match=r"Forgotten\.gain must be declared with rulezoo\.hp"):
        Forgotten()


def test_an_undecorated_class_is_refused():
    class Undecorated(Thing):
        gain: float = hp(1.0, "factor")

    with pytest.raises(OptionError, match=r"Undecorated must be decorated with @dataclass\(frozen=True\)"):
        Undecorated()


def test_a_type_that_no_text_stands_for_is_refused():
    @dataclass(frozen=True)
    class Odd(Configurable):
        sizes: tuple[int, ...] = hp((1,), "sizes")

    with pytest.raises(OptionError, match=r"Odd\.sizes must be bool, int, float, str, None or a union"):
        declared(Odd)


def test_a_default_out_of_its_own_bounds_is_refused():
    @dataclass(frozen=True)
    class Wrong(Configurable):
        rate: float = hp(2.0, "rate", low=0, high=1)

    with pytest.raises(OptionError, match=r"rate must be a number in \[0, 1\], got 2\.0"):
        Wrong()


@pytest.mark.parametrize(
    ("types", "bounds", "expected"),
    [
        ((int, float, str), {"low": 1e-6, "choices": ("auto",)}, "a number in [1e-06, inf) or 'auto'"),
        ((type(None), int), {"low": 1}, "a whole number in [1, inf) or none"),
        ((bool,), {}, "true or false"),
        ((str,), {"choices": ("a", "b", "c")}, "'a', 'b' or 'c'"),
        ((float,), {}, "a number"),
        ((str,), {}, "text"),
    ],
)
def test_a_refusal_says_what_was_expected_in_words(types, bounds, expected):
    option = Option("rank", None, "the rank", types, **bounds)
    with pytest.raises(OptionError) as refused:
        option.check(object())
    assert str(refused.value).startswith(f"rank must be {expected}, got <object")
