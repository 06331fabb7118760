"""Real servers for the tests that need them: started when first asked for, one pair for all workers, always stopped."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

STATE = "MIXBIT_TEST_STATE"  # workers of pytest-xdist inherit it


def pytest_configure(config):
    from mixbit.telemetry import quiet_environment

    os.environ.update(quiet_environment(os.environ))
    for name in ("MIXBIT_PREFECT_URL", "MIXBIT_MLFLOW_URL"):
        os.environ.pop(name, None)
    if not hasattr(config, "workerinput"):
        os.environ[STATE] = tempfile.mkdtemp(prefix="mixbit-tests-")


def pytest_unconfigure(config):
    if hasattr(config, "workerinput") or STATE not in os.environ:
        return
    from flows.servers import stop_all

    state = Path(os.environ.pop(STATE))
    stop_all(state)
    shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def mlflow_url():
    """A real MLflow server on loopback."""
    from flows.servers import ensure

    return ensure(Path(os.environ[STATE]), ["mlflow"]).mlflow_url


@pytest.fixture(scope="session")
def prefect_url():
    """A real Prefect server on loopback; its API is under `/api`."""
    from flows.servers import ensure

    return ensure(Path(os.environ[STATE]), ["prefect"]).prefect_url
