"""Datasets beside each other in the figure of class sizes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from longtail.data.imbalance import published
from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs.identity import file_digest
from longtail.settings.methods import method_module, settings_of
from longtail.settings.params import Params
from longtail.settings.published import Groups
from longtail.settings.reading import read_file
from tests import published_runs as made

LIST = "train/a/1.jpg 1\ntrain/b/2.jpg 0\ntrain/b c/3.jpg 0\ntrain/a/4.jpg 1\ntrain/b/5.jpg 0\n"


def draw(folder, datasets, table=None, files=None, **changes):
    settings = settings_of("figures", "class_counts").model_validate({"table": table, "datasets": datasets})
    files = {file: file_digest(Path(file)) for file in settings.files} if files is None else files
    cells = {} if table is None else made.METHODS
    job = made.job(folder, settings, "class_counts", only=cells, files=files, **changes)
    [axis] = method_module("figures", "class_counts").draw(job).axes
    return axis


def sizes(axis):
    return [sorted(line.get_ydata().tolist()) for line in axis.lines]


def test_published_datasets_have_their_published_sizes_and_groups(tmp_path):
    datasets = [
        {"label": "CIFAR-100-LT", "exponential": {"ratio": 100}},
        {"label": "ImageNet-LT", "counts": "imagenet_lt"},
        {"label": "Places-LT", "counts": "places_lt"},
    ]
    axis = draw(tmp_path, datasets)
    assert [line.get_label() for line in axis.lines] == [
        "CIFAR-100-LT: 10,847 images, 500 to 5 a class; 35 / 35 / 30 classes",
        "ImageNet-LT: 115,846 images, 1,280 to 5 a class; 385 / 479 / 136 classes",
        "Places-LT: 62,500 images, 4,980 to 5 a class; 131 / 163 / 71 classes",
    ]
    assert sizes(axis)[1] == sorted(published("imagenet_lt").tolist())
    for line in axis.lines:
        assert (np.diff(line.get_ydata()) <= 0).all()
        places = line.get_xdata()
        assert places.mean() == pytest.approx(50)  # a share of the classes, from 0 to 100
        assert 0 < places.min() < places.max() < 100


def test_datasets_of_as_many_classes_stand_on_an_axis_of_classes(tmp_path):
    profiles = [{"label": f"{ratio}", "exponential": {"ratio": ratio}} for ratio in (100, 10)]
    axis = draw(tmp_path, profiles)
    assert all(line.get_xdata().tolist() == list(range(1, 101)) for line in axis.lines)
    assert "share" not in axis.get_xlabel()


def test_the_built_in_counts_of_places_lt_are_those_of_its_published_list(tmp_path, shared):
    file = shared / "data/lists/Places_LT_train.txt"
    labels = Counter(int(line.rsplit(None, 1)[1]) for line in file.read_text("utf-8").splitlines())
    assert published("places_lt").tolist() == [labels[label] for label in range(365)]
    datasets = [{"label": "a", "list": str(file)}, {"label": "b", "counts": "places_lt"}]
    first, second = sizes(draw(tmp_path, datasets))
    assert first == second


def test_a_file_of_counts_is_a_number_a_line_or_json(tmp_path):
    texts = {
        "lines.txt": "500\n90\n\n5\n",
        "headed.csv": "images\n500\n90\n5\n",
        "counts.json": "[5, 500, 90]",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    datasets = [{"label": name, "numbers": str(tmp_path / name)} for name in texts]
    assert sizes(draw(tmp_path, datasets)) == [[5, 90, 500]] * 3


def test_datasets_stand_beside_the_splits_of_a_table(tmp_path):
    (tmp_path / "list.txt").write_text(LIST, "utf-8")
    datasets = [{"label": "mine", "list": str(tmp_path / "list.txt")}]
    axis = draw(tmp_path, datasets, "table2", ratios=(100.0, 10.0), seeds=(0,))
    labels = [line.get_label().partition(":")[0] for line in axis.lines]
    assert labels == ["cifar100, ratio 100", "cifar100, ratio 10", "mine"]
    assert sizes(axis)[-1] == [2, 3]


def test_a_list_that_was_not_at_hand_is_named_and_left_out(tmp_path):
    absent = {"label": "iNaturalist 2018", "list": "lists/iNaturalist18_train.txt"}
    files = {absent["list"]: ""}
    axis = draw(tmp_path, [{"label": "ImageNet-LT", "counts": "imagenet_lt"}, absent], files=files)
    assert len(axis.lines) == 1
    title = (axis.get_title(loc="left") + axis.get_title()).replace("\n", " ")
    assert "not at hand: iNaturalist 2018 (lists/iNaturalist18_train.txt)" in title
    with pytest.raises(UserError, match="none of its lists is at hand: iNaturalist 2018"):
        draw(tmp_path / "alone", [absent], files=files)


def test_a_file_that_changed_or_went_since_it_was_planned_is_one_line(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(LIST, "utf-8")
    datasets = [{"label": "mine", "list": str(file)}]
    files = {str(file): file_digest(file)}
    file.write_text(LIST * 2, "utf-8")
    with pytest.raises(UserError, match=r"list\.txt: has changed since this was planned"):
        draw(tmp_path, datasets, files=files)
    file.unlink()
    with pytest.raises(UserError, match=r"list\.txt: cannot be read \(No such file"):
        draw(tmp_path, datasets, files=files)


@pytest.mark.parametrize(
    "text", ["", "[]", "[1, 0]", "[1, 2.5]", "[true]", "5\nfive\n", "[5", "-3\n-2", "[" * 9999]
)
def test_a_file_that_holds_no_counts_is_one_line(tmp_path, text):
    file = tmp_path / "counts.txt"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"counts\.txt: holds "):
        draw(tmp_path, [{"label": "mine", "numbers": str(file)}])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"table": None}, "table: null needs datasets"),
        ({"datasets": [{"label": "a"}]}, "needs counts, list, numbers or exponential"),
        ({"datasets": [{"label": "a", "counts": "places_lt", "list": "b"}]}, "one of them"),
        ({"datasets": [{"label": "a", "counts": "inat"}]}, "no 'inat'; there are imagenet_lt, places_lt"),
        ({"datasets": [{"label": "a", "counts": "places_lt"}] * 2}, "a stands there twice"),
    ],
)
def test_wrong_settings_say_what_would_be_right(options, line):
    with pytest.raises(ValidationError, match=line):
        settings_of("figures", "class_counts").model_validate(options)


def test_the_plan_knows_a_list_by_its_content(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "list.txt"
    drawn = {"table": None, "datasets": [{"label": "mine", "list": "list.txt"}]}
    block = read_file(root / "workflow/settings/demo.yaml")
    figure = Params.read(block | {"figures": {"class_counts": drawn, "gamma": {}}})

    def planned():
        return plan(figure, "workflow/settings/demo.yaml", root).figures

    absent = planned()
    assert absent["class_counts"].planned["context"]["files"] == {"list.txt": ""}
    assert not absent["class_counts"].cells
    file.write_text(LIST, "utf-8")
    there = planned()
    assert there["class_counts"].planned["context"]["files"] == {"list.txt": file_digest(file)}
    file.write_text(LIST * 2, "utf-8")
    identities = {found["class_counts"].identity for found in (absent, there, planned())}
    assert len(identities) == 3
    assert absent["gamma"].identity == planned()["gamma"].identity
    assert "files" not in absent["gamma"].planned["context"]


@pytest.mark.parametrize(("few_below", "many_above"), [(0, 100), (600, 700), (1, 2), (20, 100)])
def test_groups_outside_of_the_drawn_sizes_have_no_band(tmp_path, few_below, many_above):
    datasets = [{"label": "balanced", "exponential": {"classes": 20, "largest": 500, "ratio": 1}}]
    groups = Groups(few_below=few_below, many_above=many_above)
    axis = draw(tmp_path, datasets, groups=groups)
    bottom, top = axis.get_ylim()
    for text in axis.texts:
        assert bottom <= text.xy[1] <= top
