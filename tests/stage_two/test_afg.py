import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from longtail.random import generator
from longtail.settings.methods import settings_of
from longtail.settings.schedules import LearningRate
from longtail.stage_two import joint, linear
from longtail.stage_two.afg import (
    Confidence,
    Distillation,
    Settings,
    distillation,
    feature_generator,
    fit,
    updated_confidence,
)
from longtail.stage_two.classifier import FeatureData, class_accuracy, tukey, tukey_inverse
from longtail.stage_two.feature_calibration import missing, sources
from longtail.stage_two.gaussian import ClassGaussians
from longtail.stage_two.generator import FeatureGenerator, support, tail_classes
from longtail.stage_two.linear import LinearTraining, fresh_head

from .test_gaussian import check_moments, features_of

torch.set_num_threads(1)


def silent(done, total, note):
    pass


def read(**keys):
    return Settings.model_validate(keys)


def mixture(counts=(200, 80, 30, 12, 5, 3), dimensions=12, views=3, validation=20, test=100, spread=0.5):
    """A long-tailed Gaussian mixture: centres in pairs, so that a small class lies near a larger one.

    Stage one's head is trained on it as it is, unbalanced. Returns the data and test features and labels.
    """
    random = torch.Generator().manual_seed(3)
    classes = len(counts)
    centres = 3 + torch.randn(classes, dimensions, generator=random)
    centres[classes // 2 :] = centres[: classes // 2] + 0.4 * torch.randn(
        classes - classes // 2, dimensions, generator=random
    )

    def draw(sizes):
        labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(sizes))
        return centres[labels] + spread * torch.randn(len(labels), dimensions, generator=random), labels

    clean, labels = draw(counts)
    jitter = 0.2 * torch.randn(views, *clean.shape, generator=random)
    held, held_labels = draw([validation] * classes)
    tested = draw([test] * classes)
    recipe = read(learning_rate={"peak": 0.05})
    training = LinearTraining(*fresh_head(classes, dimensions, random), recipe, 30, len(clean))
    for _ in range(30):
        order = torch.randperm(len(clean), generator=random)
        training.labelled_epoch(clean.relu(), labels, order)
    weight, bias = training.result()
    seen = (clean + jitter).relu()
    data = FeatureData(
        views=seen,
        view_logits=F.linear(seen, weight, bias),
        labels=labels,
        class_counts=torch.tensor(counts),
        clean=clean.relu(),
        validation=held.relu(),
        validation_labels=held_labels,
        head_weight=weight,
        head_bias=bias,
    )
    return data, tested[0].relu(), tested[1]


# Equations (7) to (10), one sample at a time, in float64.


def literal_support(x, label, means, counts, k, weight_size="count", distance_power=1):
    distances = {j: np.linalg.norm(x - means[j]) for j in range(len(counts)) if counts[j] > counts[label]}
    chosen = sorted(distances, key=lambda j: distances[j])[:k]
    size = {"count": float, "log_count": np.log}[weight_size]
    raw = [size(counts[j]) / distances[j] ** distance_power for j in chosen]
    return {j: share / sum(raw) for j, share in zip(chosen, raw, strict=True)}


def literal_calibrated(x, own_covariance, weights, means, covariances, c, alpha, alpha_mode):
    mean = (1 - c) * x + c * sum(w * means[j] for j, w in weights.items())
    covariance = (1 - c) * own_covariance + c * sum(w * covariances[j] for j, w in weights.items())
    return mean, covariance + alpha * (
        np.eye(len(x)) if alpha_mode == "identity" else np.ones((len(x), len(x)))
    )


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("weight_size", ["count", "log_count"])
@pytest.mark.parametrize("distance_power", [1, 2])
def test_support_and_weights_are_equations_7_and_10(k, weight_size, distance_power):
    sizes = [60, 40, 40, 17, 9, 5, 5, 1]
    features, labels = features_of(sizes, 10)
    means = torch.stack([features[labels == c].mean(0) for c in range(8)])
    found = support(
        features,
        labels,
        means,
        torch.tensor(sizes),
        read(k=k, weight_size=weight_size, distance_power=distance_power),
    )
    for i, label in enumerate(labels.tolist()):
        expected = literal_support(
            features[i].double().numpy(), label, means.double().numpy(), sizes, k, weight_size, distance_power
        )
        weights = zip(found.classes[i].tolist(), found.weights[i].tolist(), strict=True)
        weights = {j: w for j, w in weights if w > 0}
        assert list(weights) == list(expected)  # nearest first; fewer than k where fewer are larger
        assert weights == pytest.approx(expected, rel=1e-5)


