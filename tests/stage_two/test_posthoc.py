import torch

from longtail.stage_two import posthoc
from longtail.stage_two.classifier import class_accuracy

from .test_afg import mixture, silent

torch.set_num_threads(1)


def fit(data, **keys):
    return posthoc.fit(data, posthoc.Settings(**keys), 0, silent)


def test_probabilities_are_divided_by_the_prior_to_the_power_tau():
    data, tested, _ = mixture()
    before = fit(data, tau=0).logits(tested).softmax(1)
    prior = data.class_counts / data.class_counts.sum()
    for tau in (0.5, 1.0, 2.0):
        expected = before / prior**tau
        expected /= expected.sum(1, keepdim=True)
        torch.testing.assert_close(fit(data, tau=tau).logits(tested).softmax(1), expected)


def test_small_classes_gain_and_the_largest_loses():
    data, tested, labels = mixture()
    by_tau = [class_accuracy(fit(data, tau=tau).logits(tested), labels, 6) for tau in (0.0, 1.0)]
    assert by_tau[1][3:].mean() > by_tau[0][3:].mean()
    assert by_tau[1][0] < by_tau[0][0]
    assert by_tau[1].mean() > by_tau[0].mean()


def test_the_tau_of_the_best_validation_score_is_chosen_and_the_default_is_1():
    data, *_ = mixture()
    assert (posthoc.Settings().tau, posthoc.Settings().selects) == (1.0, "")
    fitted = fit(data, tau=None)
    assert posthoc.Settings(tau=None).selects == "tau"
    best = max(fitted.history, key=lambda row: row["validation"])
    assert torch.equal(fitted.bias, fit(data, tau=best["tau"]).bias)
    assert len(fitted.history) == 31
