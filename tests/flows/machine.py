"""Machines for tests: Linux namespaces with a root, a disk, processes and an address of their own, on a bridge.

Of the host they see its operating system (/usr), one Python and the bridge, all but the last read-only.
"""

import os
import random
import shlex
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tasks.place import ROOT
from tests.flows.board import Board

NEEDED = ("ip", "nsenter", "unshare", "pivot_root")
REQUIRED = "MIXBIT_NAMESPACES"  # set in CI, where a skip would go unseen
DISK, CODE, ENVIRONMENT = "/disk", "/opt/code", "/opt/mixbit-env"
# Arguments: an empty folder, bytes of the disk, a folder of code or "", then pairs of what to show and where.
BOOT = """
set -e
root=$1 size=$2 code=$3; shift 3
mount -t tmpfs machine "$root"; cd "$root"
mkdir -p proc sys dev dev/shm tmp root etc usr opt disk old
for name in bin sbin lib lib64; do [ ! -L /$name ] || cp -P /$name .; done
echo '127.0.0.1 localhost' > etc/hosts
for name in null zero full random urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
while [ $# -gt 0 ]; do mkdir -p ".$2"; mount --bind "$1" ".$2"; mount -o remount,bind,ro ".$2"; shift 2; done
[ -z "$code" ] || { mkdir opt/code; cp -r "$code" opt/code; }
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o size=$size disk disk; mount -t tmpfs shm dev/shm; mount -t tmpfs tmp tmp
pivot_root . old; cd /; umount -l old; rmdir old
echo up; exec cat > /dev/null
"""


def require_namespaces():
    """Skip where none can be made; fail where they are asked for."""
    absent = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    why = f"no {', '.join(absent)}" if absent else _refusal()
    if why and os.environ.get(REQUIRED):
        pytest.fail(f"${REQUIRED} asks for namespaces: {why}")
    if why:
        pytest.skip(f"network namespaces can't be made here: {why}")


def _refusal():
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of a Linux machine can make them"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return tried.stderr.decode().strip()


def sh(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}: {done.stderr}"
    return done.stdout


class Bridge:
    """A network of this host alone, in the addresses that are set aside for tests of networks (RFC 2544)."""

    def __init__(self):
        self.name, self.machines = f"mb{uuid.uuid4().hex[:8]}", 0
        taken = sh("ip", "-4", "route")
        subnets = [f"198.{18 + one // 256}.{one % 256}" for one in range(512)]
        self.subnet = random.choice([one for one in subnets if f"{one}." not in taken])
        self.address = f"{self.subnet}.1"
        sh("ip", "link", "add", self.name, "type", "bridge")
        sh("ip", "address", "add", f"{self.address}/24", "dev", self.name)
        sh("ip", "link", "set", self.name, "up")

    def plug(self, pid):
        """A wire to the network namespace of a process; machines reach the host, not each other."""
        self.machines += 1
        end = f"{self.name}p{self.machines}"
        sh("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", pid)
        sh("ip", "link", "set", end, "master", self.name, "up")
        sh("ip", "link", "set", end, "type", "bridge_slave", "isolated", "on")
        inside = ["nsenter", "--target", pid, "--net", "ip"]
        sh(*inside, "address", "add", f"{self.subnet}.{1 + self.machines}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            sh(*inside, "link", "set", device, "up")

    def remove(self):
        sh("ip", "link", "delete", self.name)


@dataclass
class Machine(Board):
    """A device in namespaces of its own; it is there from `boot` on, and gone with the process that made it.

    `folder` is an empty folder of the host, where the machine's root is mounted, for itself alone. `environment` is
    the folder of a virtual environment; without one the tests' own, with a copy of mixbit on its path.
    """

    environment: Path | None = None
    disk_bytes: int = 200_000_000
    holder: subprocess.Popen | None = field(default=None, repr=False)

    def boot(self, bridge):
        """Make the machine and plug it in."""
        root = self.folder / "root"
        root.mkdir(parents=True)  # of the folder, this alone is the machine's
        shown = [("/usr", "/usr"), (self.environment or sys.prefix, ENVIRONMENT)]
        if not sys.base_prefix.startswith("/usr"):
            shown.append((sys.base_prefix, sys.base_prefix))
        code = "" if self.environment else ROOT / "mixbit"
        words = [root, self.disk_bytes, code, *(word for pair in shown for word in pair)]
        apart = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        self.holder = subprocess.Popen(
            [*apart, "--propagation", "private", "sh", "-c", BOOT, "sh", *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.holder.stdout.readline() == b"up\n"
        bridge.plug(self.pid)
        return self

    @property
    def pid(self):
        """On the host, of the machine's first process."""
        return psutil.Process(self.holder.pid).children()[0].pid

    def inside(self, *command):
        """The command that runs another one on this machine."""
        own = ["env", "-i", "PATH=/usr/bin:/usr/sbin", "HOME=/root", f"PYTHONPATH={'' if self.environment else CODE}"]
        enter = ["nsenter", "--target", self.pid, "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd"]
        return [str(word) for word in (*enter, *own, *command)]

    def sh(self, line):
        """Run a shell line on this machine: its exit code and what it printed."""
        done = subprocess.run(
            self.inside("sh", "-c", line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.returncode, done.stdout.strip()

    def command(self):
        own = ["-m", "mixbit.devices.command"] if self.environment is None else [f"{ENVIRONMENT}/bin/mixbit-device"]
        serve = ["serve", "--name", self.name, "--server", self.url, "--folder", DISK]
        return self.inside(f"{ENVIRONMENT}/bin/python", *own, *serve)

    def worker(self):
        """`nsenter` waits outside for the process that it started in here."""
        return psutil.Process(self.process.pid).children()[0]

    def switch_off(self):
        """With everything that runs on it, and all that its disk holds."""
        self.holder.communicate(timeout=30)
        if self.process is not None:
            self.process.wait(30)
