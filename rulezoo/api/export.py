"""A trained network in a folder of its own, for programs without rulezoo: weights, loader, record, README."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor, nn

from rulezoo.api.errors import CallError
from rulezoo.options import as_text
from rulezoo.results.files import write_whole
from rulezoo.text import brief
from rulezoo.trained import needs_memory, state_tensors

if TYPE_CHECKING:
    from rulezoo.api.run import Run
    from rulezoo.trained import TrainedNetwork

WEIGHTS, GRAPH, CHECK = "weights.safetensors", "network.pt2", "check.safetensors"
MEMORY, RECORD, LOADER = "memory.safetensors", "record.json", "load.py"
_FREE = ("torch", "torchvision")  # what a loader may import
_ROWS = 3  # of the inputs whose outputs are stored, for the loader to compare; other than in tracing

_LOADER = '''"""Loads a network that was trained by rulezoo. It needs torch and safetensors, not rulezoo.

    from load import load
    model = load()           # the network as a graph, from {graph}
    model = load(my_model)   # the weights in a module that you built: see README.md

`python load.py` compares the outputs for stored inputs with those at the time of the export.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent


def load(model=None):
    """The trained network in evaluation mode.

    Args:
        model: a module with the names and shapes of {weights}; None = the graph in {graph}.
    """
    weights = load_file(HERE / "{weights}")
    if model is None:
        if not (HERE / "{graph}").exists():
            raise SystemExit("{why}")
        model = torch.export.load(HERE / "{graph}").module()  # traced in evaluation mode
        model.load_state_dict({{name: weights[name] for name in model.state_dict()}}, strict=True)
        return model
    model.load_state_dict(weights, strict=True)
    return model.eval()


if __name__ == "__main__":
    check = load_file(HERE / "{check}")
    with torch.no_grad():
        output = load()(check["input"])
    torch.testing.assert_close(output, check["output"], rtol=1e-4, atol=1e-5)
    print(f"the outputs for {{len(output)}} stored inputs are those of the export")
