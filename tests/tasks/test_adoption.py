"""Outputs that older code made, accepted for today's code; on a stage of one line, without any server."""

import json
from dataclasses import replace

import pytest

from mixbit.errors import MisuseError, MixbitError
from tasks import adoption, stage
from tasks.adoption import adopt, candidate, check
from tasks.closure import Snapshot
from tasks.record import Adopted, Record
from tests.tasks.test_stage import RUNS, call, context, flip, run

__all__ = ["context"]


@pytest.fixture
def refactored(context, monkeypatch):
    """(the context after a change of code, the record of before)."""
    monkeypatch.setattr(adoption, "load_method", stage.load_method)
    done, _ = run(context)
    (context.search_path[0] / "double.py").write_text("def compute(): return 2\n")
    return replace(context, snapshot=Snapshot()), done.record


def test_after_adoption_nothing_is_computed_and_the_record_says_why(refactored):
    context, before = refactored
    adopt(candidate(call(context), context), context, "renamed a variable")
    done, reasons = run(context)
    assert (reasons, len(RUNS), done.record.outputs) == ([], 1, before.outputs)
    assert done.record.adopted == Adopted(before.key, "renamed a variable")


def test_a_cell_whose_parameters_changed_too_is_not_adopted(refactored):
    context, _ = refactored
    assert candidate(call(context, times=2), context).obstacle == "not only code differs: params.times 1 → 2"


def test_lost_or_altered_outputs_are_not_adopted(refactored):
    context, before = refactored
    flip(context.store.blob(before.outputs["out.txt"].sha256))
    assert candidate(call(context), context).obstacle == "output altered: out.txt"


def test_a_cell_that_never_ran_has_nothing_to_adopt(context):
    assert candidate(call(context), context).obstacle == "first run"


def test_the_check_computes_beside_the_store(refactored):
    context, _ = refactored
    found = candidate(call(context), context)
    check(found, context, lambda *_: None)
    assert len(RUNS) == 2
    assert context.store.record("double", found.identity.key) is None


def test_the_check_refuses_other_bytes(refactored, monkeypatch):
    context, _ = refactored

    def other(work, _params):
        (work.out / "out.txt").write_bytes(b"other")
        return {}

    monkeypatch.setattr(stage.load_method("", ""), "compute", staticmethod(other))
    with pytest.raises(MixbitError, match=r"today's code makes other bytes: out\.txt. Nothing was adopted"):
        check(candidate(call(context), context), context, lambda *_: None)


def test_bytes_of_a_measured_stage_prove_nothing(refactored):
    context, _ = refactored
    found = candidate(call(context), context)
    with pytest.raises(MisuseError, match="measured"):
        check(replace(found, call=replace(found.call, stage="profile")), context, lambda *_: None)


def test_a_record_that_is_not_adopted_has_the_bytes_it_always_had(refactored):
    _, before = refactored
    assert "adopted" not in json.loads(before.to_json())
    adopted = replace(before, adopted=Adopted("0" * 64, "why"))
    assert Record.from_json(adopted.to_json()) == adopted
