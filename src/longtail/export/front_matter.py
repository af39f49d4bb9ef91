"""The head of a model card, as model hubs read it: YAML between two lines of `---`.

The keys are those of Hugging Face (https://huggingface.co/docs/hub/model-cards), and below `model-index`
those of Papers with Code. What is not known stands nowhere: a licence that nobody chose, a dataset that no
hub has.
"""

from collections.abc import Mapping
from typing import Any

import yaml

TASK = "image-classification"
LIBRARY = "longtail"
TAGS = (TASK, "long-tailed-recognition", "class-imbalance", "safetensors", "onnx")
ON_THE_HUB = {  # names of the published datasets there
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
METRICS = {  # of metrics.json and of the groups: the hub's type, the name that is shown
    "accuracy": ("accuracy", "Top-1 accuracy"),
    "mean_class_accuracy": ("mean_class_accuracy", "Mean accuracy of the classes"),
    "many": ("many_shot_accuracy", "Accuracy of many-shot classes"),
    "medium": ("medium_shot_accuracy", "Accuracy of medium-shot classes"),
    "few": ("few_shot_accuracy", "Accuracy of few-shot classes"),
    "expected_calibration_error": ("expected_calibration_error", "Expected calibration error, calibrated"),
}


def front_matter(
    name: str, dataset: str, measured: Mapping[str, float | None], licence: str | None = None
) -> str:
    """The head of a model card with its last line.

    Args:
        name: of the model.
        dataset: on whose test images it was measured.
        measured: shares by a key of METRICS; None where there was nothing to measure.
        licence: under which the model is given away, as hubs name it, e.g. cc-by-4.0.
    """
    known = ON_THE_HUB.get(dataset)
    metrics = [
        {"type": kind, "value": round(value, 6), "name": words}
        for key, (kind, words) in METRICS.items()
        if (value := measured.get(key)) is not None
    ]
    result = {
        "task": {"type": TASK, "name": "Image Classification"},
        "dataset": {"name": dataset, "type": known or dataset, "split": "test"},
        "metrics": metrics,
    }
    head: dict[str, Any] = {
        **({"license": licence} if licence else {}),
        "library_name": LIBRARY,
        "pipeline_tag": TASK,
        "tags": list(TAGS),
        **({"datasets": [known]} if known else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [result]}],
    }
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=4096)
    return f"---\n{text}---\n"
