"""Memory-retentive loss by graph matching (Asynchronous modelling, 2021), in our reading.

The authors say that such a loss keeps the relation between the two phases, and give no equation; all of
this is [ours]. The exemplars of a batch are the nodes of two graphs: of their features before the phase,
and of those that the network gives them now. Edges are the cosine similarities within a graph, E before
and G now. With a coupling P of the nodes and their discrepancy C the loss is

    weight(t) * (node_weight * sum_ij P_ij C_ij + edge_weight * sum_ijkl P_ij P_kl (E_ik - G_jl)^2)

Aligned, P couples every node with itself, as is known to be right. Sinkhorn's is the literal matching: an
optimal transport between the nodes, blurred by its entropy, so that equal graphs do not give 0.
"""

from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.settings.schedules import Constant, Gamma


class Settings(BaseSettings):
    """Strength, coupling and parts of the loss; all [ours], there are no equations to follow."""

    weight: Gamma = Constant(a=10.0)  # [ours] strength over the phase; without a form it is constant
    # [ours] statistics of batch normalisation in the network as the phase found it: its own, or the batch's
    batchnorm: Literal["eval", "train"] = "eval"
    matching: Literal["aligned", "sinkhorn"] = "aligned"  # [ours] which node is which is known
    # [ours] 1 - cos, or the squared Euclidean distance divided by the number of features
    node: Literal["cosine", "squared"] = "cosine"
    node_weight: float = Field(1.0, ge=0)  # [ours] 0: only relations between exemplars are kept
    edge_weight: float = Field(1.0, ge=0)  # [ours] 0: each exemplar is kept by itself
    epsilon: float = Field(0.1, gt=0)  # [ours] Sinkhorn's entropy, in the unit of the node discrepancy
    iterations: int = Field(20, ge=1, le=100_000)  # [ours] of Sinkhorn

    @field_validator("weight", mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        return {"form": "constant", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        if self.node_weight == 0 == self.edge_weight:
            raise ValueError(
                "node_weight and edge_weight are both 0: nothing is retained; set one, e.g. to 1"
            )
        return self


class GraphMatching(nn.Module):
    """The loss of one batch, all shapes static: what is no exemplar is a node of mass 0."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, before: Tensor, now: Tensor, exemplars: Tensor, progress: Tensor) -> Tensor:
        """Loss (0-d) of features now against those before, in float32 at least, also under autocast.

        Args:
            before, now: features (B, d) of the same images under the network as the phase found it, and as
                it is.
            exemplars: which images are nodes, bool (B,). The others count for nothing; without any the
                loss is 0 and so is its gradient.
            progress: 0-d tensor in [0, 1].
        """
        dtype = torch.promote_types(torch.promote_types(before.dtype, now.dtype), torch.float32)
        with torch.autocast(now.device.type, enabled=False):
            mass = exemplars.to(dtype) / exemplars.sum().clamp_min(1)
            others = ~exemplars[:, None]
            before, now = (each.to(dtype).masked_fill(others, 0) for each in (before, now))
            units = _unit(before), _unit(now)
            # The discrepancy of two nodes is |x_i - y_j|^2 times a scale. 1 - cos is |u - v|^2 / 2 of unit
            # vectors, exact also when they are nearly equal; a feature of length 0 has no direction and is
            # 1/2 from others, 0 from its like.
            cosine = self.settings.node == "cosine"
            x, y = units if cosine else (before, now)
            scale = 1 / 2 if cosine else 1 / now.shape[1]
            first, second = (unit @ unit.T for unit in units)
            if self.settings.matching == "aligned":
                nodes = mass @ (x - y).square().sum(1) * scale
                edges = mass @ (first - second).square() @ mass
            else:
                cost = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T) * scale
                coupling = sinkhorn(cost, mass, mass, self.settings.epsilon, self.settings.iterations)
                nodes, edges = (coupling * cost).sum(), _edges(first, second, coupling)
            loss = self.settings.node_weight * nodes + self.settings.edge_weight * edges
            return self.settings.weight(progress) * loss


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Entropic optimal transport (Cuturi 2013), in the log domain, differentiable through its rounds.

    A round scales the rows of exp(-cost / epsilon) to their mass, and then the columns; so columns hold
    exactly, rows the better the more rounds there are.

    Args:
        cost: of moving one unit, finite, (m, n).
        rows, columns: mass, at least 0, (m,) and (n,), of equal sum; where it is 0 nothing is moved, and
            the cost counts for nothing.
        epsilon: weight of the entropy, in the cost's unit; above 0. The smaller, the more rounds it takes.
        iterations: number of rounds, at least 1.

    Returns:
        The mass that is moved, (m, n).
    """
    kernel = -cost / epsilon
    log_rows, log_columns = _log(rows), _log(columns)
    right = log_columns
    for _ in range(iterations):
        left = log_rows - (kernel + right).logsumexp(1)
        right = log_columns - (kernel + left[:, None]).logsumexp(0)
    return (kernel + left[:, None] + right).exp()


def build(settings: Settings) -> GraphMatching:
    """The loss; it holds no weights."""
    return GraphMatching(settings)


def _edges(first: Tensor, second: Tensor, coupling: Tensor) -> Tensor:
    """sum_ijkl P_ij P_kl (E_ik - G_jl)^2 of symmetric E and G: the square expanded, sums over pairs."""
    rows, columns = coupling.sum(1), coupling.sum(0)
    both = (coupling.T @ first @ coupling * second).sum()
    return rows @ first.square() @ rows + columns @ second.square() @ columns - 2 * both


def _log(mass: Tensor) -> Tensor:
    """Its logarithm; that of 0 is finite, but so low that its exponential is 0 beside any other."""
    none = mass == 0
    return mass.masked_fill(none, 1).log().masked_fill(none, -1e30)


def _unit(features: Tensor) -> Tensor:
    """Rows divided by their length, those of length 0 left as they are, with a gradient that is not huge."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / lengths.masked_fill(lengths < 1e-12, 1)
