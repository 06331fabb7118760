"""`mixbit trace` and `mixbit diff`: where a result came from, what came of it, and what differs between two."""

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import click

from flows.servers import known_mlflow_url
from mixbit.errors import MixbitError
from tasks.compare import Change, Difference, Pair, compare
from tasks.place import state_dir
from tasks.reason import spoken
from tasks.trace import Edge, Trace, verify
from tasks.trace import trace as find_trace
from tasks.tracking_runs import Run

WIDTH, SHOWN = 80, 8
BRANCHES = {True: ("├── ", "│   "), False: ("└── ", "    ")}  # is another one below?


@dataclass(frozen=True)
class Branch:
    """A line of the printed tree, and what hangs below it."""

    text: str
    below: "tuple[Branch, ...]" = ()


@click.command()
@click.argument("what")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--verify", "check", is_flag=True, help="Fetch every artifact and compare its digest.")
def trace(what: str, as_json: bool, check: bool) -> None:
    """Tell where WHAT came from and what came of it.

    WHAT is a deployed file (under any name), models:/NAME/VERSION, models:/NAME@ALIAS, a policy's or other
    artifact's sha256 (8 digits or more), a stage key, or a run id.

    Example: mixbit trace model-on-the-device.onnx
    """
    url = tracking_url()
    found = find_trace(url, what)
    checked = verify(url, [*found.made_from.runs.values(), *found.used_by]) if check else None
    if as_json:
        click.echo(json.dumps(trace_as_json(found, checked), indent=2, sort_keys=True, allow_nan=False))
        return
    for line in trace_lines(found):
        click.echo(line)
    if checked:
        click.echo(f"verified {checked[0]} files, {checked[1]:,} bytes: all are what they were")


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def diff(before: str, after: str, as_json: bool) -> None:
    """Tell what differs between A and B: bits flipped, inputs changed, figures moved.

    A and B are anything that `trace` takes.

    Example: mixbit diff models:/digits-w4a4/1 models:/digits-w4a4@candidate
    """
    found = compare(tracking_url(), before, after)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, sort_keys=True, allow_nan=False))
        return
    for line in diff_lines(found):
        click.echo(line)


def tracking_url() -> str:
    """The tracking server to ask.

    Raises:
        MixbitError: none runs.
    """
    url = known_mlflow_url(state_dir())
    if url is None:
        raise MixbitError("", "no tracking server runs", hint="Start it with `mixbit up`, or set $MIXBIT_MLFLOW_URL")
    return url


def trace_lines(found: Trace) -> list[str]:
    """The trace as text, at most 80 columns."""
    subject, shown = found.subject, set[str]()
    lines = [subject.what, *([f"{subject.file}", f"sha256 {subject.sha256}"] if subject.sha256 else [])]
    run = subject.run
    lines += [f"run {run.run_id}, {run.status.lower()}"] if run else ["a source, made by no stage"]
    lines += _code(run)
    origin = tuple(_ancestry(found, root, (), shown) for root in found.roots)
    made = [Branch(_run_text(one, "")) for one in found.used_by]
    made += [
        Branch("  ".join([f"registered {one}", *(f"@{alias}" for alias in aliases)])) for one, aliases in found.versions
    ]
    made += [Branch(_experiment_text(one)) for one in found.experiment_runs]
    lines += ["", *draw(Branch("made by", origin))] if origin else []
    return lines + (["", *draw(Branch("used by", tuple(made)))] if made else [])


def _code(run: Run | None) -> list[str]:
    """The commit that made it, and whether sources differed from it; nothing outside git."""
    commit = run.tags.get("git.commit") if run else None
    dirty = (
        " with changes, see sources.patch of the experiment run" if run and run.tags.get("git.dirty") == "true" else ""
    )
    return [f"code {commit[:12]}{dirty}"] if commit else []


def draw(branch: Branch, width: int = WIDTH) -> list[str]:
    """A tree as lines of at most `width` columns."""
    first, *more = textwrap.wrap(branch.text, max(width - 4, 24))
    lines = [first, *(f"{'│' if branch.below else ' '}   {line}" for line in more)]
    for position, below in enumerate(branch.below):
        head, rest = BRANCHES[position < len(branch.below) - 1]
        top, *tail = draw(below, width - len(head))
        lines += [head + top, *(rest + line for line in tail)]
    return lines


def trace_as_json(found: Trace, checked: tuple[int, int] | None = None) -> dict[str, Any]:
    """The trace for machines."""
    subject, lineage = found.subject, found.made_from
    made_from = [
        _run_as_json(run)
        | {"made_from": [asdict(edge) for edge in lineage.edges[run_id]], "also_made_by": lineage.twins.get(run_id, [])}
        | {"adopted": [_adoption_as_json(one) for one in found.adoptions.get(run_id, [])]}
        for run_id, run in lineage.runs.items()
    ]
    return {
        "what": subject.what,
        "file": subject.file,
        "sha256": subject.sha256,
        "run_id": subject.run.run_id if subject.run else None,
        "made_from": made_from,
        "used_by": [_run_as_json(run) for run in found.used_by],
        "registered": [asdict(version) | {"aliases": aliases} for version, aliases in found.versions],
        "experiment_runs": [_run_as_json(run) | {"uses": run.uses} for run in found.experiment_runs],
        "verified": {"files": checked[0], "bytes": checked[1]} if checked else None,
    }


