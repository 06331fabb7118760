"""Six of the kills of benchmarks/faults.py: of a run, DVC, MLflow's server and Prefect's, on servers of their own."""

import pytest

from benchmarks.fault_case import make_case
from benchmarks.fault_trial import Fault, attempt, reference

KILLS = (
    Fault("blob write", "blob write: renamed", "indicators"),
    Fault("record", "record: half", "policy"),
    Fault("self-checkpoint", "self-checkpoint: half", "float_model", nth=3, every_s=0),
    Fault("DVC itself", "DVC stage: half", "dvc", who="dvc"),
    Fault("MLflow server", "FINISHED: before", "float_model", who="mlflow"),
    Fault("Prefect server", "record: after", "policy", who="prefect"),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(a checkout with an experiment and servers of its own, what a run that nobody disturbed made)."""
    case = make_case(tmp_path_factory.mktemp("faults"), PREFECT_CLIENT_MAX_RETRIES="0")
    yield case, reference(case)
    assert case.start("down").wait(60) == 0


@pytest.mark.parametrize("fault", KILLS, ids=lambda fault: f"{fault.who} at {fault.point}")
def test_after_a_kill_the_next_run_has_the_same_bytes_and_computes_nothing_again(undisturbed, fault):
    outcome = attempt(undisturbed[0], fault, undisturbed[1])
    assert outcome.killed
    assert outcome.amiss == []
    assert outcome.needless == []
    assert bool(outcome.resumed) == (fault.family == "self-checkpoint")
