"""What disks, clocks, users and neighbours do to a store: nothing is lost or false, and the next run completes."""

import collections
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from flows import servers
from flows.server_process import ServerProcess, members, wait_until
from tasks import tracking_rest
from tasks.place import ROOT
from tasks.record import Record
from tasks.tracking import finished
from tasks.tracking_runs import search_runs

INJECTION = str(ROOT / "benchmarks" / "fault_injection")
DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "altered": lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    "deleted": lambda _content: None,
}
DAY_S = 86400


def fault(tiny, **what):
    """The environment of a run that meets a fault and says which keys it computes."""
    told = json.dumps({"log": str(tiny.folder / "events"), "folder": str(tiny.state), **what})
    return {"PYTHONPATH": os.pathsep.join([INJECTION, str(ROOT)]), "MIXBIT_FAULT": told}


def computed_keys(tiny):
    events = map(json.loads, (tiny.folder / "events").read_text().splitlines())
    return collections.Counter(event["key"] for event in events if event["event"] == "computing")


def latest(tiny, name="tiny"):
    return {path.stem: Record.from_json(path.read_bytes()) for path in tiny.state.glob(f"latest/{name}/*.json")}


def blob(tiny, sha256):
    return tiny.state / "blobs" / sha256[:2] / sha256


def results(tiny, name="tiny"):
    """Cell -> file -> digest of its bytes as they are now; a profile is measured, so never the same twice."""
    return {
        cell: {file: hashlib.sha256(blob(tiny, one.sha256).read_bytes()).hexdigest() for file, one in outputs.items()}
        for cell, outputs in ((cell, record.outputs) for cell, record in latest(tiny, name).items())
        if not cell.startswith("profile")
    }


def damage(path, how):
    content = DAMAGES[how](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def damage_stages(tiny, how, records=(), blobs=()):
    known = latest(tiny)
    for cell in records:
        damage(tiny.state / "records" / known[cell].stage / f"{known[cell].key}.json", how)
    for cell in blobs:
        for output in known[cell].outputs.values():
            damage(blob(tiny, output.sha256), how)


def delete_runs(tiny, cells):
    """Every run of these cells, also of other tests that share the server."""
    known, url = latest(tiny), tiny.environment["MIXBIT_MLFLOW_URL"]
    for cell in cells:
        for run in search_runs(url, f"tags.`mixbit.key` = '{known[cell].key}'"):
            tracking_rest.post(url, "runs/delete", {"run_id": run.run_id})


def forget(tiny, *cells):
    """As if these cells had never been computed, here or on the server; what follows them keeps its inputs."""
    delete_runs(tiny, cells)
    damage_stages(tiny, "deleted", records=cells, blobs=cells)


def one_line(done, *words):
    """A failure that says what happened and what to do next, in one line."""
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert all(word in done.stderr for word in ("error: ", *words)), done.stderr


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_records_and_blobs_are_fetched_again_whole(again, how):
    before = results(again)
    damage_stages(again, how, records=["float_model", "policy@w4a4"], blobs=["indicators", "deployable@w4a4"])
    assert again.computed() == []
    assert results(again) == before


def test_what_is_damaged_here_and_deleted_there_is_computed_again_to_the_same_bytes_and_nothing_else(again):
    before = results(again)
    damage_stages(again, "truncated", blobs=["float_model"])
    damage_stages(again, "altered", records=["indicators"])
    damage_stages(again, "deleted", blobs=["finetuned_model@w4a4"])
    delete_runs(again, ["float_model", "indicators", "finetuned_model@w4a4"])
    assert again.computed() == ["float_model", "indicators", "finetuned_model w4a4"]
    assert results(again) == before


def test_runs_that_a_user_deleted_are_logged_again_and_nothing_is_computed(again):
    before = results(again)
    delete_runs(again, latest(again))
    assert again.computed() == []
    ids = {record.run_id for record in latest(again).values()}
    assert finished(again.environment["MIXBIT_MLFLOW_URL"], ids) == ids
    assert results(again) == before


def test_a_clock_that_was_set_back_neither_hides_damage_nor_reruns_anything(again):
    before = results(again)
    damage_stages(again, "altered", blobs=["policy@w4a4"])
    delete_runs(again, ["policy@w4a4"])
    assert again.computed(**fault(again, clock_s=DAY_S)) == ["policy w4a4"]
    assert again.computed() == []
    assert results(again) == before


@pytest.mark.parametrize(
    ("point", "times"), [("blob write: before", 2), ("pending: before", 2), ("FINISHED: after", 1)]
)
def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(again, point, times):
    forget(again, "indicators")
    full = fault(again, errno="ENOSPC", point=point, stage="indicators")
    one_line(again.mixbit("run", again.file, **full), "indicators: the disk is full", "make room or rights, then run")
    again.run(**fault(again))
    assert list(computed_keys(again).values()) == [times]


def test_a_file_that_may_not_grow_is_one_line_and_loses_nothing(again):
    again.run()  # what other tests deleted on the server is there again: nothing but the forgotten cell is written
    forget(again, "indicators")
    one_line(limited(again, 2000), "indicators: a file may not grow that large here", "then run again")
    assert again.computed() == ["indicators"]


def limited(tiny, size_bytes):
    """`mixbit run` in a process that the kernel lets write no file larger than this."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))"
    code = f"import os, resource, sys; {limit}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", code, "-m", "flows.cli", "run", str(tiny.file)]
    return subprocess.run(command, cwd=ROOT, env=tiny.environment, capture_output=True, text=True, check=False)


def test_a_read_only_store_serves_what_it_has(again):
    again.run()  # what other tests deleted on the shared server is there again
    assert again.computed(**fault(again, errno="EROFS")) == []


def test_a_read_only_store_that_lacks_something_is_one_line_and_loses_nothing(again):
    forget(again, "policy@w4a4")
    one_line(again.mixbit("run", again.file, **fault(again, errno="EROFS")), "the disk is read-only", "then run again")
    assert again.computed() == ["policy w4a4"]


@pytest.mark.parametrize("count", [2, 6])
def test_processes_that_start_one_experiment_at_once_compute_each_stage_once(tiny, count):
    processes = [tiny.start("run", tiny.file, **fault(tiny)) for _ in range(count)]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [(code, error) for _, error, code in ended] == [(0, "")] * count
    assert set(computed_keys(tiny).values()) == {1}
    assert len({out[out.index("Policies:") : out.index("report:")] for out, _, _ in ended}) == 1


def test_experiments_that_share_stages_and_start_at_once_compute_them_once(tiny):
    other = tiny.folder / "other.yaml"
    other.write_text(tiny.file.read_text().replace("w4a4", "w2a2"))
    processes = [tiny.start("run", file, **fault(tiny)) for file in (tiny.file, other)]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [(code, error) for _, error, code in ended] == [(0, "")] * 2
    assert set(computed_keys(tiny).values()) == {1}
    assert results(tiny)["indicators"] == results(tiny, "other")["indicators"]


def test_what_outlives_mlflows_killed_master_is_stopped_by_down(tmp_path):
    servers.ensure(tmp_path, ["mlflow"])
    process = ServerProcess(**json.loads((tmp_path / "servers.json").read_bytes())["mlflow"]["process"])
    try:
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: servers.look(tmp_path)[1].state == "died", 10)
        assert members(process)
    finally:
        assert servers.stop_all(tmp_path) == ["mlflow"]
    assert members(process) == []
