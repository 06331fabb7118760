"""`mixbit gc`: what the store holds that no experiment, alias or pinned policy reaches."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace

import click

from flows.numbers import bytes_text
from flows.servers import known_mlflow_url
from mixbit.errors import MisuseError
from mixbit.marked_yaml import read_marked
from tasks.garbage import KINDS, Garbage, Kept, experiments, find, remove_
from tasks.memo import sha256_file
from tasks.place import ROOT, state_dir
from tasks.registration import aliased
from tasks.store import Store
from tasks.trace import lineage
from tasks.tracking_rest import TrackingRefused, TrackingUnavailable
from tasks.tracking_runs import Run, get_run

SHORTEST = 8


@click.command("gc")
@click.option("--apply", "applied", is_flag=True, help="Delete what is listed; without it, nothing is changed.")
@click.option(
    "--keep",
    multiple=True,
    metavar="WHAT",
    help="An experiment's name, a stage key or an artifact's sha256 (8 digits or more). May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def gc_command(applied: bool, keep: tuple[str, ...], as_json: bool) -> None:
    """List what nothing reaches any more, with size and reason; --apply deletes it.

    Kept: what was computed but not uploaded yet; the latest cells of every experiment whose file exists; what any
    alias of the registry leads back to; a policy that an experiment names by file; and all that made these.

    Example: mixbit gc --apply --keep digits
    """
    store = Store(state_dir())
    if not store.folder.is_dir():
        click.echo("nothing to delete")
        return
    if applied:
        with store.alone():
            kept, notes = _kept(store, keep)
            found = remove_(store, find(store, kept))
    else:
        kept, notes = _kept(store, keep)
        found = find(store, kept)
    click.echo(_as_json(found, notes, applied=applied) if as_json else "\n".join(_lines(found, notes, applied=applied)))


def _kept(store: Store, keep: Iterable[str]) -> tuple[Kept, list[str]]:
    """(where reaching begins, what the reader has to know about it)."""
    named, notes = frozenset(keep), []
    known = experiments(store)
    gone = {
        name: str(files[-1])
        for name in known
        if name not in named and (files := store.files(name)) and not any(file.is_file() for file in files)
    }
    kept = Kept(frozenset(known) - gone.keys(), gone, frozenset(_pinned(store, frozenset(known) - gone.keys())))
    kept = _named(store, kept, [word for word in named if word not in known])
    notes += [f"{name}: kept, its file is not known" for name in known if not store.files(name) and name not in named]
    url = known_mlflow_url(state_dir())
    try:
        if url is not None:
            return _with_aliases(url, kept), notes
    except TrackingUnavailable:
        pass
    notes.append("the tracking server is away: every deployable is kept that an alias might name; try `mixbit up`")
    return replace(kept, deployables=True), notes


def _pinned(store: Store, names: Iterable[str]) -> list[str]:
    """Digests of the policies that experiment files name.

    Raises:
        ConfigError: a file that does not read might name any.
    """
    digests = []
    for file in (one for name in names for one in store.files(name) if one.is_file()):
        data, _, _ = read_marked(file)
        written = data.get("policy") if isinstance(data, dict) else None
        places = [folder / written for folder in (file.parent, ROOT)] if isinstance(written, str) else []
        digests += [sha256_file(place) for place in places if place.is_file()][:1]
    return digests


def _named(store: Store, kept: Kept, words: Iterable[str]) -> Kept:
    keys, digests = set(kept.keys), set(kept.digests)
    names = [path.stem for path in (store.folder / "records").glob("*/*.json")]
    blobs = [path.name for path in (store.folder / "blobs").glob("??/*")]
    for word in words:
        long = len(word) >= SHORTEST
        fitting = ({key for key in names if long and key.startswith(word)}, {b for b in blobs if b.startswith(word)})
        if not long or not any(fitting):
            expected = "an experiment's name, a stage key or a sha256 that the store has (8 digits or more)"
            raise MisuseError(f"--keep {word}", "", expected=expected, got="none of these")
        keys |= fitting[0]
        digests |= fitting[1]
    return replace(kept, keys=frozenset(keys), digests=frozenset(digests))


def _with_aliases(url: str, kept: Kept) -> Kept:
    """What every alias of the registry leads back to, by its version's tags and by the server's lineage."""
    versions = aliased(url)
    tags = [version.tags for version in versions]
    runs = lineage(url, [run.run_id for version in versions for run in _run(url, version.run_id)]).runs.values()
    digests = {one[tag] for one in tags for tag in one if tag.endswith(".sha256")}
    digests |= {sha256 for run in runs for sha256 in run.outputs.values()}
    keys = {one["mixbit.key"] for one in [*tags, *(run.tags for run in runs)] if "mixbit.key" in one}
    return replace(kept, digests=kept.digests | digests, keys=kept.keys | keys)


def _run(url: str, run_id: str) -> list[Run]:
    """The run, or none where it was deleted for good; the version's tags then say what they can."""
    try:
        return [get_run(url, run_id)] if run_id else []
    except TrackingRefused as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return []


def _lines(found: list[Garbage], notes: list[str], *, applied: bool) -> list[str]:
    lines = [f"{one.kind:<10}  {bytes_text(one.size_bytes):>9}  {one.name}: {one.reason}" for one in found]
    counts = Counter(one.kind for one in found)
    words = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
    size = bytes_text(sum(one.size_bytes for one in found))
    if not found:
        return [*notes, "nothing to delete: everything is reached"]
    last = f"deleted {words}: {size}" if applied else f"{words}: {size}. Nothing was deleted; --apply deletes them"
    return [*lines, *notes, last]


def _as_json(found: list[Garbage], notes: list[str], *, applied: bool) -> str:
    items = [asdict(one) | {"path": str(one.path)} for one in found]
    total = sum(one.size_bytes for one in found)
    return json.dumps({"deleted": applied, "found": items, "bytes": total, "notes": notes}, indent=2)
