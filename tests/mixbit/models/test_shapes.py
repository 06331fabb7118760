"""The networks of the house cost what their papers say."""

import pytest

from mixbit.models.graph import describe_layers
from mixbit.models.mobilenet import mobilenet_v2
from mixbit.models.resnet import resnet8, resnet20
from mixbit.models.resnet_deep import resnet18, resnet50

LARGE, SMALL = (3, 224, 224), (3, 32, 32)


def costs(model, shape):
    layers = describe_layers(model, shape)["layers"]
    return sum(layer["macs"] for layer in layers), sum(layer["weights"] for layer in layers), len(layers)


@pytest.mark.parametrize(
    ("model", "shape", "macs", "weights", "layers"),
    [
        (resnet18, LARGE, 1_814_073_344, 11_678_912, 21),
        (resnet50, LARGE, 4_089_184_256, 25_502_912, 54),
        (mobilenet_v2, LARGE, 300_774_272, 3_469_760, 53),
    ],
)
def test_known_networks_have_their_known_costs_at_224_pixels(model, shape, macs, weights, layers):
    assert costs(model(1000), shape) == (macs, weights, layers)


@pytest.mark.parametrize(("model", "macs", "layers"), [(resnet8, 12_501_632, 10), (resnet20, 40_813_184, 22)])
def test_small_residual_networks_have_their_known_costs_at_32_pixels(model, macs, layers):
    found = costs(model(10), SMALL)
    assert (found[0], found[2]) == (macs, layers)


@pytest.mark.parametrize("model", [resnet18, resnet50, mobilenet_v2])
def test_the_small_stem_takes_small_pictures_and_sees_more_of_them(model):
    small = costs(model(10, stem="cifar"), SMALL)[0]
    assert small > 8 * costs(model(10), SMALL)[0]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47)])
@pytest.mark.parametrize("model", [resnet18, resnet50, mobilenet_v2])
def test_any_size_and_any_number_of_channels_will_do(model, shape):
    assert costs(model(7, in_channels=shape[0], stem="cifar"), shape)[2] > 20
