"""Numbers that 16 bits hold exactly: float16, or else bfloat16 ones. numpy only."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mixbit.models.settle import SCALE_UNIT

Array = npt.NDArray[Any]

FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
# The least scale that float16 holds in full precision.
LEAST_SCALE = SCALE_UNIT * float(np.finfo(np.float16).tiny)


def snapped(values: Array, slack: Array) -> Array:
    """All values as numbers of the first 16-bit type that has one within each value's slack; unchanged without one.

    Args:
        values: float32 or float64 [C].
        slack: [C], how far a value may move.

    Returns:
        Shaped and typed as values.
    """
    for dtype in (FLOAT16, BFLOAT16):
        near = _rounded(values, dtype).astype(values.dtype)
        if (np.abs(near - values) <= slack).all():
            return near
    return values


def snapped_scale(scale: Array, slack: Array) -> Array:
    """The same for scales, in `SCALE_UNIT`."""
    unit = scale.dtype.type(SCALE_UNIT)
    found: Array = snapped(scale / unit, slack / unit) * unit
    return found


def exact(values: Array) -> Array | None:
    """The same numbers in the first 16-bit type that holds them all; None without one."""
    for dtype in (FLOAT16, BFLOAT16):
        held = _rounded(values, dtype)
        if (held.astype(np.float64) == values).all():
            return held
    return None


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(dtype)
