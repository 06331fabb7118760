"""Same inputs, same bytes: what early cut-off rests on. Two processes, checkouts and users compute everything."""

import pytest

from tasks.adoption import MEASURED
from tasks.registration import PACKED, versions_of_file
from tests.flows.clones import clone, elsewhere, forget_runs, in_clone, outputs, records
from tests.flows.conftest import make_tiny
from tests.layout.test_layout import STAGES


@pytest.fixture(scope="module")
def twice(tmp_path_factory, urls):
    """(the first run's experiment, the second's); what differs between them must not reach a byte."""
    folder = tmp_path_factory.mktemp("cutoff")
    first = in_clone(make_tiny(folder / "tiny", **urls), clone(folder / "code"), PYTHONHASHSEED="1")
    first.run()
    forget_runs(first)
    other = {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "2"}
    second = elsewhere(first, folder / "a longer way" / "tiny", clone(folder / "elsewhere" / "code"), **other)
    assert set(second.computed()) == set(records(first))
    return first, second


# A direct search runs instead of indicators; that its bytes repeat: tests/policies/test_searches.py.
INSTEAD = {"searched_policy"}


@pytest.mark.parametrize("stage", sorted(set(STAGES) - MEASURED - INSTEAD))
def test_same_inputs_same_bytes(twice, stage):
    first, second = ({name: sha256 for name, sha256 in outputs(one).items() if _stage(name) == stage} for one in twice)
    assert first
    assert second == first


def _stage(name):
    return name.split(":")[0].split()[0]


def test_same_code_parameters_and_inputs_same_key(twice):
    first, second = (
        {cell: one["key"] for cell, one in records(tiny).items() if "profile" not in cell} for tiny in twice
    )
    assert second == first


def test_a_machine_that_knows_only_the_server_computes_nothing_and_has_every_byte(twice, tmp_path):
    _, second = twice
    third = elsewhere(second, tmp_path / "third" / "tiny", clone(tmp_path / "code"))
    assert third.computed() == []
    assert outputs(third) == outputs(second)
    assert third.mixbit("cache", "--verify").returncode == 0


def test_equal_bytes_are_registered_once(twice):
    first, second = twice
    packed = outputs(second)[f"deployable w4a4: {PACKED}"]
    assert len(versions_of_file(first.environment["MIXBIT_MLFLOW_URL"], packed)) == 1
