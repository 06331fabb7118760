import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError
from safetensors.torch import save_file

from mixbit.errors import MisuseError, MixbitError
from mixbit.models.build import build_model
from tasks import indicators
from tests.tasks.training_case import MODEL, run, write_inputs

GHOST = {"name": "ghost", "never_run": True}
PARAMS = {"num_bits": (2, 4), "settings": {"epochs": 1, "batch_size": 8}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    files = write_inputs(folder)
    save_file(build_model(MODEL["factory"], MODEL["arguments"], (), seed=0).state_dict(), folder / "float_model")
    return {**files, "float_model": folder / "float_model"}


@pytest.fixture(scope="module")
def made(inputs, tmp_path_factory):
    return run(indicators, inputs, tmp_path_factory.mktemp("stage"), PARAMS)


def test_indicators_json_has_its_shape(made):
    files, figures = made
    content = json.loads(files["indicators.json"])
    assert set(content) == {"method", "num_bits", "layers", "raw", "initial", "repairs", "step_movement", "cost"}
    assert content["method"] == "limpq"
    assert set(content["layers"]["stages.0.conv1"]["weight"]) == {"2", "4", "float"}
    assert content["cost"]["forward_passes"] == 3 * 3
    assert figures["layers"] == 8


def test_another_process_gives_the_same_bytes(inputs, made, tmp_path):
    paths = {name: str(path) for name, path in inputs.items()}
    code = (
        "import sys, pathlib; from tasks import indicators; from tests.tasks.training_case import run\n"
        f"inputs = {{name: pathlib.Path(path) for name, path in {paths!r}.items()}}\n"
        f"run(indicators, inputs, pathlib.Path({str(tmp_path)!r}), {PARAMS!r})"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in indicators.OUTPUTS} == made[0]


def test_the_parameters_say_every_setting_of_the_method():
    params = indicators.Params(**MODEL, num_bits=(2, 4), settings={"epochs": 3})
    assert params.settings["epochs"] == 3
    assert "scale_learning_rate" in params.settings
    assert indicators.modules(params) == ("policies.indicators.limpq", "mixbit.models.resnet")


def test_an_unknown_setting_or_method_is_refused():
    with pytest.raises(ValidationError, match="epoch"):
        indicators.Params(**MODEL, num_bits=(2, 4), settings={"epoch": 3})
    with pytest.raises(MixbitError, match="unknown method"):
        indicators.Params(**MODEL, method="nosuch", num_bits=(2, 4))


def test_nothing_left_to_search_is_an_error(inputs, tmp_path):
    with pytest.raises(MisuseError, match="no layer is left"):
        run(indicators, inputs, tmp_path, {**PARAMS, "excluded": ("*",)})


def test_fixed_and_excluded_layers_are_absent_from_the_table(inputs, tmp_path):
    files, _ = run(indicators, inputs, tmp_path, {**PARAMS, "excluded": ("stages.0.*", "*.shortcut.*")})
    layers = json.loads(files["indicators.json"])["layers"]
    assert sorted(layers) == ["stages.1.conv1", "stages.1.conv2", "stages.2.conv1", "stages.2.conv2"]
    assert layers["stages.1.conv1"]["activation"]["2"] > 0


def test_without_fixed_layers_all_are_in_the_table(inputs, tmp_path):
    _, figures = run(indicators, inputs, tmp_path, {**PARAMS, "fixed_layers": "none"})
    assert figures["layers"] == 10


def test_a_layer_that_never_runs_is_not_searched(inputs, made, tmp_path):
    layers = json.loads(inputs["layers"].read_bytes())
    (tmp_path / "layers").write_text(json.dumps(layers | {"layers": [*layers["layers"], GHOST]}))
    assert run(indicators, inputs | {"layers": tmp_path / "layers"}, tmp_path, PARAMS) == made


@pytest.mark.gpu
def test_indicators_on_cuda_are_the_same_bytes_twice(inputs, tmp_path):
    params = {**PARAMS, "device": "cuda"}
    assert run(indicators, inputs, tmp_path / "a", params) == run(indicators, inputs, tmp_path / "b", params)
