"""The second look at an experiment: files, names, the method's settings; nothing imported, nothing built."""

import subprocess
import sys

import pytest

from flows import declaration
from flows.declaration import read_experiment
from mixbit.errors import ConfigError

GOOD = """
model: {factory: "mine:net", train: {epochs: 1}}
data: digits
indicators: {method: fake, num_bits: [2, 8], settings: {epochs: 3}}
budgets: {w4a4: {bitops: w4a4}}
finetune: none
"""
METHOD = (
    "from mixbit.config import Settings as Base\nclass Settings(Base):\n    epochs: int = 1\n    rate: float = 0.1\n"
)
LIMIT = "expected a positive number, w2a2 to w8a8 (as uniform) or such as 12.2x (smaller than float32)"
DVC = """
stages:
  digits: {cmd: x, outs: [digits.npz]}
  proxy: {foreach: "${proxies}", do: {cmd: x, outs: ["${key}.json"]}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "methods" / "fake_methods").mkdir(parents=True)
    (tmp_path / "methods" / "fake_methods" / "__init__.py").touch()
    (tmp_path / "methods" / "fake_methods" / "fake.py").write_text(METHOD)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text("proxies: {digits-half: {fraction: 0.5}}\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text("raise AssertionError('looked at, never imported')")
    monkeypatch.syspath_prepend(tmp_path / "methods")
    monkeypatch.setattr(declaration, "METHODS", "fake_methods")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("fake_methods")]:
        del sys.modules[name]


def declare(project, text, name="mine.yaml"):
    path = project / "experiments" / name
    path.write_text(text)
    return read_experiment(path, project)


def refusal(project, text, name="mine.yaml"):
    with pytest.raises(ConfigError) as caught:
        declare(project, text, name)
    return str(caught.value).replace(f"{project}/experiments/", "").split("\n")


def test_an_experiment_is_called_like_its_file(project):
    declared = declare(project, GOOD)
    assert declared.experiment.name == "mine"
    assert (declared.settings.epochs, declared.settings.rate) == (3, 0.1)
    assert declared.search_path == (project / "experiments", project)


def test_a_file_name_that_is_no_name_is_told(project):
    assert "name: expected a name" in refusal(project, GOOD, "a b.yaml")[0]
    assert declare(project, f"name: fine\n{GOOD}", "a b.yaml").experiment.name == "fine"


def test_settings_of_the_method_are_checked_with_lines(project):
    block = "indicators:\n  num_bits: [2]\n  method: fake\n  settings:\n    epocs: 3\n    rate: fast"
    text = GOOD.replace("indicators: {method: fake, num_bits: [2, 8], settings: {epochs: 3}}", block)
    assert refusal(project, text) == [
        "mine.yaml:8: indicators.settings.epocs: unknown key. Did you mean epochs?",
        "mine.yaml:9: indicators.settings.rate: expected a number, got fast",
    ]


def test_faults_of_both_looks_are_told_together(project):
    text = GOOD.replace("fake", "fale").replace("data: digits", "data: digts").replace("w4a4}", "w9a9}")
    assert refusal(project, text) == [
        "mine.yaml:3: data: no dataset of this name in dvc.yaml, got digts. Did you mean digits?",
        "mine.yaml:4: indicators.method: unknown method, expected fake, got fale. Did you mean fake?",
        f"mine.yaml:5: budgets.w4a4.bitops: {LIMIT}, got w9a9",
    ]


def test_a_proxy_goes_by_its_name_in_dvc_yaml(project):
    assert declare(project, f"{GOOD}proxy: digits-half\n").experiment.proxy == "digits-half"
    told = refusal(project, f"{GOOD}proxy: digits\n")
    assert told == ["mine.yaml:7: proxy: no proxy of this name in dvc.yaml, got digits. Did you mean digits-half?"]


def test_files_are_looked_up_beside_the_experiment_then_in_the_root(project):
    text = GOOD.replace("train: {epochs: 1}", "checkpoint: net.pt").replace("digits", "{npz: data.npz}")
    (project / "net.pt").touch()
    (project / "data.npz").touch()
    (project / "experiments" / "net.pt").touch()
    assert declare(project, text).files == {
        "model.checkpoint": project / "experiments" / "net.pt",
        "data.npz": project / "data.npz",
    }


def test_a_file_that_is_missing_or_a_folder_is_told(project):
    text = GOOD.replace("train: {epochs: 1}", "checkpoint: net.pt").replace("data: digits", "data: {npz: .}")
    assert refusal(project, text) == [
        f"mine.yaml:2: model.checkpoint: no such file, got net.pt. Looked in {project}/experiments and {project}",
        "mine.yaml:3: data.npz: expected a file, got a folder",
    ]


def test_the_standard_library_is_refused_before_any_import(project):
    assert "expected module:callable of yours" in refusal(project, GOOD.replace("mine:net", "os:system"))[0]


def test_reading_imports_no_heavy_package():
    code = """
