"""Which parts of a network learn, where a phase leaves others as they are; the network says what they are."""

from torch import nn

from longtail.errors import UserError
from longtail.settings.phase import Freeze


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
    part = getattr(network, freeze.removeprefix("all_but_"), None)
    if part is None:
        raise UserError(
            f"freeze: {freeze}: this network ({type(network).__name__}) does not say what that is; "
            "take trunk or none"
        )
    return [part, head]
