"""Whether dvc.lock still agrees with the tree: told in milliseconds, without DVC.

Where this differs from DVC it says stale, and DVC then decides.
"""

import ast
import contextlib
import hashlib
import itertools
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixbit.errors import MisuseError
from tasks.closure import syntax_tree
from tasks.dvc_killed import entries
from tasks.dvc_yaml import DvcStage, Values, read_stages, read_values, value_at
from tasks.memo import md5_file
from tasks.place import state_dir


@dataclass(frozen=True)
class Pipeline:
    """dvc.yaml and dvc.lock of one project."""

    root: Path
    stages: Mapping[str, DvcStage] = field(default_factory=dict)
    locked: Mapping[str, Values] = field(default_factory=dict)

    def md5(self, target: str, path: str) -> str | None:
        """What dvc.lock says an output is."""
        return _md5s(self.locked.get(target, {}), "outs").get(path)

    def stale(self, target: str) -> str | None:
        """Why DVC has to make this stage's outputs again, in a few words; None when they are what dvc.lock says."""
        return next(self._reasons(self.stages[target], ()), None)

    def _reasons(self, stage: DvcStage, below: tuple[str, ...]) -> Iterator[str]:
        locked = self.locked.get(stage.target)
        if locked is None:
            yield "never made"
            return
        makers = {out: other for other in self.stages.values() for out in other.outs if other.target not in below}
        for maker in {makers[dep].target: makers[dep] for dep in stage.deps if dep in makers}.values():
            yield from (f"{maker.name}: {reason}" for reason in self._reasons(maker, (*below, stage.target)))
        if stage.command != locked.get("cmd"):
            yield _command_reason(locked.get("cmd"), stage.command)
        yield from self._param_reasons(stage, locked.get("params", {}))
        yield from self._file_reasons(stage.deps, _md5s(locked, "deps"))
        yield from self._file_reasons(stage.outs, _md5s(locked, "outs"))

    def _param_reasons(self, stage: DvcStage, locked: Values) -> Iterator[str]:
        for file, key in stage.params:
            now, before = read_values(self.root / file), locked.get(file, {})
            if key is not None:
                now, before = value_at(now, key), before.get(key)
            if now != before:
                yield f"{file}: {key or 'values'} {json.dumps(before)} → {json.dumps(now)}"

    def _file_reasons(self, paths: tuple[str, ...], locked: Mapping[str, str | None]) -> Iterator[str]:
        for name in paths:
            if "://" in name:
                continue
            path = self.root / name
            if name not in locked:
                yield f"{name} is new"
            elif not path.exists():
                yield f"{name} is missing"
            elif not _same(path, locked[name]):
                yield f"{name} changed"
        yield from (f"{name} is no longer declared" for name in locked if name not in paths)


def read_pipeline(root: Path) -> Pipeline:
    """dvc.yaml, params.yaml and dvc.lock of `root`; empty without a dvc.yaml.

    Raises:
        MisuseError: a file of them that can't be understood.
    """
    return Pipeline(root, read_stages(root), _locked(root / "dvc.lock"))


def _locked(path: Path) -> Mapping[str, Values]:
    try:
        return entries(path)
    except ValueError as error:
        hint = "Take it from version control, or remove it and run `dvc repro`"
        raise MisuseError(path.name, str(error), hint=hint) from None


def _command_reason(before: Any, now: Any) -> str:
    """Only the words that differ, each after the option it belongs to."""
    old, new = ([] if not command else _words(command) for command in (before, now))
    if len(old) != len(new):
        return "its command changed"
    pairs = [(place, a, b) for place, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    options = [new[place - 1] + " " if place and new[place - 1].startswith("--") else "" for place, _, _ in pairs]
    changes = [f"{option}{a} → {b}" for option, (_, a, b) in zip(options, pairs, strict=True)]
    return f"its command changed: {', '.join(changes)}"


def _words(command: str | list[str]) -> list[str]:
    lines = command if isinstance(command, list) else [command]
    try:
        return list(itertools.chain.from_iterable(shlex.split(line) for line in lines))
    except ValueError:
        return lines


def _md5s(entry: Values, part: str) -> dict[str, str | None]:
    return {item["path"]: item.get("md5") for item in entry.get(part, ())}


def _same(path: Path, locked_md5: str | None) -> bool:
    if path.is_dir():
        return folder_md5(path) == locked_md5
    md5 = md5_file(path)
    if path.suffix != ".py" or locked_md5 is None:
        return md5 == locked_md5
    return _same_code(path, md5, locked_md5)


def _same_code(path: Path, md5: str, locked_md5: str) -> bool:
    """Whether code is what DVC ran but for comments and layout, as far as this machine has seen what DVC ran."""
    seen = state_dir() / "code" / locked_md5
    if md5 != locked_md5:
        return seen.is_file() and seen.read_text() == _code_digest(path)
    if not seen.is_file():
        # Where nothing can be written, an edited comment costs a look by DVC, no more.
        with contextlib.suppress(OSError):
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.write_text(_code_digest(path))
    return True


def _code_digest(path: Path) -> str:
    try:
        return hashlib.sha256(ast.dump(syntax_tree(path.read_bytes())).encode()).hexdigest()
    except (SyntaxError, ValueError):
        return "does not parse"


def folder_md5(folder: Path) -> str:
    """DVC's digest of a folder: md5 over the JSON of its files' md5 and relative paths, with `.dir`."""
    entries = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        paths = [Path(place, name) for name in files]
        entries += [{"md5": md5_file(path), "relpath": path.relative_to(folder).as_posix()} for path in paths]
    # DVC orders by path and writes JSON with its defaults.
    content = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() + ".dir"
