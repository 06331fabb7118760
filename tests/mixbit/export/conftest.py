from dataclasses import dataclass

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from mixbit.export.check import Recorded, activation_quantizers, record
from mixbit.export.compact import compact
from mixbit.export.marker import marker_graph
from mixbit.export.packed import lower_packed
from mixbit.export.save import to_bytes
from mixbit.models.graph import describe_layers
from mixbit.models.quantize import build_quantized
from mixbit.models.settle import settle_

SHAPE = (3, 9, 9)
WIDTHS = [(8, 8), (3, 5), (5, 3), (6, 7), (2, 6), (7, 2), (4, 4), (8, 8)]


class Small(nn.Module):
    """Depthwise, signed activations, negative gamma, a residual add, pooling and a Linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(16)
        self.linear_out, self.linear_out_bn = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.signed_in = nn.Conv2d(16, 24, 3, stride=2, dilation=2, padding=2)
        self.wide, self.wide_bn = nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.tail, self.tail_bn = nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.hidden = nn.Linear(24, 40)
        self.head = nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = nn.functional.relu6(self.depthwise_bn(self.depthwise(x)))
        x = self.linear_out_bn(self.linear_out(x))
        x = torch.relu(self.signed_in(x))
        y = torch.relu(self.wide_bn(self.wide(x)))
        x = torch.relu(self.tail_bn(self.tail(y)) + x)
        x = torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)
        return self.head(torch.relu(self.hidden(x)))


@dataclass(frozen=True)
class Case:
    model: nn.Module
    policy: dict
    layers: dict
    marked: ir.Model
    packed: bytes
    x: Tensor
    recorded: Recorded


def make_case(
    widths: list,
    shape: tuple = SHAPE,
    network: nn.Module | None = None,
    *,
    settled: bool = True,
    switched_off: tuple = (),
) -> Case:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = (network or Small()).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, 0.3, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
    for name in switched_off:
        batchnorm = network.get_submodule(name)
        nn.init.zeros_(batchnorm.weight[:2])
        nn.init.zeros_(batchnorm.bias[:2])
    x = torch.randn(64, *shape)
    layers = describe_layers(network, shape)
    policy = make_policy(layers, widths)
    model = build_quantized(network, layers, policy, x[:32])
    if settled:
        settle_(model)
    marked = marker_graph(model, shape)
    recorded = record(model, activation_quantizers(marked), x)
    return Case(model, policy, layers, marked, to_bytes(compact(lower_packed(marked))), x, recorded)


def make_policy(layers: dict, widths: list) -> dict:
    """Widths in turn; layers that read one tensor take the activation bits of the first."""
    names = [layer["name"] for layer in layers["layers"]]
    policy = dict(zip(names, widths * len(names), strict=False))
    for first, *others in layers["shared_activations"]:
        policy |= {name: (policy[name][0], policy[first][1]) for name in others}
    return policy


@pytest.fixture(scope="session")
def mixed() -> Case:
    """Every width from 2 to 8, weights and activations apart."""
    return make_case(WIDTHS)


@pytest.fixture(scope="session")
def plain() -> Case:
    """The float network."""
    return make_case([("float", "float")])
