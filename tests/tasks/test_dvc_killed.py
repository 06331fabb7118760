import contextlib
import json
import os
import subprocess
import sys

import pytest

from tasks.dvc_killed import entries, forget_dead, spared

LOCK = b"schema: '2.0'\nstages:\n  digits:\n    cmd: make\n"


def forget(table, ours="/a/tasks/data.py "):
    forget_dead(table, contextlib.nullcontext(), ours)
    return json.loads(table.read_bytes())


@pytest.fixture
def table(tmp_path):
    """Read by a live process of someone else, and written by whatever `pid` and `cmd` say."""

    def write(pid, cmd):
        alive = {"pid": os.getpid(), "cmd": "dvc pull"}
        entry = {"pid": pid, "cmd": cmd}
        (tmp_path / "rwlock").write_text(json.dumps({"read": {"x": [entry, alive]}, "write": {"y": entry}}))
        return tmp_path / "rwlock"

    return write


def left(table):
    return {entry["cmd"] for entry in [*table["read"]["x"], *table.get("write", {}).values()]}


def test_a_live_process_of_someone_else_keeps_its_locks(table):
    assert left(forget(table(os.getppid(), "dvc repro"))) == {"dvc pull", "dvc repro"}


def test_a_dead_process_loses_its_locks(table):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert left(forget(table(ended.pid, "dvc repro"))) == {"dvc pull"}


def test_a_zombie_is_dead(table):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert left(forget(table(zombie.pid, "dvc repro"))) == {"dvc pull"}
    zombie.wait()


def test_an_entry_of_our_own_is_left_from_a_kill_even_if_its_pid_lives_again(table):
    assert left(forget(table(os.getppid(), "/a/tasks/data.py digits"))) == {"dvc pull"}


@pytest.mark.parametrize("content", ["", "[]", '{"read": {"x"', '{"write": {"y": 3}}'])
def test_half_a_table_is_no_table(tmp_path, content):
    (tmp_path / "rwlock").write_text(content)
    assert forget(tmp_path / "rwlock") == {}


@pytest.mark.parametrize("before", [None, LOCK])
@pytest.mark.parametrize("half", [b"", b"schema: '2.0'\nstages:\n", b"schema: '2"])
def test_half_of_dvc_lock_becomes_what_it_was(tmp_path, before, half):
    lock = tmp_path / "dvc.lock"
    if before:
        lock.write_bytes(before)
    with spared(lock):
        lock.write_bytes(half)
        assert entries(lock) == ({"digits": {"cmd": "make"}} if before else {})
    assert (lock.read_bytes() if lock.exists() else None) == before


def test_the_next_dvc_finds_what_a_killed_one_spared(tmp_path):
    lock = tmp_path / "dvc.lock"
    lock.write_bytes(b"")
    spare = tmp_path / ".dvc/tmp/mixbit-dvc.lock"
    spare.parent.mkdir(parents=True)
    spare.write_bytes(LOCK)
    with spared(lock):
        assert lock.read_bytes() == LOCK


def test_what_dvc_wrote_whole_stays(tmp_path):
    lock = tmp_path / "dvc.lock"
    with spared(lock):
        lock.write_bytes(LOCK)
    assert lock.read_bytes() == LOCK
    assert not list((tmp_path / ".dvc/tmp").iterdir())


def test_a_dvc_lock_that_someone_else_broke_is_told(tmp_path):
    (tmp_path / "dvc.lock").write_bytes(b"stages: 3")
    with pytest.raises(ValueError, match="not a file that DVC wrote"):
        entries(tmp_path / "dvc.lock")
