"""Indicators of a user's own: a table in a JSON file, or a callable in a module of theirs. Without torch."""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mixbit.errors import ConfigError, MisuseError, MixbitError
from mixbit.faults import did_you_mean
from mixbit.indicators import KINDS
from mixbit.load import load_callable, load_module
from mixbit.policy import NumBits, is_num_bits

Rows = dict[str, dict[str, dict[str, float]]]
NONE_SPENT = {"forward_passes": 0, "backward_passes": 0, "samples": 0}


def own_table(
    content: bytes, names: Sequence[str], searched: Sequence[str], num_bits: Sequence[NumBits], where: str
) -> Rows:
    """Harm of the searched layers from a file: layer -> {weight, activation} -> num_bits -> harm.

    That is `layers` of an indicators.json, or the whole of one: readers of one tensor carry their share of its harm.
    Layers that are not searched and num_bits that are no candidates are left out; `float` is 0 where it is missing.

    Args:
        content: of the file.
        names: all layers of the network.
        searched: those whose harm is wanted.
        num_bits: candidates.
        where: the file, as faults call it.

    Raises:
        MisuseError: not JSON, or not a table.
        ConfigError: all faults, each with file, layer and kind.
    """
    data = _parsed(content, where)
    inner = data.get("layers") if isinstance(data, dict) and "layers" not in names else None
    table = inner if isinstance(inner, dict) else data
    if not isinstance(table, dict) or not table:
        expected = "{layer: {weight: {num_bits: harm}, activation: {num_bits: harm}}}"
        raise MisuseError(where, "not a table of harm", expected=expected, got=type(table).__name__)
    return checked_rows(table, names, searched, num_bits, where)


def checked_rows(
    table: Mapping[Any, Any], names: Sequence[str], searched: Sequence[str], num_bits: Sequence[NumBits], where: str
) -> Rows:
    """As `own_table`, of a mapping.

    Raises:
        ConfigError: all faults.
    """
    wanted = [str(bits) for bits in num_bits if bits != "float"]
    faults: list[MixbitError] = [
        MisuseError(f"{where}: {name}", "no such layer", hint=did_you_mean(name, names, "Layers"))
        for name in table
        if name not in names
    ]
    for name in searched:
        faults += _layer_faults(table.get(name), wanted, f"{where}: {name}")
    if faults:
        raise ConfigError(faults)
    rows = {name: {kind: table[name][kind] for kind in KINDS} for name in searched}
    return {
        name: {kind: {bits: float(row[bits]) for bits in wanted} | {"float": 0.0} for kind, row in kinds.items()}
        for name, kinds in rows.items()
    }


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise MisuseError(where, f"not JSON: {error}", hint="Write a table as `layers` of indicators.json") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is written twice")
    return found


def _layer_faults(kinds: Any, wanted: Sequence[str], where: str) -> Iterator[MixbitError]:
    if not isinstance(kinds, Mapping):
        yield MisuseError(where, "no harm", expected="{weight: …, activation: …}", got=_shown(kinds))
        return
    for kind in kinds:
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, n=1)
            hint = f"Did you mean {near[0]}?" if near else None
            yield MisuseError(f"{where}: {kind}", "unknown kind", expected=" or ".join(KINDS), hint=hint)
    for kind in KINDS:
        yield from _row_faults(kinds.get(kind), wanted, f"{where}: {kind}")


def _row_faults(row: Any, wanted: Sequence[str], where: str) -> Iterator[MixbitError]:
    if not isinstance(row, Mapping):
        yield MisuseError(where, "no harm", expected="{num_bits: harm}", got=_shown(row))
        return
    for bits, harm in row.items():
        if not isinstance(bits, str) or not is_num_bits(int(bits) if bits.isdecimal() else bits):
            yield MisuseError(f"{where}: {bits}", "not a num_bits", expected='"2" to "8" or "float"')
        elif not _is_harm(harm) or (bits == "float" and harm != 0):
            expected = "0" if bits == "float" else "a finite number >= 0"
            yield MisuseError(f"{where}: {bits} bits", "", expected=expected, got=_shown(harm))
    if missing := [bits for bits in wanted if bits not in row]:
        hint = "A table covers every candidate num_bits of every searched layer"
        yield MisuseError(where, f"no harm of {', '.join(missing)} bits", hint=hint)


def _is_harm(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]


def ask_own(reference: str, search_path: Sequence[Path], settings: Mapping[str, Any], **given: Any) -> tuple[Any, Any]:
    """What a user's `compute_indicators` returns, called as the contract of policies/indicators says.

    Args:
        reference: `module:callable`.
        search_path: folders where user modules are looked up.
        settings: made into the module's `Settings` where it has one, else handed over as they are.
        given: all other arguments.

    Raises:
        MisuseError: the reference leads nowhere, or settings that `Settings` refuses.
        MixbitError: the callable failed, or did not return two mappings, the first with `layers`.
    """
    compute = load_callable(reference, search_path)
    model = getattr(load_module(reference.partition(":")[0], search_path), "Settings", None)
    asked = settings if model is None else _own_settings(model, settings, reference)
    try:
        result = compute(settings=asked, **given)
    except MixbitError:
        raise
    except Exception as error:
        raise MixbitError(reference, f"failed: {type(error).__name__}: {error}") from error
    is_pair = isinstance(result, tuple | list) and len(result) == 2
    if (
        not is_pair
        or not all(isinstance(part, Mapping) for part in result)
        or not isinstance(result[0].get("layers"), Mapping)
    ):
        expected = "({layers: {layer: {weight: {num_bits: harm}, activation: …}}, …}, {name: tensor})"
        raise MixbitError(reference, "wrong result", expected=expected, got=_kinds(result))
    return result[0], result[1]


def _own_settings(model: Any, settings: Mapping[str, Any], reference: str) -> Any:
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        raise MisuseError(reference, f"its Settings refuse indicators.settings: {told}") from None


def _kinds(result: Any) -> str:
    if isinstance(result, tuple | list):
        return f"({', '.join(type(part).__name__ for part in result)})"
    return type(result).__name__
