"""Datasets in a NumPy `.npz`: train_x, train_y, val_x, val_y, test_x, test_y, and optionally labels (class names)."""

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mixbit.data.arrays import KEYS, Arrays, picked
from mixbit.errors import MixbitError


def read(path: Path, where: str) -> Arrays:
    """Read an `.npz`; `where` names it in errors. Pickled objects are refused, never run.

    Raises:
        MixbitError: not an npz, damaged, keys missing, or an array of objects.
    """
    try:
        with path.open("rb") as handle:
            return _read(handle, where)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MixbitError(where, f"not a readable npz file: {_first_line(error)}") from None


def _read(handle: BinaryIO, where: str) -> Arrays:
    if handle.read(2) not in {b"PK", b"\x93N"}:  # NumPy would take anything else for a pickle
        raise ValueError("neither a zip archive nor a NumPy array")
    handle.seek(0)
    file = np.load(handle, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise MixbitError(where, "a single array", expected=f"an npz with {', '.join(KEYS)}")
    with file:
        return picked({name: _member(file, name, where) for name in file.files if name in {*KEYS, "labels"}}, where)


def _member(file: "np.lib.npyio.NpzFile", name: str, where: str) -> object:
    try:
        return file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        hint = "Save plain number arrays: objects would need pickle"
        raise MixbitError(f"{where}: {name}", f"cannot be read: {_first_line(error)}", hint=hint) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
