"""Two classes in the plane of their weight vectors: what it shows is what the classifier does."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from longtail.errors import UserError
from longtail.publish.figures.classification_cones import Cone, cone, draw, plane
from longtail.publish.job import Cell
from longtail.settings.methods import settings_of
from longtail.stage_two.classifier import Fitted
from tests import published_runs as made


def cell(folder, fitted, features, labels) -> Cell:
    """A run of this classifier over these test features."""
    runs = {"stage_two": folder / "stage_two", "features": folder / "features"}
    for run in runs.values():
        run.mkdir()
    save_file(fitted.state(), runs["stage_two"] / "classifier.safetensors")
    save_file({"features": features, "labels": labels}, runs["features"] / "test.safetensors")
    return Cell("M", "exp10", 10.0, 0, 0, runs, {})


@pytest.mark.parametrize(
    "options",
    [{}, {"tukey": 0.5}, {"tukey": 0.0}, {"center": torch.full((12,), 0.7), "normalise": True}],
)
def test_the_side_of_every_feature_is_the_decision_between_the_two_classes(tmp_path, options):
    torch.manual_seed(0)
    features, labels = torch.rand(200, 12), torch.arange(4).repeat(50)
    weight = torch.randn(4, 12)
    # biases by which no class wins everywhere
    bias = -Fitted(weight, torch.zeros(4), **options).logits(features).median(dim=0).values
    fitted = Fitted(weight, bias, **options)
    found = cone(cell(tmp_path, fitted, features, labels), 3, 1)
    shown = (labels == 1) | (labels == 3)
    logits = fitted.logits(features[shown])
    wins = (logits[:, 3] > logits[:, 1]).numpy()
    assert 10 < wins.sum() < 90
    np.testing.assert_array_equal(found.first_wins(found.features), wins)
    of = labels[shown].numpy()
    assert found.right() == (wins[of == 3].mean(), (~wins)[of == 1].mean())
    # the plane keeps lengths and angles of the weight vectors, and both logits
    weights = fitted.weight[[3, 1]].double().numpy()
    np.testing.assert_allclose(found.weights @ found.weights.T, weights @ weights.T, atol=1e-9)
    logits_here = found.features @ found.weights.T + fitted.bias[[3, 1]].numpy()
    np.testing.assert_allclose(logits_here, logits[:, [3, 1]].numpy(), atol=1e-5)


def in_plane(*weights) -> Cone:
    vectors = np.array(weights, float)
    return Cone(vectors @ plane(*vectors).T, 0.0, np.zeros((0, 2)), np.zeros(0, bool))


@pytest.mark.parametrize("turn", [20.0, 60.0, 90.0, 130.0])
def test_vectors_of_equal_length_have_the_boundary_between_them_and_a_longer_one_pushes_it_away(turn):
    angle = np.radians(turn)
    large, small = np.array([1.0, 0, 0]), np.array([np.cos(angle), 0, np.sin(angle)])
    assert in_plane(large, small).angles() == pytest.approx((turn / 2, turn / 2))
    last = turn / 2
    for longer in (1.2, 1.5, 3.0):
        to_large, to_small = in_plane(longer * large, small).angles()
        assert to_large + to_small == pytest.approx(turn)
        assert to_small < last
        # where both logits are equal: |w_i| cos of the one angle = |w_j| cos of the other
        assert longer * np.cos(np.radians(to_large)) == pytest.approx(np.cos(np.radians(to_small)))
        last = to_small


def test_a_vector_on_the_others_side_has_a_negative_angle():
    _, to_small = in_plane([4.0, 0, 0], [np.cos(0.5), np.sin(0.5), 0]).angles()
    assert to_small < 0


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2, 3, 0], [3, 0, 1, 1]), ([1, 2, 0, 0], [2, 4, 0, 0]), ([1, 2, 0, 0], [-1, -2, 0, 0]),
     ([0, 0, 0, 0], [1, 0, 0, 0]), ([0, 0, 0, 0], [0, 0, 0, 0])],
)  # fmt: skip
def test_the_plane_has_right_angles_and_holds_both_vectors(first, second):
    vectors = np.array([first, second], float)
    basis = plane(*vectors)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(vectors @ basis.T @ basis, vectors, atol=1e-9)


def figure(folder, options=None, **changes):
    settings = settings_of("figures", "classification_cones").model_validate(options or {})
    job = made.job(folder, settings, "classification_cones", features=True, **changes)
    return job, draw(job)


def test_a_panel_a_classifier_of_one_stage_one_with_what_it_measured(tmp_path):
    job, drawn = figure(tmp_path)
    assert [axis.get_title().split("\n")[0] for axis in drawn.axes] == ["CE", "CE + cRT"]
    axis = drawn.axes[0]
    large, small = [points for points in axis.collections if points.get_label().startswith("class")]
    assert large.get_label() == "class0 (500 training images), 10 test images"
    # of classes with five images the last one
    assert small.get_label() == "class99 (5 training images), 10 test images"
    found = [cone(cell, 0, 99) for cell in job.cells if cell.method == "CE"]
    first = found[0]
    np.testing.assert_allclose(large.get_offsets(), first.features[~first.second])
    np.testing.assert_allclose(small.get_offsets(), first.features[first.second])
    angles = np.array([run.angles() for run in found])
    assert (
        f"boundary {angles[:, 0].mean():.0f} ± {angles[:, 0].std(ddof=1):.0f}° from the large vector"
        in axis.get_title()
    )
    # a joint classifier's longer vector pushes the boundary to the small class's; cRT the other way round
    assert angles[:, 1].mean() < angles[:, 0].mean()
    rebalanced = [cone(cell, 0, 99).angles() for cell in job.cells if cell.method == "CE + cRT"]
    assert np.mean(rebalanced, axis=0)[1] > np.mean(rebalanced, axis=0)[0]


def test_angles_on_paper_are_those_in_the_plane(tmp_path):
    _, drawn = figure(tmp_path, {"classes": [80, 2], "methods": ["GLAG"]}, seeds=(0,))
    [axis] = drawn.axes
    assert axis.get_box_aspect() == 1
    spans = [np.ptp(limits) for limits in (axis.get_xlim(), axis.get_ylim())]
    assert spans[0] == pytest.approx(spans[1])
    words = [points.get_label() for points in axis.collections]
    assert [word for word in words if word.startswith("class2 ")]
    assert [word for word in words if word.startswith("class80 ")]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"classes": [0, 100]}, "cones.classes: there is no class 100; 0 to 99"),
        ({"classes": [3, 3]}, "cones.classes: needs two classes"),
        ({"methods": ["nobody"]}, "cones.methods: 'nobody' is not in table2"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        figure(tmp_path, options, seeds=(0,))


def test_settings_are_those_of_json():
    read = settings_of("figures", "classification_cones").model_validate(json.loads('{"classes": [4, 1]}'))
    assert read.classes == [4, 1]
