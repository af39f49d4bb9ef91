"""Probabilities by class size."""

import numpy as np
import pytest

from longtail.publish.figures import confidence_by_class_size as figure
from longtail.publish.figures.confidence_by_class_size import class_probabilities
from longtail.settings.methods import settings_of
from tests import published_runs as made


def literal(logits, labels, classes):
    """The three means by their definitions, an image at a time."""
    shares = [np.exp(row) / np.exp(row).sum() for row in logits]
    of = [[share for share, label in zip(shares, labels, strict=True) if label == c] for c in range(classes)]
    return {
        "right": [np.mean([share[c] for share in of[c]]) for c in range(classes)],
        "largest": [np.mean([max(share) for share in of[c]]) for c in range(classes)],
        "given": [classes * np.mean([np.mean([s[c] for s in own]) for own in of]) for c in range(classes)],
    }


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_means_are_those_of_the_literal_loop_whatever_is_read_at_once(rows, monkeypatch):
    monkeypatch.setattr(figure, "ROWS", rows)
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(5).repeat([1, 9, 4, 3, 2]))
    logits = random.normal(0, 2, (len(labels), 5)).astype(np.float32)
    found = class_probabilities(logits, labels, 5)
    for name, expected in literal(logits, labels, 5).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
    assert found["given"].mean() == pytest.approx(1)


def test_of_equal_logits_every_class_has_its_fair_share():
    found = class_probabilities(np.full((8, 4), 1000.0), np.arange(4).repeat(2), 4)
    np.testing.assert_allclose(found["right"], 0.25)
    np.testing.assert_allclose(found["given"], 1)


def test_a_class_without_test_images_has_no_probability_of_its_own():
    found = class_probabilities(np.zeros((2, 3)), np.array([0, 2]), 3)
    assert np.isnan(found["right"]).tolist() == np.isnan(found["largest"]).tolist() == [False, True, False]
    np.testing.assert_allclose(found["given"], 1)


def test_points_are_classes_and_bars_the_deviation_over_runs(tmp_path):
    settings = settings_of("figures", "confidence_by_class_size").model_validate({"methods": ["GLAG", "CE"]})
    job = made.job(tmp_path, settings, "confidence_by_class_size", predictions=True)
    axes = figure.draw(job).axes
    assert [bars.get_label() for bars in axes[0].containers] == ["GLAG", "CE"]
    runs = [cell.predictions() for cell in job.cells if cell.method == "GLAG"]
    found = [class_probabilities(run["logits"], run["labels"], 100) for run in runs]
    for axis, name, scale in zip(axes, ("right", "largest", "given"), (100, 100, 1), strict=True):
        points = next(drawn for drawn in axis.collections if len(drawn.get_offsets()) == 100).get_offsets()
        np.testing.assert_allclose(points[:, 0], made.counts(100))
        np.testing.assert_allclose(points[:, 1], scale * np.mean([run[name] for run in found], axis=0))
        line, _, bars = axis.containers[0].lines
        # ten classes a line's point, largest first; made-up classes are sorted by size
        parts = scale * np.array([run[name].reshape(10, 10).mean(1) for run in found])
        np.testing.assert_allclose(line.get_ydata(), parts.mean(0))
        lengths = [segment[1, 1] - segment[0, 1] for drawn in bars for segment in drawn.get_segments()]
        if name == "largest":  # that of every made-up prediction is the same
            assert not lengths
        else:
            np.testing.assert_allclose(lengths, 2 * parts.std(0, ddof=1), atol=1e-9)
