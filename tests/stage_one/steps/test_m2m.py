"""M2m: chances, seeds and attacks, against slow versions, and networks that a translation leaves alone."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from longtail.settings.recipe import Recipe
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.ldam import Settings as LossSettings
from longtail.stage_one.losses.ldam import build as build_loss
from longtail.stage_one.networks.resnet_cifar import Settings as NetworkSettings
from longtail.stage_one.networks.resnet_cifar import build as build_network
from longtail.stage_one.step import Stream
from longtail.stage_one.steps.m2m import Pixels, Settings, Translation, build, pixels_of
from longtail.stage_one.teacher import Teacher

COUNTS = torch.tensor([40, 20, 8, 3, 1])
LABELS = torch.tensor([0, 4, 1, 2, 3, 0, 4, 3])
SHAPE = (3, 8, 8)
OFFSET, SPREAD = torch.tensor([-2.0, -1.5, -1.0]), torch.tensor([4.0, 3.5, 3.0])
LATE = torch.tensor(0.9)


def network(seed, head="linear"):
    torch.manual_seed(seed)
    found = build_network(NetworkSettings(depth=8, width=4, head=head), 3, len(COUNTS))
    for _ in range(3):  # running statistics that are not the first ones
        found(torch.randn(16, *SHAPE))
    return found


def step(judge=None, **changes):
    pixels = Pixels(OFFSET.view(1, 3, 1, 1), SPREAD.view(1, 3, 1, 1))
    settings = Settings.model_validate({"source": "ce", **changes})
    made = Translation(judge or Teacher(network(1)), settings, COUNTS, pixels, SHAPE, late)
    made.turn(float(LATE))
    return made


def late(labels, generator, progress):
    return torch.zeros(len(labels), dtype=torch.int64)


def batch(made, labels=LABELS, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(len(labels), *SHAPE, generator=random)
    normalised = images * SPREAD.view(1, 3, 1, 1) + OFFSET.view(1, 3, 1, 1)
    return Batch(normalised, labels, drawn=made.draw(len(labels), random))


def modules(head="cosine"):
    return nn.ModuleDict({"network": network(0, head), "loss": build_loss(LossSettings(), COUNTS)})


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
def test_a_is_one_less_a_power_and_nought_for_classes_as_large(beta):
    found = step(beta=beta).chances(LABELS)
    for i, k in enumerate(LABELS.tolist()):
        for j, k0 in enumerate(LABELS.tolist()):
            more = max(int(COUNTS[k0] - COUNTS[k]), 0)
            assert float(found[i, j]) == pytest.approx(1 - beta**more, abs=1e-6)
            assert (found[i, j] == 0) == (COUNTS[k0] <= COUNTS[k])


def test_beta_is_free_of_scale_unless_it_is_given():
    assert step().beta == pytest.approx(1 - 5 / 40)
    assert step(beta=0.999).beta == 0.999
    counts = torch.tensor([5000, 3])
    pixels = Pixels(torch.zeros(1), torch.ones(1))
    assert Translation(nn.Identity(), Settings(source="ce"), counts, pixels, SHAPE, late).beta == 0.999
    few = torch.tensor([4, 1])
    assert Translation(nn.Identity(), Settings(source="ce"), few, pixels, SHAPE, late).beta == 0


def test_a_seed_is_drawn_by_a():
    made = step(beta=0.9)
    random = torch.Generator().manual_seed(0)
    number = 4000
    first = torch.zeros(len(LABELS), len(LABELS))
    for _ in range(number):
        chosen, chance = made.seeds(LABELS, made.draw(len(LABELS), random)[1])
        first[torch.arange(len(LABELS)), chosen] += 1
        assert torch.equal(chance, made.chances(LABELS)[torch.arange(len(LABELS)), chosen])
    chances = made.chances(LABELS)
    rows = chances.sum(1) > 0
    expected = chances[rows] / chances[rows].sum(1, keepdim=True)
    error = (expected * (1 - expected) / number).sqrt()
    assert bool(((first[rows] / number - expected).abs() <= 4 * error + 1e-9).all())


def attacked(judge, own, x, label, origin, *, lam=0.5, scale=30.0, size=0.1, iterations=10):
    """One image (3, 8, 8), step by step, by gradients of the whole."""
    for _ in range(iterations):
        x = x.detach().requires_grad_(True)
        image = (x * SPREAD.view(3, 1, 1) + OFFSET.view(3, 1, 1))[None]
        p = judge(image).softmax(1)[0, label]
        value = -p.log() + lam * own(image)[0, origin] / scale
        value.backward()
        x = (x - size * x.grad / (x.grad.norm() + 1e-10)).clamp(0, 1)
    return x.detach()


@pytest.mark.parametrize("score", ["cosine", "logit"])
def test_a_batch_is_translated_as_one_image_after_the_other(score):
    judge = Teacher(network(1))
    made = step(judge, gamma=0.25, score=score, lam=0.3)
    own, given = network(0, "cosine"), batch(made)
    which, race, whether, noise = given.drawn
    found, accepted = made.translated(own, given)
    own.eval()
    a = made.chances(LABELS)
    replaced = []
    for i, k in enumerate(LABELS.tolist()):
        j = int((race[i] / a[i]).argmin())
        x = (given.images[j] - OFFSET.view(3, 1, 1)) / SPREAD.view(3, 1, 1)
        x = (x + noise[i]).clamp(0, 1)
        assert float(noise[i].norm()) == pytest.approx(0.5, rel=1e-5)
        scale = 30.0 if score == "cosine" else 1.0
        x = attacked(judge, copy.deepcopy(own), x, k, int(LABELS[j]), lam=0.3, scale=scale)
        image = x * SPREAD.view(3, 1, 1) + OFFSET.view(3, 1, 1)
        sure = judge(image[None]).softmax(1)[0, k] >= 0.25
        if which[i] >= COUNTS[k] / 40 and sure and whether[i] < a[i, j]:
            replaced.append(i)
            assert torch.allclose(found[i], image, atol=1e-3)
        else:
            assert torch.equal(found[i], given.images[i])
    assert accepted.nonzero().flatten().tolist() == replaced
    assert replaced


def test_each_step_has_its_length_where_nothing_is_clipped():
    made, own = step(iterations=1), network(0).eval()
    x = torch.full((8, *SHAPE), 0.5)
    once = made.moved(own, x, LABELS, LABELS.flip(0))
    assert torch.allclose((once - x).flatten(1).norm(dim=1), torch.full((8,), 0.1), atol=1e-5)
    many = step(iterations=40, step_size=1.0).moved(own, x, LABELS, LABELS.flip(0))
    assert float(many.min()) >= 0
    assert float(many.max()) <= 1


def test_an_attack_makes_the_judge_surer_and_the_network_less_of_the_seed():
    judge, own = Teacher(network(1)), network(0).eval()
    x, origins = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(2)), LABELS.flip(0)
    made = step(judge, lam=0.0)
    pixels = Pixels(OFFSET.view(1, 3, 1, 1), SPREAD.view(1, 3, 1, 1))

    def sure(images):
        return judge(pixels.normalised(images)).softmax(1)[torch.arange(8), LABELS]

    assert bool((sure(made.moved(own, x, LABELS, origins)) > sure(x)).all())
    strong = step(judge, lam=1e4).moved(own, x, LABELS, origins)
    before, after = (own(pixels.normalised(images))[torch.arange(8), origins] for images in (x, strong))
    assert bool((after < before).all())


def test_what_is_accepted_is_of_its_class_to_the_judge():
    judge = Teacher(network(1))
    number = 0
    for seed in range(6):
        made = step(judge, beta=0.0, gamma=0.3)
        given = batch(made, seed=seed)
        found, accepted = made.translated(network(0), given)
        own = judge(found).softmax(1)[torch.arange(8), LABELS]
        assert bool((own[accepted] >= 0.3).all())
        number += int(accepted.sum())
    assert number


@pytest.mark.parametrize("labels", [LABELS, torch.tensor([3, 4, 3, 3]), torch.tensor([0, 0, 1, 1])])
def test_with_beta_and_gamma_nought_all_that_are_asked_and_have_a_larger_class_are_replaced(labels):
    made = step(beta=0.0, gamma=0.0)
    for seed in range(5):
        given = batch(made, labels, seed)
        found, accepted = made.translated(network(0), given)
        asked = given.drawn[0] >= COUNTS[labels] / 40
        has_seed = COUNTS[labels] < COUNTS[labels].max()
        assert torch.equal(accepted, asked & has_seed)
        changed = (found != given.images).flatten(1).any(dim=1)
        assert torch.equal(changed, accepted)
    assert bool(has_seed.any())


def test_images_of_the_largest_class_are_never_replaced():
    made = step(beta=0.0, gamma=0.0)
    for seed in range(20):
        _, accepted = made.translated(network(0), batch(made, seed=seed))
        assert not accepted[LABELS == 0].any()


def test_a_batch_without_seeds_is_a_plain_step():
    made, both = step(beta=0.0, gamma=0.0), modules()
    given = batch(made, torch.tensor([2, 2, 2, 2]))
    expected = both["loss"](copy.deepcopy(both["network"])(given.images), given.labels, LATE)
    assert float(made(both, [given], LATE).loss.detach()) == float(expected.detach())


def test_a_translation_leaves_both_networks_as_they_were():
    judge, own = Teacher(network(1)), network(0, "cosine")
    before = [copy.deepcopy(part.state_dict()) for part in (judge, own)]
    made = step(judge)
    made.translated(own, batch(made))
    for part, state in zip((judge, own), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in part.state_dict().items())
        assert all(parameter.grad is None for parameter in part.parameters())
    assert own.training
    assert not judge.network.training


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_translated_batch_alone(precision):
    made, both = step(beta=0.0, gamma=0.0), modules()
    given, other = batch(made), copy.deepcopy(both)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        images, accepted = made.translated(other["network"], given)
        assert bool(accepted.any())
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        expected = other["loss"](other["network"](images).float(), LABELS, LATE)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        outcome = made(both, [given], LATE)
    expected.backward()
    outcome.loss.backward()
    for one, two in zip(both.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_before_the_start_images_come_as_they_are_and_nothing_is_drawn():
    made, both = step(), modules()
    made.turn(0.79)
    assert made.draw(8, torch.Generator()) == ()
    given = batch(made)
    expected = both["loss"](copy.deepcopy(both["network"])(given.images), LABELS, LATE)
    assert float(made(both, [given], torch.tensor(0.79)).loss.detach()) == float(expected.detach())
    assert [made.turn(progress) for progress in (0.0, 0.795, 0.8, 0.995)] == [False, False, True, True]


def test_from_the_start_on_images_come_by_the_other_sampler():
    own = Stream(sampler=lambda labels, generator, progress: torch.arange(len(labels)))
    (stream,) = step().streams(own)
    assert stream == replace(own, sampler=stream.sampler)
    assert stream.sampler(LABELS, None, 0.79).tolist() == list(range(8))
    assert stream.sampler(LABELS, None, 0.8).tolist() == [0] * 8


@pytest.mark.parametrize("noise", ["image", "channel", "none"])
def test_noise_is_of_one_length(noise):
    *_, last = step(noise=noise).draw(8, torch.Generator().manual_seed(0))
    if noise == "none":
        assert last.shape == (8,)
    elif noise == "image":
        assert torch.allclose(last.flatten(1).norm(dim=1), torch.full((8,), 0.5))
    else:
        assert torch.allclose(last.transpose(0, 1).flatten(1).norm(dim=1), torch.full((3,), 0.5))


def context(judges):
    return SimpleNamespace(
        teachers=lambda key: judges if key == "source" else [],
        class_counts=COUNTS,
        device=torch.device("cpu"),
        training=SimpleNamespace(images=torch.zeros(2, *SHAPE, dtype=torch.uint8)),
        prepare=lambda images: images.float() / 255 * SPREAD.view(1, 3, 1, 1) + OFFSET.view(1, 3, 1, 1),
    )


def test_pixels_are_normalised_as_the_run_does():
    images = torch.randint(0, 256, (4, *SHAPE), dtype=torch.uint8)
    prepared, pixels = context([]).prepare(images), pixels_of(context([]))
    assert torch.allclose(pixels.of(prepared), images / 255, atol=1e-6)
    assert torch.allclose(pixels.normalised(images / 255), prepared, atol=1e-6)


def test_one_network_judges():
    settings = Settings(source="ce")
    assert isinstance(build(settings, context([Teacher(network(1))])), Translation)


@pytest.mark.parametrize(("key", "value"), [("shards", 2), ("transforms", ["mixup"])])
def test_what_would_part_or_mix_its_images_is_refused(key, value):
    loss = {"name": "focal", "gamma": 1.0}
    with pytest.raises(ValueError, match=f"step m2m .phase train. takes no {key}"):
        Recipe.model_validate({"loss": loss, "step": {"name": "m2m", "source": "ce"}, key: value})


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="source"):
        Recipe.model_validate({"loss": {"name": "focal", "gamma": 1.0}, "step": "m2m"})
