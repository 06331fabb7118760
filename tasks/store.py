"""The folder of records and blobs on this machine: content-addressed, written whole or not at all, checked on read.

A run holds the folder shared (`in_use`), what deletes holds it alone: nothing is deleted under a run.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixbit.errors import MixbitError
from tasks.memo import sha256_file
from tasks.record import Output, Record


@dataclass(frozen=True)
class Store:
    """`folder` holds blobs/, records/, latest/, experiments/, partial/, locks/ and tally.jsonl."""

    folder: Path

    def blob(self, sha256: str) -> Path:
        """Where bytes of this digest are, or would be."""
        return self.folder / "blobs" / sha256[:2] / sha256

    def fault(self, output: Output) -> str | None:
        """`lost` or `altered`, or None when the bytes are there and are what they were."""
        path = self.blob(output.sha256)
        if not path.is_file():
            return "lost"
        if path.stat().st_size != output.size_bytes or sha256_file(path) != output.sha256:
            return "altered"
        return None

    def put(self, path: Path) -> Output:
        """Move a finished file in; afterwards its bytes are found by their digest and never change."""
        with path.open("rb") as file:
            os.fsync(file.fileno())
        output = Output(sha256_file(path), path.stat().st_size)
        if self.fault(output) is None:
            path.unlink()
            return output
        target = self.blob(output.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o444)
        path.replace(target)
        _sync_folder(target.parent)
        return output

    def record(self, stage: str, key: str) -> Record | None:
        """The record of this key; one that does not parse or carries another key is no record and is dropped."""
        path = self._record_path(stage, key)
        try:
            found = Record.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            found = None
        if found is not None and (found.key, found.stage) == (key, stage):
            return found
        path.unlink(missing_ok=True)
        return None

    def write_record(self, record: Record) -> None:
        """The commit marker: after this, and only then, the stage counts as computed."""
        write_atomic(self._record_path(record.stage, record.key), record.to_json())

    def latest(self, experiment: str, cell: str) -> Record | None:
        """What this cell of this experiment was last time; only to tell reasons, never to find hits."""
        try:
            record = Record.from_json(self._latest_path(experiment, cell).read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return record

    def set_latest(self, experiment: str, cell: str, record: Record) -> None:
        """Remember what this cell was."""
        path = self._latest_path(experiment, cell)
        content = record.to_json()
        if not path.is_file() or path.read_bytes() != content:
            write_atomic(path, content)

    def partial(self, stage: str, key: str) -> Path:
        """Scratch of a stage under way; survives a kill, gone after the commit."""
        return self.folder / "partial" / f"{stage}-{key[:24]}"

    def clear_partial(self, stage: str, key: str) -> None:
        """Remove the scratch of a committed stage."""
        shutil.rmtree(self.partial(stage, key), ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Single flight on this host; the kernel frees the lock when its holder dies."""
        with self._lock_file(f"{stage}-{key[:24]}") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def free(self, name: str) -> Iterator[bool]:
        """Whether nobody holds the lock of this `stage-key`; if so, nobody takes it meanwhile."""
        with self._lock_file(name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While any process holds this, nothing is deleted; waits while something is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._folder() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """To delete: no run is under way, and none starts meanwhile.

        Raises:
            MixbitError: one is.
        """
        with self._folder() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hint = "Try again when it has ended"
                raise MixbitError(str(self.folder), "a run is under way, nothing was deleted", hint=hint) from None
            yield

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        path = self.folder / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened to read: a lock that is there can be taken in a read-only store too.
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int]:
        # The folder itself is locked: that needs no file, so a read-only store can be used too.
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            yield handle
        finally:
            os.close(handle)

    def set_file(self, experiment: str, path: Path) -> None:
        """Remember which file an experiment is declared in; several where checkouts share this folder."""
        known = self.files(experiment)
        if path not in known:
            content = json.dumps(sorted(str(one) for one in [*known, path]), indent=2).encode()
            with contextlib.suppress(OSError):  # an experiment whose file is not remembered is kept
                write_atomic(self.folder / "experiments" / f"{experiment}.json", content)

    def files(self, experiment: str) -> list[Path]:
        """The files that have declared an experiment; empty where none is remembered."""
        try:
            found = json.loads((self.folder / "experiments" / f"{experiment}.json").read_bytes())
            return [Path(one) for one in found]
        except (OSError, ValueError, TypeError):
            return []

    def tally(self, stage: str, was: str, seconds: float) -> None:
        """Count how a cell got its outputs; one line, appended whole."""
        line = json.dumps([stage, was, seconds]).encode() + b"\n"
        with contextlib.suppress(OSError):  # a full or read-only disk costs a count, never a run
            handle = os.open(self.folder / "tally.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)

    def _record_path(self, stage: str, key: str) -> Path:
        return self.folder / "records" / stage / f"{key}.json"

    def _latest_path(self, experiment: str, cell: str) -> Path:
        return self.folder / "latest" / experiment / f"{cell.replace(' ', '@')}.json"


def write_atomic(path: Path, content: bytes) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow that large here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no right to read or write",
}


@contextlib.contextmanager
def disk_faults(where: str) -> Iterator[None]:
    """Turn a full, limited or read-only disk into one line; libraries that wrap the cause are known by its words.

    Raises:
        MixbitError: what the disk refused, and the file if it is known.
    """
    try:
        yield
    except MixbitError:
        raise
    except Exception as error:
        what = next((what for number, what in FAULTS.items() if _is(error, number)), None)
        if what is None:
            raise
        file = getattr(error, "filename", None)
        hint = "Nothing finished is lost: make room or rights, then run again"
        raise MixbitError(where, f"{what}: {file}" if file else what, hint=hint) from error


def _is(error: Exception, number: int) -> bool:
    return error.errno == number if isinstance(error, OSError) else f"os error {number}" in str(error)
