"""Accuracy of NMNC against the cost of a step, for settings of its options, with VNC, the weight mirror and backprop.

The default of NMNC is chosen by validation accuracy at equal cost on ``digits-cnn``, ``digits-rnn`` and ``cifar10-cnn``
(half width, few examples), on seeds from 1000 on. ``--part test`` then trains the former default, the default and the
baselines on seeds and tasks that were not used to choose, and reports accuracy on test data. Cost is the time of a step
as a ratio to that of plain autograd backprop, sampled in turn in the same run. Every rule has the task's learning rate.

Each run is a line of ``nmnc_cost.jsonl`` as soon as it ends; a run that is there is not trained again, and ``--report``
writes the tables and the figure from that file without training anything.

    python benchmarks/nmnc_cost.py [--part choose|test] [--tasks digits-cnn,…] [--settings one-sided,…] [--minutes 60]
    python benchmarks/nmnc_cost.py --report
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rulezoo

HERE = Path(__file__).resolve().parent
RUNS, TABLES, FIGURE = (HERE / f"nmnc_cost.{kind}" for kind in ("jsonl", "md", "svg"))

Options = Mapping[str, Any]


class Setting(NamedTuple):
    """A rule with options, under the name that the tables have for it."""

    rule: str
    options: Options


class Study(NamedTuple):
    """A task with its scale, and the seeds on which rules are trained on it."""

    task: str
    options: Options
    epochs: int | None
    seeds: Sequence[int]


FORMER = {"antithetic": True, "every": 1, "rank": 32}  # the default of version 1 of the rule


def nmnc(**options: object) -> Setting:
    """NMNC with one-sided noise, unless otherwise said; every option that is compared is given, whatever the default."""
    return Setting("nmnc", {**FORMER, "antithetic": False, **options})


SETTINGS: dict[str, Setting] = {
    "backprop": Setting("backprop", {}),
    "frozen": Setting("frozen", {}),
    "weight mirror": Setting("weight-mirror", {}),
    "NMNC layerwise": Setting("nmnc-layerwise", {}),
    "NMNC layerwise, rank 128": Setting("nmnc-layerwise", {"rank": 128}),
    "VNC antithetic": Setting("noise-correlation", {"antithetic": True, "every": 1}),
    "VNC": Setting("noise-correlation", {"antithetic": False, "every": 1}),
    "VNC, every 2": Setting("noise-correlation", {"antithetic": False, "every": 2}),
    "VNC, every 4": Setting("noise-correlation", {"antithetic": False, "every": 4}),
    "antithetic": nmnc(antithetic=True),
    "one-sided": nmnc(),
    "every 2": nmnc(every=2),
    "every 4": nmnc(every=4),
    "every 8": nmnc(every=8),
    "rank 64": nmnc(rank=64),
    "rank 128": nmnc(rank=128),
    "rank 256": nmnc(rank=256),
    "antithetic, rank 128": nmnc(antithetic=True, rank=128),
    "every 2, rank 128": nmnc(every=2, rank=128),
    "every 2, rank 64": nmnc(every=2, rank=64),
    "every 2, rank 64, rate 0.05": nmnc(every=2, rank=64, rate=0.05),
    "every 2, rank 128, rate 0.05": nmnc(every=2, rank=128, rate=0.05),
    "rank 128, rate 0.05": nmnc(rank=128, rate=0.05),
    "every 2, 90 % of the variance": nmnc(every=2, rank=0.9),
    "every 2, 95 % of the variance": nmnc(every=2, rank=0.95),
    "every 2, 99 % of the variance": nmnc(every=2, rank=0.99),
    "95 % of the variance": nmnc(rank=0.95),
    "every 2, a quarter of the units, at most 128": nmnc(every=2, rank=None),
    "a quarter of the units, at most 128": nmnc(rank=None),
    "automatic rank": nmnc(rank="auto"),
    "every 2, automatic rank": nmnc(every=2, rank="auto"),
    "every 4, rank 64": nmnc(every=4, rank=64),
    "every 4, rank 128": nmnc(every=4, rank=128),
    "every 4, rank 256": nmnc(every=4, rank=256),
    "every 8, rank 128": nmnc(every=8, rank=128),
    "every 4, rank 128, rate 0.2": nmnc(every=4, rank=128, rate=0.2),
    "every 4, rank 128, rate 0.05": nmnc(every=4, rank=128, rate=0.05),
    "every 4, rank 128, least squares": nmnc(every=4, rank=128, estimator="least-squares"),
    "8 perturbations": nmnc(perturbations=8),
    "8 perturbations, rank 128": nmnc(perturbations=8, rank=128),
}
BASELINES = ("backprop", "frozen", "weight mirror", "NMNC layerwise", "VNC antithetic", "automatic rank")
CHOOSE = (
    Study("digits-cnn", {}, None, (1000, 1001, 1002)),
    Study("digits-rnn", {}, None, (1000, 1001, 1002)),
    Study("cifar10-cnn", {"width": 0.5, "examples": 5000}, 4, (1000,)),
)
TEST = (
    Study("digits-rnn", {}, None, (0, 1, 2, 3, 4)),
    Study("digits-cnn", {}, None, (0, 1, 2, 3, 4)),
    Study("fashion-cnn", {"examples": 5000}, 5, (0, 1, 2)),
    Study("cifar10-cnn", {"width": 0.5, "examples": 5000}, 4, (0, 1)),
)
COMPARED = {
    "former default": nmnc(antithetic=True),
    "default": Setting("nmnc", {}),
    "VNC, default": Setting("noise-correlation", {}),
    "NMNC by regression": Setting("nmnc-regression", {}),
    "NMNC layerwise by regression": Setting("nmnc-layerwise-regression", {}),
}
Run = dict[str, Any]


def stored() -> list[Run]:
    """The runs that were made, in the order in which they ended."""
    return (
        [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()] if RUNS.exists() else []
    )


def settings_of(part: str) -> dict[str, Setting]:
    """What is trained in a part, by name."""
    if part == "choose":
        return SETTINGS
    return {**{name: SETTINGS[name] for name in BASELINES}, **COMPARED}


def wanted(
    part: str, tasks: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[Study, str, Setting, int]]:
    """Every run of a part; seeds one after the other, so that a part that is broken off has all settings."""
    for study in CHOOSE if part == "choose" else TEST:
        for seed in study.seeds if not tasks or study.task in tasks else ():
            for name, setting in settings_of(part).items():
                if not names or name in names:
                    yield study, name, setting, seed


def trained(part: str, study: Study, name: str, setting: Setting, seed: int) -> Run:
    """One run. Angles and sizes are those after training: of all parameters as one vector; of the gradient, mean over sites."""
    run = rulezoo.train(
        setting.rule,
        study.task,
        seed,
        options=setting.options,
        task_options=study.options,
        epochs=study.epochs,
        device="cpu",
        probes=int(part == "test"),
    )
    record = run.record
    probe = record.probes[-1] if record.probes else None
    weights = probe.weights.get("*", {}) if probe else {}
    gradients = (
        [site["gradient_norm"] for site in probe.sites.values() if site.get("gradient_norm")] if probe else []
    )
    return {
        "part": part,
        "task": study.task,
        "task_options": dict(study.options),
        "epochs": study.epochs,
        "setting": name,
        "rule": setting.rule,
        "version": record.asked.rule_version,
        "options": {o: record.asked.rule_options[o] for o in ("antithetic", "every", "rank", "rate", "perturbations")
                    if o in record.asked.rule_options},
        "seed": seed,
        "status": record.status,
        "validation": record.scores.get("validation"),
        "test": record.scores.get("test") if part == "test" else None,
        "cost": record.cost.ratio if record.cost else None,
        "angle": weights.get("angle"),
        "size": weights.get("norm_ratio"),
        "gradient": statistics.mean(gradients) if gradients else None,
    }  # fmt: skip


def train(part: str, tasks: Sequence[str], names: Sequence[str], minutes: float) -> None:
    """Make the runs that are not there; none is begun after so many minutes."""
    end = time.monotonic() + 60 * minutes
    done = {(r["part"], r["task"], r["setting"], r["seed"]) for r in stored()}
    for study, name, setting, seed in wanted(part, tasks, names):
        if (part, study.task, name, seed) in done:
            continue
        if time.monotonic() > end:
            print("out of time: the same command goes on from here")
            return
        run = trained(part, study, name, setting, seed)
        with RUNS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        print(f"{study.task} {name} seed {seed}: {run['validation']} at ×{run['cost']}", flush=True)


def spread(values: Sequence[float | None], factor: float = 1.0, digits: int = 1) -> str:
    """Mean ± SD of what is there."""
    there = [factor * value for value in values if value is not None]
    if not there:
        return ""
    deviation = f" ± {statistics.stdev(there):.{digits}f}" if len(there) > 1 else ""
    return f"{statistics.mean(there):.{digits}f}{deviation}"


def groups(part: str) -> dict[str, dict[str, list[Run]]]:
    """Runs of a part: task → setting → runs."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in stored():
        if run["part"] == part:
            found.setdefault(run["task"], {}).setdefault(run["setting"], []).append(run)
    return found


