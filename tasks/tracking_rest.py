"""The tracking server's REST interface: what a run needs of it, with the standard library alone.

Importing the MLflow client takes longer than every request of a cached run together, and `plan` must not wait for it.
"""

import hashlib
import http.client
import json
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from mixbit.errors import MixbitError
from mixbit.http import mlflow_credentials, opener

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
SCHEME = "mlflow-artifacts:"
RETRY_S = 10.0
ANSWER_S = 30.0
CHUNK_BYTES = 1 << 20
PAGE = 1000
BUSY = {429, 500, 502, 503, 504}  # as the MLflow client retries
AWAY = (ConnectionError, TimeoutError, http.client.HTTPException, socket.gaierror, socket.herror)
T = TypeVar("T")


class TrackingUnavailable(MixbitError):  # noqa: N818 - what it says, not what it is
    """The tracking server does not answer; what was computed is kept and uploaded by the next run."""

    def __init__(self, url: str, cause: object) -> None:
        hint = "Start it with `mixbit up`, or check $MIXBIT_MLFLOW_URL"
        super().__init__(url, f"the tracking server does not answer ({cause})", hint=hint)


class TrackingRefused(MixbitError):  # noqa: N818
    """The tracking server answered no; `code` is MLflow's word for it."""

    def __init__(self, url: str, code: str, message: str, hint: str | None = None) -> None:
        self.code = code
        super().__init__(url, f"the tracking server refused: {message.splitlines()[0] if message else code}", hint=hint)


class ArtifactLost(MixbitError):  # noqa: N818
    """Bytes that the server should hold are gone or altered; the stage has to be computed again."""


def get(url: str, endpoint: str, query: Mapping[str, str], timeout_s: float = RETRY_S) -> dict[str, Any]:
    """Ask; `timeout_s` bounds everything, retries included."""
    return _json(url, f"{API}{endpoint}?{urlencode(query)}", "GET", None, timeout_s)


def post(
    url: str,
    endpoint: str,
    body: Mapping[str, Any],
    timeout_s: float = RETRY_S,
    *,
    repeatable: bool = True,
    method: str = "POST",
) -> dict[str, Any]:
    """Tell; with `repeatable=False` a request that may have arrived is never sent twice."""
    return _json(url, API + endpoint, method, json.dumps(body).encode(), timeout_s, repeatable=repeatable)


def search(
    url: str, endpoint: str, listed: str, body: Mapping[str, Any], limit: int | None = None
) -> list[dict[str, Any]]:
    """All results of a paged search, or the first `limit`."""
    found: list[dict[str, Any]] = []
    token = None
    while limit is None or len(found) < limit:
        page = {**body, "max_results": min(PAGE, limit or PAGE)} | ({"page_token": token} if token else {})
        answer = post(url, endpoint, page)
        found += answer.get(listed, [])
        token = answer.get("next_page_token")
        if not token:
            break
    return found[:limit]


def upload(url: str, path: str, file: Path, sha256: str) -> None:
    """Send a file's bytes, which must be those of `sha256` while they are sent.

    Raises:
        MixbitError: the file changed.
        TrackingUnavailable: the server went away.
    """

    def send(left_s: float) -> None:
        with file.open("rb") as source:
            body = _Hashed(source)
            headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
            _open(url, ARTIFACTS + quote(path), max(left_s, ANSWER_S), method="PUT", body=body, headers=headers).close()
        if body.digest() != sha256:
            raise MixbitError(str(file), "altered while it was uploaded", expected=sha256, got=body.digest())

    _retry(url, send, RETRY_S)


def download(url: str, path: str, target: Path, sha256: str) -> None:
    """Fetch bytes to `target`, whole and checked, or not at all.

    Raises:
        ArtifactLost: the server does not have them, or has others.
        TrackingUnavailable: the server went away.
    """

    def fetch(_: float) -> str:
        with _open(url, ARTIFACTS + quote(path), ANSWER_S) as answer, Path(partial).open("wb") as file:
            hashed = _Hashed(answer)
            while chunk := hashed.read(CHUNK_BYTES):
                file.write(chunk)
            expected = answer.headers.get("Content-Length")
            if expected is not None and int(expected) != file.tell():
                raise ConnectionError("the answer broke off")
            return hashed.digest()

    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".fetch-")
    os.close(handle)
    try:
        got = _retry(url, fetch, RETRY_S)
        if got != sha256:
            raise _lost(url, path, "altered", expected=sha256, got=got)
        Path(partial).replace(target)
    except TrackingRefused:
        raise _lost(url, path, "lost") from None
    finally:
        Path(partial).unlink(missing_ok=True)


