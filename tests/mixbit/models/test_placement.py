import pytest
import torch
from torch import nn

from mixbit.errors import MisuseError
from mixbit.models.graph import trace
from mixbit.models.nodes import layer_calls
from mixbit.models.placement import place
from mixbit.models.resnet import resnet8, resnet20
from tests.mixbit.models.networks import Attention, Body, Residual


def spots(model, entry, shape=(1, 8, 8), **others):
    graph = trace(model, shape)
    policy = dict.fromkeys((name for name, _, _ in layer_calls(graph)), entry) | others
    return {spot.path: spot.num_bits for spot in place(graph, policy)}


def test_a_residual_block_at_4_bit_has_an_8_bit_output_at_each_operand_of_its_sum_and_at_the_sum():
    found = spots(Residual(), (4, 4))
    assert found == {
        "activation_quantizers.x": 4,
        "activation_quantizers.relu": 4,  # one for both readers of the block's input
        "activation_quantizers.relu_1": 4,
        "activation_quantizers.mean": 4,
        "output_quantizers.bn2": 8,
        "output_quantizers.shortcut_bn": 8,
        "output_quantizers.relu_2": 8,
    }


def test_a_tensor_read_by_a_layer_and_a_sum_passes_an_8_bit_output_quantizer_first():
    assert spots(resnet8(4, 1), (4, 4))["output_quantizers.relu"] == 8
    assert spots(resnet8(4, 1), (4, 4))["activation_quantizers.relu"] == 4


def test_the_end_of_a_block_that_the_next_block_adds_to_is_8_bit():
    found = spots(resnet20(4, 1), (4, 4))
    between = [path for path in found if path.startswith("output_quantizers.stages_0_relu")]
    assert len(between) == 1
    assert found[between[0].replace("output", "activation")] == 4


def test_a_sum_with_a_float_term_stays_float():
    found = spots(Residual(), (4, 4), shortcut=("float", 4))
    assert not any(path.startswith("output_quantizers.relu_2") for path in found)


def test_batchnorm_over_the_tokens_of_a_linear_is_no_part_of_it():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(2), nn.Linear(36, 8), nn.BatchNorm1d(4), nn.Linear(8, 2))
    assert spots(model, (4, 4))["output_quantizers._2"] == 8


def test_at_8_bit_one_quantizer_serves_the_layer_and_the_sum():
    found = spots(resnet8(4, 1), (8, 8))
    assert "output_quantizers.relu" not in found
    assert found["activation_quantizers.relu"] == 8


def test_the_layer_that_makes_the_output_has_no_output_quantizer():
    closings = [nn.Identity(), nn.Softmax(1), nn.Sequential(nn.Flatten(), nn.LogSoftmax(1))]
    for closing in closings:
        found = spots(nn.Sequential(nn.Conv2d(1, 2, 3), closing), (4, 4))
        assert list(found) == ["activation_quantizers.input_1"]


def test_a_float_layer_has_no_quantizer_at_its_output():
    found = spots(Residual(), (4, 4), shortcut=("float", 4), conv2=(4, "float"))
    assert not {"output_quantizers.bn2", "output_quantizers.shortcut_bn", "activation_quantizers.relu_1"} & set(found)


def test_a_layer_that_a_float_layer_reads_still_leaves_its_kernel_at_8_bit():
    found = spots(Residual(), (4, 4), conv2=("float", "float"))
    assert found["output_quantizers.relu_1"] == 8


def test_pooling_concatenation_and_other_activations_read_an_8_bit_tensor():
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU6(), nn.AvgPool2d(2), nn.Conv2d(2, 2, 1))
    assert spots(pooled, (4, 4))["output_quantizers._1"] == 8
    silu = Body(lambda self, x: self.act(x), act=nn.SiLU())
    assert spots(silu, (4, 4))["output_quantizers.conv"] == 8
    joined = Body(lambda self, x: torch.cat([x.relu(), x], 1)[:, :4])
    assert spots(joined, (4, 4))["output_quantizers.conv"] == 8


def test_a_maximum_over_windows_is_part_of_the_kernel_before_it():
    functional = Body(lambda self, x: self.side(nn.functional.max_pool2d(x.relu(), 2)), side=nn.Conv2d(4, 4, 1))
    module = Body(lambda self, x: self.side(self.pool(x.relu())), side=nn.Conv2d(4, 4, 1), pool=nn.MaxPool2d(2))
    for model in (functional, module):
        found = spots(model, (4, 4))
        assert [path for path in found if path.startswith("output") and "side" not in path] == []


def test_relu_is_absorbed_in_every_spelling():
    for after in (lambda self, x: x.relu(), lambda self, x: torch.relu(x), lambda self, x: nn.functional.relu6(x)):
        model = Body(lambda self, x, after=after: self.side(after(self, x)), side=nn.Conv2d(4, 4, 1))
        assert not any(path.startswith("output_quantizers.conv") for path in spots(model, (4, 4)))


def test_layers_that_read_one_tensor_must_agree():
    with pytest.raises(MisuseError, match=r"conv1, shortcut: .* expected equal activation_bits, got 4 and 2"):
        spots(Residual(), (4, 4), shortcut=(4, 2))


def test_attention_quantizes_each_linear_input_once():
    found = spots(Attention(), (4, 4))
    assert sorted(path for path in found if path.startswith("activation")) == [
        "activation_quantizers.matmul_1",
        "activation_quantizers.mean",
        "activation_quantizers.norm",
        "activation_quantizers.x",
    ]
