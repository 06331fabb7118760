"""Checks of single values of an experiment file; each raises ValueError with what was expected."""

import math
import re
from typing import Any

from mixbit.errors import MisuseError
from mixbit.load import check_reference
from mixbit.policy import MAX_BITS, MIN_BITS, NumBits, as_number, is_num_bits

LONGEST_NAME = 60
NAME_WORDS = "letters, digits, dots, dashes and underscores, a letter or digit first"


def as_bits(value: Any) -> Any:
    """A num_bits."""
    if not is_num_bits(value):
        raise ValueError(f"expected {MIN_BITS} to {MAX_BITS}, or float")
    return value


def as_reference(value: str) -> str:
    """A reference `module:callable`, nothing imported."""
    try:
        check_reference(value)
    except MisuseError as error:
        hint = "A function resnet in my_model.py is my_model:resnet"
        raise ValueError(f"expected {error.expected}. {hint}") from None
    return value


def as_name(value: str) -> str:
    """A name of the user's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value) or len(value) > LONGEST_NAME:
        raise ValueError(f"expected a name: {NAME_WORDS}, at most {LONGEST_NAME}")
    return value


def as_method(value: str) -> str:
    """An indicator method: a file of ours, or a reference."""
    return as_reference(value) if ":" in value else as_name(value)


def as_file(value: str) -> str:
    """The path of a file, not yet looked up."""
    if not value.strip():
        raise ValueError("expected the path of a file")
    return value


def in_one_spelling(num_bits: tuple[NumBits, ...]) -> tuple[NumBits, ...]:
    """Candidates, each once and low to high, at least one of them quantized."""
    if len(set(num_bits)) != len(num_bits):
        raise ValueError("expected each of num_bits once")
    if num_bits == ("float",):
        raise ValueError("expected at least one of num_bits from 2 to 8")
    return tuple(sorted(num_bits, key=as_number))


def finite(value: dict[str, Any]) -> dict[str, Any]:
    """Arguments without NaN and infinity, at any depth."""
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        todo += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError("expected finite numbers")
    return value