def test_more_neighbours_than_classes_are_those_that_there_are():
    features, labels = features_of([9, 4, 2], 4)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    found = support(features, labels, means, torch.tensor([9, 4, 2]), read(k=50))
    sums = found.weights.sum(1)
    torch.testing.assert_close(sums, (labels > 0).float())  # the largest class has none
    assert (found.weights > 0).sum(1).tolist() == labels.tolist()


def test_a_sample_on_a_class_mean_learns_from_that_class_alone():
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])
    found = support(means[:1], torch.tensor([2]), means, torch.tensor([10, 20, 3]), read(k=2))
    assert found.classes[0, 0] == 0
    torch.testing.assert_close(found.weights, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize("own", [1, 2, 5, 50])  # feature vectors of the sample's class
@pytest.mark.parametrize(
    ("larger", "k", "alpha", "alpha_mode"),
    [
        (200, 2, 0.0, "identity"),
        (7, 2, 0.0, "identity"),
        (200, 3, 0.1, "identity"),
        (7, 3, 0.1, "ones"),
        (200, 2, 0.1, "ones"),
    ],
)
def test_draws_have_exactly_the_calibrated_distribution_of_their_sample(own, larger, k, alpha, alpha_mode):
    """Equations (8) and (9), the covariance formed densely; 200,000 draws of one sample."""
    m, c, dimensions = 200_000, 0.4, 10
    features, labels = features_of([own, larger, larger + 1, larger + 2, larger + 3], dimensions)
    settings = read(k=k, alpha=alpha, alpha_mode=alpha_mode)
    gaussians = ClassGaussians(features, labels, 5)
    # One image of class 0, and so many of every other class that class 0 draws m features from it.
    counts = torch.tensor([1] + 4 * [m + 1])
    tail = tail_classes(counts, 100)
    generate = FeatureGenerator(features[None, :1], labels[:1], counts, tail, gaussians, settings)
    draws = generated(generate, 0, torch.full((5,), c), generator(0, own, larger, k))
    assert draws.shape == (m, dimensions)

    exact = features.double().numpy()
    means = [exact[labels == j].mean(0) for j in range(5)]
    covariances = [
        np.cov(exact[labels == j], rowvar=False) if (labels == j).sum() > 1 else np.zeros((dimensions,) * 2)
        for j in range(5)
    ]
    weights = literal_support(exact[0], 0, means, counts.tolist(), k)
    mean, covariance = literal_calibrated(
        exact[0], covariances[0], weights, means, covariances, c, alpha, alpha_mode
    )
    check_moments(draws, mean, covariance)


def test_covariance_of_the_neighbours_alone_does_not_depend_on_the_confidence():
    features, labels = features_of([5, 50, 60], 6)
    gaussians = ClassGaussians(features, labels, 3)
    counts = torch.tensor([1, 200_001, 200_001])
    settings = read(covariance="neighbours")
    generate = FeatureGenerator(
        features[None, :1], labels[:1], counts, tail_classes(counts, 100), gaussians, settings
    )
    draws = generated(generate, 0, torch.zeros(3), generator(0))
    exact = features.double().numpy()
    means = [exact[labels == j].mean(0) for j in range(3)]
    weights = literal_support(exact[0], 0, means, counts.tolist(), 2)
    covariance = sum(w * np.cov(exact[labels == j], rowvar=False) for j, w in weights.items())
    check_moments(draws, exact[0], covariance)


def make_generator(data, **keys):
    settings = read(**keys)
    tail = tail_classes(data.class_counts, settings.tail_max)
    pooled = data.labels.repeat(len(data.views))
    gaussians = ClassGaussians(data.views.flatten(0, 1), pooled, len(data.class_counts))
    return FeatureGenerator(data.views, data.labels, data.class_counts, tail, gaussians, settings)


def generated(generate, view, confidence, random):
    """All generated features of an epoch, class after class."""
    rows = torch.arange(generate.features.shape[1], len(generate.labels))
    ((_, features),) = generate([rows], view, confidence, random)
    return features


def test_generated_features_fill_every_class_up_to_the_largest():
    data, *_ = mixture(counts=(50, 50, 20, 7, 1, 2))
    generate = make_generator(data)
    assert torch.bincount(generate.labels, minlength=6).tolist() == [50] * 6
    drawn = generated(generate, 1, torch.full((6,), 0.4), generator(0))
    assert drawn.shape == (len(generate.labels) - len(data.labels), data.views.shape[2])
    assert bool(drawn.isfinite().all())


def test_an_epoch_in_chunks_has_every_real_feature_once_and_generated_ones_of_the_same_distribution():
    data, *_ = mixture(counts=(4000, 3, 5, 5, 5, 5), dimensions=4)
    generate = make_generator(data)
    confidence = torch.full((6,), 0.4)
    order = torch.randperm(len(generate.labels), generator=generator(1))
    made = generate(torch.split(order, 1000), 1, confidence, generator(2))
    chunks = [(rows, features.clone()) for rows, features in made]
    rows, features = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    assert torch.equal(rows, order)
    ordered = torch.empty_like(features)
    ordered[rows] = features
    images = len(data.labels)
    assert torch.equal(ordered[:images], data.views[1])
    whole = generated(generate, 1, confidence, generator(3))
    for label in range(1, 6):
        own = (generate.labels == label)[images:]
        one, two = ordered[images:][own], whole[own]
        error = (2 * two.var(0) / len(two)).sqrt()
        assert ((one.mean(0) - two.mean(0)).abs() < 4.5 * error).all()
        torch.testing.assert_close(one.T.cov(), two.T.cov(), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("keys", [{}, {"alpha": 0.1}, {"kd": {"mixing": "convex", "temperature": 2.0}}])
def test_chunks_do_not_change_what_is_learnt(keys, monkeypatch):
    data, features, labels = mixture()
    settings = read(generation_epochs=10, tail_max=40, **keys)
    whole = fit(data, settings, 0, silent)
    monkeypatch.setattr(linear, "CHUNK", 256 * 12)  # two batches
    chunked = fit(data, settings, 0, silent)
    one, two = (float(class_accuracy(f.logits(features), labels, 6).mean()) for f in (whole, chunked))
    assert one == pytest.approx(two, abs=0.03)
    assert whole.history[-1]["loss"] == pytest.approx(chunked.history[-1]["loss"], rel=0.1)


@pytest.mark.parametrize("most", [1, 7, 20, 50, 80])
def test_with_a_number_of_features_a_class_every_class_has_so_many_in_every_epoch(most):
    data, *_ = mixture(counts=(50, 50, 20, 7, 1, 2))
    generate, images = make_generator(data, features_per_class=most), len(data.labels)
    seen = []
    for epoch in range(60):
        rows = generate.rows(generator(epoch))
        assert len(rows.unique()) == len(rows)
        assert torch.bincount(generate.labels[rows], minlength=6).tolist() == [most] * 6
        seen.append(rows[rows < images])
        assert (torch.bincount(data.labels[seen[-1]], minlength=6) == data.class_counts.clamp_max(most)).all()
    assert len(torch.cat(seen).unique()) == images or most == 1  # other images in every epoch, so all in turn
    assert missing(data.class_counts, most).tolist() == [max(most - n, 0) for n in (50, 50, 20, 7, 1, 2)]
    drawn = generated(generate, 1, torch.full((6,), 0.4), generator(0))
    assert len(drawn) == len(generate.labels) - images == int(missing(data.class_counts, most).sum())


def test_as_many_features_a_class_as_the_largest_has_images_is_what_no_number_is():
    data, *_ = mixture()
    one, two = (
        fit(data, read(generation_epochs=3, features_per_class=most), 0, silent) for most in (None, 200)
    )
    assert torch.equal(one.weight, two.weight)
    assert one.history == two.history


def test_fewer_features_a_class_learn_the_same_at_a_higher_rate():
    data, features, labels = mixture()
    accuracies = []
    for keys in ({}, {"features_per_class": 50, "learning_rate": {"peak": 0.04}}):
        fitted = fit(data, read(generation_epochs=15, tail_max=40, **keys), 0, silent)
        accuracies.append(float(class_accuracy(fitted.logits(features), labels, 6).mean()))
        gaps = missing(data.class_counts, keys.get("features_per_class"))
        assert fitted.history[0]["generated"] == int(gaps.sum())
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)


def test_keys_that_came_later_are_in_no_identity_as_long_as_they_change_nothing():
    hashed = Settings().resolved(hashed=True)
    assert "features_per_class" not in hashed
    assert "map_back" not in hashed["tukey"]
    changed = read(features_per_class=200, tukey={"map_back": True}).resolved(hashed=True)
    assert (changed["features_per_class"], changed["tukey"]["map_back"]) == (200, True)


@pytest.mark.parametrize("apply", ["all", "tail"])
@pytest.mark.parametrize("power", [0.0, 0.5, 0.9])
def test_draws_that_are_mapped_back_are_those_of_the_ladder_clamped_at_0_and_real_features_stay(apply, power):
    data, *_ = mixture(counts=(50, 50, 20, 7, 1, 2))
    keys = {"lambda": power, "apply": apply}
    ladder = read(tukey=keys, init="random", kd={"on": "real"}, tail_max=10, alpha=0.3)
    back = read(tukey={**keys, "map_back": True}, tail_max=10, alpha=0.3)
    confidence, images = torch.full((6,), 0.4), len(data.labels)
    made = []
    for settings in (ladder, back):
        generate = feature_generator(data, settings)
        ((_, features),) = generate([torch.arange(len(generate.labels))], 1, confidence, generator(5))
        made.append(features.clone())
    assert torch.equal(made[1][:images], data.views[1])
    changed = (
        torch.ones(len(generate.labels), dtype=torch.bool)
        if apply == "all"
        else generate.tail[generate.labels]
    )
    changed[:images] = False
    assert torch.equal(made[1][changed], tukey_inverse(made[0][changed], power))
    unchanged = ~changed
    unchanged[:images] = False
    assert torch.equal(made[1][unchanged], made[0][unchanged])
    assert power == 0 or bool((made[1][changed] == 0).any())  # clamped; e^x~ is hardly ever below 1e-6
    assert bool((made[1][changed] >= 0).all())


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 0.9, 1.0, 2.0])
def test_mapping_back_undoes_the_ladder_and_clamps_what_lies_outside_it(power):
    features = torch.cat([torch.tensor([0.0]), torch.logspace(-3, 2, 100)])
    back = tukey_inverse(tukey(features, power), power)
    torch.testing.assert_close(back, features, rtol=2e-4, atol=2e-6)
    outside = torch.tensor([-3.0, -0.1]) - (20 if power == 0 else 0)
    assert torch.equal(tukey_inverse(outside, power), outside if power == 1 else torch.zeros(2))


