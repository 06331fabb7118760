"""dvc.yaml as it is written: stages by name, `${...}` filled in from params.yaml, read without DVC.

Plain and `foreach` stages; not `matrix`, and no `vars` files.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbit.errors import MisuseError
from mixbit.marked_yaml import read_marked

INTERPOLATION = re.compile(r"(?<!\\)\$\{(.*?)\}")
Values = Mapping[str, Any]


@dataclass(frozen=True)
class DvcStage:
    """One stage after interpolation; paths are relative to the project's root. `name` is what experiments say."""

    target: str
    command: str | list[str]
    deps: tuple[str, ...]
    params: tuple[tuple[str, str | None], ...]
    outs: tuple[str, ...]

    @property
    def name(self) -> str:
        """`digits-half` for `proxy@digits-half`."""
        return self.target.rpartition("@")[2]


def read_stages(root: Path) -> dict[str, DvcStage]:
    """The stages of `root`'s dvc.yaml by target; none without a dvc.yaml.

    Raises:
        MisuseError: a file that is no YAML mapping, or a `${...}` that leads nowhere.
    """
    document, values = read_values(root / "dvc.yaml"), read_values(root / "params.yaml")
    for more in document.get("vars") or ():
        values = {**values, **more} if isinstance(more, dict) else values
    bodies = _typed(document.get("stages") or {}, (dict,), "stages")
    stages = [stage for name, body in bodies.items() for stage in _expanded(str(name), body, values)]
    return {stage.target: stage for stage in stages}


def read_values(path: Path) -> dict[str, Any]:
    """A YAML mapping; empty when there is no such file."""
    if not path.is_file():
        return {}
    content, _, faults = read_marked(path)
    if faults:
        raise faults[0]
    if not isinstance(content, dict):
        raise MisuseError(path.name, "", expected="a mapping (key: value)", got=type(content).__name__)
    return content


def _expanded(name: str, body: Any, values: Values) -> Iterator[DvcStage]:
    _typed(body, (dict,), f"stages.{name}")
    if "foreach" not in body:
        if "cmd" in body and "matrix" not in body:
            yield _stage(name, body, values)
        return
    template = _typed(body.get("do"), (dict,), f"stages.{name}.do")
    items = _typed(_filled(body["foreach"], values, name), (list, dict), f"stages.{name}.foreach")
    if isinstance(items, list):
        composite = any(isinstance(item, (dict, list)) for item in items)
        items = {str(place if composite else _text(item)): item for place, item in enumerate(items)}
    for key, item in items.items():
        yield _stage(f"{name}@{key}", template, {**values, "item": item, "key": key})


def _stage(target: str, body: Values, values: Values) -> DvcStage:
    full = {key: _filled(body.get(key) or [], values, target) for key in ("cmd", "deps", "params", "outs", "wdir")}
    for key in ("deps", "params", "outs"):
        _typed(full[key], (list,), f"stages.{target}.{key}")
    folder = full["wdir"] or "."

    def paths(key: str) -> tuple[str, ...]:
        names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in full[key]]
        return tuple(name if "://" in name else posixpath.normpath(posixpath.join(folder, name)) for name in names)

    return DvcStage(target, full["cmd"], paths("deps"), tuple(_params(full["params"], folder)), paths("outs"))


def _params(entries: list[Any], folder: str) -> Iterator[tuple[str, str | None]]:
    for entry in entries:
        files = entry if isinstance(entry, dict) else {"params.yaml": [entry]}
        for file, keys in files.items():
            place = posixpath.normpath(posixpath.join(folder, file))
            yield from ((place, str(key)) for key in keys) if keys else ((place, None),)


def _typed(value: Any, kinds: tuple[type, ...], where: str) -> Any:
    if not isinstance(value, kinds):
        words: dict[type, str] = {list: "a list", dict: "a mapping"}
        expected = " or ".join(words[kind] for kind in kinds)
        raise MisuseError(f"dvc.yaml: {where}", "", expected=expected, got=type(value).__name__)
    return value


def _filled(value: Any, values: Values, where: str) -> Any:
    """`value` with every `${a.b}` replaced; a text that is nothing else becomes the value itself."""
    if isinstance(value, dict):
        return {_filled(key, values, where): _filled(item, values, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values, where) for item in value]
    if not isinstance(value, str):
        return value

    def look_up(inner: str) -> Any:
        found = value_at(values, inner.strip().replace("[", ".").replace("]", ""))
        if found is None:
            raise MisuseError(f"dvc.yaml: stages.{where}", f"nothing at ${{{inner}}}", hint="Look in params.yaml")
        return found

    whole = INTERPOLATION.fullmatch(value)
    return look_up(whole[1]) if whole else INTERPOLATION.sub(lambda match: _text(look_up(match[1])), value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_at(values: Any, key: str) -> Any:
    """What stands at a dotted key; None when nothing does."""
    for part in key.split("."):
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values
