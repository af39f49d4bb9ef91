from dataclasses import replace

import pytest
import torch

from longtail.stage_two import joint, whole
from longtail.stage_two.classifier import class_accuracy

from .test_afg import mixture, silent

torch.set_num_threads(1)


def balanced():
    """The long-tailed data of `mixture` with a balanced set of the same classes, and test images."""
    data, features, labels = mixture(validation=200)
    return replace(data, whole=data.validation, whole_labels=data.validation_labels), features, labels


@pytest.mark.parametrize("init", ["random", "stage_one"])
def test_balanced_images_make_classes_equally_good(init):
    data, tested, labels = balanced()
    long_tailed = class_accuracy(joint.fit(data, joint.Settings(), 0, silent).logits(tested), labels, 6)
    found = class_accuracy(whole.fit(data, whole.Settings(init=init), 0, silent).logits(tested), labels, 6)
    assert found.mean() > long_tailed.mean() + 0.05
    assert found.min() > long_tailed.min() + 0.2


def test_the_long_tailed_images_are_not_looked_at():
    data, *_ = balanced()
    other = replace(data, views=data.views * 0, clean=data.clean * 0, labels=data.labels * 0)
    one, two = (whole.fit(each, whole.Settings(epochs=2), 0, silent) for each in (data, other))
    assert torch.equal(one.weight, two.weight)


def test_without_these_features_one_line_says_so():
    with pytest.raises(ValueError, match="needs features of all training images: whole"):
        whole.fit(mixture()[0], whole.Settings(), 0, silent)
