"""Reads an experiment: shape, then meaning that needs no model: files, names, references, the method's settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixbit.config import in_order, validate
from mixbit.devices.device import FLOAT, W8A8, find_device
from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.experiment import Experiment, Indicators, Target, is_reference
from mixbit.faults import did_you_mean
from mixbit.latency import SIMULATED, device_of
from mixbit.load import check_reference, load_method, method_names
from mixbit.marked_yaml import Location, Marks, read_marked
from tasks.closure import find_module
from tasks.data import names

METHODS = "policies.indicators"
SEARCHES = "policies.searches"
REFERENCES = (
    ("model", "factory"),
    ("data", "callable"),
    ("task", "loss"),
    ("task", "metric"),
    ("indicators", "method"),
)
BASELINES = "policies.baselines"
FILES = (("model", "checkpoint"), ("data", "npz"), ("data", "folder"), ("indicators", "file"), ("policy",))


@dataclass(frozen=True)
class Declared:
    """An experiment that was read and checked.

    Attributes:
        experiment: what the file says.
        path: the file.
        base_folder: its folder; relative files are looked up there first.
        search_path: folders where user modules are looked up.
        settings: those of our indicator method or direct search, with its defaults filled in; else None.
        marks: where the file says what.
        files: key path -> the file or folder it names (`model.checkpoint`, `data.npz`, `data.folder`,
            `indicators.file`, `policy`).
        sweep: the sweep's file, of a cell of a sweep.
        group: the sweep's name, under which the models and figures of its cells are kept.
        cell: what the sweep calls it.
    """

    experiment: Experiment
    path: Path
    base_folder: Path
    search_path: tuple[Path, ...]
    marks: Marks
    settings: Any = None
    files: dict[str, Path] = field(default_factory=dict)
    sweep: Path | None = None
    group: str = ""
    cell: str = ""

    @property
    def known_as(self) -> str:
        """The name of its registered models and of its experiment in MLflow."""
        return self.group or self.experiment.name


def read_experiment(path: Path, root: Path) -> Declared:
    """The experiment in a file; nothing of it is built, and no user code is imported.

    Raises:
        ConfigError: every fault of the file at once, with lines.
    """
    data, marks, faults = read_marked(path)
    return check_experiment(path, data, marks, root, faults)


def check_experiment(path: Path, data: Any, marks: Marks, root: Path, faults: Sequence[MixbitError] = ()) -> Declared:
    """The experiment that was read from a file; `faults` are those of its reading.

    Raises:
        ConfigError: every fault at once, with lines.
    """
    base = path.resolve().parent
    folders = tuple(dict.fromkeys((base, root)))
    experiment, more = _validated(data, marks, path.stem)
    settings, unsettled = _settings(data, marks)
    files, missing = _files(data, marks, folders)
    faults = [*faults, *more, *unsettled, *missing, *_data_names(data, marks, root), *_baselines(data, marks)]
    faults += [*_modules(data, marks, folders), *_devices(data, marks), *_untimed(data, marks)]
    if experiment is not None:
        faults += _same_cells(experiment, files, marks)
    if experiment is None or faults:
        raise ConfigError(in_order(faults))
    return Declared(experiment, path, base, folders, marks, settings, files)


def _validated(data: Any, marks: Marks, stem: str) -> tuple[Experiment | None, list[MixbitError]]:
    """The shape alone; an experiment without a name is called like its file."""
    if not isinstance(data, dict) or "name" in data:
        return validate(data, Experiment, marks)
    return validate(
        {"name": stem, **data}, Experiment, replace(marks, written={**marks.written, ("name",): f"{stem!r} (the file)"})
    )


def _at(data: Any, location: Location) -> Any:
    """What the file says at a location; None where it says nothing."""
    for part in location:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _settings(data: Any, marks: Marks) -> tuple[Any, list[MixbitError]]:
    """The method's settings, checked by the method's own model; those of a user's method by its module, in the run."""
    direct = isinstance(_at(data, ("search",)), dict)
    folder, section = (SEARCHES, "search") if direct else (METHODS, "indicators")
    method, known = data["search"].get("method") if direct else _method(data), method_names(folder)
    if method is None or (isinstance(method, str) and is_reference(method) and not direct):
        return None, []
    if method not in known:
        hint, expected = did_you_mean(method, known, "Methods"), " or ".join(known) or "none yet"
        return None, [marks.fault((section, "method"), "unknown method", expected=expected, got=method, hint=hint)]
    model = load_method(folder, method).Settings
    return validate(data[section].get("settings", {}), model, marks, (section, "settings"))


def _method(data: Any) -> Any:
    """The indicator method that the file says or leaves to the default; None where there is none."""
    said = _at(data, ("indicators",))
    if not isinstance(said, dict) or "file" in said:
        return None
    return said.get("method", Indicators.model_fields["method"].default)


def _files(data: Any, marks: Marks, folders: tuple[Path, ...]) -> tuple[dict[str, Path], list[MixbitError]]:
    files: dict[str, Path] = {}
    faults: list[MixbitError] = []
    for location in FILES:
        value = _at(data, location)
        if isinstance(value, str) and value.strip():
            found, fault = _look_up(location, value, marks, folders)
            files |= {".".join(location): found} if found else {}
            faults += [fault] if fault else []
    return files, faults


