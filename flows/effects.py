"""What follows the stages on every run, checked and never cached: registry, experiment runs, report, closing table."""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flows.pipeline import Results, Variant
from flows.session import Session, dirty_sources
from mixbit import simulate
from mixbit.errors import MixbitError
from mixbit.policy import canonical_json, parse_policy
from tasks import experiment_run as runs
from tasks import registration as registry
from tasks.closure import closure
from tasks.place import state_dir
from tasks.record import Record
from tasks.report_content import Kind, Profile, ReportContent, Shown
from tasks.stage import Artifact, Done
from tasks.store import write_atomic


def registration(session: Session, results: Results, too_large: AbstractSet[str]) -> dict[str, str]:
    """Register each budget's deployable unless it is larger than allowed; budget -> registered version."""
    shared = _shared(results)

    def register(budget: str) -> str:
        if budget in too_large:
            return "not registered: larger than its budget"
        records = {**shared, **_records(results.budgets[budget])}
        context = {**session.context.tags, "dataset.md5": _md5(session, results)}
        name = session.declared.known_as
        # Two runs that end together must not both find no version and make one each.
        with session.context.store.lock("registration", f"{name}-{budget}"):
            alone = not session.declared.cell
            return str(registry.register(session.server, name, budget, records, context, follow=alone))

    return {budget: session.effect("registration", budget, partial(register, budget)) for budget in results.budgets}


def over_budget(session: Session, results: Results) -> list[MixbitError]:
    """Budgets whose real file is larger than file_bytes allows: the solver knows a model of the file, not the file."""
    faults = []
    for budget, variant in results.budgets.items():
        limit = _json(session, variant.policy["choice.json"]).get("budget", {}).get("file_bytes")
        size_bytes = _done(variant.deployable).record.figures["file_bytes"]
        if limit is not None and size_bytes > limit:
            hint = f"Ask for {round(size_bytes - limit)} bytes less and run again"
            what = "the file is larger than its budget"
            faults.append(MixbitError(budget, what, expected=f"at most {limit}", got=round(size_bytes), hint=hint))
    return faults


def not_reached(results: Results) -> list[MixbitError]:
    """Budgets for which no policy was good enough."""
    return [walk.fault(budget) for budget, walk in results.walks.items() if walk.end is None]


def experiment_run(session: Session, results: Results, parent: str | None = None) -> dict[str, str]:
    """Log each budget's figures in one MLflow run, of a cell under its sweep's; budget -> run id."""
    name, shared = session.declared.known_as, _shared(results)

    def log(budget: str) -> str:
        variant = results.budgets[budget]
        uses = {**shared, **_records(variant)}
        for method, given in results.baselines[budget].items():
            uses |= _records(given, f"{method}.")
        uses |= {
            f"{record.stage}.{reference}": record
            for reference, given in results.references.items()
            for record in _records(given).values()
        }
        cached = {cell: session.was_cached(record) for cell, record in uses.items()}
        context = {**session.context.tags, "dataset.md5": _md5(session, results)}
        context |= {"policy.sha256": variant.policy["policy.json"].sha256, "mixbit.partial": ", ".join(session.missing)}
        # Two runs that end together must not both find no such run and make one each.
        with session.context.store.lock("experiment_run", f"{name}-{budget}"):
            return runs.log(
                session.server, name, budget, uses, cached, context, parent=parent, cell=session.declared.cell
            )

    return {budget: session.effect("experiment_run", budget, partial(log, budget)) for budget in results.budgets}


def content(
    session: Session, results: Results, versions: Mapping[str, str], logged: Mapping[str, str]
) -> ReportContent:
    """Everything a report or a closing table shows, from artifacts and figures."""
    e = session.declared.experiment
    layers = _json(session, results.layers["layers.json"])
    shown = [_shown(session, name, "reference", variant, layers) for name, variant in results.references.items()]
    for budget, variant in results.budgets.items():
        links = {"MLflow run": session.run_page(logged[budget])}
        shown.append(_shown(session, budget, "budget", variant, layers, registered=versions[budget], links=links))
        for method, given in results.baselines[budget].items():
            shown.append(_shown(session, f"{budget}-{method}", "baseline", given, layers, beside=budget))
    task = e.task
    return ReportContent(
        experiment=e.name,
        shown=tuple(shown),
        layers=layers,
        dataset=_json(session, results.dataset["dataset_info.json"]),
        indicators=_json(session, results.indicators["indicators.json"]) if results.indicators else {},
        metric="accuracy" if task == "classification" else task.metric.partition(":")[2],
        facts={
            "git.commit": session.context.tags.get("git.commit", ""),
            "seed": str(e.seed),
            "threads": str(e.threads),
            "devices": ", ".join(e.devices),
            **({"missing": ", ".join(session.missing)} if session.missing else {}),
            **{f"{budget}: tried": walk.words() for budget, walk in results.walks.items()},
        },
    )


