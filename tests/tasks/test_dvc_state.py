"""What DVC has to make again and why, asked of its files and of DVC itself."""

import pytest

from mixbit.errors import MixbitError
from tasks.closure import Snapshot, closure
from tasks.data import proxy_source, source_of
from tasks.dvc_state import folder_md5, read_pipeline
from tasks.place import ROOT
from tests.tasks.dvc_project import copy_project, dvc, edit

pytestmark = pytest.mark.usefixtures("own_state")


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


def test_a_folder_has_the_digest_that_dvc_gives_it(project):
    (project / "pictures/train/b").mkdir(parents=True)
    (project / "pictures/train/b/2.txt").write_text("two")
    (project / "pictures/train/a.txt").write_text("öne")
    (project / "pictures/train-1.txt").write_text("x")
    dvc(project, "add", "pictures")
    assert f"md5: {folder_md5(project / 'pictures')}\n" in (project / "pictures.dvc").read_text()


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
