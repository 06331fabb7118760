"""Digests of files, remembered while size, mtime, ctime and inode stay as they were. Safe to delete."""

import functools
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mixbit.errors import MixbitError
from tasks.place import state_dir

# A file changed this recently could change again within one clock tick of the file system, unseen.
SETTLED_NS = 50_000_000


def sha256_file(path: Path) -> str:
    """Sha256 of a file's bytes, 64 hex digits."""
    return memoised(path, "sha256", lambda p: _digest(p, hashlib.sha256()))


def sha256_afresh(path: Path) -> str:
    """Sha256 read from the bytes themselves; what was remembered of the file is replaced.

    Raises:
        MixbitError: the file can't be read.
    """
    try:
        stamp, value = _stamp(path.stat()), _digest(path, hashlib.sha256())
    except OSError as error:
        raise MixbitError(str(path), f"cannot be read: {error.strerror}") from None
    _remember(str(path), "sha256", stamp, value)
    return value


def md5_file(path: Path) -> str:
    """Md5 of a file's bytes as DVC names it, 32 hex digits."""
    return memoised(path, "md5", lambda p: _digest(p, hashlib.md5(usedforsecurity=False)))


def tree_sha256(folder: Path) -> str:
    """Sha256 over the sorted (relative path, sha256) pairs of every file below a folder."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {sha256_file(path)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_sha256(path: Path) -> str:
    """Digest of what a user or DVC made: a file's bytes, or a folder's tree."""
    return tree_sha256(path) if path.is_dir() else sha256_file(path)


def memoised(path: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """`compute(path)`, or what it gave when the file last looked exactly like this.

    Raises:
        MixbitError: the file can't be read: what can't be hashed is an error.
    """
    try:
        before = _stamp(path.stat())
    except OSError as error:
        raise MixbitError(str(path), f"cannot be read: {error.strerror}") from None
    known = _look_up(str(path), kind, before)
    if known is not None:
        return known
    value = compute(path)
    newest_ns = max(before[1], before[2])
    if _stamp(path.stat()) == before and time.time_ns() - newest_ns > SETTLED_NS:
        _remember(str(path), kind, before, value)
    return value


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _look_up(path: str, kind: str, stamp: tuple[int, int, int, int]) -> str | None:
    query = "SELECT value FROM memo WHERE path=? AND kind=? AND size=? AND mtime=? AND ctime=? AND inode=?"
    try:
        row = _database().execute(query, (path, kind, *stamp)).fetchone()
    except (sqlite3.Error, OSError):
        return None
    return str(row[0]) if row else None


def _remember(path: str, kind: str, stamp: tuple[int, int, int, int], value: str) -> None:
    try:
        with _database() as database:
            database.execute("REPLACE INTO memo VALUES (?,?,?,?,?,?,?)", (path, kind, *stamp, value))
    except (sqlite3.Error, OSError):
        # A full or read-only disk costs time here, never truth.
        return


def _database() -> sqlite3.Connection:
    return _open(os.environ.get("MIXBIT_HOME"), os.getpid(), threading.get_ident())


@functools.cache
def _open(_home: str | None, _pid: int, _thread: int) -> sqlite3.Connection:
    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder / "memo.sqlite", timeout=2.0)
    database.execute("PRAGMA synchronous=OFF")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS memo (path TEXT, kind TEXT, size INT, mtime INT, ctime INT, inode INT, value TEXT,"
        " PRIMARY KEY (path, kind))"
    )
    return database
