"""`mixbit cache`: what this machine's store holds, what it spared, and whether every byte is as it was."""

import json
from dataclasses import asdict
from typing import Any

import click

from flows.numbers import bytes_text, seconds_text
from mixbit.errors import MixbitError
from tasks.holdings import Fault, Holding, check, holdings
from tasks.place import state_dir
from tasks.store import Store

HEAD = f"{'stage':<16}{'records':>8}{'bytes':>10}{'on disk':>10}{'hits':>8}{'computed':>9}{'rate':>6}{'spared':>9}"


@click.command("cache")
@click.option("--verify", "verified", is_flag=True, help="Hash every blob again; exit 1 if any is lost or altered.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def cache_command(verified: bool, as_json: bool) -> None:
    """Show the store by stage: size, hit rate, and the computing time that hits spared.

    Hits and computations are counted on this machine, cell by cell, over all runs since the store was made; what was
    fetched from the server counts as a hit. The last run is not told apart from earlier ones.

    Example: mixbit cache --verify
    """
    store = Store(state_dir())
    found = holdings(store)
    checked = check(store) if verified else None
    click.echo(json.dumps(_as_json(found, checked), indent=2) if as_json else "\n".join(_lines(found, checked)))
    if checked and checked[2]:
        lost = sum(fault.what == "lost" for fault in checked[2])
        what = f"{len(checked[2]) - lost} altered and {lost} lost of {checked[0]} blobs"
        raise MixbitError(str(store.folder), what, hint="The next run fetches or computes them again")


def _lines(found: list[Holding], checked: tuple[int, int, list[Fault]] | None) -> list[str]:
    lines = [HEAD, *map(_line, found), _line(_total(found))] if found else ["nothing is stored yet"]
    faults = checked[2] if checked else []
    lines += [f"{one.what}: {one.sha256[:12]} of {', '.join(one.records) or 'no record'}" for one in faults]
    if checked and not faults:
        lines.append(f"verified {checked[0]} blobs, {bytes_text(checked[1])}: all are what they were")
    return lines


def _line(one: Holding) -> str:
    asked = one.cached + one.computed
    rate = f"{one.cached / asked:.0%}" if asked else "-"
    sizes = f"{bytes_text(one.bytes):>10}{bytes_text(one.unique_bytes):>10}"
    counts = f"{one.cached:>8}{one.computed:>9}{rate:>6}{seconds_text(one.spared_s):>9}"
    return f"{one.stage:<16}{one.records:>8}{sizes}{counts}"


def _total(found: list[Holding]) -> Holding:
    names = ("records", "bytes", "unique_bytes", "cached", "computed", "spared_s", "spent_s")
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in found) for name in names}
    return Holding("all", **sums)


def _as_json(found: list[Holding], checked: tuple[int, int, list[Fault]] | None) -> dict[str, Any]:
    stages = {one.stage: {k: v for k, v in asdict(one).items() if k != "stage"} for one in found}
    total = {k: v for k, v in asdict(_total(found)).items() if k != "stage"}
    told = (
        {"blobs": checked[0], "bytes": checked[1], "faults": [asdict(one) for one in checked[2]]} if checked else None
    )
    return {"stages": stages, "total": total, "verified": told}
