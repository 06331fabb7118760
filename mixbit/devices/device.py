"""What a device is to a stage: a name, a fingerprint, and a profile for a request. JSON in, JSON out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mixbit.devices.backend import DEFAULT, dialect_for, module_of
from mixbit.errors import MisuseError

MODEL, FLOAT, W8A8 = "model", "float", "w8a8"


@dataclass(frozen=True)
class Request:
    """What to measure and how; the protocol's lower limits hold whatever is asked.

    Attributes:
        models: name -> ONNX file: `model` and its references `float` and `w8a8` for a profile; for comparisons any
            names beside `float`.
        input_shape: [C, H, W] of one picture.
        batch_size: pictures per call.
        threads: intra-op threads.
        rounds: interleaved rounds to keep, at least 10.
        warm_calls: untimed calls at the start of each block, at least 3.
        timed_calls: timed calls of each block, at least 10; more when they are short.
        block_s: seconds that a block's timed calls should last at least.
        limit_s: seconds after which no further round starts.
        seed: of the pictures and of the order within rounds.
        backend: of the runtime that measures; a device puts its own here.
    """

    models: Mapping[str, str]
    input_shape: tuple[int, ...]
    batch_size: int = 1
    threads: int = 1
    rounds: int = 12
    warm_calls: int = 3
    timed_calls: int = 10
    block_s: float = 0.02
    limit_s: float = 60.0
    seed: int = 0
    backend: str = DEFAULT

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Request(**data)` gives it back."""
        return asdict(self) | {"models": dict(self.models), "input_shape": list(self.input_shape)}


class Device(Protocol):
    """A place where a deployable runs."""

    name: str

    def fingerprint(self) -> dict[str, str]:
        """What figures depend on: arch, ISA flags, cores, governor, versions. Never a host name. Milliseconds."""
        ...

    def profile(self, request: Request) -> dict[str, Any]:
        """Measure by the protocols of `measure.py` and `layer_times.py`; the figures they document."""
        ...

    def compare(self, request: Request) -> dict[str, Any]:
        """Several files whole, in one run, by the protocol of `compare.py`."""
        ...

    def kernel_times(self, request: Request) -> dict[str, dict[str, float]]:
        """Model -> layer -> us, by the protocol of `kernel_times.py`."""
        ...

    def executed(self, path: str, threads: int) -> dict[str, dict[str, Any]]:
        """Layer -> policy bits and executed bits of one file on this device."""
        ...


def find_device(name: str) -> Device:
    """The device of this name: `local`, `local-BACKEND`, or one that was added. Milliseconds, no server.

    Raises:
        MisuseError: no such device.
        MixbitError: this machine, with a runtime that is not installed.
    """
    from mixbit.devices import known

    if (backend := known.local_backends().get(name)) is not None:
        from mixbit.devices.local import LocalDevice

        return LocalDevice(backend, name)
    announced = known.read(name)
    if announced is None:
        expected = " or ".join([*known.local_backends(), *known.names()])
        hint = "A device that is online is added with `mixbit devices add NAME`"
        raise MisuseError("devices", "unknown device", expected=expected, got=name, hint=hint)
    from mixbit.devices.remote import RemoteDevice

    return RemoteDevice(name, announced)


def device_facts(name: str) -> dict[str, str]:
    """The device's fingerprint as facts of a stage: figures of another machine, governor or runtime are not these.

    Raises:
        MisuseError: no such device.
    """
    return {f"device.{key}": value for key, value in find_device(name).fingerprint().items()}


def dialect_of(name: str) -> str:
    """The dialect of the files that a device gets: the best that its runtime loads.

    Raises:
        MisuseError: no such device.
        MixbitError: its runtime loads none.
    """
    return dialect_for(find_device(name).fingerprint())


def measuring_module(name: str) -> str:
    """The file of a device's backend, as a dotted name: code that its figures depend on.

    Raises:
        MisuseError: no such device.
    """
    return module_of(find_device(name).fingerprint())


def request_for(models: Mapping[str, Path], input_shape: list[int], **settings: Any) -> Request:
    """A request; files by absolute path."""
    files = {name: str(path.resolve()) for name, path in models.items()}
    return Request(files, tuple(input_shape), **settings)
