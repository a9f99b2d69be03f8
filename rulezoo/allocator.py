"""Keeping memory that was freed, because asking the kernel for it anew costs a quarter of a step.

The activities of many seeds are blocks of megabytes. glibc gives such blocks back to the kernel when they are freed,
and the next step takes them anew, page by page: some 5,000 page faults in a step of 16 small networks.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_LARGEST_BLOCK = 2**25  # the most that glibc takes for the threshold


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for as long as it lives; whether the C library is one that can."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_THRESHOLD: _LARGEST_BLOCK, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
    return bool(min(mallopt(name, value) for name, value in settings.items()))
