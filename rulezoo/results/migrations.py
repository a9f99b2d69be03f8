"""Records of an older schema, brought up to date when they are read; the files stay as they are.

When `rulezoo.results.records.SCHEMA` is raised from N to N + 1, a function that turns the content of the former into that of
the latter is added to `STEPS` under N, with a test on a file of that time. A step that changes what `RunSpec.key` is
made of leaves the old results readable, but they are run again when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Content = dict[str, Any]
Step = Callable[[Content], Content]


def _of_1(content: Content) -> Content:
    """Schema 2 adds the digest of the data and the depth of blocks, which are not known of older runs."""
    return content


STEPS: Mapping[int, Step] = {1: _of_1}
"""N → what makes schema N + 1 of schema N; both without the digest."""


class UnknownSchema(Exception):
    """Content that no chain of steps brings up to date; the message says which schema, and what to do."""


def migrate(content: Content, to: int) -> Content:
    """Content of schema ``to``.

    Args:
        content: of a record, with its ``schema``.
        to: the schema that this rulezoo reads.

    Raises:
        UnknownSchema: if there is no way.
    """
    schema = content["schema"]
    if type(schema) is not int or schema > to:
        raise UnknownSchema(f"has schema {str(schema)[:20]}, this rulezoo reads {to}; update rulezoo")
    while schema < to:
        if schema not in STEPS:
            raise UnknownSchema(
                f"has schema {schema}, which this rulezoo, of schema {to}, cannot bring up to date"
            )
        content = {**STEPS[schema](content), "schema": schema + 1}
        schema += 1
    return content
