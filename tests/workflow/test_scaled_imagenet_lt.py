"""ImageNet-LT scaled down goes through the whole chain: 1,000 classes, its settings file, tiny pictures.

About a minute of one core: most of it two trainings of two epochs of 6,867 pictures, and Python's starts.
"""

import csv

import pytest

from tests.workflow.conftest import Project, copy_sources
from tests.workflow.scaled_imagenet_lt import CLASSES, counts, write

CHANCE = 100 / CLASSES


pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def scaled(tmp_path_factory) -> Project:
    """The project with the scaled-down dataset, and its table made by one command."""
    project = Project(tmp_path_factory.mktemp("scaled"))
    copy_sources(project.path)
    project.git("init", "-q")
    write(project.path)
    figures = "results/scaled/figures"
    targets = ["results/scaled.csv", f"{figures}/class_counts.png", f"{figures}/calibrated_distribution.png"]
    out = project.run("snakemake", "--cores", "1", "--config", "params=scaled.yaml", "--", *targets)
    assert "Warning" not in out, out
    return project


def test_the_table_stands_in_results_and_has_every_method_and_group(scaled):
    with (scaled.path / "results/scaled.csv").open(newline="") as lines:
        rows = {row["method"]: row for row in csv.DictReader(lines)}
    assert list(rows) == ["CE", "cRT", "LWS", "tau", "GraLoss", "GLAG"]
    numbers = {method: [row[name] for name in ("many", "medium", "few")] for method, row in rows.items()}
    assert all(0 <= float(number) <= 100 for row in numbers.values() for number in row)
    accuracy = {method: float(row["mean"]) for method, row in rows.items()}
    assert min(accuracy.values()) > 20 * CHANCE  # two epochs teach something
    assert accuracy["cRT"] > accuracy["CE"]  # and balanced draws find the tail
    assert float(rows["cRT"]["few"]) > float(rows["CE"]["few"])
    assert rows["CE"]["augmentation"] == "resized crop + flip + colour jitter"
    assert rows["GLAG"]["selection_split"] == "the dataset's own validation images: confidences c_y"
    assert not (scaled.path / "results/scaled/scaled.csv").exists()


def test_the_split_has_the_counts_of_the_lists(scaled):
    [file] = scaled.path.glob("results/scaled/splits/*/counts.csv")
    with file.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [int(row["train"]) for row in found] == counts()
    assert {(row["validation"], row["test"]) for row in found} == {("1", "2")}


def test_runs_stand_in_the_settings_files_own_folder(scaled):
    folders = {path.name for path in (scaled.path / "results").iterdir() if path.is_dir()}
    assert folders == {"scaled"}
    steps = {"splits": 1, "stage_one": 2, "features": 2, "stage_two": 6}
    assert {step: len(list((scaled.path / "results/scaled" / step).iterdir())) for step in steps} == steps
