"""Remote devices that this host knows: one small file each under the state folder, so that a plan needs no server."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixbit.devices.backend import DEFAULT, backend_names
from mixbit.errors import MisuseError, MixbitError
from mixbit.place import state_dir

NAME_WORDS = "lower case letters, digits and dashes, a letter or digit first, at most 40"
LOCAL = "local"  # this machine with the default runtime; `local-openvino`: with another backend of this name
FLOW = "mixbit-device"
TRAINED_ON = ("cpu", "cuda")
JOB_FORMAT = 2  # raised when a host and a device of different versions would misunderstand each other
LOST = "the device was lost during the job"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Announcement:
    """What a device says of itself when it comes online.

    Attributes:
        fingerprint: what its figures depend on, with `measured_by`, the digest of its measuring programs.
        announced_at: UTC, ISO 8601.
    """

    fingerprint: dict[str, str]
    announced_at: str

    @classmethod
    def from_json(cls, name: str, data: Any) -> "Announcement":
        """The announcement in plain data.

        Raises:
            MixbitError: it is none; another version of mixbit wrote it.
        """
        found = data.get("fingerprint") if isinstance(data, dict) else None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            hint = f"Install the same version of mixbit there, then `mixbit devices add {name}`"
            raise MixbitError(f"device {name}", "its announcement can't be read", hint=hint)
        return cls(dict(sorted(found.items())), str(data.get("announced_at", "")))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        MisuseError: not a name that a remote device can have.
    """
    reserved = (*local_backends(), *TRAINED_ON)
    if not _NAME.fullmatch(name) or name in reserved:
        expected = f"{NAME_WORDS}; not {', '.join(reserved)}"
        raise MisuseError("device", "not the name of a remote device", expected=expected, got=name)
    return name


def local_backends() -> dict[str, str]:
    """Names of this machine as a device -> the backend that measures under it, installed or not."""
    return {LOCAL: DEFAULT} | {f"{LOCAL}-{backend}": backend for backend in backend_names() if backend != DEFAULT}


def resource(name: str) -> str:
    """How the device's pool, announcement, rule and answers are called on the server."""
    return f"{FLOW}-{name}"


def names() -> list[str]:
    """Devices that were added, sorted."""
    return sorted(path.stem for path in _folder().glob("*.json") if _NAME.fullmatch(path.stem))


def read(name: str) -> Announcement | None:
    """What is known of a device; None when it was never added.

    Raises:
        MixbitError: the file is damaged.
    """
    try:
        content = _path(check_name(name)).read_bytes()
    except (FileNotFoundError, MisuseError):
        return None
    try:
        return Announcement.from_json(name, json.loads(content))
    except ValueError:
        raise MixbitError(str(_path(name)), "damaged", hint=f"`mixbit devices add {name}` writes it again") from None


def write(name: str, announcement: Announcement) -> None:
    """Remember a device, or what it says now; whole or not at all."""
    path = _path(check_name(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(announcement.to_json(), indent=2, sort_keys=True) + "\n")
    partial.replace(path)


def remove(name: str) -> bool:
    """Forget a device; whether it was known."""
    path = _path(check_name(name))
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


def _folder() -> Path:
    return state_dir() / "devices"


def _path(name: str) -> Path:
    return _folder() / f"{name}.json"