def diff_lines(found: Difference) -> list[str]:
    """The difference as text, at most 80 columns."""
    if not (found.bits or found.stages or found.figures):
        return ["no difference"]
    lines = []
    if found.policies[0] != found.policies[1]:
        lines.append(f"policy {_arrow(tuple(_short(name) for name in found.policies))}")
    lines += [f"  {layer}  {_bits(changes)}" for layer, changes in found.bits.items()]
    for stages, changes in _once(found.stages).items():
        lines += [", ".join(stages), *(f"  {line}" for line in changes)]
    lines += ["figures"] if found.figures else []
    lines += [f"  {name}  {_arrow(pair)}{_delta(pair)}" for name, pair in found.figures.items()]
    return [_fitted(line) for line in lines]


def changed_lines(found: Difference) -> list[str]:
    """Every input that differs, once: code, parameters, facts, sources."""
    return list(dict.fromkeys(line for change in found.stages.values() for line in _change_lines(change)))


def _once(changed: Mapping[str, Change]) -> dict[tuple[str, ...], list[str]]:
    """What changed, each line under all the stages that it changed."""
    stages: dict[str, list[str]] = {}
    for stage, change in changed.items():
        for line in _change_lines(change):
            stages.setdefault(line, []).append(stage)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for line, names in stages.items():
        grouped.setdefault(tuple(names), []).append(line)
    return grouped


def _change_lines(change: Change) -> list[str]:
    params = [f"params.{name} {_arrow(pair)}" for name, pair in change.params.items()]
    facts = [f"{name} {_arrow(pair)}" for name, pair in change.facts.items()]
    sources = [f"source {name} {_arrow(tuple(_short(one) for one in pair))}" for name, pair in change.sources.items()]
    return [*change.code, *params, *facts, *sources]


def _ancestry(found: Trace, run_id: str, files: tuple[str, ...], shown: set[str]) -> Branch:
    """A run and what it read; what was shown once is only named again."""
    run = found.made_from.runs[run_id]
    text = _run_text(run, ", ".join(files))
    if run_id in shown:
        return Branch(f"{run.tags['mixbit.stage']}  {_short(run_id)}  (above)")
    shown.add(run_id)
    twins = found.made_from.twins.get(run_id, [])
    text += f"  (also {len(twins)} other {'run' if len(twins) == 1 else 'runs'})" if twins else ""
    below = [Branch(_adopted_text(one)) for one in found.adoptions.get(run_id, [])]
    for maker, edges in _by_maker(found.made_from.edges[run_id]):
        if maker is None:
            below += [Branch(f"{edge.artifact}  {edge.name} {_short(edge.sha256)}") for edge in edges]
        else:
            names = tuple(f"{edge.artifact.rpartition('/')[2]} {_short(edge.sha256)}" for edge in edges)
            below.append(_ancestry(found, maker, names, shown))
    return Branch(text, tuple(below))


def _by_maker(edges: Iterable[Edge]) -> list[tuple[str | None, list[Edge]]]:
    makers: dict[str | None, list[Edge]] = {}
    for edge in edges:
        makers.setdefault(edge.maker, []).append(edge)
    return list(makers.items())


def _run_text(run: Run, files: str) -> str:
    place = ", ".join(f"{name} {_short(fingerprint)}" for name, fingerprint in run.devices.items())
    place = place or run.tags.get("device", "")
    if run.tags.get("mixbit.stage") == "dataset":
        md5 = run.tags.get("dataset.md5", "")
        place = f"{run.tags.get('dataset.name', '')}{f' md5 {_short(md5)}' if md5 else ''}"
    figures = ", ".join(f"{name} {_number(value)}" for name, value in sorted(run.metrics.items()))
    return "  ".join(filter(None, [run.tags.get("mixbit.stage", run.name), place, _short(run.run_id), files, figures]))


def _adopted_text(run: Run) -> str:
    key, made = (_short(run.tags.get(name)) for name in ("mixbit.key", "mixbit.adopted_from"))
    return f"adopted  {_short(run.run_id)}  key {made} counts for {key}: {run.tags.get('mixbit.adopted', '')}"


def _experiment_text(run: Run) -> str:
    return f"experiment run  {run.tags['mixbit.experiment']} {run.name}  {_short(run.run_id)}"


def _run_as_json(run: Run) -> dict[str, Any]:
    stage, key, device = (run.tags.get(name) for name in ("mixbit.stage", "mixbit.key", "device"))
    known = {name: run.tags[name] for name in ("policy.sha256", "dataset.md5", "git.commit") if name in run.tags}
    inputs = {name: {"sha256": sha256, "artifact": artifact} for name, (sha256, artifact) in run.inputs.items()}
    facts = {"run_id": run.run_id, "name": run.name, "status": run.status, "stage": stage, "key": key, "device": device}
    made = {"inputs": inputs, "outputs": run.outputs, "figures": dict(run.metrics)}
    return facts | made | {"devices": run.devices, "tags": known}


def _adoption_as_json(run: Run) -> dict[str, str]:
    names = {"key": "mixbit.key", "from_key": "mixbit.adopted_from", "reason": "mixbit.adopted"}
    return {"run_id": run.run_id} | {name: run.tags.get(tag, "") for name, tag in names.items()}


def _bits(changes: Mapping[str, Pair]) -> str:
    return ", ".join(f"{name} {_arrow(pair)}" for name, pair in changes.items())


def _arrow(pair: tuple[Any, ...]) -> str:
    return " → ".join(_said(value) for value in pair)


def _said(value: Any) -> str:
    return _number(value) if isinstance(value, float) else spoken(value)


def _delta(pair: Pair) -> str:
    before, after = pair
    return f"  ({after - before:+.4g})" if before is not None and after is not None else ""


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:.4g}"


def _short(digest: str | None) -> str:
    return digest[:SHOWN] if digest else "none"


def _fitted(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
