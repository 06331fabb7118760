"""Schedules that really run: a Prefect server, this machine's worker, nights."""

import json

import pytest

from flows.server_process import wait_until
from tests.flows.conftest import make_tiny
from tests.flows.test_sweep import SWEEP, name_of, swept

NIGHT_S = 120.0


@pytest.fixture(scope="module")
def home(tmp_path_factory, urls):
    """A machine with a worker, and a sweep that ran once, so that its nights are short."""
    tiny = make_tiny(tmp_path_factory.mktemp("home") / "tiny", **urls)
    name = name_of(tiny, "nightly")
    file = swept(tiny, f"name: {name}\n{SWEEP}".replace("seed: [0, 1]", "seed: [0]").split("exclude")[0], "nightly")
    assert tiny.mixbit("run", file).returncode == 0
    assert tiny.mixbit("up").returncode == 0
    yield tiny, name, file
    tiny.mixbit("schedules", "remove", name)
    tiny.mixbit("down")


def listed(tiny, name):
    done = tiny.mixbit("schedules", "--json")
    assert done.returncode == 0, done.stderr
    return next((one for one in json.loads(done.stdout) if one["name"] == name), None)


def nights(tiny, name):
    record = tiny.state / "sweeps" / name / "night.json"
    return json.loads(record.read_bytes())["run_id"] if record.is_file() else None


def test_a_schedule_produces_and_executes_runs_by_itself(home):
    tiny, name, file = home
    before = nights(tiny, name)
    done = tiny.mixbit("schedule", file, "--every", "10s")
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: nights(tiny, name) != before, NIGHT_S)
    first = nights(tiny, name)
    assert wait_until(lambda: nights(tiny, name) != first, NIGHT_S)
    assert wait_until(lambda: listed(tiny, name)["last"][1] == "completed", NIGHT_S)


def test_a_paused_schedule_is_due_no_more(home):
    tiny, name, file = home
    assert tiny.mixbit("schedule", file, "--every", "1d").returncode == 0
    assert wait_until(lambda: listed(tiny, name)["next"], NIGHT_S)
    assert tiny.mixbit("schedules", "pause", name).returncode == 0
    assert (listed(tiny, name)["paused"], listed(tiny, name)["next"]) == (True, "")


def test_the_same_file_again_changes_its_schedule(home):
    tiny, name, file = home
    for cron in ("0 2 * * *", "30 3 * * 1"):
        assert tiny.mixbit("schedule", file, "--cron", cron, "--timezone", "Europe/Berlin").returncode == 0
    assert listed(tiny, name)["when"] == "30 3 * * 1 Europe/Berlin"


def test_a_removed_schedule_is_gone(home):
    tiny, name, file = home
    assert tiny.mixbit("schedule", file, "--every", "1d").returncode == 0
    assert tiny.mixbit("schedules", "remove", name).returncode == 0
    assert listed(tiny, name) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cron", "0 2 * *"], "--cron"),
        (["--cron", "0 2 * * *", "--timezone", "Mars/Olympus"], "--timezone"),
        (["--every", "soon"], "--every"),
        ([], "--cron or --every"),
        (["--cron", "0 2 * * *", "--every", "1d"], "--cron or --every"),
    ],
)
def test_a_schedule_that_cannot_be_understood_is_refused(home, words, said):
    tiny, _, file = home
    done = tiny.mixbit("schedule", file, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_schedule_is_told_with_those_that_are_known(home):
    tiny, _, _ = home
    done = tiny.mixbit("schedules", "pause", "nightlyy")
    assert (done.returncode, done.stderr.startswith("error: schedules: no such schedule")) == (1, True)
