"""Plain HTTP with the standard library: loopback never through a proxy, credentials from the tools' own variables."""

import os
import urllib.request
from base64 import b64encode
from urllib.parse import urlsplit

from mixbit.errors import MisuseError
from mixbit.telemetry import LOOPBACK

SCHEMES = ("http", "https")


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens this address; loopback never goes through a proxy."""
    local = urlsplit(url).hostname in LOOPBACK
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


def check_url(where: str, url: str) -> str:
    """The address, without a trailing slash.

    Raises:
        MisuseError: it is none of a server.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise MisuseError(where, "not the address of a server", expected="such as http://192.168.1.10:4200", got=url)
    return url.rstrip("/")


def mlflow_credentials() -> dict[str, str]:
    """MLflow's own variables: $MLFLOW_TRACKING_TOKEN, or $MLFLOW_TRACKING_USERNAME and _PASSWORD."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return _basic(f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}")
    return {}


def prefect_credentials() -> dict[str, str]:
    """Prefect's own variables: $PREFECT_API_KEY, or $PREFECT_API_AUTH_STRING (`user:password`)."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    pair = os.environ.get("PREFECT_API_AUTH_STRING")
    return _basic(pair) if pair else {}


def _basic(pair: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
