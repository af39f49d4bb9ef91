import pytest
import torch
import torch.nn.functional as F

from longtail.settings.schedules import LearningRate
from longtail.stage_two import linear
from longtail.stage_two.crt import Settings
from longtail.stage_two.linear import (
    LinearTraining,
    SoftTargets,
    by_autograd,
    cross_entropy,
    fresh_head,
    total,
)

torch.set_num_threads(1)


def batch(rows=300, dimensions=7, classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, dimensions, generator=random)
    labels = torch.randint(classes, (rows,), generator=random)
    return inputs, labels, *fresh_head(classes, dimensions, random)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("mass", [1.0, 0.3, 0.0])
def test_the_gradient_of_soft_targets_is_the_derivative_of_their_loss(temperature, mass):
    random = torch.Generator().manual_seed(0)
    logits, targets = (torch.randn(9, 4, generator=random, dtype=torch.float64) for _ in range(2))
    targets, offset = mass * targets.softmax(1), torch.rand(9, generator=random, dtype=torch.float64)
    loss, gradient = SoftTargets(targets, offset, temperature)(logits[2:6], slice(2, 6))
    leaf = logits[2:6].clone().requires_grad_()
    expected = (offset[2:6] - (targets[2:6] * (leaf / temperature).log_softmax(1)).sum(1)).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.98, 1.0])
def test_cross_entropy_is_torchs_and_so_is_its_gradient(smoothing):
    _, labels, *_ = batch()
    logits = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    own = cross_entropy(labels, 5, smoothing)

    def mean(logits, rows):
        return F.cross_entropy(logits, labels[rows], label_smoothing=smoothing)

    derived = by_autograd(mean, torch.arange(300))
    rows = slice(100, 228)
    for one, two in zip(own(logits[rows], rows), derived(logits[rows], rows), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    doubled = total([own, derived])(logits[rows], rows)
    for one, two in zip(own(logits[rows], rows), doubled, strict=True):
        torch.testing.assert_close(2 * one, two, rtol=1e-5, atol=1e-6)


def test_very_wrong_logits_have_a_large_finite_loss():
    loss, gradient = cross_entropy(torch.tensor([1]), 2)(torch.tensor([[1000.0, -1000.0]]), slice(0, 1))
    assert float(loss) == 2000
    assert gradient.tolist() == [[1, -1]]


@pytest.mark.parametrize("chunk", [1 << 25, 64 * 7])  # everything at once, or a batch at a time
@pytest.mark.parametrize("closed_form", [True, False])
def test_training_is_torchs_sgd_step_by_step(chunk, closed_form, monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", chunk)
    inputs, labels, weight, bias = batch()
    recipe = Settings(batch_size=64, learning_rate=LearningRate(peak=0.5, warmup=1), momentum=0.9)
    training = LinearTraining(weight, bias, recipe, 3, 300)

    reference = torch.nn.Linear(7, 5)
    reference.load_state_dict({"weight": weight, "bias": bias})
    optimiser = torch.optim.SGD(reference.parameters(), lr=1, momentum=0.9, weight_decay=5e-4)
    step = 0
    for epoch in range(3):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(epoch))
        if closed_form:
            mean = training.labelled_epoch(inputs, labels, order)
        else:
            mean = training.epoch(inputs, order, lambda logits, rows: F.cross_entropy(logits, labels[rows]))
        losses = []
        for rows in order.split(64):
            optimiser.param_groups[0]["lr"] = recipe.learning_rate.at(step, training.length, 5)
            optimiser.zero_grad()
            loss = F.cross_entropy(reference(inputs[rows]), labels[rows])
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()) * len(rows))
            step += 1
        assert mean == pytest.approx(sum(losses) / 300, rel=1e-5)
    assert training.step == step == 15
    for own, expected in zip(training.result(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(training.logits(inputs), reference(inputs).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(weight, batch()[2])  # where it started is left as it was
    assert torch.equal(bias, batch()[3])


@pytest.mark.parametrize(("dimensions", "classes"), [(64, 100), (2048, 1000), (64, 8142), (1 << 20, 10)])
def test_a_chunk_is_whole_batches_within_its_limit(dimensions, classes):
    weight = torch.empty(1, 1).expand(classes, dimensions)
    if dimensions * classes > 1 << 23:
        weight = torch.empty(10, dimensions)
    training = LinearTraining(weight, torch.empty(len(weight)), Settings(batch_size=128), 1, 1000)
    assert training.chunk % 128 == 0
    assert 0 < training.chunk * max(weight.shape) <= linear.CHUNK or training.chunk == 128
