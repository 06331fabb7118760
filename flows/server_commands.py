"""What the two servers are: how each is started, with which environment, and how one sees that it answers."""

import os
import sys
import urllib.error
from collections.abc import Mapping
from pathlib import Path

from flows.server_process import LOOPBACK
from mixbit.http import opener
from mixbit.telemetry import quiet_environment
from tasks.place import ROOT

PREFECT, MLFLOW = "prefect", "mlflow"
PROBE_S = 3.0


def command(name: str, port: int, host: str = LOOPBACK) -> list[str]:
    """The command line of a server; its files lie in the folder it is started in."""
    address = ["--host", host, "--port", str(port)]
    if name == PREFECT:
        return [sys.executable, "-P", "-m", "prefect", "server", "start", *address]
    stores = [
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--serve-artifacts",
        "--artifacts-destination",
        "./artifacts",
    ]
    return [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1", *stores, *address, *_names(host, port)]


def _names(host: str, port: int) -> list[str]:
    """MLflow answers only to names that it was told, against pages that rebind their own name to this address."""
    if host == LOOPBACK:
        return []
    allowed = ",".join(f"{name},{name}:*" for name in dict.fromkeys((host, LOOPBACK, "localhost")))
    return ["--allowed-hosts", allowed, "--cors-allowed-origins", f"http://{host}:{port}"]


def environment(name: str, folder: Path, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without its own Prefect and MLflow settings, which must not reach our servers."""
    kept = {key: value for key, value in outer.items() if not key.startswith(("PREFECT_", "MLFLOW_", "_MLFLOW_"))}
    kept |= quiet_environment(kept) | {"PYTHONUNBUFFERED": "1"}
    if name == MLFLOW:
        return kept | _settings(ROOT / "mlflow" / "server.env")
    settings = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",  # in the folder it is started in
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # unused here, and a second of the first start
    }
    return kept | own_prefect(folder) | settings


def own_prefect(folder: Path) -> dict[str, str]:
    """A Prefect home of our own, so that the user's profile is neither read nor written."""
    return {"PREFECT_HOME": str(folder), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}


def api_url(url: str) -> str:
    """Prefect's API under a server's address; an address that already holds /api/ (Prefect Cloud) stays."""
    return url if "/api/" in f"{url}/" else f"{url}/api"


def probe(name: str, url: str) -> str | None:
    """None when the server is healthy, else why not. Loopback never goes through a proxy."""
    address = (api_url(url) if name == PREFECT else url) + "/health"
    try:
        with opener(url).open(address, timeout=PROBE_S) as answer:
            return None if answer.status == 200 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _settings(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
