"""Runs the `layers` stage alone, for `plan`: the look at a new network needs torch, `plan` does not import it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.pipeline import pipeline
from flows.plan import Planner
from flows.sweep_declaration import read_cell
from mixbit.errors import MixbitError
from tasks.place import ROOT, state_dir
from tasks.stage import Call, Context, run_stage
from tasks.store import Store


@dataclass
class LayersOnly(Planner):
    """A planner that computes `layers` when its inputs are there."""

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Any:
        """Run `layers`, look the rest up."""
        if name != "layers":
            return super().__call__(name, params, tag, **inputs)
        return run_stage(Call(name, name, params, inputs), self.context, lambda _why: None, lambda *_: None)


def main(path: str, cell: str) -> None:
    """Exit 0 when the layers are known; else one line on standard error."""
    declared = read_cell(Path(path), cell, ROOT)
    store = Store(state_dir())
    context = Context(store, declared.experiment.name, declared.search_path, server=None)
    try:
        with store.in_use():
            pipeline(declared, LayersOnly(declared, context, look=False))
    except MixbitError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main(*sys.argv[1:])
