"""What an error of foreign code means: a sentence, and whether it was a lack of memory."""

from __future__ import annotations

import traceback
from typing import Literal

from rulezoo.text import SENTENCE, bounded

# Libraries under torch have no exception of their own for it; only the text tells theirs from others.
_HOST = ("DefaultCPUAllocator",)
_GPU = ("CUDA out of memory", "CUDA error: out of memory", "ALLOC_FAILED")  # of cuBLAS, cuDNN, cuSOLVER, …


def in_words(error: BaseException) -> str:
    """The type, and the first line of the message; a message that cannot be had is no reason to fail."""
    text = bounded(str(traceback.TracebackException.from_exception(error)), SENTENCE)
    lines = text.strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def out_of_memory(error: BaseException) -> Literal["oom_host", "oom_gpu"] | None:
    """Which memory did not suffice, if that is what happened."""
    import torch

    if isinstance(error, MemoryError):
        return "oom_host"
    if isinstance(error, torch.OutOfMemoryError):
        return "oom_gpu"
    if isinstance(error, RuntimeError):
        words = in_words(error)
        if any(sign in words for sign in _HOST):
            return "oom_host"
        if any(sign in words for sign in _GPU):
            return "oom_gpu"
    return None