def test_mapping_back_under_lambda_1_is_no_change():
    data, *_ = mixture()
    one, two = (
        fit(data, read(generation_epochs=3, tukey={"map_back": back}), 0, silent) for back in (False, True)
    )
    assert torch.equal(one.weight, two.weight)
    assert one.history == two.history


def test_a_classifier_of_features_mapped_back_is_one_of_features_as_they_are():
    data, features, labels = mixture()
    keys = {"generation_epochs": 15, "tail_max": 40}
    fitted = fit(data, read(tukey={"lambda": 0.5, "map_back": True}, **keys), 0, silent)
    assert fitted.tukey == 1
    before, after = (
        class_accuracy(f.logits(features), labels, 6)
        for f in (joint.fit(data, joint.Settings(), 0, silent), fitted)
    )
    assert after[3:].mean() > before[3:].mean() + 0.1
    assert after.mean() > before.mean() + 0.05


def test_classes_that_are_not_tail_draw_from_their_own_gaussian():
    data, *_ = mixture(counts=(4000, 2, 5, 5, 5, 5), dimensions=4, views=2)
    generate = make_generator(data, tail_max=1)  # so that no class is tail
    of_class = (generate.labels == 2)[len(data.labels) :]
    draws = generated(generate, 0, torch.full((6,), 0.4), generator(0))[of_class]
    own = data.views[:, data.labels == 2].flatten(0, 1).double().numpy()
    check_moments(draws, own.mean(0), np.cov(own, rowvar=False))


