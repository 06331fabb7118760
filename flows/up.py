"""`mixbit up`, `down`, `status`: the two servers and this machine's worker."""

import json
from dataclasses import asdict
from urllib.parse import urlsplit

import click

from flows.server_commands import PREFECT
from flows.servers import ensure, look, stop_all, team_url
from flows.worker import ensure_worker, stop_worker, worker_status
from mixbit.telemetry import LOOPBACK
from tasks.place import state_dir


@click.command()
@click.option("--bind", metavar="ADDRESS", help="Of this machine: whoever reaches it can use the servers. Remembered.")
@click.option("--worker/--no-worker", default=True, help="Whether this machine takes scheduled nights.")
def up(bind: str | None, worker: bool) -> None:
    """Start the Prefect and MLflow servers, on loopback unless told otherwise, and the worker of scheduled nights.

    Example: mixbit up --bind 192.168.1.10
    """
    servers = ensure(state_dir(), bind=bind)
    click.echo(f"prefect  {servers.prefect_url}\nmlflow   {servers.mlflow_url}")
    if worker:
        click.echo(f"worker   pid {ensure_worker(servers)}")
    if urlsplit(servers.prefect_url).hostname not in LOOPBACK and team_url(PREFECT) is None:
        click.echo("open to the network: whoever reaches these can read, change and run everything (docs/devices.md)")


@click.command()
def down() -> None:
    """Stop the servers and the worker that mixbit started; their data stay.

    Example: mixbit down
    """
    worker = ["worker"] if stop_worker(state_dir()) else []
    stopped = [*worker, *stop_all(state_dir())]
    click.echo(f"stopped {' and '.join(sorted(stopped))}" if stopped else "nothing was running")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(as_json: bool) -> None:
    """Say which servers run, where, and whether they answer; and whether this machine takes scheduled nights.

    Example: mixbit status --json
    """
    found = [*look(state_dir()), worker_status(state_dir())]
    if as_json:
        click.echo(json.dumps({one.name: asdict(one) for one in found}, sort_keys=True))
        return
    for one in found:
        details = [one.url or "", f"pid {one.pid}" if one.pid else "", "healthy" if one.healthy else ""]
        click.echo("  ".join([f"{one.name:8}", f"{one.state:9}", *filter(None, details)]).rstrip())
