import os
import signal
import subprocess
import sys

import pytest

CHILD = """
import time
from mixbit.devices.parent import end_with_parent
end_with_parent()
print('up', flush=True)
time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a measurement ends at its own limit")
def test_a_measurement_ends_with_the_run_that_asked_for_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    with parent.stdout as told:
        assert told.readline() == "up\n"
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        assert told.read() == ""  # the pipe ends with its last holder
