"""Memory for the activities of many seeds: blocks of megabytes, which the C library's defaults make slow.

glibc gives such blocks back to the kernel when they are freed, and the next step takes them again, page by page: some
5,000 page faults, and a quarter of a step of 16 small networks. And where Linux gives huge pages on request only, a
block of megabytes is a thousand small pages, whose addresses the processor cannot all remember.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_LARGEST_BLOCK = 2**25  # the most that glibc takes for the threshold


def prepare() -> bool:
    """Have this process keep what it frees, and ask for huge pages, for as long as it lives.

    Call it before the first tensor of megabytes is made: torch looks once whether it is to ask for huge pages. A user's
    own ``THP_MEM_ALLOC_ENABLE`` is left as it is.

    Returns:
        Whether the C library is one that can.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's; Linux alone has it
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_THRESHOLD: _LARGEST_BLOCK, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
    return bool(min(mallopt(name, value) for name, value in settings.items()))
