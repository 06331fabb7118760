"""LSQ: uniform quantizers whose step size is learned (Esser et al. 2020, https://arxiv.org/abs/1902.08153)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mixbit.errors import MisuseError
from mixbit.policy import NumBits

# Below this, x / scale overflows for ordinary x; far under any step size that training can use.
MIN_SCALE = torch.finfo(torch.float32).eps
_ORDERS = (torch.contiguous_format, torch.channels_last)
_hardtanh_backward: Callable[[Tensor, Tensor, float, float], Tensor] = torch.ops.aten.hardtanh_backward


def quant_range(num_bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest code: [-2^(b-1), 2^(b-1)-1] signed, [0, 2^b-1] unsigned.

    Example:
        >>> quant_range(4, signed=True), quant_range(4, signed=False)
        ((-8, 7), (0, 15))
    """
    return (-(1 << num_bits - 1), (1 << num_bits - 1) - 1) if signed else (0, (1 << num_bits) - 1)


class _FakeQuantize(torch.autograd.Function):
    """Clip, then round, as LSQ does: what lies between quant_max and quant_max + 1/2 counts as clipped."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, x: Tensor, scale: Tensor, quant_min: int, quant_max: int, grad_scale: float
    ) -> Tensor:
        out = (x / scale).clamp_(quant_min, quant_max).round_().mul_(scale)
        # The layers before and after hold x and out anyway, and with both there is nothing to compute again.
        ctx.save_for_backward(x, scale, out)
        ctx.quant_min, ctx.quant_max, ctx.grad_scale = quant_min, quant_max, grad_scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, scale, out = ctx.saved_tensors
        grad_x = _grad_inside(grad, x, scale, ctx.quant_min, ctx.quant_max)
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None, None
        # The slope is (out - x) / scale inside the range and out / scale outside, where grad_x is 0.
        grad_of_scale = _inner(grad, out, scale) - _inner(grad_x, x, scale)
        grad_of_scale.div_(scale).mul_(ctx.grad_scale)
        return grad_x if ctx.needs_input_grad[0] else None, grad_of_scale, None, None, None


def _grad_inside(grad: Tensor, x: Tensor, scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """The gradient where quant_min <= x / scale <= quant_max, to within rounding; 0 elsewhere."""
    limits = torch.finfo(x.dtype)
    # The kernel, one pass without a mask, leaves its bounds out: a little further they are in.
    widened = 1 + 2 * limits.eps
    low, high = quant_min * widened, quant_max * widened
    if scale.numel() == 1 and scale.device.type == "cpu":
        step = scale.item()
        return _hardtanh_backward(grad, x, low * step - limits.tiny, high * step)
    # Asking a device for the step would wait for it; so would several steps.
    return _hardtanh_backward(grad, x / scale, low - limits.tiny, high)


def _inner(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Sum of left * right over what one scale serves, shaped as scale."""
    if scale.numel() == 1:
        for order in _ORDERS if left.ndim == 4 else _ORDERS[:1]:
            if left.is_contiguous(memory_format=order) and right.is_contiguous(memory_format=order):
                return torch.dot(_in_memory_order(left, order), _in_memory_order(right, order)).reshape(scale.shape)
    return (left * right).sum_to_size(scale.shape)


def _in_memory_order(x: Tensor, order: torch.memory_format) -> Tensor:
    return (x if order == torch.contiguous_format else x.permute(0, 2, 3, 1)).reshape(-1)


def fake_quantize(x: Tensor, scale: Tensor, quant_min: int, quant_max: int, grad_scale: float) -> Tensor:
    """`round(clip(x / scale, quant_min, quant_max)) * scale`, half to even, with the LSQ gradient.

    d/dx is 1 where quant_min <= x/scale <= quant_max, else 0. d/dscale is quant_min below, quant_max above and
    round(x/scale) - x/scale between, summed over what one scale serves, times grad_scale.

    Args:
        x: float, any shape.
        scale: positive, [] (per tensor) or broadcastable to x, such as [C, 1, 1, 1] (per_channel).
        quant_min: smallest code.
        quant_max: largest code.
        grad_scale: LSQ's g = 1 / sqrt(N * quant_max), N = elements per scale.

    Returns:
        Shaped as x.
    """
    return _FakeQuantize.apply(x, scale, quant_min, quant_max, grad_scale)  # type: ignore[no-any-return]


def initial_scale(x: Tensor, num_bits: int, signed: bool, channel_dim: int | None = None) -> Tensor:
    """LSQ's first step size, 2 E|x| / sqrt(quant_max); never zero.

    Args:
        x: float, any shape.
        num_bits: 2 to 8.
        signed: whether codes may be negative.
        channel_dim: one scale per index of this dimension; None for one scale.

    Returns:
        [] or, per_channel, [1, .., C, .., 1] with C at channel_dim.
    """
    _, quant_max = quant_range(num_bits, signed)
    return positive(per_channel_mean(x.detach().abs(), channel_dim) * (2 / math.sqrt(quant_max)))


