"""Two devices on machines of their own, as far as Linux can make them here: no path, process or loopback is shared."""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from flows import servers
from flows.server_memory import read
from flows.server_process import stop
from mixbit.devices import remote
from mixbit.devices.device import find_device
from mixbit.devices.fingerprint import fingerprint_sha256
from tasks.place import ROOT
from tests.flows.board import until
from tests.flows.clones import records
from tests.flows.conftest import make_tiny
from tests.flows.jobs import request, seconds, slow_request
from tests.flows.machine import DISK, ENVIRONMENT, Bridge, Machine, require_namespaces


@pytest.fixture(scope="module")
def bridge():
    require_namespaces()
    one = Bridge()
    yield one
    one.remove()


@pytest.fixture(scope="module")
def state(bridge, tmp_path_factory):
    """State folder of a host whose servers answer on the bridge."""
    folder = tmp_path_factory.mktemp("host")
    up(folder, "--bind", bridge.address)
    yield folder
    servers.stop_all(folder)


def up(state, *options):
    """As a user of this host does it: without the addresses of a team's servers."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MIXBIT_")}
    environment |= {"MIXBIT_HOME": str(state), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "flows.cli", "up", "--no-worker", *options], env=environment, check=True)


@pytest.fixture(scope="module")
def urls(state):
    known = read(state)
    return {"MIXBIT_PREFECT_URL": known["prefect"].url, "MIXBIT_MLFLOW_URL": known["mlflow"].url}


@contextmanager
def online(bridge, urls, folder, environment=None):
    """Two machines that have joined; each has an environment of its own where one is given."""
    made = []
    try:
        for name in ("one", "two"):
            copy = environment and shutil.copytree(environment, folder / name / "environment", symlinks=True)
            made.append(Machine(folder / name, urls["MIXBIT_PREFECT_URL"], environment=copy).boot(bridge))
        with ThreadPoolExecutor() as pool:
            yield list(pool.map(Machine.start, made))
    finally:
        for machine in made:
            machine.switch_off()


@pytest.fixture(scope="module")
def machines(bridge, urls, tmp_path_factory):
    with online(bridge, urls, tmp_path_factory.mktemp("machines")) as made:
        yield made


@pytest.fixture
def devices(machines, host):
    return added(machines, host)


def added(machines, host):
    assert [host("add", one.name).exit_code for one in machines] == [0, 0]
    return [find_device(one.name) for one in machines]


def measure_at_once(machines, devices, path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda device: device.profile(request(path)), devices))
    assert [one["layers"]["conv"]["executed"] for one in found] == ["float", "float"]
    (first,), (second,) = ([job for job in one.server.jobs(one.name) if job.state == "COMPLETED"] for one in machines)
    assert abs(seconds(first.began) - seconds(second.began)) < min(first.took_s, second.took_s)


def assert_apart(machine, *paths):
    """Of the host it sees neither paths nor processes, and of networks the bridge alone."""
    for path in (ROOT, machine.folder, *paths):
        assert machine.sh(f"ls {path}")[0] == 2
    assert machine.sh("cat /proc/[0-9]*/comm")[1].split()[:2] == ["cat", "python"]
    assert machine.sh("df --output=source / /tmp /disk")[1].split() == ["Filesystem", "machine", "tmp", "disk"]
    assert len(machine.sh("ip route")[1].splitlines()) == 1


def test_two_devices_measure_at_the_same_time(machines, devices, network):
    measure_at_once(machines, devices, network("both"))


def test_a_machine_sees_nothing_of_the_host_but_its_system_and_the_bridge(machines, state, tmp_path):
    for machine in machines:
        assert_apart(machine, state, tmp_path)


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory):
    """The extra `device` alone, from its lock; mixbit is installed, not on the path."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("mixbit", "policies", "tasks", "flows"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "source")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    install = [folder / "env" / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements-device.lock"], check=True)
    subprocess.run([*install, "--no-deps", folder / "source"], check=True)
    return folder / "env"


@pytest.fixture
def bare_machines(bridge, urls, tmp_path, bare_environment):
    with online(bridge, urls, tmp_path, bare_environment) as made:
        yield made


ABSENT = "import importlib.util as u; print([n for n in ('torch', 'mlflow', 'onnx', 'dvc') if u.find_spec(n)])"


@pytest.mark.slow
def test_two_environments_of_the_device_extra_alone_measure(bare_machines, host, network, bare_environment):
    measure_at_once(bare_machines, added(bare_machines, host), network("bare"))
    for machine in bare_machines:
        assert_apart(machine, bare_environment)
        assert machine.sh(f'{ENVIRONMENT}/bin/python -I -c "{ABSENT}"') == (0, "[]")


@pytest.fixture
def elsewhere(machines, tmp_path, urls):
    """Makes an experiment that measures on these machines only."""

    def make(name, *machines):
        tiny = make_tiny(tmp_path / name / "tiny", **urls)
        assert all(tiny.mixbit("devices", "add", one.name).returncode == 0 for one in machines)
        tiny.edit("finetune: {epochs: 1, batch_size: 16}", f"finetune: none\ndevices: [{names(machines)}]")
        return tiny

    return make


