"""Any backbone of timm."""

import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file

from longtail.errors import UserError
from longtail.stage_one.networks import timm_model
from longtail.stage_one.networks.timm_model import Settings, TimmModel, build

ARCHITECTURES = {
    "resnet18": (512, "layer4.1", "layer4"),
    "convnext_atto": (320, "stages.3.blocks.1", "stages.3"),
    "vit_tiny_patch16_224": (192, "blocks.11", "blocks.11"),
    "efficientnet_b0": (1280, "blocks.6.0", "blocks.6.0"),
    "mobilenetv3_small_050": (1024, "blocks.5.0", "blocks.5.0"),
}


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is optional and not installed here")


def network(
    architecture: str = "resnet18", channels: int = 3, classes: int = 5, **settings: Any
) -> TimmModel:
    torch.manual_seed(0)
    return build(Settings(architecture=architecture, **settings), channels, classes)


def test_without_timm_it_is_one_line_that_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed; `make environment` installs it"):
        network()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Field required"),
        ({"architecture": "Res Net"}, "should match pattern"),
        ({"architecture": "resnet50", "pretrained": True}, "needs a tag .* e.g. resnet50.a1_in1k"),
        ({"architecture": "resnet50", "pretrained": 5}, "5 is not the path of a file of weights"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(settings, line):
    with pytest.raises(ValidationError, match=line):
        Settings(**settings)


def test_settings_that_are_left_alone_are_not_hashed():
    assert Settings(architecture="resnet50").resolved(hashed=True) == {"architecture": "resnet50"}
    assert Settings(architecture="resnet50", pretrained=None).pretrained is False


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_backbone_has_features_a_head_and_a_last_block(timm, architecture):
    dimensions, block, stage = ARCHITECTURES[architecture]
    model = network(architecture).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    assert features.shape == (2, dimensions)
    assert features.dtype == torch.float32
    assert torch.equal(model.head(features), logits)
    for part, name in ((model.last_block, block), (model.last_stage, stage)):
        assert part is not None
        assert part[0] is model.backbone.get_submodule(name)
        inside = {id(parameter) for parameter in part.parameters()}
        parameters = [id(parameter) for parameter in model.backbone.parameters()]
        first = min(parameters.index(parameter) for parameter in inside)
        assert set(parameters[first:]) == inside  # all that comes behind it, and nothing before
        assert first > 0


def test_its_resnet18_is_torchvisions(timm):
    from longtail.stage_one.networks import resnet

    theirs = network("resnet18").eval()
    ours = resnet.build(resnet.Settings(architecture="resnet18"), 3, 5).eval()
    ours.load_state_dict(dict(ours.state_dict()) | dict(theirs.backbone.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.features(images), theirs.features(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_state_is_float32_without_counts_and_goes_through_a_plain_dictionary(timm, channels):
    model, other = network(channels=channels), network(channels=channels)
    model.train()(torch.randn(4, channels, 32, 32))
    state = dict(model.state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    other.load_state_dict(state)
    images = torch.randn(2, channels, 32, 32)
    assert torch.equal(model.eval()(images), other.eval()(images))
    deepcopy(model).load_state_dict(state)


def test_every_parameter_gets_a_gradient(timm):
    model = network()
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_cosine_head_has_the_scale_of_the_settings(timm):
    logits = network(head="cosine", scale=16.0)(torch.randn(3, 3, 32, 32))
    assert logits.abs().max() <= 16 * 1.0001


def test_a_file_of_timms_own_form_is_read_but_for_the_classifier(timm, tmp_path):
    torch.manual_seed(5)
    theirs = timm.create_model("resnet18", num_classes=13)
    file = tmp_path / "weights.safetensors"
    save_file(theirs.state_dict(), file)
    model = network(pretrained=str(file))
    head = model.head.weight.clone()
    assert model.load_pretrained() is not None
    assert torch.equal(model.backbone.conv1.weight, theirs.conv1.weight)
    assert torch.equal(model.head.weight, head)
    own = tmp_path / "model.safetensors"
    save_file(model.state_dict(), own)
    again = network(pretrained=str(own), classes=3)
    again.load_pretrained()
    assert torch.equal(again.backbone.conv1.weight, theirs.conv1.weight)


def test_timms_own_weights_are_taken_and_their_digest_is_told(timm, monkeypatch):
    created = timm.create_model

    def with_weights(name: str, pretrained: bool, **rest: Any) -> Any:
        model = created(name, pretrained=False, **rest)
        if pretrained:
            torch.nn.init.constant_(model.conv1.weight, 0.25)
        return model

    monkeypatch.setattr(timm, "create_model", with_weights)
    model = network("resnet18.a1_in1k", pretrained=True)
    assert not (model.backbone.conv1.weight == 0.25).all()
    said = model.load_pretrained()
    assert (model.backbone.conv1.weight == 0.25).all()
    assert said == (
        "timm's resnet18.a1_in1k, licence apache-2.0, "
        f"SHA-256 of its tensors {timm_model.digest(model.backbone)}"
    )


def test_weights_that_cannot_be_had_are_one_line(timm, monkeypatch):
    created = timm.create_model

    def offline(name: str, pretrained: bool, **rest: Any) -> Any:
        if pretrained:
            raise ConnectionError("no\nroute")
        return created(name, pretrained=False, **rest)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"weights of resnet18\.a1_in1k cannot be had \(no route\).*PATH"):
        network("resnet18.a1_in1k", pretrained=True).load_pretrained()


def test_an_unknown_architecture_is_one_line(timm):
    with pytest.raises(UserError, match=r"timm_model: resnet1800 cannot be made \(.*\)"):
        network("resnet1800")
