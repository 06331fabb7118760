"""What `servers.json` remembers of the local servers, and the lock under which it changes."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.server_process import LOOPBACK, ServerProcess
from tasks.store import write_atomic


@dataclass(frozen=True)
class Known:
    """A local server as `servers.json` remembers it; port and address outlive the process."""

    port: int
    process: ServerProcess | None = None
    host: str = LOOPBACK

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def lock(state: Path) -> Iterator[None]:
    """One command at a time starts or stops; the kernel frees it when its holder dies."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "servers.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(state: Path) -> dict[str, Known]:
    """The servers by name; none where nothing, or nothing of use, is remembered."""
    try:
        data = json.loads((state / "servers.json").read_bytes())
        return {
            name: Known(
                int(one["port"]),
                ServerProcess(**one["process"]) if one["process"] else None,
                str(one.get("host", LOOPBACK)),
            )
            for name, one in data.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write(state: Path, known: Mapping[str, Known]) -> None:
    """Remember them; whole or not at all."""
    content = {name: asdict(server) for name, server in known.items()}
    write_atomic(state / "servers.json", json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")
