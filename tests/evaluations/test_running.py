"""Evaluations of stored networks: carried out, stored, taken up again; what goes wrong stays alone."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rulezoo import Measurement, OptionError
from rulezoo.discovery.former_fingerprints import first
from rulezoo.errors import UnknownName, UserError, WeightsError
from rulezoo.evaluations import store as stored
from rulezoo.evaluations.measuring import measured
from rulezoo.evaluations.network import network_of
from rulezoo.evaluations.request import requested
from rulezoo.evaluations.running import NotMade, evaluate, outstanding, stale, wanted_again
from rulezoo.results.reading import Unreadable


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.plan, self.began, self.ended = None, [], []

    def planned(self, total, done):
        self.plan = (total, done)

    def started(self, one):
        self.began.append(one)

    def finished(self, one, evaluated, reason):
        self.ended.append((one, evaluated, reason))


def carried_out(store, records, evaluations, **options):
    heard = Heard()
    not_made = evaluate(store, records, evaluations, heard, **options)
    return heard, not_made


def test_what_was_measured_is_stored_with_its_provenance(store, zoo, kept):
    (size,) = requested(zoo, ["size"], {"size": {"power": "3"}})
    heard, not_made = carried_out(store, kept, [size])
    assert (heard.plan, not_made, len(heard.began)) == ((3, 0), NotMade(), 3)
    found = stored.read(store)
    assert not found.damaged
    by_run = {(one.asked.rule, one.asked.seed): one for one in found.found}
    one = by_run["backprop", 1]
    network = network_of(store, next(r for r in kept if r.asked.key == one.asked.run), zoo)
    wanted = size.made.measure(network, None)
    assert one.status == "ok"
    assert one.values == {"size": wanted.values["size"], "seed": 1.0, "never": None}
    assert one.notes == {"never": "it cannot be known"}
    assert (one.headline, one.higher_is_better, one.label) == ("size", False, "size power=3.0")
    assert np.array_equal(stored.arrays_of(store, one)["file"], wanted.arrays["file"])
    assert (one.data, one.plugin.distribution) == ("abc", "evaluations_of_tests.py")
    assert one.code is not None
    assert one.packages["torch"]
    assert one.hardware is not None
    skipped = by_run["frozen", 0]
    assert (skipped.status, skipped.reason) == ("skipped", "this rule is never measured")


def test_what_is_stored_is_not_measured_again_until_it_is_asked_for_or_the_weights_are_others(
    store, zoo, kept
):
    evaluations = requested(zoo, ["size"], {})
    carried_out(store, kept[:1], evaluations)
    heard, _ = carried_out(store, kept, evaluations)
    assert heard.plan == (3, 1)
    assert outstanding(store, kept, evaluations) == ([], 3)
    assert len(outstanding(store, kept, evaluations, wanted_again(["all"], zoo))[0]) == 3
    assert outstanding(store, kept, evaluations, wanted_again(["failed", "stale"], zoo))[0] == []
    other = msgspec.structs.replace(kept[0], weights="0" * 64)
    ((one,), _) = outstanding(store, [other, *kept[1:]], evaluations)
    assert one.record is other
    assert outstanding(store, kept, requested(zoo, ["size"], {"size": {"power": "3"}}))[1] == 0


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("raise", "error", "ValueError: no luck in "),
        ("leave", "error", "SystemExit: 4"),
        ("exit", "crashed", "evaluation 'odd' of backprop on tiny, seed 0, ended its process with exit code 3"),
        ("meddle", "error", "the evaluation changed 'fc1.weight' of the network"),
        ("none", "error", "measure() must return a rulezoo.Measurement, got a NoneType"),
        ("headless", "error", "the measurement has no value 'odd', which is the headline; its values are: even"),
        ("inf", "error", "value 'odd' of a measurement must be finite"),
        ("mumble", "error", "skip() must return None or the reason why it does not apply, in a sentence, got 'no'"),
        ("hang", "crashed", "did not finish within 3 s"),
    ],
)  # fmt: skip
def test_a_broken_evaluation_is_stored_with_its_reason_and_harms_no_other(
    store, zoo, kept, how, status, reason
):
    limit = 3.0 if how == "hang" else 60.0
    evaluations = requested(zoo, ["odd", "size"], {"odd": {"how": how}})
    carried_out(store, kept[:2], evaluations, limit=limit)
    found = stored.read(store).found
    odd = [one for one in found if one.asked.evaluation == "odd"]
    assert [one.status for one in odd] == [status] * 2
    assert all(reason in one.reason for one in odd if one.asked.seed == 0)
    assert "secret" not in odd[0].reason
    assert str(Path.home() / "secret") not in (odd[0].traceback or "")
    assert (odd[0].traceback is not None) == (status == "error")
    size = [one for one in found if one.asked.evaluation == "size"]
    network = network_of(store, kept[1], zoo)
    assert [one.status for one in size] == ["ok"] * 2
    wanted = evaluations[1].made.measure(network, None).values["size"]
    assert size[1].values["size"] == wanted  # also where the one before it changed the network
    assert len(outstanding(store, kept[:2], evaluations, wanted_again(["failed"], zoo))[0]) == 2


def test_missing_data_are_said_and_nothing_is_stored_of_them(store, zoo, kept, tmp_path):
    evaluations = requested(zoo, ["odd", "size"], {"odd": {"how": "missing"}})
    _, not_made = carried_out(store, kept[:2], evaluations, data=tmp_path)
    assert not_made == NotMade(missing=(f"the recordings are not in {tmp_path}; see the documents",))
    assert [one.asked.evaluation for one in stored.read(store).found] == ["size", "size"]


def test_weights_that_cannot_be_used_are_named(store, zoo, kept):
    store.kept_path(kept[0].asked, "weights").write_bytes(b"not weights")
    heard, not_made = carried_out(store, kept, requested(zoo, ["size"], {}))
    (reason,) = not_made.unusable
    assert "is not the file that the record names" in reason
    assert [bool(evaluated) for _, evaluated, _ in heard.ended] == [False, True, True]


def test_a_run_without_weights_says_how_to_get_them(store, zoo):
    (record,) = [record for record in store.read().records if not record.weights]
    with pytest.raises(
        WeightsError, match=r"were not kept; run again with --keep-weights; seeds? .* took about"
    ):
        network_of(store, record, zoo, others=store.read().records)


def test_an_evaluation_is_stale_where_its_code_its_version_or_the_weights_changed(store, zoo, kept):
    carried_out(store, kept[:1], requested(zoo, ["size"], {}))
    (one,) = stored.read(store).found
    assert stale(one, zoo, kept[0]) is None
    changed = msgspec.structs.replace
    assert stale(changed(one, code="0" * 16), zoo) == "the code of evaluation size changed since"
    former = first(zoo.evaluations["size"].spec.module)
    assert stale(changed(one, code=former), zoo) is None, "by the first definition of a fingerprint"
    older = changed(one, asked=changed(one.asked, version=2))
    assert stale(older, zoo) == "size is of version 2 of the evaluation, now 1"
    assert "other weights" in stale(one, zoo, changed(kept[0], weights="0" * 64))
    assert stale(changed(one, code=None), zoo) is None


@pytest.mark.parametrize(
    ("names", "options", "kind", "reason"),
    [
        (["siz"], {}, UnknownName, "unknown evaluation 'siz'; did you mean 'size'?"),
        (["size"], {"size": {"powr": "2"}}, OptionError, "size has no option 'powr'; did you mean 'power'?"),
        (["size"], {"size": {"power": "0"}}, OptionError, r"size.power must be a number in \[1, inf\), got '0'"),
        (["size"], {"odd": {"how": "exit"}}, UserError, "'odd' is not among the evaluations asked for"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_said_before_anything_is_measured(zoo, names, options, kind, reason):
    with pytest.raises(kind, match=reason):
        requested(zoo, names, options)


def test_all_stands_for_every_evaluation_and_a_former_name_for_the_one_of_today(zoo):
    assert {"size", "odd"} <= {one.name for one in requested(zoo, ["all"], {})}
    (one,) = requested(zoo, ["magnitude"], {"magnitude": {"power": "3"}})
    assert (one.name, one.made.power) == ("size", 3.0)


def test_files_that_were_changed_are_named_and_left_out(store, zoo, kept):
    carried_out(store, kept[:2], requested(zoo, ["size"], {}))
    one, other = stored.read(store).found
    path = stored.path(store, one.asked)
    path.write_text(path.read_text().replace("it cannot be known", "it is 3"))
    stored.path(store, other.asked).with_suffix(".npz").write_bytes(b"")
    reading = stored.read(store)
    assert [damage.path for damage in reading.damaged] == [path.relative_to(store.root).as_posix()]
    assert "it was changed after it was written" in reading.damaged[0].reason
    with pytest.raises(Unreadable, match="is not the file that the record names"):
        stored.arrays_of(store, reading.found[0])
    assert stored.get(store, one.asked) is None


def test_an_evaluation_in_this_process_is_the_same(store, zoo, kept):
    (size,) = requested(zoo, ["size"], {})
    found = measured(size.made, network_of(store, kept[0], zoo), None)
    assert isinstance(found.measurement, Measurement)
    assert math.isnan(found.measurement.values["never"])
