"""The stage `indicators` with a table or a callable of the user's own."""

import json
import shutil

import pytest
from pydantic import ValidationError
from safetensors.torch import load, save_file

from mixbit.errors import ConfigError, MixbitError
from mixbit.models.build import build_model
from mixbit.policy import dump_policy
from policies.indicators import ompq
from tasks import finetuned_model, indicators
from tasks.closure import Snapshot, closure
from tests.tasks.training_case import MODEL, make_work, run, write_inputs

OWN = """
def compute_indicators(*, layers, searched, num_bits, settings, model, pictures, task, seed, checkpoint, progress):
    row = {str(bits): settings.get("harm", 1.0) / bits for bits in num_bits}
    progress(1, 1, f"{len(pictures)} pictures")
    return {"layers": {name: {"weight": row, "activation": row} for name in searched}, "note": "mine"}, {}

def rising(*, searched, **given):
    row = {"2": 0.1, "4": 0.2}
    return {"layers": {name: {"weight": row, "activation": row} for name in searched}}, {}

def missing(*, searched, **given):
    return {"layers": {name: {"weight": {"2": 1, "4": 0}} for name in searched}}, {}

def no_tensor(*, searched, **given):
    return compute_indicators(layers=0, searched=searched, num_bits=(2, 4), settings={}, model=0, pictures=[], task=0,
        seed=0, checkpoint=0, progress=print)[0], {"a": 1}

def no_json(*, searched, **given):
    row = {"2": 0.2, "4": 0.1}
    return {"layers": {name: {"weight": row, "activation": row} for name in searched}, "note": {1}}, {}
"""
PARAMS = {"method": "own_stage:compute_indicators", "num_bits": (2, 4)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    files = write_inputs(folder)
    save_file(build_model(MODEL["factory"], MODEL["arguments"], (), seed=0).state_dict(), folder / "float_model")
    return {**files, "float_model": folder / "float_model"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_stage.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return (tmp_path,)


@pytest.fixture
def table(inputs, tmp_path):
    names = [layer["name"] for layer in json.loads(inputs["layers"].read_bytes())["layers"]]
    row = {"2": 0.5, "4": 0.25, "8": 0}
    (tmp_path / "table.json").write_text(json.dumps({name: {"weight": row, "activation": row} for name in names}))
    return tmp_path / "table.json"


def given(inputs, file, folder, **params):
    work = make_work({"layers": inputs["layers"], "file": file}, folder)
    figures = indicators.compute(work, indicators.Params(method="file", num_bits=(2, 4), **params))
    return json.loads((work.out / "indicators.json").read_bytes()), figures


def test_a_given_table_needs_the_layers_only(inputs, table, tmp_path):
    content, figures = given(inputs, table, tmp_path / "a")
    assert content["layers"]["stages.0.conv1"]["weight"] == {"2": 0.5, "4": 0.25, "float": 0.0}
    assert (content["method"], figures["layers"], figures["repairs"]) == ("file", 8, 0)
    assert indicators.modules(indicators.Params(method="file", num_bits=(2, 4))) == ()


def test_a_given_harm_that_rises_with_bits_is_repaired_and_told(inputs, table, tmp_path):
    table.write_text(table.read_text().replace('"2": 0.5', '"2": 0.1', 1).replace('"2": 0.5', '"2": 0.2', 2))
    content, figures = given(inputs, table, tmp_path / "a")
    assert figures["repairs"] == len(content["repairs"]) == 1
    assert content["repairs"][0]["layer"] == "stages.0.conv1"


def test_a_table_that_misses_a_layer_is_refused(inputs, table, tmp_path):
    table.write_text(table.read_text().replace("stages.0.conv1", "stages.0.conv9"))
    with pytest.raises(ConfigError, match=r"indicator file: stages\.0\.conv1: no harm"):
        given(inputs, table, tmp_path / "a")


def test_a_factory_goes_with_a_method_and_not_with_a_table():
    with pytest.raises(ValidationError, match="factory"):
        indicators.Params(num_bits=(2, 4))
    with pytest.raises(ValidationError, match="factory"):
        indicators.Params(**MODEL, method="file", num_bits=(2, 4))


def test_a_callable_of_the_users_gives_the_harm(inputs, own, tmp_path):
    files, figures = run(indicators, inputs, tmp_path, {**PARAMS, "settings": {"harm": 4.0}}, search_path=own)
    content = json.loads(files["indicators.json"])
    assert content["layers"]["stages.0.conv1"]["weight"] == {"2": 2.0, "4": 1.0, "float": 0.0}
    assert content["raw"] == content["layers"]
    assert (content["method"], content["note"], figures["layers"]) == (PARAMS["method"], "mine", 8)
    assert load(files["supernet.safetensors"]) == {}


def test_one_of_our_files_copied_beside_the_experiment_is_such_a_method(inputs, own, tmp_path):
    shutil.copy(ompq.__file__, tmp_path / "own_ompq.py")
    params = {"num_bits": (2, 4), "settings": {"pictures": 16}}
    theirs, _ = run(indicators, inputs, tmp_path / "a", {**params, "method": "own_ompq:compute_indicators"},
                    search_path=own)  # fmt: skip
    ours, _ = run(indicators, inputs, tmp_path / "b", {**params, "method": "ompq"})
    layers = [json.loads(files["indicators.json"])["layers"] for files in (theirs, ours)]
    assert layers[0] == layers[1]


def test_the_users_file_is_part_of_the_code_behind_the_stage(own):
    params = indicators.Params(**MODEL, **PARAMS)
    assert indicators.modules(params) == ("own_stage", "mixbit.models.resnet")
    before = closure(indicators.modules(params), own, Snapshot()).files["own_stage.py"]
    (own[0] / "own_stage.py").write_text(OWN.replace("1.0", "2.0"))
    assert closure(indicators.modules(params), own, Snapshot()).files["own_stage.py"] != before


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("rising", "own_stage:rising: stages.0.conv1: weight: harm, expected never rising with num_bits"),
        ("missing", "own_stage:missing: stages.0.conv1: activation: no harm"),
        ("no_tensor", "own_stage:no_tensor: a of its second result, expected a tensor"),
        ("no_json", "own_stage:no_json: its first result is no JSON"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_refused(inputs, own, tmp_path, name, line):
    with pytest.raises(MixbitError) as caught:
        run(indicators, inputs, tmp_path, {**PARAMS, "method": f"own_stage:{name}"}, search_path=own)
    assert str(caught.value).startswith(line)


def test_fine_tuning_starts_from_the_float_model_where_no_supernet_was_trained(inputs, own, tmp_path):
    names = [layer["name"] for layer in json.loads(inputs["layers"].read_bytes())["layers"]]
    (tmp_path / "policy").write_bytes(dump_policy(dict.fromkeys(names, (4, 4))))
    run(indicators, inputs, tmp_path / "a", PARAMS, search_path=own)
    files = {**inputs, "policy": tmp_path / "policy"}
    empty = {**files, "supernet": tmp_path / "a" / "out" / "supernet.safetensors"}
    params = {"finetune": {"epochs": 1, "batch_size": 16}}
    without = run(finetuned_model, files, tmp_path / "b", params)
    assert run(finetuned_model, empty, tmp_path / "c", params) == without
