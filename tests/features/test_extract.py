import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtail.data.normalisation import normalise
from longtail.errors import UserError
from longtail.features import extract as features
from longtail.runs.job import Job
from longtail.settings.augmentation import Augmentation
from longtail.settings.classifier import FeaturesSettings
from longtail.settings.datasets import DATASETS
from longtail.stage_one.networks import resnet_cifar

torch.set_num_threads(1)
CLASSES, TRAIN, TEST = 3, 21, 9
OPTIONS = resnet_cifar.Settings(depth=8, width=4)
CIFAR = DATASETS["cifar10"]


@pytest.fixture
def inputs(tmp_path):
    """Folders as acquire, split and stage one leave them; the batch statistics have seen other images."""
    folders = {name: tmp_path / name for name in ("acquire", "split", "stage_one")}
    for folder in folders.values():
        folder.mkdir()
    random = torch.Generator().manual_seed(0)
    for part, count in (("train", 40), ("test", TEST)):
        images = torch.randint(256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)
        save_file(
            {"images": images, "labels": torch.arange(count) % CLASSES},
            folders["acquire"] / f"{part}.safetensors",
        )
    chosen = {"train": range(0, 2 * TRAIN, 2), "validation": range(1, 12, 2), "test": range(TEST)}
    chosen["train"] = [sample % 40 for sample in chosen["train"]][:20]
    for part, samples in chosen.items():
        rows = [f"{sample},{sample % CLASSES}" for sample in samples]
        (folders["split"] / f"{part}.csv").write_text("\n".join(["sample,label", *rows, ""]))
    counts = [f"{c},class {c},{[7, 7, 6][c]},2,3" for c in range(CLASSES)]
    (folders["split"] / "counts.csv").write_text("\n".join(["label,name,train,validation,test", *counts, ""]))
    torch.manual_seed(0)
    network = resnet_cifar.build(OPTIONS, 3, CLASSES)
    network(torch.randn(32, 3, 32, 32, generator=random) * 0.3)
    save_file(network.state_dict(), folders["stage_one"] / "model.safetensors")
    return folders


def compute(inputs, folder, **keys):
    folder.mkdir()
    settings = {
        "dataset": "cifar10",
        "views": 2,
        "network": {"name": "resnet_cifar", "depth": 8, "width": 4},
        "augmentation": {},
        "batch_size": 8,
        "seed": 0,
        "precision": "float32",
        **keys,
    }
    job = Job("features", "a-run", FeaturesSettings.model_validate(settings), inputs, folder, folder)
    features.compute(job)
    json.dumps(job.facts)
    return {file.stem: load_file(file) for file in folder.iterdir()}


def network_of(inputs):
    network = resnet_cifar.build(OPTIONS, 3, CLASSES)
    network.load_state_dict(load_file(inputs["stage_one"] / "model.safetensors"))
    return network.eval()


def test_clean_features_are_the_networks_of_the_images_of_each_part(inputs, tmp_path):
    found = compute(inputs, tmp_path / "run")
    network = network_of(inputs)
    for part, source in (("train", "train"), ("validation", "train"), ("test", "test")):
        raw = load_file(inputs["acquire"] / f"{source}.safetensors")
        samples = found[part]["samples"]
        assert torch.equal(found[part]["labels"], raw["labels"][samples])
        with torch.no_grad():
            expected = network.features(normalise(raw["images"][samples], CIFAR.mean, CIFAR.std))
            logits = network.head(expected)
        torch.testing.assert_close(found[part]["features"], expected)
        torch.testing.assert_close(found[part]["logits"], logits)
        assert found[part]["features"].dtype == torch.float32
        assert bool((found[part]["features"] >= 0).all())
    assert [len(found[part]["labels"]) for part in ("train", "validation", "test")] == [20, 6, 9]


def test_logits_are_exactly_what_the_head_makes_of_the_features(inputs, tmp_path):
    found = compute(inputs, tmp_path / "run", precision="bf16")
    head = found["head"]
    for features_, logits in (
        (found["views"]["features"], found["views"]["logits"]),
        (found["test"]["features"], found["test"]["logits"]),
    ):
        torch.testing.assert_close(logits, features_ @ head["weight"].T + head["bias"])


