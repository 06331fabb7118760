"""The one place that turns off what tools send home, and keeps loopback requests off proxies; children inherit it."""

from collections.abc import Mapping

OFF = {
    "DO_NOT_TRACK": "true",  # MLflow accepts this spelling only
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_METRICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def quiet_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to `environment` before any tool is imported: telemetry off, loopback hosts added to NO_PROXY."""
    known = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    hosts = [host for host in known.split(",") if host]
    no_proxy = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    return {**OFF, "NO_PROXY": no_proxy, "no_proxy": no_proxy}
