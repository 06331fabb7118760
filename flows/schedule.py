"""`mixbit schedule`: run a sweep or an experiment every night; `mixbit schedules`: list, pause, resume, remove."""

import json
import os
import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from flows.servers import Servers, ensure
from flows.worker import ensure_worker
from mixbit.errors import MisuseError
from tasks.place import ROOT, state_dir

if TYPE_CHECKING:
    from flows.schedules import When

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command("schedule")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--cron", metavar="WHEN", help='Minute, hour, day, month, weekday: "0 2 * * *" is every night at two.')
@click.option("--every", metavar="TIME", help="Instead of --cron: 30s, 10m, 6h, 1d.")
@click.option("--timezone", default="UTC", show_default=True, help="Of --cron, such as Europe/Berlin.")
@click.option(
    "--overlap",
    type=click.Choice(["skip", "wait"]),
    default="skip",
    show_default=True,
    help="What to do with a night that is due while the last one still runs.",
)
def schedule_command(file: Path, cron: str | None, every: str | None, timezone: str, overlap: str) -> None:
    """Run a sweep or an experiment again and again; the same file again changes its schedule.

    Example: mixbit schedule experiments/nightly.yaml --cron "0 2 * * *" --timezone Europe/Berlin
    """
    from flows.declaration import read_experiment
    from flows.sweep_declaration import is_sweep, read_sweep

    kind = "sweep" if is_sweep(file) else "experiment"
    name = read_sweep(file, ROOT).sweep.name if kind == "sweep" else read_experiment(file, ROOT).experiment.name
    servers = _prefect()
    when = _when(cron, every, timezone)
    from flows import schedules

    schedules.schedule(name, kind, file.resolve(), when, "wait" if overlap == "wait" else "skip")
    ensure_worker(servers)
    found = next(one for one in schedules.schedules() if one.name == name)
    click.echo(f"{name}: {kind} {found.when}\nthe worker of this machine runs it while `mixbit up` is up")


def _when(cron: str | None, every: str | None, timezone: str) -> "When":
    """The schedule asked for.

    Raises:
        MisuseError: neither or both, or not understood.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from pydantic import ValidationError

    if (cron is None) == (every is None):
        raise MisuseError("schedule", "", expected="--cron or --every", hint='Such as --cron "0 2 * * *"')
    if every is not None:
        match = re.fullmatch(r"([1-9]\d{0,5})([smhd])", every)
        if match is None:
            raise MisuseError("--every", "", expected="30s, 10m, 6h or 1d", got=every)
        return IntervalSchedule(interval=timedelta(**{UNITS[match[2]]: int(match[1])}))
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "A name such as Europe/Berlin"
        raise MisuseError("--timezone", "no such timezone", got=timezone, hint=hint) from None
    try:
        return CronSchedule(cron=str(cron), timezone=timezone)
    except ValidationError:
        hint = "Minute, hour, day of month, month, day of week"
        raise MisuseError("--cron", "", expected='five fields such as "0 2 * * *"', got=cron, hint=hint) from None


@click.group("schedules", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON list on standard output.")
@click.pass_context
def schedules_command(ctx: click.Context, as_json: bool) -> None:
    """List the schedules: when, next, last, and nights that were missed.

    Example: mixbit schedules --json
    """
    if ctx.invoked_subcommand is not None:
        return
    _prefect()
    from flows import schedules

    found = schedules.schedules()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        last = f"last {one.last[0]} {one.last[1]}" if one.last else "never run"
        click.echo(f"{one.name}  {one.kind}  {one.when}  {'paused' if one.paused else f'next {one.next}'}  {last}")
        for time in one.missed:
            click.echo(f"  missed: {time}")
    if not found:
        click.echo('none; make one with: mixbit schedule experiments/nightly.yaml --cron "0 2 * * *"')


@schedules_command.command()
@click.argument("name")
def pause(name: str) -> None:
    """Let nothing be due until it is resumed.

    Example: mixbit schedules pause nightly
    """
    _schedules().set_paused(name, paused=True)
    click.echo(f"{name}: paused")


@schedules_command.command()
@click.argument("name")
def resume(name: str) -> None:
    """Go on with a paused schedule; what was due meanwhile is not made up for.

    Example: mixbit schedules resume nightly
    """
    _schedules().set_paused(name, paused=False)
    click.echo(f"{name}: resumed")


@schedules_command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete a schedule; what its nights made stays.

    Example: mixbit schedules remove nightly
    """
    _schedules().remove(name)
    click.echo(f"{name}: removed")


def _schedules() -> ModuleType:
    """What asks Prefect; imported once its environment is set."""
    _prefect()
    from flows import schedules

    return schedules


def _prefect() -> Servers:
    """The servers, and this process's environment for Prefect's client."""
    servers = ensure(state_dir())
    os.environ |= servers.environment()
    return servers
