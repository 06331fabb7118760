"""Files on a device: fetched over HTTP, used only when their sha256 is right, kept by it within a bound."""

import errno
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mixbit.errors import MixbitError
from mixbit.http import SCHEMES, mlflow_credentials, opener

ANSWER_S = 30.0
CHUNK_BYTES = 1 << 20
PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DownloadRefused(MixbitError):  # noqa: N818 - what it says, not what it is
    """A file did not arrive as it was sent; asking again may help."""


@dataclass(frozen=True)
class Source:
    """Where a file is, and how long."""

    url: str
    size_bytes: int


@dataclass(frozen=True)
class Blobs:
    """A folder of files named by their sha256; the least recently used ones go first. One job at a time uses it."""

    folder: Path
    limit_bytes: int

    def fetch(self, wanted: Mapping[str, Source]) -> dict[str, Path]:
        """Sha256 -> file, every byte checked now.

        Raises:
            DownloadRefused: cut, altered, or not to be had.
            MixbitError: no room: the bound is too small, or the disk is full.
        """
        self._require_room(sum(source.size_bytes for source in wanted.values()))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            here = {sha256 for sha256 in wanted if self._is_good(sha256)}
            missing = {sha256: source for sha256, source in wanted.items() if sha256 not in here}
            self._make_room(sum(source.size_bytes for source in missing.values()), keep=set(wanted))
            for sha256, source in missing.items():
                self._download(sha256, source)
        except OSError as error:
            raise self._disk_fault(error) from None
        return {sha256: self.folder / sha256 for sha256 in wanted}

    def _require_room(self, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            hint = "Serve with a larger --cache-mb"
            limits = {"expected": f"at most {self.limit_bytes} bytes", "got": f"{size_bytes} bytes"}
            raise MixbitError("device cache", "the files of this job do not fit", **limits, hint=hint)

    def _is_good(self, sha256: str) -> bool:
        path = self.folder / sha256
        if not path.is_file():
            return False
        good = sha256_of(path) == sha256
        if good:
            os.utime(path)
        else:
            path.unlink()
        return good

    def _make_room(self, size_bytes: int, keep: set[str]) -> None:
        files = [path for path in self.folder.iterdir() if path.name != PARTIAL]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        used = sum(path.stat().st_size for path in files)
        for path in (path for path in files if path.name not in keep):
            if used + size_bytes <= self.limit_bytes:
                return
            used -= path.stat().st_size
            path.unlink()

    def _download(self, sha256: str, source: Source) -> None:
        partial = self.folder / PARTIAL
        with _opened(source.url) as answer, partial.open("wb") as file:
            got, size_bytes = _copy(answer, file, source)
        if size_bytes != source.size_bytes:
            expected = f"{source.size_bytes} bytes"
            raise DownloadRefused(source.url, "the download broke off", expected=expected, got=f"{size_bytes} bytes")
        if got != sha256:
            raise DownloadRefused(source.url, "altered on its way here", expected=f"sha256 {sha256}", got=got)
        partial.replace(self.folder / sha256)

    def _disk_fault(self, error: OSError) -> MixbitError:
        full = error.errno in _FULL
        what = "no space left on the device's disk" if full else f"can't be written: {error.strerror or error}"
        hint = "Free some, or serve with a --folder on another disk" if full else "Serve with another --folder"
        return MixbitError("device cache", what, hint=hint)


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(url: str) -> Any:
    if urlsplit(url).scheme not in SCHEMES:
        raise DownloadRefused(url, "not an http address")
    try:
        request = urllib.request.Request(url, headers=mlflow_credentials())  # noqa: S310 - checked
        return opener(url).open(request, timeout=ANSWER_S)
    except urllib.error.HTTPError as error:
        with error:
            hint = "The server allows no such host name: `mixbit up --bind` names it" if error.code == 403 else None
            raise DownloadRefused(url, f"the server answers HTTP {error.code}", hint=hint) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        hint = "From the device's side this address must lead to the host: see `mixbit up --bind`"
        raise DownloadRefused(url, f"does not answer ({reason})", hint=hint) from None


def _copy(answer: Any, file: IO[bytes], source: Source) -> tuple[str, int]:
    """(sha256, bytes) of what came, at most one chunk more than there should be."""
    digest, size_bytes = hashlib.sha256(), 0
    while size_bytes <= source.size_bytes and (chunk := _chunk(answer, source.url)):
        digest.update(chunk)
        size_bytes += file.write(chunk)
    return digest.hexdigest(), size_bytes


def _chunk(answer: Any, url: str) -> bytes:
    import http.client

    try:
        return bytes(answer.read(CHUNK_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise DownloadRefused(url, f"the download broke off ({error})") from None