def test_without_confidence_a_draw_is_its_own_sample_and_class_with_full_confidence_only_others():
    data, *_ = mixture(counts=(50, 40, 1, 1, 1, 1), views=1)
    generate = make_generator(data)
    image = sources(data.labels, data.class_counts, generator(0))
    of_tail = generate.labels[len(data.labels) :] >= 2
    none = generated(generate, 0, torch.zeros(6), generator(0))
    torch.testing.assert_close(none[of_tail], data.views[0, image][of_tail], rtol=0, atol=0)
    full = generated(generate, 0, torch.ones(6), generator(0))
    assert (full[of_tail] - data.views[0, image][of_tail]).abs().amax(1).min() > 0


def test_the_largest_classes_are_never_tail():
    assert tail_classes(torch.tensor([30, 30, 5, 1]), 100).tolist() == [False, False, True, True]
    assert tail_classes(torch.tensor([300, 101, 100, 1]), 100).tolist() == [False, False, True, True]


def test_confidence_follows_validation_accuracy_within_its_bounds():
    settings = Confidence(initial=0.4, step=0.25, minimum=0.1, maximum=0.9)
    confidence = torch.tensor([0.4, 0.4, 0.4, 0.4, 0.8, 0.2])
    before = torch.tensor([0.50, 0.5, 0.50, torch.nan, 0.1, 0.2])
    after = torch.tensor([0.55, 0.5, 0.45, torch.nan, 0.9, 0.1])
    moved = updated_confidence(confidence, after, before, settings)
    torch.testing.assert_close(moved, torch.tensor([0.65, 0.4, 0.15, 0.4, 0.9, 0.1]))


