"""What a runtime must offer to be measured: a backend is one file of the folder `backends`, by its file name.

Nothing of a runtime is imported before a file is opened: a plan asks for versions and dialects only.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from mixbit.devices.executed import Executed
from mixbit.errors import MisuseError, MixbitError
from mixbit.load import load_method, method_names
from mixbit.policy import Entry

FOLDER = "mixbit.devices.backends"
DEFAULT = "onnxruntime"
ABSENT = "absent"

Array = Any  # of numpy, which a plan does not import
Version = tuple[int, ...]


class Opened(Protocol):
    """A file that is ready to run."""

    def run(self, pictures: Array) -> Array:
        """The network's output for float32 pictures [N, C, H, W]."""
        ...

    def bound(self, pictures: Array) -> Callable[[], object]:
        """One run on these pictures; the same memory is read and written each time."""
        ...


class Profiled(Protocol):
    """A file under its runtime's own profiler, which slows what it watches."""

    def run_block(self, warm: int, timed: int) -> None:
        """Untimed calls, then timed ones."""
        ...

    def calls(self) -> Sequence[Mapping[str, float]]:
        """Kernel -> us in the order they ran, for timed calls or the mean of each block's; ends the profiling."""
        ...

    def kernels(self, layers: Sequence[str]) -> dict[str, set[str]]:
        """Layer -> its kernels, for layers that can be told apart; a joint kernel is the first layer's."""
        ...

    def depthwise(self) -> set[str]:
        """Kernels of float depthwise convolutions; known after `calls`."""
        ...


class Backend(Protocol):
    """A runtime.

    Attributes:
        TITLE: how people call it.
        PACKAGES: distributions whose versions figures depend on; the runtime's own first.
        EXTRA: of mixbit, that installs it.
    """

    TITLE: str
    PACKAGES: tuple[str, ...]
    EXTRA: str

    def dialects(self, version: Version) -> tuple[str, ...]:
        """Dialects that this version loads, best first."""
        ...

    def load(self) -> object:
        """Import the runtime.

        Raises:
            MixbitError: it is not installed.
        """
        ...

    def open_file(self, path: Path, *, threads: int, shape: Sequence[int]) -> Opened:
        """A file for pictures of one shape, [N, C, H, W].

        Raises:
            MixbitError: the runtime is not installed, or refuses the file.
        """
        ...

    def profiled(self, path: Path, *, threads: int, pictures: Array, folder: Path) -> Profiled:
        """A file under the profiler, which may write to `folder`; raises as `open_file`."""
        ...

    def executed(self, path: Path, policy: Mapping[str, Entry], *, threads: int) -> dict[str, Executed]:
        """Layer -> what this machine executes for it; raises as `open_file`."""
        ...


def load_backend(name: str) -> Backend:
    """The backend of a name.

    Raises:
        MisuseError: there is none.
    """
    return cast("Backend", load_method(FOLDER, name))


def backend_names() -> list[str]:
    """All there are, installed or not."""
    return method_names(FOLDER)


def module_of(fingerprint: Mapping[str, str]) -> str:
    """The file that measures on a device of this fingerprint, as a dotted name."""
    return f"{FOLDER}.{backend_of(fingerprint)}"


def backend_of(fingerprint: Mapping[str, str]) -> str:
    """The name of a device's backend."""
    return fingerprint.get("backend", DEFAULT)


def runtime_words(fingerprint: Mapping[str, str]) -> str:
    """A device's runtime for people: `ONNX Runtime 1.27.0`."""
    name = backend_of(fingerprint)
    title = load_backend(name).TITLE if name in backend_names() else name
    return f"{title} {fingerprint.get(name, 'unknown')}"


def dialect_for(fingerprint: Mapping[str, str]) -> str:
    """The best dialect that a device's runtime loads; of an unknown version, the best there is.

    Raises:
        MisuseError: this host knows no such backend.
        MixbitError: the runtime is too old for any dialect.
    """
    name = backend_of(fingerprint)
    found = load_backend(name).dialects(version_of(fingerprint.get(name, "")) or (10**6,))
    if not found:
        raise MixbitError("device", f"no file is written for {runtime_words(fingerprint)}", hint="Upgrade it there")
    return found[0]


def version_of(text: str) -> Version:
    """Leading numbers of a version, `1.19.2` or `2026.4.1rc1`; empty when there are none."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def installed(package: str) -> str:
    """Its version, or `absent`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def require_installed(name: str, where: str) -> None:
    """Pass when a backend's runtime is here.

    Args:
        name: of the backend.
        where: what asks for it.

    Raises:
        MisuseError: no such backend.
        MixbitError: its runtime is not installed.
    """
    if name not in backend_names():
        raise MisuseError(where, "unknown backend", expected=" or ".join(backend_names()), got=name)
    backend = load_backend(name)
    if installed(backend.PACKAGES[0]) == ABSENT:
        raise not_installed(backend, where)


def not_installed(backend: Backend, where: str) -> MixbitError:
    """The one line for a runtime that is not here."""
    hint = f"In the clone: pip install --require-hashes -r requirements-{backend.EXTRA}.lock"
    return MixbitError(where, f"{backend.TITLE} is not installed", hint=hint)
