"""What figures show of runs."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from longtail.errors import UserError
from longtail.metrics import expected_calibration_error
from longtail.publish.figures import drawing
from longtail.settings.methods import method_module, method_names, settings_of
from tests import published_runs as made

KINDS = (
    "accuracy_by_class_size",
    "calibrated_distribution",
    "class_counts",
    "classification_cones",
    "confidence_by_class_size",
    "confidences",
    "gamma",
    "gradient_distortion",
    "group_accuracies",
    "overview",
    "reliability",
    "sweep",
    "tau_curve",
    "training_curves",
    "tsne",
    "weight_norms",
)
GRID = {
    "table": "sweeps/s",
    "sweep": "CE",
    "keys": ["b"],
    "points": [{"method": name, "values": [2**place]} for place, name in enumerate(made.METHODS)],
}
OPTIONS = {"sweep": GRID}
READS_FEATURES = ("calibrated_distribution", "classification_cones", "tsne")
READS_PREDICTIONS = ("confidence_by_class_size", "reliability")
OVERVIEW = {  # of a plan: an edge from one column to the next
    "columns": [
        {"name": name, "runs": 3, "nodes": [{"name": f"{name} entry", "runs": 3}]}
        for name in ("acquire", "split", "stage_one", "features", "stage_two", "tables", "figures")
    ],
    "edges": [{"from": [place, 0], "to": [place + 1, 0], "runs": 3} for place in range(6)],
}
CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"


def job(folder: Path, kind: str, options: dict | None = None, **changes):
    changes = {"features": kind in READS_FEATURES, "predictions": kind in READS_PREDICTIONS, **changes}
    if kind == "overview":
        changes = {"overview": OVERVIEW, **changes}
    if kind == "tau_curve":
        changes = {"methods": made.METHODS | made.EXTRA, "only": made.METHODS | made.EXTRA, **changes}
    settings = settings_of("figures", kind).model_validate(OPTIONS.get(kind, {}) | (options or {}))
    return made.job(folder, settings, kind, **changes)


def draw(folder: Path, kind: str, options: dict | None = None, **changes) -> mpl.figure.Figure:
    return method_module("figures", kind).draw(job(folder, kind, options, **changes))


def test_every_figure_has_a_caption():
    assert method_names("figures") == list(KINDS)
    for kind in (*KINDS, "table", "workflow"):
        assert len((CAPTIONS / f"{kind}.rst").read_text("utf-8")) > 100


def drawn(folder: Path, kind: str, **changes) -> tuple[mpl.figure.Figure, dict[str, bytes]]:
    """A figure as `longtail figures` draws it, and the files that it writes."""
    made_job, figures = job(folder, kind, **changes), []

    def save(figure: mpl.figure.Figure, path: Path) -> None:
        figures.append(figure)
        real(figure, path)

    real = drawing.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "save", save)
        drawing.compute(made_job)
    [figure] = figures
    return figure, {file.name: file.read_bytes() for file in made_job.folder.iterdir()}


@pytest.fixture(scope="module", params=KINDS)
def twice(request, tmp_path_factory):
    """A kind of figure, drawn twice of runs that were made twice: the kind, both figures, their files."""
    folder = tmp_path_factory.mktemp(request.param)
    both = [drawn(folder / place, request.param) for place in ("a", "b")]
    return request.param, *zip(*both, strict=True)


def says_what_it_shows(figure: mpl.figure.Figure) -> list[str]:
    """Every axis that is drawn has its label; the titles."""
    for place, axis in enumerate(axis for axis in figure.axes if axis.axison):
        is_bar = axis.get_label() == "<colorbar>"
        assert axis.get_ylabel()
        assert is_bar or axis.get_xlabel(), place
    titles = [axis.get_title(loc="left") + axis.get_title() for axis in figure.axes] + [figure.get_suptitle()]
    assert any(titles)
    return titles


def test_the_same_runs_give_the_same_bytes_with_no_date(twice):
    kind, _, files = twice
    assert set(files[0]) == {f"{kind}.{suffix}" for suffix in ("png", "svg", "pdf")}
    assert files[0] == files[1]
    assert b"CreationDate" not in files[0][f"{kind}.pdf"]
    assert b"dc:date" not in files[0][f"{kind}.svg"]


def test_every_axis_says_what_it_shows(twice):
    kind, figures, _ = twice
    for figure in figures:
        titles = says_what_it_shows(figure)
        if kind not in ("gamma", "class_counts", "calibrated_distribution", "overview"):
            assert any("cifar100, ratio 100, 3 seeds" in title for title in titles)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_and_ten_classes_are_enough(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(drawing, "WITHOUT_DATE", {"png": drawing.WITHOUT_DATE["png"]})
    few = {"seeds": (0,), "size": {"classes": 10, "largest": 130}, "dataset": "digits"}
    figure, files = drawn(tmp_path, kind, **few)
    says_what_it_shows(figure)
    assert len(files[f"{kind}.png"]) > 5000


def test_class_counts_shows_the_published_numbers_of_images(tmp_path):
    [axis] = draw(tmp_path, "class_counts", ratios=(200.0, 100.0, 50.0, 10.0)).axes
    totals = {line.get_label(): line.get_ydata().sum() for line in axis.lines}
    assert list(totals.values()) == [9502, 10847, 12608, 19573]
    assert "ratio 100: 10,847 images; 35 / 35 / 30 classes" in totals


def test_gamma_shows_the_forms_and_what_the_recipes_use(tmp_path):
    [axis] = draw(tmp_path, "gamma").axes
    middle = [float(np.interp(0.5, line.get_xdata(), line.get_ydata())) for line in axis.lines]
    assert middle == pytest.approx([0.5**0.5, 0.5, 0.25, 0.125, 0.0, 0.25], abs=1e-3)
    assert [line.get_label() for line in axis.lines[-2:]] == ["ce", "graloss"]


def test_gamma_draws_every_form_of_schedule(tmp_path):
    forms = [{"form": "exponential", "b": -2.0}, {"form": "cosine"}, {"form": "constant", "a": 1.5}]
    recipe = made.job(tmp_path, made.table(), only={}).recipes["ce"]
    recipes = {
        f"r{place}": type(recipe).model_validate({"loss": {"name": "logit_adjusted", "gamma": form}})
        for place, form in enumerate(forms)
    }
    [axis] = draw(tmp_path, "gamma", recipes=recipes, methods={}, only={}).axes
    assert [float(line.get_ydata()[-1]) for line in axis.lines[-3:]] == pytest.approx([1, 1, 1.5])


def test_gradient_distortion_is_a_line_a_recipe_of_what_its_runs_measured(tmp_path):
    made_job = job(tmp_path, "gradient_distortion")
    axes = method_module("figures", "gradient_distortion").draw(made_job).axes
    assert len(axes) == 8
    runs = [cell.frame("stage_one", "history.csv") for cell in made_job.cells if cell.method == "CE"]
    epochs = (runs[0].index[runs[0]["gradient_head_norm_total"].notna()] + 1).tolist()
    assert 1 < len(epochs) < made.EPOCHS
    for place, part in ((0, "backbone"), (4, "head")):
        means = {
            name: np.mean([[run[column][epoch - 1] for epoch in epochs] for run in runs], axis=0)
            for column in runs[0]
            if (name := column.removeprefix(f"gradient_{part}_")) != column and not name.startswith("var")
        }
        varied = [
            [
                100 * run[f"gradient_{part}_variance_total"][epoch - 1] ** 0.5
                / run[f"gradient_{part}_norm_total"][epoch - 1]
                for epoch in epochs
            ]
            for run in runs
        ]  # fmt: skip
        shown = [means[f"cosine_{pair}"] for pair in ("total_rich", "total_poor", "rich_poor")]
        for axis, expected in zip(axes[place:][:4], [*shown, np.mean(varied, axis=0)], strict=True):
            lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
            assert list(lines) == ["ce (3 seeds)", "graloss (3 seeds)"]
            np.testing.assert_allclose(lines["ce (3 seeds)"].get_xdata(), epochs)
            np.testing.assert_allclose(lines["ce (3 seeds)"].get_ydata(), expected)


def test_the_cosines_of_a_row_have_one_scale_with_nought_in_it(tmp_path):
    axes = draw(tmp_path, "gradient_distortion").axes
    for row in (axes[:3], axes[4:7]):
        [(low, high)] = {axis.get_ylim() for axis in row}
        assert -1.05 < low < 0 < high < 1.05
    assert axes[3].get_ylim()[0] == axes[7].get_ylim()[0] == 0


def test_a_new_phase_is_dotted_and_no_line_goes_on_over_it(tmp_path):
    two_phases = {"methods": made.METHODS | made.TWO_PHASES, "only": made.TWO_PHASES}
    figure = draw(tmp_path, "gradient_distortion", **two_phases)
    change = made.EPOCHS / 2 + 0.5
    for place, axis in enumerate(figure.axes):
        dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert [list(line.get_xdata()) for line in dotted] == [[change, change]]
        drawn = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]
        assert len({line.get_color() for line in [*drawn, *dotted]}) == 1
        assert len(drawn) == (1 if place % 4 in (1, 2) else 2)  # the first phase has no data-poor image
        assert all(len(set(line.get_xdata() > change)) == 1 for line in drawn)
    words = gradient_words(figure)
    assert words[1].startswith("asynchronous (5 of 10 epochs have both gradients): ")
    assert "as much as with the data-poor one (0.71 ± 0.04)" in words[1]


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (
            (0.93, 0.41, 0.05, 0.30, 0.36, 0.60),
            "the total gradient points with the data-rich one (cosine 0.93) more than with the data-poor one"
            " (0.41); rich and poor 0.05; the norm of the total varies by 30 %,"
            " that of rich more (36 %), that of poor more (60 %)",
        ),
        (
            (-0.35, 0.80, -0.28, 0.50, 0.30, 0.20),
            "the total gradient points with the data-rich one (cosine -0.35) less than with the data-poor one"
            " (0.80); rich and poor -0.28; the norm of the total varies by 50 %,"
            " that of rich less (30 %), that of poor less (20 %)",
        ),
        (
            (0.72, 0.72, 0.0, 0.300, 0.305, 0.295),
            "the total gradient points with the data-rich one (cosine 0.72) as much as with the data-poor one"
            " (0.72); rich and poor 0.00; the norm of the total varies by 30 %,"
            " that of rich as much (31 %), that of poor as much (30 %)",
        ),
        (
            (0.93, 0.41, 0.05, 0.30, 0.36, None),  # of one batch there is no variance
            "the total gradient points with the data-rich one (cosine 0.93) more than with the data-poor one"
            " (0.41); rich and poor 0.05",
        ),
        ((1.0, None, None, 0.2, 0.2, None), "no epoch has both a data-rich and a data-poor gradient"),
    ],
)
def test_the_words_on_gradients_are_those_of_the_numbers(tmp_path, measured, words):
    changes = {"gradients": {"ce": {"train": measured}}, "only": {"CE": {}}, "seeds": (1,)}
    [_, line] = gradient_words(draw(tmp_path, "gradient_distortion", **changes))
    found, expected = (re.split(r"(-?\d+(?:\.\d+)?)", text) for text in (line, f"ce: {words}"))
    assert found[::2] == expected[::2]
    for ours, theirs in zip(found[1::2], expected[1::2], strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=0.011 if "." in theirs else 1.1)


def test_a_difference_within_the_spread_over_seeds_is_none(tmp_path):
    """Seeds 0, 1, 2 differ in total-rich minus total-poor by 0.08 each."""
    for difference, words in ((0.06, "as much as"), (0.10, "more than"), (-0.06, "as much as")):
        measured = {"ce": {"train": (0.6, 0.6 - difference, 0.0, 0.3, 0.3, 0.3)}}
        folder = tmp_path / f"{difference}"
        figure = draw(folder, "gradient_distortion", gradients=measured, only={"CE": {}})
        assert f"{words} with the data-poor one" in gradient_words(figure)[1]


def test_a_run_on_balanced_data_is_a_line_beside_those_of_the_table(tmp_path):
    alone = job(tmp_path / "a", "gradient_distortion", seeds=(0,))
    options = {"balanced": {"method": "CE", "per_class": 108, "rich_share": 0.355}}
    beside = job(tmp_path / "b", "gradient_distortion", options, seeds=(0,))
    of_graloss = next(cell for cell in beside.cells if cell.method == "GraLoss")
    balanced = replace(of_graloss, method="CE, balanced", ratio=None, imbalance="balanced108")
    beside = replace(beside, cells=[*beside.cells, balanced])
    figures = [method_module("figures", "gradient_distortion").draw(made_job) for made_job in (alone, beside)]
    for before, after in zip(*(figure.axes for figure in figures), strict=True):
        lines = [{line.get_label(): line for line in axis.lines} for axis in (before, after)]
        assert "ce, balanced data (1 seed)" not in lines[0]
        new = lines[1]["ce, balanced data (1 seed)"]
        np.testing.assert_allclose(new.get_ydata(), lines[1]["graloss (1 seed)"].get_ydata())
        assert new.get_color() not in {line.get_color() for line in before.lines[:2]}
    words = [gradient_words(figure) for figure in figures]
    assert words[1][:-2] == words[0]
    assert words[1][-2] == words[0][-1].replace("graloss", "ce, balanced data", 1)
    assert words[1][-1].startswith("Balanced data: 108 images of every class; the first 35.5% of the classes")


def test_the_words_on_many_recipes_stand_below_the_panels(tmp_path):
    names = [f"a_recipe_with_quite_a_long_name_{place}" for place in range(9)]
    methods = {name.upper(): {"stage_one": name, "stage_two": "joint"} for name in names}
    gradients = dict.fromkeys(names, made.GRADIENTS["graloss"])
    changes = {"methods": methods, "only": methods, "gradients": gradients, "seeds": (0, 1)}
    with mpl.rc_context(drawing.STYLE):
        figure = draw(tmp_path, "gradient_distortion", **changes)
        figure.draw_without_rendering()
    upper, lower = figure.subfigs
    [text] = lower.texts
    words, [legend] = text.get_window_extent(), upper.legends
    assert len(gradient_words(figure)) == 1 + len(names)
    assert words.y0 > 0
    assert words.x1 < figure.bbox.x1
    below = legend.get_window_extent()
    assert figure.bbox.x0 < below.x0 < below.x1 < figure.bbox.x1
    assert words.y1 < below.y0
    assert below.y1 < min(axis.get_tightbbox().y0 for axis in figure.axes)


def gradient_words(figure: mpl.figure.Figure) -> list[str]:
    """The lines below the panels, each in one piece."""
    [text] = figure.subfigs[1].texts
    return text.get_text().replace("\n    ", " ").replace("\N{NO-BREAK SPACE}", " ").split("\n")


def test_gradients_that_were_not_measured_are_one_line(tmp_path):
    only_ce = {"gradients": {"ce": made.GRADIENTS["ce"]}, "seeds": (0,)}
    figure = draw(tmp_path, "gradient_distortion", **only_ce)
    assert [text.split(":")[0] for text in gradient_words(figure)[1:]] == ["ce"]
    for options, changes, line in (
        (
            {},
            {"gradients": {}},
            r"distortion: no method of table2 .* \(ce, graloss\) `observers: \[gradients\]`",
        ),
        (
            {"methods": ["CE", "GLAG"]},
            only_ce,
            "methods: .* of 'GLAG' were not measured; give stage_one.graloss",
        ),
        ({"methods": ["LA"]}, only_ce, "methods: 'LA' is not in table2, which has CE, GraLoss"),
    ):
        with pytest.raises(UserError, match=line):
            draw(tmp_path / "b", "gradient_distortion", options, **changes)


def test_training_curves_draw_one_line_a_recipe_at_the_epochs_that_were_measured(tmp_path):
    loss, accuracy = draw(tmp_path, "training_curves").axes
    assert [line.get_label() for line in loss.lines] == ["ce (3 seeds)", "graloss (3 seeds)"]
    assert len(loss.lines[0].get_xdata()) == made.EPOCHS
    assert list(accuracy.lines[0].get_xdata()) == list(range(5, made.EPOCHS + 1, 5))
    assert len(loss.collections) == 2  # bands


def test_accuracy_by_class_size_has_a_point_a_class(tmp_path):
    made_job = job(tmp_path, "accuracy_by_class_size")
    [axis] = method_module("figures", "accuracy_by_class_size").draw(made_job).axes
    points = axis.collections[0].get_offsets()
    own = [cell.metrics()["test"]["per_class"] for cell in made_job.cells if cell.method == "CE"]
    np.testing.assert_allclose(points[:, 1], 100 * np.mean(own, axis=0))
    np.testing.assert_array_equal(points[:, 0], made.counts(100))


def test_group_accuracies_are_the_methods_in_the_order_of_the_table(tmp_path):
    made_job = job(tmp_path, "group_accuracies")
    [axis] = method_module("figures", "group_accuracies").draw(made_job).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == list(made.METHODS)
    cells = [cell for cell in made_job.cells if cell.method == "GLAG"]
    expected = 100 * np.mean([cell.metrics()["test"]["accuracy"] for cell in cells])
    at = {(bars.lines[0].get_ydata()[0], bars.lines[0].get_marker()): bars for bars in axis.containers}
    place = -list(made.METHODS).index("GLAG")
    assert at[place, "D"].lines[0].get_xdata()[0] == pytest.approx(expected)
    assert set(marker for _, marker in at) == {"s", "o", "^", "D"}
    [segment] = at[place, "D"].lines[2][0].get_segments()
    spread = np.std([100 * cell.metrics()["test"]["accuracy"] for cell in cells], ddof=1)
    assert segment[1, 0] - segment[0, 0] == pytest.approx(2 * spread)


def test_group_accuracies_leave_out_a_group_without_a_class(tmp_path):
    [axis] = draw(tmp_path, "group_accuracies", ratios=(10.0,), seeds=(0,)).axes
    assert {bars.lines[0].get_marker() for bars in axis.containers} == {"s", "o", "D"}


def test_reliability_has_the_calibration_error_of_the_tables(tmp_path):
    made_job = job(tmp_path, "reliability", {"methods": ["GLAG", "CE"]}, seeds=(0,))
    axes = method_module("figures", "reliability").draw(made_job).axes
    assert [axis.get_title().split("\n")[0] for axis in axes] == ["GLAG", "CE"]
    cell = next(cell for cell in made_job.cells if cell.method == "GLAG")
    found = cell.predictions()
    logits, labels = torch.from_numpy(found["logits"]), torch.from_numpy(found["labels"])
    error = 100 * expected_calibration_error(logits, labels)
    assert axes[0].get_title().endswith(f"ECE {error:.1f} %")
    confidence = 100 * np.exp(3) / (np.exp(3) + 99)  # of every made-up prediction
    [dot] = axes[0].collections[0].get_offsets()
    assert dot[0] == pytest.approx(confidence, rel=1e-3)
    assert dot[1] == pytest.approx(100 * cell.metrics()["test"]["accuracy"])


def test_reliability_of_a_method_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"reliability\.methods: 'LA' is not in table2, which has CE,"):
        draw(tmp_path, "reliability", {"methods": ["LA"]}, seeds=(0,))


def test_the_tau_curve_is_the_validation_accuracy_of_the_method_that_tried_them(tmp_path):
    made_job = job(tmp_path, "tau_curve")
    [axis] = method_module("figures", "tau_curve").draw(made_job).axes
    [line] = axis.lines
    runs = [cell.frame("stage_two", "history.csv") for cell in made_job.cells if cell.method == "CE + tau"]
    expected = [100 * np.mean([run["validation"][place] for run in runs]) for place in range(21)]
    np.testing.assert_allclose(line.get_xdata(), np.arange(21) / 10)
    np.testing.assert_allclose(line.get_ydata(), expected)
    [ring] = axis.collections[-1].get_offsets()
    assert ring[0] == line.get_xdata()[np.argmax(expected)]
    assert 0.4 < ring[0] < 1.0
    with pytest.raises(UserError, match=r"figures\.tau_curve: no method of table2 chose a tau"):
        draw(tmp_path / "without", "tau_curve", only={"CE": {}}, seeds=(0,))


def test_weight_norms_are_relative_to_their_mean_in_a_panel_a_stage_one(tmp_path):
    axes = draw(tmp_path, "weight_norms", seeds=(0,)).axes
    assert [axis.get_title() for axis in axes] == ["stage one: ce", "stage one: graloss"]
    sizes = np.array(made.counts(100))
    lengths = sizes**0.2 / (sizes**0.2).mean()
    points = axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 1], lengths, rtol=1e-4)
    joint, rebalanced = axes[0].lines
    assert joint.get_ydata()[0] > joint.get_ydata()[-1]  # largest classes first
    assert rebalanced.get_ydata()[0] < rebalanced.get_ydata()[-1]
    with pytest.raises(UserError, match="no stage one with several classifiers"):
        draw(tmp_path / "one", "weight_norms", only={"CE": {}}, seeds=(0,))


def test_tsne_draws_eight_classes_from_the_largest_to_the_smallest(tmp_path):
    figure = draw(tmp_path, "tsne", seeds=(0,))
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == ["CE", "GraLoss"]
    names = [points.get_label() for points in figure.axes[0].collections]
    sizes = [int(name.partition("(")[2][:-1]) for name in names]
    assert len(names) == 8
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (500, 5)
    assert all(len(points.get_offsets()) == 10 for points in figure.axes[0].collections)


def test_tsne_says_the_silhouette_of_the_features(tmp_path):
    made_job = job(tmp_path, "tsne", {"classes": [0, 1, 2], "methods": ["CE"]}, seeds=(0, 1))
    [axis] = method_module("figures", "tsne").draw(made_job).axes
    scores = []
    for cell in made_job.cells:
        if cell.method == "CE":
            found = load_file(cell.runs["features"] / "test.safetensors")
            shown = found["labels"] < 3
            scores.append(_silhouette(found["features"][shown], found["labels"][shown]))
    expected = f"silhouette {np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"
    assert axis.get_title().endswith(expected)
    assert np.mean(scores) > 0.3


def _silhouette(points: np.ndarray, labels: np.ndarray) -> float:
    """By its definition: (b - a) / max(a, b), a mean distance in the own class, b in the nearest other."""
    values = []
    for own, label in enumerate(labels):
        distance = np.linalg.norm(points - points[own], axis=1)
        a = distance[labels == label].sum() / ((labels == label).sum() - 1)
        b = min(distance[labels == other].mean() for other in set(labels) - {label})
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"classes": [0, 100]}, "tsne.classes: there is no class 100; 0 to 99"),
        ({"classes": [3, 3]}, "tsne.classes: needs two classes"),
        ({"classes": [3, -1]}, "tsne.classes: there is no class -1; 0 to 99"),
        ({"methods": ["nobody"]}, "tsne.methods: 'nobody' is not in table2"),
    ],
)
def test_tsne_of_what_is_not_there_is_one_line(tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        draw(tmp_path, "tsne", options, seeds=(0,))


def _with_test_images(job, images: dict[int, int]) -> None:
    """Leave of a figure's runs so many test images of each class that is named, and none of the others."""
    for cell in job.cells:
        counts = cell.frame("split", "counts.csv")
        counts["test"] = [images.get(label, 0) for label in counts["label"]]
        counts.to_csv(cell.runs["split"] / "counts.csv", index=False)
        file = cell.runs["features"] / "test.safetensors"
        found = load_file(file)
        places = [np.flatnonzero(found["labels"] == label)[:number] for label, number in images.items()]
        save_file({name: value[np.concatenate(places)] for name, value in found.items()}, file)