def literal_distillation(logits, labels, teacher, taught, gamma, t, square, mixing):
    total = 0.0
    for f2, y, f1, on in zip(logits, labels, teacher, taught, strict=True):
        p2, p1, q2 = (np.exp(v) / np.exp(v).sum() for v in (f2 / t, f1 / t, f2))
        divergence = (p1 * np.log(p1 / p2)).sum() * (t**2 if square else 1) * on
        entropy = -np.log(q2[y])
        total += (1 - gamma * on if mixing == "convex" else 1) * entropy + gamma * divergence
    return total / len(labels)


@pytest.mark.parametrize("t", [1.0, 2.0])
@pytest.mark.parametrize("scale", ["none", "squared_temperature"])
@pytest.mark.parametrize("mixing", ["add", "convex"])
def test_distillation_is_equation_11(t, scale, mixing):
    random = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(20, 7, generator=random, dtype=torch.float64) for _ in range(2))
    labels, taught = torch.randint(7, (20,), generator=random), torch.rand(20, generator=random) < 0.5
    settings = Distillation(temperature=t, scale=scale, mixing=mixing)
    on = taught.nonzero().flatten()
    objective = distillation(labels, on, teacher[on], torch.tensor(0.3), settings)
    losses = [objective(logits[i : i + 1], slice(i, i + 1))[0] for i in range(20)]
    numbers = (logits.numpy(), labels.numpy(), teacher.numpy(), taught.numpy())
    expected = literal_distillation(*numbers, 0.3, t, scale == "squared_temperature", mixing)
    assert float(sum(losses)) / 20 == pytest.approx(expected, rel=1e-6)

    leaf = logits.clone().requires_grad_()
    divergence = F.kl_div((leaf / t).log_softmax(1), (teacher / t).softmax(1), reduction="none").sum(1)
    strength = 0.3 * taught
    hard = (1 - strength if mixing == "convex" else 1) * F.cross_entropy(leaf, labels, reduction="none")
    soft = strength * divergence * (t**2 if scale == "squared_temperature" else 1)
    (hard + soft)[5:12].sum().backward()
    torch.testing.assert_close(objective(logits[5:12], slice(5, 12))[1], leaf.grad[5:12])


