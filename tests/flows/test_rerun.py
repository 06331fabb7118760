"""Exactly the cells that an edit reaches run again, and the reason names it: a table made by hand against real runs."""

import ast
import os
import re
import shutil
from dataclasses import dataclass, field, replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flows.clones import clone, in_clone, outputs, records
from tests.flows.conftest import Tiny, make_tiny, own
from tests.flows.edits import DAMAGE, EDITS, READS

NETWORK = """
from torch import nn
from blocks import block
def net(width=4):
    layers = block(1, width)
    for _ in range(2):
        layers += block(width, width)
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.add_module("head", nn.Linear(width, 3))
    return net
"""
BLOCKS = """
from torch import nn
def block(inputs, width):
    from slopes import momentum
    return [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width, momentum=momentum()), nn.ReLU()]
"""
VERSION = re.compile(r"models:/tiny-w4a4/\d+")
SLOPES = "def momentum():\n    return 0.1\n"
QUICK = {"train: {epochs: 2": "train: {epochs: 1"}
# The clock, the host's name and the user, for a process on another day elsewhere.
ANOTHER_DAY = """
import os, platform, socket, time
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() + 4e7, lambda: now_ns() + 4 * 10**16
platform.node = socket.gethostname = lambda: "elsewhere"
"""


@dataclass(frozen=True)
class Bench:
    """The experiment that ran, in a clone of the code; `restore` takes every edit back."""

    tiny: Tiny
    saved: dict = field(repr=False)
    first: str = field(repr=False)  # what the first run printed

    def edit(self, *names):
        for name in names:
            EDITS[name].make(self.tiny.cwd, self.tiny.folder, self.tiny.state)

    def restore(self):
        for info in (self.tiny.folder / "site").iterdir():
            shutil.rmtree(info)  # an empty one would still hide the installed package
        for folder, files in self.saved.items():
            for path in [path for path in folder.rglob("*") if path.is_file() and path not in files]:
                path.unlink()
            for path, content in files.items():
                if not path.is_file() or path.read_bytes() != content:
                    path.unlink(missing_ok=True)
                    path.write_bytes(content)


def kept(*folders):
    """Folder -> file -> content, of what the edits may change."""
    return {
        folder: {
            path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
        }
        for folder in folders
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, urls):
    folder = tmp_path_factory.mktemp("rerun")
    tiny = make_tiny(folder / "tiny", **urls)
    for name, content in {"tinynet": own(tiny.folder, NETWORK), "blocks": BLOCKS, "slopes": SLOPES}.items():
        (tiny.folder / f"{name}.py").write_text(content)
    for old, new in QUICK.items():
        tiny.edit(old, new)
    state = {"MIXBIT_HOME": str(folder / "state"), "PYTHONDONTWRITEBYTECODE": ""}
    tiny = in_clone(tiny, clone(folder / "code"), **state)
    (tiny.folder / "site").mkdir()
    path = {"PYTHONPATH": f"{tiny.environment['PYTHONPATH']}:{tiny.folder / 'site'}"}
    tiny = replace(tiny, environment=tiny.environment | path)
    first = tiny.run().stdout
    saved = kept(tiny.cwd, tiny.folder, *(tiny.state / name for name in ("latest", "records", "blobs")))
    return Bench(tiny, saved, first)


@pytest.fixture
def bench(finished):
    yield finished
    finished.restore()


def planned(touched):
    """Cell -> its state in the plan; `layers` is looked at by the plan itself."""
    unknown, states = set(), {}
    for cell, reads in READS.items():
        makers = {read.split(":")[0] for read in reads}
        state = "may run" if makers & unknown else "will run" if cell in touched else "cached"
        states[cell] = "pending" if (cell, state) == ("layers", "will run") else state
        unknown |= {cell} if states[cell] in {"may run", "will run"} else set()
    return states


def touched_by(names):
    return set().union(*(EDITS[name].touches for name in names))


def check_plan(tiny, names):
    """The plan's states are those of the table, and each reason tells of every edit."""
    plan = tiny.plan("--offline")
    touched = touched_by(names)
    assert {cell: one["state"] for cell, one in plan.items()} == planned(touched)
    for cell in (cell for cell, one in plan.items() if one["state"] == "will run"):
        check_reason(plan[cell]["reason"], cell, names)
    for cell in (cell for cell, one in plan.items() if one["state"] == "may run"):
        assert plan[cell]["reason"].startswith("depends on ")


def check_reason(reason, cell, names):
    told = [EDITS[name].says for name in names if cell in EDITS[name].touches]
    told = [says for says in told if not says.startswith("output ")] or told
    missing = [says for says in told if says not in reason]
    assert not missing or re.search(r"and \d+ more$", reason), (cell, reason, missing)
    assert not re.search(r"None|True|False|'|\{\}", reason), reason


