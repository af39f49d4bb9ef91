"""Batch normalisation, an added shortcut and ReLU as one operation, where a compiled extension is there.

On a processor these three are a quarter of a training step of a thin network in bfloat16, all of it reading
and writing. fused_batchnorm.cpp does it in fewer passes (docs/explanation/performance.md). It rounds
otherwise than torch: statistics and sums are nearer to exact, and nothing is rounded between the three. So a
training decides once, at its start, whether it uses the extension (`fuse`), and run.json says so.
"""

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from longtail.stage_one.networks.batchnorm import BatchNorm
from longtail.stage_one.networks.extension import Extension, extension

PERIOD = 64  # of the extension: channels divide it, and it divides the number of values


class FusableBatchNorm(BatchNorm):
    """Batch normalisation whose output goes through `bn_relu`.

    Attributes:
        extension: what computes it in training, once `fuse` has said so.
    """

    extension: Extension | None = None


def fuse(parts: Iterable[nn.Module], device: torch.device, precision: str) -> str | None:
    """Let the extension compute batch normalisation in what learns, where it is there and of use.

    That is in bf16 on a processor with one thread: torch's operations use several, and in float32 the
    convolutions take so long that little is won.

    Args:
        parts: of a network, those that learn.
        device: where.
        precision: "bf16" or "float32".

    Returns:
        What run.json says of it, None where all is as without the extension.
    """
    if device.type != "cpu" or precision != "bf16" or torch.get_num_threads() > 1:
        return None
    layers = [
        layer
        for part in parts
        for layer in part.modules()
        if isinstance(layer, FusableBatchNorm) and PERIOD % layer.num_features == 0
    ]
    found = extension() if layers else None
    for layer in layers:
        layer.extension = found
    return found.name if found else None


def bn_relu(bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(bn(x) + shortcut) of (B, C, H, W); without gradients or in evaluation always torch's operations.

    The extension's gradient cannot be differentiated a second time, which torch says where it is tried.
    """
    fused = getattr(bn, "extension", None)
    if fused is not None and _takes(bn, x, shortcut):
        found: Tensor = _Fused.apply(
            fused, x, shortcut, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps
        )
        return found
    out: Tensor = bn(x)
    if shortcut is not None:
        out = out.add_(shortcut)
    return F.relu(out, inplace=True)


def _takes(bn: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None) -> bool:
    """Whether the extension computes what torch would; it is asked at every call, so it is quick."""
    if not (bn.training and torch.is_grad_enabled()) or _is_watched(bn):
        return False
    numbers = bn.weight, bn.bias, bn.running_mean, bn.running_var
    channels, values = bn.num_features, x.numel()
    return (
        x.device.type == "cpu"
        and _is_plain(x, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] == channels
        and PERIOD % channels == 0
        and values % PERIOD == 0
        and values > channels  # of one value a channel torch has an error to tell
        and (shortcut is None or (_is_plain(shortcut, torch.bfloat16) and shortcut.shape == x.shape))
        and all([_is_plain(tensor, torch.float32) and tensor.is_contiguous() for tensor in numbers])
        and bn.track_running_stats
        and bn.num_batches_tracked is None
        and isinstance(bn.momentum, float)
        and (x.requires_grad or bn.weight.requires_grad or bn.bias.requires_grad)
    )


def _is_watched(bn: nn.Module) -> bool:
    """Whether something would miss torch's operations: hooks, torch.func, forward mode, a compiler."""
    return bool(
        bn._forward_hooks
        or bn._forward_pre_hooks
        or bn._backward_hooks
        or bn._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )


def _is_plain(tensor: Tensor | None, dtype: torch.dtype) -> TypeGuard[Tensor]:
    """Whether it is numbers of a type in the memory of the host, and not something in their place."""
    if type(tensor) is not Tensor and type(tensor) is not nn.Parameter:
        return False
    return tensor.is_cpu and tensor.dtype is dtype


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fused: Extension,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        channels, y = len(weight), torch.empty_like(x)
        statistics = torch.empty(3, channels)
        if shortcut is not None:
            shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        fused.forward(
            *(x.data_ptr(), _address(shortcut), y.data_ptr(), x.numel(), channels),
            *(weight.data_ptr(), bias.data_ptr(), running_mean.data_ptr(), running_var.data_ptr()),
            *(momentum, eps, statistics.data_ptr()),
        )
        ctx.fused = fused
        # with a shortcut y tells what ReLU let through; the next convolution keeps it anyway
        ctx.save_for_backward(x, None if shortcut is None else y, bias, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, bias, statistics = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dshortcut = torch.empty_like(x), None if y is None else torch.empty_like(x)
        dweight, dbias = torch.empty_like(bias), torch.empty_like(bias)
        ctx.fused.backward(
            *(dy.data_ptr(), x.data_ptr(), _address(y), _address(dshortcut), dx.data_ptr()),
            *(x.numel(), len(bias), bias.data_ptr(), statistics.data_ptr()),
            *(dweight.data_ptr(), dbias.data_ptr()),
        )
        return None, dx, dshortcut, dweight, dbias, None, None, None, None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
