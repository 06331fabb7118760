"""An ONNX Runtime that knows neither 4-bit nor 2-bit initializers, installed for the test."""

import json
import os
import subprocess
import sys

import pytest

from mixbit.export.bytes import lower_bytes
from mixbit.export.packed import lower_packed
from mixbit.export.save import describe, to_bytes
from tasks.place import ROOT
from tests.mixbit.export.conftest import WIDTHS, make_case

OLD = "1.17.3"
INFO = {"input_shape": [3, 9, 9], "dtype": "float32", "mean": [0.0] * 3, "std": [1.0] * 3, "labels": []}
SCRIPT = """
import json, sys
from mixbit.devices.device import dialect_of, find_device
from mixbit.errors import MixbitError
device = find_device("local")
found = {"version": device.fingerprint()["onnxruntime"], "dialect": dialect_of("local")}
for name in ("bytes", "packed"):
    try:
        found[name] = device.executed(f"{sys.argv[1]}/{name}.onnx", 1)
    except MixbitError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the old runtime says of one network in both dialects."""
    folder, case = tmp_path_factory.mktemp("old"), make_case(WIDTHS)
    metadata = describe(policy=case.policy, inputs={}, info=INFO)
    for name, lower in (("bytes", lower_bytes), ("packed", lower_packed)):
        (folder / f"{name}.onnx").write_bytes(to_bytes(lower(case.marked), metadata))
    wanted = [f"onnxruntime=={OLD}", "numpy<2"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "site"), *wanted]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)])}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_an_old_runtime_is_given_bytes_and_runs_every_layer_int8(found):
    assert (found["version"], found["dialect"]) == (OLD, "bytes")
    assert {layer["executed"] for layer in found["bytes"].values()} == {"int8"}


@pytest.mark.slow
def test_an_old_runtime_refuses_packed_in_one_line(found):
    assert "ONNX Runtime refuses it" in found["packed"]
    assert "\n" not in found["packed"]