def _look_up(
    location: Location, value: str, marks: Marks, folders: tuple[Path, ...]
) -> tuple[Path | None, MixbitError | None]:
    """A path as written, from the experiment's folder, else from the project's root."""
    kind = "folder" if location == ("data", "folder") else "file"
    places = [folder / Path(value).expanduser() for folder in folders]
    for place in places:
        if place.is_dir() if kind == "folder" else place.is_file():
            return place, None
    other = next(("a file" if place.is_file() else "a folder" for place in places if place.exists()), None)
    hint = None if other else f"Looked in {' and '.join(str(folder) for folder in folders)}"
    return None, marks.fault(
        location, "" if other else f"no such {kind}", expected=other and f"a {kind}", got=other or value, hint=hint
    )


def _data_names(data: Any, marks: Marks, root: Path) -> Iterator[MixbitError]:
    """Datasets and proxies that are named, not described, are stages of dvc.yaml."""
    said = {key: value for key in ("data", "proxy") if isinstance(value := _at(data, (key,)), str)}
    known = names(root) if said else {}
    for key, value in said.items():
        if value not in known[key]:
            hint = did_you_mean(value, known[key], "It has") or "It has none"
            what = f"no {'dataset' if key == 'data' else 'proxy'} of this name in dvc.yaml"
            yield marks.fault((key,), what, got=value, hint=hint)


def _modules(data: Any, marks: Marks, folders: tuple[Path, ...]) -> Iterator[MixbitError]:
    """Modules that are named must be there; what is in them is told when they are imported, in a run."""
    for location in REFERENCES:
        value = _at(data, location)
        try:
            if isinstance(value, str):
                find_module(check_reference(value)[0], folders)
        except MisuseError as error:
            if error.what.startswith("no such module"):  # any other fault of a reference is told by its field
                yield marks.fault(location, error.what, got=value, hint=error.hint)


def _devices(data: Any, marks: Marks) -> Iterator[MixbitError]:
    """Devices are found by name before anything is trained for them; a budget's latency is that of one of them."""
    devices = _at(data, ("devices",)) or Experiment.model_fields["devices"].default
    listed = devices if isinstance(devices, list | tuple) else ()
    for place, name in enumerate(listed):
        try:
            if isinstance(name, str) and not name.startswith(SIMULATED):  # its field says what that is
                find_device(name)
        except MixbitError as error:
            yield marks.fault(("devices", place), error.what, expected=error.expected, got=name, hint=error.hint)
    for location in _latencies(data):
        device = device_of(str(location[-1]))
        if device not in listed:
            expected = " or ".join(f"latency[{name}]" for name in listed)
            yield marks.fault(location, f"{device} is not among devices", expected=expected, got=location[-1])


def _untimed(data: Any, marks: Marks) -> Iterator[MixbitError]:
    """A direct search knows costs that add up over layers, no latencies."""
    for location in _latencies(data) if _at(data, ("search",)) is not None else ():
        hint = "Search with indicators, or limit bitops, size_bits or file_bytes"
        yield marks.fault(location, "no limit of a direct search", got=location[-1], hint=hint)


def _latencies(data: Any) -> Iterator[Location]:
    """Where budgets limit latencies."""
    budgets = _at(data, ("budgets",))
    for name, budget in budgets.items() if isinstance(budgets, dict) else ():
        for cost in budget if isinstance(budget, dict) else ():
            if device_of(str(cost)) is not None:
                yield ("budgets", name, cost)


def _baselines(data: Any, marks: Marks) -> Iterator[MixbitError]:
    """Baselines are files; those that read indicators need a search."""
    named, known = _at(data, ("baselines",)), method_names(BASELINES)
    for place, name in enumerate(named if isinstance(named, list) else []):
        if name not in known:
            hint = did_you_mean(str(name), known, "Baselines")
            yield marks.fault(
                ("baselines", place), "unknown baseline", expected=" or ".join(known), got=name, hint=hint
            )
        elif (without := _without_indicators(data)) and load_method(BASELINES, name).HARM is not None:
            hint = "Leave it out, or search with indicators and budgets"
            yield marks.fault(("baselines", place), f"reads indicators, which {without} has not", got=name, hint=hint)
        elif load_method(BASELINES, name).HARM == "initial" and _learns_nothing(data):
            hint = "Leave it out, or take a method that trains its indicators"
            yield marks.fault(
                ("baselines", place), "reads untrained indicators, and these learn nothing", got=name, hint=hint
            )


def _without_indicators(data: Any) -> str | None:
    """What an experiment has instead of indicators."""
    kinds = {"policy": "a given policy", "search": "a direct search"}
    return next((words for key, words in kinds.items() if _at(data, (key,)) is not None), None)


def _learns_nothing(data: Any) -> bool:
    """Whether the indicators are a table or those of one of our methods that trains nothing."""
    method = _method(data)
    if method in method_names(METHODS):
        return not getattr(load_method(METHODS, method), "INITIAL", False)
    return isinstance(_at(data, ("indicators", "file")), str)


def _same_cells(experiment: Experiment, files: dict[str, Path], marks: Marks) -> Iterator[MixbitError]:
    """No two policies of an experiment may be called the same: references, budgets, their tries and baselines."""
    taken = dict.fromkeys((FLOAT, W8A8), "the reference of this name")
    named: dict[str, Location] = {name: ("budgets", name) for name in experiment.budgets}
    if "policy" in files:
        named[files["policy"].stem] = ("policy",)
    for name, location in named.items():
        budget = experiment.budgets.get(name)
        tries = budget.smallest.tries if isinstance(budget, Target) else 0
        own = [*experiment.baselines, *(str(number + 1) for number in range(tries))]
        for cell in (name, *(f"{name}-{suffix}" for suffix in own)):
            if cell in taken:
                yield marks.fault(location, f"{cell} would also be {taken[cell]}", hint="Call it otherwise")
            taken.setdefault(cell, f"a cell of {name}")
