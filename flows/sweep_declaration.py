"""Reads a sweep: its own file, its base, and every cell as an experiment of its own, with every fault at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.declaration import Declared, check_experiment, read_experiment
from mixbit.config import in_order, validate
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.marked_yaml import Location, Marks, read_marked
from mixbit.sweep import BUDGETS, DEVICES, Cell, Sweep, applied, cells_of, experiment_name, label_of, labels_of

WORDS = ("base", "axes")
MOST_FAULTS = 20


@dataclass(frozen=True)
class DeclaredSweep:
    """A sweep that was read and checked.

    Attributes:
        sweep: what the file says.
        path: the file.
        cells: each cell with its experiment, in the order of the grid.
    """

    sweep: Sweep
    path: Path
    cells: tuple[tuple[Cell, Declared], ...]

    def experiment(self, name: str) -> Declared:
        """The experiment of the cell of this name.

        Raises:
            MisuseError: there is none.
        """
        for cell, declared in self.cells:
            if cell.name == name:
                return declared
        raise MisuseError(f"{self.path}", "no such cell", expected="a cell that `mixbit plan` names", got=name)


@dataclass(frozen=True)
class _Laid(Marks):
    """The base's marks; what an axis laid over it stands in the sweep's file."""

    over: Marks = field(default_factory=lambda: Marks("", {}, {}))
    moved: Mapping[Location, Location] = field(default_factory=dict)

    def fault(self, location: Location, what: str = "", **words: Any) -> MisuseError:
        for length in range(len(location), 0, -1):
            place = self.moved.get(location[:length])
            if place is not None:
                return self.over.fault((*place, *location[length:]), what, **words)
        inside = next((at for place, at in self.moved.items() if place[: len(location)] == location), None)
        return self.over.fault(inside, what, **words) if inside else super().fault(location, what, **words)


@dataclass(frozen=True)
class _Base:
    """The base experiment as its file says it, and the sweep's file."""

    data: dict[str, Any]
    marks: Marks
    path: Path
    sweep: Path


def read_cell(path: Path, cell: str, root: Path) -> Declared:
    """An experiment's file, or one cell of a sweep's.

    Raises:
        ConfigError: every fault of the file at once, with lines.
        MisuseError: no such cell.
    """
    return read_sweep(path, root).experiment(cell) if cell else read_experiment(path, root)


def is_sweep(path: Path) -> bool:
    """Whether a YAML file declares a sweep rather than an experiment; False where it can't be read."""
    try:
        data, _, _ = read_marked(path)
    except ConfigError:
        return False
    return isinstance(data, dict) and any(word in data for word in WORDS)


def read_sweep(path: Path, root: Path) -> DeclaredSweep:
    """The sweep in a file; nothing of it is built, and no user code is imported.

    Raises:
        ConfigError: every fault of the file, its base and its cells at once, with lines.
    """
    data, marks, faults = read_marked(path)
    sweep, more = _validated(data, marks, path.stem)
    faults += more
    if sweep is None or faults:
        raise ConfigError(in_order(faults))
    base = _base(sweep, path, marks, root)
    cells = cells_of(sweep)
    faults = [*_exclusions(sweep, marks)]
    if not cells:
        faults.append(marks.fault(("exclude",), "leaves no cell", hint="Exclude less"))
    declared: list[tuple[Cell, Declared]] = []
    for cell in cells:
        try:
            declared.append((cell, _cell(sweep, cell, base, marks, root)))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(_once(faults))
    return DeclaredSweep(sweep, path, tuple(declared))


def _once(faults: list[MixbitError]) -> list[MixbitError]:
    """Cells share most of what they say, and so its faults."""
    told = list({str(fault): fault for fault in faults}.values())
    rest = len(told) - MOST_FAULTS
    return told[:MOST_FAULTS] + ([MisuseError("", f"and {rest} more faults")] if rest > 0 else [])


def _validated(data: Any, marks: Marks, stem: str) -> tuple[Sweep | None, list[MixbitError]]:
    if isinstance(data, dict) and "name" not in data:
        data = {"name": stem, **data}
        marks = replace(marks, written={**marks.written, ("name",): f"{stem!r} (the file)"})
    return validate(data, Sweep, marks)


def _base(sweep: Sweep, path: Path, marks: Marks, root: Path) -> _Base:
    folders = dict.fromkeys((path.resolve().parent, root))
    found = next((place for folder in folders if (place := folder / sweep.base).is_file()), None)
    if found is None:
        hint = f"Looked in {' and '.join(map(str, folders))}"
        raise ConfigError([marks.fault(("base",), "no such file", got=sweep.base, hint=hint)])
    data, of_base, faults = read_marked(found)
    if not isinstance(data, dict) or any(word in data for word in WORDS):
        what = "an experiment" if not isinstance(data, dict) else "an experiment, not another sweep"
        faults.append(marks.fault(("base",), expected=what, got=sweep.base))
    if faults:
        raise ConfigError(in_order(faults))
    return _Base(data, of_base, found, path)


def _exclusions(sweep: Sweep, marks: Marks) -> Iterator[MixbitError]:
    """An exclusion that names no axis or no value of it excludes nothing: a misspelling."""
    for place, entry in enumerate(sweep.exclude):
        for axis, value in entry.items():
            at: Location = ("exclude", place, axis)
            if axis not in sweep.axes:
                yield marks.fault(at, "no such axis", expected=" or ".join(sweep.axes), got=axis)
                continue
            labels = labels_of(sweep.axes[axis])
            if label_of(value) not in labels:
                yield marks.fault(at, "no such value", expected=" or ".join(labels), got=label_of(value))


def _cell(sweep: Sweep, cell: Cell, base: _Base, marks: Marks, root: Path) -> Declared:
    data, of_base = base.data, base.marks
    try:
        whole = applied(cell, data)
    except KeyError as error:
        axis, label = error.args
        known = " or ".join(data[axis]) if isinstance(data.get(axis), dict) else "a mapping of names to budgets"
        raise ConfigError(
            [marks.fault(("axes", axis), f"{sweep.base} has no such budget", expected=known, got=label)]
        ) from None
    except TypeError as error:
        hint = f"{sweep.base} says something else on the way to it"
        raise ConfigError([marks.fault(("axes", str(error)), "leads nowhere", hint=hint)]) from None
    moved = {place: at for axis in cell.values for place, at in _moved(sweep, cell, axis)}
    name = experiment_name(sweep.name, cell)
    written = {**of_base.written, ("name",): name}
    for place, there in moved.items():
        written |= {
            (*place, *at[len(there) :]): text for at, text in marks.written.items() if at[: len(there)] == there
        }
    laid = _Laid(of_base.file, of_base.lines, written, over=marks, moved=moved)
    return replace(
        check_experiment(base.path, {**whole, "name": name}, laid, root),
        sweep=base.sweep,
        group=sweep.name,
        cell=cell.name,
    )


def _moved(sweep: Sweep, cell: Cell, axis: str) -> Iterator[tuple[Location, Location]]:
    """(where in the experiment an axis lays its value, where that stands in the sweep's file)."""
    values, label, value = sweep.axes[axis], cell.labels[axis], cell.values[axis]
    here = label if isinstance(values, dict) else labels_of(values).index(label)
    at: Location = ("axes", axis, here)
    if axis == BUDGETS:
        if value != label:
            yield (BUDGETS, label), at
    elif axis == DEVICES and isinstance(value, str):
        yield (DEVICES,), at
        yield (DEVICES, 0), at
    elif isinstance(value, dict):
        yield from (((*axis.split("."), key), (*at, key)) for key in value)
    else:
        yield tuple(axis.split(".")), at
