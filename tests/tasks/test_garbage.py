"""What nothing reaches: on a stage of one line, without any server."""

import shutil
from dataclasses import replace

import pytest

from mixbit.errors import MixbitError
from tasks.garbage import DAY_S, Kept, find, remove_
from tasks.record import Input
from tests.tasks.test_stage import context, run

__all__ = ["context"]
HERE = Kept(experiments=frozenset(["experiment"]))


@pytest.fixture
def store(context):
    return context.store


def made(context, *, logged=True, times=2):
    """A record that the server knows."""
    record = run(context, times=times)[0].record
    record = replace(record, run_id="r" if logged else None)
    context.store.write_record(record)
    return record


def listed(found, kind):
    return [one.path.stem for one in found if one.kind == kind]


def test_an_older_key_and_its_blob_go_and_the_latest_cell_stays(context, store):
    old, new = made(context, times=2), made(context, times=3)
    found = find(store, HERE)
    assert listed(found, "record") == [old.key]
    assert listed(found, "blob") == [old.outputs["out.txt"].sha256]
    assert new.key not in str(found)


def test_looking_changes_nothing(context, store):
    made(context, times=2)
    made(context, times=3)
    before = sorted(store.folder.rglob("*"))
    assert find(store, HERE) == find(store, HERE)
    assert sorted(store.folder.rglob("*")) == before


def test_what_is_not_uploaded_yet_stays(context, store):
    made(context, times=2, logged=False)
    made(context, times=3)
    assert find(store, HERE) == []


def test_an_experiment_whose_file_is_gone_keeps_nothing(context, store):
    record = made(context)
    found = find(store, Kept(gone={"experiment": "gone.yaml"}))
    assert (listed(found, "latest"), listed(found, "record")) == (["double"], [record.key])
    remove_(store, found)
    assert find(store, HERE) == []
    assert not (store.folder / "latest" / "experiment").exists()


def test_what_made_the_input_of_something_kept_is_kept(context, store):
    maker = made(context, times=2)
    read = {"x": Input(maker.outputs["out.txt"].sha256, "double/out.txt")}
    reader = replace(made(context, times=3), key="1" * 64, inputs=read)
    store.write_record(reader)
    found = find(store, Kept(keys=frozenset([reader.key])))
    assert maker.key not in listed(found, "record")
    assert maker.key not in listed(find(store, Kept(digests=frozenset([read["x"].sha256]))), "record")


def test_without_a_server_every_deployable_is_kept_that_an_alias_might_name(context, store):
    record = replace(made(context), stage="deployable", key="1" * 64)
    store.write_record(record)
    assert record.key in listed(find(store, Kept()), "record")
    away = find(store, Kept(deployables=True))
    assert (record.key in listed(away, "record"), listed(away, "blob")) == (False, [])


@pytest.mark.parametrize(("days", "found"), [(1, 0), (8, 1)])
def test_a_checkpoint_that_a_run_may_resume_stays_a_week(store, days, found):
    folder = store.partial("double", "2" * 64) / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "epoch").write_text("3")
    now_s = (folder / "epoch").stat().st_mtime + days * DAY_S
    assert len(find(store, HERE, now_s)) == found


def test_scratch_that_a_computation_holds_stays(store):
    (store.partial("double", "2" * 64) / "out").mkdir(parents=True)
    found = find(store, HERE)
    with store.lock("double", "2" * 64):
        assert find(store, HERE) == []
        assert remove_(store, found) == []
    assert remove_(store, found) == found


def test_nothing_is_deleted_under_a_run(store):
    with store.in_use(), pytest.raises(MixbitError, match="a run is under way, nothing was deleted"), store.alone():
        pass
    with store.alone():
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_record_is_garbage(context, store, content):
    path = store.folder / "records" / "double" / f"{made(context).key}.json"
    path.write_bytes(content)
    assert find(store, HERE)[0].reason == "it is damaged"


def test_a_gc_that_was_killed_leaves_no_record_without_its_outputs(context, store, tmp_path):
    records = [made(context, times=times) for times in (2, 3, 4)]
    found = find(store, HERE)
    for done in range(len(found) + 1):
        copy = replace(store, folder=tmp_path / str(done))
        shutil.copytree(store.folder, copy.folder)
        moved = [replace(one, path=copy.folder / one.path.relative_to(store.folder)) for one in found]
        remove_(copy, moved[:done])
        left = [record for record in records if copy.record("double", record.key)]
        assert all(copy.fault(record.outputs["out.txt"]) is None for record in left)
