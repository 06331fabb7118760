"""Sources, and DVC for real: in copies of this project with and without git."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from flows.server_process import wait_until
from mixbit.errors import MisuseError, MixbitError
from mixbit.experiment import Data
from tasks.closure import Snapshot, closure
from tasks.data import child_environment, names, proxy_source, reproduce, source_of
from tasks.dvc_state import folder_md5, read_pipeline
from tasks.place import ROOT

PARTS = ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "data/.gitignore")
OUTPUTS = ("digits.safetensors", "digits-half.json")


def copy_project(target):
    """What version control holds of the data side; a link instead of the package's weight would hide a lost file."""
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, target / part)
    shutil.copytree(ROOT / "mixbit", target / "mixbit", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def dvc(folder, *arguments, check=True):
    command = [sys.executable, "-m", "dvc", *arguments]
    ran = subprocess.run(command, cwd=folder, env=child_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0 or not check, ran.stdout + ran.stderr
    return ran


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


@pytest.fixture(autouse=True, scope="module")
def state(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXBIT_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy without git, its digits and one proxy made. Tests must not change it."""
    root = copy_project(tmp_path_factory.mktemp("made"))
    reproduce("proxy@digits-half", root)
    return root


@pytest.fixture
def project(made, tmp_path):
    """A copy of its own, to spoil."""
    return shutil.copytree(made, tmp_path / "project")


@pytest.fixture(scope="module")
def store(made, tmp_path_factory):
    """A remote folder holding what `made` pushed."""
    folder = tmp_path_factory.mktemp("store")
    dvc(made, "remote", "add", "--local", "--default", "store", str(folder))
    dvc(made, "push", *OUTPUT_PATHS)
    (made / ".dvc" / "config.local").unlink()
    return folder


OUTPUT_PATHS = [f"data/{name}" for name in OUTPUTS]


def test_dvc_lock_in_version_control_is_what_the_tree_says(tmp_path):
    project = copy_project(tmp_path)
    reasons = {
        target: list(pipeline._reasons(stage, ()))
        for pipeline in [read_pipeline(project)]
        for target, stage in pipeline.stages.items()
    }
    for target, found in reasons.items():
        assert all(reason.endswith("is missing") for reason in found), f"{target}: {found}: run `dvc repro`"


def test_deps_of_every_dvc_stage_hold_all_that_its_command_imports():
    for stage in read_pipeline(ROOT).stages.values():
        module = stage.command.split()[2]
        assert set(closure([module], (), Snapshot()).files) <= set(stage.deps), stage.target


def test_dvc_makes_the_data_that_its_lock_promises(made):
    assert source_of("digits", made, made).stale is None
    assert proxy_source("digits-half", made).stale is None
    assert (made / "dvc.lock").read_text() == (ROOT / "dvc.lock").read_text()


def test_a_source_from_dvc_knows_path_md5_and_digest(made):
    source = source_of("digits", made, made)
    assert (source.kind, source.target, source.files) == ("safetensors", "digits", (made / "data/digits.safetensors",))
    assert source.md5 == read_pipeline(made).locked["digits"]["outs"][0]["md5"]
    assert json.loads((made / "data/digits-half.json").read_text())["dataset_sha256"] == source.digest


def test_names_say_what_experiments_may_use():
    known = names(ROOT)
    assert known["data"] == ["digits", "glyphs"]
    assert {"digits-half", "digits-half-herding", "digits-half-k_centre"} <= set(known["proxy"])


@pytest.mark.parametrize(("look_up", "name"), [(source_of, "digit"), (proxy_source, "digits-hafl")])
def test_a_name_that_dvc_yaml_does_not_know_gets_the_nearest(made, look_up, name):
    with pytest.raises(MisuseError, match=rf"dvc\.yaml: no (dataset|proxy) named '{name}'\. Did you mean digits"):
        look_up(name, made, *([made] if look_up is source_of else []))


def test_a_proxy_is_no_dataset(made):
    with pytest.raises(MisuseError, match="no dataset named 'digits-half'"):
        source_of("digits-half", made, made)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("params.yaml", "fraction: 0.5", "fraction: 0.25", "its command changed: --fraction 0.5 → 0.25"),
        ("params.yaml", "digits:\n  seed: 0", "digits:\n  seed: 7", "digits: its command changed: --seed 0 → 7"),
        ("mixbit/data/proxy.py", "COMPONENTS = 32", "COMPONENTS = 16", "mixbit/data/proxy.py changed"),
        ("mixbit/data/digits.py", "HELD_OUT = 0.2", "HELD_OUT = 0.3", "digits: mixbit/data/digits.py changed"),
        ("data/digits-half.json", "stratified", "herding", "data/digits-half.json changed"),
        ("dvc.yaml", "      - mixbit/data/proxy.py\n", "", "mixbit/data/proxy.py is no longer declared"),
        (
            "dvc.yaml",
            "      - mixbit/data/proxy.py\n",
            "      - mixbit/data/proxy.py\n      - params.yaml\n",
            "params.yaml is new",
        ),
        (
            "dvc.yaml",
            "      outs:\n",
            "      params:\n      - digits.seed\n      outs:\n",
            "params.yaml: digits.seed null → 0",
        ),
    ],
)
def test_what_dvc_must_make_again_is_told_with_its_reason(project, file, old, new, expected):
    edit(project / file, old, new)
    source = proxy_source("digits-half", project)
    assert source.stale == expected
    assert source.md5 is None


def test_lost_data_and_a_lost_lock_are_reasons(project):
    (project / "data/digits-half.json").unlink()
    assert proxy_source("digits-half", project).stale == "data/digits-half.json is missing"
    (project / "data/digits.safetensors").unlink()
    assert proxy_source("digits-half", project).stale == "digits: data/digits.safetensors is missing"
    (project / "dvc.lock").unlink()
    assert proxy_source("digits-half", project).stale == "never made"


def test_a_comment_in_the_code_reruns_nothing(project):
    assert source_of("digits", project, project).stale is None
    edit(project / "mixbit/data/digits.py", "HELD_OUT = 0.2", "# a remark\nHELD_OUT = 0.2")
    assert source_of("digits", project, project).stale is None


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


def test_a_look_takes_milliseconds_and_imports_neither_dvc_nor_numpy(made):
    code = (
        "import sys, time; from pathlib import Path; from tasks.data import source_of, proxy_source\n"
        "root = Path(sys.argv[1]); source_of('digits', root, root).digest\n"
        "begin = time.process_time()\n"
        "source_of('digits', root, root).digest; proxy_source('digits-half', root).digest\n"
        "print(time.process_time() - begin, sorted({'dvc', 'numpy', 'torch', 'mlflow', 'prefect'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(made)], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, _, modules = ran.stdout.strip().partition(" ")
    assert modules == "[]"
    assert float(seconds) < 0.05


def test_pull_into_a_tree_without_git_gives_the_same_data(made, store, tmp_path):
    second = copy_project(tmp_path / "second")
    assert source_of("digits", second, second).stale == "data/digits.safetensors is missing"
    dvc(second, "remote", "add", "--local", "--default", "store", str(store))
    dvc(second, "pull", *OUTPUT_PATHS)
    assert proxy_source("digits-half", second).stale is None
    assert (second / "data/digits.safetensors").read_bytes() == (made / "data/digits.safetensors").read_bytes()


def test_pull_into_a_git_clone_gives_the_same_data_and_leaves_git_clean(made, store, tmp_path):
    first, second = copy_project(tmp_path / "first"), tmp_path / "second"
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }

    def git(*arguments, cwd):
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=cwd, env={**os.environ, **identity}, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q", cwd=first)
    git("add", "-A", cwd=first)
    git("commit", "-qm", "all", cwd=first)
    git("clone", "-q", str(first), str(second), cwd=tmp_path)
    dvc(second, "remote", "add", "--local", "--default", "store", str(store))
    dvc(second, "pull", *OUTPUT_PATHS)
    assert proxy_source("digits-half", second).stale is None
    assert git("status", "--porcelain", cwd=second) == ""


def test_with_a_remote_lost_data_are_fetched_not_made(made, store, tmp_path):
    second = copy_project(tmp_path / "second")
    dvc(second, "remote", "add", "--local", "--default", "store", str(store))
    (second / "mixbit/data/__init__.py").write_text("raise SystemExit('made again')\n")
    reproduce("proxy@digits-half", second)
    assert proxy_source("digits-half", second).stale is None


def test_a_remote_that_is_away_costs_nothing_but_the_making(tmp_path):
    second = copy_project(tmp_path / "second")
    dvc(second, "remote", "add", "--local", "--default", "store", str(tmp_path / "away"))
    reproduce("digits", second)
    assert source_of("digits", second, second).stale is None


def test_a_folder_has_the_digest_that_dvc_gives_it(project):
    (project / "pictures/train/b").mkdir(parents=True)
    (project / "pictures/train/b/2.txt").write_text("two")
    (project / "pictures/train/a.txt").write_text("öne")
    (project / "pictures/train-1.txt").write_text("x")
    dvc(project, "add", "pictures")
    assert f"md5: {folder_md5(project / 'pictures')}\n" in (project / "pictures.dvc").read_text()


def test_paths_are_found_from_the_experiment_then_from_the_root(tmp_path):
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    np.savez(tmp_path / "mine.npz", x=np.ones(1))
    assert source_of(Data(npz="mine.npz"), tmp_path, experiments).path == tmp_path / "mine.npz"
    shutil.copy(tmp_path / "mine.npz", experiments / "mine.npz")
    source = source_of(Data(npz="mine.npz"), tmp_path, experiments)
    assert (source.path, source.name, source.kind) == (experiments / "mine.npz", "mine.npz", "npz")


def test_a_folder_is_known_by_its_files_and_not_by_its_place(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "pets" / "train").mkdir(parents=True)
        (tmp_path / place / "pets" / "train" / "a").write_text("a")
    first, second = (
        source_of(Data(folder=f"{place}/pets", image_size=8), tmp_path, tmp_path) for place in ("one", "two")
    )
    assert first.dataset_params() == second.dataset_params()
    assert first.digest == second.digest
    (tmp_path / "two/pets/train/a").write_text("b")
    assert first.digest != second.digest


def test_a_callable_has_no_file_and_no_digest(tmp_path):
    source = source_of(Data(callable="mine:make", arguments={"n": 2}), tmp_path, tmp_path)
    assert (source.files, source.digest, source.stale, source.md5) == ((), None, None, None)
    assert source.dataset_params()["arguments"] == {"n": 2}


@pytest.mark.parametrize("data", [Data(npz="none.npz"), Data(folder="none")])
def test_what_is_not_there_says_where_it_was_looked_for(tmp_path, data):
    with pytest.raises(MisuseError, match=r"no such (file|folder), got none.*Looked in"):
        source_of(data, tmp_path, tmp_path)


def test_without_dvc_yaml_there_are_no_names(tmp_path):
    with pytest.raises(MisuseError, match=r"no dataset named 'digits'\. It declares none"):
        source_of("digits", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("dvc.yaml", "stages: [", r"dvc\.yaml"),
        (
            "params.yaml",
            "digits:\n  sed: 0\nproxies: {}\n",
            r"dvc\.yaml: stages\.digits: nothing at \$\{digits\.seed\}",
        ),
        ("dvc.yaml", "stages: [1]", r"dvc\.yaml: stages: expected a mapping, got list"),
        ("dvc.yaml", "stages: {a: 3}", r"dvc\.yaml: stages\.a: expected a mapping, got int"),
        ("dvc.yaml", "stages: {a: {foreach: [1]}}", r"dvc\.yaml: stages\.a\.do: expected a mapping"),
        (
            "dvc.yaml",
            "stages: {a: {foreach: 3, do: {cmd: x}}}",
            r"dvc\.yaml: stages\.a\.foreach: expected a list or a map",
        ),
        ("dvc.yaml", "stages: {a: {cmd: x, deps: 3}}", r"dvc\.yaml: stages\.a\.deps: expected a list, got int"),
        ("dvc.lock", "a: [", r"dvc\.lock: not a file that DVC wrote"),
        ("dvc.lock", "\x00", r"dvc\.lock: not a file that DVC wrote"),
        ("dvc.lock", "[]", r"dvc\.lock: not a file that DVC wrote"),
    ],
)
def test_files_that_are_broken_are_named(project, file, content, expected):
    (project / file).write_text(content)
    with pytest.raises(MixbitError, match=expected):
        source_of("digits", project, project)


def test_the_lock_of_a_killed_reproduction_is_free(project):
    (project / "data/digits.safetensors").unlink()
    command = [sys.executable, "-m", "tasks.data", "digits", str(project), str(project / "log")]
    child = subprocess.Popen(command, cwd=ROOT, env=child_environment())
    deadline = time.monotonic() + 30
    while not (project / "log").exists() and time.monotonic() < deadline:
        os.sched_yield()
    child.kill()
    child.wait()
    reproduce("digits", project)
    assert source_of("digits", project, project).stale is None


SLOW_STAGE = "stages: {slow: {cmd: touch started && sleep 600 && touch out.npz, outs: [out.npz]}}"


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
