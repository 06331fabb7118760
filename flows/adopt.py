"""`mixbit adopt`: a change of code that changes no result, accepted by a person who says why."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from flows.declaration import Declared, read_experiment
from flows.pipeline import pipeline
from flows.plan import Planner, Unknown, Unmade
from flows.servers import known_mlflow_url
from mixbit.errors import MisuseError, MixbitError
from tasks.adoption import Candidate, adopt, candidate, check
from tasks.place import ROOT, state_dir
from tasks.stage import Call, Context, Done
from tasks.store import Store


@dataclass
class Adopter(Planner):
    """A planner that also gathers the cells of one stage that would run."""

    stage: str = ""
    found: list[Candidate] = field(default_factory=list)

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Done | Unmade:
        """Look one cell up."""
        outputs = super().__call__(name, params, tag, **inputs)
        given = {key: value for key, value in inputs.items() if value is not None}
        unknown = any(isinstance(value, Unknown) for value in given.values())
        if name == self.stage and isinstance(outputs, Unmade) and not unknown:
            self.found.append(candidate(Call(name, f"{name} {tag}".strip(), params, given), self.context))
        return outputs


@click.command("adopt")
@click.argument("stage")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option("--reason", "why", required=True, metavar="TEXT", help="Why the change is harmless; kept for ever.")
@click.option("--check", "checked", is_flag=True, help="Compute the quickest of the cells first and compare bytes.")
def adopt_command(stage: str, experiment: Path, why: str, checked: bool) -> None:
    """Accept a refactor of STAGE as harmless: its cells keep their outputs although their code changed.

    Only cells that differ from their last record in nothing but code are adopted. `mixbit trace` shows it, with the
    reason, wherever these outputs lead.

    Example: mixbit adopt indicators --reason "renamed a variable" --check experiments/digits.yaml
    """
    words = " ".join(why.split())
    if not words:
        raise MisuseError("--reason", "is empty", hint="Say why the change is harmless; it stays with the result")
    declared, store = read_experiment(experiment, ROOT), Store(state_dir())
    with store.in_use():
        for line in _adopt(declared, store, stage, words, checked=checked):
            click.echo(line)


def _adopt(declared: Declared, store: Store, stage: str, why: str, *, checked: bool) -> list[str]:
    server = known_mlflow_url(state_dir())
    context = Context(store, declared.experiment.name, declared.search_path, server)
    adopter = Adopter(declared, context, look=False, stage=stage)
    pipeline(declared, adopter)
    _check_name(stage, adopter)
    able = [one for one in adopter.found if not one.obstacle]
    refused = [f"{one.call.cell}: not adopted, {one.obstacle}" for one in adopter.found if one.obstacle]
    refused += [f"{row.cell}: {row.reason}" for row in adopter.rows if row.stage == stage and row.state == "may run"]
    if not able and refused:
        raise MixbitError("", "\n".join(refused), hint="Adopt or run what comes before first, or let it run")
    if not able:
        return [f"nothing to adopt: no cell of {stage} would run"]
    if checked:
        check(min(able, key=_seconds), replace(context, server=None), lambda *_: None)
    for one in able:
        adopt(one, context, why)
    return [*(f"{one.call.cell}: adopted" for one in able), *refused]


def _seconds(found: Candidate) -> float:
    assert found.before is not None
    return found.before.seconds


def _check_name(stage: str, adopter: Adopter) -> None:
    names = list(dict.fromkeys(row.stage for row in adopter.rows))
    if stage not in names:
        raise MisuseError(stage, "no such stage in this experiment", expected=" or ".join(names))
