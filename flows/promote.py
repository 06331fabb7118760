"""`mixbit promote`, `rollback`, `history`: which version of a registered model is the champion, and why."""

import json
from dataclasses import asdict

import click

from flows.trace import tracking_url
from tasks import promotion


@click.command()
@click.argument("version", metavar="models:/NAME/VERSION")
@click.option("--reason", default="by hand", show_default=True, help="Kept in the history.")
def promote(version: str, reason: str) -> None:
    """Make a version the champion of its registered model.

    Example: mixbit promote models:/digits-w4a4/3 --reason "accepted on the board"
    """
    made = promotion.promote(tracking_url(), version, reason)
    click.echo(f"models:/{made.name}@champion is version {made.version}")


@click.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Make the champion before this one the champion again.

    Example: mixbit rollback digits-w4a4
    """
    made = promotion.rollback(tracking_url(), name)
    click.echo(f"models:/{made.name}@champion is version {made.version}")


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON list on standard output.")
def history(name: str, as_json: bool) -> None:
    """List the champions of a registered model, oldest first.

    Example: mixbit history digits-w4a4
    """
    moves = promotion.history(tracking_url(), name)
    if as_json:
        click.echo(json.dumps([asdict(move) for move in moves], indent=2))
        return
    for move in moves:
        click.echo(f"{move.at or 'before':<20}  version {move.version:<4}  {move.why}")
    if not moves:
        click.echo("the champion has not moved since the first version")
