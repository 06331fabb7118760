"""What a killed DVC leaves behind, made good before the next one starts.

DVC empties dvc.lock and its table of locks before it writes them again, and gives up on half a file. It drops a dead
process's locks only when they stand in the way, and takes a zombie or a recycled pid for their holder.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import yaml

from tasks.store import write_atomic

Entry = dict[str, Any]


def entries(lock: Path) -> Mapping[str, Entry]:
    """Stage -> what dvc.lock says of it; as it was before, where a killed DVC left half a file.

    Raises:
        ValueError: it is not a file that DVC wrote.
    """
    try:
        return _parsed(lock)
    except ValueError:
        if not _spare(lock).is_file():
            raise
        return _parsed(_spare(lock)) if _spare(lock).stat().st_size else {}


@contextlib.contextmanager
def spared(lock: Path) -> Iterator[None]:
    """Keep dvc.lock as it was until DVC has ended; half a file, also that of a DVC before, becomes it again."""
    spare = _spare(lock)
    _restore(lock, spare)
    write_atomic(spare, lock.read_bytes() if lock.is_file() else b"")
    try:
        yield
    finally:
        _restore(lock, spare)
        spare.unlink()


def _spare(lock: Path) -> Path:
    return lock.parent / ".dvc" / "tmp" / "mixbit-dvc.lock"


def _restore(lock: Path, spare: Path) -> None:
    try:
        _parsed(lock)
    except ValueError:
        if spare.is_file() and spare.stat().st_size:
            write_atomic(lock, spare.read_bytes())
        elif spare.is_file():
            lock.unlink()


def _parsed(lock: Path) -> Mapping[str, Entry]:
    if not lock.is_file():
        return {}
    try:
        # Written by DVC and long: the C loader, and no marks.
        content = yaml.load(lock.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return {name: dict(entry) for name, entry in content["stages"].items()}
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError, ValueError):
        raise ValueError("not a file that DVC wrote") from None


def forget_dead(table: Path, guard: AbstractContextManager[object], ours: str) -> None:
    """Drop the entries of processes that are gone, and of our own: who calls this is the only one of ours at work.

    Args:
        table: DVC's `rwlock`: `{"read": {path: [entry, …]}, "write": {path: entry}}`, an entry is pid and command.
        guard: DVC's lock of that file.
        ours: how the command of a child of ours begins.
    """
    with guard:
        try:
            content = table.read_bytes()
        except FileNotFoundError:
            return
        kept = json.dumps(_kept(content, lambda entry: _holds(entry, ours))).encode()
        if kept != content:
            write_atomic(table, kept)


def _kept(content: bytes, holds: Callable[[Entry], bool]) -> dict[str, Any]:
    try:
        found = json.loads(content)
        read = {path: list(filter(holds, entries)) for path, entries in found.get("read", {}).items()}
        write = {path: entry for path, entry in found.get("write", {}).items() if holds(entry)}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # its writer was killed
    parts = {"read": {path: entries for path, entries in read.items() if entries}, "write": write}
    return {name: part for name, part in parts.items() if part}


def _holds(entry: Entry, ours: str) -> bool:
    try:
        dead = psutil.Process(int(entry["pid"])).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        dead = True
    return not dead and not str(entry["cmd"]).startswith(ours)
