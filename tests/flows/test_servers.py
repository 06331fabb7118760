"""Both servers, started for real."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from click.testing import CliRunner

from flows import servers, up, worker
from flows.server_commands import environment, probe
from flows.server_process import ServerProcess, free_port, is_alive, last_line, members, start, stop, wait_until
from mixbit.errors import MisuseError, MixbitError
from tasks.place import ROOT

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def pair(tmp_path_factory):
    state = tmp_path_factory.mktemp("50% of ä state?#")
    yield state, servers.ensure(state)
    servers.stop_all(state)


@pytest.fixture
def sleeper(tmp_path):
    process = start(SLEEPER, os.environ, "token", tmp_path, tmp_path / "log")
    yield process
    stop(process, grace_s=1)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A mixbit command on a state of its own, with quick servers instead of real ones."""
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path))
    monkeypatch.setattr(servers, "command", quick_server)
    monkeypatch.setattr(worker, "program", lambda _state: SLEEPER)
    yield lambda name, *options: CliRunner().invoke(getattr(up, name), options, catch_exceptions=False)
    worker.stop_worker(tmp_path)
    servers.stop_all(tmp_path)


def quick_server(_name, port, host="127.0.0.1"):
    """Answers 200 to everything."""
    code = """if 1:
        import http.server, sys
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200); self.end_headers()
        http.server.HTTPServer((sys.argv[2], int(sys.argv[1])), Answer).serve_forever()"""
    return [sys.executable, "-c", code, str(port), host]


def failing_server(*_):
    return [sys.executable, "-c", "raise SystemExit('no such database')"]


def process_of(state, name):
    return ServerProcess(**json.loads((state / "servers.json").read_text())[name]["process"])


def lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_real_servers_answer_stay_and_stop(pair):
    state, first = pair
    assert servers.ensure(state) == first
    for url in (f"{first.prefect_api_url}/health", first.prefect_url, f"{first.mlflow_url}/health", first.mlflow_url):
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
    assert [(one.state, one.healthy) for one in servers.look(state)] == [("running", True)] * 2
    assert (state / "prefect" / "prefect.db").exists()
    assert (state / "mlflow" / "mlflow.db").exists()
    found = [member for name in servers.NAMES for member in members(process_of(state, name))]
    assert sorted(servers.stop_all(state)) == ["mlflow", "prefect"]
    assert wait_until(lambda: not any(map(lives, found)), 10)
    assert {one.state for one in servers.look(state)} == {"stopped"}


def served_by_a_child(name, port, *_host):
    """As `mlflow server` does: the process we start is not the one that listens."""
    return [sys.executable, "-c", f"import subprocess; subprocess.run({quick_server(name, port)!r})"]


def test_a_killed_server_comes_back_on_its_port(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", served_by_a_child)
    first = servers.ensure(tmp_path, ["mlflow"])
    os.kill(process_of(tmp_path, "mlflow").pid, signal.SIGKILL)  # the child that listens outlives it
    assert wait_until(lambda: servers.look(tmp_path)[1].state == "died", 10)
    try:
        assert servers.ensure(tmp_path, ["mlflow"]) == first
        assert len(members(process_of(tmp_path, "mlflow"))) == 2
    finally:
        assert servers.stop_all(tmp_path) == ["mlflow"]


def test_two_runs_at_once_start_one_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", quick_server)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(lambda _: servers.ensure(tmp_path), range(4)))
        assert len(found) == 1
        running = [p for p in psutil.process_iter() if str(tmp_path) in p_environ(p).get("PREFECT_HOME", "")]
        assert len(running) == 1
    finally:
        servers.stop_all(tmp_path)


def p_environ(process):
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_servers_answer_on_the_address_they_are_bound_to_and_remember_it(command):
    assert "http://127.0.0.2:" in command("up", "--bind", "127.0.0.2").output
    command("down")
    assert "http://127.0.0.2:" in command("up").output


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (servers.EVERYWHERE[1], "not one address"),
        ("192.0.2.1", "not an address of this machine"),
        ("127.0.0.2", "run on 127.0.0.1"),
    ],
)
def test_an_address_that_servers_can_not_answer_on_is_refused(command, address, words):
    command("up")
    with pytest.raises(MisuseError, match=f"--bind: .*{words}"):
        command("up", "--bind", address)


def test_mlflow_is_told_the_name_that_devices_call_it_by():
    words = servers.command("mlflow", 5000, "host.lan")
    allowed = words[words.index("--allowed-hosts") + 1].split(",")
    assert {"host.lan:*", "127.0.0.1:*"} <= set(allowed)
    assert "--allowed-hosts" not in servers.command("mlflow", 5000)


def test_ctrl_c_in_the_terminal_does_not_reach_a_server(sleeper):
    assert os.getsid(sleeper.pid) != os.getsid(0)
    os.killpg(sleeper.group, signal.SIGINT)
    assert is_alive(sleeper)