def report(session: Session, told: ReportContent, logged: Mapping[str, str]) -> Path:
    """Write the self-contained page; lay it, and sources that differ from the commit, beside each experiment run."""
    from tasks.report import write_hero, write_report

    folder = state_dir() / "reports" / told.experiment
    page, picture, drawn = folder / "report.html", folder / "report.png", folder / "drawn.sha256"

    def write() -> None:
        with session.context.store.lock("report", told.experiment):  # two runs would take each other's scratch file
            draw()

    def draw() -> None:
        key = _drawing_key(session, told)
        if page.is_file() and picture.is_file() and drawn.is_file() and drawn.read_text() == key:
            return
        files = {"report.html": write_report(page, told), "report.png": write_hero(picture, told)}
        if patch := dirty_sources():
            write_atomic(folder / "sources.patch", patch.encode())
            files["sources.patch"] = folder / "sources.patch"
        for run_id in logged.values():
            runs.attach(session.server, run_id, files)
        write_atomic(drawn, key.encode())

    session.effect("report", "", write)
    return page


def _drawing_key(session: Session, told: ReportContent) -> str:
    """What the page is made of: its content and the code that draws it."""
    code = closure(["tasks.report"], (), session.context.snapshot).files
    return hashlib.sha256(canonical_json([asdict(told), code])).hexdigest()


def _shown(
    session: Session,
    name: str,
    kind: Kind,
    variant: Variant,
    layers: Mapping[str, Any],
    *,
    beside: str = "",
    registered: str = "",
    links: Mapping[str, str] | None = None,
) -> Shown:
    records = _records(variant)
    figures = {
        key: value for record in records.values() if record.stage != "profile" for key, value in record.figures.items()
    }
    profiles = {
        device: Profile(_done(outputs).record.figures, _json(session, outputs["profile.json"]))
        for device, outputs in variant.profiles.items()
    }
    policy = _json(session, variant.policy["policy.json"])
    return Shown(
        name=name,
        kind=kind,
        policy=policy,
        policy_sha256=variant.policy["policy.json"].sha256,
        figures=figures,
        beside=beside,
        choice=_json(session, variant.policy["choice.json"])
        if "choice.json" in _done(variant.policy).record.outputs
        else {},
        deployable=_json(session, variant.deployable["deployable.json"]) if variant.deployable else {},
        profiles=profiles,
        onnx_sha256=variant.deployable["packed.onnx"].sha256 if variant.deployable else "",
        registered=registered,
        links=links or {},
        simulated={model: simulate.policy_us(model, parse_policy(policy, name), layers) for model in simulate.models()},
    )


def _records(variant: Variant, prefix: str = "") -> dict[str, Record]:
    """Stage (with the device, of profiles) -> record."""
    cells = {"policy": variant.search or variant.policy, "measured_policy": variant.search and variant.policy}
    cells |= {"finetuned_model": variant.finetuned_model, "deployable": variant.deployable}
    cells |= {f"profile.{device}": outputs for device, outputs in variant.profiles.items()}
    return {f"{prefix}{name}": _done(outputs).record for name, outputs in cells.items() if outputs is not None}


def _shared(results: Results) -> dict[str, Record]:
    cells = {name: getattr(results, name) for name in ("dataset", "proxy", "layers", "float_model", "indicators")}
    cells |= {f"latency_table.{device}": outputs for device, outputs in results.latency_tables.items()}
    return {name: _done(outputs).record for name, outputs in cells.items() if outputs is not None}


def _done(outputs: Any) -> Done:
    assert isinstance(outputs, Done)
    return outputs


def _json(session: Session, artifact: Artifact) -> Any:
    return json.loads(session.context.store.blob(artifact.sha256).read_bytes())


def _md5(session: Session, results: Results) -> str:
    return str(_json(session, results.dataset["dataset_info.json"]).get("md5") or "")
