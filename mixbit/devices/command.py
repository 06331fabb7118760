"""`mixbit-device`: the one command of a device. Prefect reads its settings when it is imported: they are made first."""

import argparse
import os
import sys
import urllib.error
from collections.abc import Sequence
from pathlib import Path

from mixbit.devices.backend import DEFAULT, backend_names, require_installed
from mixbit.devices.job import BACKEND
from mixbit.devices.known import check_name
from mixbit.errors import MisuseError, MixbitError
from mixbit.http import check_url, opener
from mixbit.telemetry import quiet_environment

CACHE_MB, PROBE_S = 1000, 10.0
EXAMPLE = "Example: mixbit-device serve --name pi5 --server http://192.168.1.10:4200"
SETTINGS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect allows: a lost job is known after three
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # a job that fails says so in one line of its own
    "PREFECT_CLIENT_MAX_RETRIES": "4",  # half a minute; what loops asks again by itself
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit 0, 1 (failed), 2 (misuse); one line for what a user can fix."""
    asked = _parser().parse_args(arguments)
    try:
        _serve(asked)
    except MixbitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped: the device is offline", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mixbit-device", description="Lets this machine measure for a mixbit host.", epilog=EXAMPLE
    )
    serve = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "serve", help="join a server and do its jobs, one at a time, until stopped", epilog=EXAMPLE
    )
    serve.add_argument("--name", required=True, help="what experiments call this device, such as pi5")
    serve.add_argument("--server", required=True, metavar="URL", help="of the Prefect server, as `mixbit up` says it")
    serve.add_argument(
        "--backend", default=DEFAULT, metavar="NAME", help=f"runtime: {' or '.join(backend_names())}; {DEFAULT}"
    )
    serve.add_argument("--folder", type=Path, help="for files and state; default ~/.cache/mixbit-device/NAME")
    serve.add_argument(
        "--cache-mb", type=int, default=CACHE_MB, metavar="N", help=f"most that fetched files may take; {CACHE_MB}"
    )
    return parser


def _serve(asked: argparse.Namespace) -> None:
    name, url = check_name(asked.name), check_url("--server", asked.server).removesuffix("/api")
    folder = (asked.folder or Path.home() / ".cache" / "mixbit-device" / name).expanduser().resolve()
    require_installed(asked.backend, "--backend")
    if asked.cache_mb < 1:
        raise MisuseError("--cache-mb", "too small", expected="a number of megabytes from 1", got=asked.cache_mb)
    _require_answer(f"{url}/api/health")
    prefect = folder / "prefect"
    try:
        prefect.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError("--folder", f"can't be written: {error.strerror}", got=folder) from None
    os.environ |= quiet_environment(os.environ) | {key: os.environ.get(key, value) for key, value in SETTINGS.items()}
    os.environ |= {"PREFECT_HOME": str(prefect), "PREFECT_PROFILES_PATH": str(prefect / "profiles.toml")}
    os.environ |= {"PREFECT_API_URL": f"{url}/api", "MIXBIT_DEVICE_FOLDER": str(folder / "files")}
    os.environ[BACKEND] = asked.backend
    os.environ["MIXBIT_DEVICE_CACHE_BYTES"] = str(asked.cache_mb * 1_000_000)
    from mixbit.devices.stay import own_words

    with own_words(folder / "serve.log"):  # Prefect keeps the streams that it finds when it is imported
        try:
            from mixbit.devices.serve import serve
        except ModuleNotFoundError as error:
            hint = "In the clone: pip install --require-hashes -r requirements-device.lock"
            raise MixbitError("mixbit-device", f"{error.name} is not installed", hint=hint) from None
        serve(name, folder)


def _require_answer(health: str) -> None:
    try:
        opener(health).open(health, timeout=PROBE_S).close()
    except (OSError, ValueError) as error:
        cause = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        hint = "On the host: `mixbit up --bind ADDRESS`, then give the prefect address that it prints"
        raise MixbitError(health, f"the server does not answer ({cause})", hint=hint) from None


if __name__ == "__main__":
    main()
