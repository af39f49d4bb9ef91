"""A head that starts at class means."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from longtail.errors import UserError
from longtail.settings.recipe import Recipe
from longtail.stage_one.class_means import start_at_class_means
from longtail.stage_one.networks.resnet_cifar import Settings, build


def test_each_class_vector_is_the_direction_of_its_mean_unit_feature_and_others_stay():
    network = build(Settings(depth=8, width=4, head="cosine"), 3, 3)
    before = network.head.weight[1].clone()
    features, labels = torch.rand(7, 16), torch.tensor([0, 2, 0, 2, 2, 0, 2])
    start_at_class_means(network, features, labels)
    for label in (0, 2):
        mean = F.normalize(features[labels == label], dim=1).mean(0)
        torch.testing.assert_close(network.head.weight[label], mean / mean.norm())
    assert torch.equal(network.head.weight[1], before)
    # tight classes are told apart before any training
    tight = torch.eye(16)[labels] + 0.01 * features
    start_at_class_means(network, tight, labels)
    assert torch.equal(network.head(tight).argmax(1), labels)


def test_a_linear_head_has_no_such_start():
    with pytest.raises(UserError, match="needs a network with head: cosine"):
        start_at_class_means(build(Settings(depth=8, width=4), 3, 3), torch.rand(1, 16), torch.tensor([0]))
    with pytest.raises(ValidationError, match="head_start: class_means needs a network with head: cosine"):
        Recipe.model_validate({"loss": "focal", "head_start": "class_means"})


def test_a_random_start_is_as_if_there_were_no_such_key():
    recipe = Recipe.model_validate({"loss": "focal", "head_start": "random"})
    assert "head_start" not in recipe.resolved(hashed=True)
