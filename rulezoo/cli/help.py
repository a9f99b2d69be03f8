"""The help of a command: options under headings, and examples.

Options are put under headings by the name of their parameter, so that an option has the same heading in every command.
click's own formatter writes the text; no further library is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

GENERAL = "General"
SECTIONS = {
    "Comparison": ("profile", "rules", "tasks", "seeds", "trials", "options", "budget", "epochs"),
    "Training": ("device", "precision", "compiled", "together", "checkpoint", "retry"),
    "Execution": (
        "executor",
        "jobs",
        "gpus",
        "per_gpu",
        "time_limit",
        "memory_limit",
        "slurm",
        "ray_address",
    ),
    "Measurements and weights": ("probes", "evaluations", "keep_weights", "keep_memory"),
    "Data and results": ("data", "data_root", "root", "download", "out"),
    "Study files": ("config", "save_config"),
    "Output": ("form", "long", "html", "claims", "serve", "port", "publish"),
    "Site": ("units", "ranks", "alphas", "rho", "ceiling", "network", "rule"),
    "Question": ("angle", "perturbations", "rate"),
}  #: heading → names of parameters
FEW = 8  #: up to this number of options, they stand under one heading

_HEADING = {name: heading for heading, names in SECTIONS.items() for name in names}

Example = tuple[str, str]
"""What a command does, and the command."""


class _WithExamples(click.Command):
    """A command whose help has headings and ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[Example] = (), **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, under headings where there are many."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        shown = [(option, record) for option in options if (record := option.get_help_record(ctx))]
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*SECTIONS, GENERAL)}
        for option, record in shown:
            sections[_HEADING.get(option.name or "", GENERAL)].append(record)
        if len(shown) <= FEW:
            sections = {"Options": [record for _, record in shown]}
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        self.format_commands_of_group(ctx, formatter)

    def format_commands_of_group(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of a group."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            write_examples(formatter, self.examples)


class HelpfulCommand(_WithExamples):
    """See `_WithExamples`."""


class HelpfulGroup(_WithExamples, click.Group):
    """A group of commands whose help ends with examples."""

    command_class = HelpfulCommand

    def format_commands_of_group(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of the group."""
        self.format_commands(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """Each example under a line that says what it does; commands are not wrapped, so that they can be copied."""
    with formatter.section("Examples"):
        for place, (does, command) in enumerate(examples):
            formatter.write("\n" * bool(place))
            formatter.write_text(f"# {does}")
            formatter.write(f"{'':>{formatter.current_indent}}{command}\n")
