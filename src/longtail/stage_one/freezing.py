"""Which parts of a network learn or begin anew in a phase; the network says what they are."""

from torch import nn

from longtail.errors import UserError
from longtail.settings.phase import Apart, Freeze


def learning(network: nn.Module, freeze: Freeze) -> list[nn.Module]:
    """The parts that learn: all, the head, or the head and what the network has as its last block or stage.

    Args:
        network: with `head`; for the last two, with `last_block` and `last_stage`.
        freeze: what does not learn.

    Raises:
        UserError: if the network does not say what its last block or stage is.
    """
    if freeze == "none":
        return [network]
    head = network.get_submodule("head")
    if freeze == "trunk":
        return [head]
    return [_part(network, freeze.removeprefix("all_but_"), f"freeze: {freeze}", "trunk or none"), head]


def begun_anew(network: nn.Module, apart: Apart) -> list[nn.Module]:
    """The parts that a phase has for itself: none, all, or the head and the network's last block or stage.

    Args:
        network: as of `learning`.
        apart: what the phase shares with none before it.

    Raises:
        UserError: if the network does not say what its last block or stage is.
    """
    if apart == "none":
        return []
    if apart == "all":
        return [network]
    return [_part(network, apart, f"apart: {apart}", "all or none"), network.get_submodule("head")]


def _part(network: nn.Module, name: str, where: str, others: str) -> nn.Module:
    part = getattr(network, name, None)
    if part is None:
        raise UserError(
            f"{where}: this network ({type(network).__name__}) does not say what that is; take {others}"
        )
    found: nn.Module = part
    return found
