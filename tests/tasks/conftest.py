"""Projects whose data DVC made: once per worker."""

import shutil

import pytest

from tasks.data import reproduce
from tests.tasks.dvc_project import OUTPUT_PATHS, copy_project, dvc


@pytest.fixture(scope="module")
def own_state(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXBIT_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def made_project(tmp_path_factory):
    """A copy without git, its digits and one proxy made. Tests must not change it."""
    root = copy_project(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXBIT_HOME", str(tmp_path_factory.mktemp("state")))
        reproduce("proxy@digits-half", root)
    return root


@pytest.fixture
def project(made_project, tmp_path):
    """A copy of its own, to spoil."""
    return shutil.copytree(made_project, tmp_path / "project")


@pytest.fixture(scope="session")
def remote(made_project, tmp_path_factory):
    """A remote folder holding what `made_project` pushed."""
    folder = tmp_path_factory.mktemp("remote")
    dvc(made_project, "remote", "add", "--local", "--default", "store", str(folder))
    dvc(made_project, "push", *OUTPUT_PATHS)
    (made_project / ".dvc" / "config.local").unlink()
    return folder
