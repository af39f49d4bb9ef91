"""ResNet-32 as the field means it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from longtail.settings.methods import settings_of
from longtail.stage_one.networks.resnet_cifar import BasicBlock, ResNetCifar, Settings, build


def network(channels: int = 3, classes: int = 10, **settings: Any) -> ResNetCifar:
    torch.manual_seed(0)
    return build(Settings(**settings), channels, classes)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("classes", "total"), [(10, 464_154), (100, 470_004)])
def test_resnet32_has_the_published_number_of_parameters(classes, total):
    assert parameters(network(classes=classes)) == total


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_every_depth_of_the_paper_has_its_printed_size(depth, millions):
    digits = 1 if millions > 1 else 2
    assert round(parameters(network(depth=depth)) / 1e6, digits) == millions


@pytest.mark.parametrize("depth", [20, 32, 110])
def test_depth_counts_the_layers_with_weights(depth):
    layers = [m for m in network(depth=depth).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


@pytest.mark.parametrize("depth", [18, 30, 34])
def test_a_depth_that_is_no_whole_number_of_blocks_is_refused(depth):
    with pytest.raises(ValidationError, match=rf"{depth} is not 6n \+ 2 .* e\.g\. 20, 32, 44"):
        Settings(depth=depth)


def test_an_odd_width_is_refused_because_the_shortcut_pads_both_sides_alike():
    with pytest.raises(ValidationError, match="multiple of 2"):
        Settings(width=15)


def test_settings_are_read_without_the_network():
    expected = {"depth": 32, "width": 16, "head": "linear", "scale": 30.0, "pooling": "mean"}
    assert settings_of("networks", "resnet_cifar")().model_dump() == expected


def test_a_network_with_a_linear_head_is_who_it_was_before_there_was_another():
    assert Settings().resolved(hashed=True) == {"depth": 32, "width": 16}
    assert Settings(head="cosine").resolved(hashed=True) == {"depth": 32, "width": 16, "head": "cosine"}
    assert Settings(pooling="bfr").resolved(hashed=True) == {"depth": 32, "width": 16, "pooling": "bfr"}


def test_a_cosine_head_has_no_bias_and_its_logits_are_scaled_cosines():
    model = network(classes=100, head="cosine", scale=16.0).eval()
    assert parameters(model) == 470_004 - 100
    torch.testing.assert_close(model.head.weight.norm(dim=1), torch.ones(100))
    with torch.no_grad():
        model.head.weight.mul_(torch.arange(1, 101)[:, None])  # only the direction counts
        images = torch.randn(3, 3, 8, 8)
        features, logits = model.features(images), model(images)
    for feature, row in zip(features, logits, strict=True):
        expected = [16 * F.cosine_similarity(feature, w, dim=0) for w in model.head.weight]
        torch.testing.assert_close(row, torch.stack(expected))


def test_a_cosine_head_computes_in_float32_also_in_bfloat16():
    model = network(depth=8, head="cosine")
    features = torch.rand(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.head(features)
    assert torch.equal(logits, model.head(features))
    assert logits.dtype == torch.float32


def test_a_feature_of_noughts_has_cosine_nought_and_finite_gradients():
    head = network(depth=8, head="cosine").head
    features = torch.zeros(2, 64, requires_grad=True)
    head(features).sum().backward()
    assert torch.equal(head(features), torch.zeros(2, 10))
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_all_convolutions_lack_a_bias_and_the_head_has_one():
    model = network()
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))
    assert model.head.bias is not None
    assert (model.head.in_features, model.head.out_features) == (64, 10)


def test_weights_have_the_spread_of_he_et_al():
    for module in network(classes=100).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            spread = module.weight.std().item() * (fan_in / 2) ** 0.5
            assert spread == pytest.approx(1, abs=5 / (2 * module.weight.numel()) ** 0.5)


def literal_block(block: BasicBlock, x: Tensor) -> Tensor:
    """He et al. section 3.3: shortcut A, written out pixel by pixel of the shape change."""
    planes = block.conv1.out_channels
    out = F.relu(block.bn1(block.conv1(x)))
    out = block.bn2(block.conv2(out))
    shortcut = torch.zeros_like(out)
    before = (planes - x.shape[1]) // 2
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            pixel = x[:, :, row * block.stride, column * block.stride]
            shortcut[:, before : before + x.shape[1], row, column] = pixel
    return F.relu(out + shortcut)


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (5, 8)])
@pytest.mark.parametrize(("channels", "planes", "stride"), [(16, 16, 1), (16, 32, 2), (32, 64, 2)])
def test_a_block_is_the_papers_with_shortcut_a(channels, planes, stride, size):
    torch.manual_seed(1)
    block = BasicBlock(channels, planes, stride).eval()
    x = torch.randn(2, channels, *size)
    torch.testing.assert_close(block(x.clone()), literal_block(block, x))


def test_a_block_leaves_its_input_alone():
    block, x = BasicBlock(16, 16, 1), torch.randn(2, 16, 4, 4)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
)
def test_any_image_size_and_number_of_channels_works(batch, channels, height, width):
    model = network(channels, classes=5, depth=8).eval()
    images = torch.randn(batch, channels, height, width)
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    assert features.shape == (batch, 64)
    assert logits.shape == (batch, 5)
    assert (features >= 0).all()
    torch.testing.assert_close(model.head(features), logits)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_memory_format_of_the_images_changes_no_result(channels):
    model = network(channels).eval()
    images = torch.randn(2, channels, 28, 28)
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_activations_are_channels_last_whatever_the_images_are(channels):
    model, seen = network(channels, depth=8), []
    for stage in (model.stage1, model.stage2, model.stage3):
        stage.register_forward_hook(lambda *hook: seen.append(hook[-1]))
    model(torch.randn(2, channels, 8, 8))
    assert len(seen) == 3
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_features_are_float32_also_in_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        assert network(depth=8).features(torch.randn(2, 3, 8, 8)).dtype == torch.float32


def test_state_is_the_parameters_and_the_running_statistics_only():
    model = network(depth=8)
    state = model.state_dict()
    statistics = {name for name in state if name.endswith((".running_mean", ".running_var"))}
    assert set(state) - statistics == {name for name, _ in model.named_parameters()}
    assert len(statistics) == 2 * sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_state_goes_through_a_plain_dictionary():
    """As from a file of tensors, which keeps no version of the layers."""
    model, other = network(depth=8), build(Settings(depth=8), 3, 10)
    model(torch.randn(4, 3, 8, 8))  # moves the running statistics
    other.load_state_dict(dict(model.state_dict()))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), other.eval()(images))


def test_running_statistics_are_those_of_torch():
    model = network(depth=8)
    images = torch.randn(4, 3, 8, 8)
    reference = nn.BatchNorm2d(16)
    reference(model.conv(images))
    model(images)
    torch.testing.assert_close(model.bn.running_mean, reference.running_mean)
    torch.testing.assert_close(model.bn.running_var, reference.running_var)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_both_halves_together_are_the_network(stage):
    network = build(Settings(depth=20, width=4), 3, 10).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = network.maps(images, stage)
    assert maps.shape[1:] == ((4, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8))[stage]
    assert torch.equal(network.features_of(maps, stage), network.features(images))


def test_every_parameter_gets_a_gradient():
    model = network(depth=20)
    F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_same_seed_builds_the_same_network():
    first, second = network(), network()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
