"""Sources by name or path: what they are, their digests, and making them again. The only file that imports dvc.

DVC runs in a child process: its output goes to a log, and this process imports nothing of it.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mixbit.errors import MisuseError, MixbitError
from mixbit.experiment import Data
from mixbit.faults import did_you_mean
from mixbit.telemetry import quiet_environment
from tasks.dvc_killed import forget_dead, spared
from tasks.dvc_state import read_pipeline
from tasks.dvc_yaml import DvcStage
from tasks.memo import source_sha256
from tasks.place import ROOT, state_dir

Kind = Literal["safetensors", "npz", "folder", "callable", "manifest"]
KINDS: Mapping[str, Kind] = {".safetensors": "safetensors", ".npz": "npz", ".json": "manifest", "": "folder"}


@dataclass(frozen=True)
class Source:
    """A dataset's or a proxy's origin.

    Attributes:
        name: what the experiment calls it: a DVC name, the last part of a path, or `module:callable`.
        kind: the format behind it; `manifest` is a proxy's list of indices.
        path: the file or folder; None for a callable.
        target: the DVC stage that makes it; None when DVC does not.
        md5: DVC's digest, from dvc.lock; None when DVC does not make it, or has to make it again.
        stale: why DVC has to make it again, in a few words; None when it is as dvc.lock says.
    """

    name: str
    kind: Kind
    path: Path | None = None
    target: str | None = None
    md5: str | None = None
    stale: str | None = None
    reference: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or every file of the folder; empty for a callable."""
        if self.path is None:
            return ()
        return tuple(sorted(p for p in self.path.rglob("*") if p.is_file())) if self.path.is_dir() else (self.path,)

    @property
    def digest(self) -> str | None:
        """Sha256 of the file, tree hash of the folder; None for a callable.

        Raises:
            MixbitError: it can't be read.
        """
        return source_sha256(self.path) if self.path is not None else None

    def dataset_params(self) -> dict[str, Any]:
        """The fields of the `dataset` stage's Params."""
        names = ("kind", "name", "md5", "reference", "arguments", "image_size")
        return {name: getattr(self, name) for name in names}


def names(root: Path) -> dict[str, list[str]]:
    """What experiments may say: `{"data": [...], "proxy": [...]}`, from dvc.yaml."""
    known = [(stage.name, _kind(stage)) for stage in read_pipeline(root).stages.values()]
    return {
        "data": [name for name, kind in known if kind not in (None, "manifest")],
        "proxy": [name for name, kind in known if kind == "manifest"],
    }


def source_of(data: str | Data, root: Path, base_folder: Path) -> Source:
    """The dataset an experiment names; paths are looked up from `base_folder` (the experiment's), else from `root`.

    Raises:
        MisuseError: no stage of dvc.yaml has this name, or no such file or folder.
    """
    if isinstance(data, str):
        return _dvc_source(data, root, proxy=False)
    if data.callable is not None:
        return Source(data.callable, "callable", reference=data.callable, arguments=data.arguments)
    kind: Kind = "npz" if data.npz is not None else "folder"
    written = Path(data.npz or data.folder or "").expanduser()
    exists = Path.is_file if kind == "npz" else Path.is_dir
    places = [folder / written for folder in (base_folder, root)]
    found = next((place for place in places if exists(place)), None)
    if found is None:
        hint = f"Looked in {base_folder} and {root}"
        raise MisuseError(
            f"data.{kind}", f"no such {'file' if kind == 'npz' else 'folder'}", got=str(written), hint=hint
        )
    # The name only: where the data stands on this machine is no part of what it is.
    return Source(found.resolve().name, kind, found, image_size=data.image_size)


def proxy_source(name: str, root: Path) -> Source:
    """The manifest of a proxy that dvc.yaml names.

    Raises:
        MisuseError: no proxy of dvc.yaml has this name.
    """
    return _dvc_source(name, root, proxy=True)


def _dvc_source(name: str, root: Path, *, proxy: bool) -> Source:
    pipeline = read_pipeline(root)
    fitting = [stage for stage in pipeline.stages.values() if (_kind(stage) == "manifest") == proxy and _kind(stage)]
    named = [stage for stage in fitting if stage.target == name] or [stage for stage in fitting if stage.name == name]
    if len(named) > 1:
        raise MisuseError("dvc.yaml", f"two stages named {name!r}", got=" and ".join(stage.target for stage in named))
    if not named:
        known = sorted(stage.name for stage in fitting)
        what = f"no {'proxy' if proxy else 'dataset'} named {name!r}"
        raise MisuseError("dvc.yaml", what, hint=did_you_mean(name, known, "Known") or "It declares none")
    (stage,) = named
    (out,) = stage.outs
    stale = pipeline.stale(stage.target)
    md5 = None if stale else pipeline.md5(stage.target, out)
    kind = _kind(stage)
    assert kind is not None
    return Source(stage.name, kind, root / out, stage.target, md5, stale)


