"""Feature generation and stage two in the shape of Free Lunch (Yang et al. 2021) and TailCalibX (2021).

One multivariate normal at a time in a Python loop; generated anew before every epoch; then a DataLoader over
the features, a linear classifier and `loss.item()` at every step.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions.multivariate_normal import MultivariateNormal
from torch.utils.data import DataLoader, TensorDataset

Array = NDArray[np.float64]


def numpy_loop(means: Array, covariances: list[Array]) -> Array:
    """One draw each, by numpy."""
    drawn = [np.random.multivariate_normal(m, c, 1) for m, c in zip(means, covariances, strict=True)]
    return np.vstack(drawn)


def torch_loop(means: Tensor, covariances: list[Tensor]) -> Tensor:
    """One draw each, by torch."""
    drawn = [MultivariateNormal(m, c).sample((1,)) for m, c in zip(means, covariances, strict=True)]
    return torch.vstack(drawn)


class StageTwo:
    """An epoch of stage two, whole or in part; a side of a comparison measures both of its halves.

    Args:
        features: (N, d).
        labels: int64 (N,).
        classes: C.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self.features, self.labels = features, labels
        parts = [features[labels == label] for label in range(classes)]
        self.means = torch.stack([part.mean(0) for part in parts])
        self.covariances = torch.stack([part.T.cov() for part in parts])
        self.counts = torch.bincount(labels, minlength=classes)
        self.network = nn.Linear(features.shape[1], classes)
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)

    def generate(self, sources: Tensor, k: int = 2) -> Tensor:
        """Features from these samples, so many from each that its class is as large as the largest."""
        drawn = []
        head = int(self.counts.max())
        for index in sources.tolist():
            sample, own = self.features[index], int(self.counts[self.labels[index]])
            number = -(-(head - own) // own)
            if not number:
                continue
            near = torch.cdist(self.means, sample.unsqueeze(0)).squeeze().topk(k, largest=False).indices
            mean = (self.means[near].sum(0) + sample) / (k + 1)
            covariance = self.covariances[near].sum(0) / k + 1e-4 * torch.eye(len(sample))
            drawn.append(MultivariateNormal(mean, covariance).sample((number,)))
        return torch.vstack(drawn)

    def train(self, features: Tensor, labels: Tensor, batch: int = 128) -> float:
        """One pass over features; the mean loss."""
        losses = []
        for inputs, targets in DataLoader(TensorDataset(features, labels), batch, shuffle=True):
            loss = F.cross_entropy(self.network(inputs), targets)
            losses.append(loss.item())
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        return sum(losses) / len(losses)
