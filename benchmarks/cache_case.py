"""A small experiment for timing the cache: every stage computes in moments, so what is timed is everything else."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from tiny_network import NETWORK

ROOT = Path(__file__).resolve().parent.parent
CLASSES, SIDE = 3, 6


@dataclass(frozen=True)
class Case:
    """The experiment's file, and the environment of its commands."""

    file: Path
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        """Records, blobs and the servers' data."""
        return Path(self.environment["MIXBIT_HOME"])

    def mixbit(self, *arguments: str) -> float:
        """Wall seconds of one `mixbit` command, the whole process."""
        return seconds([sys.executable, "-m", "flows.cli", *arguments], ROOT, self.environment)


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Wall seconds of one command, the whole process."""
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - began_s


def make(folder: Path) -> Case:
    """Write data, network and experiment."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 60, "val": 24, "test": 24}.items():
        arrays[f"{split}_y"] = np.arange(count) % CLASSES
        arrays[f"{split}_x"] = rng.integers(0, 255, (count, 1, SIDE, SIDE)).astype(np.uint8)
    np.savez(folder / "noise.npz", **arrays)
    (folder / "timed_net.py").write_text(NETWORK)
    write(folder / "timed.yaml", budgets=1)
    environment = {**os.environ, "MIXBIT_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}
    return Case(folder / "timed.yaml", environment)


def write(file: Path, budgets: int) -> None:
    """The experiment with so many budgets, each another limit: eleven cells, and six a budget."""
    declared = {
        "name": "timed",
        "model": {"factory": "timed_net:net", "train": {"epochs": 1, "batch_size": 16}},
        "data": {"npz": "noise.npz"},
        "proxy": {"fraction": 0.5},
        "indicators": {"num_bits": [2, 4, 8], "settings": {"epochs": 1, "batch_size": 16}},
        "budgets": {f"b{number}": {"bitops": 250_000 + number} for number in range(budgets)},
        "finetune": "none",
    }
    file.write_text(yaml.safe_dump(declared, sort_keys=False))
