"""A folder of pictures through the workflow: checked, trained on in two processes, exported, predicted."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

COUNTS = {"cat": 40, "dog": 24, "eel": 14}
SETTINGS = {
    "dataset": "pets",
    "data": {"kind": "folder", "root": "pictures", "images": {"size": 16}, "held_out": {"per_class": 4}},
    "imbalance": {"profile": "natural"},
    "validation": {"source": "holdout", "share": 0.2},
    "groups": {"many_above": 25, "few_below": 12},
    "precision": "float32",
    "training": {
        "network": {"name": "resnet_cifar", "depth": 8, "width": 8},
        "batch_size": 12,
        "shards": 2,
        "devices": 2,
        "schedule": {"epochs": 3},
        "learning_rate": {"peak": 0.05},
        "augmentation": {
            **{"crop": 0, "flip": True, "autoaugment": "none", "cutout": 0},
            **{"resized_crop": {"scale": [0.5, 1.0]}, "jitter": {}, "randaugment": {}},
        },
        "evaluate_every": 1,
    },
    "stage_one": {"ce": {"loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}}},
    "features": {"views": 2},
    "stage_two": {"joint": {}, "crt": {"epochs": 2}},
    "methods": {
        "CE": {"stage_one": "ce", "stage_two": "joint"},
        "cRT": {"stage_one": "ce", "stage_two": "crt"},
    },
    "tables": {
        "comparison": {
            "caption": "Pets",
            "rows": [
                {"section": "All", "label": "CE", "method": "CE"},
                {"section": "All", "label": "cRT", "method": "cRT"},
            ],
        }
    },
    "figures": {"class_counts": {"table": "comparison"}},
    "models": {"best": {"table": "comparison"}, "crt": {"method": "cRT"}},
}


def draw(folder: Path) -> None:
    """Pictures of different sizes and shapes, in a colour a class."""
    random = np.random.RandomState(0)
    for place, (name, count) in enumerate(COUNTS.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            values = random.randint(0, 90, (random.randint(18, 40), random.randint(18, 40), 3))
            values[:, :, place] += 120
            Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{number}.jpg", quality=90)


pytestmark = pytest.mark.workflow


@pytest.fixture
def pets(project):
    draw(project.path / "pictures")
    (project.path / "pets.yaml").write_text(yaml.safe_dump(SETTINGS))
    return project


SNAKEMAKE = ("snakemake", "--cores", "2", "--config", "params=pets.yaml")


def test_a_folder_of_pictures_becomes_a_table_and_a_model(pets):
    code, out = pets.status(*SNAKEMAKE)
    assert code == 2
    assert "pets: its files were not checked yet" in out
    assert "Traceback" not in out
    pets.run("longtail", "check-data", "--params", "pets.yaml")
    out = pets.run(*SNAKEMAKE)
    assert "2 x " in out  # devices
    table = (pets.path / "results/pets/comparison.csv").read_text()
    assert "cRT" in table
    [trained] = pets.path.glob("results/pets/stage_one/*/run.json")
    assert json.loads(trained.read_text())["facts"]["processes"] == 2
    assert "Nothing to be done" in pets.run(*SNAKEMAKE, "-n")

    with (pets.path / "results/pets/models/best/choice.csv").open() as file:
        choice = list(csv.DictReader(file))
    assert [row["method"] for row in choice] == ["CE", "cRT"]
    [best] = [row for row in choice if row["chosen"]]
    assert all(
        best["validation_mean_class_accuracy"] >= row["validation_mean_class_accuracy"] for row in choice
    )
    held_out = [f"pictures/{name}/{number}.jpg" for name in COUNTS for number in range(6)]
    form = ("--format", "json")
    said = [
        json.loads(pets.run("longtail", "predict", f"results/pets/models/crt{file}", *held_out, *form))
        for file in ("", "/model.onnx")
    ]
    classes = [[one["classes"][0]["class"] for one in found] for found in said]
    assert classes[0] == classes[1]  # torch and onnxruntime
    right = [Path(one["image"]).parent.name == one["classes"][0]["class"] for one in said[0]]
    assert sum(right) > len(right) / 2

    # another picture is another dataset: it is noticed, checked, and everything is computed anew
    first = pets.stored()
    Image.new("RGB", (30, 30), (5, 5, 200)).save(pets.path / "pictures/eel/new.png")
    code, out = pets.status(*SNAKEMAKE, "-n")
    assert code == 2
    assert "pets: 1 file is new since the check (eel/new.png)" in out
    pets.run("longtail", "check-data", "--params", "pets.yaml")
    out = pets.run(*SNAKEMAKE)
    again = pets.stored()
    assert again["acquire/pets"] != first["acquire/pets"]
    assert len([name for name in again if name.startswith("stage_one/pets")]) == 2
    # without it everything is there still, but for the list of names
    (pets.path / "pictures/eel/new.png").unlink()
    pets.run("longtail", "check-data", "--params", "pets.yaml")
    pets.run(*SNAKEMAKE)
    assert (pets.path / "results/pets/comparison.csv").read_text() == table
    assert {name: node for name, node in pets.stored().items() if name != "acquire/pets"} == {
        name: node for name, node in again.items() if name != "acquire/pets"
    }