import sys
from pathlib import Path
from flows.declaration import read_experiment
from mixbit.errors import MixbitError
try:
    read_experiment(Path("experiments/digits.yaml"), Path.cwd())
except MixbitError:
    pass
print(sorted({"torch", "prefect", "mlflow", "dvc", "numpy", "onnx"} & set(sys.modules)))
"""
    root = declaration.__file__.rsplit("/flows/", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]


def with_indicators(text):
    return GOOD.replace("indicators: {method: fake, num_bits: [2, 8], settings: {epochs: 3}}", f"indicators: {text}")


def test_a_method_of_the_users_is_found_and_not_imported(project):
    declared = declare(project, with_indicators("{method: mine:harm, num_bits: [2, 8], settings: {any: 1}}"))
    assert declared.settings is None
    assert declared.experiment.indicators.settings == {"any": 1}


def test_a_method_of_a_module_that_is_not_there_is_told(project):
    [told] = refusal(project, with_indicators("{method: yours:harm, num_bits: [2, 8]}"))
    assert told.startswith("mine.yaml:4: indicators.method: no such module")


def test_a_table_is_a_file_beside_the_experiment(project):
    (project / "experiments" / "table.json").write_text("never read here")
    declared = declare(project, with_indicators("{file: table.json, num_bits: [2, 8]}"))
    assert declared.files["indicators.file"] == project / "experiments" / "table.json"


def test_a_table_and_a_method_are_not_for_one_search(project):
    (project / "table.json").touch()
    [told] = refusal(project, with_indicators("{file: table.json, method: fake, num_bits: [2, 8]}"))
    assert told == "mine.yaml:4: indicators: expected either file (a table) or method and settings, not both"


def test_a_baseline_of_untrained_indicators_needs_some_that_are_trained(project):
    (project / "table.json").touch()
    for given in ("{file: table.json, num_bits: [2, 8]}", "{method: fake, num_bits: [2, 8]}"):
        [told] = refusal(project, with_indicators(given) + "baselines: [statistics_init_only]\n")
        assert told.startswith("mine.yaml:7: baselines[0]: reads untrained indicators, and these learn nothing")


def with_search(text):
    return GOOD.replace("indicators: {method: fake, num_bits: [2, 8], settings: {epochs: 3}}", f"search: {text}")


def test_a_direct_search_stands_instead_of_indicators(project):
    declared = declare(project, with_search("{method: evolution, num_bits: [8, 2], settings: {population: 9}}"))
    assert (declared.settings.population, declared.experiment.num_bits) == (9, (2, 8))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{method: evolutoin, num_bits: [2]}", "mine.yaml:4: search.method: unknown method, expected evolution, got"),
        ("{num_bits: [2]}", "mine.yaml:4: search.method: missing, expected a file in policies/searches"),
        ("{method: evolution, num_bits: [2], settings: {size: 1}}", "mine.yaml:4: search.settings.size: unknown key"),
        ("{method: evolution, num_bits: [2]}\nindicators: {num_bits: [2]}", "mine.yaml:1: expected either indicators"),
        (
            "{method: evolution, num_bits: [2]}\nbaselines: [reversed]",
            "mine.yaml:5: baselines[0]: reads indicators, which",
        ),
    ],
)
def test_a_direct_search_that_cannot_be_is_told_in_one_line(project, text, line, monkeypatch):
    monkeypatch.setattr(declaration, "METHODS", "policies.indicators")
    [told] = refusal(project, with_search(text))
    assert told.startswith(line)


def test_a_direct_search_keeps_no_latency(project):
    text = with_search("{method: evolution, num_bits: [2]}").replace("bitops: w4a4", '"latency[local]": 1 ms')
    [told] = refusal(project, text)
    assert "no limit of a direct search" in told
