"""Minority CutMix: patches of rare classes' images, labels by area, and none late in training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor

from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Length
from longtail.stage_one import checkpoint, loop
from longtail.stage_one.batch import Batch
from longtail.stage_one.loop import train
from longtail.stage_one.losses import logit_adjusted
from longtail.stage_one.samplers import instance
from longtail.stage_one.step import Outcome, Stream
from longtail.stage_one.steps.supervised import Supervised
from longtail.stage_one.transforms.minority_cutmix import MinorityCutMix, Settings, build
from tests import tiny_runs
from tests.stand_in import stand_in

COUNTS = torch.tensor([3, 2, 1])
ALWAYS = Settings(chance=1.0)


def key(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_batches(height: int = 8, width: int = 8) -> tuple[Batch, Batch]:
    """Images of noughts and images of ones, uint8."""
    images = torch.zeros(6, 3, height, width, dtype=torch.uint8)
    return Batch(images, torch.tensor([0, 0, 0, 1, 1, 2])), Batch(
        images + 1, torch.tensor([2, 1, 0, 2, 1, 0])
    )


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_pixel_by_pixel_a_patch_is_the_partners_and_labels_count_by_area(height, width, seed):
    own, partners = two_batches(height, width)
    cutmix = build(ALWAYS, COUNTS)
    top, bottom, left, right = cutmix.box(height, width, key(seed))
    found = cutmix(own, partners, 0.0, key(seed))
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    inside = 0
    for row in range(height):
        for column in range(width):
            pasted = top <= row < bottom and left <= column < right
            inside += pasted
            assert (found.images[:, :, row, column] == int(pasted)).all()
    assert float(found.weight) == pytest.approx(1 - inside / (height * width), abs=1e-6)
    assert torch.equal(found.labels, own.labels)
    assert torch.equal(found.others, partners.labels)
    assert found.images.dtype == torch.uint8
    assert (own.images == 0).all()  # as it was


def test_sides_are_the_root_of_a_uniform_share():
    """A centre in the middle of a large image: sides 2 floor(floor(H s) / 2), 1 - s^2 uniform."""
    cutmix, generator, sides = build(ALWAYS, COUNTS), key(0), []
    for _ in range(3000):
        top, bottom, _, _ = cutmix.box(4001, 4001, generator)
        if top > 0 and bottom < 4001:
            sides.append((bottom - top) / 4001)
    # what touches no border is not all: a side s fits with chance 1 - s, so its density is ~ 2 s (1 - s)
    assert kstest(sides, lambda s: 3 * np.power(s, 2) - 2 * np.power(s, 3)).pvalue > 1e-3


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_so_many_batches_have_a_patch_at_all(chance):
    cutmix, generator = build(Settings(chance=chance), COUNTS), key(0)
    boxes = [cutmix.box(1000, 1000, generator) for _ in range(2000)]
    share = sum(box[1] > box[0] for box in boxes) / len(boxes)
    assert abs(share - chance) < 0.05
    assert share == chance or 0 < chance < 1


def test_a_batch_that_is_left_out_counts_for_its_own_labels_alone():
    own, partners = two_batches()
    found = build(Settings(chance=0.0), COUNTS)(own, partners, 0.0, key(0))
    assert torch.equal(found.images, own.images)
    assert float(found.weight) == 1
    torch.manual_seed(0)
    logits = torch.randn(6, 3)
    loss = logit_adjusted.build(logit_adjusted.Settings(), COUNTS)
    pair = loss(logits, found.labels, torch.tensor(0.5), found.weight)
    pair = pair + loss(logits, found.others, torch.tensor(0.5), 1 - found.weight)
    torch.testing.assert_close(pair, loss(logits, own.labels, torch.tensor(0.5)))


@pytest.mark.parametrize(("progress", "pasted"), [(0.0, True), (0.89, True), (0.9, False), (0.99, False)])
def test_late_in_training_images_are_left_as_they_are(progress, pasted):
    own, partners = two_batches()
    found = build(Settings(chance=1.0, until=0.9), COUNTS)(own, partners, progress, key(1))
    assert (found is own) != pasted


def test_parts_of_a_batch_share_its_box():
    own, partners = two_batches()
    cutmix = build(ALWAYS, COUNTS)
    whole = cutmix(own, partners, 0.0, key(3))
    halves = [
        cutmix(
            Batch(own.images[part], own.labels[part]),
            Batch(partners.images[part], partners.labels[part]),
            0.0,
            key(8),
            key(3),
        )
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
    assert all(half.weight == whole.weight for half in halves)


@pytest.mark.parametrize(
    ("patches", "chances"), [("balanced", [1 / 3] * 3), ("inverse", [1 / 31, 5 / 31, 25 / 31])]
)
def test_partners_are_of_classes_by_their_chances(patches, chances):
    labels = torch.arange(4).repeat_interleave(torch.tensor([5000, 1000, 0, 200]))
    chosen = build(Settings(patches=patches), COUNTS).sampler(labels, key(0), 0.0)
    assert len(chosen) == len(labels)
    drawn = labels[chosen].bincount(minlength=4)
    assert drawn[2] == 0
    expected = [share * len(labels) for share in chances]
    assert chisquare(drawn[[0, 1, 3]].numpy(), expected).pvalue > 1e-3


def test_nothing_on_the_device_is_read_by_the_host():
    own, partners = (Batch(batch.images.to("meta"), batch.labels.to("meta")) for batch in two_batches())
    found = build(ALWAYS, COUNTS)(own, partners, 0.0, key(0))
    assert found.images.shape == own.images.shape


class Seen(Supervised):
    """The supervised step, which keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []

    def __call__(self, modules, batches, progress: Tensor) -> Outcome:
        self.batches += batches
        return super().__call__(modules, batches, progress)


