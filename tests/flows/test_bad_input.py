"""Whatever a user gets wrong: one line per fault, exit 1 or 2, no traceback, nothing lost."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.place import ROOT
from tests.flows.conftest import NETWORK

REFUSED_BY_PLAN = {
    "unknown key": ("proxy:", "proxi:", "proxi"),
    "wrong type": ("epochs: 2", "epochs: two", "epochs"),
    "num_bits 1": ("[2, 4, 8]", "[1, 4, 8]", "indicators.num_bits"),
    "num_bits 9": ("[2, 4, 8]", "[2, 4, 9]", "indicators.num_bits"),
    "NaN budget": ("bitops: w4a4", "bitops: .nan", "budgets.w4a4.bitops"),
    "negative budget": ("bitops: w4a4", "bitops: -5", "budgets.w4a4.bitops"),
    "unknown budget": ("bitops: w4a4", "watts: 5", "watts"),
    "missing data": ("npz: shapes.npz", "npz: shape.npz", "data.npz"),
    "standard library": ("tinynet:net", "os:system", "model.factory"),
    "a name taken by a reference": ("w4a4: {", "w8a8: {", "budgets.w8a8"),
    "a name taken by a baseline": ("w4a4: {", "w4a4: {bitops: w4a4}\n  w4a4-uniform: {", "budgets.w4a4-uniform"),
    "a seed too large": ("finetune:", "seed: 1000000000000000000000\nfinetune:", "seed"),
    "unknown device": ("finetune:", "devices: [pi5]\nfinetune:", "devices[0]"),
    "missing module": ("tinynet:net", "tinnynet:net", "model.factory"),
    "a method without a module": ("indicators:\n", "indicators:\n  method: nomethod:harm\n", "indicators.method"),
    "a method that is no reference": ("indicators:\n", "indicators:\n  method: 'a b:harm'\n", "indicators.method"),
    "a missing table": ("  settings: {epochs: 1, batch_size: 16}\n", "  file: table.json\n", "indicators.file"),
    "unknown method": ("indicators:\n", "indicators:\n  method: limqp\n", "indicators.method"),
}


def refused(done, code, *words):
    """One line per fault, the exit code, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize("fault", REFUSED_BY_PLAN)
def test_a_fault_in_the_declaration_names_file_line_and_key(offline_tiny, fault):
    old, new, key = REFUSED_BY_PLAN[fault]
    offline_tiny.edit(old, new)
    lines = refused(offline_tiny.mixbit("plan", offline_tiny.file, "--offline"), 2, "tiny.yaml:", key)
    assert len(lines) == 1


