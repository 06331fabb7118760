import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from mixbit.errors import MixbitError
from mixbit.models.graph import trace
from mixbit.models.resnet import resnet8
from tests.mixbit.models.networks import Body


def refused(model, shape=(1, 6, 6)):
    with pytest.raises(MixbitError) as caught:
        trace(model, shape)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_a_shape_that_does_not_fit_names_the_layer_and_quotes_the_error_in_one_line():
    said = refused(resnet8(10, in_channels=3), (1, 8, 8))
    assert said.startswith("conv: forward fails on pictures of shape [1, 8, 8]: RuntimeError: ")
    assert "\n" not in said


def test_a_forward_that_raises_names_the_innermost_module():
    def explode(self, x):
        raise ValueError("no luck\nsecond line")

    model = nn.Sequential(nn.Conv2d(1, 1, 1), Body(explode))
    assert refused(model).startswith("1: forward fails on pictures of shape [1, 6, 6]: ValueError: no luck. ")


def test_a_branch_on_data_is_named_by_file_and_line():
    def branch(self, x):
        return x if x.sum() > 0 else -x

    said = refused(Body(branch))
    assert f"test_faults.py:{branch.__code__.co_firstlineno + 1}: forward branches on data" in said
    assert "torch.where" in said


def test_numbers_taken_out_of_tensors_are_named_by_file_and_line():
    def number(self, x):
        return x * float(x.max())

    said = refused(Body(number))
    assert f"test_faults.py:{number.__code__.co_firstlineno + 1}: forward cannot be traced: TypeError" in said


def test_a_convolution_without_a_module_names_the_module_around_it():
    class Loose(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(4, 4, 1, 1))

        def forward(self, x):
            return F.conv2d(x, self.kernel)

    said = refused(Body(lambda self, x: self.loose(x), loose=Loose()))
    assert said.startswith("loose: forward calls conv2d with a weight of its own")
    assert "nn.Conv2d" in said


@pytest.mark.parametrize(
    "product",
    [
        lambda self, x: (x.flatten(2).transpose(1, 2) @ self.weight).transpose(1, 2).unsqueeze(-1),
        lambda self, x: torch.einsum("nchw,cd->ndhw", x, self.weight),
        lambda self, x: F.linear(x.transpose(1, 3), self.weight).transpose(1, 3),
        lambda self, x: x.transpose(1, 3).matmul(self.weight.t() * 2).transpose(1, 3),
    ],
)
def test_a_product_with_a_loose_parameter_is_refused(product):
    said = refused(Body(product, weight=nn.Parameter(torch.eye(4))))
    assert "forward: forward calls" in said
    assert "with a weight of its own" in said


def test_a_product_of_two_activations_is_fine():
    trace(Body(lambda self, x: x @ x.transpose(2, 3)), (1, 6, 6))


@pytest.mark.parametrize(
    ("part", "after"),
    [
        (nn.ConvTranspose2d(4, 4, 3), lambda self, x: self.part(x)),
        (nn.Conv1d(4, 4, 1), lambda self, x: self.part(x.flatten(2)).unsqueeze(-1)),
        (nn.Conv3d(1, 1, 1), lambda self, x: self.part(x.unsqueeze(1)).squeeze(1)),
        (nn.GRU(6, 6), lambda self, x: self.part(x.flatten(1, 2))[0].unflatten(1, (4, 6))),
        (nn.MultiheadAttention(6, 2), lambda self, x: self.part(*[x.flatten(1, 2)] * 3)[0].unflatten(1, (4, 6))),
        (nn.Embedding(9, 4), lambda self, x: x + self.part(x[:, 0, 0, 0].clamp(0, 0).long())[:, :, None, None]),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_quantized_are_named(part, after):
    said = refused(Body(after, part=part))
    assert said.startswith(
        f"part: {type(part).__name__} holds weights that cannot be quantized, expected Conv2d or Linear"
    )


def test_normalization_and_activations_with_parameters_stay_float():
    part = nn.Sequential(nn.LayerNorm([4, 6, 6]), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.PReLU(4))
    trace(Body(lambda self, x: self.part(x), part=part), (1, 6, 6))


def test_a_computed_weight_is_refused_with_what_to_do():
    said = refused(Body(lambda self, x: self.part(x), part=parametrizations.weight_norm(nn.Conv2d(4, 4, 1))))
    assert said.startswith("part: the weight of this")
    assert "remove_parametrizations" in said


def test_a_weight_shared_by_two_modules_names_both():
    one, two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    two.weight = one.weight
    assert refused(Body(lambda self, x: self.two(self.one(x)), one=one, two=two)).startswith(
        "one, two: these layers share"
    )


def test_a_network_without_layers_is_refused():
    assert refused(nn.Sequential(nn.Flatten(), nn.ReLU())).startswith("Sequential: no layer to quantize")


@pytest.mark.parametrize("answer", [lambda x: (x, x), lambda x: {"logits": x}, lambda x: None])
def test_an_output_that_is_not_one_tensor_is_refused(answer):
    class Model(nn.Conv2d):
        def forward(self, x):
            return answer(super().forward(x))

    said = refused(Model(1, 2, 1))
    assert said.startswith(f"Model.forward: output, expected one tensor, got {type(answer(1)).__name__}")


def test_an_output_without_a_row_per_picture_is_refused():
    assert "expected 2 rows for 2 pictures" in refused(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(0)))


def test_a_frozen_batch_size_is_refused():
    assert "forward fails on pictures" in refused(Body(lambda self, x: x.view(1, 4, 6, 6)))


def test_work_that_does_not_grow_with_the_batch_is_refused():
    said = refused(Body(lambda self, x: x + self.side(x.mean(0, keepdim=True)), side=nn.Conv2d(4, 4, 1)))
    assert said.startswith("side: what the layer computes depends on the batch size")


def test_randomness_in_eval_mode_is_refused():
    assert "expected the same output twice" in refused(Body(lambda self, x: F.dropout(x, 0.5, training=True)))


def test_a_write_into_a_tensor_is_named_by_file_and_line():
    def write(self, x):
        x[:, 0] = 0
        return x

    assert "test_faults.py" in refused(Body(write))
    assert "does not support item assignment" in refused(Body(write))


def test_several_reasons_are_told_at_once_a_line_each():
    parts = {"up": nn.ConvTranspose2d(4, 4, 1), "down": nn.Bilinear(6, 6, 6)}
    said = refused(Body(lambda self, x: self.down(self.up(x), x), **parts)).splitlines()
    assert [line.split(":")[0] for line in said] == ["up", "down"]


def test_what_never_runs_may_be_anything():
    trace(Body(lambda self, x: x, unused=nn.LSTM(2, 2)), (1, 6, 6))
