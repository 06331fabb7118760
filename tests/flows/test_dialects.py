"""Which file of a deployable a device is sent; no server is asked."""

from types import SimpleNamespace

import pytest

from flows.pipeline import Variant, _Cells
from mixbit.devices import known


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """What `profile` is given on a remote device of this runtime."""
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path))

    def ask(fingerprint):
        known.write("board", known.Announcement(fingerprint, "2026-01-01"))
        files = {f"{name}.onnx": f"{name} file" for name in ("packed", "bytes", "ref")}
        references = {name: Variant({}, {}, files) for name in ("float", "w8a8")}
        cells = _Cells(
            lambda _stage, _params, _tag, **given: given,
            SimpleNamespace(profiles={"board": None}), {"info": "info"}, {}, {}, {},
        )  # fmt: skip
        return cells.profile("w4a4", "board", files, references)

    return ask


@pytest.mark.parametrize(
    ("fingerprint", "dialect"),
    [
        ({"onnxruntime": "1.31.1"}, "packed"),
        ({"onnxruntime": "1.19.2"}, "bytes"),
        ({"backend": "openvino", "openvino": "2026.4.1"}, "bytes"),
    ],
)
def test_a_device_is_sent_deployable_and_references_in_the_dialect_that_it_loads(sent, fingerprint, dialect):
    file = f"{dialect} file"
    assert sent(fingerprint) == {dialect: file, "float_reference": file, "w8a8_reference": file, "info": "info"}