@pytest.mark.parametrize("kind", ["tsne", "classification_cones"])
def test_classes_without_test_images_are_passed_over(tmp_path, kind):
    made_job = job(tmp_path, kind, seeds=(0,))
    _with_test_images(made_job, {7: 4, 40: 4, 90: 4})
    labels = [
        points.get_label() for points in method_module("figures", kind).draw(made_job).axes[0].collections
    ]
    shown = [int(match[1]) for label in labels if (match := re.match(r"class(\d+) ", label))]
    assert shown == ([7, 40, 90] if kind == "tsne" else [7, 90])
    named = replace(made_job, settings=made_job.settings.model_copy(update={"classes": [7, 8]}))
    with pytest.raises(UserError, match=r"classes: class 8 has no test images"):
        method_module("figures", kind).draw(named)
    _with_test_images(made_job, {7: 4})
    with pytest.raises(UserError, match=r"classes: needs two classes or more with test images"):
        method_module("figures", kind).draw(made_job)


def test_of_one_test_image_a_class_the_silhouette_is_not_defined(tmp_path):
    made_job = job(tmp_path, "tsne", seeds=(0,))
    _with_test_images(made_job, dict.fromkeys(range(0, 100, 10), 1))
    for axis in method_module("figures", "tsne").draw(made_job).axes:
        assert axis.get_title().endswith("silhouette not defined: one image a class")


