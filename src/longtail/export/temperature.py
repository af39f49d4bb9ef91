"""One temperature for all logits (Guo et al. 2017, section 4.2), by maximum likelihood."""

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from longtail.runs.lookup import Finished

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


SOURCES = {
    "unused": "training images that the imbalance left out",
    "holdout": "held out of the training set",
    "official": "the dataset's own",
    "test": "the test images themselves, so calibration on them flatters",
}


def calibrated(run: Finished, predictions: Mapping[str, Tensor]) -> dict[str, Any]:
    """One temperature from the run's validation logits; 1 where there is nothing to fit it to.

    1 too, with a warning, where the fit runs to the end of its range: images that are all right ask for
    probabilities of 1, and those that know nothing for equal ones.

    Returns:
        temperature, how (in words, for the card), images, source.
    """
    labels = predictions["validation_labels"]
    source = run.records["split"]["settings"]["validation"]["source"]
    found = 1.0
    if not len(labels):
        why = "not calibrated: the split has no validation image"
    elif "validation" not in run.metrics():
        why = "not calibrated: the classifier has learnt from the validation images"
    else:
        logits = predictions["validation_logits"]
        fitted = temperature(logits, labels)
        images = f"{len(labels)} validation images ({SOURCES[source]})"
        if 1.01 / LARGEST < fitted < LARGEST / 1.01:
            found, why = fitted, f"fitted to {images}"
        else:
            right = bool((logits.argmax(1) == labels).all())
            words = "are all predicted right" if right else "are predicted no better than by chance"
            why = f"not calibrated: the {images} {words}, which no temperature fits"
            print(f"warning: {run.name}: {why}; more of them would help", file=sys.stderr, flush=True)
    return {"temperature": found, "how": why, "images": len(labels), "source": source}
