"""Records and their runs on a real MLflow server."""

import os
import urllib.request
from dataclasses import replace

import pytest

from tasks import tracking
from tasks import tracking_rest as rest
from tasks.store import Store
from tasks.tracking_runs import get_run
from tests.tasks.test_stage import RUNS, context, run

__all__ = ["context"]


@pytest.fixture
def first(context, mlflow_url):
    """(a context with a server, random input bytes, what the first run gave)."""
    context, content = replace(context, server=mlflow_url), os.urandom(8)
    return context, content, run(context, content=content)[0]


def fresh(context):
    return replace(context, on_server=set())


def test_a_deleted_run_is_logged_again_and_nothing_is_computed(first, mlflow_url):
    context, content, done = first
    rest.post(mlflow_url, "runs/delete", {"run_id": done.record.run_id})
    again, _ = run(fresh(context), content=content)
    assert (again.was, len(RUNS)) == ("uploaded", 1)
    assert again.record.run_id == tracking.find_stage(mlflow_url, again.record.key) != done.record.run_id


def test_a_record_of_another_server_takes_the_run_that_is_here(first):
    context, content, done = first
    context.store.write_record(replace(done.record, run_id="f" * 32))
    again, _ = run(fresh(context), content=content)
    assert again.record == done.record


def test_a_run_that_was_found_is_not_asked_for_again(first, monkeypatch):
    context, content, done = first
    assert context.on_server == {done.record.run_id}
    monkeypatch.setattr(rest, "_open", lambda *_a, **_k: pytest.fail("a request"))
    assert run(context, content=content)[0].was == "cached"


def another_machine(context, folder):
    return replace(fresh(context), store=Store(folder))


def alter(url, run_id, name):
    """Turn one bit of an artifact around, behind the server's back."""
    path = f"{rest.artifact_path(url, get_run(url, run_id).artifacts)}/{name}"
    content = bytearray(rest.read(url, path))
    content[len(content) // 2] ^= 1
    request = urllib.request.Request(f"{url}{rest.ARTIFACTS}{path}", bytes(content), method="PUT")
    urllib.request.urlopen(request).close()


def test_another_machine_computes_nothing_and_has_the_same_bytes(first, tmp_path):
    context, content, done = first
    other = another_machine(context, tmp_path / "other")
    again, reasons = run(other, content=content)
    assert (again.record, reasons, len(RUNS)) == (done.record, [], 1)
    assert other.store.fault(again.record.outputs["out.txt"]) is None


@pytest.mark.parametrize("name", ["out.txt", "record.json"])
def test_a_byte_altered_on_the_server_is_computed_again_once_for_all_machines(first, mlflow_url, tmp_path, name):
    context, content, done = first
    alter(mlflow_url, done.record.run_id, name)
    again, _ = run(another_machine(context, tmp_path / "second"), content=content)
    assert (again.was, again["out.txt"].sha256, len(RUNS)) == ("computed", done["out.txt"].sha256, 2)
    third, _ = run(another_machine(context, tmp_path / "third"), content=content)
    assert (third.record.run_id, len(RUNS)) == (again.record.run_id, 2)


def test_a_run_that_holds_the_record_of_another_key_is_not_used(first, mlflow_url, tmp_path):
    context, content, done = first
    files = {"out.txt": context.store.blob(done["out.txt"].sha256)}
    foreign = tracking.log_stage(mlflow_url, replace(done.record, key="e" * 64, run_id=None), files, {})
    rest.post(mlflow_url, "runs/set-tag", {"run_id": foreign, "key": "mixbit.key", "value": done.record.key})
    rest.post(mlflow_url, "runs/delete", {"run_id": done.record.run_id})
    assert run(another_machine(context, tmp_path / "other"), content=content)[0].was == "computed"


def test_one_search_tells_which_of_many_runs_are_there(first, mlflow_url):
    _, _, done = first
    many = [f"{number:032x}" for number in range(450)]
    assert tracking.finished(mlflow_url, [*many, done.record.run_id]) == {done.record.run_id}
    assert tracking.finished(mlflow_url, []) == set()
