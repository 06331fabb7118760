"""The layer that the docs follow: what its benchmark computes from the files is what the files compute."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.one_layer_codes import KERNEL, PACKED, PYTORCH, REF, follow, tie_distance
from benchmarks.one_layer_file import between
from benchmarks.one_layer_table import ladder
from benchmarks.one_layer_text import bits, floats, inputs, integers, shown, window
from mixbit.devices.session import open_session, optimized_graph
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.ref import lower_ref
from mixbit.export.save import to_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized

SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def tiny():
    """An untrained network whose second convolution is W3A4."""
    torch.manual_seed(0)
    parts = [(nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for width in (1, 8, 8)]
    network = nn.Sequential(*(module for part in parts for module in part), nn.Flatten(), nn.Linear(288, 3)).eval()
    layers, x = describe_layers(network, SHAPE), torch.randn(8, *SHAPE)
    policy = {layer["name"]: (3, 4) for layer in layers["layers"]}
    model = build_quantized(network, layers, policy, x)
    marked = marker_graph(model, SHAPE)
    ref, packed = to_bytes(lower_ref(marked)), to_bytes(lower_packed(marked))
    return SimpleNamespace(x=x, packed=packed, one=follow(model, marked, ref, packed, name="3", x=x))


def test_ref_gives_pytorchs_codes(tiny):
    codes = tiny.one.codes
    assert len(np.unique(codes[PYTORCH])) > 8
    assert np.array_equal(codes[REF], codes[PYTORCH])


def test_the_kernel_gives_the_codes_of_exact_integers(tiny):
    assert np.array_equal(tiny.one.codes[KERNEL], tiny.one.codes[PACKED])


def test_the_kernels_weights_are_the_policys_codes_shifted(tiny):
    assert np.array_equal(tiny.one.kernel.constants["w"], tiny.one.weight << 4)


def test_the_executed_graph_run_node_by_node_gives_the_sessions_output(tiny):
    given = {"input": tiny.x.numpy()}
    (by_node,) = between(optimized_graph(tiny.packed, threads=1), given, ["output"])
    assert np.array_equal(by_node, open_session(tiny.packed, threads=1).run(None, given)[0])


def test_the_last_place_shown_is_the_nearest_to_a_tie(tiny):
    ratio = tiny.one.ratios[PYTORCH]
    inside = tie_distance(ratio[(ratio > 0) & (ratio < 15)])
    assert tie_distance(ratio)[shown(tiny.one, picture=0)[-1]] == inside.min()


def test_every_table_has_as_many_cells_in_each_line(tiny):
    one, places = tiny.one, shown(tiny.one, picture=0)
    tables = [ladder(one), window(one, places[0]), floats(one, places), integers(one, places), inputs(one)]
    for told in [*tables, bits(one, tiny.packed, channel=2).split("\n\n")[1]]:
        assert len({line.count("|") for line in told.splitlines()}) == 1
