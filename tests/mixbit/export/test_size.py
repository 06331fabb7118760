"""True size: the bytes of a file are those that its policy promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixbit.costs import policy_costs
from mixbit.export.containers import container
from mixbit.export.packed import lower_packed
from mixbit.export.size import layer_sizes, payload_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.mobilenet import mobilenet_v2
from mixbit.models.resnet import resnet8, resnet20
from mixbit.models.resnet_deep import resnet18, resnet50
from tests.mixbit.export.conftest import make_case

WIDTHS = range(2, 9)
NETWORKS = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobile": mobilenet_v2,
}


def stored_bytes(weights, num_bits):
    return container(num_bits, weights)[1] * weights / 8


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_every_mix_are_within_7_percent_of_their_payload(name):
    layers = describe_layers(NETWORKS[name](10), (3, 32, 32))["layers"]
    # Of each layer the width that is worst: if their sum stays below, so does that of any mix.
    worst = [
        max(stored_bytes(layer["weights"], bits) - 1.07 * payload_bytes(layer["weights"], bits) for bits in WIDTHS)
        for layer in layers
    ]
    assert sum(worst) <= 0


@given(weights=st.integers(5_000, 10**7), num_bits=st.integers(2, 8))
def test_a_layer_of_5000_weights_or_more_is_stored_in_its_own_width(weights, num_bits):
    assert stored_bytes(weights, num_bits) == payload_bytes(weights, num_bits)


@pytest.mark.parametrize("widths", [[(3, 4)], [(8, 8)], [(2, 3), (5, 8), (7, 4), (4, 4), (6, 2), (8, 8), (3, 6)]])
def test_a_file_takes_its_payload_and_at_most_2500_bytes_a_layer_and_about_what_was_predicted(widths):
    case = make_case(widths, (3, 8, 8), resnet8(10))
    sizes = layer_sizes(lower_packed(case.marked), case.layers["layers"], case.policy)
    payload = sum(size["payload_bytes"] for size in sizes.values())
    assert payload < len(case.packed) <= payload + 2500 * len(sizes)
    metadata = 700 + 25 * len(sizes)
    predicted = policy_costs(case.policy, case.layers)["file_bytes"]
    assert predicted == pytest.approx(len(case.packed) + metadata, rel=0.03)


def test_resnet18_at_4_bit_is_under_14_hundredths_of_float():
    quantized, plain = (make_case([(bits, bits)], (3, 32, 32), resnet18(10, width=32)) for bits in (4, "float"))
    assert len(quantized.packed) < 0.14 * len(plain.packed)


def test_a_file_repeats_no_type_of_its_initializers(mixed):
    import onnx

    assert not onnx.load_from_string(mixed.packed).graph.value_info
