"""One job on a device: real measuring processes, ended as a group."""

import hashlib
import json
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from mixbit.devices.blobs import Blobs
from mixbit.devices.device import request_for
from mixbit.devices.fingerprint import fingerprint_sha256
from mixbit.devices.job import own_fingerprint, run_job
from mixbit.devices.known import JOB_FORMAT
from tasks.place import ROOT

DEVICE_SIDE = ("blobs", "command", "device", "job", "known", "local", "measure", "memory", "layer_times", "kernels")


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "files", 10_000_000)


def job_for(file, blobs, deadline_s=120.0, block_s=0.001, **settings):
    """A job whose file is on the device already."""
    blobs.folder.mkdir(exist_ok=True)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    shutil.copy(file, blobs.folder / sha256)
    models = dict.fromkeys(("model", "float", "w8a8"), file)
    request = request_for(models, [3, 8, 8], block_s=block_s, **settings).to_json() | {
        "models": dict.fromkeys(models, sha256)
    }
    source = {"url": "http://127.0.0.1:9/none", "size_bytes": file.stat().st_size}
    digest = fingerprint_sha256(own_fingerprint())
    job = {"format": JOB_FORMAT, "request": request, "files": {sha256: source}, "fingerprint_sha256": digest}
    return job | {"deadline_s": deadline_s}


def programs(blobs):
    """Every process that works on these files."""
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [words for words in found if str(blobs.folder) in words]


def test_a_job_answers_with_figures_and_without_a_path_of_this_disk(convolution, blobs):
    answer = run_job(job_for(convolution, blobs, limit_s=5.0), blobs)
    assert answer["figures"]["layers"]["conv"]["executed"] == "float"
    assert str(blobs.folder) not in json.dumps(answer)


def test_a_job_over_its_deadline_is_stopped_with_all_its_processes(convolution, blobs):
    began_s = time.monotonic()
    answer = run_job(job_for(convolution, blobs, deadline_s=1.5, block_s=20.0, limit_s=60.0), blobs)
    assert answer == {"fault": "deadline", "says": "the job was stopped at its deadline of 2 s"}
    assert time.monotonic() - began_s < 20
    assert programs(blobs) == []


def test_a_device_that_has_changed_refuses_the_job(convolution, blobs):
    answer = run_job(job_for(convolution, blobs) | {"fingerprint_sha256": "0" * 64}, blobs)
    assert answer["fault"] == "fingerprint"


def test_a_job_of_another_version_is_refused(convolution, blobs):
    assert run_job(job_for(convolution, blobs) | {"format": 99}, blobs)["fault"] == "format"


def test_a_runtime_too_old_for_the_file_says_so(convolution, blobs, tmp_path):
    newer = tmp_path / "newer.onnx"
    newer.write_bytes(with_opset(convolution.read_bytes(), 99))
    answer = run_job(job_for(newer, blobs), blobs)
    assert answer["fault"] == "failed"
    assert "the file model: ONNX Runtime refuses it" in answer["says"]
    assert "opset 99" in answer["says"]


def with_opset(content, opset):
    import onnx_ir as ir

    model = ir.serde.deserialize_model(ir.serde.onnx.ModelProto.FromString(content))
    model.opset_imports[""] = opset
    return ir.serde.serialize_model(model).SerializeToString()


def test_the_device_side_imports_no_heavy_tool_of_the_host():
    names = [f"mixbit.devices.{name}" for name in DEVICE_SIDE]
    code = "import importlib, sys\nfor n in sys.argv[1:]: importlib.import_module(n)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "mlflow", "onnx", "onnx_ir", "prefect", "tasks", "flows"} & set(done.stdout.split()) == set()


def test_serving_imports_neither_torch_mlflow_nor_onnx():
    code = "import sys, mixbit.devices.serve\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "mlflow", "onnx", "onnx_ir", "tasks", "flows"} & set(done.stdout.split()) == set()
