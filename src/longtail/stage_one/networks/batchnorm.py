"""Batch normalisation that does not count its batches, for all networks.

The momentum is fixed, so that nothing reads the count; keeping it costs one kernel a layer and step.
"""

from typing import Any

from torch import Tensor, nn

COUNT = "num_batches_tracked"


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d without the count, which it leaves aside where a file of weights has one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # BatchNorm2d's own would invent a count for weights that come from a plain file of tensors.
        state.pop(prefix + COUNT, None)
        nn.Module._load_from_state_dict(self, state, prefix, *args)


def stop_counting(network: nn.Module) -> None:
    """Take the count from batch normalisation of any class, in networks that others have built."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked = None
            module.register_load_state_dict_pre_hook(_leave_count_aside)  # type: ignore[no-untyped-call]


def _leave_count_aside(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    # It runs after the class's own loading, which may have invented a count.
    state.pop(prefix + COUNT, None)
