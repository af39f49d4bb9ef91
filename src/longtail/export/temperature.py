"""One temperature for all logits (Guo et al. 2017, section 4.2), by maximum likelihood."""

from torch import Tensor
from torch.nn import functional as F

LARGEST = 1000.0  # of the temperature, and 1 / LARGEST the smallest: logits that separate perfectly want 0
HALVINGS = 80  # of the interval in 1 / T: to the last bits of float64


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [0.001, 1000] with the smallest mean negative log-likelihood of softmax(logits / T).

    That is convex in 1 / T, so the zero of its slope, mean(E_p[z] - z_y), is found by halving.

    Args:
        logits: (N, C), N at least 1.
        labels: int64 (N,).
    """
    z = logits.double()
    beyond = z - z.gather(1, labels.unsqueeze(1))  # z_j - z_y: no digits are lost where p_y is nearly 1
    low, high = 1 / LARGEST, LARGEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = ((middle * z).softmax(1) * beyond).sum(1).mean()
        low, high = (middle, high) if slope <= 0 else (low, middle)
    return 2 / (low + high)


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Mean over the images, in nats."""
    return float(F.cross_entropy(logits.double() / temperature, labels))