def per_channel_mean(x: Tensor, channel_dim: int | None) -> Tensor:
    """Mean over everything but channel_dim, which stays; over everything, shape [], when it is None."""
    if channel_dim is None:
        return x.mean()
    others = [dim for dim in range(x.ndim) if dim != channel_dim % x.ndim]
    return x.mean(dim=others, keepdim=True) if others else x.clone()


def positive(scale: Tensor) -> Tensor:
    """Scales of all-zero channels take the largest of the tensor; an all-zero tensor takes 1."""
    largest = scale.max()
    fallback = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.where(scale > 0, scale, fallback).clamp_(min=MIN_SCALE)


class Quantizer(nn.Module):
    """The quantizer of one tensor at one num_bits.

    Args:
        scale: positive, [] or [1, .., C, .., 1] with C at channel_dim; learned from here on.
        num_bits: 2 to 8.
        signed: whether codes may be negative; kept in the state_dict.
        channel_dim: the dimension with a scale per index, None per tensor.
        name: what the exported marker is called.
    """

    signed: Tensor

    def __init__(
        self, scale: Tensor, *, num_bits: int, signed: bool, channel_dim: int | None = None, name: str = ""
    ) -> None:
        super().__init__()
        self.num_bits, self.channel_dim, self.name = num_bits, channel_dim, name
        self.scale = nn.Parameter(scale.detach().clone())
        self.register_buffer("signed", torch.tensor(signed))
        self.quant_min, self.quant_max = quant_range(num_bits, signed)
        self.register_load_state_dict_post_hook(_sync_range_)

    @property
    def per_channel(self) -> bool:
        """Whether each channel has its own scale."""
        return self.channel_dim is not None

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x, any shape; while exporting, leave a marker that the lowering turns into integers."""
        if torch.onnx.is_in_onnx_export():
            return self._marker(x)
        elements = x.numel() // self.scale.numel()
        grad_scale = 1 / math.sqrt(max(elements, 1) * self.quant_max)
        return fake_quantize(x, self.scale, self.quant_min, self.quant_max, grad_scale)

    def _marker(self, x: Tensor) -> Tensor:
        attrs: dict[str, Any] = {
            "num_bits": self.num_bits,
            "signed": int(self.quant_min < 0),
            "axis": -1 if self.channel_dim is None else self.channel_dim,
            "name": self.name,
        }
        return torch.onnx.ops.symbolic(
            "mixbit::FakeQuant", (x, self.scale), attrs=attrs, dtype=x.dtype, shape=x.shape, version=1
        )

    def extra_repr(self) -> str:
        """Bits, sign and granularity."""
        sign = "signed" if self.quant_min < 0 else "unsigned"
        return f"{self.num_bits} bit, {sign}, {'per_channel' if self.per_channel else 'per tensor'}"


def _sync_range_(quantizer: Quantizer, _incompatible_keys: object) -> None:
    # The range lives in Python integers: asking the buffer in every forward would wait for the device.
    quantizer.quant_min, quantizer.quant_max = quant_range(quantizer.num_bits, bool(quantizer.signed))


class MultiQuantizer(nn.Module):
    """One tensor's quantizers, a step size per candidate num_bits; `num_bits` says which is in use.

    Args:
        scales: positive scalar scale, [], by candidate num_bits.
        signed: whether codes may be negative; kept in the state_dict.
    """

    signed: Tensor

    def __init__(self, scales: Mapping[int, Tensor], *, signed: bool) -> None:
        super().__init__()
        self.scales = nn.ParameterDict(
            {str(num_bits): nn.Parameter(scale.detach().clone()) for num_bits, scale in scales.items()}
        )
        self.register_buffer("signed", torch.tensor(signed))
        self._ranges = {num_bits: quant_range(num_bits, signed) for num_bits in scales}
        self._in_use: NumBits = "float"

    @property
    def num_bits(self) -> NumBits:
        """The candidate in use; `float` passes tensors through."""
        return self._in_use

    @num_bits.setter
    def num_bits(self, value: NumBits) -> None:
        if value != "float" and value not in self._ranges:
            raise MisuseError("super-net", "no such candidate num_bits", expected=[*self._ranges, "float"], got=value)
        self._in_use = value

    def scale(self, num_bits: int) -> nn.Parameter:
        """The step size of one candidate, shape []."""
        scale: nn.Parameter = self.scales[str(num_bits)]
        return scale

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize x, any shape, at the num_bits in use."""
        if self._in_use == "float":
            return x
        quant_min, quant_max = self._ranges[self._in_use]
        grad_scale = 1 / math.sqrt(max(x.numel(), 1) * quant_max)
        return fake_quantize(x, self.scales[str(self._in_use)], quant_min, quant_max, grad_scale)


@torch.no_grad()
def clamp_scales_(model: nn.Module) -> None:
    """Keep every step size of model positive; call after each optimizer step.

    There is no upper bound, and no clamp in forward: either would stop gradients (LIMPQ's code clamps to [1e-5, 1]).
    """
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.scale.clamp_(min=MIN_SCALE)
        elif isinstance(module, MultiQuantizer):
            for scale in module.scales.values():
                scale.clamp_(min=MIN_SCALE)
