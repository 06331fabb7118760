import pytest
import torch

from mixbit.errors import MixbitError
from mixbit.training.numerics import fixed_numerics


def test_threads_and_randomness_are_as_before_afterwards():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with fixed_numerics(threads + 1):
        assert torch.get_num_threads() == threads + 1
        torch.rand(1)
    assert torch.get_num_threads() == threads
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_an_error():
    with pytest.raises(MixbitError, match="no CUDA device"), fixed_numerics(1, "cuda"):
        pass
