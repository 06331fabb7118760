import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_nodes
from mixbit.devices.session import open_session, optimized_graph
from mixbit.export.compact import compact
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes
from mixbit.models.resnet import resnet8
from tests.mixbit.export.conftest import WIDTHS, make_case


@pytest.fixture(scope="module")
def uniform():
    return make_case([(3, 4)], (3, 8, 8), resnet8(10))


def _run(content, case):
    return open_session(content, threads=1).run(None, {"input": case.x.numpy()})[0]


@pytest.mark.parametrize("widths", [WIDTHS, [(8, 8)], [("float", "float")], [(4, "float"), (3, 3)]])
def test_a_compact_file_gives_the_same_output_to_the_last_bit(widths):
    case = make_case(widths)
    assert np.array_equal(_run(case.packed, case), _run(to_bytes(lower_packed(case.marked)), case))


def test_a_compact_file_runs_the_same_kernels(uniform):
    plain = optimized_graph(to_bytes(lower_packed(uniform.marked)), threads=1)
    short = optimized_graph(uniform.packed, threads=1)
    assert sorted(node.op_type for node in read_nodes(short)) == sorted(node.op_type for node in read_nodes(plain))
    assert not_int8(executed_kernels(uniform.packed, uniform.policy, threads=1)) == {}


def test_what_recurs_is_a_function_and_what_does_not_is_none(uniform, mixed):
    functions = onnx.load_from_string(uniform.packed).functions
    calls = [node.op_type for node in onnx.load_from_string(uniform.packed).graph.node if node.domain == "mixbit"]
    assert {function.name for function in functions} == set(calls)
    assert min(calls.count(name) for name in set(calls)) > 1
    assert not onnx.load_from_string(make_case([("float", "float")]).packed).functions


def test_a_compact_file_is_smaller_and_says_a_layers_name_once(uniform):
    assert len(uniform.packed) < len(to_bytes(lower_packed(uniform.marked))) - 800 * len(uniform.policy)
    assert uniform.packed.count(b"stages.1.conv1") == 1


def test_a_compact_file_passes_the_checker_and_the_plain_one_stays(uniform):
    lowered = lower_packed(uniform.marked)
    before = to_bytes(lowered)
    onnx.checker.check_model(onnx.load_from_string(to_bytes(compact(lowered))), full_check=True)
    assert to_bytes(lowered) == before


def test_a_layer_called_as_short_names_are_keeps_its_name(uniform):
    lowered = lower_packed(uniform.marked)
    next(node for node in lowered.graph if node.op_type == "Conv").name = "a"
    nodes = read_nodes(to_bytes(compact(lowered)))
    assert "a" not in {name for node in nodes for name in (*node.inputs, *node.outputs)}


class Ends(nn.Module):
    """Layers whose names end as names of tensors do."""

    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict({"out": nn.Conv2d(3, 4, 3), "b": nn.Linear(4, 2)})

    def forward(self, x):
        return self.block["b"](torch.relu(self.block["out"](x)).mean((2, 3)))


def test_layers_whose_names_end_as_names_of_tensors_do_are_found():
    case = make_case([(4, 4)], network=Ends())
    kernels = executed_kernels(case.packed, case.policy, threads=1)
    assert {name: kernel.kernel for name, kernel in kernels.items()} == {"block.out": "QLinearConv", "block.b": "QGemm"}
