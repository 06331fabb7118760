"""What is remembered of a file must never hide that it changed, whatever the clock says."""

import os
import time

import pytest

from tasks import memo
from tasks.memo import sha256_file

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path / "state"))
    path = tmp_path / "blob"
    path.write_bytes(b"first")
    return path


def settle(path, monkeypatch, ahead_ns=DAY_NS):
    """Let the clock say that the file is old."""
    real = time.time_ns
    monkeypatch.setattr(memo.time, "time_ns", lambda: real() + ahead_ns)
    return sha256_file(path)


def rewrite(path, content, times):
    """Other bytes of equal length, in the same inode, with the modification time it had."""
    path.write_bytes(content)
    os.utime(path, ns=times)


def test_a_settled_file_is_read_once(file, monkeypatch):
    first = settle(file, monkeypatch)
    monkeypatch.setattr(memo, "_digest", lambda *_: pytest.fail("read again"))
    assert sha256_file(file) == first


def test_equal_length_and_a_restored_time_do_not_hide_other_bytes(file, monkeypatch):
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    first = settle(file, monkeypatch)
    rewrite(file, b"other", times)
    assert sha256_file(file) != first


def test_a_file_from_the_future_is_read_every_time(file):
    ahead = time.time_ns() + DAY_NS
    os.utime(file, ns=(ahead, ahead))
    first = sha256_file(file)
    rewrite(file, b"other", (ahead, ahead))
    assert sha256_file(file) != first


def test_after_the_clock_was_set_back_nothing_written_before_it_is_remembered(file, monkeypatch):
    monkeypatch.setattr(memo.time, "time_ns", lambda: file.stat().st_ctime_ns - DAY_NS)
    sha256_file(file)
    read = []
    digest = memo._digest
    monkeypatch.setattr(memo, "_digest", lambda *given: read.append(1) or digest(*given))
    sha256_file(file)
    assert read == [1]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + bytes(200)])
def test_a_damaged_memo_costs_time_never_truth(file, content, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "memo.sqlite").write_bytes(content)
    first = sha256_file(file)
    file.write_bytes(b"other")
    assert sha256_file(file) != first
