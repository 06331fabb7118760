"""Records and their runs on a real MLflow server."""

import os
from dataclasses import replace

import pytest

from tasks import tracking
from tasks import tracking_rest as rest
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


def test_one_search_tells_which_of_many_runs_are_there(first, mlflow_url):
    _, _, done = first
    many = [f"{number:032x}" for number in range(450)]
    assert tracking.finished(mlflow_url, [*many, done.record.run_id]) == {done.record.run_id}
    assert tracking.finished(mlflow_url, []) == set()
