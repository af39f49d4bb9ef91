"""Adapters of vision transformers: a few parameters a block that learn, in a trunk that stays as published.

AdaptFormer (Chen et al. 2022) stands beside a block's MLP, LoRA (Hu et al. 2022) beside its projections to
queries and values; sizes, starts and scales are those of LIFT's public code (Shi et al. 2024). Both begin as
nothing: what leads up is 0.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import UserError


class Adapted(nn.Module):
    """A module of a trunk and the adapter beside it: their sum."""

    def __init__(self, inner: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.inner, self.adapter = inner, adapter

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, d) to what the module makes of them."""
        found: Tensor = self.inner(x) + self.adapter(x)
        return found


class AdaptFormer(nn.Module):
    """s W_up ReLU(W_down LN(x)) with a scale s that is learnt.

    x is what the block's MLP reads, already normalised [ours; LIFT's: what the block's second half reads], so
    that it fits any block with an MLP.
    """

    def __init__(self, dimensions: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimensions)
        self.down, self.up = nn.Linear(dimensions, bottleneck), nn.Linear(bottleneck, dimensions)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, d) to as many."""
        found: Tensor = self.scale * self.up(self.down(self.norm(x)).relu())
        return found


class QueryValueLora(nn.Module):
    """x A B / r beside queries and values of one projection (B, N, d) to (B, N, 3 d); nothing beside keys."""

    def __init__(self, dimensions: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ParameterList(torch.empty(dimensions, rank) for _ in range(2))
        self.up = nn.ParameterList(torch.zeros(rank, dimensions) for _ in range(2))
        self.rank = rank
        for matrix in self.down:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, d) to what is added to their queries, keys and values, (B, N, 3 d)."""
        query, value = (x @ a @ b / self.rank for a, b in zip(self.down, self.up, strict=True))
        return torch.cat([query, torch.zeros_like(query), value], dim=-1)


def automatic_bottleneck(classes: int, blocks: int) -> int:
    """LIFT's 2^floor(log2(C / 2L)), at least 1: about as many parameters as a head has."""
    return max(1, int(2 ** math.floor(math.log2(classes / (2 * blocks)))))


def adapt(backbone: nn.Module, form: str, bottleneck: int | None, classes: int) -> nn.ModuleList:
    """Put an adapter into every block of a vision transformer of timm's; the adapters.

    Args:
        backbone: has `blocks`, each with an `mlp`, or an `attn` with the one projection `qkv`.
        form: adaptformer or lora.
        bottleneck: width of each; None: `automatic_bottleneck`.
        classes: that the head tells apart.

    Raises:
        UserError: if it has no such blocks.
    """
    blocks: Any = getattr(backbone, "blocks", None)
    added = nn.ModuleList()
    for block in blocks if isinstance(blocks, nn.Sequential | nn.ModuleList) else ():
        width = bottleneck or automatic_bottleneck(classes, len(blocks))
        owner, name = (block, "mlp") if form == "adaptformer" else (getattr(block, "attn", None), "qkv")
        inner = getattr(owner, name, None)
        if owner is None or inner is None:
            break
        first = next(part for part in inner.modules() if isinstance(part, nn.Linear))
        adapter = (AdaptFormer if form == "adaptformer" else QueryValueLora)(first.in_features, width)
        setattr(owner, name, Adapted(inner, adapter))
        added.append(adapter)
    if not added or len(added) != len(blocks):
        raise UserError(
            f"network timm_model: {type(backbone).__name__} has no blocks for adapters ({form}); "
            "take a vision transformer, e.g. vit_small_patch16_224, or leave adapters out"
        )
    return added


def take_trunk(adapted: nn.Module, plain: nn.Module) -> None:
    """Give a trunk with adapters the tensors of the same trunk without; the adapters stay as they are."""
    own = {name.replace(".inner.", "."): tensor for name, tensor in adapted.state_dict().items()}
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            own[name].copy_(tensor)
