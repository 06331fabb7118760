"""A device that joins real servers as a process of its own: jobs, faults, what a user sees."""

import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixbit.devices import known, remote
from mixbit.devices.blobs import sha256_of
from mixbit.devices.device import dialect_of, find_device
from mixbit.errors import MixbitError
from tasks.place import ROOT
from tests.flows.board import Board, join, until
from tests.flows.jobs import long_request, request, seconds, slow_request

KNOWN_S = 120.0  # within which a lost job must be known


@pytest.fixture(scope="module")
def board(tmp_path_factory, urls):
    one = Board(tmp_path_factory.mktemp("board") / "disk", urls["MIXBIT_PREFECT_URL"])
    yield one.start()
    one.stop()


@pytest.fixture
def device(board, host):
    assert host("add", board.name).exit_code == 0
    return find_device(board.name)


def listed(host, name):
    return next(row for row in json.loads(host("--json").stdout) if row["name"] == name)


def test_a_device_joins_is_added_measures_and_is_listed(host, device, network):
    found = device.profile(request(network("first")))
    assert found["layers"]["conv"]["executed"] == "float"
    row = listed(host, device.name)
    assert (row["state"], row["added"], row["last_job"]["state"]) == ("online", True, "COMPLETED")
    assert row["fingerprint"] == device.fingerprint()
    assert re.search(rf"^{device.name} +online", host().stdout, re.MULTILINE)


def test_a_file_altered_on_the_server_is_refused_and_sent_anew(device, network):
    path = network("altered")
    sha256 = sha256_of(path)
    address = f"{remote.os.environ['MLFLOW_TRACKING_URI']}{remote.ARTIFACTS}{remote.FOLDER}/{sha256}"
    remote._send(address, "PUT", address, b"x" * path.stat().st_size)
    assert device.profile(request(path))["layers"]


def test_a_killed_job_is_one_line_and_the_next_one_runs(board, device, network):
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(device.profile, long_request(network("killed")))
        until(lambda: board.processes("mixbit.devices.measure"), 60)
        for process in board.processes("prefect.engine"):
            process.kill()
        with pytest.raises(remote.DeviceFault, match=f"device {board.name}: the job ended as crashed: .*-9") as caught:
            lost.result(60)
    assert "\n" not in str(caught.value)
    until(lambda: not board.processes(), 10)
    assert device.profile(request(network("next")))["layers"]


def test_a_job_lost_by_a_device_that_starts_again_is_tried_once_more(board, device, network):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(device.profile, slow_request(network("blackout")))
        until(lambda: board.processes("mixbit.devices.measure"), 60)
        board.lose_power()
        board.start()
        assert asked.result(120)["layers"]
    done, lost = board.server.jobs(board.name, 2)
    assert (lost.state, done.state) == ("CRASHED", "COMPLETED")


def test_a_job_that_its_host_gives_up_really_stops_on_the_device(board, host, network):
    assert host("add", board.name).exit_code == 0
    code = (
        "import json, sys; from mixbit.devices.device import Request, find_device\n"
        "find_device(sys.argv[1]).profile(Request(**json.loads(sys.argv[2])))"
    )
    asked = json.dumps(long_request(network("given up")).to_json())
    asker = subprocess.Popen([sys.executable, "-c", code, board.name, asked], cwd=ROOT, stderr=subprocess.DEVNULL)
    until(lambda: board.processes("mixbit.devices.measure"), 60)
    assert listed(host, board.name)["state"] == "busy"
    asker.send_signal(2)
    asker.wait(30)
    until(lambda: not board.processes(), 40)
    until(lambda: board.server.jobs(board.name)[0].state == "CANCELLED", 20)


def test_two_hosts_queue_for_one_device(board, device, network):
    path, before = network("queued"), {job.job_id for job in board.server.jobs(board.name, 50)}
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(device.profile, request(path)) for _ in range(2)]
        assert all(one.result(120)["layers"] for one in done)
    first, second = sorted(
        (job for job in board.server.jobs(board.name, 50) if job.job_id not in before), key=lambda job: job.began
    )
    assert seconds(second.began) - seconds(first.began) >= first.took_s - 0.1


def test_a_file_too_new_for_the_runtime_is_one_line_with_its_opset(device, network):
    with pytest.raises(remote.DeviceFault, match=r"the file model: ONNX Runtime refuses it.*The file is opset 99"):
        device.profile(request(network("too new", opset=99)))


