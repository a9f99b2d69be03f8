"""Runs for other programs: a table (csv, parquet) with one line a run, or event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rulezoo.errors import UserError
from rulezoo.options import as_text
from rulezoo.results.files import write_whole
from rulezoo.specs import file_name

if TYPE_CHECKING:
    import pandas as pd

    from rulezoo.results.records import Record

What = Literal["runs", "curves", "probes"]
Line = dict[str, Any]

_THING = {"runs": "run", "curves": "point", "probes": "probed number"}
_NEEDS = {
    "parquet": ("pyarrow", "writing parquet"),
    "tensorboard": ("tensorboard", "writing for TensorBoard"),
}


def export(records: Sequence[Record], to: Path, what: What | None = None) -> tuple[int, str]:
    """Write runs to a file, or to a folder for TensorBoard.

    Args:
        records: the runs.
        to: a file that ends in ``.csv`` or ``.parquet``, which is replaced, or a new or empty folder.
        what: one line for each run, point of a learning curve, or probed quantity; ``None`` = runs. For TensorBoard
            ``None``: it gets curves, logs, probes and scores.

    Returns:
        how many were written, and of what.

    Raises:
        UserError: if it cannot be written, or a package is missing.
    """
    kind = to.suffix.lower()
    try:
        if kind in (".csv", ".parquet"):
            lines = list(_LINES[what or "runs"](records))
            if kind == ".parquet":
                _check_installed("parquet")
            to.parent.mkdir(parents=True, exist_ok=True)
            write_whole(to, _content(table(lines), kind), durable=False)
            return len(lines), _THING[what or "runs"]
        if kind and not to.is_dir():
            raise UserError(
                f"--to {to}: a file must end in .csv or .parquet, got {kind!r}; a name without an ending is a "
                "folder for TensorBoard"
            )
        if what:
            raise UserError(
                f"--what {what} is for a table; TensorBoard gets the curves, logs and probes of every run"
            )
        _tensorboard(records, to)
    except OSError as error:
        raise UserError(f"{to} cannot be written: {error.strerror or error}; choose another --to") from error
    return len(records), "run"


def run_lines(records: Sequence[Record]) -> Iterator[Line]:
    """One line a run: identity, outcome, cost and provenance; options as ``rule.NAME``, ``task.NAME``, ``budget.NAME``."""
    for record in records:
        asked, answered, cost = record.asked, record.answered, record.cost
        last = record.curve[-1] if record.curve else None
        yield {
            **_identity(record),
            "status": record.status,
            "reason": record.reason,
            "metric": record.metric,
            "chance": record.chance,
            "test": record.scores.get("test"),
            "validation": record.scores.get("validation"),
            "train_loss": last and last.train_loss,
            "steps": last and last.step,
            "parameters": record.parameters,
            "block_depth": record.block_depth,
            "step_ms": cost and cost.step_ms,
            "backprop_step_ms": cost and cost.backprop_step_ms,
            "cost_ratio": cost and cost.ratio,
            "peak_memory_mb": cost and cost.peak_memory_mb,
            "device": asked.device,
            "precision": asked.precision,
            "protocol": asked.protocol,
            "rule_version": asked.rule_version,
            "task_version": asked.task_version,
            "changed": ",".join(record.changed) or None,
            **_under("rule", asked.rule_options),
            **_under("task", asked.task_options),
            **_under("budget", asked.budget),
            **_under("package", answered.packages),
            **_under("hardware", msgspec.structs.asdict(answered.hardware)),
            **{name: getattr(answered, name) for name in _PROVENANCE},
        }


_PROVENANCE = (
    "commit",
    "dirty",
    "started",
    "finished",
    "seeds_together",
    "compiled",
    "rule_code",
    "task_code",
    "data",
)


def curve_lines(records: Sequence[Record]) -> Iterator[Line]:
    """One line for each point of each learning curve, with what the rule logged as ``log.NAME``."""
    for record in records:
        for place, point in enumerate(record.curve):
            logs = {name: values[place] for name, values in record.logs.items() if place < len(values)}
            yield {**_identity(record), **msgspec.structs.asdict(point), **_under("log", logs)}


def probe_lines(records: Sequence[Record]) -> Iterator[Line]:
    """One line for each quantity that was probed at a site or of a parameter."""
    for record in records:
        for probe in record.probes:
            for kind, found in (("site", probe.sites), ("parameter", probe.weights)):
                for name, quantities in found.items():
                    for quantity, value in quantities.items():
                        at = {"step": probe.step, "epoch": probe.epoch, "kind": kind, "name": name}
                        yield {**_identity(record), **at, "quantity": quantity, "value": value}


_LINES: Mapping[What, Callable[[Sequence[Record]], Iterator[Line]]] = {
    "runs": run_lines,
    "curves": curve_lines,
    "probes": probe_lines,
}


def table(lines: Sequence[Line]) -> pd.DataFrame:
    """Lines as a data frame, each column of one type: text where an option has values of several types."""
    import pandas as pd

    names = dict.fromkeys(name for line in lines for name in line)
    return pd.DataFrame({name: _column([line.get(name) for line in lines]) for name in names})


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    for kind, dtype in ((bool, "boolean"), (int, "Int64"), (float, "float64"), (str, "string")):
        if kinds <= ({int, float} if kind is float else {kind}):
            return pd.Series(list(values), dtype=dtype)
    return pd.Series([None if value is None else as_text(value) for value in values], dtype="string")


def _content(frame: pd.DataFrame, kind: str) -> bytes:
    buffer = BytesIO()
    if kind == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _tensorboard(records: Sequence[Record], folder: Path) -> None:
    """Event files for TensorBoard, one folder for each run: curves, logs, probes, and the scores at the last step."""
    _check_installed("tensorboard")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--to {folder} must be a new or an empty folder: TensorBoard adds up what is in one")
    from torch.utils.tensorboard import SummaryWriter

    for record in records:
        asked = record.asked
        name = f"{file_name(asked.task)}/{asked.rule}/seed{asked.seed}-{asked.key}"
        with SummaryWriter(str(folder / name)) as writer:
            time = datetime.fromisoformat(record.answered.finished).timestamp()
            for tag, value, step in _scalars(record):
                writer.add_scalar(tag, value, step, walltime=time)
            options = {**_under(asked.rule, asked.rule_options), **_under("budget", asked.budget)}
            writer.add_text("options", "\n\n".join(f"{key} = {as_text(one)}" for key, one in options.items()))


def _scalars(record: Record) -> Iterator[tuple[str, float, int]]:
    """Tag, value and step of everything that has a value."""
    last = record.curve[-1].step if record.curve else 0
    found: list[tuple[str, float | None, int]] = []
    for line in curve_lines([record]):
        names = [name for name in line if name in ("train_loss", "validation") or name.startswith("log.")]
        found += [(name.replace("log.", "log/", 1), line[name], line["step"]) for name in names]
    for line in probe_lines([record]):
        found.append((f"{line['quantity']}/{line['name']}", line["value"], line["step"]))
    found += [(f"score/{name}", score, last) for name, score in record.scores.items()]
    yield from ((tag, value, step) for tag, value, step in found if value is not None)


def _check_installed(kind: str) -> None:
    module, doing = _NEEDS[kind]
    if find_spec(module) is None:
        raise UserError(f"{doing} needs {module}, which is not installed: pip install 'rulezoo[export]'")


def _identity(record: Record) -> Line:
    asked = record.asked
    return {"key": asked.key, "task": asked.task, "rule": asked.rule, "seed": asked.seed}


def _under(owner: str, values: Mapping[str, Any]) -> Line:
    return {f"{owner}.{name}": value for name, value in values.items()}
