from dataclasses import replace

import pytest
import torch
from torch import nn

from mixbit.devices.device import request_for
from mixbit.devices.layer_times import layer_times, slower_in_int8
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.save import describe, to_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized

SHAPE = [8, 12, 12]
INFO = {"input_shape": SHAPE, "dtype": "float32", "mean": [0.0] * 8, "std": [1.0] * 8, "labels": []}


class Net(nn.Module):
    """A convolution that is called twice, a depthwise one, a Linear."""

    def __init__(self):
        super().__init__()
        self.twice, self.depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.twice(self.twice(x).relu()).relu()
        return self.fc(self.depthwise(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    torch.manual_seed(0)
    folder, model, x = tmp_path_factory.mktemp("files"), Net().eval(), torch.randn(8, *SHAPE)
    layers = describe_layers(model, SHAPE)
    names = [layer["name"] for layer in layers["layers"]]
    files = {}
    for name, entry in {"model": (4, 4), "float": ("float", "float")}.items():
        policy = dict.fromkeys(names, entry)
        network = build_quantized(model, layers, policy, x)
        files[name] = folder / f"{name}.onnx"
        content = to_bytes(lower_packed(marker_graph(network, SHAPE)), describe(policy=policy, inputs={}, info=INFO))
        files[name].write_bytes(content)
    return request_for(files, SHAPE)


def test_every_layer_is_timed_beside_its_float_self_and_depthwise_ones_are_told(request_):
    found = layer_times(request_)
    assert set(found["layers"]) == {"twice", "depthwise", "fc"}
    assert {name for name, layer in found["layers"].items() if "depthwise" in layer} == {"depthwise"}
    assert all(layer["latency_us"] >= 0 and layer["ratio_to_float"] >= 0 for layer in found["layers"].values())
    assert found["others_us"]["model"] > 0


def test_layers_of_a_file_beside_itself_take_about_as_long(request_):
    files = dict.fromkeys(("model", "float"), request_.models["float"])
    found = layer_times(replace(request_, models=files, batch_size=32))["layers"]
    assert 0.5 < found["twice"]["ratio_to_float"] < 2


@pytest.mark.parametrize(
    ("changed", "lost"),
    [({}, ["a"]), ({"ratio_to_float": 1.05}, []), ({"latency_us": 4.0}, []), ({"executed": "float"}, [])],
)
def test_only_int8_layers_that_clearly_lose_are_called_slower(changed, lost):
    layer = {"executed": "int8", "latency_us": 26.0, "ratio_to_float": 1.3, **changed}
    assert list(slower_in_int8({"a": layer})) == lost


def test_the_layer_that_loses_most_comes_first():
    layer = {"executed": "int8", "latency_us": 26.0}
    found = slower_in_int8({"a": {**layer, "ratio_to_float": 1.2}, "b": {**layer, "ratio_to_float": 1.5}, "c": layer})
    assert list(found) == ["b", "a"]
