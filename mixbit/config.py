"""Base of every declared setting, and files read into it with every fault at once."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mixbit.errors import ConfigError, MixbitError
from mixbit.faults import faults_of
from mixbit.marked_yaml import Location, Marks, read_marked


class Settings(BaseModel):
    """Frozen pydantic model; unknown keys, NaN and silent conversions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> tuple[Any, Marks]:
    """(the data of a YAML file, the line and spelling of every key).

    Raises:
        ConfigError: no such file, not UTF-8, not YAML, too big, or a key written twice.
    """
    data, marks, faults = read_marked(path)
    if faults:
        raise ConfigError(faults)
    return data, marks


def validate(
    data: Any, model: type[Model], marks: Marks, prefix: Location = ()
) -> tuple[Model | None, list[MixbitError]]:
    """(an instance, or None; its faults). `prefix` is where in the file `data` stands."""
    if not isinstance(data, dict):
        known = ", ".join(model.model_fields)
        got = marks.written.get(prefix, "nothing")
        return None, [marks.fault(prefix, expected=f"a mapping with {known}", got=got)]
    try:
        # By way of JSON, pydantic is strict about numbers and text and still takes a list for a tuple.
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, in_order(faults_of(error, model, data, marks, prefix))


def in_order(faults: list[MixbitError]) -> list[MixbitError]:
    """Faults of one file by line."""

    def line(fault: MixbitError) -> int:
        match = re.search(r":(\d+)(: |$)", fault.where)
        return int(match[1]) if match else 0

    return sorted(faults, key=line)