def phase_with(make_phase, cutmix: MinorityCutMix, **changes):
    own = Stream(sampler=lambda y, g, t: instance.indices(y, g, t, instance.Settings()))
    streams = [own, Stream(sampler=cutmix.sampler)]
    return make_phase(streams=streams, pasting=cutmix, **changes)


def test_the_loop_pastes_a_stream_of_its_own_until_the_end_comes_near(make_phase, make_modules):
    step, cutmix = Seen(), build(Settings(chance=1.0, until=0.5), COUNTS)
    history = train(
        phase_with(make_phase, cutmix, step=step), make_modules(), seed=0, precision="float32"
    ).history
    assert len(history) == 4
    assert len(step.batches) == 4 * 7  # one batch a step, of 8 images and 2
    assert [batch.others is not None for batch in step.batches] == [True] * 14 + [False] * 14
    others = torch.cat([batch.others for batch in step.batches[:14]])
    labels = torch.cat([batch.labels for batch in step.batches[:7]])
    assert labels.bincount().tolist() == [24, 13, 7, 4, 2]  # every image of the phase once an epoch
    assert others.bincount(minlength=5).min() >= 100 / 5 / 3  # classes of 24 and of 2 images alike
    assert others.bincount(minlength=5).max() <= 100 / 5 * 2


def test_images_of_the_first_stream_are_those_of_a_training_without(make_phase, make_modules):
    step, plain = Seen(), Seen()
    never = build(Settings(chance=0.0), COUNTS)
    train(phase_with(make_phase, never, step=step), make_modules(), seed=0, precision="float32")
    train(make_phase(step=plain), make_modules(), seed=0, precision="float32")
    for one, other in zip(step.batches, plain.batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_interrupted_it_ends_with_the_same_weights_to_the_last_bit(
    make_phase, make_modules, tmp_path, monkeypatch
):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    path = tmp_path / "checkpoint.safetensors"
    phase = phase_with(make_phase, build(Settings(until=0.75), COUNTS), length=Length(epochs=4))
    whole, resumed = make_modules(), make_modules()
    expected = train(phase, whole, seed=0, precision="float32")

    class KillError(Exception):
        pass

    def report(row: object, state: loop.State) -> None:
        if len(state.history) == 2:
            raise KillError

    with pytest.raises(KillError):
        train(phase, make_modules(), seed=0, precision="float32", path=path, report=report)
    assert checkpoint.read(path)
    assert train(phase, resumed, seed=0, precision="float32", path=path).history == expected.history
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_runs.write_inputs(tmp_path_factory.mktemp("inputs") / "inputs")


@pytest.mark.parametrize("changes", [{}, {"shards": 2}, {"progress": "step"}])
def test_a_recipe_with_it_trains_on_a_device_as_on_the_cpu(inputs, tmp_path, monkeypatch, changes):
    monkeypatch.setattr("longtail.stage_one.graph.WARM_UP", 1)
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1000")
    transforms = [{"name": "minority_cutmix", "until": 0.7}]
    mixed = Recipe.model_validate({"loss": {"name": "logit_adjusted"}, "transforms": transforms})
    recipe = tiny_runs.small(mixed, epochs=4).model_copy(update=changes)
    expected = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "cpu"))
    with stand_in() as gpu:
        found = tiny_runs.contents(tiny_runs.trained(recipe, inputs, tmp_path / "gpu"))
    assert found == expected
    assert bool(gpu.graphs) == ("shards" not in changes)
