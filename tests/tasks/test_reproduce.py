"""Making data again, by DVC for real: what fails, what is killed, what runs at once."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from flows.server_process import wait_until
from mixbit.errors import MixbitError
from tasks.data import child_environment, proxy_source, reproduce, source_of
from tasks.place import ROOT
from tests.tasks.dvc_project import edit

pytestmark = pytest.mark.usefixtures("own_state")
SLOW_STAGE = "stages: {slow: {cmd: touch started && sleep 600 && touch out.npz, outs: [out.npz]}}"


def test_dvc_makes_the_data_that_its_lock_promises(made_project):
    assert source_of("digits", made_project, made_project).stale is None
    assert proxy_source("digits-half", made_project).stale is None
    assert (made_project / "dvc.lock").read_text() == (ROOT / "dvc.lock").read_text()


def test_making_again_after_a_change_ends_stale_and_the_data_differ(project):
    before = proxy_source("digits-half", project).digest
    edit(project / "params.yaml", "fraction: 0.5", "fraction: 0.25")
    reproduce("proxy@digits-half", project)
    after = proxy_source("digits-half", project)
    assert after.stale is None
    assert after.digest != before
    assert source_of("digits", project, project).stale is None


def test_a_failing_command_is_one_line_and_leaves_its_output_in_a_log(project, capfd):
    edit(project / "params.yaml", "fraction: 0.5", "fraction: 0.001")
    with pytest.raises(MixbitError) as caught:
        reproduce("proxy@digits-half", project)
    assert str(caught.value).startswith("dvc.yaml: proxy@digits-half: digits-half: no picture of class")
    assert "\n" not in str(caught.value)
    assert "mixbit.data.proxy" in Path(caught.value.hint.partition(": ")[2]).read_text()
    assert capfd.readouterr() == ("", "")


def test_what_dvc_itself_refuses_is_one_line(project):
    edit(project / "dvc.yaml", "outs:", "ouputs:")
    with pytest.raises(MixbitError, match=r"^dvc\.yaml: digits: .*dvc\.yaml"):
        reproduce("digits", project)


def test_two_at_once_take_turns(project):
    (project / "data/digits.safetensors").unlink()
    shutil.rmtree(project / ".dvc/cache")
    faults = []

    def one():
        try:
            reproduce("digits", project)
        except MixbitError as error:
            faults.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert source_of("digits", project, project).stale is None


def test_the_lock_of_a_killed_reproduction_is_free(project):
    (project / "data/digits.safetensors").unlink()
    command = [sys.executable, "-m", "tasks.data", "digits", str(project), str(project / "log")]
    child = subprocess.Popen(command, cwd=ROOT, env=child_environment())
    assert wait_until((project / "log").exists, 60)
    child.kill()
    child.wait()
    reproduce("digits", project)
    assert source_of("digits", project, project).stale is None


def still_running(token):
    return [one for one in psutil.process_iter() if environment_of(one).get("MIXBIT_TEST_TOKEN") == token]


def environment_of(process):
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


@pytest.mark.parametrize("victim", ["parent", "dvc"])
def test_nothing_of_a_killed_reproduction_runs_on(project, victim):
    (project / "dvc.yaml").write_text(SLOW_STAGE)
    token = f"{project} {victim}"
    code = f"from pathlib import Path; from tasks.data import reproduce; reproduce('slow', Path({str(project)!r}))"
    environment = child_environment() | {"MIXBIT_TEST_TOKEN": token}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    assert wait_until((project / "started").exists, 60)
    (dvc_process,) = psutil.Process(parent.pid).children()
    os.kill(parent.pid if victim == "parent" else dvc_process.pid, signal.SIGKILL)
    parent.wait(30)
    assert wait_until(lambda: not still_running(token), 10)
