"""Results that rulezoo 0.1.0 stored are read by this version, and count as those of the same runs."""

from pathlib import Path

import pytest

from rulezoo.discovery.registry import discover
from rulezoo.results.freshness import stale
from rulezoo.results.store import Store

STORES = sorted(
    path.parent for path in (Path(__file__).resolve().parent.parent / "leaderboard").glob("*/runs")
)

pytestmark = pytest.mark.skipif(not STORES, reason="the stored results are not in this distribution")


@pytest.mark.parametrize("folder", STORES, ids=lambda path: path.name)
def test_stored_results_are_read_whole(folder):
    content = Store(folder).read()
    assert not content.damaged
    assert content.records
    for record in content.records:
        assert record == Store(folder).get(record.asked), "found again by the key of its specification"


def test_results_of_0_1_0_whose_code_is_unchanged_are_not_stale():
    records = [record for folder in STORES for record in Store(folder).read().records]
    former = [record for record in records if record.answered.packages["rulezoo"] == "0.1.0"]
    assert former
    zoo = discover()
    assert not [record.asked for record in former if record.asked.rule == "backprop" and stale(record, zoo)]
