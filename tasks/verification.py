"""Computing again, in an empty store, what a result was made of: every stage is judged on its recorded inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mixbit.errors import MixbitError
from mixbit.load import load_method
from mixbit.policy import canonical_json
from tasks.adoption import MEASURED
from tasks.reason import reason
from tasks.record import Record
from tasks.stage import Artifact, Call, Context, Progress, code_of, identify, recompute
from tasks.trace import Lineage
from tasks.tracking import fetch_output, fetch_record
from tasks.tracking_rest import ArtifactLost
from tasks.tracking_runs import Run

State = Literal["identical", "differs", "measured", "impossible"]
UNEXPLAINED = (
    "code, parameters, inputs and facts are as recorded: another processor or library build, "
    "or the stage is not deterministic"
)


@dataclass(frozen=True)
class Verdict:
    """What came of computing one stage again.

    Attributes:
        stage: its name.
        run_id: the run that was computed again.
        state: `measured` stages are not computed: their bytes are never the same twice.
        files: output -> (recorded sha256, sha256 made now), where they differ; None where the file is not made now.
        why: what differs between then and now; why it could not be computed.
        adopted: the reason, where the recorded bytes were made by other code and adopted.
    """

    stage: str
    run_id: str
    state: State
    files: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    why: str = ""
    adopted: str = ""


@dataclass(frozen=True)
class Origin:
    """Where inputs come from that no stage makes here: `files` by digest, then the `server`."""

    server: str
    lineage: Lineage
    files: Mapping[str, Path]


def in_order(lineage: Lineage) -> list[Run]:
    """Its runs, each after those that made its inputs."""
    ordered: dict[str, Run] = {}

    def visit(run_id: str) -> None:
        if run_id not in ordered:
            for edge in lineage.edges[run_id]:
                if edge.maker is not None:
                    visit(edge.maker)
            ordered[run_id] = lineage.runs[run_id]

    for run_id in lineage.runs:
        visit(run_id)
    return list(ordered.values())


def verify(origin: Origin, context: Context, progress: Progress) -> Iterator[Verdict]:
    """Compute every stage of a lineage again and compare bytes.

    A stage whose maker made other bytes gets the recorded ones from the server, so that each is judged by itself.

    Args:
        origin: the lineage and where its inputs are.
        context: an empty store without a server, and the folders with the user's modules.
        progress: (done, total, note) while a stage computes.

    Raises:
        TrackingUnavailable: the server went away.
    """
    records = {run.run_id: _record(origin.server, run) for run in in_order(origin.lineage)}
    _read_code(list(records.values()), context)
    for run_id, record in records.items():
        yield _judged(run_id, record, origin, context, progress)


def _record(server: str, run: Run) -> Record | Verdict:
    try:
        return fetch_record(server, run.run_id)
    except ArtifactLost as error:
        return Verdict(run.tags.get("mixbit.stage", run.name), run.run_id, "impossible", why=error.what)


def _read_code(records: Sequence[Record | Verdict], context: Context) -> None:
    """All code is read before any is imported, as in a run."""
    for record in records:
        if isinstance(record, Record) and record.stage not in MEASURED:
            try:
                code_of(_call(record, {}), context)
            except MixbitError:
                continue  # told again, with its stage, when its turn comes


def _judged(run_id: str, record: Record | Verdict, origin: Origin, context: Context, progress: Progress) -> Verdict:
    if isinstance(record, Verdict):
        return record
    adopted = record.adopted.reason if record.adopted else ""
    if record.stage in MEASURED:
        return Verdict(record.stage, run_id, "measured", why="its bytes are never the same twice", adopted=adopted)
    try:
        call = _call(record, {name: _input(name, record, run_id, origin, context) for name in record.inputs})
        made = recompute(call, context, progress)
    except MixbitError as error:
        return Verdict(record.stage, run_id, "impossible", why=str(error), adopted=adopted)
    now = {name: output.sha256 for name, output in made.outputs.items()}
    files = {name: (one.sha256, now.get(name)) for name, one in record.outputs.items() if one.sha256 != now.get(name)}
    today = identify(call, context)
    changed = reason(record, today) if today.key != record.key else ""
    if not files:
        return Verdict(record.stage, run_id, "identical", why=changed, adopted=adopted)
    return Verdict(record.stage, run_id, "differs", files, changed or UNEXPLAINED, adopted)


def _call(record: Record, inputs: Mapping[str, Artifact]) -> Call:
    """The cell that a record tells of.

    Raises:
        MixbitError: today's stage does not understand its parameters.
    """
    model = load_method("tasks", record.stage).Params
    try:
        params = model.model_validate_json(canonical_json(record.params))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise MixbitError(record.stage, f"parameter {name} means nothing to today's code: {first['msg']}") from None
    return Call(record.stage, record.stage, params, inputs)


def _input(name: str, record: Record, run_id: str, origin: Origin, context: Context) -> Artifact:
    """An input with its recorded bytes: made here, a source file, or from the server.

    Raises:
        MixbitError: none has them.
    """
    read = record.inputs[name]
    if context.store.blob(read.sha256).is_file():
        return Artifact(read.sha256, read.artifact)
    if read.sha256 in origin.files:
        return Artifact(read.sha256, read.artifact, origin.files[read.sha256])
    maker = next((edge.maker for edge in origin.lineage.edges[run_id] if edge.name == name), None)
    if maker is None:
        hint = "Name the experiment whose data these are with --file"
        where = f"{record.stage}: input {name}"
        raise MixbitError(where, f"no file here has sha256 {read.sha256[:12]}…", hint=hint)
    target = context.store.folder / "fetched" / read.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch_output(origin.server, maker, read.artifact.partition("/")[2], target, read.sha256)
    return Artifact(read.sha256, read.artifact, target)