'''


@dataclass(frozen=True)
class _Graph:
    """The forward pass as torch exports it, or why it cannot be exported."""

    content: bytes | None
    why: str = ""


def export(run: Run, to: Path) -> list[str]:
    """Write a run's network into a new folder; returns the names of the files.

    Args:
        run: a run whose weights were kept.
        to: a folder that does not exist, or is empty.

    Raises:
        WeightsError: if its weights were not kept, or cannot be used.
        CallError: if the folder holds something, or cannot be written.
    """
    network = run.network
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise CallError(f"{to} must be a new or an empty folder; name another one")
    files = _files(run, network)
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(to / name, content, durable=False)
    except OSError as error:
        raise CallError(f"{to} cannot be written: {error.strerror or error}; name another folder") from error
    return list(files)


def _files(run: Run, network: TrainedNetwork) -> dict[str, bytes]:
    from safetensors.torch import save

    model = network.model()
    x = _inputs(network.net.example.cpu(), _ROWS)
    with torch.no_grad():
        output = model(x)
    graph = _traced(model, network.net.example.cpu(), x, output)
    files = {
        WEIGHTS: save(_plain(model.state_dict())),
        RECORD: msgspec.json.format(msgspec.json.encode(run.record, order="sorted"), indent=2) + b"\n",
        CHECK: save(_plain({"input": x, "output": output})),
        LOADER: _loader(graph).encode(),
        "README.md": _readme(run, network, model, graph).encode(),
    }
    if graph.content is not None:
        files[GRAPH] = graph.content
    if network.state is not None:
        files[MEMORY] = save(_plain(state_tensors(network.state)))
    return files


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def _inputs(example: Tensor, rows: int) -> Tensor:
    """Inputs of a number of rows like an example: drawn where they are real numbers, zeros where they are whole."""
    shape = (rows, *example.shape[1:])
    if not example.dtype.is_floating_point:
        return torch.zeros(shape, dtype=example.dtype)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)


def _traced(model: nn.Module, example: Tensor, x: Tensor, output: Tensor) -> _Graph:
    """The graph for any number of examples; checked with another number than it was traced with."""
    rows = ({0: torch.export.Dim.DYNAMIC},)
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=rows, strict=True)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), output, rtol=1e-4, atol=1e-5)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    except Exception as error:  # noqa: BLE001  torch's tracing may fail in any way; the weights are exported all the same
        return _Graph(None, brief(f"{type(error).__name__}: {error}", 200))
    return _Graph(buffer.getvalue())


def _loader(graph: _Graph) -> str:
    why = (
        "torch.export could not trace this network, so load() needs a module: build it as README.md says, and call "
        "load(model)"
    )
    return _LOADER.format(graph=GRAPH, weights=WEIGHTS, check=CHECK, why="" if graph.content else why)


def _foreign(model: nn.Module) -> list[str]:
    """The classes of modules that neither torch nor torchvision has, in order."""
    classes = dict.fromkeys(type(module) for module in model.modules())
    return [
        f"{c.__module__}.{c.__qualname__}" for c in classes if c.__module__.partition(".")[0] not in _FREE
    ]


def _readme(run: Run, network: TrainedNetwork, model: nn.Module, graph: _Graph) -> str:
    asked, scores = run.record.asked, network.scores
    example = network.net.example
    options = {f"{asked.rule}.{n}": v for n, v in asked.rule_options.items()}
    options |= {f"{asked.task}.{n}": v for n, v in asked.task_options.items()}
    metrics = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
    precision = (
        "\nScores were computed under `torch.autocast` with bfloat16; without it they may differ slightly.\n"
        if asked.precision == "bfloat16"
        else ""
    )
    memory = (
        f"\nThe rule reads its answer from its memory, `{MEMORY}`; the network's own output has another score.\n"
        if needs_memory(network.made_rule)
        else ""
    )
    return f"""# {asked.rule} on {asked.task}, seed {asked.seed}

A network trained by rulezoo; {run.record.metric}: {metrics}.
{precision}{memory}
| file | content |
|---|---|
| `{WEIGHTS}` | weights and buffers, under the names of the model's `state_dict` |
{_graph_row(graph)}| `{LOADER}` | `load()`; needs torch and safetensors |
| `{CHECK}` | inputs and outputs that `python load.py` compares |
| `{RECORD}` | the record of the run: what was asked, what computed it, scores, learning curve |

## Inputs
Tensors of shape `(examples, {", ".join(map(str, example.shape[1:]))})` and type `{example.dtype}`, as the task's `prepare` \
returns them: in rulezoo, `rulezoo.load(FOLDER).run("{asked.rule}", "{asked.task}", {asked.seed}).network.data().test.x`.

## Without rulezoo
{_graph_words(graph)}

{_module_words(model, asked.task)}

```text
{model}
```

## In rulezoo
Options: {", ".join(f"{name}={as_text(value)}" for name, value in options.items()) or "none"}.
"""


def _graph_row(graph: _Graph) -> str:
    words = "the forward pass in evaluation mode, for any number of examples (`torch.export`)"
    return f"| `{GRAPH}` | {words} |\n" if graph.content else ""


def _graph_words(graph: _Graph) -> str:
    if graph.content:
        return (
            "`load()` needs nothing but torch and safetensors. It returns the graph of the network: it computes the same "
            "outputs, and is no module with submodules to hook."
        )
    return (
        f"torch.export could not trace this network ({graph.why}), so there is no graph and `load()` needs the module of the "
        "task."
    )


def _module_words(model: nn.Module, task: str) -> str:
    foreign = _foreign(model)
    if not foreign:
        return (
            "`load(model)` loads the weights into a plain module. All parts of this one come from torch and torchvision; "
            "build it as printed below."
        )
    return (
        f"`load(model)` loads the weights into a plain module. That of task {task} has parts of other packages "
        f"({', '.join(foreign)}); build it with them, or write a module with the same names:"
    )
