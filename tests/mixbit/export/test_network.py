import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import torch

from mixbit.devices.executed import not_int8
from mixbit.devices.kernels import executed_kernels
from mixbit.devices.onnx_file import read_metadata, read_nodes
from mixbit.export.check import activation_quantizers, check_layers, flip_rate
from mixbit.export.end_to_end import DeployedModel, compare
from mixbit.export.packed import lower_packed
from mixbit.export.ref import lower_ref
from mixbit.export.save import describe, to_bytes
from mixbit.export.size import layer_sizes
from mixbit.policy import policy_sha256
from tests.mixbit.export.conftest import make_case

ROOT = Path(__file__).parents[3]
INFO = {"input_shape": [3, 9, 9], "dtype": "uint8", "mean": [1.0] * 3, "std": [2.0] * 3, "labels": list("abcdefg")}


def _check(case, lower, *, optimize):
    forced = lower(case.marked, forced=True)
    return check_layers(forced, activation_quantizers(case.marked), case.recorded, case.x, threads=1, optimize=optimize)


def _end_to_end(case, lower, *, optimize=True):
    quantizers = activation_quantizers(case.marked)
    return compare(lower(case.marked), quantizers, case.recorded, case.x, threads=1, optimize=optimize)


def test_ref_fed_with_pytorch_codes_gives_equal_codes_except_at_ties(mixed):
    checks, _ = _check(mixed, lower_ref, optimize=False)
    assert sum(check.off_tie for check in checks.values()) == 0
    assert flip_rate(checks) < 1e-4


def test_ref_output_from_equal_codes_is_within_1e_5(mixed):
    _, difference = _check(mixed, lower_ref, optimize=False)
    assert difference < 1e-5


def test_int8_kernels_fed_with_pytorch_codes_flip_few_codes(mixed):
    checks, _ = _check(mixed, lower_packed, optimize=True)
    assert flip_rate(checks) < 2e-3


def test_deployed_file_chooses_the_same_class_end_to_end(mixed):
    output = DeployedModel(mixed.packed, threads=1)(mixed.x).numpy()
    assert (output.argmax(1) == mixed.recorded.output.argmax(1)).mean() >= 0.98
    assert flip_rate(_end_to_end(mixed, lower_packed).tensors) < 0.05


def test_every_layer_of_2_to_8_bits_runs_int8(mixed):
    kernels = executed_kernels(mixed.packed, mixed.policy, threads=1)
    assert not_int8(kernels) == {}
    assert {kernel.kernel for kernel in kernels.values()} == {"QLinearConv", "QGemm"}


def test_float_network_is_the_plain_network_with_batchnorm_folded(plain):
    output = DeployedModel(plain.packed, threads=1)(plain.x).numpy()
    assert np.abs(output - plain.recorded.output).max() < 1e-4
    assert {node.op_type for node in read_nodes(plain.packed)}.isdisjoint({"BatchNormalization", "DequantizeLinear"})


def test_float_layers_are_found_and_need_no_reason(plain):
    kernels = executed_kernels(plain.packed, plain.policy, threads=1)
    assert {(kernel.executed, kernel.reason) for kernel in kernels.values()} == {("float", "")}
    assert all(kernel.kernel != "missing" for kernel in kernels.values())


def test_nodes_are_named_after_layers(mixed):
    assert set(mixed.policy) <= {node.name for node in read_nodes(mixed.packed)}


def test_int2_alone_raises_opset_and_ir_version(mixed, plain):
    two_bit, without = onnx.load_from_string(mixed.packed), onnx.load_from_string(plain.packed)
    assert (two_bit.opset_import[0].version, two_bit.ir_version) == (25, 13)
    assert (without.opset_import[0].version, without.ir_version) == (21, 10)


def test_both_files_pass_the_checker(mixed):
    for content in (mixed.packed, to_bytes(lower_ref(mixed.marked))):
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


def test_file_is_at_most_payload_and_2500_bytes_a_layer(mixed):
    sizes = layer_sizes(lower_packed(mixed.marked), mixed.layers["layers"], mixed.policy)
    payload = sum(size["payload_bytes"] for size in sizes.values())
    assert len(mixed.packed) <= payload + 2500 * len(sizes)


def test_initializers_are_raw_and_nothing_tells_of_the_exporter(mixed):
    model = onnx.load_from_string(mixed.packed)
    assert all(tensor.raw_data for tensor in model.graph.initializer)
    assert not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert b"torch" not in mixed.packed
    assert str(Path.home()).encode() not in mixed.packed


def test_metadata_say_policy_inputs_and_preprocessing(mixed, tmp_path):
    metadata = describe(policy=mixed.policy, inputs={"dataset": "d" * 64}, info=INFO)
    path = tmp_path / "renamed"
    path.write_bytes(to_bytes(lower_packed(mixed.marked), metadata))
    found = read_metadata(path)
    assert found["policy.sha256"] == policy_sha256(mixed.policy)
    assert found["policy"]["stem"] == {"weight_bits": 8, "activation_bits": 8}
    assert found["inputs"] == {"dataset": "d" * 64}
    assert found["preprocessing"] == {"layout": "NCHW", **{k: INFO[k] for k in ("input_shape", "dtype", "mean", "std")}}
    assert found["labels"] == list("abcdefg")


def test_bytes_do_not_depend_on_the_process(mixed):
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import conftest as c;"
        "print(hashlib.sha256(c.make_case(c.WIDTHS).packed).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == hashlib.sha256(mixed.packed).hexdigest(), done.stderr


def test_layers_that_are_float_on_one_side_only_are_computed_in_float():
    case = make_case([(8, 8), ("float", 4), (4, "float")])
    output = DeployedModel(case.packed, threads=1)(case.x).numpy()
    assert (output.argmax(1) == case.recorded.output.argmax(1)).mean() >= 0.98
    kernels = executed_kernels(case.packed, case.policy, threads=1)
    assert kernels["depthwise"].executed == kernels["linear_out"].executed == "float"


def test_batch_size_is_free(mixed):
    model = DeployedModel(mixed.packed, threads=1)
    one_by_one = torch.cat([model(x) for x in mixed.x[:5].split(1)])
    assert torch.equal(one_by_one, model(mixed.x[:5]))
