"""A tiny network and 64 pictures for the methods of policies/indicators."""

import torch

from mixbit.load import load_method
from mixbit.models.graph import describe_layers
from mixbit.models.resnet import ResNet
from mixbit.policy import canonical_json
from mixbit.training.batches import Pictures
from mixbit.training.task import classification

FOLDER = "policies.indicators"
NUM_BITS = (2, 4, 6)
SHAPE = (1, 6, 6)
# Where the defaults would take more than seconds.
QUICK = {"limpq": {"epochs": 1, "batch_size": 32}, "hawq": {"probes": 6}}


def pictures(count=64):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % 3
    return Pictures(x, y, {"mean": [0.0], "std": [1.0], "num_classes": 3})


def resnet():
    torch.manual_seed(0)
    return ResNet(1, num_classes=3, in_channels=1, width=2).eval()


def searched(layers):
    return [layer["name"] for layer in layers["layers"]][1:-1]


def quiet(done, total, note):
    pass


def compute(
    name, folder, *, net=None, given=None, layers=None, names=None, num_bits=NUM_BITS, seed=0, progress=quiet,
    task=None, **settings,
):  # fmt: skip
    """(indicators, tensors) of a method on the tiny case."""
    method, net = load_method(FOLDER, name), net or resnet()
    layers = layers or describe_layers(net, SHAPE)
    return method.compute_indicators(
        model=net, layers=layers, pictures=given or pictures(), task=task or classification(),
        settings=method.Settings(**{**QUICK.get(name, {}), **settings}), num_bits=num_bits,
        searched=names or searched(layers), seed=seed, checkpoint=folder, progress=progress,
    )  # fmt: skip


def as_bytes(result):
    from safetensors.torch import save

    return canonical_json(result[0]), save(result[1])
