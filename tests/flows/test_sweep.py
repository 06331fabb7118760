"""`mixbit plan` and `mixbit run` of a sweep, from end to end, against real Prefect and MLflow servers."""

import json
from dataclasses import replace

import pytest

from tasks.sweep_run import last_good_night
from tests.flows.conftest import make_tiny

SWEEP = """
base: tiny.yaml
axes:
  seed: [0, 1]
  budgets: {w4a4: {bitops: w4a4}, light: {bitops: 1.2x}}
exclude:
  - {seed: 1, budgets: light}
workers: 2
"""
FAULTS = """
base: tiny.yaml
axes:
  model:
    good: {}
    broken: {factory: "brokennet:net"}
    endless: {train: {epochs: 1, batch_size: 16, learning_rate: 1.0e+20}}
    killed: {factory: "killednet:net"}
workers: 2
"""
CELLS = ["seed=0 budgets=w4a4", "seed=0 budgets=light", "seed=1 budgets=w4a4"]


def swept(tiny, text, name):
    file = tiny.folder / f"{name}.yaml"
    file.write_text(text)
    return file


def name_of(tiny, prefix):
    """Sweeps of tests share a server, and so the names of their MLflow experiments."""
    return f"{prefix}-{tiny.folder.parent.name}".replace("_", "-")[:40]


@pytest.fixture(scope="module")
def night(tmp_path_factory, urls):
    tiny = make_tiny(tmp_path_factory.mktemp("night") / "tiny", **urls)
    file = swept(tiny, f"name: {name_of(tiny, 'night')}\n{SWEEP}", "night")
    return tiny, file, tiny.mixbit("run", file)


@pytest.fixture(scope="module")
def failing(tmp_path_factory, urls):
    tiny = make_tiny(tmp_path_factory.mktemp("fail") / "tiny", **urls)
    (tiny.folder / "brokennet.py").write_text("def net(): raise ValueError('no such thing')\n")
    (tiny.folder / "killednet.py").write_text("import os, signal\ndef net(): os.kill(os.getpid(), signal.SIGKILL)\n")
    return tiny, tiny.mixbit("run", swept(tiny, f"name: {name_of(tiny, 'fail')}\n{FAULTS}", "fail"))


def states(done):
    lines = [line.split(": ") for line in done.stdout.splitlines() if "=" in line.split(": ")[0]]
    return {line[0]: line[1].split()[0] for line in lines}


def test_a_sweep_computes_every_cell_but_those_excluded(night):
    _, _, first = night
    assert first.returncode == 0, first.stdout + first.stderr
    assert states(first) == dict.fromkeys(CELLS, "done")


def test_cells_that_differ_only_in_budget_share_their_indicators(night):
    tiny, _, _ = night
    assert len(list((tiny.state / "records" / "indicators").glob("*.json"))) == 2


def test_an_unchanged_night_starts_no_cell(night):
    tiny, file, _ = night
    again = tiny.mixbit("run", file)
    assert again.returncode == 0, again.stderr
    assert states(again) == dict.fromkeys(CELLS, "cached")


def test_the_next_night_computes_only_the_cells_that_changed(night):
    tiny, file, _ = night
    file.write_text(file.read_text().replace("light: {bitops: 1.2x}", "light: {bitops: 1.3x}"))
    assert states(tiny.mixbit("run", file)) == {**dict.fromkeys(CELLS, "cached"), CELLS[1]: "done"}


def test_a_night_is_a_run_with_its_record_and_page_beside_it(night):
    tiny, _, _ = night
    run = last_good_night(tiny.environment["MIXBIT_MLFLOW_URL"], name_of(tiny, "night"))
    assert run.tags["mixbit.cells"] == "3"
    assert run.metrics["cells_failed"] == 0
    assert "best_val.w4a4" in run.metrics


def test_the_candidate_of_a_budget_is_the_best_cell_of_the_night(night):
    tiny, _, _ = night
    told = json.loads((tiny.state / "sweeps" / name_of(tiny, "night") / "night.json").read_bytes())
    rows = {cell: row["result"] for cell, row in told["rows"].items()}
    best = max((cell for cell in CELLS if "w4a4" in cell), key=lambda cell: rows[cell]["rows"][2]["metric_val"])
    traced = tiny.mixbit("trace", f"models:/{name_of(tiny, 'night')}-w4a4@candidate", "--json")
    assert traced.returncode == 0, traced.stderr
    assert rows[best]["versions"]["w4a4"].startswith(f"models:/{name_of(tiny, 'night')}-w4a4/")