def names(machines):
    return ", ".join(one.name for one in machines)


def output(tiny, cell, file):
    """What the last run made in a cell."""
    sha256 = records(tiny)[cell]["outputs"][file]["sha256"]
    return json.loads((tiny.state / "blobs" / sha256[:2] / sha256).read_bytes())


def test_latency_of_another_machine_decides_a_policy_and_its_trace_names_that_machine(elsewhere, machines):
    machine = machines[0]
    tiny, name = elsewhere("latency", machine), machine.name
    tiny.edit("  w4a4: {bitops: w4a4}\n", f"  fast:\n    latency[{name}]: 50x float\n    size_bits: 1x\n")
    tiny.edit("num_bits: [2, 4, 8]", "num_bits: [4, 8, float]")
    tiny.run()
    table = output(tiny, f"latency_table {name}", "latency_table.json")
    choice = output(tiny, "measured_policy fast", "choice.json")
    profile = output(tiny, f"profile fast {name}", "profile.json")
    assert {one["fingerprint_sha256"] for one in (table, profile)} == {fingerprint_sha256(fingerprint_of(tiny, name))}
    assert all(one["measured"][name]["latency_us"] > 0 < one["predicted_us"][name] for one in choice["candidates"])
    trace = tiny.mixbit("trace", records(tiny)[f"profile fast {name}"]["outputs"]["profile.json"]["sha256"]).stdout
    mark = f"{name} {table['fingerprint_sha256'][:8]}"
    assert [stage for stage in ("latency_table", "measured_policy", "profile") if f"{stage}  {mark}" in trace] == [
        *("latency_table", "measured_policy", "profile")
    ]


def fingerprint_of(tiny, name):
    return json.loads((tiny.state / "devices" / f"{name}.json").read_text())["fingerprint"]


@pytest.mark.slow
def test_a_file_altered_on_the_server_is_sent_anew_within_a_run(elsewhere, machines, state):
    tiny = elsewhere("altered", machines[0])
    tiny.run()
    for path in (state / "mlflow" / "artifacts" / remote.FOLDER).iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert tiny.mixbit("devices", "add", machines[1].name).returncode == 0
    tiny.edit(f"[{machines[0].name}]", f"[{names(machines)}]")
    assert tiny.computed() == [f"profile w4a4 {machines[1].name}"]
    refused, done = sorted(machines[1].server.jobs(machines[1].name, 2), key=lambda job: job.began)
    assert (refused.state, done.state) == ("FAILED", "COMPLETED")
    assert "altered on its way here" in refused.message


@pytest.mark.slow
def test_two_experiments_take_turns_on_one_device(elsewhere, machines):
    machine, before = machines[0], machines[0].server.jobs(machines[0].name, 50)
    runs = [tiny.start("run", tiny.file) for tiny in (elsewhere(name, machine) for name in ("left", "right"))]
    assert [(run.communicate(timeout=300), run.returncode)[1] for run in runs] == [0, 0]
    first, second = sorted(
        (job for job in machine.server.jobs(machine.name, 50) if job.job_id not in {one.job_id for one in before}),
        key=lambda job: job.began,
    )
    assert seconds(second.began) - seconds(first.began) >= first.took_s - 0.1


def test_a_full_disk_is_one_line_and_the_next_job_runs_when_there_is_room(machines, devices, network):
    machine, path = machines[1], network("full")
    machine.sh(f"cat /dev/zero > {DISK}/filler")
    with pytest.raises(remote.DeviceFault, match=f"device {machine.name}: device cache: no space left on the device's"):
        devices[1].profile(request(path))
    machine.sh(f"rm {DISK}/filler")
    assert devices[1].profile(request(path))["layers"]


LOST_S = 100.0  # without a sign of life, after which a server takes a job for lost


@pytest.fixture
def prefect(state):
    """Stops the server; a second call starts it again, on its port."""

    def switch():
        if not stop(read(state)["prefect"].process):
            up(state)

    yield switch
    up(state)


LOST = pytest.param("when it takes the job for lost", marks=pytest.mark.slow)


@pytest.mark.parametrize("back", ["while it measures", "after it measured", LOST])
def test_a_server_restarted_during_a_job_still_gets_its_answer(machines, devices, network, prefect, back):
    machine, measures = machines[0], lambda: machines[0].processes("mixbit.devices.measure")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(devices[0].profile, slow_request(network(f"restarted {back}")))
        until(measures, 60)
        prefect()
        stopped_s = time.monotonic()
        if back != "while it measures":
            until(lambda: not machine.processes("mixbit.devices.job"), 60)
        if back == LOST.values[0]:
            until(lambda: time.monotonic() > stopped_s + LOST_S, 2 * LOST_S)
        prefect()
        assert asked.result(120)["layers"]
    assert devices[0].profile(request(network("next")))["layers"]


def test_a_server_restarted_finds_an_idle_device_online_again(machines, devices, network, prefect):
    prefect()
    prefect()
    until(lambda: machines[1].server.is_online(machines[1].name), 60)
    assert devices[1].profile(request(network("woken")))["layers"]