def test_a_class_before_the_first_is_refused_before_anything_runs():
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        settings_of("figures", "calibrated_distribution").model_validate({"label": -1})


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        ("split", {"validation": {"source": "test"}}),
        ("stage_one", {"recipe": {"step": {"name": "metasaug", "meta": "on"}}}),
    ],
)
def test_a_sweep_that_validation_images_cannot_judge_has_no_ring(tmp_path, step, settings):
    made_job = job(tmp_path, "sweep", GRID, seeds=(0,))
    cells = [
        replace(cell, info={**cell.info, step: {**cell.info[step], "settings": settings}})
        for cell in made_job.cells
    ]
    figure = method_module("figures", "sweep").draw(replace(made_job, cells=cells))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["test accuracy (%)"]


def test_the_calibrated_distribution_is_that_of_the_smallest_class(tmp_path):
    made_job = job(tmp_path, "calibrated_distribution", seeds=(0,))
    [axis] = method_module("figures", "calibrated_distribution").draw(made_job).axes
    assert "class class96" in axis.get_title()
    drawn, test, real = (points.get_offsets() for points in axis.collections)
    assert (len(drawn), len(test), len(real)) == (495, 10, 5)
    cell = next(cell for cell in made_job.cells if cell.method == "GLAG")
    found = load_file(cell.runs["features"] / "train.safetensors")
    x, y = (int(text.split()[1]) for text in (axis.get_xlabel(), axis.get_ylabel()))
    np.testing.assert_allclose(real, found["features"][found["labels"] == 96][:, [x, y]])
    own, calibrated = axis.patches
    views = load_file(cell.runs["features"] / "views.safetensors")
    points = views["features"][:, views["labels"] == 96].reshape(-1, 8)[:, [x, y]]
    assert own.get_center() == pytest.approx(tuple(points.mean(0)), abs=1e-5)
    # the area of an ellipse of two deviations is 4 pi sqrt(det covariance)
    area = np.pi * own.width * own.height / 4
    assert area == pytest.approx(4 * np.pi * np.sqrt(np.linalg.det(np.cov(points.T))), rel=1e-4)
    assert calibrated.width > own.width


