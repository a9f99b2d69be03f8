"""What two runs, and two folders, differ in."""

import json

import msgspec
import pytest

from rulezoo.discovery import former_fingerprints
from rulezoo.results.comparing import compare, difference, provenance


def test_runs_with_the_same_numbers_are_identical_whatever_their_times_cost_and_provenance(run):
    later = {"started": "2027-01-01T00:00:00+00:00", "packages": {"torch": "3.0"}}
    assert difference(run(), run(answered=later, parameters=7)) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "diverged"}, "status: ok and diverged"),
        ({"test": 0.875}, "test accuracy: 0.9000 and 0.8750 (difference 0.025)"),
        ({"test": None}, "test accuracy: 0.9000 and none"),
        ({"test": 0.9 + 1e-8}, "test accuracy: 0.900000000 and 0.900000010 (difference 1e-08)"),
        ({"losses": (2.0, 1.5)}, "curves differ first in training loss at step 20: 1.0000 and 1.5000 (difference 0.5)"),
        ({"losses": (2.0,)}, "curves differ first in training loss at step 20: 1.0000 and none"),
        ({"logs": {"rank": [4.0, 6.0]}}, "curves differ first in rank at step 20: 5.0000 and 6.0000 (difference 1)"),
    ],
)  # fmt: skip
def test_a_difference_names_what_and_by_how_much(run, changes, expected):
    assert str(difference(run(), run(**changes))) == expected


def test_the_smallest_difference_of_a_number_counts(run):
    assert difference(run(losses=(2.0, 1.0)), run(losses=(2.0, 1.0 + 2**-52))).step == 20


def test_a_difference_in_status_has_no_size(run):
    assert difference(run(), run(status="diverged", scores={})).score is None
    assert difference(run(), run(losses=(1.0, 1.0))).score == 0


def test_every_part_of_the_provenance_that_differs_is_named(run):
    one = run().answered
    other = msgspec.structs.replace(
        one,
        packages={"torch": "2.16.0", "python": "3.11.7", "cuda": "13"},
        hardware=msgspec.structs.replace(one.hardware, threads=8, gpu="H200"),
        rule_plugin=msgspec.structs.replace(one.rule_plugin, version="0.2.0"),
        rule_code="f" * 16,
        data="e" * 16,
        seeds_together=5,
        compiled=True,
        commit="abc",
    )
    assert provenance(one, other) == [
        "cuda unknown, now 13",
        "torch 2.15.0, now 2.16.0",
        "threads of torch 1, now 8",
        "GPU unknown, now H200",
        "commit of rulezoo unknown, now abc",
        "code of the rule unknown, now ffffffffffffffff",
        "digest of the data unknown, now eeeeeeeeeeeeeeee",
        "seeds trained together 1, now 5",
        "torch.compile no, now yes",
        "origin of the rule rulezoo 0.1.0, now rulezoo 0.2.0",
    ]
    assert provenance(one, one) == []


def test_fingerprints_by_different_definitions_are_not_called_different_code(run, tmp_path, monkeypatch):
    table = tmp_path / "former.json"
    table.write_text(json.dumps({"0" * 16: f"2:{'1' * 16}"}), encoding="utf-8")
    monkeypatch.setattr(former_fingerprints, "TABLE", table)
    former_fingerprints._table.cache_clear()
    known, unknown, today = (
        run(answered={"rule_code": code}).answered for code in ("0" * 16, "5" * 16, f"2:{'1' * 16}")
    )
    assert provenance(known, today) == []
    (phrase,) = provenance(unknown, today)
    assert phrase == (
        "code of the rule 5555555555555555, now 2:1111111111111111 (one by an earlier definition of the fingerprint, so "
        "the code may be the same)"
    )
    former_fingerprints._table.cache_clear()


def test_folders_are_compared_by_key_and_counted_for_each_rule_on_each_task(run):
    first = [run(seed=0), run(seed=1), run(seed=2), run("backprop")]
    second = [run(seed=0), run(seed=1, test=0.8), run(seed=3), run("backprop", asked={"rule_version": 2})]
    found = compare(first, second)
    assert [record.asked.seed for record in found.first_only] == [2, 0]
    rows = {row.rule: row for row in found.rows()}
    nmnc, backprop = rows["nmnc"], rows["backprop"]
    assert (nmnc.first_only, nmnc.second_only, nmnc.identical, nmnc.different) == (1, 1, 1, 1)
    assert nmnc.score == pytest.approx(0.1)
    assert (backprop.first_only, backprop.second_only, backprop.identical, backprop.different) == (1, 1, 0, 0)
    assert backprop.score is None


# The command


def test_diff_exits_with_0_for_the_same_runs_1_for_others_and_2_for_no_folder(rulezoo, folder, run):
    a, b = folder("a", run(), run(seed=1)), folder("b", run(), run(seed=1, test=0.8))
    code, out, err = rulezoo("results", "diff", a.root, a.root)
    assert (code, err) == (0, "")
    assert out.startswith("2 runs in both: 2 identical, 0 different; 0 only in A")

    code, out, _ = rulezoo("results", "diff", a.root, b.root)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("2 runs in both: 1 identical, 1 different; 0 only in A")
    assert lines[3].split() == ["digits-cnn", "nmnc", "0", "0", "1", "1", "0.1"]
    assert "digits-cnn nmnc seed 1" in lines[5]
    assert "test accuracy: 0.9000 and 0.8000" in lines[5]

    code, _, err = rulezoo("results", "diff", a.root, a.root / "nothing")
    assert code == 2
    assert "no results in" in err


@pytest.mark.parametrize("extra", ["first", "second"])
def test_a_run_of_one_folder_only_is_a_difference(rulezoo, folder, run, extra):
    runs = [run(), run(seed=1)]
    a = folder("a", *(runs if extra == "first" else runs[:1]))
    b = folder("b", *(runs if extra == "second" else runs[:1]))
    code, out, _ = rulezoo("results", "diff", a.root, b.root)
    assert code == 1
    assert f"{int(extra == 'first')} only in A" in out
    assert f"{int(extra == 'second')} only in B" in out


def test_folders_with_a_damaged_file_are_not_called_the_same(rulezoo, folder, run):
    a = folder("a", run(), run(seed=1))
    b = folder("b", run(), run(seed=1))
    for store in (a, b):
        store.path(run(seed=1).asked).write_text("{}", encoding="utf-8")
    code, _, err = rulezoo("results", "diff", a.root, b.root)
    assert code == 1
    assert err.count("left out: ") == 2


def test_what_may_explain_a_difference_is_named(rulezoo, folder, run):
    a = folder("a", run())
    b = folder("b", run(test=0.8, answered={"packages": {"torch": "2.16.0", "python": "3.11.7"}}))
    assert "torch 2.15.0, now 2.16.0" in rulezoo("results", "diff", a.root, b.root)[1]