def test_plan_says_what_cells_share(night, tmp_path, urls):
    tiny, file, _ = night
    fresh = replace(tiny, environment=tiny.environment | {"MIXBIT_HOME": str(tmp_path / "fresh")})
    planned = fresh.mixbit("plan", file, "--json", "--offline")
    assert planned.returncode == 0, planned.stderr
    told = json.loads(planned.stdout)
    assert [cell["cell"] for cell in told["cells"]] == CELLS
    assert (told["executions"]["indicators"], told["executions"]["dataset"]) == (2, 1)


def test_a_cell_that_fails_is_a_row_and_the_others_finish(failing):
    _, done = failing
    assert done.returncode == 1
    assert states(done) == {
        "model=good": "done",
        "model=broken": "failed",
        "model=endless": "failed",
        "model=killed": "failed",
    }
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("cell", "why"),
    [("broken", "no such thing"), ("endless", "became nan"), ("killed", "killed, perhaps for want of memory")],
)
def test_a_failed_cell_says_why(failing, cell, why):
    _, done = failing
    assert any(line.startswith(f"error: model={cell}: ") and why in line for line in done.stderr.splitlines()), (
        done.stderr
    )


def test_after_a_failure_only_what_is_missing_is_tried_again(failing):
    tiny, _ = failing
    (tiny.folder / "brokennet.py").write_text("from tinynet import net\n")
    again = states(tiny.mixbit("run", tiny.folder / "fail.yaml"))
    assert (again["model=good"], again["model=broken"], again["model=killed"]) == ("cached", "done", "failed")


def test_a_cell_that_was_done_and_cannot_be_planned_any_more_is_a_row(failing):
    tiny, _ = failing
    sound = (tiny.folder / "tinynet.py").read_text()
    (tiny.folder / "tinynet.py").write_text("def net(:\n")
    done = tiny.mixbit("run", tiny.folder / "fail.yaml")
    (tiny.folder / "tinynet.py").write_text(sound)
    assert done.returncode == 1
    assert "error: model=good: " in done.stderr
    assert "unforeseen" not in done.stderr


BAD = {
    "an axis that leads nowhere": ("seed: [0, 1]", "seed.deeper: [0, 1]", "axes"),
    "a value that is refused": ("seed: [0, 1]", "seed: [0, -1]", "axes.seed[1]"),
    "an unknown key of a cell": ("seed: [0, 1]", "finetune.epoch: [0, 1]", "finetune.epoch"),
    "a missing base": ("tiny.yaml", "teeny.yaml", "base"),
    "an exclusion of nothing": ("seed: 1,", "sed: 1,", "exclude[0].sed"),
    "workers": ("workers: 2", "workers: 0", "workers"),
    "an unknown key": ("workers: 2", "worker: 2", "worker"),
    "a budget without a meaning": ("1.2x", "fast", "light"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_names_file_line_and_key(offline_tiny, fault):
    old, new, key = BAD[fault]
    assert old in SWEEP
    done = offline_tiny.mixbit("plan", swept(offline_tiny, SWEEP.replace(old, new), "bad"), "--offline")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert "bad.yaml:" in done.stderr
    assert key in done.stderr


GATED = """
base: tiny.yaml
axes: {budgets: [w4a4]}
gates: {metric_drop: 5, simulated_deployed: 100}
"""


def test_a_broken_gate_fails_the_night_and_names_the_only_change(tmp_path, urls):
    tiny = make_tiny(tmp_path / "gated" / "tiny", **urls)
    name = name_of(tiny, f"gated-{tmp_path.name}")
    file = swept(tiny, f"name: {name}\n{GATED}", "gated")
    tiny.edit("epochs: 2,", "epochs: 15,")
    tiny.edit("finetune: {epochs: 1,", "finetune: {epochs: 2,")
    assert tiny.mixbit("run", file).returncode == 0
    tiny.edit("finetune: {epochs: 2,", "finetune: {epochs: 2, learning_rate: 5.0,")
    done = tiny.mixbit("run", file)
    assert done.returncode == 1
    assert "gate: w4a4: metric_drop: val fell by " in done.stderr
    assert "the cause: params.finetune.learning_rate 0.01 → 5" in done.stderr
    good = last_good_night(tiny.environment["MIXBIT_MLFLOW_URL"], name)
    assert good.metrics["cells"] == 1
    champion = tiny.mixbit("history", f"{name}-w4a4", "--json")
    assert [move["version"] for move in json.loads(champion.stdout)] == [1]