def test_a_class_in_two_chosen_dimensions_or_none(tmp_path):
    options = {"label": 80, "dimensions": [3, 1]}
    [axis] = draw(tmp_path, "calibrated_distribution", options, seeds=(0,)).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("feature 3", "feature 1")
    with pytest.raises(UserError, match=r"figures\.calibrated_distribution\.dimensions: features have \d+"):
        draw(tmp_path / "d", "calibrated_distribution", {"dimensions": [0, 9999]}, seeds=(0,))
    for dimensions in ([0], [0, 1, 2], [0, -1]):
        with pytest.raises(ValidationError):
            draw(tmp_path / "e", "calibrated_distribution", {"dimensions": dimensions}, seeds=(0,))
    with pytest.raises(UserError, match=r"figures\.calibrated_distribution\.label: 0 is not a tail class"):
        draw(tmp_path / "b", "calibrated_distribution", {"label": 0}, seeds=(0,))
    with pytest.raises(UserError, match="no method of table2 is afg"):
        draw(tmp_path / "c", "calibrated_distribution", seeds=(0,), only={"CE": {}})


def test_a_sweep_over_one_key_is_a_line_for_test_and_one_for_validation(tmp_path):
    made_job = job(tmp_path, "sweep")
    [axis] = method_module("figures", "sweep").draw(made_job).axes
    test, validation = (bars.lines[0] for bars in axis.containers)
    expected = [
        100 * np.mean([cell.metrics()["test"]["accuracy"] for cell in made_job.cells if cell.method == name])
        for name in made.METHODS
    ]
    assert axis.get_xscale() == "log"
    np.testing.assert_allclose(test.get_xdata(), [1, 2, 4, 8])
    np.testing.assert_allclose(test.get_ydata(), expected)
    np.testing.assert_allclose(validation.get_ydata(), np.array(expected) + 3)
    [ring] = axis.collections[-1].get_offsets()
    assert ring[0] == 2 ** int(np.argmax(expected))


