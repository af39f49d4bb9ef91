import pytest
import torch

from longtail.stage_two import crt, joint
from longtail.stage_two.classifier import class_accuracy

from .test_afg import mixture, silent

torch.set_num_threads(1)


@pytest.mark.parametrize("init", ["random", "stage_one"])
def test_crt_trades_accuracy_of_large_classes_for_small_ones(init):
    data, features, labels = mixture()
    before = class_accuracy(
        joint.fit(data, joint.Settings(), 0, silent).logits(features), labels, len(data.class_counts)
    )
    fitted = crt.fit(data, crt.Settings(init=init), 0, silent)
    after = class_accuracy(fitted.logits(features), labels, len(data.class_counts))
    assert after[3:].mean() > before[3:].mean() + 0.1
    assert after.mean() > before.mean()
    assert after[0] < before[0]


def test_joint_is_stage_one_itself():
    data, *_ = mixture()
    fitted = joint.fit(data, joint.Settings(), 0, silent)
    logits = fitted.logits(data.views[0])
    torch.testing.assert_close(logits, data.view_logits[0])
    assert fitted.history == []


def test_equal_seeds_give_equal_classifiers_and_other_seeds_others():
    data, *_ = mixture()
    one, two, other = (crt.fit(data, crt.Settings(epochs=2), seed, silent) for seed in (0, 0, 1))
    assert torch.equal(one.weight, two.weight)
    assert one.history == two.history
    assert not torch.equal(one.weight, other.weight)


def test_a_new_classifier_forgets_stage_ones():
    data, *_ = mixture()
    other = {**vars(data), "head_weight": data.head_weight + 1, "head_bias": data.head_bias - 1}
    fits = [crt.fit(d, crt.Settings(epochs=1), 0, silent) for d in (data, type(data)(**other))]
    assert torch.equal(fits[0].weight, fits[1].weight)
