"""Sizes, counts and digests of the store; on a stage of one line, without any server."""

import pytest

from tasks.holdings import check, holdings
from tests.tasks.test_stage import context, flip, run

__all__ = ["context"]


def test_hits_and_computations_are_counted_cell_by_cell(context):
    for _ in range(3):
        run(context)
    (one,) = holdings(context.store)
    assert (one.stage, one.records, one.computed, one.cached) == ("double", 1, 1, 2)


def test_equal_outputs_are_stored_once(context):
    run(context, content=b"aa", times=1)
    run(context, content=b"a", times=2)
    (one,) = holdings(context.store)
    assert (one.records, one.bytes, one.unique_bytes) == (2, 4, 2)


def test_a_torn_line_of_the_tally_counts_for_nothing(context):
    run(context)
    with (context.store.folder / "tally.jsonl").open("ab") as file:
        file.write(b'["double", "cach')
    assert holdings(context.store)[0].cached == 0


def test_a_sound_store_has_no_faults(context):
    run(context)
    assert check(context.store) == (1, 1, [])


@pytest.mark.parametrize(("damage", "what"), [(flip, "altered"), (lambda path: path.unlink(), "lost")])
def test_a_damaged_blob_is_found_with_the_records_that_name_it(context, damage, what):
    record = run(context)[0].record
    damage(context.store.blob(record.outputs["out.txt"].sha256))
    (fault,) = check(context.store)[2]
    assert (fault.what, fault.records) == (what, (f"double {record.key[:12]}",))


def test_bytes_that_rot_without_a_trace_are_found_and_not_used_again(context, monkeypatch):
    from tasks import memo

    output = run(context)[0].record.outputs["out.txt"]
    path = context.store.blob(output.sha256)
    flip(path)
    memo._remember(str(path), "sha256", memo._stamp(path.stat()), output.sha256)
    assert context.store.fault(output) is None
    assert [fault.what for fault in check(context.store)[2]] == ["altered"]
    assert context.store.fault(output) == "altered"
