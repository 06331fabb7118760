"""Sources by name or path: what is known of them before anything is made."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mixbit.errors import MisuseError
from mixbit.experiment import Data
from tasks.data import names, proxy_source, source_of
from tasks.dvc_state import read_pipeline
from tasks.place import ROOT

pytestmark = pytest.mark.usefixtures("own_state")


def test_a_source_from_dvc_knows_path_md5_and_digest(made_project):
    source = source_of("digits", made_project, made_project)
    assert (source.kind, source.target, source.files) == (
        "safetensors",
        "digits",
        (made_project / "data/digits.safetensors",),
    )
    assert source.md5 == read_pipeline(made_project).locked["digits"]["outs"][0]["md5"]
    assert json.loads((made_project / "data/digits-half.json").read_text())["dataset_sha256"] == source.digest


def test_names_say_what_experiments_may_use():
    known = names(ROOT)
    assert known["data"] == ["digits", "glyphs"]
    assert {"digits-half", "digits-half-herding", "digits-half-k_centre"} <= set(known["proxy"])


@pytest.mark.parametrize(("look_up", "name"), [(source_of, "digit"), (proxy_source, "digits-hafl")])
def test_a_name_that_dvc_yaml_does_not_know_gets_the_nearest(made_project, look_up, name):
    with pytest.raises(MisuseError, match=rf"dvc\.yaml: no (dataset|proxy) named '{name}'\. Did you mean digits"):
        look_up(name, made_project, *([made_project] if look_up is source_of else []))


def test_a_proxy_is_no_dataset(made_project):
    with pytest.raises(MisuseError, match="no dataset named 'digits-half'"):
        source_of("digits-half", made_project, made_project)


def test_without_dvc_yaml_there_are_no_names(tmp_path):
    with pytest.raises(MisuseError, match=r"no dataset named 'digits'\. It declares none"):
        source_of("digits", tmp_path, tmp_path)


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


def test_a_look_imports_neither_dvc_nor_numpy(made_project):
    code = (
        "import sys; from pathlib import Path; from tasks.data import source_of, proxy_source\n"
        "root = Path(sys.argv[1]); source_of('digits', root, root).digest; proxy_source('digits-half', root).digest\n"
        "print(sorted({'dvc', 'numpy', 'torch', 'mlflow', 'prefect'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(made_project)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
