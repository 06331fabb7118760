"""Checkouts of the code elsewhere, to be edited; other machines, as far as a process can tell."""

import json
import shutil
from dataclasses import replace

from tasks import tracking_rest
from tasks.place import ROOT

PARTS = ("flows", "tasks", "policies", "mixbit", "mlflow", "dvc.yaml", "dvc.lock", "params.yaml")


def clone(target):
    """The code of this checkout in another folder."""
    target.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def in_clone(tiny, code, **environment):
    """The same experiment, run by the code in another folder."""
    return replace(tiny, cwd=code, environment=tiny.environment | {"PYTHONPATH": str(code)} | environment)


def elsewhere(tiny, folder, code, **environment):
    """The experiment copied to `folder`, as another user's: empty state and home, another working directory."""
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("state", "home", "__pycache__"))
    (folder / "home").mkdir()
    own = {"HOME": str(folder / "home"), "USER": "somebody", "MIXBIT_HOME": str(folder / "state")}
    return replace(in_clone(tiny, code, **own, **environment), folder=folder, cwd=folder.parent)


def records(tiny):
    """Cell -> its latest record."""
    found = (tiny.state / "latest" / "tiny").glob("*.json")
    return {path.stem.replace("@", " "): json.loads(path.read_bytes()) for path in found}


def outputs(tiny):
    """`cell: file` -> sha256 of what the cell made last."""
    return {
        f"{cell}: {name}": output["sha256"]
        for cell, record in records(tiny).items()
        for name, output in record["outputs"].items()
    }


def forget_runs(tiny):
    """Delete every stage run of this experiment on the tracking server: whoever comes next has to compute."""
    for record in records(tiny).values():
        tracking_rest.post(tiny.environment["MIXBIT_MLFLOW_URL"], "runs/delete", {"run_id": record["run_id"]})
