"""Kills at a named point, put in from outside: found by every Python on whose path the harness lays this folder.

Without $MIXBIT_FAULT nothing happens. With it, functions of the product and of DVC are wrapped as their modules are
imported: each says in a log what it did, and one of them sends SIGKILL, or from there on the disk refuses. The product
itself knows nothing of it.
"""

# ruff: noqa: SLF001, ARG005 - it wraps what is private, with functions of the same shape
import errno
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_surroundings

Effect = Callable[..., object]
FAULT = json.loads(os.environ.get("MIXBIT_FAULT", "{}"))
LEFT = {"hits": int(FAULT.get("nth", 1))}
NOW: dict[str, str] = {"stage": "", "key": ""}  # the stage under way in this process


def say(event: str, **more: Any) -> None:
    """Append a line to the log of the trial."""
    line = json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n"
    handle = os.open(FAULT["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


def reached(point: str, stage: str = "") -> None:
    """Kill when this is the point of the trial; `nth` tells which of several visits."""
    if point != FAULT.get("point") or (FAULT.get("stage") and stage != FAULT["stage"]):
        return
    LEFT["hits"] -= 1
    if LEFT["hits"] == 0:
        say("kill", point=point, stage=stage, key=NOW["key"])
        if "errno" in FAULT:
            _refuse()
            return
        for pid in _victims():
            os.kill(pid, signal.SIGKILL)


def _refuse() -> None:
    number = getattr(errno, FAULT["errno"])
    fault_surroundings.refuse(FAULT["folder"], number, freeing=number == errno.ENOSPC)


def _victims() -> list[int]:
    who = FAULT.get("who", "run")
    if who == "run":
        return [os.getppid()] if "tasks.data" in sys.orig_argv else [os.getpid()]
    if who == "dvc":
        return [os.getpid()]
    name, _, part = who.partition(" ")
    process = json.loads(Path(FAULT["servers"]).read_bytes())[name]["process"]
    import psutil

    leader = psutil.Process(process["pid"])
    if part == "master":  # its child, which listens, outlives it
        return [leader.pid]
    return [leader.pid, *(child.pid for child in leader.children(recursive=True))]


def wrap(owner: Any, name: str, before: Effect | None = None, after: Effect | None = None) -> None:
    """Let `before` see the arguments of a function or method, and `after` its result and them."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = inner(*args, **kwargs)
        if after is not None:
            after(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def on_stage(module: Any) -> None:
    """`compute`: on a report of progress, or when outputs are written but not yet stored. Keeps account."""
    inner = module._compute

    def compute(call: Any, context: Any, identity: Any, progress: Any) -> Any:
        def counted(done: int, total: int, note: str) -> None:
            progress(done, total, note)
            reached("progress", call.stage)

        NOW.update(stage=call.stage, key=identity.key)
        say("computing", stage=call.stage, key=identity.key)
        return inner(call, context, identity, counted)

    module._compute = compute
    wrap(module, "_check_figures", after=lambda _, cell, figures: reached("compute", cell.split()[0]))


def on_store(module: Any) -> None:
    """`blob write`, `pending` and `record`: before, in the middle of, and after each."""
    in_middle: list[str] = []
    wrap(module.Store, "put", before=lambda *_: reached("blob write: before", NOW["stage"]))
    wrap(module.Store, "put", after=lambda *_: reached("blob write: after", NOW["stage"]))
    wrap(
        module,
        "_sync_folder",
        before=lambda folder: folder.parent.name == "blobs" and reached("blob write: renamed", NOW["stage"]),
    )
    inner = module.Store.write_record

    def write_record(store: Any, record: Any) -> None:
        kind = "pending" if record.run_id is None else "record"
        reached(f"{kind}: before", record.stage)
        in_middle.append(f"{kind}: half")
        inner(store, record)
        in_middle.clear()
        say(kind, stage=record.stage, key=record.key)
        reached(f"{kind}: after", record.stage)

    module.Store.write_record = write_record
    fsync = os.fsync

    def half(handle: int) -> None:
        if in_middle:
            reached(in_middle[0], NOW["stage"])
        fsync(handle)

    os.fsync = half


def on_tracking(module: Any) -> None:
    """`FINISHED`: when all is uploaded, and when the server has been told."""
    wrap(module, "start_run", after=lambda *_, **__: reached("upload: run started", NOW["stage"]))
    wrap(module, "finish_run", before=lambda *_: reached("FINISHED: before", NOW["stage"]))
    wrap(module, "finish_run", after=lambda *_: reached("FINISHED: after", NOW["stage"]))


def on_rest(module: Any) -> None:
    """`upload`: the request's head is sent, its body is not."""
    wrap(module._Hashed, "read", before=lambda *_: reached("upload: half", NOW["stage"]))


def on_resume(module: Any) -> None:
    """`self-checkpoint`: before, between its two files, after."""
    wrap(module, "write_checkpoint", before=lambda *_: reached("self-checkpoint: before", NOW["stage"]))
    wrap(
        module,
        "_write",
        after=lambda _, path, __: path.suffix == ".safetensors" and reached("self-checkpoint: half", NOW["stage"]),
    )
    wrap(module, "write_checkpoint", after=lambda *_: reached("self-checkpoint: after", NOW["stage"]))


def on_fit(module: Any) -> None:
    """A checkpoint at every step, so that a tiny stage has some; says where a stage was taken up."""
    every_s = float(FAULT.get("every_s", 10.0))
    inner = module.Keeping.__init__
    module.Keeping.__init__ = lambda self, folder: inner(self, folder, every_s, 1e9 if every_s == 0 else 0.05)
    wrap(module, "_restore_", after=lambda run, *_: say("restored", **NOW, step=run.step))


def on_dvc_run(module: Any) -> None:
    """`DVC stage`: before its command, and after it."""
    wrap(module, "_run", before=lambda *_, **__: say("computing", stage="dvc", key="dvc"))
    wrap(module, "_run", before=lambda *_, **__: reached("DVC stage: before"))
    wrap(module, "_run", after=lambda *_, **__: reached("DVC stage: made"))


def on_dvc_popen(module: Any) -> None:
    """`DVC stage`: while its command runs."""
    inner = module.subprocess.Popen

    class Popen(inner):  # type: ignore[misc, valid-type]
        def communicate(self, *args: Any, **kwargs: Any) -> Any:
            reached("DVC stage: running")
            return super().communicate(*args, **kwargs)

    module.subprocess = type("subprocess", (), {**vars(module.subprocess), "Popen": Popen})


def on_dvc_lock(module: Any) -> None:
    """`DVC stage`: made, but not yet in dvc.lock; and when it is."""
    wrap(module.Lockfile, "dump_stages", before=lambda *_, **__: reached("DVC stage: before dvc.lock"))
    wrap(module.Lockfile, "dump_stages", after=lambda *_, **__: reached("DVC stage: after dvc.lock"))


def on_dvc_yaml(module: Any) -> None:
    """`DVC stage`: dvc.lock is cut to nothing, and not yet written again."""
    wrap(module, "_dump", before=lambda _, stream: stream.name.endswith("dvc.lock") and reached("DVC stage: half"))


def on_dvc_table(module: Any) -> None:
    """`DVC stage`: DVC's table of locks is cut to nothing, and not yet written again."""
    inner = module.json

    def dump(*args: Any, **kwargs: Any) -> None:
        reached("DVC stage: half a lock")
        inner.dump(*args, **kwargs)

    module.json = type("json", (), {**vars(inner), "dump": staticmethod(dump)})


HOOKS: dict[str, list[Callable[[Any], None]]] = {
    "tasks.stage": [on_stage],
    "tasks.store": [on_store],
    "tasks.tracking": [on_tracking],
    "tasks.tracking_rest": [on_rest],
    "mixbit.training.resume": [on_resume],
    "mixbit.training.fit": [on_fit],
    "dvc.stage.run": [on_dvc_run, on_dvc_popen],
    "dvc.dvcfile": [on_dvc_lock],
    "dvc.utils.serialize._yaml": [on_dvc_yaml],
    "dvc.rwlock": [on_dvc_table],
}


class Finder(importlib.abc.MetaPathFinder):
    """Lets a hook see a module right after its code ran."""

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The ordinary spec, with a loader that calls the hooks."""
        if name not in HOOKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        wrap(spec.loader, "exec_module", after=lambda _, module: [hook(module) for hook in HOOKS[name]])
        return spec


if FAULT:
    if "clock_s" in FAULT:
        fault_surroundings.set_clock_back(FAULT["clock_s"])
    if "errno" in FAULT and "point" not in FAULT:
        _refuse()
    sys.meta_path.insert(0, Finder())