def test_a_sweep_over_words_has_them_on_the_axis(tmp_path):
    words = [None, {"form": "cosine"}, "all", True]
    points = [{"method": name, "values": [value]} for name, value in zip(made.METHODS, words, strict=True)]
    [axis] = draw(tmp_path, "sweep", {"points": points}, seeds=(0,)).axes
    assert [text.get_text() for text in axis.get_xticklabels()] == [str(word) for word in words]


def test_a_sweep_over_two_keys_is_two_heat_maps(tmp_path):
    points = [
        {"method": name, "values": [k, alpha]}
        for name, (k, alpha) in zip(made.METHODS, itertools.product((1, 2), (0, 0.1)), strict=True)
    ]
    made_job = job(tmp_path, "sweep", {"keys": ["k", "alpha"], "points": points})
    figure = method_module("figures", "sweep").draw(made_job)
    test, validation = figure.axes[0], figure.axes[2]
    assert (test.get_ylabel(), test.get_xlabel()) == ("k", "alpha")
    assert "test accuracy" in test.get_title()
    assert "validation accuracy" in validation.get_title()
    means = [
        100 * np.mean([cell.metrics()["test"]["accuracy"] for cell in made_job.cells if cell.method == name])
        for name in made.METHODS
    ]
    np.testing.assert_allclose(test.images[0].get_array().ravel(), means)
    assert [text.get_text().split("\n")[0] for text in test.texts] == [f"{mean:.1f}" for mean in means]


