"""mixup: pairs of images and labels, and nothing where alpha is nought."""

import pytest
import torch
from scipy.stats import beta, kstest

from longtail.stage_one.batch import Batch
from longtail.stage_one.transforms.mixup import Settings, build

COUNTS = torch.tensor([3, 2, 1])


def batch() -> Batch:
    images = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.tensor([0, 0, 0, 1, 1, 2]))


def test_image_by_image_it_is_the_convex_combination_of_two():
    plain, mixup = batch(), build(Settings(alpha=0.7), COUNTS)
    share, partners = mixup.draw(6, torch.Generator().manual_seed(0))
    mixed = mixup(plain, torch.Generator().manual_seed(0))
    assert sorted(partners.tolist()) == list(range(6))
    assert 0 < share < 1
    for i, j in enumerate(partners.tolist()):
        torch.testing.assert_close(
            mixed.images[i], float(share) * plain.images[i] + (1 - float(share)) * plain.images[j]
        )
        assert mixed.others[i] == plain.labels[j]
    assert torch.equal(mixed.labels, plain.labels)
    assert torch.equal(mixed.weight, share)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    mixup, generator = build(Settings(alpha=alpha), COUNTS), torch.Generator().manual_seed(0)
    shares = [float(mixup.draw(2, generator)[0]) for _ in range(2000)]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 1e-3


def test_with_alpha_nought_images_and_labels_stay_as_they_are():
    plain, mixup = batch(), build(Settings(alpha=0), COUNTS)
    mixed = mixup(plain, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.images, plain.images)
    assert torch.equal(mixed.labels, plain.labels)
    assert mixed.weight == 1


def test_a_key_gives_one_mixture_and_every_batch_another():
    mixup, plain = build(Settings(), COUNTS), batch()
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0)]
    first, again = (mixup(plain, generator) for generator in generators)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, mixup(plain, generators[0]).images)


def test_nothing_on_the_device_is_read_by_the_host():
    mixup, plain = build(Settings(), COUNTS), batch()
    mixed = mixup(Batch(plain.images.to("meta"), plain.labels.to("meta")), torch.Generator())
    assert mixed.images.shape == (6, 1, 2, 2)
