"""Every evaluation of networks and their answers, and the page that explains it."""

import re
from pathlib import Path

import pytest

from rulezoo.options import declared
from rulezoo_evaluations import _networks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluations.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not beside these tests")


def section(name):
    return re.search(
        rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )[1]


@pytest.mark.parametrize("spec", _networks(), ids=lambda spec: spec.name)
def test_its_section_says_what_the_catalogue_says(spec):
    evaluation = spec.load()
    row = re.search(rf"^\| \[`{spec.name}`\].*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)[0]
    better = "higher" if evaluation.higher_is_better else "lower"
    assert f"| `{evaluation.headline}` | {better} |" in row
    assert "**What it does not show.**" in section(spec.name)
    for link in re.findall(r"https://\S+?(?=[,;)\s]|$)", spec.reference):
        assert link in section(spec.name)
    assert evaluation().resolved().keys() == declared(evaluation).keys()


@pytest.mark.parametrize(
    "spec", [s for s in _networks() if s.name != "human-confusions"], ids=lambda spec: spec.name
)
def test_its_section_names_every_value(spec, stripes):
    evaluation = spec.load()
    small = {"examples": 20, "levels": 2, "steps": 2, "resamples": 2}
    made = evaluation(**{name: value for name, value in small.items() if name in declared(evaluation)})
    if reason := made.skip(stripes):
        pytest.skip(reason)
    for name in made.measure(stripes, None).values:
        assert f"`{name.removesuffix('/untrained')}`" in section(spec.name), name


def test_the_section_on_people_names_every_value():
    import numpy as np

    from rulezoo_evaluations.human_confusions import HumanConfusions

    labels = np.arange(40) % 10
    values, arrays = HumanConfusions(splits=1).of(
        np.eye(10)[labels], 5 * np.eye(10, dtype=int)[labels] + 1, labels, 1.0
    )
    for name in [*values, *(name for name in arrays if name != "correct")]:
        assert f"`{name}`" in section("human-confusions"), name
