import platform
import subprocess
import sys

from mixbit.devices.fingerprint import fingerprint, fingerprint_sha256


def test_fingerprint_is_the_same_twice():
    assert fingerprint() == fingerprint()


def test_fingerprint_names_no_host():
    assert platform.node() not in fingerprint().values()


def test_every_part_counts():
    found = fingerprint()
    assert fingerprint_sha256(found) != fingerprint_sha256(found | {"governor": "other"})


def test_devices_import_neither_torch_nor_onnx_nor_a_runtime():
    modules = ["device", "fingerprint", "kernels", "local", "measure", "memory", "onnx_file", "session"]
    script = "import sys\n" + "\n".join(f"import mixbit.devices.{name}" for name in modules)
    script += "\nprint([m for m in ('torch', 'onnx', 'onnx_ir', 'onnxruntime', 'psutil') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
