"""Some of the pictures, for methods that judge a model without training it."""

import torch
from torch import Tensor

from mixbit.training.batches import Pictures, normalize, stream


def sample(pictures: Pictures, count: int, seed: int) -> Pictures:
    """`count` pictures drawn by seed; all of them in their own order, whatever the seed, where there are no more."""
    if count >= len(pictures):
        return pictures
    order = torch.randperm(len(pictures), generator=stream(seed, "sample"))
    return pictures.subset(order[:count])


def inputs_of(pictures: Pictures) -> Tensor:
    """Model inputs of all pictures, float32 [N, C, H, W]."""
    return normalize(pictures.x, pictures.info)
