import json
import subprocess
import sys

import pytest

from mixbit.errors import MixbitError
from mixbit.policy import canonical_json
from tasks import layers
from tasks.place import ROOT
from tasks.stage import Work

FACTORY = "mixbit.models.resnet:resnet8"


def run(tmp_path, shape, **arguments):
    (tmp_path / "info").write_bytes(canonical_json({"input_shape": shape}))
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    inputs = {"info": tmp_path / "info"}
    work = Work(inputs, {}, out, tmp_path, lambda *_: None, root=tmp_path, search_path=(tmp_path,))
    figures = layers.compute(work, layers.Params(factory=FACTORY, arguments=arguments))
    return figures, (out / "layers.json").read_bytes()


def test_layers_are_described_in_canonical_json(tmp_path):
    figures, content = run(tmp_path, [1, 8, 8], num_classes=10, in_channels=1)
    described = json.loads(content)
    assert content == canonical_json(described)
    assert figures == {
        "layers": 10.0,
        "macs": float(sum(layer["macs"] for layer in described["layers"])),
        "weights": 77072.0,
        "never_run": 0.0,
    }


def test_the_same_model_gives_the_same_bytes(tmp_path):
    assert run(tmp_path, [1, 8, 8], num_classes=10, in_channels=1) == run(
        tmp_path, [1, 8, 8], num_classes=10, in_channels=1
    )


def test_a_model_that_does_not_fit_the_data_is_refused_by_layer_name(tmp_path):
    with pytest.raises(MixbitError, match=r"^conv: forward fails on pictures of shape \[1, 8, 8\]"):
        run(tmp_path, [1, 8, 8], num_classes=10, in_channels=3)


def test_the_stage_names_the_module_of_the_factory():
    assert layers.modules(layers.Params(factory=FACTORY)) == ("mixbit.models.resnet",)


def test_importing_the_stage_imports_no_torch():
    code = "import sys, tasks.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