def test_several_faults_are_told_at_once_with_their_lines(offline_tiny):
    offline_tiny.edit("epochs: 2", "epochs: -1")
    offline_tiny.edit("bitops: w4a4", "bitops: 0")
    lines = refused(offline_tiny.mixbit("run", offline_tiny.file), 2)
    assert [line.split(":")[2] for line in lines] == ["4", "11"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [1", b"", b"- 1\n", b"\x89PNG\r\n\x1a\n\x00"])
def test_bytes_that_are_no_experiment_are_refused(offline_tiny, content):
    offline_tiny.file.write_bytes(content)
    assert len(refused(offline_tiny.mixbit("run", offline_tiny.file), 2, "tiny.yaml")) == 1


def test_a_missing_experiment_is_refused(offline_tiny):
    refused(offline_tiny.mixbit("run", offline_tiny.folder / "tinny.yaml"), 2, "tinny.yaml")


def test_a_command_that_does_not_exist_names_the_nearest(offline_tiny):
    refused(offline_tiny.mixbit("rum"), 2, "run")


def write_arrays(tiny, **changes):
    np.savez(tiny.folder / "shapes.npz", **dict(np.load(tiny.folder / "shapes.npz")) | changes)


BAD_DATA = {
    "labels out of range": (lambda a: {"val_y": a["val_y"] + 5}, "val"),
    "NaN pixels": (lambda a: {"train_x": np.where(a["train_x"] == a["train_x"].max(), np.nan, a["train_x"])}, "train"),
    "an empty split": (lambda a: {"val_x": a["val_x"][:0], "val_y": a["val_y"][:0]}, "val"),
    "a pickled array": (lambda a: {"train_x": np.array([{"a": 1}], dtype=object)}, "train_x"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data_are_refused_before_any_training(tiny, fault):
    change, word = BAD_DATA[fault]
    write_arrays(tiny, **change(dict(np.load(tiny.folder / "shapes.npz"))))
    done = tiny.mixbit("run", tiny.file)
    assert done.returncode in {1, 2}
    refused(done, done.returncode, "dataset", word)
    assert "float_model: running" not in done.stdout


def test_a_class_missing_from_the_proxy_is_named(tiny):
    arrays = dict(np.load(tiny.folder / "shapes.npz"))
    keep = np.r_[np.flatnonzero(arrays["train_y"] != 2), np.flatnonzero(arrays["train_y"] == 2)[:1]]
    write_arrays(tiny, train_x=arrays["train_x"][keep], train_y=arrays["train_y"][keep])
    tiny.edit("fraction: 0.5", "fraction: 0.05")
    done = tiny.mixbit("run", tiny.file)
    refused(done, done.returncode, "class")


BAD_NETWORKS = {
    "does not import": ("import nothing_of_that_name\n" + NETWORK, "nothing_of_that_name"),
    "is no model": ("def net(): return 3\n", "tinynet:net"),
    "raises": ("def net(): raise ValueError('no such width')\n", "no such width"),
    "forward fails": (NETWORK.replace("Conv2d(1,", "Conv2d(2,"), "layers"),
    "cannot be quantized": (
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Tanh())\n",
        "layer",
    ),
    "cannot be hashed": ("import importlib\nx = importlib.import_module('torch')\n" + NETWORK, "tinynet.py"),
}


@pytest.mark.parametrize("fault", BAD_NETWORKS)
def test_a_network_that_cannot_be_used_is_refused_before_any_training(tiny, fault):
    text, word = BAD_NETWORKS[fault]
    (tiny.folder / "tinynet.py").write_text(text)
    done = tiny.mixbit("run", tiny.file)
    refused(done, done.returncode, word)
    assert done.returncode in {1, 2}
    assert "float_model: running" not in done.stdout


def test_a_checkpoint_of_another_architecture_is_refused_by_name(tiny):
    save_file({"stem.weight": torch.zeros(3)}, tiny.folder / "other.safetensors")
    tiny.edit("train: {epochs: 2, batch_size: 16}", "checkpoint: other.safetensors")
    refused(tiny.mixbit("run", tiny.file), 1, "float_model", "another architecture")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("pickle-ran",)


def test_a_pickle_checkpoint_is_refused_and_never_run(tiny):
    torch.save(Payload(), tiny.folder / "evil.pt")
    tiny.edit("train: {epochs: 2, batch_size: 16}", "checkpoint: evil.pt")
    refused(tiny.mixbit("run", tiny.file), 1, "safetensors")
    assert not (ROOT / "pickle-ran").exists()


MISFITS = {
    "an unknown layer in a group": (
        "finetune:",
        "groups: [['3', '44']]\nfinetune:",
        "groups[0]: unknown layer, got 44",
    ),
    "a rule that matches nothing": ("finetune:", "layers: {'9*': {min_bits: 4}}\nfinetune:", "matches no layer"),
    "a rule that leaves nothing": ("finetune:", "layers: {'3': {min_bits: 5, max_bits: 6}}\nfinetune:", "no candidate"),
    "a rule against the profile": ("finetune:", "layers: {'0': {max_bits: 4}}\nfinetune:", "fixed to 8 bits"),
    "nothing left to search": ("finetune:", "layers: {'*': {exclude: true}}\nfinetune:", "no layer is left"),
    "a simulated latency no policy has": (
        "{bitops: w4a4}",
        '{"latency[simulated:bitops]": 0.01x w8a8}',
        "no policy fits, expected at least",
    ),
    "a peak no policy has": (
        "{bitops: w4a4}",
        "{peak_activation_bytes: 3 B}",
        "budgets.w4a4.peak_activation_bytes: no policy fits, expected at least",
    ),
    "a table of another network": (
        "indicators:\n",
        "indicators:\n  file: table.json\n",
        "indicators.file: table.json: 3: weight: no harm of 4 bits",
    ),
    "a size no policy has": ("{bitops: w4a4}", "{size_bits: 900x}", "budgets.w4a4.size_bits: no policy fits"),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_what_the_network_does_not_have_is_refused_with_its_line_before_any_training(tiny, fault):
    old, new, words = MISFITS[fault]
    tiny.edit("  settings: {epochs: 1, batch_size: 16}\n" if "file:" in new else "", "")
    row, short = {"2": 0.5, "4": 0.25, "8": 0}, {"2": 0.5, "8": 0}
    table = {"3": {"weight": short, "activation": row}, "6": {"weight": row, "activation": row}}
    (tiny.folder / "table.json").write_text(json.dumps(table))
    tiny.edit(old, new)
    done = tiny.mixbit("run", tiny.file)
    assert len(refused(done, 2, "tiny.yaml:", words)) == 1
    assert "float_model: running" not in done.stdout


def test_a_loss_that_leaves_by_sys_exit_fails_its_stage(tiny):
    code = "import sys\ndef loss(outputs, targets): sys.exit(3)\ndef metric(outputs, targets): return outputs[:, 0]\n"
    (tiny.folder / "judge.py").write_text(code)
    tiny.edit("proxy:", "task: {loss: judge:loss, metric: judge:metric, direction: maximize}\nproxy:")
    refused(tiny.mixbit("run", tiny.file), 1, "float_model", "sys.exit(3)")


def test_an_error_of_several_lines_is_told_in_one(tiny):
    code = "def loss(outputs, targets): raise ValueError('no such\\nwidth')\ndef metric(outputs, targets): return 1\n"
    (tiny.folder / "judge.py").write_text(code)
    tiny.edit("proxy:", "task: {loss: judge:loss, metric: judge:metric, direction: maximize}\nproxy:")
    assert len(refused(tiny.mixbit("run", tiny.file), 1, "judge:loss: failed on", "no such width")) == 1


def test_an_infeasible_budget_says_the_smallest_feasible_value(tiny):
    tiny.edit("bitops: w4a4", "bitops: 10")
    refused(tiny.mixbit("run", tiny.file), 2, "tiny.yaml:", "budgets.w4a4.bitops: no policy fits, expected at least")


def test_a_file_larger_than_its_budget_is_not_registered_and_fails_the_run(again):
    size_bytes = json.loads((again.state / "latest/tiny/deployable@w4a4.json").read_bytes())["figures"]["file_bytes"]
    predicted = json.loads((again.state / "latest/tiny/policy@w4a4.json").read_bytes())["figures"]["file_bytes"]
    again.edit("bitops: w4a4", f"bitops: w4a4, file_bytes: {round(predicted)}")
    done = again.mixbit("run", again.file)
    assert (done.returncode, "not registered" in done.stdout) == ((1, True) if size_bytes > predicted else (0, False))


def test_layers_that_forward_never_runs_do_not_matter(tiny):
    (tiny.folder / "tinynet.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        convs = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]\n"
        "        self.body = nn.Sequential(*convs, nn.Flatten())\n"
        "        self.head, self.dead = nn.Linear(16, 3), nn.Conv2d(4, 9, 1)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.body(x))\n"
        "def net():\n"
        "    return Net()\n"
    )
    assert "deployable w4a4" in tiny.computed()


def test_a_half_precision_network_is_refused_before_any_training(tiny):
    network = (tiny.folder / "tinynet.py").read_text().replace("return net", "return net.half()")
    (tiny.folder / "tinynet.py").write_text(network)
    refused(tiny.mixbit("run", tiny.file), 1, "layers", "float32")


def test_a_loss_that_diverges_stops_with_the_epoch_and_what_to_try(tiny):
    tiny.edit("{epochs: 2, batch_size: 16}", "{epochs: 2, batch_size: 16, learning_rate: 1.0e+30}")
    refused(tiny.mixbit("run", tiny.file), 1, "float_model", "epoch", "learning_rate")


def test_a_server_that_does_not_answer_is_one_line(offline_tiny):
    away = {"MIXBIT_MLFLOW_URL": "http://127.0.0.1:9", "MIXBIT_PREFECT_URL": "http://127.0.0.1:9"}
    assert len(refused(offline_tiny.mixbit("run", offline_tiny.file, **away), 1, "127.0.0.1:9")) == 1


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tiny):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    code = f"{limit}; import sys; sys.argv = ['mixbit', 'run', {str(tiny.file)!r}]; from flows.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=tiny.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    tiny.run()
    assert {cell["state"] for cell in tiny.plan().values()} == {"cached"}


def test_ctrl_c_stops_in_one_line_and_the_next_run_resumes(tiny):
    tiny.edit("settings: {epochs: 1", "settings: {epochs: 400")
    process = tiny.start("run", tiny.file)
    for line in process.stdout:
        if line.startswith("indicators: running"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in error
    tiny.edit("settings: {epochs: 400", "settings: {epochs: 1")
    assert "float_model" not in tiny.computed()


def test_solve_reads_a_foreign_table_and_writes_one_object(tmp_path):
    choice = {"weight_bits": 4, "activation_bits": 4, "harm": 0.5, "costs": {"bitops": 10}}
    table = {"layers": [{"name": "a", "choices": [choice]}], "budgets": {"bitops": 10}}
    (tmp_path / "problem.json").write_text(json.dumps(table))
    ran = subprocess.run(
        [sys.executable, "-m", "flows.cli", "solve", str(tmp_path / "problem.json"), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, json.loads(ran.stdout)["status"]) == (0, "optimal")
