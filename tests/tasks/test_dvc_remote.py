"""Data from a DVC remote, in trees with and without git."""

import os
import subprocess

import pytest

from tasks.data import proxy_source, reproduce, source_of
from tests.tasks.dvc_project import OUTPUT_PATHS, copy_project, dvc

pytestmark = pytest.mark.usefixtures("own_state")


def test_pull_into_a_tree_without_git_gives_the_same_data(made_project, remote, tmp_path):
    second = copy_project(tmp_path / "second")
    assert source_of("digits", second, second).stale == "data/digits.safetensors is missing"
    dvc(second, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(second, "pull", *OUTPUT_PATHS)
    assert proxy_source("digits-half", second).stale is None
    assert (second / "data/digits.safetensors").read_bytes() == (made_project / "data/digits.safetensors").read_bytes()


def test_pull_into_a_git_clone_gives_the_same_data_and_leaves_git_clean(made_project, remote, tmp_path):
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
    dvc(second, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(second, "pull", *OUTPUT_PATHS)
    assert proxy_source("digits-half", second).stale is None
    assert git("status", "--porcelain", cwd=second) == ""


def test_with_a_remote_lost_data_are_fetched_not_made(made_project, remote, tmp_path):
    second = copy_project(tmp_path / "second")
    dvc(second, "remote", "add", "--local", "--default", "store", str(remote))
    (second / "mixbit/data/__init__.py").write_text("raise SystemExit('made again')\n")
    reproduce("proxy@digits-half", second)
    assert proxy_source("digits-half", second).stale is None


def test_a_remote_that_is_away_costs_nothing_but_the_making(tmp_path):
    second = copy_project(tmp_path / "second")
    dvc(second, "remote", "add", "--local", "--default", "store", str(tmp_path / "away"))
    reproduce("digits", second)
    assert source_of("digits", second, second).stale is None