def test_confidences_start_where_the_settings_say_and_leave_out_classes_without(tmp_path):
    axis = draw(tmp_path, "confidences").axes[0]
    assert all(line.get_ydata()[0] == pytest.approx(0.4) for line in axis.lines)
    tail = sum(size <= 100 for size in made.counts(100))
    assert len(axis.lines) == tail + 2 * 2  # two groups, each with its outline


def test_confidences_of_trainings_of_two_lengths_stand_beside_each_other(tmp_path):
    glag = made.METHODS["GLAG"]
    two = {"GLAG": glag, "short": glag}
    made_job = job(tmp_path, "confidences", seeds=(0,), only=two, methods=two)
    [short] = [cell for cell in made_job.cells if cell.method == "short"]
    file = short.runs["stage_two"] / "classifier.safetensors"
    found = load_file(file)
    save_file({**found, "confidences": np.ascontiguousarray(found["confidences"][:21])}, file)
    axes = method_module("figures", "confidences").draw(made_job).axes
    lengths = {len(line.get_xdata()) for axis in axes for line in axis.lines}
    assert lengths == {21, len(found["confidences"])}


def test_confidences_of_no_tail_class_is_an_empty_figure_that_says_so(tmp_path):
    size = {"classes": 2, "largest": 1000}
    made_job = job(tmp_path, "confidences", ratios=(2.0,), size=size)
    drawing.compute(made_job)
    assert (made_job.folder / "confidences.png").stat().st_size > 5000
    [axis] = draw(tmp_path / "again", "confidences", ratios=(2.0,), size=size).axes
    assert not axis.lines
    assert [text.get_text().split(":")[0] for text in axis.texts] == ["no tail class"]


