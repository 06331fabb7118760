"""Datasets from the user's own `module:callable`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixbit.data.arrays import KEYS, Arrays, picked
from mixbit.errors import MisuseError, MixbitError
from mixbit.load import load_callable


def read(reference: str, arguments: Mapping[str, Any], search_path: Sequence[Path]) -> Arrays:
    """Call it; it returns `{"train_x": array, ...}` with the six keys, and optionally `labels`.

    Files it reads are not part of what identifies the dataset: only its code and arguments are.

    Raises:
        MisuseError: it does not import, or returns something else.
        MixbitError: it failed.
    """
    function = load_callable(reference, search_path)
    try:
        found = function(**arguments)
    except (Exception, SystemExit) as error:
        raise MixbitError(reference, f"failed: {type(error).__name__}: {error}", hint="Check data.arguments") from error
    if not isinstance(found, Mapping):
        raise MisuseError(reference, "not a dataset", expected=f"a dict of {', '.join(KEYS)}", got=type(found).__name__)
    return picked(found, reference)
