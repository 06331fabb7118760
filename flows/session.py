"""One experiment under way: where its stages find things, and how each becomes a Prefect task run."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.agreement import refuse_misfits
from flows.declaration import Declared
from flows.parameters import Parameters
from flows.plan import Planner, Row
from flows.screen import Screen
from flows.sources import Stale, file_source, reproduced, source
from mixbit.devices.device import find_device
from mixbit.devices.remote import DeviceFault, RemoteDevice
from mixbit.errors import MixbitError, StageError
from mixbit.experiment import Data, Proxy
from tasks import measured_policy
from tasks.place import ROOT
from tasks.record import Record
from tasks.stage import Artifact, Call, Context, Done, run_stage


@dataclass
class Session:
    """Runs the cells that `pipeline` names.

    Attributes:
        declared: the experiment.
        context: where its stages find things.
        screen: what shows them.
        keys: cell -> the key it was asked for by.
        computed: keys of the cells that were not found.
        missing: cell -> why its device did not deliver; the run is partial then.
        offline: devices that were waited for in vain, and so are not waited for again.
    """

    declared: Declared
    context: Context
    screen: Screen
    keys: dict[str, str] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    missing: dict[str, DeviceFault] = field(default_factory=dict)
    offline: set[str] = field(default_factory=set)

    @property
    def server(self) -> str:
        """The tracking server of a run."""
        assert self.context.server is not None
        return self.context.server

    def was_cached(self, record: Record) -> bool:
        """Whether this run found the record instead of computing it."""
        return record.key not in self.computed

    def run_page(self, run_id: str) -> str:
        """The page of an MLflow run of this experiment."""
        from tasks.tracking_runs import experiment_id

        return f"{self.server}/#/experiments/{experiment_id(self.server, self.declared.known_as)}/runs/{run_id}"

    def source(self, of: str | Data | Proxy) -> Artifact | None:
        """The user's file, or DVC's, made again first if it is stale."""
        try:
            return source(of, self.declared)
        except Stale as stale:
            self._reproduce(stale)
        return source(of, self.declared)

    def _reproduce(self, stale: Stale) -> None:
        """Let DVC make data again, as a cell of its own."""
        cell, began_s = f"dvc {stale.name}", time.monotonic()
        self.screen.running(cell, stale.reason)
        try:
            as_task("dvc", cell, lambda: reproduced(stale))
        except BaseException as error:
            self.screen.failed(cell, str(error) or type(error).__name__)
            raise
        self.screen.done(cell, time.monotonic() - began_s, {})

    def agrees(self, layers: Artifact, p: Parameters) -> None:
        """Refuse what does not fit the network, before anything is trained."""
        refuse_misfits(self.declared, p, self.content(layers))

    def file(self, key: str) -> Artifact | None:
        """The file at a key path of the experiment."""
        return file_source(key, self.declared)

    def content(self, artifact: Artifact) -> Any:
        """What a JSON artifact says."""
        return json.loads(self.context.store.blob(artifact.sha256).read_bytes())

    def figures(self, outputs: Done) -> Mapping[str, float] | None:
        """The figures of a cell."""
        return outputs.record.figures

    def __call__(self, name: str, params: Any, tag: str = "", **inputs: Any) -> Done:
        """Run one cell as a Prefect task; a hit shows there as Cached."""
        cell = f"{name} {tag}".strip()
        call = Call(name, cell, params, {key: value for key, value in inputs.items() if value is not None})
        done: Done = as_task(name, cell, lambda: self._run(call))
        return done

    def _run(self, call: Call) -> Done:
        screen = self.screen
        try:
            done = run_stage(
                call,
                self.context,
                announce=lambda why: self._begin(call, why),
                progress=lambda at, total, note: screen.progress(call.cell, at, total, note),
            )
        except DeviceFault as error:
            screen.failed(call.cell, str(error))
            self.missing[call.cell] = error
            raise
        except MixbitError as error:
            screen.failed(call.cell, str(error))
            raise StageError(call.cell, error) from error
        except BaseException as error:
            screen.failed(call.cell, str(error) or type(error).__name__)
            raise
        self.keys[call.cell] = done.record.key
        if done.was == "computed":
            self.computed.add(done.record.key)
            screen.done(call.cell, done.record.seconds, dict(done.record.figures))
        else:
            screen.cached(call.cell)
        return done

    def _begin(self, call: Call, why: str) -> None:
        """Before a cell is computed: devices on other machines have to be online."""
        self.screen.running(call.cell, why)
        for name in _devices(call):
            if name in self.declared.experiment.devices and isinstance(device := find_device(name), RemoteDevice):
                self._await(device, call)

    def _await(self, device: RemoteDevice, call: Call) -> None:
        wait_s = 0.0 if device.name in self.offline else self.declared.experiment.device_wait_s
        try:
            device.await_online(wait_s, lambda note: self.screen.progress(call.cell, 0, 1, note))
        except DeviceFault:
            self.offline.add(device.name)
            raise

    def faults(self) -> list[MixbitError]:
        """What devices did not deliver, each told with its cell."""
        return [StageError(cell, error) for cell, error in self.missing.items()]

    def effect(self, name: str, tag: str, act: Callable[[], Any]) -> Any:
        """Run an idempotent step that is checked on every run and never cached."""
        return as_task(name, f"{name} {tag}".strip(), act)


def _devices(call: Call) -> list[str]:
    """The devices that a cell measures on; what a network is trained on is none of an experiment's."""
    if isinstance(call.params, measured_policy.Params):
        return measured_policy.devices(call.params)
    return [call.params.device] if hasattr(call.params, "device") else []


def as_task(name: str, cell: str, act: Callable[[], Any]) -> Any:
    """Run `act` as a Prefect task run; its value stays in this process, nothing is persisted."""
    kept: list[Any] = []

    @task(name=name, task_run_name=cell, cache_policy=NO_CACHE, persist_result=False)
    def body() -> State[None] | None:
        kept.append(act())
        was_cached = isinstance(kept[0], Done) and kept[0].was != "computed"
        return Completed(name="Cached", message="nothing to compute") if was_cached else None

    state = body(return_state=True)
    if not kept:
        state.result()  # raises what `act` raised
    return kept[0]


def expected_rows(declared: Declared, context: Context) -> list[Row]:
    """The cells in the order of a run, for the table's first sight, and what this machine knows of each."""
    from flows.pipeline import pipeline

    planner = Planner(declared, replace(context, server=None), look=False)
    pipeline(declared, planner)
    return planner.rows


def git_tags() -> dict[str, str]:
    """The commit of this checkout and whether sources differ from it; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    return {"git.commit": commit, "git.dirty": str(bool(_git("status", "--porcelain"))).lower()} if commit else {}


def dirty_sources() -> str:
    """What differs from the commit, as a patch; empty in a clean checkout and outside git."""
    return _git("diff", "HEAD")


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""
