import subprocess
import sys

import pytest

from mixbit.devices import backend
from mixbit.devices.device import find_device
from mixbit.devices.known import check_name
from mixbit.errors import MisuseError, MixbitError


@pytest.mark.parametrize(
    ("name", "version", "dialect"),
    [
        ("onnxruntime", "1.31.1", "packed"),
        ("onnxruntime", "1.24.0rc1", "packed"),
        ("onnxruntime", "1.23.2", "bytes"),
        ("onnxruntime", "1.17.3", "bytes"),
        ("openvino", "2026.4.1", "bytes"),
    ],
)
def test_a_runtime_gets_the_best_dialect_that_its_version_loads(name, version, dialect):
    assert backend.dialect_for({"backend": name, name: version}) == dialect


def test_a_device_that_announces_no_backend_is_of_the_default_one():
    assert backend.dialect_for({"onnxruntime": "1.19.2"}) == "bytes"


@pytest.mark.parametrize(("name", "version"), [("onnxruntime", "1.13.1"), ("openvino", "2023.0.1")])
def test_a_runtime_too_old_for_every_dialect_is_one_line(name, version):
    with pytest.raises(MixbitError, match=f"no file is written for .* {version}. Upgrade it there"):
        backend.dialect_for({"backend": name, name: version})


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(MisuseError, match="expected onnxruntime or openvino, got tvm"):
        backend.require_installed("tvm", "--backend")


def test_a_runtime_that_is_not_installed_is_one_line_with_what_to_install(monkeypatch):
    monkeypatch.setattr(backend, "installed", lambda _package: backend.ABSENT)
    with pytest.raises(MixbitError) as caught:
        find_device("local-openvino")
    hint = "In the clone: pip install --require-hashes -r requirements-openvino.lock"
    assert str(caught.value) == f"device local-openvino: OpenVINO is not installed. {hint}"


def test_no_remote_device_is_called_like_this_machine():
    with pytest.raises(MisuseError, match="not local, local-openvino, cpu, cuda"):
        check_name("local-openvino")


def test_asking_for_devices_and_dialects_imports_no_runtime():
    script = (
        "import sys; from mixbit.devices.device import dialect_of; dialect_of('local'), dialect_of('local-openvino')"
    )
    script += "; print([name for name in ('onnxruntime', 'openvino', 'numpy', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
