"""Runs as a table and for TensorBoard: one line a run, each number exactly as stored."""

import csv
from importlib.util import find_spec

import pandas as pd
import pytest

from rulezoo.results import exporting


@pytest.fixture
def store(folder, run, probe):
    rank = {"rule_options": {"rank": "auto", "sigma": 0.25, "lr": None}}
    return folder(
        "results",
        run(test=0.1 + 0.2, asked={"rule_options": {"rank": 64, "sigma": 0.1}}, probes=[probe], changed=["rank"]),
        run(seed=1, asked=rank),
        run("backprop", asked={"rule_options": {"lr": 0.5, "bias": True}}, status="diverged", reason="a, \"b\"\nc",
            scores={}, losses=(1.0,), logs={}),
    )  # fmt: skip


PARQUET = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs rulezoo[export]")


def read(path):
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)


@pytest.mark.parametrize("name", ["runs.csv", pytest.param("runs.parquet", marks=PARQUET), "sub/RUNS.CSV"])
def test_one_line_a_run(rulezoo, store, tmp_path, name):
    code, out, err = rulezoo("results", "export", store.root, "--to", tmp_path / name)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / name}: 3 runs\n"
    frame = (pd.read_csv if name.lower().endswith("csv") else pd.read_parquet)(tmp_path / name)
    assert list(frame.key) == [record.asked.key for record in store.read().records]


@pytest.mark.parametrize("ending", [".csv", pytest.param(".parquet", marks=PARQUET)])
def test_numbers_are_exact_and_what_is_missing_is_empty(rulezoo, store, tmp_path, ending):
    rulezoo("results", "export", store.root, "--to", tmp_path / f"runs{ending}")
    frame = read(tmp_path / f"runs{ending}").astype({"seed": int}).set_index(["rule", "seed"])
    assert float(frame.loc[("nmnc", 0), "test"]) == 0.1 + 0.2
    assert float(frame.loc[("nmnc", 1), "rule.sigma"]) == 0.25
    assert [str(frame.loc[("nmnc", seed), "rule.rank"]) for seed in (0, 1)] == ["64", "auto"]
    assert frame.loc[("backprop", 0), "reason"] == 'a, "b"\nc'
    assert str(frame.loc[("backprop", 0), "rule.bias"]) == "True"
    missing = frame.loc[("backprop", 0), ["test", "rule.rank", "rule.sigma", "changed"]]
    assert missing.isna().all()
    assert frame.loc[("nmnc", 0), "changed"] == "rank"
    assert frame.loc[("nmnc", 0), "package.torch"] == "2.15.0"


def test_one_line_a_point_of_the_curves(rulezoo, store, tmp_path):
    code, out, _ = rulezoo("results", "export", store.root, "--to", tmp_path / "c.csv", "--what", "curves")
    assert (code, out) == (0, f"{tmp_path / 'c.csv'}: 5 points\n")
    text = (tmp_path / "c.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    nmnc = [line for line in lines if (line["rule"], line["seed"]) == ("nmnc", "0")]
    assert [(line["step"], line["train_loss"], line["log.rank"]) for line in nmnc] == [
        ("10", "2.0", "4.0"),
        ("20", "1.0", "5.0"),
    ]


@PARQUET
def test_one_line_a_probed_quantity(rulezoo, store, tmp_path):
    rulezoo("results", "export", store.root, "--to", tmp_path / "p.parquet", "--what", "probes")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert frame[["kind", "name", "quantity"]].to_numpy().tolist() == [
        ["site", "hidden", "angle"],
        ["parameter", "*", "alpha"],
        ["parameter", "*", "angle"],
    ]
    assert frame.value[[0, 2]].tolist() == [45.0, 50.0]
    assert pd.isna(frame.value[1])


def test_tensorboard_reads_curves_logs_probes_and_scores(rulezoo, store, run, tmp_path):
    event = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs rulezoo[export]"
    )
    code, _, err = rulezoo("results", "export", store.root, "--to", tmp_path / "tb")
    assert (code, err) == (0, "")
    record = next(one for one in store.read().records if one.probes)
    found = event.EventAccumulator(str(tmp_path / "tb" / "digits-cnn" / "nmnc" / f"seed0-{record.asked.key}"))
    found.Reload()

    def values(tag):
        return [(one.step, one.value) for one in found.Scalars(tag)]

    assert values("train_loss") == [(10, 2.0), (20, 1.0)]
    assert values("log/rank") == [(10, 4.0), (20, 5.0)]
    assert values("angle/hidden") == [(10, 45.0)]
    assert values("score/test") == [(20, pytest.approx(0.3))]
    assert len(list((tmp_path / "tb" / "digits-cnn").glob("*/*/events*"))) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--to", "runs.xlsx"), "a file must end in .csv or .parquet, got '.xlsx'"),
        (("--to", "tb", "--what", "curves"), "--what curves is for a table"),
        (("--to", "results"), "must be a new or an empty folder"),
        (("--to", "results/runs/x.csv/y.csv"), "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(rulezoo, store, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "runs" / "x.csv").write_text("", encoding="utf-8")
    code, _, err = rulezoo("results", "export", store.root, *words)
    assert code == 2
    assert expected in err


@pytest.mark.parametrize(("to", "module"), [("a.parquet", "pyarrow"), ("tb", "tensorboard")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    rulezoo, store, tmp_path, monkeypatch, to, module
):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == module else object())
    code, _, err = rulezoo("results", "export", store.root, "--to", tmp_path / to)
    assert code == 2
    assert f"needs {module}, which is not installed: pip install 'rulezoo[export]'" in err
    assert not (tmp_path / to).exists()


def test_an_empty_folder_gives_a_table_without_lines(rulezoo, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, _ = rulezoo("results", "export", tmp_path / "empty", "--to", tmp_path / "a.csv")
    assert (code, out) == (0, f"{tmp_path / 'a.csv'}: 0 runs\n")
