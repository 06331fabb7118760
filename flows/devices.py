"""`mixbit devices`: which machines measure, whether they are online or busy, what they are; add one, remove one."""

import json
from dataclasses import asdict, dataclass

import click

from flows.server_commands import PREFECT, api_url
from flows.servers import known_url
from mixbit.devices import known
from mixbit.devices.backend import ABSENT, backend_of, runtime_words
from mixbit.devices.fingerprint import fingerprint, fingerprint_sha256
from mixbit.devices.remote import refresh
from mixbit.devices.server import UNDER_WAY, Job, Server, ServerAway
from mixbit.errors import MisuseError, MixbitError
from mixbit.place import state_dir

WHY = 120  # characters of a failed job's message; --json has all


@dataclass(frozen=True)
class DeviceRow:
    """One device: `state` is online, busy, offline, or unknown without a server; runs use those that were `added`."""

    name: str
    state: str
    added: bool
    fingerprint: dict[str, str]
    announced_at: str = ""
    last_job: Job | None = None


@click.group("devices", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON list on standard output.")
@click.pass_context
def devices_command(ctx: click.Context, as_json: bool) -> None:
    """List the devices: online, busy, what they are, their last job.

    Example: mixbit devices --json
    """
    if ctx.invoked_subcommand is None:
        rows = look()
        click.echo(json.dumps([asdict(row) for row in rows], indent=2)) if as_json else _show(rows)


@devices_command.command()
@click.argument("name")
def add(name: str) -> None:
    """Let experiments use a device that has joined with `mixbit-device serve`.

    Example: mixbit devices add pi5
    """
    server = _server()
    announced = refresh(known.check_name(name), server)
    if announced is None:
        joined = ", ".join(server.announced()) or "none yet"
        hint = f"On the device: mixbit-device serve --name {name} --server {server.api_url.removesuffix('/api')}"
        raise MisuseError(f"device {name}", "has not joined", expected=joined, got=name, hint=hint)
    click.echo(f"{name}: {_summary(announced.fingerprint)}\nin an experiment: devices: [local, {name}]")


@devices_command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a device, here and on the server; its figures stay.

    Example: mixbit devices remove pi5
    """
    was_known = known.remove(known.check_name(name))
    url = _url()
    if url is not None:
        server = Server(url)
        if server.is_online(name):
            click.echo(f"{name} is online: stop `mixbit-device serve` there, or it joins again when restarted")
        server.forget(name)
    elif was_known:
        click.echo("no server is up: forgotten here only")
    if not was_known and url is None:
        raise MisuseError("devices", "unknown device", expected=", ".join(known.names()) or "none yet", got=name)
    click.echo(f"removed {name}")


def look() -> list[DeviceRow]:
    """This machine with each runtime that is installed, then devices that were added here or have joined the server."""
    url = _url()
    server = None if url is None else Server(url)
    try:
        joined = [] if server is None else server.announced()
        names = sorted({*known.names(), *joined})
        rows = [_row(name, server) for name in names]
    except ServerAway as error:
        click.echo(f"{error}", err=True)
        rows = [_row(name, None) for name in known.names()]
    here = {name: fingerprint(backend) for name, backend in known.local_backends().items()}
    usable = {name: found for name, found in here.items() if found[backend_of(found)] != ABSENT}
    return [*(DeviceRow(name, "online", added=True, fingerprint=found) for name, found in usable.items()), *rows]


def _row(name: str, server: Server | None) -> DeviceRow:
    here = known.read(name)
    if server is None:
        assert here is not None
        return DeviceRow(name, "unknown", added=True, fingerprint=here.fingerprint, announced_at=here.announced_at)
    said = server.announcement(name) or here
    jobs = server.jobs(name)
    busy, online = any(job.state in UNDER_WAY for job in jobs), server.is_online(name)
    state = ("busy" if busy else "online") if online else "offline"
    last = next((job for job in jobs if job.state != "SCHEDULED"), None)
    assert said is not None
    return DeviceRow(name, state, here is not None, said.fingerprint, said.announced_at, last)


def _show(rows: list[DeviceRow]) -> None:
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(f"{row.name:<{width}}  {row.state:<7}  {_summary(row.fingerprint)}")
        indent = " " * (width + 2)
        if row.last_job is not None:
            click.echo(f"{indent}last job: {_job_words(row.last_job)}")
        if not row.added:
            click.echo(f"{indent}not added yet: mixbit devices add {row.name}")
    if any(row.state == "unknown" for row in rows):
        click.echo("no server is up: `mixbit up`, then ask again for who is online")


def _summary(found: dict[str, str]) -> str:
    cores, runtime = found.get("cores", "?"), runtime_words(found)
    machine = f"{found.get('arch', '?')}, {found.get('cpu', '?')}, {cores} cores, {runtime}"
    return f"{machine} ({fingerprint_sha256(found)[:8]})"


def _job_words(job: Job) -> str:
    words = [job.state.lower(), f"{job.took_s:.0f} s", job.began[:16].replace("T", " ")]
    why = job.message if job.state in {"FAILED", "CRASHED"} else ""
    return ", ".join([*words, *([why if len(why) <= WHY else f"{why[:WHY]}…"] if why else [])])


def _url() -> str | None:
    url = known_url(PREFECT, state_dir())
    return None if url is None else api_url(url)


def _server() -> Server:
    url = _url()
    if url is None:
        raise MixbitError("devices", "no server is up", hint="Start it with `mixbit up`, or set $MIXBIT_PREFECT_URL")
    return Server(url)
