import resource
import sys

import pytest
import torch

from mixbit.training import memory
from mixbit.training.memory import kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")


def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(1 << 20) for _ in range(64)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(memory.platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_step_finds_the_memory_of_those_before():
    with kept_memory():
        assert min(faults_of_a_step() for _ in range(10)) < 100  # a heap that others used settles in a few steps
    assert faults_of_a_step() > 1000


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("loaded"))
    with kept_memory():
        faults_of_a_step()
