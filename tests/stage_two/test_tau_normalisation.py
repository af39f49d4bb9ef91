from dataclasses import replace

import pytest
import torch

from longtail.stage_two import tau_normalisation
from longtail.stage_two.classifier import selection_score

from .test_afg import mixture, silent

torch.set_num_threads(1)
Settings = tau_normalisation.Settings


def fit(data, **keys):
    return tau_normalisation.fit(data, Settings(**keys), 0, silent)


def test_tau_0_is_stage_one_without_its_bias_and_tau_1_makes_all_weights_equally_long():
    data, *_ = mixture()
    assert torch.equal(fit(data, tau=0).weight, data.head_weight)
    assert not fit(data, tau=0).bias.any()
    torch.testing.assert_close(fit(data, tau=1).weight.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(fit(data, tau=2).weight.norm(dim=1), 1 / data.head_weight.norm(dim=1))


def test_tau_is_the_one_with_the_highest_validation_score_and_the_whole_curve_is_kept():
    data, *_ = mixture()
    fitted = fit(data)
    assert [row["tau"] for row in fitted.history] == [i / 10 for i in range(21)]
    for row in fitted.history:
        logits = fit(data, tau=row["tau"]).logits(data.validation)
        assert row["validation"] == selection_score(logits, data.validation_labels, 6)
    scores = [row["validation"] for row in fitted.history]
    best = fitted.history[scores.index(max(scores))]["tau"]
    assert float(fitted.tensors["tau"]) == pytest.approx(best)
    assert torch.equal(fitted.weight, fit(data, tau=best).weight)


def test_scores_leave_out_classes_with_fewer_validation_images():
    data, *_ = mixture()
    kept = data.validation_labels != 0
    kept[25] = False  # class 1 has one less than the others
    less = replace(data, validation=data.validation[kept], validation_labels=data.validation_labels[kept] * 1)
    wrong = less.validation_labels.clone()
    wrong[less.validation_labels == 1] = 0  # what class 1's images are called makes no difference
    again = replace(less, validation_labels=wrong)
    assert [row["validation"] for row in fit(less).history] == [
        row["validation"] for row in fit(again).history
    ]


def test_a_weight_of_length_0_stays_0():
    data, *_ = mixture()
    data.head_weight[2] = 0
    assert not fit(data, tau=1.5).weight[2].any()


def test_what_selects_and_the_error_without_images():
    data, *_ = mixture()
    assert (Settings().selects, Settings(tau=1).selects) == ("tau", "")
    none = replace(data, validation=data.validation[:0], validation_labels=data.validation_labels[:0])
    with pytest.raises(ValueError, match="no validation image to choose tau by: fix tau"):
        fit(none)
    assert fit(none, tau=1).history == []
