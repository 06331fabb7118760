"""The flow `experiment`: one declared experiment, from data to registered, measured models and a report."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.logging.configuration import setup_logging
from prefect.runtime import flow_run

from flows import effects
from flows.declaration import Declared, read_experiment
from flows.pipeline import pipeline
from flows.rows import policy_rows
from flows.screen import Screen
from flows.servers import ensure
from flows.session import Session, expected_rows, git_tags
from mixbit.devices import known
from mixbit.devices.remote import refresh
from mixbit.devices.server import Server
from mixbit.errors import MixbitError, RunError
from tasks import tracking
from tasks.place import ROOT, state_dir
from tasks.report_content import ReportContent
from tasks.stage import Context
from tasks.store import Store


def _run_name() -> str:
    return Path(flow_run.parameters["file"]).stem


@flow(name="experiment", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def experiment(file: str) -> None:
    """Run the pipeline of one experiment file, then bring registry, experiment runs and report up to date.

    Raises:
        MixbitError: a stage failed; everything that finished is kept.
    """
    store = Store(state_dir())
    with store.in_use():
        path = Path(file)
        session = opened(read_experiment(path, ROOT), store, Screen(f"mixbit run {path.name}"))
        with session.screen:
            ended = carried_out(session)
            report = effects.report(session, ended.told, ended.logged)
    session.screen.summary(policy_rows(ended.told), ended.told.metric)
    session.screen.say(f"report: {report}")
    if session.missing:
        session.screen.say(f"partial: without {', '.join(session.missing)}; the same command adds what is missing")
    if ended.faults or session.missing:
        raise RunError([*ended.faults, *session.faults()])


@dataclass(frozen=True)
class Ended:
    """What an experiment came to; versions and MLflow runs (`logged`) by budget."""

    told: ReportContent
    versions: Mapping[str, str]
    logged: Mapping[str, str]
    faults: tuple[MixbitError, ...]


def carried_out(session: Session, parent: str | None = None) -> Ended:
    """Run every stage, then bring registry and experiment runs up to date.

    Args:
        session: the experiment under way.
        parent: MLflow run of the sweep that it is a cell of.

    Raises:
        MixbitError: a stage failed; everything that finished is kept.
    """
    results = pipeline(session.declared, session)
    unreached, faults = effects.not_reached(results), effects.over_budget(session, results)
    if not results.budgets:
        raise RunError([*unreached, *session.faults()])
    versions = effects.registration(session, results, {fault.where for fault in faults})
    logged = effects.experiment_run(session, results, parent)
    return Ended(effects.content(session, results, versions, logged), versions, logged, (*unreached, *faults))


def opened(declared: Declared, store: Store, screen: Screen) -> Session:
    """An experiment about to run: servers answer, devices were asked what they are, the screen lists its cells."""
    servers = ensure(store.folder)
    tags = {**git_tags(), "prefect.flow_run_id": str(flow_run.id or "")}
    context = Context(store, declared.experiment.name, declared.search_path, servers.mlflow_url, tags)
    for name in declared.experiment.devices:
        if known.read(name) is not None:
            refresh(name, Server(servers.prefect_api_url))
    store.set_file(declared.experiment.name, (declared.sweep or declared.path).resolve())
    rows = expected_rows(declared, context)
    for row in rows:
        screen.waiting(row.cell)
    # One search for all that is here, instead of a question at every hit.
    context.on_server.update(tracking.finished(servers.mlflow_url, [row.run_id for row in rows if row.run_id]))
    return Session(declared, context, screen)


def leave_the_terminal_alone() -> None:
    """Prefect's log goes to its server; the terminal belongs to the table."""
    setup_logging()
    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        logger.handlers = [handler for handler in logger.handlers if "Console" not in type(handler).__name__]
    # Without any handler, and when a log can't be delivered, Python itself would write to the terminal.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.raiseExceptions = False
