"""Settings of torch that change bytes, held for the length of a stage."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mixbit.errors import MixbitError


@contextmanager
def fixed_numerics(threads: int, device: str = "cpu") -> Iterator[None]:
    """Fix the number of threads and the kernels' choice, so that equal inputs give equal bytes; undone on leaving.

    The global random state is also restored: steps seed it for dropout.

    Raises:
        MixbitError: CUDA was asked for and is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MixbitError("device", "no CUDA device", expected="cpu here", got="cuda")
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = before[1:]
