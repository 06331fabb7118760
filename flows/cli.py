"""The `mixbit` command. Importing it loads neither torch, Prefect nor MLflow."""

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from mixbit.errors import MixbitError
from mixbit.telemetry import quiet_environment
from tasks.store import disk_faults

EXPERIMENT = click.argument("experiment", type=click.Path(path_type=Path))


class Commands(click.Group):
    """A group that says what a user meant, and turns what a user can fix into one line."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest."""
        import difflib

        name = args[0] if args else ""
        near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else " Try `mixbit --help`"))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mixbit", prog_name="mixbit")
def cli() -> None:
    """Choose the bit-width of every layer under budgets, fine-tune, export, measure, register.

    Example: mixbit run experiments/digits.yaml
    """


@cli.command()
@EXPERIMENT
def run(experiment: Path) -> None:
    """Run an experiment, or every cell of a sweep; stages that did not change are not computed again.

    Example: mixbit run experiments/digits.yaml
    """
    from flows.declaration import read_experiment
    from flows.prefect_away import until_the_end
    from flows.servers import ensure
    from flows.sweep_declaration import is_sweep, read_sweep
    from tasks.place import ROOT, state_dir

    if swept := is_sweep(experiment):
        read_sweep(experiment, ROOT)
    else:
        read_experiment(experiment, ROOT)
    if sys.stderr.isatty():
        click.echo("starting the servers if none answers …", err=True)
    servers = ensure(state_dir())
    os.environ |= servers.environment()
    from flows.experiment import experiment as flow
    from flows.experiment import leave_the_terminal_alone

    if swept:
        from flows.sweep import sweep as flow
    leave_the_terminal_alone()
    until_the_end(lambda: flow(str(experiment)), servers.prefect_url)


@cli.command()
@EXPERIMENT
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--offline", is_flag=True, help="Ask no server; plan from this machine alone.")
def plan(experiment: Path, as_json: bool, offline: bool) -> None:
    """Say what a run would compute, and why, stage by stage; of a sweep, cell by cell, and what cells share.

    Example: mixbit plan experiments/digits.yaml
    """
    from flows import plan as planning
    from flows.declaration import read_experiment
    from flows.servers import known_mlflow_url
    from flows.sweep_declaration import is_sweep
    from tasks.place import ROOT, state_dir
    from tasks.stage import Context
    from tasks.store import Store

    if is_sweep(experiment):
        _plan_sweep(experiment, as_json=as_json, offline=offline)
        return
    declared = read_experiment(experiment, ROOT)
    server = None if offline else known_mlflow_url(state_dir())
    context = Context(Store(state_dir()), declared.experiment.name, declared.search_path, server)
    planner = planning.plan(declared, context)
    if as_json:
        click.echo(json.dumps(planning.as_json(planner, experiment), indent=2))
    else:
        planning.show(planner)


def _plan_sweep(path: Path, *, as_json: bool, offline: bool) -> None:
    from flows import sweep_plan
    from flows.servers import known_mlflow_url
    from flows.sweep_declaration import read_sweep
    from tasks.place import ROOT, state_dir
    from tasks.stage import Context
    from tasks.store import Store

    declared = read_sweep(path, ROOT)
    server = None if offline else known_mlflow_url(state_dir())
    planned = sweep_plan.plan_sweep(declared, Context(Store(state_dir()), declared.sweep.name, (), server))
    if as_json:
        click.echo(json.dumps(sweep_plan.as_json(declared, planned), indent=2))
    else:
        sweep_plan.show(planned)


def _add_commands() -> None:
    from flows.adopt import adopt_command
    from flows.cache import cache_command
    from flows.devices import devices_command
    from flows.garbage import gc_command
    from flows.promote import history, promote, rollback
    from flows.schedule import schedule_command, schedules_command
    from flows.solve import solve
    from flows.trace import diff, trace
    from flows.up import down, status, up
    from flows.verify import verify_command

    inspecting = (solve, trace, diff, verify_command, adopt_command, cache_command, gc_command)
    for command in (*inspecting, promote, rollback, history, devices_command, schedule_command, schedules_command):
        cli.add_command(command)
    for command in (up, down, status):
        cli.add_command(command)


def main() -> None:
    """Entry point: exit 0, 1 (failed), 2 (misuse); never a traceback for what a user can fix."""
    os.environ |= quiet_environment(os.environ)
    _add_commands()
    try:
        with disk_faults(""):
            cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MixbitError as error:
        click.echo(_as_lines(error), err=True)
        _leave(error)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped: what was finished is kept; run the same command again to go on", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - a fault of ours, or of user code where nobody foresaw one
        sys.exit(_unforeseen(error))


def _unforeseen(error: Exception) -> str:
    """One line for the user; the traceback goes to a file for whoever mends it."""
    with tempfile.NamedTemporaryFile("w", prefix="mixbit-", suffix=".log", delete=False) as log:
        log.writelines(traceback.format_exception(error))
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"error: unforeseen {said}. What was finished is kept; the traceback is in {log.name}"


def _leave(error: MixbitError) -> NoReturn:
    from flows.prefect_away import PrefectAway

    if isinstance(error, PrefectAway):
        sys.stdout.flush()
        os._exit(error.exit_code)  # Prefect's exit handlers wait minutes for the server that is gone
    sys.exit(error.exit_code)


def _as_lines(error: MixbitError) -> str:
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


if __name__ == "__main__":
    main()
