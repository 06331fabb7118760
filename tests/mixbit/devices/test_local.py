import json

import pytest

from mixbit.devices.device import find_device, request_for
from mixbit.errors import MisuseError, MixbitError


def _request(convolution, **settings):
    models = dict.fromkeys(("model", "float", "w8a8"), convolution)
    return request_for(models, [3, 8, 8], block_s=0.001, limit_s=20.0, **settings)


def test_profile_of_a_model_against_itself_is_about_one(convolution):
    found = find_device("local").profile(_request(convolution))
    assert 0.7 < found["ratios"]["float"]["median"] < 1.4
    assert found["rounds"]["kept"] >= 3
    assert found["latency_us"]["model"]["cpu"] > 0
    assert 0 <= found["peak_rss_bytes"]["model"] < 200e6
    assert found["layers"]["conv"]["executed"] == "float"
    json.dumps(found, allow_nan=False)


def test_file_that_the_runtime_refuses_is_one_line(convolution, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(convolution.read_bytes()[:-40])
    with pytest.raises(MixbitError, match="measuring failed") as caught:
        find_device("local").profile(_request(broken))
    assert "\n" not in str(caught.value)


def test_unknown_device_names_the_known_ones():
    with pytest.raises(MisuseError, match="expected local or local-openvino, got pi5"):
        find_device("pi5")


def test_request_survives_json(convolution):
    request = _request(convolution, seed=3)
    data = json.loads(json.dumps(request.to_json()))
    assert type(request)(**data).to_json() == request.to_json()
