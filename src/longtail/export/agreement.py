"""How far an exported model agrees with the run that it is of, and its ONNX form with torch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtail.data.images import Images, cpu_batch, in_batches
from longtail.export import onnx_session
from longtail.export.module import Exported

# Largest difference to the run's own logits, as a share of the largest of them. A device adds in an order
# of its own (float32); a network that ran in bfloat16, of 8 bits, is exported in float32.
TOLERANCE = {"float32": 1e-3, "bf16": 0.1}
ONNX_TOLERANCE = 1e-3  # of a probability, onnxruntime against torch
ONNX_IMAGES = 512  # of the test images, on which these two are compared


def answers(model: Exported, images: Images) -> tuple[Tensor, Tensor]:
    """Probabilities and logits of images, float32 (N, classes) each."""
    with torch.inference_mode():
        pairs = [model(batch) for batch in in_batches(images, cpu_batch(images))]
    probabilities, logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return probabilities, logits


def agreement(found: Tensor, logits: Tensor, precision: str) -> dict[str, Any]:
    """How far the model's logits are from the run's, on all test images.

    Returns:
        images, difference (largest, absolute), share (of the largest logit), same (share of images of one
        predicted class), and the precision of the run.
    """
    difference = float((found - logits).abs().max())
    return {
        "images": len(found),
        "difference": difference,
        "share": difference / max(float(logits.abs().max()), 1e-12),
        "same": float((found.argmax(1) == logits.argmax(1)).double().mean()),
        "precision": precision,
    }


def compare(graph: bytes, probabilities: Tensor, images: Images) -> float:
    """Largest difference of a probability between onnxruntime and torch, on the first images."""
    session = onnx_session.session(graph, "cpu")
    some = images[:ONNX_IMAGES]
    found = [onnx_session.probabilities(session, b.numpy()) for b in in_batches(some, cpu_batch(some))]
    return float((torch.from_numpy(np.concatenate(found)) - probabilities[:ONNX_IMAGES]).abs().max())
