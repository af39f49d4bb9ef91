"""Networks of large pictures on the stand-in for a GPU: files decoded on the host, batches on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file, save_file

from longtail.data.file_names import packed
from longtail.features import extract
from longtail.runs.job import Job
from longtail.settings.classifier import FeaturesSettings
from longtail.settings.data import Pictures
from longtail.settings.recipe import StageOneSettings
from longtail.stage_one import graph, training
from tests import tiny_runs
from tests.stand_in import stand_in

LOOK = Pictures(size=16)
PLAIN = {"crop": 0, "flip": True, "autoaugment": "none", "cutout": 0}
AUGMENTATIONS = {
    "plain": PLAIN,
    "resized": {**PLAIN, "resized_crop": {"scale": [0.5, 1.0]}, "jitter": {"brightness": 0.4}},
    "randaugment": {**PLAIN, "randaugment": {"operations": 2, "magnitude": 9}},
}
NETWORKS = {
    "resnet": {"name": "resnet", "architecture": "resnet10"},
    "timm_model": {"name": "timm_model", "architecture": "test_resnet"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """The split of the tiny runs, its images as files of different sizes."""
    place = tmp_path_factory.mktemp("pictures")
    found = tiny_runs.write_inputs(place)
    pictures = place / "files"
    pictures.mkdir()
    for part in ("train", "test"):
        source = found["acquire"] / f"{part}.safetensors"
        tensors = load_file(source)
        names = [f"{part}-{number}.png" for number in range(len(tensors["labels"]))]
        for name, image in zip(names, tensors["images"].permute(0, 2, 3, 1).numpy(), strict=True):
            size = (40 + len(names) % 7, 36)
            Image.fromarray(np.ascontiguousarray(image)).resize(size).save(pictures / name)
        save_file({"labels": tensors["labels"], "names": packed(names)}, source)
    return {**found, "pictures": pictures}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(graph, "WARM_UP", 1)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1000")


def recipe(network: str, augmentation: str, **changes: Any) -> Any:
    own = tiny_runs.params().stage_one["ce_plain"].resolved()
    length = {"epochs": 2}
    return type(tiny_runs.params().stage_one["ce_plain"]).model_validate(
        {
            **own,
            "network": NETWORKS[network],
            "augmentation": AUGMENTATIONS[augmentation],
            "batch_size": 16,
            "schedule": length,
            "learning_rate": {"peak": 0.01},
            "evaluate_every": 1,
            **changes,
        }
    )


def job(own: Any, inputs: dict[str, Path], folder: Path) -> Job:
    settings = StageOneSettings(dataset="photos", images=LOOK, recipe=own, seed=0, precision="float32")
    read = {name: inputs[name] for name in ("acquire", "split")}
    for made in (folder, folder / "scratch"):
        made.mkdir(parents=True)
    return Job("stage_one", "run", settings, read, folder, folder / "scratch", pictures=inputs["pictures"])


def trained(own: Any, inputs: dict[str, Path], folder: Path) -> dict[str, bytes]:
    training.compute(job(own, inputs, folder))
    return tiny_runs.contents(folder)


@pytest.mark.parametrize(
    ("network", "augmentation", "changes"),
    [
        ("resnet", "plain", {}),
        ("resnet", "resized", {}),
        ("resnet", "randaugment", {"transforms": ["mixup"]}),
        ("resnet", "resized", {"shards": 2}),
        ("resnet", "plain", {"freeze": "trunk"}),
        ("timm_model", "resized", {}),
    ],
)
def test_pictures_train_as_on_the_cpu(network, augmentation, changes, inputs, tmp_path):
    if network == "timm_model":
        pytest.importorskip("timm")
    own = recipe(network, augmentation, **changes)
    expected = trained(own, inputs, tmp_path / "cpu")
    with stand_in() as gpu:
        found = trained(own, inputs, tmp_path / "gpu")
    assert found == expected
    assert bool(gpu.graphs) == ("shards" not in changes)


@pytest.mark.parametrize("network", NETWORKS)
def test_features_of_pictures_are_those_of_the_cpu(network, inputs, tmp_path):
    if network == "timm_model":
        pytest.importorskip("timm")
    own = recipe(network, "resized")
    training.compute(job(own, inputs, tmp_path / "model"))
    settings = FeaturesSettings.model_validate(
        {
            "dataset": "photos",
            "images": LOOK,
            "views": 2,
            "batchnorm": "eval",
            "whole": False,
            "network": own.network,
            "augmentation": own.augmentation,
            "batch_size": 16,
            "seed": 0,
            "precision": "float32",
        }
    )

    def extracted(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        read = {name: inputs[name] for name in ("acquire", "split")} | {"stage_one": tmp_path / "model"}
        extract.compute(Job("features", "run", settings, read, folder, folder, pictures=inputs["pictures"]))
        return tiny_runs.contents(folder)

    expected = extracted(tmp_path / "cpu")
    with stand_in():
        found = extracted(tmp_path / "gpu")
    assert found.keys() == expected.keys()
    for name in found:  # batches of other sizes, in which some kernels round otherwise
        torch.testing.assert_close(load(found[name]), load(expected[name]))


def test_an_epoch_more_of_pictures_waits_for_no_batch(inputs, tmp_path):
    """The host waits at an epoch's end, for sums and the loss's curve, and for no picture before."""
    own = recipe("resnet", "resized", evaluate_every=0)
    waits = []
    for epochs in (2, 4):
        longer = own.model_copy(update={"schedule": own.schedule.model_copy(update={"epochs": epochs})})
        with stand_in() as gpu:
            trained(longer, inputs, tmp_path / str(epochs))
        waits.append(gpu.waits)
    few, more = waits
    assert more.count("read (tolist)") - few.count("read (tolist)") == 2
    assert len(more) - len(few) == 2, more
