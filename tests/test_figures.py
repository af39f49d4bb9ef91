"""What figures show of runs."""

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from longtail import figures
from longtail.errors import UserError
from longtail.settings import method_module, method_names, settings_of
from tests import published_runs as made

KINDS = ("accuracy_by_class_size", "class_counts", "confidences", "gamma", "training_curves")
CAPTIONS = Path(__file__).parents[1] / "workflow" / "report"


def job(folder: Path, kind: str, options: dict | None = None, **changes):
    return made.job(folder, settings_of("figures", kind).model_validate(options or {}), kind, **changes)


def draw(folder: Path, kind: str, options: dict | None = None, **changes) -> mpl.figure.Figure:
    return method_module("figures", kind).draw(job(folder, kind, options, **changes))


def test_every_figure_has_a_caption():
    assert method_names("figures") == list(KINDS)
    for kind in (*KINDS, "table", "workflow"):
        assert len((CAPTIONS / f"{kind}.rst").read_text("utf-8")) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_runs_give_the_same_bytes_with_no_date(tmp_path, kind):
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        made_job = job(folder, kind, seeds=(0, 1))
        figures.compute(made_job)
        files.append({file.name: file.read_bytes() for file in made_job.folder.iterdir()})
    assert set(files[0]) == {f"{kind}.{suffix}" for suffix in ("png", "svg", "pdf")}
    assert files[0] == files[1]
    assert b"CreationDate" not in files[0][f"{kind}.pdf"]
    assert b"dc:date" not in files[0][f"{kind}.svg"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_axis_says_what_it_shows(tmp_path, kind):
    figure = draw(tmp_path, kind)
    for place, axis in enumerate(figure.axes):
        is_bar = axis.get_label() == "<colorbar>"
        assert axis.get_ylabel()
        assert is_bar or axis.get_xlabel(), place
    titles = [axis.get_title(loc="left") + axis.get_title() for axis in figure.axes] + [figure.get_suptitle()]
    assert any(titles)
    if kind not in ("gamma", "class_counts"):
        assert any("cifar100, ratio 100, 3 seeds" in title for title in titles)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_and_ten_classes_are_enough(tmp_path, kind):
    made_job = job(tmp_path, kind, seeds=(0,), size={"classes": 10, "largest": 130}, dataset="digits")
    figures.compute(made_job)
    assert (made_job.folder / f"{kind}.png").stat().st_size > 5000


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


def test_confidences_start_where_the_settings_say_and_leave_out_classes_without(tmp_path):
    axis = draw(tmp_path, "confidences").axes[0]
    assert all(line.get_ydata()[0] == pytest.approx(0.4) for line in axis.lines)
    tail = sum(size <= 100 for size in made.counts(100))
    assert len(axis.lines) == tail + 2 * 2  # two groups, each with its outline


def test_confidences_without_afg_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"figures\.confidences: no method of table2 has confidences"):
        draw(tmp_path, "confidences", only={"CE": made.METHODS["CE"]})


def test_ratio_100_is_drawn_unless_another_is_asked_for(tmp_path):
    cells = job(tmp_path, "confidences", ratios=(200.0, 100.0, 50.0), seeds=(0,))
    assert {cell.ratio for cell in figures.at_ratio(cells, None)} == {100.0}
    assert {cell.ratio for cell in figures.at_ratio(cells, 50)} == {50.0}
    with pytest.raises(UserError, match=r"figures\.confidences\.ratio: 20 .* 200, 100, 50"):
        figures.at_ratio(cells, 20)


def test_a_table_with_nothing_built_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing to draw"):
        draw(tmp_path, "class_counts", only={})


def test_a_method_has_one_style_and_no_two_share_one():
    names = ["CE", "GLAG", *(f"method {place}" for place in range(18))]
    styles = figures.styles(names)
    assert len(set(styles.values())) == len(names)
    assert styles["GLAG"] == figures.styles(["GraLoss", "GLAG"])["GLAG"]


def test_a_recipe_has_the_colour_of_the_method_that_is_this_recipe_alone(tmp_path):
    made_job = job(tmp_path, "gamma", only={})
    styles = figures.recipe_styles(made_job)
    assert styles["graloss"] == figures.styles(made_job.methods)["GraLoss"]
    assert len(set(styles.values())) == len(styles)


@pytest.mark.parametrize("palette", [figures.COLOURS, tuple(figures.GROUP_COLOURS.values())])
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
