"""Accuracy by class and by group, and calibration."""

import json

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longtail import metrics as evaluation
from longtail.errors import UserError
from longtail.metrics import expected_calibration_error, group_accuracy, metrics

COUNTS = torch.tensor([500, 101, 100, 20, 19, 1])


def logits_for(predicted: list[int], classes: int) -> torch.Tensor:
    return 5 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def test_accuracies_of_a_case_counted_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 4, 5])
    predicted = [0, 0, 0, 1, 1, 0, 2, 0, 4, 0]
    found = metrics(logits_for(predicted, 6), labels, COUNTS)
    assert found["n"] == 10
    assert found["accuracy"] == 0.6
    assert found["per_class"] == [0.75, 0.5, 1, 0, 1, 0]
    assert found["per_class_n"] == [4, 2, 1, 1, 1, 1]
    assert found["mean_class_accuracy"] == pytest.approx(3.25 / 6)
    # more than 100 training images is many, fewer than 20 few: 101 | 100, 20 | 19
    assert found["groups"] == {"many": 0.625, "medium": 0.5, "few": 0.5}


def test_a_class_or_group_without_test_images_has_no_accuracy():
    found = metrics(logits_for([0, 0], 6), torch.tensor([0, 1]), COUNTS)
    assert found["per_class"] == [1, 0, None, None, None, None]
    assert found["groups"] == {"many": 0.5, "medium": None, "few": None}
    assert found["mean_class_accuracy"] == 0.5


def test_no_image_at_all_is_no_error():
    found = metrics(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), COUNTS)
    assert found["n"] == 0
    assert found["accuracy"] is None
    assert found["expected_calibration_error"] is None


def test_thresholds_can_be_moved_without_the_logits():
    accuracy, n, counts = [1.0, 0.5, None, 0.0], [1, 2, 0, 3], [60, 50, 40, 5]
    assert group_accuracy(accuracy, n, counts) == {"many": None, "medium": 0.75, "few": 0.0}
    moved = group_accuracy(accuracy, n, counts, many_above=50, few_below=51)
    assert moved == {"many": 1.0, "medium": None, "few": 0.25}


@st.composite
def predictions(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    classes, size = draw(st.integers(2, 10)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    logits = scale * torch.randn(size, classes, generator=generator)
    counts = torch.randint(1, 300, (classes,), generator=generator)
    return logits, torch.randint(classes, (size,), generator=generator), counts


@settings(deadline=None)
@given(predictions())
def test_metrics_are_what_counting_gives_and_are_json(case):
    logits, labels, counts = case
    found = metrics(logits, labels, counts)
    right = [int(row.argmax()) == label for row, label in zip(logits, labels.tolist(), strict=True)]
    assert found["accuracy"] == sum(right) / len(right)
    assert sum(found["per_class_n"]) == found["n"] == len(labels)
    weighted = sum(a * n for a, n in zip(found["per_class"], found["per_class_n"], strict=True) if n)
    assert weighted == pytest.approx(sum(right))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_the_calibration_error_is_torchmetrics(case):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels, _ = case
    probabilities = logits.double().softmax(dim=1)
    # torchmetrics rounds to float32 and then has a sixteenth bin for confidences of exactly 1
    assume(bool((probabilities.float() < 1).all()))
    expected = functional.multiclass_calibration_error(
        probabilities, labels, num_classes=logits.shape[1], n_bins=15, norm="l1"
    )
    assert expected_calibration_error(logits, labels) == pytest.approx(float(expected), abs=1e-6)


def test_a_sure_and_right_network_is_calibrated_a_sure_and_wrong_one_is_not():
    logits, labels = 100 * torch.eye(4), torch.arange(4)
    assert expected_calibration_error(logits, labels) == pytest.approx(0)
    assert expected_calibration_error(logits, labels.roll(1)) == pytest.approx(1)


@pytest.mark.parametrize("part", [1, 70, 7 * 50])
def test_the_calibration_error_in_parts_is_that_of_all_logits_at_once(monkeypatch, part):
    random = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(50, 7, generator=random), torch.randint(7, (50,), generator=random)
    whole = expected_calibration_error(logits, labels)
    monkeypatch.setattr(evaluation, "PART", part)
    assert expected_calibration_error(logits, labels) == pytest.approx(whole, abs=1e-15)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_one_line(wrong):
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    logits[2, 1] = wrong
    with pytest.raises(UserError, match=r"logits are not finite.*lower learning_rate\.peak"):
        expected_calibration_error(logits, labels)
    with pytest.raises(UserError):
        metrics(logits, labels, torch.tensor([3, 2, 1]))


def test_a_class_that_is_ruled_out_by_minus_infinity_is_no_error():
    logits = torch.tensor([[0.0, float("-inf")], [0.0, 0.0]])
    assert expected_calibration_error(logits, torch.tensor([0, 0])) == pytest.approx(0.25)