def check_run(tiny, names):
    """A real run computes the touched cells and those that read other bytes than before, equal cells once.

    Gives the outputs that moved, and what the run printed.
    """
    before = outputs(tiny)
    done = tiny.run()
    after, told = outputs(tiny), _told(done.stdout)
    touched = touched_by(name for name in names if name not in DAMAGE)
    moved = {name for name in after if after[name] != before[name]}
    first = {one["key"]: cell for cell, one in reversed([(cell, records(tiny)[cell]) for cell in READS])}
    assert set(told) == {cell for cell in first.values() if cell in touched or moved & set(READS[cell])}
    for cell, reason in told.items():
        assert all(f"input {_input(read)}" in reason or "more" in reason for read in moved & set(READS[cell])), (
            cell,
            reason,
        )
        if cell in touched:
            check_reason(reason, cell, names)
    return moved, done.stdout


def _told(printed):
    """Cell -> the reason it ran for; a terminal without Unicode gets its arrows in ASCII."""
    said = re.findall(r"^(.+?): running \((.+)\)$", printed, re.MULTILINE)
    return {cell: reason.replace("->", "→").replace("...", "…") for cell, reason in said}


def _input(read):
    return {"dataset: dataset.safetensors": "dataset", "dataset: dataset_info.json": "info"}.get(read, "")


@pytest.mark.parametrize("name", [name for name, edit in EDITS.items() if edit.touches])
def test_the_plan_names_what_an_edit_reaches_and_why(bench, name):
    bench.edit(name)
    check_plan(bench.tiny, [name])


def test_edits_that_reach_no_result_leave_the_plan_cached(bench):
    names = [name for name, edit in EDITS.items() if not edit.touches]
    bench.edit(*names)
    check_plan(bench.tiny, names)


def test_another_checkout_home_user_day_and_host_leave_the_plan_cached(bench, tmp_path):
    shutil.copytree(bench.tiny.folder, tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*"):
        os.utime(path, (1e9, 1e9))
    (tmp_path / "moved" / "site" / "sitecustomize.py").write_text(ANOTHER_DAY)
    code = clone(tmp_path / "code")
    own = {
        "PYTHONPATH": f"{code}:{tmp_path / 'moved' / 'site'}",
        "HOME": str(tmp_path),
        "USER": "somebody",
        "TZ": "Asia/Tokyo",
    }
    tiny = replace(bench.tiny, folder=tmp_path / "moved", cwd=tmp_path, environment=bench.tiny.environment | own)
    assert {one["state"] for one in tiny.plan("--offline").values()} == {"cached"}


def test_every_file_reformatted_and_keys_reordered_leave_the_plan_cached(bench):
    for path in [*bench.tiny.cwd.rglob("*.py"), *bench.tiny.folder.glob("*.py")]:
        path.write_text(f"# all comments are gone\n{ast.unparse(ast.parse(path.read_text()))}\n")
    declared = yaml.safe_load(bench.tiny.file.read_text())
    bench.tiny.file.write_text(yaml.safe_dump(dict(reversed(declared.items())), sort_keys=False))
    check_plan(bench.tiny, [])


def test_any_sequence_of_edits_reaches_what_each_of_them_reaches(bench):
    @settings(max_examples=4, derandomize=True, deadline=None, database=None)
    @given(st.lists(st.sampled_from(sorted(EDITS)), min_size=3, max_size=6, unique=True))
    def check(names):
        names = [name for name in names if name != "a lost output"] if set(names) >= DAMAGE else names
        try:
            bench.edit(*names)
            check_plan(bench.tiny, names)
        finally:
            bench.restore()

    check()


def test_a_run_after_edits_that_change_no_result_computes_nothing(bench):
    names = ["a comment in the network", "a comment in the training", "a docstring", "formatting", "plumbing"]
    names += ["packages that no stage names", "a method that nobody names", "an altered output"]
    bench.edit(*names)
    assert check_run(bench.tiny, names)[0] == set()


def test_a_refactor_of_export_and_solver_runs_these_alone(bench):
    names = ["the export", "the solver"]
    bench.edit(*names)
    moved, printed = check_run(bench.tiny, names)
    assert moved == set()
    assert set(VERSION.findall(printed)) == set(VERSION.findall(bench.first))


def test_another_torch_runs_what_computes_with_torch_and_nothing_below_equal_bytes(bench):
    names = ["torch", "the device's libraries"]
    bench.edit(*names)
    assert {cell.split(":")[0] for cell in check_run(bench.tiny, names)[0]} == {"profile w4a4 local"}


def test_changed_bytes_run_whatever_reads_them(bench):
    names = ["a helper two imports away", "a parameter"]
    bench.edit(*names)
    assert "float_model: float_model.safetensors" in check_run(bench.tiny, names)[0]
