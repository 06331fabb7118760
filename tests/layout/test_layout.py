"""The rules of the house, where a linter can't see them."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mixbit.config import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("mixbit", "policies", "tasks", "flows")
STAGES = (
    *("dataset", "proxy", "layers", "float_model", "indicators"),
    *(
        "latency_table",
        "policy",
        "searched_policy",
        "measured_policy",
        "baseline",
        "finetuned_model",
        "deployable",
        "profile",
    ),
)
EFFECTS = ("registration", "experiment_run", "report", "sweep_run", "sweep_report", "promotion")
HEAVY = {"torch", "mlflow", "prefect", "dvc", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "matplotlib", "sklearn"}
# The flow itself: Prefect decorates it while it is imported, which only `mixbit run` does.
BEHIND_A_RUN = {
    *("flows.effects", "flows.experiment", "flows.session", "flows.sweep", "flows.sweep_cells", "flows.schedules"),
    *("flows.worker_process", "mixbit.devices.serve"),
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "factory", "registry"}
TORCH_FREE = (
    *("mixbit/*.py", "mixbit/data/*.py", "mixbit/devices/*.py", "policies/*.py", "policies/*/*.py"),
    *("tasks/*.py", "flows/*.py"),
)


def sources():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = [ROOT / line for line in tracked.splitlines()] or [p for f in FOLDERS for p in (ROOT / f).rglob("*.py")]
    return [path for path in found if path.is_file()]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_the_settings_folder_of_the_tracking_server_holds_no_python():
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_mlflow_is_the_installed_package_even_from_the_root():
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    origin = Path(done.stdout.strip())
    assert origin.name == "__init__.py"
    assert ROOT / "mlflow" not in origin.parents


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_file_of_its_name_with_outputs_params_and_compute(stage):
    module = importlib.import_module(f"tasks.{stage}")
    assert issubclass(module.Params, Settings)
    assert module.OUTPUTS
    assert all(re.fullmatch(r"[a-z_0-9]+\.(json|safetensors|onnx)", name) for name in module.OUTPUTS)
    assert callable(module.compute)
    assert re.match(rf"Stage `{stage}`: .+ -> .+", module.__doc__)


def test_there_is_no_stage_besides_those_of_the_picture():
    with_outputs = {
        path.stem for path in (ROOT / "tasks").glob("*.py") if re.search(r"^OUTPUTS\b", path.read_text(), re.MULTILINE)
    }
    assert with_outputs == set(STAGES)


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_is_no_stage(effect):
    module = importlib.import_module(f"tasks.{effect}")
    assert module.__doc__.startswith(f"Effect `{effect}`")
    assert not hasattr(module, "OUTPUTS")


def test_the_pipeline_names_every_stage():
    named = set(re.findall(r"stage(?:\(|,)\s*\"(\w+)\"", (ROOT / "flows" / "pipeline.py").read_text()))
    assert named == set(STAGES)


def test_looking_imports_nothing_heavy():
    """Every module outside the numeric folders, imported together in one fresh process."""
    paths = [path for pattern in TORCH_FREE for path in ROOT.glob(pattern)]
    names = sorted({module_name(path) for path in paths} - BEHIND_A_RUN)
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize(("package", "owner"), [("mlflow", "tracking"), ("dvc", "data")])
def test_one_file_imports(package, owner):
    importers = {path.relative_to(ROOT).as_posix() for path in sources() if package in imported_modules(path)}
    ours = {path for path in importers if path.startswith(FOLDERS)}
    assert all(path.startswith(f"tasks/{owner}") for path in ours)


def test_no_file_has_a_name_that_says_nothing():
    assert {path.stem for path in sources()} & FORBIDDEN_NAMES == set()


def test_no_file_is_longer_than_three_hundred_lines():
    long = {
        str(path.relative_to(ROOT)): count for path in sources() if (count := len(path.read_text().splitlines())) > 300
    }
    assert {name for name in long if name.startswith(FOLDERS)} == set()


def test_tests_mirror_the_folders():
    tops = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert tops <= {*FOLDERS, "layout", "benchmarks", "golden"}


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_every_committed_experiment_reads(path):
    from flows.declaration import read_experiment
    from flows.sweep_declaration import is_sweep, read_sweep

    read = read_sweep(path, ROOT).sweep if is_sweep(path) else read_experiment(path, ROOT).experiment
    assert read.name == path.stem


def test_every_tag_of_a_stage_run_is_in_the_vocabulary():
    assert yaml.safe_load((ROOT / "mlflow" / "tags.yaml").read_text())


def test_imports_go_down_only():
    argv = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_has_help_with_an_example():
    from flows.cli import _add_commands, cli

    _add_commands()
    without = [name for name, command in cli.commands.items() if f"Example: mixbit {name}" not in (command.help or "")]
    assert without == []