def test_a_cosine_heads_classifier_is_one_of_normalised_features(inputs, tmp_path):
    network = {"name": "resnet_cifar", "depth": 8, "width": 4, "head": "cosine"}
    cosine = resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4, head="cosine"), 3, CLASSES)
    save_file(cosine.state_dict(), inputs["stage_one"] / "model.safetensors")
    found = compute(inputs, tmp_path / "run", network=network)
    head, test = found["head"], found["test"]
    assert bool(head["normalise"])
    assert test["features"].norm(dim=1).sub(1).abs().min() > 1e-3  # the features themselves are as they are
    directions = test["features"] / test["features"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(test["logits"], directions @ head["weight"].T + head["bias"])
    torch.testing.assert_close(head["weight"].norm(dim=1), torch.full((CLASSES,), 30.0))


def test_views_are_augmented_differently_and_reproducibly(inputs, tmp_path):
    one = compute(inputs, tmp_path / "one", views=3)
    two = compute(inputs, tmp_path / "two", views=3)
    for name in one:
        assert all(torch.equal(one[name][key], two[name][key]) for key in one[name])
    views = one["views"]["features"]
    assert views.shape == (3, 20, 16)
    assert one["views"]["logits"].shape == (3, 20, CLASSES)
    assert torch.equal(one["views"]["labels"], one["train"]["labels"])
    assert (views[0] - views[1]).abs().amax(1).min() > 0
    assert (views - one["train"]["features"]).abs().amax(2).min() > 0
    other = compute(inputs, tmp_path / "other", views=3, seed=1)
    assert not torch.equal(other["views"]["features"], views)
    assert torch.equal(other["test"]["features"], one["test"]["features"])


def test_one_more_view_leaves_the_others_as_they_are(inputs, tmp_path):
    few, many = (compute(inputs, tmp_path / str(n), views=n)["views"]["features"] for n in (2, 4))
    assert torch.equal(few, many[:2])


def test_without_views_the_clean_features_are_the_only_view(inputs, tmp_path):
    found = compute(inputs, tmp_path / "run", views=0)
    assert torch.equal(found["views"]["features"], found["train"]["features"][None])
    assert torch.equal(found["views"]["logits"], found["train"]["logits"][None])


def test_augmentation_that_changes_nothing_makes_the_clean_features(inputs, tmp_path):
    nothing = Augmentation(crop=0, flip=False, autoaugment="none", cutout=0).resolved()
    found = compute(inputs, tmp_path / "run", augmentation=nothing)
    for view in found["views"]["features"]:
        torch.testing.assert_close(view, found["train"]["features"])


def test_batchnorm_in_train_mode_takes_batch_statistics_and_moves_the_running_ones(inputs, tmp_path):
    """One shuffled batch of all images has the features of the unshuffled batch, row by row."""
    frozen = compute(inputs, tmp_path / "eval", views=0)
    moved = compute(inputs, tmp_path / "train", views=0, batchnorm="train", batch_size=20)
    raw = load_file(inputs["acquire"] / "train.safetensors")
    images = normalise(raw["images"][moved["train"]["samples"]], CIFAR.mean, CIFAR.std)
    network = network_of(inputs).train()
    with torch.no_grad():
        expected = network.features(images)
        torch.testing.assert_close(moved["views"]["features"][0], expected, atol=1e-5, rtol=1e-4)
        clean = network.eval().features(images)
    torch.testing.assert_close(moved["train"]["features"], clean, atol=1e-5, rtol=1e-4)
    for part in ("train", "validation", "test"):
        assert not torch.allclose(moved[part]["features"], frozen[part]["features"])
    assert torch.equal(moved["head"]["weight"], frozen["head"]["weight"])


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_features_of_all_training_images_are_made_if_asked_and_clean(inputs, tmp_path, batchnorm):
    found = compute(inputs, tmp_path / "run", whole=True, batchnorm=batchnorm)
    raw = load_file(inputs["acquire"] / "train.safetensors")
    assert torch.equal(found["whole"]["labels"], raw["labels"])
    chosen = found["train"]["samples"]
    torch.testing.assert_close(found["whole"]["features"][chosen], found["train"]["features"])
    assert found["whole"]["features"].shape == (40, 16)
    usual = compute(inputs, tmp_path / "usual", batchnorm=batchnorm)
    assert "whole" not in usual
    assert torch.equal(usual["views"]["features"], found["views"]["features"])


def test_a_split_without_validation_images_has_empty_features(inputs, tmp_path):
    (inputs["split"] / "validation.csv").write_text("sample,label\n")
    found = compute(inputs, tmp_path / "run")["validation"]
    assert found["features"].shape == (0, 16)
    assert found["logits"].shape == (0, CLASSES)


def test_a_model_of_another_network_is_one_line(inputs, tmp_path):
    network = {"name": "resnet_cifar", "depth": 14, "width": 4}
    with pytest.raises(UserError, match=r"model\.safetensors: does not fit network resnet_cifar") as error:
        compute(inputs, tmp_path / "run", network=network)
    assert "\n" not in str(error.value)