def test_another_machine_of_the_same_name_is_refused(board, tmp_path, urls):
    twin = Board(tmp_path / "twin", urls["MIXBIT_PREFECT_URL"], name=board.name)
    twin.folder.mkdir()
    command = [sys.executable, "-m", "mixbit.devices.command", "serve", "--name", board.name]
    done = subprocess.run(
        [*command, "--server", twin.url, "--folder", twin.folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: device {board.name}: another machine of this name is online" in done.stderr


def test_an_unknown_device_names_those_that_joined(board, host):
    with pytest.raises(MixbitError, match=rf"device moon: has not joined, expected .*{board.name}.*, got moon"):
        host("add", "moon")


def test_a_removed_device_is_unknown_here_and_there(host, urls):
    name = "gone-device"
    known.write(name, known.Announcement({"arch": "x"}, "2026-01-01T00:00:00+00:00"))
    assert host("remove", name).stdout == f"removed {name}\n"
    assert known.names() == []
    assert name not in host().stdout


@pytest.fixture
def away(tmp_path, urls, host):
    """A device that joined once, was added, and is offline; `start` brings it back."""
    one = Board(tmp_path / "away", urls["MIXBIT_PREFECT_URL"])
    join(one.name, one.url)
    assert host("add", one.name).exit_code == 0
    yield one
    one.stop()


def test_a_job_for_a_device_that_is_gone_is_withdrawn(away, network):
    with pytest.raises(remote.DeviceFault, match=f"device {away.name}: went offline before it began the job"):
        find_device(away.name).profile(request(network("withdrawn")))
    assert [job.state for job in away.server.jobs(away.name)] == ["CANCELLED"]


OFFLINE = "finetune: none\ndevices: [local, {}]\ndevice_wait_s: 0.5\nbaselines: []"


def test_an_offline_device_leaves_the_run_partial_and_a_second_run_adds_its_figures(tiny, away):
    cell = f"profile w4a4 {away.name}"
    tiny.edit("finetune: {epochs: 1, batch_size: 16}", OFFLINE.format(away.name))
    shutil.copytree(known.state_dir() / "devices", tiny.state / "devices")
    first = tiny.mixbit("run", tiny.file)
    assert first.returncode == 1
    assert f"error: {cell}: device {away.name}: offline, waited 0.5 s." in first.stderr
    assert f"partial: without {cell}; the same command adds what is missing" in first.stdout
    assert [name for name, row in tiny.plan().items() if row["state"] != "cached"] == [cell]
    assert f"{away.name}: as it announced itself" in tiny.mixbit("plan", tiny.file, "--offline").stdout
    away.start()
    assert tiny.computed() == [cell]


def test_a_budget_whose_device_is_offline_is_missing_and_the_others_are_done(tiny, away):
    tiny.edit("finetune: {epochs: 1, batch_size: 16}", OFFLINE.format(away.name).replace("0.5", "0"))
    tiny.edit("  w4a4: {bitops: w4a4}", f'  w4a4: {{bitops: w4a4}}\n  quick: {{"latency[{away.name}]": 0.9x float}}')
    shutil.copytree(known.state_dir() / "devices", tiny.state / "devices")
    done = tiny.mixbit("run", tiny.file)
    assert done.returncode == 1
    assert f"error: latency_table {away.name}: device {away.name}: offline" in done.stderr
    assert "deployable w4a4: done" in done.stdout
    assert "quick" not in done.stdout[done.stdout.index("Policies:") :].split("partial:")[0]


@pytest.mark.slow
def test_a_device_without_power_is_known_in_two_minutes_and_works_again_afterwards(board, device, network):
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(device.profile, long_request(network("no power")))
        until(lambda: board.processes("mixbit.devices.measure"), 60)
        board.lose_power()
        began_s = time.monotonic()
        with pytest.raises(remote.DeviceFault, match="the device was lost during the job"):
            lost.result(KNOWN_S + 60)
    assert time.monotonic() - began_s < KNOWN_S
    board.start()
    assert device.profile(request(network("power again")))["layers"]


def test_a_device_with_openvino_announces_it_and_measures_with_it(tmp_path, urls, host, network):
    one = Board(tmp_path / "disk", urls["MIXBIT_PREFECT_URL"], backend="openvino")
    try:
        one.start()
        assert host("add", one.name).exit_code == 0
        device = find_device(one.name)
        assert (device.fingerprint()["backend"], dialect_of(one.name)) == ("openvino", "bytes")
        assert "OpenVINO" in next(line for line in host().stdout.splitlines() if line.startswith(one.name))
        assert device.profile(request(network("openvino")))["layers"]["conv"]["kernel"].endswith("_f32")
    finally:
        one.stop()
