"""A disk that refuses, and a clock that was set back, put in from outside."""

import os
import sys
import time
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
FREEING = {"os.remove", "os.rmdir", "os.rename", "os.chmod"}  # what a full disk still allows


def refuse(folder: str, number: int, freeing: bool) -> None:
    """From now on, whatever this process would write below `folder` raises OSError(number).

    Args:
        folder: the part of the disk.
        number: an errno.
        freeing: whether files may be renamed and removed, as on a full disk.
    """
    changes = CHANGES - FREEING if freeing else CHANGES
    below = os.path.realpath(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _writes(event, arguments, changes) and os.path.realpath(os.fsdecode(arguments[0])).startswith(below):
            raise OSError(number, os.strerror(number), os.fsdecode(arguments[0]))

    sys.addaudithook(hook)


def _writes(event: str, arguments: tuple[Any, ...], changes: set[str]) -> bool:
    if not arguments or not isinstance(arguments[0], str | bytes | os.PathLike):
        return False
    if event == "open":
        creates = arguments[2] & os.O_CREAT and not os.path.lexists(arguments[0])
        return bool(arguments[2] & WRITES or creates)
    if event == "os.mkdir" and os.path.lexists(arguments[0]):
        return False  # the kernel says first that it is there
    return event in changes or event == "sqlite3.connect"


def set_clock_back(seconds: float) -> None:
    """Python's wall clock tells an earlier time; files keep the kernel's."""
    now_s, now_ns = time.time, time.time_ns
    time.time = lambda: now_s() - seconds
    time.time_ns = lambda: now_ns() - int(seconds * 1e9)
