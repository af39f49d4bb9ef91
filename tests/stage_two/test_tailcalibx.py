import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from longtail.stage_two import joint, tailcalibx
from longtail.stage_two.classifier import class_accuracy
from longtail.stage_two.tailcalibx import Settings, cosine, cosine_slope

from .test_afg import mixture, silent

torch.set_num_threads(1)


def test_the_gradient_is_that_of_automatic_differentiation():
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(5, 7, generator=random), torch.randn(5, generator=random)
    tensors = [tensor.double().requires_grad_() for tensor in (weight, bias, torch.tensor(1.5))]
    inputs = F.normalize(torch.rand(11, 7, generator=random).double(), dim=1)
    labels = torch.randint(5, (11,), generator=random)
    loss = F.cross_entropy(F.linear(inputs, *cosine(tensors)), labels)
    found, gradients = cosine_slope(tensors, inputs, labels)
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(tuple(gradients), torch.autograd.grad(loss, tensors))


def test_weights_of_the_classifier_are_equally_long_and_features_normalised():
    data, tested, _ = mixture()
    fitted = tailcalibx.fit(data, Settings(epochs=2, tukey={"lambda": 0.9}), 0, silent)
    lengths = fitted.weight.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(6))
    torch.testing.assert_close(fitted.logits(3 * tested), fitted.logits(tested))  # length does not count


def test_as_many_features_as_the_largest_class_has_are_made_anew_in_every_epoch():
    data, tested, labels = mixture()
    fitted = tailcalibx.fit(data, Settings(epochs=30, learning_rate={"peak": 0.1}), 0, silent)
    assert {row["generated"] for row in fitted.history} == {6 * 200 - 330}
    assert len({row["loss"] for row in fitted.history}) == 30
    before = class_accuracy(joint.fit(data, joint.Settings(), 0, silent).logits(tested), labels, 6)
    after = class_accuracy(fitted.logits(tested), labels, 6)
    assert after[3:].mean() > before[3:].mean() + 0.05
    assert after.mean() > before.mean()


def test_the_rate_is_constant_and_the_logarithm_refused():
    from longtail.settings.schedules import Length

    rate = Settings().learning_rate
    assert {rate.at(step, Length(epochs=150), 10) for step in (0, 700, 1499)} == {0.01}
    with pytest.raises(ValidationError):
        Settings(tukey={"lambda": 0})
