"""The contract, on a stage of one line, without any server."""

from dataclasses import replace

import pytest

from mixbit.config import Settings
from mixbit.errors import MixbitError
from tasks import stage
from tasks.closure import Snapshot
from tasks.reason import reason
from tasks.record import Record
from tasks.stage import Artifact, Call, Context, identify, look_up, run_stage
from tasks.store import Store

RUNS: list[str] = []


class Params(Settings):
    times: int = 1


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path / "state"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "double.py").write_text("def compute(): return 1\n")
    module = type("Module", (), {"OUTPUTS": ("out.txt",), "FACTS": ("numpy",), "compute": staticmethod(compute)})
    monkeypatch.setattr(stage, "load_method", lambda _folder, _name: module)
    monkeypatch.setattr(stage, "closure", lambda _names, search, snapshot: real_closure(["double"], search, snapshot))
    RUNS.clear()
    return Context(Store(tmp_path / "state"), "experiment", (code,), None)


real_closure = stage.closure


def compute(work, params):
    RUNS.append(work.digests["x"])
    (work.out / "out.txt").write_bytes(work.inputs["x"].read_bytes() * params.times)
    return {"length": 1.0}


def call(context, content=b"a", times=1):
    path = context.store.folder / f"input-{content.hex()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Call(
        "double",
        "double",
        Params(times=times),
        {"x": Artifact(stage.hashlib.sha256(content).hexdigest(), "source", path)},
    )


def run(context, **changes):
    reasons: list[str] = []
    done = run_stage(call(context, **changes), replace(context, snapshot=Snapshot()), reasons.append, lambda *_: None)
    return done, reasons


def test_the_second_run_computes_nothing(context):
    first, _ = run(context)
    second, reasons = run(context)
    assert (first["out.txt"].sha256, len(RUNS), reasons) == (second["out.txt"].sha256, 1, [])


def test_a_parameter_is_named_with_its_old_and_new_value(context):
    run(context)
    assert run(context, times=2)[1] == ["params.times 1 → 2"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": None}, {"a": True}, "params.a none → true"),
        ({"a": [1, 2]}, {"a": ["x"]}, 'params.a [1, 2] → ["x"]'),
        ({"a": "none"}, {"a": {"epochs": 1, "start": "float"}}, 'params.a none → {"epochs": 1, "start": "float"}'),
        ({}, {"a": None}, "params.a added: none"),
        ({"a": {"b": 0.5}}, {"a": {}}, "params.a.b removed: 0.5"),
    ],
)
def test_parameters_are_told_as_an_experiment_file_spells_them(context, old, new, told):
    now = identify(call(context), context)
    assert reason(replace(now, key="0" * 64, params=old), replace(now, params=new)) == told


def test_an_input_is_named_with_both_digests(context):
    run(context)
    assert run(context, content=b"b")[1][0].startswith("input x ca97… → 3e23…")


def test_a_changed_function_is_named(context):
    run(context)
    (context.search_path[0] / "double.py").write_text("def compute(): return 2\n")
    assert run(context)[1] == ["double.py: compute changed"]


def test_code_edited_while_a_run_starts_is_neither_run_nor_keyed(context):
    identify(call(context), context)
    (context.search_path[0] / "double.py").write_text("def compute(): return 2\n")
    with pytest.raises(MixbitError, match=r"double\.py changed while the run was starting"):
        run_stage(call(context), context, lambda _why: None, lambda *_: None)
    assert RUNS == []


def test_a_comment_reruns_nothing(context):
    run(context)
    (context.search_path[0] / "double.py").write_text("# why\ndef compute():\n    return 1\n")
    assert run(context)[1] == []


def flip(path):
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize(("damage", "word"), [(lambda p: p.unlink(), "lost"), (flip, "altered")])
def test_a_lost_or_altered_output_is_found_and_made_again(context, damage, word):
    done, _ = run(context)
    damage(context.store.blob(done["out.txt"].sha256))
    again, reasons = run(context)
    assert (reasons, again["out.txt"]) == ([f"output {word}: out.txt"], done["out.txt"])
    assert context.store.fault(again.record.outputs["out.txt"]) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "double"}'])
def test_a_damaged_record_is_no_record(context, content):
    done, _ = run(context)
    path = context.store.folder / "records" / "double" / f"{done.record.key}.json"
    path.write_bytes(content)
    assert run(context)[1] == ["record lost"]


def test_a_record_that_carries_another_key_is_no_record(context):
    done, _ = run(context)
    path = context.store.folder / "records" / "double" / f"{done.record.key}.json"
    path.write_bytes(replace(done.record, key="0" * 64).to_json())
    assert run(context)[1] == ["record lost"]


@pytest.mark.parametrize(("old", "new"), [(b'"length":1.0', b'"length":7.0'), (b'"times":1', b'"times":3')])
def test_a_record_altered_at_equal_length_is_no_record(context, old, new):
    done, _ = run(context)
    path = context.store.folder / "records" / "double" / f"{done.record.key}.json"
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    assert run(context)[1] == ["record lost"]
    assert run(context)[0].record.figures == {"length": 1.0}


def test_a_record_cut_short_anywhere_is_no_record(context):
    content = run(context)[0].record.to_json()
    for length in range(0, len(content), 7):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            Record.from_json(content[:length])


def test_a_failed_stage_leaves_nothing_that_is_used(context, monkeypatch):
    def fail(work, _params):
        (work.out / "out.txt").write_text("half")
        raise MixbitError("double", "failed")

    monkeypatch.setattr(stage.load_method("", ""), "compute", staticmethod(fail))
    with pytest.raises(MixbitError, match="failed"):
        run(context)
    assert look_up(context.store, identify(call(context), context)) == (None, None)


def test_a_figure_that_is_not_a_number_fails_the_stage(context, monkeypatch):
    monkeypatch.setattr(
        stage.load_method("", ""), "compute", staticmethod(lambda w, p: compute(w, p) | {"loss": float("nan")})
    )
    with pytest.raises(MixbitError, match="a figure is not a number"):
        run(context)


def test_a_full_disk_is_one_line(context, monkeypatch):
    def full(_work, _params):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.load_method("", ""), "compute", staticmethod(full))
    with pytest.raises(MixbitError, match=r"the disk is full.*run again"):
        run(context)


def test_the_key_holds_no_path_and_no_time(context, tmp_path):
    key = identify(call(context), context).key
    moved = tmp_path / "moved"
    context.search_path[0].rename(moved)
    assert identify(call(context), replace(context, search_path=(moved,))).key == key


def test_nothing_before_means_first_run(context):
    assert reason(None, identify(call(context), context)) == "first run"


def test_single_flight_computes_once_for_two_threads(context):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run(context), range(2)))
    assert len(RUNS) == 1


def test_a_source_that_changes_while_it_is_read_leaves_no_result(context):
    asked = call(context)
    path = asked.inputs["x"].path
    again = replace(context, snapshot=Snapshot())
    with pytest.raises(MixbitError, match="double: input x: input-61 changed while it was read"):
        run_stage(asked, again, lambda _why: path.write_bytes(b"b"), lambda *_: None)
    assert run(context)[0].was == "computed"
