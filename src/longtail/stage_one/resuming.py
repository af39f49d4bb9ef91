"""What a training leaves in its checkpoint, and how it goes on from there."""

import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.stage_one import checkpoint
from longtail.stage_one.phase import Phase, State


def make_optimiser(
    phase: Phase, modules: nn.ModuleDict, momentum: dict[str, Tensor]
) -> tuple[torch.optim.Optimizer, Tensor]:
    """The optimiser of a phase with the momentum it had, and its groups' rates, a tensor that it reads."""
    parameters = {name: p for name, p in modules.named_parameters() if p.requires_grad}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(phase.rate_factor(name), []).append(parameter)
    rates = torch.zeros(len(groups), device=phase.images.device)
    optimiser = torch.optim.SGD(
        [
            {"params": group, "factor": factor, "lr": rate}
            for (factor, group), rate in zip(groups.items(), rates, strict=True)
        ],
        momentum=phase.optimiser.momentum,
        weight_decay=phase.optimiser.weight_decay,
        nesterov=phase.optimiser.nesterov,
        fused=True,
    )
    for name, buffer in momentum.items():
        parameter = parameters[name]
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    return optimiser, rates


def begin_momentum(optimiser: torch.optim.Optimizer) -> None:
    """Give parameters that have a gradient for the first time a momentum of nought, where others have theirs.

    The first step of such a momentum is that of none; torch's fused descent takes all of a group or none.
    """
    for group in optimiser.param_groups:
        reached = [parameter for parameter in group["params"] if parameter.grad is not None]
        new = [p for p in reached if optimiser.state.get(p, {}).get("momentum_buffer") is None]
        for parameter in new if len(new) < len(reached) else ():
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def save(path: Path, modules: nn.ModuleDict, optimiser: torch.optim.Optimizer, state: State) -> None:
    """Write modules, momentum and state as a checkpoint."""
    tensors = {f"modules.{name}": tensor for name, tensor in modules.state_dict().items()}
    for name, parameter in modules.named_parameters():
        buffer = optimiser.state[parameter].get("momentum_buffer") if parameter in optimiser.state else None
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    checkpoint.write(path, tensors, asdict(state))


def patience() -> float:
    """Seconds between two checkpoints: LONGTAIL_CHECKPOINT_SECONDS, else 5.

    Raises:
        UserError: if it is no number of at least 0.
    """
    given = os.environ.get("LONGTAIL_CHECKPOINT_SECONDS") or "5"
    with suppress(ValueError):
        if (seconds := float(given)) >= 0:
            return seconds
    raise UserError(f"LONGTAIL_CHECKPOINT_SECONDS={given}: should be a number of seconds, 0 or more")


def left(path: Path, environment: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of a checkpoint that may be gone on from; None: begin at the start.

    Raises:
        UserError: if LONGTAIL_RESUME is neither strict nor empty.
    """
    strictly = os.environ.get("LONGTAIL_RESUME", "")
    if strictly not in ("", "strict"):
        raise UserError(f"LONGTAIL_RESUME={strictly}: should be strict, or not be set")
    found = checkpoint.read(path)
    if found is None:
        return None
    tensors, state = found
    if "environment" in state:  # as it was written before it was gone on from elsewhere
        state["environments"] = [state.pop("environment")]
    if (was := state.get("environments", [""])[-1]) != environment:
        if strictly:
            checkpoint.discard(path, f"of another environment ({was}, here {environment})")
            return None
        print(
            f"{path}: goes on from {was} on {environment}: no longer bit-repeatable, as run.json will say "
            "(LONGTAIL_RESUME=strict starts anew)",
            file=sys.stderr,
            flush=True,
        )
    if set(state) != set(State.__dataclass_fields__):
        checkpoint.discard(path, "of other code, which counted otherwise")
        return None
    return tensors, state


def resume(
    tensors: dict[str, Tensor], state: dict[str, Any], modules: nn.ModuleDict
) -> tuple[State, dict[str, Tensor]]:
    """State and momentum of a checkpoint, whose tensors go into the modules."""
    parts: dict[str, dict[str, Tensor]] = {"modules": {}, "momentum": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    modules.load_state_dict(parts["modules"])
    return State(**state), parts["momentum"]
