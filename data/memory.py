"""Keeps the memory of arrays that are freed for the arrays that come next.

An example passes through some arrays of megabytes that live for milliseconds. glibc gives such
blocks back to the system at once, and gets them again page by page, each cleared first: half of the
CPU time of a clip of video, 51 ms and 25, where it was measured.
"""

import ctypes
import functools
import os
import platform

# What a process may keep, of each of its heaps; the least block that gets pages of its own, which
# cannot be more than 32 MiB.
KEPT, OWN_PAGES = 2**28, 2**25  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed() -> bool:
    """Sets this process's allocator, once; returns whether it could.

    It is left alone where it is not glibc's, or where the environment sets it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _USERS_OWN):
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_TRIM_THRESHOLD, KEPT), (_M_MMAP_THRESHOLD, OWN_PAGES))
    return all(libc.mallopt(name, value) for name, value in settings)
