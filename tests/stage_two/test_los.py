from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from longtail.stage_two import joint, los

from .test_afg import mixture, silent

torch.set_num_threads(1)


def test_the_right_class_is_to_be_only_a_little_more_likely_than_any_other():
    """At the minimum p of the right class is 1 - delta + delta / C; here every class is one point."""
    data, *_ = mixture(counts=(30, 30, 30))
    points = F.one_hot(data.labels, data.clean.shape[1]).float()
    data = replace(data, views=points.unsqueeze(0), view_logits=data.view_logits[:1])
    settings = los.Settings(smoothing=0.9, epochs=100, init="random", learning_rate={"peak": 0.5})
    p = los.fit(data, settings, 0, silent).logits(points).softmax(1)
    right = p[torch.arange(len(p)), data.labels]
    assert right.tolist() == pytest.approx([0.1 + 0.9 / 3] * len(p), abs=1e-3)


def test_logits_shrink_and_without_smoothing_they_do_not():
    data, tested, _ = mixture()
    before = joint.fit(data, joint.Settings(), 0, silent).logits(tested)
    spreads = [
        los.fit(data, los.Settings(smoothing=delta, learning_rate={"peak": 0.05}), 0, silent).logits(tested)
        for delta in (0.98, 0.0)
    ]
    assert spreads[0].std(1).mean() < before.std(1).mean() / 2 < spreads[1].std(1).mean()


def test_a_random_start_forgets_stage_one():
    data, *_ = mixture()
    other = {**vars(data), "head_weight": data.head_weight + 1}
    settings = los.Settings(epochs=1, init="random")
    fits = [los.fit(each, settings, 0, silent) for each in (data, type(data)(**other))]
    assert torch.equal(fits[0].weight, fits[1].weight)
