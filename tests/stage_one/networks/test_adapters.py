"""Adapters: nothing at first, then all that learns beside the head."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from longtail.errors import UserError
from longtail.stage_one.freezing import learning
from longtail.stage_one.networks.adapters import AdaptFormer, QueryValueLora, automatic_bottleneck
from longtail.stage_one.networks.timm_model import Settings, TimmModel, build

VIT = {"architecture": "vit_tiny_patch16_224", "image_size": 32}
FORMS = ("adaptformer", "lora")


def network(**settings) -> TimmModel:
    torch.manual_seed(0)
    return build(Settings(**VIT, **settings), 3, 5)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    """Weights of the right shape."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(network().backbone.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_at_first_they_change_nothing(form, file):
    plain, adapted = (
        network(pretrained=file),
        network(pretrained=file, adapters={"form": form, "bottleneck": 2}),
    )
    plain.load_pretrained()
    adapted.load_pretrained()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(adapted.eval().features(images), plain.eval().features(images))


@pytest.mark.parametrize("form", FORMS)
def test_adapters_and_head_learn_and_nothing_else(form):
    model = network(adapters={"form": form, "bottleneck": 2})
    model.requires_grad_(False)
    for part in learning(model, "all_but_adapters"):
        part.requires_grad_(True)
    learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".adapter." in name or name.startswith("head.") for name in learnt)
    assert len([name for name in learnt if ".adapter." in name]) == 12 * (7 if form == "adaptformer" else 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # in the first step what leads up is 0, and what leads down learns nothing
        optimiser.zero_grad()
        F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
        optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == learnt


def test_lora_is_a_change_of_the_weights_of_queries_and_values():
    lora = QueryValueLora(6, 2)
    for matrix in lora.up:
        torch.nn.init.normal_(matrix)
    x = torch.randn(3, 4, 6)
    query, key, value = lora(x).chunk(3, dim=-1)
    torch.testing.assert_close(query, F.linear(x, (lora.down[0] @ lora.up[0] / 2).T))
    torch.testing.assert_close(value, F.linear(x, (lora.down[1] @ lora.up[1] / 2).T))
    assert not key.any()


def test_adaptformer_is_a_scaled_bottleneck_behind_a_normalisation():
    adapter = AdaptFormer(6, 2)
    torch.nn.init.normal_(adapter.up.weight)
    torch.nn.init.constant_(adapter.scale, 0.5)
    x = torch.randn(3, 4, 6)
    z = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = 0.5 * (z @ adapter.down.weight.T).clamp_min(0) @ adapter.up.weight.T
    torch.testing.assert_close(adapter(x), expected)


@pytest.mark.parametrize(("classes", "width"), [(100, 4), (1000, 32), (8142, 256), (34, 1), (2, 1)])
def test_the_width_is_lifts_for_a_vit_b(classes, width):
    assert automatic_bottleneck(classes, blocks=12) == width


def test_a_network_without_blocks_of_a_transformer_is_refused():
    with pytest.raises(
        UserError, match=r"ResNet has no blocks for adapters .lora.; take a vision transformer"
    ):
        build(Settings(architecture="resnet18", adapters={"form": "lora"}), 3, 5)


def test_without_adapters_there_is_nothing_to_leave_out_of_freezing():
    with pytest.raises(
        UserError, match=r"freeze: all_but_adapters: this network .* does not say what that is"
    ):
        learning(network(), "all_but_adapters")


def test_pictures_of_another_size_are_one_line():
    model = build(Settings(architecture="vit_tiny_patch16_224"), 3, 5)
    with pytest.raises(
        UserError, match=r"doesn't match model .*; give the network image_size: 32, or data.images"
    ):
        model(torch.randn(1, 3, 32, 32))
