"""Freed memory kept for the next step: a step frees all its tensors at once, and to ask for them again costs."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names and numbers of glibc's malloc.h, https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_MIB = 1 << 20
# What glibc arrives at by itself after large tensors were freed once, and its own padding.
_USUAL = {_MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 64 * _MIB, _TOP_PAD: _MIB >> 3}
_KEEPING = {_MMAP_THRESHOLD: 32 * _MIB, _TRIM_THRESHOLD: 2048 * _MIB - 1, _TOP_PAD: 64 * _MIB}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Hand freed memory back to the system on leaving, not after each step; nothing happens without glibc.

    Up to 2 GiB are kept; tensors above 32 MiB come and go as always.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, _KEEPING)
    try:
        yield
    finally:
        _set(libc, _USUAL)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        libc.mallopt(name, value)
