import pytest
import torch

from longtail.stage_one.networks import bbn, resnet_cifar


def test_it_has_the_parameters_of_the_authors_network():
    """ResNet-32 without its head, a last block more, and a head over 128 features with a bias."""
    network = bbn.build(bbn.Settings(), 3, 100)
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == 463_504 + 73_984 + 12_900 == 550_388
    assert network.head.in_features == 128


def test_either_way_through_it_is_the_resnet_of_that_depth():
    torch.manual_seed(0)
    one = resnet_cifar.build(resnet_cifar.Settings(depth=20, width=4), 3, 10).eval()
    two = bbn.build(bbn.Settings(depth=20, width=4), 3, 10).eval()
    blocks = [*one.stage1, *one.stage2, *one.stage3]
    two.conv, two.bn = one.conv, one.bn
    two.trunk = torch.nn.Sequential(*blocks[:-1])
    images = torch.randn(3, 3, 32, 32)
    for branch, place in (("conventional", 0), ("rebalancing", 1)):
        setattr(two, branch, blocks[-1])
        found = two.features(images)[:, 16 * place : 16 * (place + 1)]
        assert torch.equal(found, one.features(images))


def test_logits_are_the_head_over_the_features():
    network = bbn.build(bbn.Settings(depth=8, width=4), 1, 10).eval()
    images = torch.randn(2, 1, 12, 12)
    assert network.features(images).shape == (2, 32)
    assert torch.equal(network(images), network.head(network.features(images)))
    assert (network.features(images) >= 0).all()


def test_a_depth_that_is_no_resnets_is_refused():
    with pytest.raises(ValueError, match="30 is not 6n"):
        bbn.Settings(depth=30)
