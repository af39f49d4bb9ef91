import pytest
import torch
import torch.nn.functional as F

from longtail.stage_two import joint, lws
from longtail.stage_two.classifier import class_accuracy
from longtail.stage_two.draws import rows

from .test_afg import mixture, silent

torch.set_num_threads(1)


def test_only_a_scale_a_class_changes():
    data, *_ = mixture()
    fitted = lws.fit(data, lws.Settings(epochs=3), 0, silent)
    scale = fitted.tensors["scale"]
    assert (scale - 1).abs().min() > 0
    torch.testing.assert_close(fitted.weight, scale[:, None] * data.head_weight)
    torch.testing.assert_close(fitted.bias, scale * data.head_bias)
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3]


@pytest.mark.parametrize("sampler", ["class_balanced", "class_aware"])
def test_scales_give_small_classes_back_what_large_ones_took(sampler):
    data, tested, labels = mixture()
    before = joint.fit(data, joint.Settings(), 0, silent)
    after = lws.fit(data, lws.Settings(sampler=sampler), 0, silent)
    old, new = (class_accuracy(one.logits(tested), labels, 6) for one in (before, after))
    assert new[3:].mean() > old[3:].mean()
    assert new.mean() > old.mean()
    assert new[0] <= old[0]


def test_the_class_balanced_loss_comes_near_its_minimum():
    """The minimum over the six scales by L-BFGS on the weighted loss of all views."""
    data, *_ = mixture()
    settings = lws.Settings(epochs=100, weight_decay=0, learning_rate={"peak": 0.5})
    fitted = lws.fit(data, settings, 0, silent)
    scale = torch.ones(6, requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], max_iter=200, line_search_fn="strong_wolfe")

    def balanced(scale):
        logits = scale * data.view_logits.flatten(0, 1)
        return F.cross_entropy(logits, data.labels.repeat(3), 1 / data.class_counts.float())

    def closure():
        optimiser.zero_grad()
        balanced(scale).backward()
        return balanced(scale)

    optimiser.step(closure)
    start, found, best = (
        float(balanced(s).detach()) for s in (torch.ones(6), fitted.tensors["scale"], scale)
    )
    assert found - best < 0.02 * (start - best)


def test_a_class_gives_so_many_images_in_its_turn(monkeypatch):
    data, *_ = mixture()
    seen = []

    def noted(sampler, labels, views, random, progress, each):
        seen.append(
            (sampler, each, labels[rows(sampler, labels, views, random, progress, each) % len(labels)])
        )
        return rows(sampler, labels, views, random, progress, each)

    monkeypatch.setattr(lws, "rows", noted)
    for each in (1, 2, 4):
        lws.fit(data, lws.Settings(sampler="class_aware", samples_per_class=each, epochs=1), 0, silent)
        labels = seen[-1][2]
        turns = labels[: len(labels) // each * each].view(-1, each)
        assert bool((turns == turns[:, :1]).all())
        assert len(turns[:6, 0].unique()) == 6  # every class in its turn
    with pytest.raises(ValueError, match="samples_per_class is of sampler: class_aware"):
        lws.Settings(samples_per_class=2)
    assert "samples_per_class" not in lws.Settings().resolved(hashed=True)
