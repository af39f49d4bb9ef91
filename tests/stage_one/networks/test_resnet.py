"""The ResNets of large images are torchvision's, bit for bit, with a head that comes off."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision import models

from longtail.settings.methods import settings_of
from longtail.stage_one.networks.pretrained import TORCHVISION
from longtail.stage_one.networks.resnet import ARCHITECTURES, DEFAULT_WEIGHTS, ResNet, Settings, build

# torchvision's names of ours
NAMES = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d"}


def network(channels: int = 3, classes: int = 10, **settings: Any) -> ResNet:
    torch.manual_seed(0)
    return build(Settings(**{"architecture": "resnet10", **settings}), channels, classes)


def counted(settings: dict[str, Any], classes: int = 1000) -> int:
    with torch.device("meta"):
        model = build(Settings(**settings), 3, classes)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "total"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnext50", 25_028_904),
        ("resnext101", 88_791_336),
    ],
)
def test_an_architecture_has_the_published_number_of_parameters(architecture, total):
    assert counted({"architecture": architecture}) == total


def test_resnet10_is_resnet18_with_one_block_a_stage():
    """5,418,792 with 1,000 classes, written out: stem, blocks of two convolutions, shortcuts, classifier."""
    stem = 3 * 64 * 7 * 7 + 2 * 64
    total, channels = stem, 64
    for planes in (64, 128, 256, 512):
        total += 9 * channels * planes + 2 * planes + 9 * planes * planes + 2 * planes
        if planes != channels:
            total += channels * planes + 2 * planes
        channels = planes
    total += 512 * 1000 + 1000
    assert counted({"architecture": "resnet10"}) == total == 5_418_792


def test_every_architecture_of_the_settings_can_be_built():
    assert set(ARCHITECTURES) == set(Settings.model_fields["architecture"].annotation.__args__)
    assert settings_of("networks", "resnet")().architecture == "resnet50"


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "resnext50"])
@pytest.mark.parametrize("training", [False, True])
def test_with_the_same_weights_it_computes_what_torchvision_computes_to_the_last_bit(architecture, training):
    torch.manual_seed(1)
    theirs = getattr(models, NAMES.get(architecture, architecture))(num_classes=7)
    for name, buffer in theirs.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    ours = network(architecture=architecture, classes=7)
    state = {name.replace("fc.", "head."): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(state)  # the counts of batches, which ours has not, do not hinder
    images = torch.randn(2, 3, 64, 48).contiguous(memory_format=torch.channels_last)
    for model in (ours, theirs):
        model.to(memory_format=torch.channels_last).train(training)
    assert torch.equal(ours(images), theirs(images))
    if training:
        for name, buffer in ours.named_buffers():
            assert torch.equal(buffer, theirs.get_buffer(name)), name


@pytest.mark.parametrize(("architecture", "dimensions"), [("resnet10", 512), ("resnet50", 2048)])
@pytest.mark.parametrize(("channels", "size"), [(1, (33, 40)), (3, (64, 64)), (4, (8, 5))])
def test_features_are_of_any_image_not_negative_and_what_the_head_reads(
    architecture, dimensions, channels, size
):
    model = network(channels, classes=5, architecture=architecture).eval()
    images = torch.randn(2, channels, *size)
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    assert features.shape == (2, dimensions)
    assert (features >= 0).all()
    assert (features > 0).any()
    assert torch.equal(model.head(features), logits)


def test_features_are_float32_also_in_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        assert network().features(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_state_is_float32_without_counts_and_goes_through_a_plain_dictionary():
    model, other = network(), network(head="linear")
    model(torch.randn(4, 3, 32, 32))
    state = dict(model.state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert not [name for name in state if "num_batches_tracked" in name]
    other.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), other.eval()(images))


def test_a_cosine_head_has_the_scale_of_the_settings_and_no_bias():
    model = network(classes=6, head="cosine", scale=16.0)
    logits = model(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 6)
    assert logits.abs().max() <= 16 * 1.0001
    assert counted({"architecture": "resnet10"}, 6) - 6 == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("stage", [0, 2, 4])
def test_both_halves_together_are_the_network(stage):
    network = build(Settings(architecture="resnet10"), 3, 10).eval()
    images = torch.randn(2, 3, 64, 64)
    maps = network.maps(images, stage)
    assert maps.shape[1] == (64, 64, 128, 256, 512)[stage]
    assert torch.equal(network.features_of(maps, stage), network.features(images))


def test_last_block_and_last_stage_are_the_last():
    model = network(architecture="resnet18")
    assert model.last_block is model.layer4[1]
    assert model.last_stage is model.layer4


def test_settings_that_are_left_alone_are_not_hashed():
    assert Settings().resolved(hashed=True) == {"architecture": "resnet50"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"architecture": "resnet9"}, "Input should be 'resnet10', 'resnet18'"),
        ({"architecture": "resnet10", "pretrained": "torchvision"}, "has no weights of resnet10"),
        ({"pretrained": True}, "true is neither null, nor torchvision, nor the path of a file"),
        ({"pretrained": ""}, "'' is not the path of a file of weights"),
        ({"pretrained": 5}, "5 is not the path of a file of weights"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(settings, line):
    with pytest.raises(ValidationError, match=line):
        Settings(**settings)


@pytest.mark.parametrize("architecture", DEFAULT_WEIGHTS)
def test_torchvisions_weights_are_its_default_ones(architecture):
    default = models.get_model_weights(NAMES.get(architecture, architecture)).DEFAULT
    assert TORCHVISION + DEFAULT_WEIGHTS[architecture] == default.url


def test_building_reads_no_weights_so_that_a_trained_network_needs_no_file():
    model = network(pretrained="/nowhere/weights.pth")
    assert isinstance(model.head, nn.Linear)
