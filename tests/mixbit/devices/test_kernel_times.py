from mixbit.devices.device import find_device, request_for
from mixbit.devices.kernel_times import by_layer

KERNELS = {"a": {"a_nchwc"}, "b": {"b_token_1", "b_token_2"}, "absorbed": set()}


def test_what_follows_a_kernel_is_its_layers_and_what_comes_before_the_first_is_the_first_ones():
    call = {
        "QuantizeLinear_0": 1.0,
        "a_nchwc": 10.0,
        "Pool": 2.0,
        "b_token_1": 5.0,
        "b_token_2": 4.0,
        "Dequantize": 3.0,
    }
    found = by_layer(call, KERNELS)
    assert found == {"a": 13.0, "b": 12.0, "absorbed": 0.0}
    assert sum(found.values()) == sum(call.values())


def test_every_layer_of_every_file_is_timed(convolution):
    found = find_device("local").kernel_times(request_for({"x": convolution, "y": convolution}, [3, 8, 8], limit_s=1))
    assert set(found) == {"x", "y"}
    assert all(set(layers) == {"conv"} and layers["conv"] > 0 for layers in found.values())
