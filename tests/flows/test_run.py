"""`mixbit run` and `mixbit plan` from end to end, against real Prefect and MLflow servers."""

import json
import shutil
import subprocess
import sys
import urllib.request

import numpy as np

from tasks.place import ROOT
from tasks.store import Store

STAGES = ["dataset", "layers", "proxy", "float_model", "indicators", "policy w4a4", "finetuned_model w4a4"]


def test_the_first_run_computes_every_cell_and_ends_with_a_table(ran):
    _, first = ran
    assert all(f"{cell}: done in" in first.stdout for cell in [*STAGES, "deployable w4a4", "profile w4a4 local"])
    assert "w4a4-uniform" in first.stdout
    assert "models:/tiny-w4a4/" in first.stdout


def test_the_second_run_computes_nothing_and_does_not_import_torch(ran):
    tiny, _ = ran
    again = tiny.run(PYTHONPROFILEIMPORTTIME="1")
    states = [line.split(": ")[1] for line in again.stdout.splitlines() if line.split(":")[0] in STAGES]
    assert states == ["cached"] * len(STAGES)
    assert not [line for line in again.stderr.splitlines() if line.endswith((" torch", " mlflow", " onnx"))]


def test_plan_imports_neither_torch_nor_prefect_nor_mlflow(ran):
    tiny, _ = ran
    planned = tiny.mixbit("plan", tiny.file, PYTHONPROFILEIMPORTTIME="1")
    assert planned.returncode == 0
    assert not [
        line for line in planned.stderr.splitlines() if line.endswith((" torch", " prefect", " mlflow", " dvc"))
    ]


def test_after_a_run_the_plan_is_cached_throughout(ran):
    tiny, _ = ran
    assert {cell["state"] for cell in tiny.plan().values()} == {"cached"}


def test_runs_are_idempotent_no_second_version_and_no_second_experiment_run(ran):
    tiny, first = ran
    last = [line for line in first.stdout.splitlines() if "models:/" in line]
    assert [line for line in tiny.run().stdout.splitlines() if "models:/" in line] == last


def test_prefect_shows_a_hit_as_cached(ran):
    tiny, _ = ran
    tiny.run()
    body = json.dumps({"task_runs": {"state": {"name": {"any_": ["Cached"]}}}, "limit": 200}).encode()
    url = tiny.environment["MIXBIT_PREFECT_URL"] + "/api/task_runs/filter"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert "finetuned_model w4a4" in {run["name"] for run in json.load(answer)}


def test_another_machine_that_knows_only_the_server_computes_nothing(ran, tmp_path):
    tiny, _ = ran
    other = type(tiny)(tiny.folder, tiny.environment | {"MIXBIT_HOME": str(tmp_path / "other")})
    assert {cell["state"] for cell in other.plan().values()} == {"on server"}
    assert other.computed() == []


def test_a_renamed_copy_of_the_file_is_traced_to_its_dataset(ran, tmp_path):
    tiny, _ = ran
    packed = next(json.loads(p.read_bytes()) for p in (tiny.state / "latest/tiny").glob("deployable@w4a4.json"))
    digest = packed["outputs"]["packed.onnx"]["sha256"]
    copy = tmp_path / "renamed.onnx"
    shutil.copy(tiny.state / "blobs" / digest[:2] / digest, copy)
    told = tiny.mixbit("trace", copy)
    assert told.returncode == 0, told.stderr
    assert all(stage in told.stdout for stage in ("dataset", "indicators", "policy", "float_model"))


def test_a_file_altered_by_one_byte_is_unknown(ran, tmp_path):
    tiny, _ = ran
    packed = json.loads((tiny.state / "latest/tiny/deployable@w4a4.json").read_bytes())["outputs"]["packed.onnx"][
        "sha256"
    ]
    content = bytearray((tiny.state / "blobs" / packed[:2] / packed).read_bytes())
    content[-1] ^= 1
    (tmp_path / "altered.onnx").write_bytes(content)
    told = tiny.mixbit("trace", tmp_path / "altered.onnx")
    assert (told.returncode, len(told.stderr.splitlines()), "Traceback" in told.stderr) == (1, 1, False)


def test_changing_a_budget_reruns_policy_and_what_its_new_policy_reaches(again):
    again.edit("bitops: w4a4", "bitops: w2a2")
    assert again.plan()["policy w4a4"]["reason"] == "params.budget.bitops w4a4 → w2a2"
    assert {cell.split()[0] for cell in again.computed()} == {
        "policy",
        "finetuned_model",
        "deployable",
        "profile",
        "baseline",
    }


def test_changing_indicator_settings_reruns_indicators_and_below(again):
    again.edit("settings: {epochs: 1", "settings: {epochs: 2")
    computed = again.computed()
    assert computed[0] == "indicators"
    assert not {"dataset", "layers", "proxy", "float_model"} & set(computed)


def test_a_comment_in_the_users_network_reruns_nothing(again):
    network = again.folder / "tinynet.py"
    network.write_text("# why\n" + network.read_text())
    again.edit("model:", "# why\nmodel:")
    assert again.computed() == []


def test_a_changed_network_is_named_in_the_reason(again):
    network = again.folder / "tinynet.py"
    network.write_text(network.read_text().replace("range(2)", "range(3)"))
    assert "tinynet.py: net changed" in again.plan()["float_model"]["reason"]


def test_one_pixel_reruns_from_the_dataset(again):
    arrays = dict(np.load(again.folder / "shapes.npz"))
    arrays["train_x"][0, 0, 0, 0] += 1
    np.savez(again.folder / "shapes.npz", **arrays)
    assert again.plan()["dataset"]["reason"].startswith("input source ")
    assert "float_model" in again.computed()


def test_a_first_plan_looks_at_the_layers_in_a_child_process(again):
    again.edit("factory: tinynet:net", "factory: tinynet:net\n  arguments: {width: 6}")
    done = again.mixbit("plan", again.file)
    assert "first look at tinynet:net" in done.stdout
    assert again.plan()["layers"]["state"] == "pending"


def layers_of(tiny):
    record = json.loads((tiny.state / "latest" / "tiny" / "layers.json").read_bytes())
    return json.loads(Store(tiny.state).blob(record["outputs"]["layers.json"]["sha256"]).read_bytes())["layers"]


def test_a_given_policy_is_fine_tuned_without_a_search(again):
    names = [layer["name"] for layer in layers_of(again)]
    bits = {name: {"weight_bits": 4, "activation_bits": 4} for name in names}
    (again.folder / "mine.json").write_text(json.dumps(bits))
    text = again.file.read_text()
    head, tail = text.split("indicators:")[0], text.split("finetune:")[1]
    again.file.write_text(f"{head}policy: mine.json\nfinetune:{tail}")
    computed = again.computed()
    assert "policy mine" in computed
    assert "indicators" not in computed


def test_finetune_none_gives_a_look_in_seconds(again):
    again.edit("finetune: {epochs: 1, batch_size: 16}", "finetune: none")
    assert "finetuned_model w4a4" in again.computed()


def test_the_command_line_starts_without_heavy_imports():
    code = (
        "import sys, flows.cli; print([m for m in ('torch', 'prefect', 'mlflow', 'dvc', 'onnx') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