@pytest.mark.parametrize(
    ("kind", "ratio"),
    [(kind, 20.0) for kind in KINDS] + [(k, 1.0) for k in KINDS if k != "calibrated_distribution"],
)
def test_two_classes_are_enough(tmp_path, kind, ratio):
    made_job = job(tmp_path, kind, ratios=(ratio,), seeds=(0,), size={"classes": 2, "largest": 90})
    drawing.compute(made_job)
    assert (made_job.folder / f"{kind}.png").stat().st_size > 3000


def test_confidences_without_afg_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"figures\.confidences: no method of table2 has confidences"):
        draw(tmp_path, "confidences", only={"CE": made.METHODS["CE"]})


def test_ratio_100_is_drawn_unless_another_is_asked_for(tmp_path):
    cells = job(tmp_path, "confidences", ratios=(200.0, 100.0, 50.0), seeds=(0,))
    assert {cell.ratio for cell in drawing.at_ratio(cells, None)} == {100.0}
    assert {cell.ratio for cell in drawing.at_ratio(cells, 50)} == {50.0}
    with pytest.raises(UserError, match=r"figures\.confidences\.ratio: 20 .* 200, 100, 50"):
        drawing.at_ratio(cells, 20)
    with pytest.raises(UserError, match=r"ratio: 49.99999999 .* 200, 100, 50$"):
        drawing.at_ratio(cells, 49.99999999)


