"""Files on a device, fetched from a real HTTP server that may lie."""

import hashlib
import http.server
import threading
from typing import ClassVar

import pytest

from mixbit.devices.blobs import PARTIAL, Blobs, DownloadRefused, Source
from mixbit.errors import MixbitError


class Files(http.server.BaseHTTPRequestHandler):
    """Serves `contents` by path; `cut` says how many bytes really come."""

    contents: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    cut = None

    def do_GET(self):
        self.asked.append(self.path)
        content = self.contents.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write((content or b"")[: self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    class Own(Files):
        contents: ClassVar[dict[str, bytes]] = {}
        asked: ClassVar[list[str]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        Own.url = f"http://127.0.0.1:{server.server_port}"
        yield Own
        server.shutdown()


def offer(served, *contents):
    """Sha256 -> source of each content."""
    sources = {}
    for content in contents:
        sha256 = hashlib.sha256(content).hexdigest()
        served.contents[f"/{sha256}"] = content
        sources[sha256] = Source(f"{served.url}/{sha256}", len(content))
    return sources


def test_a_file_is_fetched_once(served, tmp_path):
    wanted, blobs = offer(served, b"model"), Blobs(tmp_path, 100)
    assert [path.read_bytes() for path in blobs.fetch(wanted).values()] == [b"model"]
    assert blobs.fetch(wanted)
    assert len(served.asked) == 1


def test_a_download_that_breaks_off_is_refused(served, tmp_path):
    wanted, served.cut = offer(served, b"x" * 5000), 1000
    with pytest.raises(DownloadRefused, match="broke off"):
        Blobs(tmp_path, 10_000).fetch(wanted)
    assert not [path for path in tmp_path.iterdir() if path.name != PARTIAL]


def test_an_altered_download_is_refused(served, tmp_path):
    wanted = offer(served, b"model")
    served.contents[f"/{next(iter(wanted))}"] = b"lodem"
    with pytest.raises(DownloadRefused, match="altered on its way"):
        Blobs(tmp_path, 100).fetch(wanted)


def test_a_file_that_was_altered_on_the_disk_is_fetched_again(served, tmp_path):
    wanted, blobs = offer(served, b"model"), Blobs(tmp_path, 100)
    next(iter(blobs.fetch(wanted).values())).write_bytes(b"lodem")
    assert next(iter(blobs.fetch(wanted).values())).read_bytes() == b"model"


def test_the_file_used_longest_ago_goes_first(served, tmp_path):
    a, b, c = (offer(served, letter * 40) for letter in (b"a", b"b", b"c"))
    blobs = Blobs(tmp_path, 100)
    for wanted in (a, b, a, c):
        blobs.fetch(wanted)
    assert {path.name for path in tmp_path.iterdir()} == {*a, *c}


def test_a_job_larger_than_the_bound_is_refused_before_any_download(served, tmp_path):
    with pytest.raises(MixbitError, match="do not fit, expected at most 10 bytes, got 11 bytes"):
        Blobs(tmp_path, 10).fetch(offer(served, b"x" * 11))
    assert served.asked == []


def test_a_full_disk_is_one_line(served, tmp_path):
    (tmp_path / PARTIAL).symlink_to("/dev/full")
    with pytest.raises(MixbitError, match="device cache: no space left on the device's disk"):
        Blobs(tmp_path, 100_000).fetch(offer(served, b"x" * 50_000))


def test_only_http_addresses_are_opened(tmp_path):
    with pytest.raises(DownloadRefused, match="not an http address"):
        Blobs(tmp_path, 10).fetch({"0" * 64: Source("file:///etc/passwd", 1)})


def test_a_file_that_the_server_lost_says_so(served, tmp_path):
    wanted = offer(served, b"model")
    served.contents.clear()
    with pytest.raises(DownloadRefused, match="HTTP 404"):
        Blobs(tmp_path, 100).fetch(wanted)
