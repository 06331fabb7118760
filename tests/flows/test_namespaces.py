"""Two devices on machines of their own, as far as Linux can make them here: no path, process or loopback is shared."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows import servers
from flows.server_memory import read
from flows.server_process import stop
from mixbit.devices.device import find_device
from tasks.place import ROOT
from tests.flows.board import until
from tests.flows.jobs import request, seconds
from tests.flows.machine import Bridge, Machine, require_namespaces


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
    subprocess.run([sys.executable, "-m", "flows.cli", "up", *options], env=environment, check=True)


@pytest.fixture(scope="module")
def urls(state):
    known = read(state)
    return {"MIXBIT_PREFECT_URL": known["prefect"].url, "MIXBIT_MLFLOW_URL": known["mlflow"].url}


@pytest.fixture(scope="module")
def machines(bridge, urls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    made = [Machine(folder / name, urls["MIXBIT_PREFECT_URL"]).boot(bridge) for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        yield list(pool.map(Machine.start, made))
    for machine in made:
        machine.switch_off()


@pytest.fixture
def devices(machines, host):
    assert [host("add", one.name).exit_code for one in machines] == [0, 0]
    return [find_device(one.name) for one in machines]


def test_two_devices_measure_at_the_same_time(machines, devices, network, host):
    path = network("both")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda device: device.profile(request(path)), devices))
    assert [one["layers"]["conv"]["executed"] for one in found] == ["float", "float"]
    (first,), (second,) = ([job for job in one.server.jobs(one.name) if job.state == "COMPLETED"] for one in machines)
    assert abs(seconds(first.began) - seconds(second.began)) < min(first.took_s, second.took_s)


def test_a_machine_sees_nothing_of_the_host_but_its_system_and_the_bridge(machines, state, tmp_path):
    for machine in machines:
        for path in (ROOT, state, tmp_path, machine.folder):
            assert machine.sh(f"ls {path}")[0] == 2
        assert machine.sh("cat /proc/[0-9]*/comm")[1].split()[:2] == ["cat", "python"]
        assert machine.sh("df --output=source / /tmp /disk")[1].split() == ["Filesystem", "machine", "tmp", "disk"]
        assert len(machine.sh("ip route")[1].splitlines()) == 1


@pytest.fixture
def prefect(state):
    """Stops the server; a second call starts it again, on its port."""

    def switch():
        if not stop(read(state)["prefect"].process):
            up(state)

    yield switch
    up(state)


def slow_request(path):
    """Measures for about ten seconds."""
    return request(path, limit_s=10.0, block_s=0.3)


@pytest.mark.parametrize("back", ["while it measures", "after it measured"])
def test_a_server_restarted_during_a_job_still_gets_its_answer(machines, devices, network, prefect, back):
    machine, measures = machines[0], lambda: machines[0].processes("mixbit.devices.measure")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(devices[0].profile, slow_request(network(f"restarted {back}")))
        until(measures, 60)
        prefect()
        if back == "after it measured":
            until(lambda: not machine.processes("mixbit.devices.job"), 60)
        prefect()
        assert asked.result(120)["layers"]
    assert devices[0].profile(request(network("next")))["layers"]


def test_a_server_restarted_finds_an_idle_device_online_again(machines, devices, network, prefect):
    prefect()
    prefect()
    until(lambda: machines[1].server.is_online(machines[1].name), 60)
    assert devices[1].profile(request(network("woken")))["layers"]
