"""What a job's process says to the comparison: a line of JSON, which is read as data and never carried out."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rulezoo.processes.child import Garbled
from rulezoo.results.records import Status
from rulezoo.text import SENTENCE, bounded

_Steps = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Begun(_Message, frozen=True):
    """The work begins: it may have had to wait."""


class Progress(_Message, frozen=True):
    """So many training steps of so many are done."""

    done: _Steps
    total: _Steps


class Failed(_Message, frozen=True):
    """How the job ended, which was not well."""

    status: Status
    reason: str


class StoreBroken(_Message, frozen=True):
    """Why results cannot be stored."""

    reason: str


Message = Begun | Progress | Failed | StoreBroken

_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as a line; long sentences are cut."""
    if isinstance(message, Failed | StoreBroken):
        message = msgspec.structs.replace(message, reason=bounded(message.reason, SENTENCE))
    return msgspec.json.encode(message)


def decode(line: bytes) -> Message:
    """The message that a line is.

    Raises:
        Garbled: if it is none.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Garbled from error
