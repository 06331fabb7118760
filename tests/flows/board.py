"""A device for tests: `mixbit-device serve` in a process of its own, in a folder of its own."""

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.server_process import wait_until
from mixbit.devices.server import Server
from tasks.place import ROOT

JOIN_S = 90.0


@dataclass
class Board:
    """One machine that measures; `python` may be of another environment."""

    folder: Path
    url: str
    python: str = sys.executable
    path: str = str(ROOT)
    backend: str = "onnxruntime"
    name: str = field(default_factory=lambda: f"board-{uuid.uuid4().hex[:6]}")
    process: subprocess.Popen | None = None

    @property
    def server(self):
        return Server(f"{self.url}/api")

    def start(self):
        """Come online."""
        self.folder.mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env=environment | {"PYTHONPATH": self.path}, stdout=log, stderr=log
            )
        until(lambda: self.server.is_online(self.name) or self.process.poll() is not None, JOIN_S)
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self

    def command(self):
        serve = ["serve", "--name", self.name, "--server", self.url, "--folder", str(self.folder)]
        serve += ["--backend", self.backend]
        return [self.python, "-m", "mixbit.devices.command", *serve]

    def worker(self):
        """The process that waits for jobs."""
        return psutil.Process(self.process.pid)

    def stop(self):
        """Go offline in order."""
        if self.process is not None and self.process.poll() is None:
            self.worker().terminate()
            self.process.wait(30)
        for process in self.processes():
            process.kill()

    def processes(self, word=""):
        """Processes of this device besides the worker, whose command holds the word."""
        return [found for found in psutil.process_iter() if self._is_mine(found, word)]

    def _is_mine(self, found, word):
        try:
            return found.environ().get("MIXBIT_DEVICE_NAME") == self.name and word in " ".join(found.cmdline())
        except psutil.Error:
            return False

    def lose_power(self):
        """Everything of it dies at once, and says nothing."""
        for process in [self.worker(), *self.processes()]:
            process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def join(name, url):
    """Make what joining makes, without a worker: a device that was here and is away."""
    code = "import asyncio, sys; from mixbit.devices import serve; asyncio.run(serve.join(sys.argv[1]))"
    environment = os.environ | {"PREFECT_API_URL": f"{url}/api", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, name], env=environment, check=True)


def until(holds, timeout_s):
    """Wait until something is so."""
    assert wait_until(holds, timeout_s), "it did not come about in time"
