"""A linear classifier by a loss of stage one: a literal loop, and the known optimum of cross-entropy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from longtail.random import generator
from longtail.settings.methods import settings_of
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_two.classifier import FeatureData
from longtail.stage_two.linear import fresh_head
from longtail.stage_two.linear_probe import fit

COUNTS = [40, 12, 5]
CE = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}
GRALOSS = {"name": "logit_adjusted", "gamma": {"form": "power", "a": 1.0, "b": 2.0}}


def data(views: int = 2, counts=COUNTS, dimensions: int = 6) -> FeatureData:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(len(counts), dimensions, generator=random)
    features = centres[labels] + torch.randn(views, len(labels), dimensions, generator=random)
    validation = torch.arange(len(counts)).repeat(4)
    return FeatureData(
        views=features,
        view_logits=torch.zeros(views, len(labels), len(counts)),
        labels=labels,
        class_counts=torch.tensor(counts),
        clean=features[0],
        validation=centres[validation],
        validation_labels=validation,
        head_weight=torch.zeros(len(counts), dimensions),
        head_bias=torch.zeros(len(counts)),
    )


def settings(**given):
    return settings_of("stage_two", "linear_probe").model_validate({"loss": CE, **given})


def silent(done: int, total: int, note: str) -> None:
    """No progress to show."""


@pytest.mark.parametrize("progress", ["epoch", "step"])
def test_it_is_sgd_on_the_loss_with_its_progress_as_a_literal_loop_has_it(progress):
    known = data()
    options = settings(loss=GRALOSS, epochs=3, batch_size=16, progress=progress, learning_rate={"peak": 0.2})
    found = fit(known, options, seed=3, progress=silent)

    weight, bias = (tensor.requires_grad_() for tensor in fresh_head(3, 6, generator(3, "stage_two", "init")))
    optimiser = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9, weight_decay=5e-4)
    log_prior = (known.class_counts / known.class_counts.sum()).log()
    step, steps = 0, 3 * 4
    for epoch in range(3):
        random = generator(3, "stage_two", "sample", epoch)
        drawn = torch.randperm(57, generator=random)
        view = torch.randint(2, (57,), generator=random)
        for rows in torch.arange(57).split(16):
            t = step / steps if progress == "step" else epoch / 3
            x, y = known.views[view[rows], drawn[rows]], known.labels[drawn[rows]]
            optimiser.param_groups[0]["lr"] = LearningRate(peak=0.2).at(step, Length(epochs=3), 4)
            optimiser.zero_grad()
            F.cross_entropy(x @ weight.T + bias + t**2 * log_prior, y).backward()
            optimiser.step()
            step += 1
    torch.testing.assert_close(found.weight, weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.bias, bias.detach(), rtol=1e-4, atol=1e-6)
    assert [row["gamma"] for row in found.history] == pytest.approx([0, 1 / 9, 4 / 9], abs=0.2)


def test_cross_entropy_ends_at_the_optimum_that_logistic_regression_finds():
    known = data(views=1)
    rows, decay = sum(COUNTS), 0.05
    options = settings(epochs=600, batch_size=rows, weight_decay=decay, learning_rate={"peak": 0.3})
    found = fit(known, options, seed=0, progress=silent)
    # ours decays the bias too: it is the weight of a feature that is 1
    inputs = np.hstack([known.clean.numpy(), np.ones((rows, 1), np.float32)])
    theirs = LogisticRegression(C=1 / (rows * decay), fit_intercept=False, tol=1e-8, max_iter=10_000)
    theirs.fit(inputs, known.labels.numpy())
    ours = torch.cat([found.weight, found.bias.unsqueeze(1)], dim=1).numpy()
    np.testing.assert_allclose(ours, theirs.coef_, atol=2e-3)


def test_logit_adjustment_moves_answers_to_rare_classes():
    known = data()
    adjusted = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 1.0}}
    answers = [
        fit(known, settings(loss=loss), seed=0, progress=silent)
        .logits(known.clean)
        .argmax(1)
        .bincount(minlength=3)
        for loss in (CE, adjusted)
    ]
    assert answers[1][2] > answers[0][2]


def test_a_sampler_of_stage_one_says_which_images_are_seen():
    known = data()
    balanced = fit(known, settings(sampler={"name": "class_balanced"}), seed=0, progress=silent)
    plain = fit(known, settings(), seed=0, progress=silent)
    rare = known.clean[known.labels == 2]
    assert (balanced.logits(rare).softmax(1)[:, 2] > plain.logits(rare).softmax(1)[:, 2]).float().mean() > 0.7


def test_a_class_without_an_image_is_refused_by_a_loss_with_priors():
    with pytest.raises(ValueError, match=r"classes \[1\] have no training image"):
        fit(data(counts=[10, 0, 5]), settings(loss=GRALOSS), seed=0, progress=silent)
