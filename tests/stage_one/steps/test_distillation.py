"""Distillation: the printed loss, two heads, teachers that never change."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from longtail.settings.recipe import Recipe
from longtail.settings.schedules import Constant
from longtail.stage_one.assembly import make_network, seed_of
from longtail.stage_one.batch import Batch
from longtail.stage_one.losses.logit_adjusted import Settings as LossSettings
from longtail.stage_one.losses.logit_adjusted import build as build_loss
from longtail.stage_one.networks.resnet_cifar import Settings as NetworkSettings
from longtail.stage_one.networks.resnet_cifar import build as build_network
from longtail.stage_one.steps.distillation import Distilled, Settings
from longtail.stage_one.teacher import Teacher
from longtail.stage_two.classifier import Fitted

CLASSES, COUNTS = 5, torch.tensor([40, 20, 8, 3, 1])


def network(seed):
    torch.manual_seed(seed)
    return build_network(NetworkSettings(depth=8, width=4), 3, CLASSES)


def modules(step):
    loss = build_loss(LossSettings(gamma=Constant(a=1.0)), COUNTS)
    return nn.ModuleDict({"network": network(0), "loss": loss, **step.modules()})


def batch(size=6):
    random = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 8, 8, generator=random)
    return Batch(images, torch.randint(CLASSES, (size,), generator=random))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_loss_is_the_printed_equation(temperature, power):
    teachers = [Teacher(network(seed)) for seed in (1, 2)]
    given = {"teacher": "ce", "temperature": temperature, "power": power, "labels": 0.25, "answers": 0.75}
    step = Distilled(teachers, Settings.model_validate(given), nn.Linear(16, CLASSES))
    made, seen, progress = modules(step), batch(), torch.tensor(0.5)
    made["network"].eval()
    features = made["network"].features(seen.images)
    z_soft, z_hard = made["network"].head(features), made["hard"](features)
    adjusted = z_hard + (COUNTS / COUNTS.sum()).log()
    expected = 0.25 * F.cross_entropy(adjusted, seen.labels)
    for n in range(len(seen.labels)):
        mean = sum((t.network(seen.images)[n] / temperature).softmax(0) for t in teachers) / 2
        q = mean**power / (mean**power).sum()
        p = (z_soft[n] / temperature).softmax(0)
        kl = sum(q[c] * (q[c] / p[c]).log() for c in range(CLASSES))
        expected = expected + 0.75 * temperature**2 * kl / len(seen.labels)
    found = step(made, [seen], progress).loss
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_labels_reach_the_hard_head_and_answers_the_soft_one():
    for labels, answers, reached in ((1.0, 0.0, "hard"), (0.0, 1.0, "soft")):
        settings = Settings.model_validate({"teacher": "ce", "labels": labels, "answers": answers})
        step = Distilled([Teacher(network(1))], settings, nn.Linear(16, CLASSES))
        made = modules(step)
        step(made, [batch()], torch.tensor(0.5)).loss.backward()
        for name, head in (("hard", made["hard"]), ("soft", made["network"].head)):
            assert bool(head.weight.grad.any()) == (name == reached)


def test_one_head_is_for_both_and_right_is_what_the_networks_own_says():
    settings = Settings.model_validate({"teacher": "ce", "heads": "one"})
    step = Distilled([Teacher(network(1))], settings, None)
    made = modules(step)
    assert "hard" not in made
    made["network"].eval()
    seen = batch()
    outcome = step(made, [seen], torch.tensor(0.5))
    assert int(outcome.correct) == int((made["network"](seen.images).argmax(1) == seen.labels).sum())


def test_a_teacher_stays_as_it_is():
    teacher = Teacher(network(1))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    step = Distilled([teacher], Settings.model_validate({"teacher": "ce"}), nn.Linear(16, CLASSES))
    made = modules(step)
    teacher.train()
    step(made.train(), [batch()], torch.tensor(0.5)).loss.backward()
    assert not teacher.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_teacher_normalises_by_its_own_statistics_or_the_batchs(mode):
    settings = Settings.model_validate({"teacher": "ce", "temperature": 1.0, "teacher_batchnorm": mode})
    seen, expected = batch().images, network(1).train(mode == "train")
    step = Distilled([Teacher(network(1))], settings, None)
    for _ in range(2):  # what it said before changes nothing
        assert torch.allclose(step.answers(seen), expected(seen).softmax(1), atol=1e-6)
    assert "teacher_batchnorm" not in Settings.model_validate({"teacher": "ce"}).resolved(hashed=True)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("center", [None, torch.full((16,), 0.1)])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_teacher_with_a_classifier_says_what_stage_two_says(power, center, normalise):
    random = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(CLASSES, 16, generator=random), torch.randn(CLASSES, generator=random)
    fitted = Fitted(weight, bias, tukey=power, center=center, normalise=normalise)
    teacher = Teacher(network(1), fitted.state())
    images = batch().images
    expected = fitted.logits(teacher.network.features(images))
    assert torch.equal(teacher(images), expected)
    assert images.requires_grad_() is images
    teacher(images).sum().backward()
    assert images.grad.any()  # as attacks on a network need


@pytest.mark.parametrize("chance", ["own", "shared"])
def test_a_student_has_other_random_numbers_than_its_teacher_of_the_same_seed(chance):
    small = {"name": "resnet_cifar", "depth": 8, "width": 4}
    teacher = Recipe.model_validate({"network": small, "loss": "focal"})
    step = {"name": "distillation", "teacher": "ce", "chance": chance}
    student = Recipe.model_validate({"network": small, "loss": "focal", "step": step})
    assert seed_of(teacher.phases[0], 3) == 3
    one, other = (
        make_network(of, 3, CLASSES, seed_of(of.phases[0], 3), "network") for of in (teacher, student)
    )
    same = [
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.dim() > 1
    ]
    assert all(same) if chance == "shared" else not any(same)
    assert len({seed_of(student.phases[0], seed) for seed in range(10)}) == 10


def test_a_run_from_before_the_key_is_one_of_shared_chance():
    step = {"name": "distillation", "teacher": "ce"}
    before = {**Settings(teacher="ce").resolved(), "chance": "shared"}
    recipe = Recipe.model_validate({"loss": "focal", "step": {**step, **before}})
    assert "chance" not in recipe.resolved(hashed=True)["step"]
    assert (
        Recipe.model_validate({"loss": "focal", "step": step}).resolved(hashed=True)["step"]["chance"]
        == "own"
    )
