"""A cell's outputs and the tracking server: fetched from it, known to it, logged there."""

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks import tracking
from tasks.record import Record
from tasks.tracking_rest import ArtifactLost

if TYPE_CHECKING:
    from tasks.stage import Context


def fetched(context: "Context", identity: Record) -> Record | None:
    """A record that another machine left on the server, every byte of its outputs verified."""
    runs = tracking.find_stages(context.server, identity.key) if context.server is not None else []
    record = next((found for run_id in runs if (found := _fetched_from(context, identity, run_id))), None)
    if record is not None:
        context.store.write_record(record)
        context.store.clear_partial(identity.stage, identity.key)
        context.on_server.add(str(record.run_id))
    return record


def _fetched_from(context: "Context", identity: Record, run_id: str) -> Record | None:
    """What one run left; None where the server lost or altered any of it: as if the run had never been."""
    assert context.server is not None
    scratch = context.store.partial(identity.stage, identity.key) / "fetched"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        record = tracking.fetch_record(context.server, run_id)
        for name, output in record.outputs.items():
            if context.store.fault(output) is not None:
                tracking.fetch_output(context.server, run_id, name, scratch / name, output.sha256)
                context.store.put(scratch / name)
    except ArtifactLost:
        return None
    return record if (record.stage, record.key) == (identity.stage, identity.key) else None


def is_logged(context: "Context", record: Record) -> bool:
    """Whether the server has the record's run, FINISHED and not deleted; asked once per run id and process.

    Without a server: whether any ever had it.
    """
    if record.run_id is None or context.server is None:
        return record.run_id is not None
    if record.run_id not in context.on_server:
        context.on_server.update(tracking.finished(context.server, [record.run_id]))
    return record.run_id in context.on_server


def logged(context: "Context", record: Record, *, new: bool) -> Record:
    """The record with its run on this server; for an old record, one of the same key and bytes may be there."""
    assert context.server is not None
    run_id = None if new else tracking.find_same(context.server, record)
    if run_id is None:
        files = {name: context.store.blob(output.sha256) for name, output in record.outputs.items()}
        run_id = tracking.log_stage(context.server, replace(record, run_id=None), files, context.tags)
    context.on_server.add(run_id)
    return replace(record, run_id=run_id)
