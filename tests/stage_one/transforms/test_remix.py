"""Remix: the rarer of two classes of unequal size takes the label."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.stage_one.batch import Batch
from longtail.stage_one.transforms import mixup
from longtail.stage_one.transforms.remix import Settings, build


def literal(share: float, n_i: int, n_j: int, kappa: float, tau: float) -> float:
    """Chou et al. 2020: the three cases of lambda_y."""
    if n_i / n_j >= kappa and share < tau:
        return 0.0
    if n_i / n_j <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


@given(
    counts=st.lists(st.integers(1, 600), min_size=2, max_size=8),
    share=st.integers(0, 64).map(lambda k: k / 64),
    kappa=st.sampled_from([1.0, 2.0, 3.0, 4.0]),
    tau=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    seed=st.integers(0, 1000),
)
def test_every_pair_is_weighed_as_the_paper_says(counts, share, kappa, tau, seed):
    labels = torch.arange(len(counts))
    partners = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    remix = build(Settings(kappa=kappa, tau=tau), torch.tensor(counts))
    batch = Batch(torch.zeros(len(counts), 1, 1, 1), labels)
    found = remix.apply(batch, torch.tensor(share), partners).weight.tolist()
    pairs = zip(counts, [counts[j] for j in partners.tolist()], strict=True)
    assert found == [literal(share, i, j, kappa, tau) for i, j in pairs]


@pytest.mark.parametrize("settings", [{"tau": 0.0}, {"kappa": 1000.0}])
def test_where_no_class_takes_the_label_it_is_mixup(settings):
    counts = torch.tensor([100, 10, 1])
    batch = Batch(torch.randn(3, 1, 2, 2), torch.arange(3))
    one = build(Settings(**settings), counts)(batch, torch.Generator().manual_seed(0))
    other = mixup.build(mixup.Settings(), counts)(batch, torch.Generator().manual_seed(0))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.weight, other.weight.expand(3))


def test_a_class_of_one_image_takes_the_label_of_a_pair_in_which_it_is_the_larger_part():
    remix = build(Settings(), torch.tensor([500, 1]))
    batch = Batch(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]))
    swapped = torch.tensor([1, 0])
    assert remix.apply(batch, torch.tensor(0.4), swapped).weight.tolist() == pytest.approx([0.0, 0.4])
    assert remix.apply(batch, torch.tensor(0.6), swapped).weight.tolist() == pytest.approx([0.6, 1.0])


def test_with_alpha_nought_images_and_labels_stay_as_they_are():
    batch = Batch(torch.randn(3, 1, 2, 2), torch.arange(3))
    mixed = build(Settings(alpha=0), torch.tensor([100, 10, 1]))(batch, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.images, batch.images)
    assert mixed.weight.tolist() == [1, 1, 1]


def test_nothing_on_the_device_is_read_by_the_host():
    remix = build(Settings(), torch.tensor([100, 10, 1], device="meta"))
    batch = Batch(torch.zeros(3, 1, 2, 2, device="meta"), torch.arange(3, device="meta"))
    assert remix(batch, torch.Generator()).weight.shape == (3,)
