"""A copy of this project as version control holds its data side, for tests that make data and spoil what made them."""

import shutil
import subprocess
import sys

from tasks.data import child_environment
from tasks.place import ROOT

PARTS = ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "data/.gitignore")
OUTPUT_PATHS = [f"data/{name}" for name in ("digits.safetensors", "digits-half.json")]


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