def _kind(stage: DvcStage) -> Kind | None:
    """By the suffix of a stage's only output; None: it makes neither a dataset nor a proxy."""
    return KINDS.get(Path(stage.outs[0]).suffix.lower()) if len(stage.outs) == 1 else None


def reproduce(target: str, root: Path) -> None:
    """Let DVC make a stage's outputs and everything they need; nothing runs that is up to date. Waits for its turn.

    Args:
        target: `Source.target`.
        root: the project's root.

    Raises:
        MixbitError: DVC or the stage's command failed; one line, and where the whole output is.
    """
    log = state_dir() / "logs" / f"dvc-{target.replace('/', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tasks.data", target, str(root.resolve()), str(log)]
    code, answer, complaint = _ended_with_us(command)
    if code:
        said = answer or complaint or _last_line(log) or f"DVC ended with code {code}"
        raise MixbitError(f"dvc.yaml: {target}", said.splitlines()[-1], hint=f"All of its output: {log}")


def _ended_with_us(command: list[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a child that with all its own never outlives this process.

    It is given a pipe that nobody writes to: that ends when we do, however we end.
    """
    theirs, ours = os.pipe()
    try:
        child = subprocess.Popen(
            [*command, str(theirs)], cwd=ROOT, env=child_environment(), text=True, start_new_session=True,
            pass_fds=(theirs,), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, error = child.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):  # what a killed DVC, or Ctrl-C here, left running
                os.killpg(child.pid, signal.SIGKILL)
    finally:
        os.close(theirs)
        os.close(ours)
    return child.returncode, out.strip(), error.strip()


def _end_with(pipe: int) -> None:
    """When the other end of the pipe is gone, end this process's own group: DVC, and the command it runs."""
    assert os.getpgid(0) == os.getpid()

    def watch() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def child_environment() -> dict[str, str]:
    """For DVC: no telemetry, `python` is this one, a plain shell, its own caches below the state folder."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    own = {"PATH": os.pathsep.join(folders), "SHELL": "/bin/sh", "DVC_SITE_CACHE_DIR": str(state_dir() / "dvc")}
    return {**os.environ, **quiet_environment(os.environ), **own}


@contextlib.contextmanager
def _turn(root: Path) -> Iterator[None]:
    """One reproduction per project at a time: a second one of a stage would fail at once. The kernel frees it."""
    folder = root / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mixbit.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _child(target: str, root: Path, log: Path) -> str | None:
    """Reproduce; everything DVC and its commands write goes to `log`. The failure in one line, or None."""
    with _turn(root), spared(root / "dvc.lock"), log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        import logging

        from dvc.exceptions import DvcException
        from dvc.lock import make_lock
        from dvc.repo import Repo
        from dvc.stage.exceptions import StageCmdFailedError

        logging.getLogger("dvc").setLevel(logging.INFO)
        # DVC looks for dvc.yaml below the working folder, not below the repository it was given.
        os.chdir(root)
        try:
            with Repo(str(root)) as repo:
                table = Path(repo.tmp_dir, "rwlock")
                hardlink = repo.config["core"].get("hardlink_lock", False)
                guard = make_lock(f"{table}.lock", tmp_dir=repo.tmp_dir, hardlink_lock=hardlink)
                forget_dead(table, guard, ours=f"{sys.argv[0]} ")
                repo.reproduce(target, single_item=False, pull=bool(repo.config["core"].get("remote")))
        except DvcException as error:
            reasons = [str(part).splitlines()[0] for part in _chain(error)]
            if any(isinstance(part, StageCmdFailedError) for part in _chain(error)):
                return _last_line(log) or reasons[-1]
            return ": ".join(reasons)
    return None


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1] if log.is_file() else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def main() -> int:
    """`python -m tasks.data TARGET ROOT LOG [PIPE]`: the child that imports DVC."""
    target, root, log, *pipe = sys.argv[1:]
    for handle in pipe:
        _end_with(int(handle))
    with os.fdopen(os.dup(1), "w") as answer:
        fault = _child(target, Path(root), Path(log))
        answer.write(fault or "")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