def read(url: str, path: str, timeout_s: float = RETRY_S) -> bytes:
    """The bytes of a small artifact.

    Raises:
        ArtifactLost: the server does not have it.
    """

    def fetch(left_s: float) -> bytes:
        with _open(url, ARTIFACTS + quote(path), left_s) as answer:
            return bytes(answer.read())

    try:
        return _retry(url, fetch, timeout_s)
    except TrackingRefused:
        raise _lost(url, path, "lost") from None


def artifact_path(url: str, uri: str) -> str:
    """Where the server's artifact proxy has a run's artifacts.

    Raises:
        MixbitError: the server hands out paths or buckets of its own instead of serving artifacts.
    """
    if not uri.startswith(SCHEME):
        hint = "Start it with `mlflow server --serve-artifacts` and without --default-artifact-root"
        raise MixbitError(
            url, "the tracking server does not serve artifacts", expected=f"{SCHEME}/…", got=uri, hint=hint
        )
    return urlsplit(uri).path.strip("/")


def _lost(url: str, path: str, what: str, **details: str) -> ArtifactLost:
    run_id = path.split("/")[1] if "/" in path else path
    hint = f"Delete run {run_id} there, and the stage is computed again"
    return ArtifactLost(url, f"{path} is {what} on the tracking server", **details, hint=hint)


def _json(
    url: str, target: str, method: str, body: bytes | None, timeout_s: float, *, repeatable: bool = True
) -> dict[str, Any]:
    def ask(left_s: float) -> bytes:
        with _open(
            url, target, left_s, method=method, body=body, headers={"Content-Type": "application/json"}
        ) as answer:
            return bytes(answer.read())

    content = _retry(url, ask, timeout_s, repeatable=repeatable)
    try:
        answer = json.loads(content or b"{}")
    except ValueError:
        raise TrackingUnavailable(url, "not an MLflow server") from None
    return dict(answer)


def _retry(url: str, attempt: Callable[[float], T], timeout_s: float, *, repeatable: bool = True) -> T:
    """Try until it works or `timeout_s` has passed; a refusal is final."""
    end, pause_s = time.monotonic() + timeout_s, 0.1
    while True:
        try:
            return attempt(max(0.05, end - time.monotonic()))
        except AWAY as error:
            never_arrived = isinstance(error, ConnectionRefusedError)
            if time.monotonic() + pause_s > end or not (repeatable or never_arrived):
                raise TrackingUnavailable(url, _cause(error)) from None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _open(
    url: str,
    target: str,
    timeout_s: float,
    *,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """One request. Connection faults come out bare, refusals as TrackingRefused."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise TrackingUnavailable(url, "not an http address")
    try:
        sent = {**(headers or {}), **mlflow_credentials()}
        request = urllib.request.Request(url + target, data=body, method=method, headers=sent)  # noqa: S310 - checked
        return opener(url).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
        refusal = _refusal(url, error.code, content)
        if error.code in BUSY:
            raise ConnectionError(refusal.what) from None
        raise refusal from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError):
            raise error.reason if isinstance(error.reason, AWAY) else ConnectionError(str(error.reason)) from None
        raise ConnectionError(str(error.reason)) from None
    except ValueError as error:
        raise TrackingUnavailable(url, error) from None


def _refusal(url: str, status: int, content: bytes) -> TrackingRefused:
    try:
        answer = json.loads(content)
        return TrackingRefused(url, str(answer["error_code"]), str(answer.get("message", "")))
    except (ValueError, KeyError, TypeError):
        return TrackingRefused(
            url, f"HTTP_{status}", f"HTTP {status}", "Is it an MLflow server? Check $MIXBIT_MLFLOW_URL"
        )


class _Hashed:
    """A readable that knows the sha256 of what was read."""

    def __init__(self, source: Any) -> None:
        self._source, self._sha256 = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = bytes(self._source.read(size))
        self._sha256.update(chunk)
        return chunk

    def digest(self) -> str:
        return self._sha256.hexdigest()


def items(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags or parameters as MLflow spells them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def mapping(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The way back."""
    return {one["key"]: one.get("value", "") for one in found}