def test_afg_improves_few_shot_classes_over_stage_one_and_distillation_keeps_more_of_the_large_ones():
    data, features, labels = mixture()

    def accuracies(fitted):
        accuracy = class_accuracy(fitted.logits(features), labels, 6)
        return accuracy.mean(), accuracy[:2].mean(), accuracy[3:].mean()

    before = accuracies(joint.fit(data, joint.Settings(), 0, silent))
    plain = accuracies(fit(data, read(kd={"on": "none"}, generation_epochs=15, tail_max=40), 0, silent))
    taught = accuracies(fit(data, read(generation_epochs=15, tail_max=40), 0, silent))
    for after in (plain, taught):
        assert after[0] > before[0] + 0.05
        assert after[2] > before[2] + 0.1
    assert taught[1] >= plain[1]


def test_confidences_are_recorded_for_tail_classes_and_fixed_ones_stay():
    data, *_ = mixture()
    fixed = fit(data, read(generation_epochs=3, confidence={"update": "fixed", "initial": 0.6}), 0, silent)
    tail = tail_classes(data.class_counts, 100)
    assert torch.equal(fixed.tensors["tail"], tail)
    assert fixed.tensors["confidences"].shape == (4, 6)
    assert bool((fixed.tensors["confidences"][:, tail] == torch.tensor(0.6)).all())
    assert bool(fixed.tensors["confidences"][:, ~tail].isnan().all())
    adaptive = fit(data, read(generation_epochs=3), 0, silent)
    steps = adaptive.tensors["confidences"][:, tail].diff(dim=0)
    allowed = torch.tensor([-0.05, 0.0, 0.05])
    assert bool(((steps.unsqueeze(2) - allowed).abs().amin(2) < 1e-6).all())
    assert steps.abs().max() > 0


@pytest.mark.parametrize("baseline", ["previous", "stage_one"])
def test_the_baseline_of_the_first_epoch_is_stage_one(baseline):
    data, *_ = mixture()
    # A step so small that the classifier does not move: no class's accuracy changes, and no confidence.
    settings = read(generation_epochs=2, learning_rate={"peak": 1e-12}, confidence={"baseline": baseline})
    confidences = fit(data, settings, 0, silent).tensors["confidences"][:, 1:]
    assert bool((confidences == torch.tensor(0.4)).all())


def test_classes_without_validation_images_keep_their_confidence():
    data, *_ = mixture()
    kept = data.validation_labels != 4
    data = FeatureData(
        **{
            **vars(data),
            "validation": data.validation[kept],
            "validation_labels": data.validation_labels[kept],
        }
    )
    fitted = fit(data, read(generation_epochs=3), 0, silent)
    assert bool((fitted.tensors["confidences"][:, 4] == torch.tensor(0.4)).all())
    assert all(np.isfinite(row["validation"]) for row in fitted.history)


