"""A sweep: one base experiment and the axes along which it varies; the shape only, no meaning."""

import itertools
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mixbit.checked_values import LONGEST_NAME
from mixbit.config import Settings
from mixbit.experiment import File, Name
from mixbit.gates import Gates, Promotion

MOST_CELLS = 5000
Scalar = str | int | float | bool | None
BUDGETS, DEVICES = "budgets", "devices"


def label_of(value: Scalar) -> str:
    """What a value of an axis is called: as YAML writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def labels_of(values: list[Scalar] | dict[str, Any]) -> list[str]:
    """What the values of an axis are called, in order."""
    return list(values) if isinstance(values, dict) else [label_of(value) for value in values]


def _axis(values: list[Scalar] | dict[str, Any]) -> list[Scalar] | dict[str, Any]:
    labels = labels_of(values)
    if not labels:
        raise ValueError("expected at least one value")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"expected each value once; more than once: {', '.join(twice)}")
    return values


def _axes(axes: dict[str, Any]) -> dict[str, Any]:
    if "name" in axes:
        raise ValueError("expected no axis called name: a cell is named after its values")
    bad = [axis for axis in axes if not re.fullmatch(r"\w+(\.\w+)*", axis)]
    if bad:
        raise ValueError(f"expected key paths of an experiment, such as indicators.settings.epochs, not {bad[0]!r}")
    inside = [(a, b) for a, b in itertools.permutations(axes, 2) if b.startswith(f"{a}.")]
    if inside:
        raise ValueError(f"expected no axis inside another: {inside[0][1]} is inside {inside[0][0]}")
    count = math.prod(len(values) for values in axes.values())
    if count > MOST_CELLS:
        raise ValueError(f"expected at most {MOST_CELLS} cells, these axes make {count}")
    return axes


Axis = Annotated[list[Scalar] | dict[Name, Any], AfterValidator(_axis)]
Axes = Annotated[dict[str, Axis], AfterValidator(_axes)]


class Sweep(Settings):
    """One declared sweep.

    Attributes:
        name: of the sweep, of its registered models (`name-budget`) and of its experiment in MLflow.
        base: the experiment file that is varied, relative to this file.
        axes: key path of the experiment -> its values: a list of plain values, or a mapping of names to values. A
            mapping is laid over the base's own, a null in it takes the base's key away. `budgets` and `devices` may
            be lists of names: each cell has one.
        exclude: cells to leave out: axis -> value; an entry that names some axes leaves out all that agree with it.
        workers: cells that are computed at the same time.
        gates: what must hold against the last good night.
        promotion: when a night's best becomes the champion.
        retries: how often a cell is tried again that was killed, or lost its device.
    """

    name: Name = Field(description="a name")
    base: File = Field(description="an experiment file")
    axes: Axes = Field(min_length=1, description="a mapping of key paths to values")
    exclude: tuple[dict[str, Scalar], ...] = ()
    gates: Gates = Gates()
    promotion: Promotion = Promotion()
    workers: int = Field(default=1, ge=1, le=64)
    retries: int = Field(default=1, ge=0, le=5)


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        labels: axis -> what its value is called.
        values: axis -> its value.
    """

    labels: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`seed=0 budgets=w3a3`: the last word of each axis, the whole path where two end alike."""
        last = [axis.rpartition(".")[2] for axis in self.labels]
        words = [word if last.count(word) == 1 else axis for axis, word in zip(self.labels, last, strict=True)]
        return " ".join(f"{word}={label}" for word, label in zip(words, self.labels.values(), strict=True))


def cells_of(sweep: Sweep) -> list[Cell]:
    """Every cell that is not excluded; the last axis varies fastest."""
    rows = [_labelled(values) for values in sweep.axes.values()]
    cells = [
        Cell(
            dict(zip(sweep.axes, (label for label, _ in point), strict=True)),
            dict(zip(sweep.axes, (value for _, value in point), strict=True)),
        )
        for point in itertools.product(*rows)
    ]
    excluded = [{axis: label_of(value) for axis, value in entry.items()} for entry in sweep.exclude]
    return [cell for cell in cells if not any(entry.items() <= cell.labels.items() for entry in excluded)]


def _labelled(values: list[Scalar] | dict[str, Any]) -> list[tuple[str, Any]]:
    return list(zip(labels_of(values), values.values() if isinstance(values, dict) else values, strict=True))


def experiment_name(sweep: str, cell: Cell) -> str:
    """A name of its own for a cell's experiment, in the alphabet of names and not too long."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{sweep}.{cell.name}")
    if len(name) <= LONGEST_NAME and all(re.fullmatch(r"[\w.]+", label, re.ASCII) for label in cell.labels.values()):
        return name
    digest = f"{zlib.crc32(cell.name.encode()):08x}"
    return f"{name[: LONGEST_NAME - 9]}-{digest}"


def applied(cell: Cell, data: Mapping[str, Any]) -> dict[str, Any]:
    """The base's data with this cell's values.

    Args:
        cell: whose.
        data: what the base file says.

    Raises:
        KeyError: (axis, label) of a budget that the base does not have.
        TypeError: axis; what the base says on the way to it is no mapping.
    """
    whole = dict(data)
    for axis, value in cell.values.items():
        if axis == BUDGETS and value == cell.labels[axis]:
            given = whole.get(BUDGETS)
            if not isinstance(given, Mapping) or value not in given:
                raise KeyError(axis, value)
            whole[BUDGETS] = {value: given[value]}
        elif axis == BUDGETS:
            whole[BUDGETS] = {cell.labels[axis]: value}
        elif axis == DEVICES and isinstance(value, str):
            whole[DEVICES] = [value]
        else:
            whole = _laid_over(whole, axis.split("."), value, axis)
    return whole


def _laid_over(data: Mapping[str, Any], path: list[str], value: Any, axis: str) -> dict[str, Any]:
    key, rest = path[0], path[1:]
    here = data.get(key)
    if rest:
        if here is not None and not isinstance(here, Mapping):
            raise TypeError(axis)
        return {**data, key: _laid_over(here or {}, rest, value, axis)}
    if isinstance(here, Mapping) and isinstance(value, Mapping):
        both = {**here, **value}
        value = {name: one for name, one in both.items() if one is not None or name not in value}
    return {**data, key: value}
