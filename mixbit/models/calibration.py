"""What a float network computes on calibration pictures, tensor by tensor, without keeping it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from mixbit.errors import MixbitError


def as_batch(calibration: Tensor | Sequence[Tensor]) -> Tensor:
    """Calibration pictures as one batch [N, C, H, W]."""
    return calibration if isinstance(calibration, Tensor) else torch.cat(list(calibration))


class _Observer(fx.Interpreter):
    def __init__(
        self, graph: fx.GraphModule, look: Callable[[fx.Node, Tensor], None], nodes: Iterable[fx.Node]
    ) -> None:
        super().__init__(graph)
        self._look, self._nodes = look, set(nodes)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._nodes:
            if not torch.isfinite(value).all():
                hint = "Check the weights, and the calibration pictures for NaN"
                raise MixbitError(n.name, "NaN or infinity in this tensor during calibration", hint=hint)
            self._look(n, value)
        return value


@torch.no_grad()
def observe(
    graph: fx.GraphModule, pictures: Tensor, nodes: Iterable[fx.Node], look: Callable[[fx.Node, Tensor], None]
) -> None:
    """Run graph on pictures and call `look(node, its tensor)` for each of nodes, in execution order.

    Raises:
        MixbitError: NaN or infinity in one of these tensors, or no pictures.
    """
    if not len(pictures):
        raise MixbitError("calibration", "no pictures", expected="at least one")
    device = next((p.device for p in graph.parameters()), pictures.device)
    _Observer(graph, look, nodes).run(pictures.to(device))
