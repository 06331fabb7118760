"""`mixbit verify`: whether the stages behind a result make the same bytes again, from source data alone."""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from flows.declaration import Declared, read_experiment
from flows.sources import dataset_source
from flows.trace import tracking_url
from mixbit.errors import MisuseError, MixbitError
from mixbit.experiment import Proxy
from tasks.data import proxy_source
from tasks.memo import sha256_file
from tasks.place import ROOT, state_dir
from tasks.stage import Context
from tasks.store import Store
from tasks.trace import Trace, trace
from tasks.verification import Origin, Verdict, verify

SHOWN = 8


@click.command("verify")
@click.argument("what")
@click.option(
    "--file",
    "experiment",
    type=click.Path(path_type=Path),
    help="The experiment whose folder has the data and modules; by default the one that WHAT belongs to.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def verify_command(what: str, experiment: Path | None, as_json: bool) -> None:
    """Compute every stage behind WHAT again, in an empty store, and compare bytes.

    WHAT is anything that `trace` takes. Nothing is taken from the store: sources come from the experiment's files,
    parameters from the records on the tracking server, code from this checkout. A stage that makes other bytes is
    told with what differs from then; those after it are judged on the recorded bytes. Exit 0: all are identical,
    apart from what is measured. The empty store is made in $TMPDIR.

    Example: mixbit verify models:/digits-w4a4@champion
    """
    url = tracking_url()
    found = trace(url, what)
    if not found.made_from.runs:
        raise MisuseError(what, "a source, made by no stage", expected="something that a stage made")
    declared = _declared(found, experiment)
    files = dict(_sources(declared)) if declared else {}
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="mixbit-verify-") as folder:
        context = Context(Store(Path(folder)), "verify", declared.search_path if declared else (ROOT,), None)
        for verdict in verify(Origin(url, found.made_from, files), context, _progress):
            verdicts.append(verdict)
            for line in [] if as_json else _lines(verdict):
                click.echo(line)
    counts = Counter(verdict.state for verdict in verdicts)
    if as_json:
        click.echo(json.dumps({"what": what, "stages": [asdict(one) for one in verdicts], "counts": counts}, indent=2))
    else:
        click.echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    if bad := counts["differs"] + counts["impossible"]:
        raise MixbitError(what, f"{bad} of {len(verdicts)} stages did not give the recorded bytes again")


def _declared(found: Trace, given: Path | None) -> Declared | None:
    """The experiment that was named, else the first that the result belongs to and whose file is still there."""
    if given is not None:
        return read_experiment(given, ROOT)
    tags = [version.tags for version, _ in found.versions] + [run.tags for run in found.experiment_runs]
    if found.subject.run is not None:
        tags.append(found.subject.run.tags)
    names = dict.fromkeys(one["mixbit.experiment"] for one in tags if "mixbit.experiment" in one)
    store = Store(state_dir())
    places = [place for name in names for place in [*store.files(name), ROOT / "experiments" / f"{name}.yaml"]]
    return next((read_experiment(place, ROOT) for place in places if place.is_file()), None)


def _sources(declared: Declared) -> Iterator[tuple[str, Path]]:
    """(digest, path) of every file or folder that the experiment reads, as it is now."""
    e = declared.experiment
    found = [dataset_source(declared), *([] if isinstance(e.proxy, Proxy) else [proxy_source(str(e.proxy), ROOT)])]
    for source in found:
        if source.path is not None and source.path.exists() and (digest := source.digest) is not None:
            yield digest, source.path
    for path in declared.files.values():
        if path.is_file():
            yield sha256_file(path), path


def _progress(done: int, total: int, note: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done}/{total} {note[:60]:<60}\r", nl=False, err=True)


def _lines(verdict: Verdict) -> list[str]:
    head = f"{verdict.stage:<16}{verdict.run_id[:SHOWN]}  {verdict.state}"
    told = [
        f"    {name} {then[:SHOWN]} → {now[:SHOWN] if now else 'none'}" for name, (then, now) in verdict.files.items()
    ]
    told += [f"    {verdict.why}"] if verdict.why else []
    return [head, *told, *([f"    adopted: {verdict.adopted}"] if verdict.adopted else [])]
