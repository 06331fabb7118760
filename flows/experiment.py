"""The flow `experiment`: one declared experiment, from data to registered, measured models and a report."""

import logging
from pathlib import Path

from prefect import flow
from prefect.logging.configuration import setup_logging
from prefect.runtime import flow_run

from flows import effects
from flows.declaration import read_experiment
from flows.pipeline import pipeline
from flows.rows import policy_rows
from flows.screen import Screen
from flows.servers import ensure
from flows.session import Session, expected_rows, git_tags
from mixbit.devices import known
from mixbit.devices.remote import refresh
from mixbit.devices.server import Server
from mixbit.errors import RunError
from tasks import tracking
from tasks.place import ROOT, state_dir
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
        session = _open(Path(file), store)
        with session.screen:
            results = pipeline(session.declared, session)
            unreached, faults = effects.not_reached(results), effects.over_budget(session, results)
            if not results.budgets:
                raise RunError(unreached)
            versions = effects.registration(session, results, {fault.where for fault in faults})
            logged = effects.experiment_run(session, results)
            told = effects.content(session, results, versions, logged)
            report = effects.report(session, told, logged)
    session.screen.summary(policy_rows(told), told.metric)
    session.screen.say(f"report: {report}")
    if session.missing:
        session.screen.say(f"partial: without {', '.join(session.missing)}; the same command adds what is missing")
    if faults or unreached or session.missing:
        raise RunError([*unreached, *faults, *session.faults()])


def _open(path: Path, store: Store) -> Session:
    declared = read_experiment(path, ROOT)
    servers = ensure(store.folder)
    tags = {**git_tags(), "prefect.flow_run_id": str(flow_run.id or "")}
    context = Context(store, declared.experiment.name, declared.search_path, servers.mlflow_url, tags)
    for name in declared.experiment.devices:
        if known.read(name) is not None:
            refresh(name, Server(servers.prefect_api_url))
    store.set_file(declared.experiment.name, declared.path.resolve())
    screen, rows = Screen(f"mixbit run {path.name}"), expected_rows(declared, context)
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