def test_a_table_with_nothing_built_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing to draw"):
        draw(tmp_path, "class_counts", only={})


def test_a_method_has_one_style_and_no_two_share_one():
    names = ["CE", "GLAG", *(f"method {place}" for place in range(59))]
    styles = drawing.styles(names)
    assert len(set(styles.values())) == len(names)
    assert styles["GLAG"] == drawing.styles(["GraLoss", "GLAG"])["GLAG"]


def test_methods_of_one_figure_have_a_colour_each_where_there_are_enough():
    own = drawing.styles(["CE", "GLAG", *(f"method {place}" for place in range(59))])
    shown = ["CE", "method 1", "method 8", "method 15", "GLAG"]
    assert len({own[name][0] for name in shown}) < len(shown)
    found = drawing.distinct(own, shown)
    assert len({colour for colour, _ in found.values()}) == len(shown)
    assert all(found[name] == own[name] for name in ("CE", "GLAG", "method 1"))
    many = [f"method {place}" for place in range(30)]
    assert len(set(drawing.distinct(own, many).values())) == len(many)


def test_a_recipe_has_the_colour_of_the_method_that_is_this_recipe_alone(tmp_path):
    made_job = job(tmp_path, "gamma", only={})
    styles = drawing.recipe_styles(made_job)
    assert styles["graloss"] == drawing.styles(made_job.methods)["GraLoss"]
    assert len(set(styles.values())) == len(styles)


def test_more_recipes_than_styles_are_left_are_drawn_all_the_same(tmp_path):
    """14 with a method of their own beside 24 others, as in the settings of table 2."""
    made_job = job(tmp_path, "gamma", only={})
    recipe = made_job.recipes["ce"]
    names = [f"r{place}" for place in range(38)]
    methods = {f"M{name}": {"stage_one": name, "stage_two": "joint"} for name in names[:14]}
    many = replace(made_job, recipes=dict.fromkeys(names, recipe), methods=methods)
    styles = drawing.recipe_styles(many)
    assert list(styles) == names
    assert len(set(styles.values())) == len(names)
    more = [f"r{place}" for place in range(99)]
    assert len(drawing.recipe_styles(replace(many, recipes=dict.fromkeys(more, recipe)))) == 99


@pytest.mark.parametrize("palette", [drawing.COLOURS, tuple(drawing.GROUP_COLOURS.values())])
@pytest.mark.parametrize("sight", ["normal", "deuteranopia", "protanopia"])
def test_colours_differ_for_every_reader(palette, sight):
    """Machado et al. 2009 on linear RGB, then distance in CIELAB; 10 is told apart side by side."""
    matrix = {
        "normal": np.eye(3),
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    }[sight]
    seen = [_lab((np.array(matrix) @ _linear(colour)).clip(0, 1)) for colour in palette]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10


def _linear(colour: str) -> np.ndarray:
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