def table(part: str, task: str, settings: Mapping[str, list[Run]]) -> str:
    """A row for each setting, the cheapest first."""
    test = part == "test"
    head = ["setting", "test accuracy %" if test else "validation accuracy %", "cost ÷ backprop", "seeds"]
    head += (
        ["angle of updates, degrees", "size of updates ÷ backprop's", "true gradient at a site"]
        if test
        else []
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, runs in sorted(
        settings.items(), key=lambda pair: statistics.median(r["cost"] for r in pair[1])
    ):
        cost = statistics.median(r["cost"] for r in runs)
        cells = [
            name,
            spread([r["test" if test else "validation"] for r in runs], 100),
            f"×{cost:.2f}",
            str(len(runs)),
        ]
        if test:
            cells += [spread([r["angle"] for r in runs]), spread([r["size"] for r in runs], digits=2)]
            sizes = [r["gradient"] for r in runs if r["gradient"]]
            cells.append(f"{statistics.mean(sizes):.1e}" if sizes else "")
        lines.append("| " + " | ".join(cells) + " |")
    first = next(iter(settings.values()))[0]
    scale = ", ".join(f"{name}={value}" for name, value in first["task_options"].items()) or "whole"
    epochs = f"{first['epochs']} epochs" if first["epochs"] else "the task's epochs"
    return f"### {task} ({scale}; {epochs})\n\n" + "\n".join(lines) + "\n"


def report() -> None:
    """Write the tables and the figure from the stored runs."""
    titles = {
        "choose": "## Settings, on validation data",
        "test": "## The default before and after, on test data, on seeds that were not used to choose",
    }
    text = "# Accuracy of NMNC at the cost of a step\n\n"
    text += "Written by `python benchmarks/nmnc_cost.py --report` from `nmnc_cost.jsonl`. Mean ± SD over seeds; cost is the "
    text += "median over seeds of the time of a step divided by that of plain autograd backprop, sampled in turn. NMNC is "
    text += "one-sided with rank 32, rate 0.1 and an update in every step unless a setting says otherwise.\n"
    for part, title in titles.items():
        found = groups(part)
        if found:
            text += f"\n{title}\n\n" + "\n".join(table(part, task, runs) for task, runs in found.items())
    if groups("choose"):
        draw(groups("choose"))
        text += f"\n![Validation accuracy against cost, a panel for each task; the values are in the tables.]({FIGURE.name})\n"
    TABLES.write_text(text, encoding="utf-8")


def draw(found: Mapping[str, Mapping[str, list[Run]]]) -> None:
    """Validation accuracy against cost, a panel for each task."""
    import pandas as pd
    import seaborn as sns

    frame = pd.DataFrame(
        {
            "task": task,
            "rule": f"NMNC, rank {runs[0]['options']['rank'] or 'by size'}"
            if runs[0]["rule"] == "nmnc"
            else runs[0]["rule"],
            "update every": runs[0]["options"].get("every", 1),
            "cost (steps of backprop)": statistics.median(r["cost"] for r in runs),
            "validation accuracy %": 100 * statistics.mean(r["validation"] or 0 for r in runs),
        }
        for task, settings in found.items()
        for runs in settings.values()
        if runs[0]["rule"] != "frozen"
    )
    grid = sns.relplot(
        frame.sort_values("rule"), x="cost (steps of backprop)", y="validation accuracy %", hue="rule",
        style="update every", col="task", height=3.2, aspect=1.1, palette="colorblind", s=60,
        facet_kws={"sharex": False, "sharey": False},
    )  # fmt: skip
    grid.set_titles("{col_name}")
    grid.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("choose", "test"), default="choose")
    parser.add_argument("--tasks", default="", help="tasks of the part, by commas; all where none are given")
    parser.add_argument(
        "--settings", default="", help="names of settings, by semicolons; all where none are given"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many minutes")
    parser.add_argument(
        "--report", action="store_true", help="write the tables and the figure, and train nothing"
    )
    chosen = parser.parse_args()
    if chosen.report:
        report()
        return
    tasks, names = (
        list(filter(None, text.split(by))) for text, by in ((chosen.tasks, ","), (chosen.settings, ";"))
    )
    train(chosen.part, tasks, names, chosen.minutes)


if __name__ == "__main__":
    main()
