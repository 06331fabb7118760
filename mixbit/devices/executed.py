"""Executed bits: what a runtime really computed for each layer, and what follows where that is not int8."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mixbit.errors import MixbitError, RunError


@dataclass(frozen=True)
class Executed:
    """What ran for one layer.

    Attributes:
        policy: what was asked, [weight num_bits, activation num_bits].
        executed: `int8` or `float`; `bf16` where a runtime computes floats in that.
        kernel: what the runtime calls it; `missing` when none could be told apart.
        calls: how many nodes compute this layer.
        reason: why a layer that should run int8 does not; empty otherwise.
    """

    policy: tuple[Any, Any]
    executed: str
    kernel: str
    calls: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As in deployable.json and profile.json; `reason` only when there is one."""
        return {key: value for key, value in asdict(self).items() if value != ""}


def not_int8(kernels: Mapping[str, Executed]) -> dict[str, str]:
    """Layer -> reason, for layers that should run int8 and do not."""
    return {layer: kernel.reason for layer, kernel in kernels.items() if kernel.reason}


def require_int8(reasons: Mapping[str, str], device: str) -> None:
    """Pass when there is no such layer.

    Args:
        reasons: from `not_int8`.
        device: whose runtime was asked.

    Raises:
        RunError: a line for each layer: the reason, and how to leave the layer float.
    """
    if reasons:
        raise RunError([_fault(layer, reason, device) for layer, reason in reasons.items()])


def _fault(layer: str, reason: str, device: str) -> MixbitError:
    hint = f"`layers: {{{layer}: {{exclude: true}}}}` in the experiment leaves it float"
    return MixbitError(layer, f"its policy is int8, but {device} computes it in float: {reason}", hint=hint)
