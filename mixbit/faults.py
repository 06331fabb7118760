"""What pydantic found wrong, in a user's words: one fault per key, with its line and the value as written."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mixbit.errors import MixbitError
from mixbit.marked_yaml import Location, Marks

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "missing": "a value",
    "none_required": "nothing",
}
BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def faults_of(
    error: ValidationError, model: type[BaseModel], data: Any, marks: Marks, prefix: Location = ()
) -> list[MixbitError]:
    """Every fault of a failed validation.

    Args:
        error: what pydantic raised for `data`.
        model: the model it was validated against.
        data: the plain data, as read from the file.
        marks: lines and spellings of the file.
        prefix: where in the file `data` stands.
    """
    found: dict[Location, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_in_data(detail, data), []).append(detail)
    for location, details in found.items():
        told = [detail for detail in details if detail["type"] == "value_error"]
        found[location] = told if told and isinstance(_at(data, location), Mapping) else details
    faults: list[MixbitError] = []
    for location, details in found.items():
        if not _only_another_kind(location, found, data):
            full = (*prefix, *location)
            value = None if details[0]["type"] == "missing" else _at(data, location)
            faults.append(
                marks.fault(full, **{"got": marks.written.get(full), **_fault(details, location, model, value)})
            )
    return faults


def did_you_mean(word: object, known: Sequence[str], kind: str = "Known") -> str:
    """`Did you mean x?`, or all there is to choose from."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    return f"{kind}: {', '.join(known)}" if known else ""


def _in_data(detail: ErrorDetails, data: Any) -> Location:
    """A pydantic location without the names of union branches; a missing key stays as the last part."""
    location: list[int | str] = []
    for part in detail["loc"]:
        is_item = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_item or (isinstance(data, Mapping) and part in data):
            data = data[part]
        elif detail["type"] != "missing" or part != detail["loc"][-1]:
            continue
        location.append(part)
    return tuple(location)


def _only_another_kind(location: Location, found: Mapping[Location, list[ErrorDetails]], data: Any) -> bool:
    """Whether a word was possible where a mapping stands, and the mapping's own faults say more."""
    inside = any(len(other) > len(location) and other[: len(location)] == location for other in found)
    if inside and all(e["type"] == "too_short" for e in found[location]):
        return True  # pydantic counts only the entries that are right
    return (
        inside
        and isinstance(_at(data, location), Mapping)
        and not any(e["type"] == "value_error" for e in found[location])
    )


def _at(data: Any, location: Location) -> Any:
    for part in location:
        data = data.get(part) if isinstance(data, Mapping) else data[part]
    return data


def _fault(details: Sequence[ErrorDetails], location: Location, model: type[BaseModel], value: Any) -> dict[str, Any]:
    """What to tell about one key, as the words of `Marks.fault`; `got` only where it is not what the file says."""
    first = details[0]
    if first["type"] == "extra_forbidden":
        known = sorted({name for owner in _owners(model, location[:-1]) for name in owner.model_fields})
        return {"what": "unknown key", "hint": did_you_mean(location[-1], known), "got": None}
    if first["type"] == "missing":
        expected = _described(model, location, "a value")
        return {"what": "missing", "expected": expected, "hint": f"Add {location[-1]}", "got": None}
    if first["loc"][-1:] == ("[key]",):
        expected, hint = _expectation(first, location[-1])
        return {"what": "not a key here", "expected": expected, "hint": hint, "got": location[-1]}
    wanted = [_expectation(detail, value) for detail in details]
    if len(wanted) > 1:
        near = next((hint for _, hint in wanted if hint and hint.startswith("Did")), None)
        return {"expected": _described(model, location, " or ".join(text for text, _ in wanted)), "hint": near}
    words = dict(zip(("expected", "hint"), wanted[0], strict=True))
    # A mapping that spans lines has no spelling worth repeating.
    return words | ({"got": None} if first["type"] == "value_error" and isinstance(value, Mapping) else {})


def _expectation(detail: ErrorDetails, value: Any) -> tuple[str, str | None]:
    """(what would have been right, what to try)."""
    kind, context = detail["type"], detail.get("ctx", {})
    hint: str | None = None
    if kind == "value_error":
        expected, _, hint = str(context["error"]).removeprefix("expected ").partition(". ")
    elif kind in BOUNDS:
        name, sign = BOUNDS[kind]
        bound = context[name]
        expected = f"a number {sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
    elif kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        hint = _near_word(value, expected.replace(" or ", ", ").split(", "))
    elif kind == "too_short":
        bound = context["min_length"]
        expected = f"at least {bound} {'entry' if bound == 1 else 'entries'}"
    else:
        expected = WORDS.get(kind) or WORDS.get(kind.split("_")[0]) or detail["msg"].replace("Input should be ", "")
        hint = "Put it in quotes" if kind == "string_type" and isinstance(value, (int, float)) else None
    return expected, hint or None


def _near_word(value: Any, known: list[str]) -> str | None:
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.6) if isinstance(value, str) else []
    return f"Did you mean {near[0]}?" if near else None


def _described(model: type[BaseModel], location: Location, otherwise: str) -> str:
    for owner in _owners(model, location[:-1]):
        field = owner.model_fields.get(str(location[-1]))
        if field is not None and field.description:
            return field.description
    return otherwise


def _owners(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """The models that the mapping at `location` may be."""
    owners: list[Any] = [model]
    for part in location:
        inner: list[Any] = []
        for owner in owners:
            is_model = isinstance(owner, type) and issubclass(owner, BaseModel)
            field = owner.model_fields.get(str(part)) if is_model else None
            inner += _choices(field.annotation) if field is not None else list(_elements(owner) if not is_model else ())
        owners = inner
    return [owner for owner in owners if isinstance(owner, type) and issubclass(owner, BaseModel)]


def _choices(annotation: Any) -> list[Any]:
    """The branches of a union, without Annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _choices(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [choice for branch in typing.get_args(annotation) for choice in _choices(branch)]
    return [annotation]


def _elements(annotation: Any) -> Iterator[Any]:
    """What a container holds."""
    for argument in typing.get_args(annotation)[-2:]:
        if argument is not Ellipsis:
            yield from _choices(argument)
