import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixbit.activation_memory import _bits
from mixbit.models.graph import describe_layers, trace
from mixbit.models.nodes import layer_calls
from mixbit.models.placement import place
from mixbit.models.resnet import resnet8
from mixbit.models.tensors import activations
from tests.mixbit.models.networks import Attention, PreActivation, Residual, Twice


def test_the_tensors_of_a_residual_block_are_those_drawn_by_hand():
    found = activations(trace(Residual(), (1, 8, 8)))
    assert {name: (t["elements"], t["read_by"], sorted(t["written_by"])) for name, t in found["tensors"].items()} == {
        "x": (64, ["stem"], []),
        "stem": (256, ["conv1", "shortcut"], []),
        "conv1": (128, ["conv2"], []),
        "conv2": (128, [], ["conv2"]),
        "shortcut": (128, [], ["shortcut"]),
        "iadd": (128, [], ["conv2", "shortcut"]),
        "mean": (8, ["fc"], []),
        "fc": (3, [], []),
    }


def test_alive_at_a_step_is_what_it_reads_makes_and_what_is_read_later():
    found = activations(trace(Residual(), (1, 8, 8)))
    assert {step["step"]: step["alive"] for step in found["steps"]} == {
        "x": ["x"],
        "stem": ["x", "stem"],
        "conv1": ["stem", "conv1"],
        "conv2": ["stem", "conv1", "conv2"],
        "shortcut": ["stem", "conv2", "shortcut"],
        "iadd": ["conv2", "shortcut", "iadd"],
        "mean": ["iadd", "mean"],
        "fc": ["mean", "fc"],
    }


def test_what_goes_into_a_maximum_over_windows_has_the_bits_that_come_out():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Flatten())
    tensors = activations(trace(net, (1, 8, 8)))["tensors"]
    assert tensors["_0"] == {"elements": 256, "written_by": ["0"], "read_by": ["3"]}
    assert tensors["_2"] == {"elements": 64, "written_by": [], "read_by": ["3"]}


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_bits_are_those_of_the_placed_quantizers(data):
    net, shape = data.draw(
        st.sampled_from(
            [
                (Residual(), (1, 8, 8)),
                (PreActivation(), (1, 8, 8)),
                (Twice(), (2, 9, 9)),
                (Attention(), (1, 8, 8)),
                (resnet8(4, 1), (1, 8, 8)),
            ]
        )
    )
    layers, graph = describe_layers(net, shape), trace(net, shape)
    policy = {name: (4, data.draw(st.integers(2, 8))) for name, _, _ in layer_calls(graph)}
    for group in layers["shared_activations"]:
        policy |= dict.fromkeys(group, (4, policy[group[0]][1]))
    placed = {}
    for spot in reversed(place(graph, policy)):
        placed[spot.tensor.name] = spot.num_bits
    for name, tensor in layers["activations"]["tensors"].items():
        ends = [name, *_chain(graph, name)]
        assert _bits(tensor, policy) == next((placed[end] for end in ends if end in placed), 32)


def _chain(graph, name):
    """Nodes after one, each the only reader."""
    node = next(n for n in graph.graph.nodes if n.name == name)
    while (
        len(node.users) == 1
        and torch.Size(node.meta["shape"]).numel() == torch.Size(next(iter(node.users)).meta.get("shape", ())).numel()
    ):
        node = next(iter(node.users))
        if node.op == "call_module" and isinstance(graph.get_submodule(node.target), nn.Conv2d | nn.Linear):
            return
        if len(node.all_input_nodes) > 1:
            return
        yield node.name


@pytest.mark.parametrize("excluded", ["conv2", "shortcut"])
def test_a_sum_is_float_when_one_of_its_terms_is(excluded):
    tensors = activations(trace(Residual(), (1, 8, 8)))["tensors"]
    policy = dict.fromkeys(("stem", "conv1", "conv2", "shortcut", "fc"), (4, 4)) | {excluded: ("float", "float")}
    assert {name: _bits(tensors[name], policy) for name in ("conv2", "shortcut", "iadd")} == {
        "conv2": 32 if excluded == "conv2" else 8,
        "shortcut": 32 if excluded == "shortcut" else 8,
        "iadd": 32,
    }