def test_no_validation_image_at_all_is_no_obstacle():
    data, *_ = mixture()
    data = FeatureData(
        **{**vars(data), "validation": data.validation[:0], "validation_labels": data.validation_labels[:0]}
    )
    fitted = fit(data, read(generation_epochs=2), 0, silent)
    assert np.isnan(fitted.history[-1]["validation"])
    assert bool((fitted.tensors["confidences"][:, 5] == torch.tensor(0.4)).all())


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"alpha": 0.1, "alpha_mode": "ones", "k": 3},
        {"tukey": {"lambda": 0.5}, "init": "random", "kd": {"on": "real"}},
        {"tukey": {"lambda": 0}, "init": "random", "kd": {"on": "none"}},
        {"tukey": {"lambda": 0.5, "apply": "tail"}, "init": "random", "kd": {"on": "real"}},
        {"tukey": {"lambda": 0.5, "statistics": "before"}, "init": "random", "kd": {"on": "none"}},
        {"tukey": {"lambda": 0.5, "map_back": True}, "features_per_class": 60},
        {"tukey": {"lambda": 0, "apply": "tail", "map_back": True}},
        {"kd": {"mixing": "convex", "temperature": 2.0}},
        {"covariance": "neighbours", "weight_size": "log_count", "distance_power": 2},
        {"tail_max": 0},
        {"batch_size": 10_000},
    ],
)
def test_every_reading_trains_and_equal_seeds_give_equal_bits(keys):
    data, features, labels = mixture()
    settings = read(generation_epochs=4, **keys)
    one, two, other = (fit(data, settings, seed, silent) for seed in (0, 0, 1))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    assert repr(one.history) == repr(two.history)  # repr: nan is nan
    assert not torch.equal(one.weight, other.weight)
    logits = one.logits(features)
    assert bool(logits.isfinite().all())
    assert (logits.argmax(1) == labels).float().mean() > 1 / 6


def test_a_balanced_dataset_generates_nothing():
    data, *_ = mixture(counts=(10,) * 6)
    assert fit(data, read(generation_epochs=1), 0, silent).history[0]["generated"] == 0


def test_distillation_on_real_features_only_differs_from_all():
    data, *_ = mixture()
    weights = [
        fit(data, read(generation_epochs=3, tail_max=40, kd={"on": on}), 0, silent).weight
        for on in ("all", "real", "none")
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tukey": {"lambda": 0.5}}, "init stage_one needs tukey.lambda 1, not 0.5"),
        ({"tukey": {"lambda": 0.5}, "init": "random"}, "kd.on all needs tukey.lambda 1, not 0.5"),
        ({"tukey": {"lambda": -1}}, "greater than or equal to 0"),
        ({"tukey": {"power": 0.5}}, "Extra inputs"),
        ({"confidence": {"initial": 0.1, "minimum": 0.2}}, "initial 0.1 is not between minimum 0.2"),
        ({"kd": {"mixing": "convex", "gamma": {"a": 2}}}, "mixing convex needs gamma.a <= 1, not 2"),
        ({"tukey": {"lambda": 0.5}}, "or tukey.map_back: true"),
        ({"features_per_class": 0}, "greater than or equal to 1"),
        ({"k": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_settings_say_what_is_allowed(keys, message):
    with pytest.raises(ValidationError, match=message):
        read(**keys)


def test_settings_are_read_without_torch_and_resolve_to_what_they_were_read_from():
    light = settings_of("stage_two", "afg")
    keys = {"tukey": {"lambda": 0.5}, "init": "random", "kd": {"on": "none", "gamma": {"b": 3.0}}, "k": 3}
    resolved = light.model_validate(keys).resolved()
    assert resolved["tukey"] == {"lambda": 0.5, "apply": "all", "statistics": "after", "map_back": False}
    assert light.model_validate(resolved).resolved() == resolved
    assert Settings.model_validate(resolved).tukey.power == 0.5


def test_papers_values_are_the_defaults():
    settings = Settings()
    assert settings.generation_epochs == 40
    assert settings.k in (2, 3)
    assert settings.alpha in (0.0, 0.1)
    assert settings.confidence.initial in (0.4, 0.6)
    assert (settings.momentum, settings.weight_decay) == (0.9, 5e-4)
    assert settings.learning_rate == LearningRate(peak=0.01)


def test_tukeys_ladder_takes_zeros_for_every_lambda_and_refuses_negative_features():
    features = torch.tensor([0.0, 0.25, 4.0])
    assert torch.equal(tukey(features, 1.0), features)
    torch.testing.assert_close(tukey(features, 0.5), torch.tensor([0.0, 0.5, 2.0]))
    torch.testing.assert_close(tukey(features, 0.0), (features + 1e-6).log())
    assert bool(tukey(features, 0.0).isfinite().all())
    with pytest.raises(ValueError, match="needs features >= 0"):
        tukey(torch.tensor([-1.0]), 0.5)
