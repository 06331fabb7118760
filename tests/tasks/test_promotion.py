"""Champions of registered models, against a real MLflow server."""

import pytest

from mixbit.errors import MixbitError
from tasks.promotion import Move, champion, history, promote, rejected, rollback, standing
from tasks.registration import register
from tests.tasks.lineage_records import log_pipeline


@pytest.fixture
def versions(mlflow_url, tmp_path_factory):
    """Registers two versions of a model; the first is the champion."""

    def make(name):
        for conv2 in (4, 3):
            logged = log_pipeline(mlflow_url, tmp_path_factory.mktemp("files"), f"{name}{conv2}", conv2=conv2)
            records = {cell.partition(" ")[0]: record for cell, record in logged.records.items()}
            register(mlflow_url, name, "w4a4", records, {})
        return f"{name}-w4a4"

    return make


def test_a_promoted_version_is_the_champion_and_remembered(mlflow_url, versions):
    name = versions("promoted")
    promote(mlflow_url, f"models:/{name}/2", "better on the board")
    assert champion(mlflow_url, name).version == 2
    assert [(move.version, move.why) for move in history(mlflow_url, name)] == [
        (1, "the first version"), (2, "better on the board"),
    ]  # fmt: skip


def test_promoting_the_champion_again_changes_nothing(mlflow_url, versions):
    name = versions("twice")
    for _ in range(2):
        promote(mlflow_url, f"models:/{name}/2", "again")
    assert len(history(mlflow_url, name)) == 2


def test_a_rollback_brings_back_the_champion_before(mlflow_url, versions):
    name = versions("back")
    promote(mlflow_url, f"models:/{name}/2", "better")
    assert rollback(mlflow_url, name).version == 1
    assert champion(mlflow_url, name).version == 1
    assert history(mlflow_url, name)[-1].why == "rolled back from 2"


def test_rollbacks_go_back_step_by_step_and_what_they_undo_is_rejected():
    moves = [Move(1, "", ""), Move(2, "", ""), Move(3, "", ""), Move(2, "", "", back=True), Move(1, "", "", back=True)]
    assert standing(moves[:3]) == [1, 2, 3]
    assert standing(moves) == [1]
    assert rejected(moves) == {2, 3}
    assert rejected([*moves, Move(3, "", "by hand")]) == {2}


def test_without_a_champion_before_there_is_nothing_to_roll_back_to(mlflow_url, versions):
    with pytest.raises(MixbitError, match="no champion before"):
        rollback(mlflow_url, versions("first"))


def test_an_unknown_model_is_told(mlflow_url):
    with pytest.raises(MixbitError, match="no such registered model"):
        history(mlflow_url, "nobody-knows-it")
