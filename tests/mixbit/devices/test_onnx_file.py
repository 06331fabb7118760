import onnx
import pytest

from mixbit.devices.onnx_file import read_metadata, read_nodes, read_raw_metadata
from mixbit.errors import MisuseError


def test_nodes_are_those_that_onnx_reads(convolution):
    expected = onnx.load(convolution).graph.node
    found = read_nodes(convolution)
    assert [(n.op_type, n.name, list(n.inputs), list(n.outputs)) for n in found] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in expected
    ]


def test_metadata_are_those_that_onnx_reads(convolution):
    assert read_raw_metadata(convolution) == {p.key: p.value for p in onnx.load(convolution).metadata_props}


def test_metadata_are_parsed(convolution):
    assert read_metadata(convolution)["labels"] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 40, b"\x08\x0a"])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(MisuseError, match="not an ONNX file"):
        read_nodes(path)


def test_truncated_file_is_refused(tmp_path, convolution):
    path = tmp_path / "half.onnx"
    path.write_bytes(convolution.read_bytes()[:-40])
    with pytest.raises(MisuseError):
        read_metadata(path)


def test_foreign_onnx_file_is_no_deployable(tmp_path, convolution):
    model = onnx.load(convolution)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(MisuseError, match="not a deployable"):
        read_metadata(tmp_path / "foreign.onnx")
