import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from longtail.errors import UserError
from longtail.stage_two import free_lunch, joint
from longtail.stage_two.classifier import class_accuracy
from longtail.stage_two.free_lunch import Settings, logistic_regression

from .test_afg import mixture, silent

torch.set_num_threads(1)


@pytest.mark.parametrize("penalty", [1.0, 10.0])
def test_the_regression_is_scikit_learns(penalty):
    data, tested, _ = mixture()
    features, labels = data.validation, data.validation_labels
    weight, bias, loss = logistic_regression(features, labels, 6, penalty, 1000, silent)
    reference = LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-8).fit(features, labels)
    ours = torch.nn.functional.linear(tested, weight, bias).softmax(1)
    expected = torch.tensor(reference.predict_proba(tested.numpy()), dtype=torch.float32)
    torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)
    assert (ours.argmax(1) == expected.argmax(1)).float().mean() > 0.99
    own = torch.nn.functional.linear(features, weight, bias)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(own, labels)), abs=1e-5)


def test_features_that_are_not_finite_are_one_line():
    with pytest.raises(UserError, match="the loss of the logistic regression is nan"):
        logistic_regression(torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1]), 2, 1.0, 5, silent)


@pytest.mark.parametrize("statistics", ["before", "after"])
def test_every_class_is_filled_up_once_and_the_smallest_gain(statistics):
    data, tested, labels = mixture()
    fitted = free_lunch.fit(data, Settings(tukey={"lambda": 1, "statistics": statistics}), 0, silent)
    assert [row["generated"] for row in fitted.history] == [6 * 200 - 330]
    before = class_accuracy(joint.fit(data, joint.Settings(), 0, silent).logits(tested), labels, 6)
    after = class_accuracy(fitted.logits(tested), labels, 6)
    assert after[3:].mean() > before[3:].mean()
    assert after.mean() > before.mean()


def test_the_defaults_are_the_papers_and_prediction_transforms_too():
    assert (Settings().k, Settings().alpha, Settings().tukey.power) == (2, 0.21, 0.5)
    assert Settings().tukey.statistics == "before"
    data, *_ = mixture()
    assert free_lunch.fit(data, Settings(iterations=2), 0, silent).tukey == 0.5
    with pytest.raises(ValidationError):
        Settings(tukey={"lambda": -1})