def test_stop_takes_the_whole_group_even_when_its_leader_is_gone(tmp_path):
    script = f"import subprocess, sys, time; subprocess.Popen({SLEEPER!r}); time.sleep(600)"
    process = start([sys.executable, "-c", script], os.environ, "t", tmp_path, tmp_path / "log")
    assert wait_until(lambda: len(members(process)) == 2, 20)
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(process), 10)
    assert len(members(process)) == 1
    assert stop(process)
    assert members(process) == []


def test_a_process_that_ignores_term_is_killed(tmp_path):
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    process = start([sys.executable, "-c", deaf], os.environ, "t", tmp_path, tmp_path / "log")
    assert wait_until(lambda: (tmp_path / "log").read_text() == "deaf\n", 20)
    assert stop(process, grace_s=0.2)
    assert not is_alive(process)


def test_a_recycled_pid_is_never_stopped(sleeper):
    recycled = ServerProcess(sleeper.pid, sleeper.group, sleeper.started - 100, "another token")
    assert not is_alive(recycled)
    assert not stop(recycled, grace_s=0.2)
    assert is_alive(sleeper)


def test_a_server_that_ends_while_starting_is_told_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", failing_server)
    with pytest.raises(MixbitError, match="ended while starting: no such database"):
        servers.ensure(tmp_path)
    assert {one.state for one in servers.look(tmp_path)} == {"stopped"}


def test_a_server_that_never_answers_meets_the_deadline_and_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", lambda *_: SLEEPER)
    monkeypatch.setattr(servers, "START_S", 0.5)
    with pytest.raises(MixbitError, match="did not answer within"):
        servers.ensure(tmp_path)
    assert servers.stop_all(tmp_path) == []


def test_a_taken_port_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", quick_server)
    before = servers.ensure(tmp_path)
    servers.stop_all(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(before.mlflow_url.rpartition(":")[2])))
        taken.listen()
        after = servers.ensure(tmp_path)
        servers.stop_all(tmp_path)
    assert after.prefect_url == before.prefect_url
    assert after.mlflow_url != before.mlflow_url


def test_a_team_url_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", quick_server)
    team = servers.ensure(tmp_path / "team")
    monkeypatch.setenv("MIXBIT_MLFLOW_URL", team.mlflow_url + "/")
    monkeypatch.setenv("MIXBIT_PREFECT_URL", team.prefect_api_url)
    try:
        found = servers.ensure(tmp_path / "mine")
        assert (found.mlflow_url, found.prefect_url) == (team.mlflow_url, team.prefect_url)
        assert not (tmp_path / "mine").exists()
        assert {one.state for one in servers.look(tmp_path / "mine")} == {"team"}
    finally:
        servers.stop_all(tmp_path / "team")


def test_a_team_url_that_nobody_answers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_MLFLOW_URL", f"http://127.0.0.1:{free_port(None)}")
    with pytest.raises(MixbitError, match=r"mlflow server does not answer .*Check \$MIXBIT_MLFLOW_URL") as caught:
        servers.ensure(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_loopback_goes_through_no_proxy(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "command", quick_server)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = servers.ensure(tmp_path, ["mlflow"]).mlflow_url
    assert probe("mlflow", url) is None
    servers.stop_all(tmp_path)


def test_the_users_own_settings_reach_no_server(tmp_path):
    outer = {"PREFECT_API_URL": "https://elsewhere", "MLFLOW_TRACKING_URI": "https://elsewhere", "PATH": "p"}
    for name in servers.NAMES:
        inner = environment(name, tmp_path, outer)
        assert "https://elsewhere" not in inner.values()
        assert inner["PATH"] == "p"
        assert inner["DO_NOT_TRACK"] == "true"


def test_a_broken_state_file_is_no_state(tmp_path):
    (tmp_path / "servers.json").write_text('{"mlflow": {"port":')
    assert {one.state for one in servers.look(tmp_path)} == {"stopped"}
    assert servers.known_mlflow_url(tmp_path) is None


def test_up_status_down(command):
    assert command("up").output.startswith("prefect  http://127.0.0.1:")
    assert "healthy" in command("status").output
    assert {one["state"] for one in json.loads(command("status", "--json").output).values()} == {"running"}
    assert command("down").output == "stopped mlflow and prefect and worker\n"
    assert command("down").output == "nothing was running\n"
    assert command("status").output == "prefect   stopped\nmlflow    stopped\nworker    stopped\n"


def test_up_without_a_worker_starts_the_servers_alone(command):
    assert "worker" not in command("up", "--no-worker").output
    assert command("down").output == "stopped mlflow and prefect\n"


def test_the_log_of_the_run_before_is_kept(tmp_path):
    for words in ("first", "second"):
        process = start([sys.executable, "-c", f"print({words!r})"], os.environ, "t", tmp_path, tmp_path / "a.log")
        assert wait_until(functools.partial(lambda started: not is_alive(started), process), 20)
    assert last_line(tmp_path / "a.log") == "second"
    assert last_line(tmp_path / "a.previous.log") == "first"


def test_the_commands_import_neither_prefect_nor_mlflow():
    script = "import sys, flows.servers, tasks.tracking; print({'prefect', 'mlflow', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
