"""One tiny experiment with everything its own: data, network, state folder; the servers are the session's real ones."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flows.devices import devices_command
from tasks.place import ROOT
from tests.flows.jobs import write_network

NETWORK = """
from torch import nn
def net(width=4):
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.add_module("head", nn.Linear(width, 3))
    return net
"""
EXPERIMENT = """
model:
  factory: tinynet:net
  train: {epochs: 2, batch_size: 16}
data: {npz: shapes.npz}
proxy: {fraction: 0.5}
indicators:
  num_bits: [2, 4, 8]
  settings: {epochs: 1, batch_size: 16}
budgets:
  w4a4: {bitops: w4a4}
finetune: {epochs: 1, batch_size: 16}
allocation: {alpha: 1.0}
"""


@dataclass(frozen=True)
class Tiny:
    """An experiment in a folder of its own; its commands run in `cwd`."""

    folder: Path
    environment: dict[str, str]
    cwd: Path = ROOT

    @property
    def file(self):
        return self.folder / "tiny.yaml"

    @property
    def state(self):
        return Path(self.environment["MIXBIT_HOME"])

    def edit(self, old, new):
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def start(self, *arguments, **more):
        command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.cwd, env=self.environment | more, **pipes)

    def mixbit(self, *arguments, **more):
        process = self.start(*arguments, **more)
        out, error = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def run(self, **more):
        done = self.mixbit("run", self.file, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def computed(self, **more):
        """The cells that a run computes."""
        return [line.split(":")[0] for line in self.run(**more).stdout.splitlines() if ": done in" in line]

    def plan(self, *options):
        done = self.mixbit("plan", self.file, "--json", *options)
        assert done.returncode == 0, done.stderr
        return {cell["cell"]: cell for cell in json.loads(done.stdout)["cells"]}


def own(folder, network):
    """The network with a layer called after the folder."""
    return network.replace('"head"', f'"head_{zlib.crc32(bytes(folder)):08x}"')


def make_tiny(folder, **urls):
    """Three classes of 6x6 pictures that a tiny network can tell apart.

    The folder's name goes into four pixels and the name of a layer, and so into every key: experiments that share a
    server must not find each other's results, not even of a policy that they have in common.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 60, "val": 24, "test": 24}.items():
        y = np.arange(count) % 3
        x = rng.integers(0, 60, (count, 1, 6, 6))
        x[np.arange(count), 0, y * 2] += 150
        arrays |= {f"{split}_x": x.astype(np.uint8), f"{split}_y": y.astype(np.int64)}
    arrays["train_x"][0, 0, 5, :4] = list(zlib.crc32(bytes(folder)).to_bytes(4, "big"))
    np.savez(folder / "shapes.npz", **arrays)
    (folder / "tinynet.py").write_text(own(folder, NETWORK))
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, "MIXBIT_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT), **urls}
    return Tiny(folder, environment)


@pytest.fixture(scope="session")
def urls(mlflow_url, prefect_url):
    return {"MIXBIT_MLFLOW_URL": mlflow_url, "MIXBIT_PREFECT_URL": prefect_url}


@pytest.fixture
def tiny(tmp_path, urls):
    return make_tiny(tmp_path / "tiny", **urls)


@pytest.fixture
def again(ran, tmp_path):
    """A copy of the experiment that ran, with its state, to be changed and run again."""
    first, _ = ran
    folder = tmp_path / "again"
    shutil.copytree(first.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return Tiny(folder, first.environment | {"MIXBIT_HOME": str(folder / "state")})


@pytest.fixture
def offline_tiny(tmp_path):
    """For what must be refused before any server is asked."""
    return make_tiny(tmp_path / "tiny")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, urls):
    """(the experiment, its first run), shared by the tests of a module that leave it as it is."""
    experiment = make_tiny(tmp_path_factory.mktemp("ran") / "tiny", **urls)
    return experiment, experiment.run()


@pytest.fixture
def host(tmp_path, monkeypatch, urls):
    """A host's state folder and addresses; a call runs a `mixbit devices` command."""
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_API_URL", f"{urls['MIXBIT_PREFECT_URL']}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", urls["MIXBIT_MLFLOW_URL"])
    for name, url in urls.items():
        monkeypatch.setenv(name, url)
    return lambda *words: CliRunner().invoke(devices_command, words, catch_exceptions=False)


@pytest.fixture
def network(tmp_path):
    """Writes an ONNX file of one layer; its name makes it another one."""
    return lambda name, opset=21: write_network(tmp_path / f"{name}.onnx", name, opset)
