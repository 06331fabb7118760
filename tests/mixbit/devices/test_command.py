"""`mixbit-device` before it has joined anything."""

import subprocess
import sys

import pytest

from tasks.place import ROOT


def serve(*words):
    command = [sys.executable, "-m", "mixbit.devices.command", "serve", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--name", "pi5", "--server", "http://127.0.0.1:9"], 1, "the server does not answer"),
        (["--name", "pi5", "--server", "host.lan"], 2, "not the address of a server"),
        (["--name", "Pi 5", "--server", "http://127.0.0.1:9"], 2, "not the name of a remote device"),
        (["--name", "pi5", "--server", "http://127.0.0.1:9", "--backend", "tvm"], 2, "unknown backend"),
    ],
)
def test_what_can_not_work_is_one_line(tmp_path, words, code, line):
    done = serve(*words, "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_shows_an_example():
    assert "Example: mixbit-device serve --name pi5 --server http://" in serve("--help").stdout
