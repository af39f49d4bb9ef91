import csv
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.classifier import StageTwoSettings
from longtail.stage_two import fitting
from longtail.stage_two.classifier import class_accuracy, selection_classes

from .test_afg import mixture

torch.set_num_threads(1)


@pytest.fixture
def inputs(tmp_path):
    """Folders as the steps `features` and `split` leave them."""
    data, features, labels = mixture()
    folder, split = tmp_path / "features", tmp_path / "split"
    folder.mkdir()
    split.mkdir()

    def save(name, features, labels):
        logits = torch.nn.functional.linear(features, data.head_weight, data.head_bias)
        samples = torch.arange(len(labels)) + 7
        part = {"features": features, "logits": logits, "labels": labels, "samples": samples}
        save_file(part, folder / f"{name}.safetensors")

    save("train", data.clean, data.labels)
    save("validation", data.validation, data.validation_labels)
    save("test", features, labels)
    views = {"features": data.views, "logits": data.view_logits, "labels": data.labels}
    save_file(views, folder / "views.safetensors")
    save_file({"weight": data.head_weight, "bias": data.head_bias}, folder / "head.safetensors")
    rows = [f"{c},class {c},{n},20,100" for c, n in enumerate(data.class_counts.tolist())]
    (split / "counts.csv").write_text("\n".join(["label,name,train,validation,test", *rows, ""]))
    return {"features": folder, "split": split}


def compute(inputs, folder, method):
    folder.mkdir()
    settings = StageTwoSettings(method=method, seed=0)
    job = Job("stage_two", "a-run", settings, inputs, folder, folder)
    fitting.compute(job)
    return job


@pytest.mark.parametrize(
    ("method", "epochs"),
    [("joint", 0), ({"name": "crt", "epochs": 2}, 2), ({"name": "afg", "generation_epochs": 2}, 2)],
)
def test_a_step_writes_the_same_bytes_each_time(inputs, tmp_path, method, epochs):
    job = compute(inputs, tmp_path / "one", method)
    compute(inputs, tmp_path / "two", method)
    names = {"classifier.safetensors", "history.csv", "metrics.json", "predictions.safetensors"}
    assert {file.name for file in job.folder.iterdir()} == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with (job.folder / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == epochs
    json.dumps(job.facts)


def test_metrics_are_those_of_the_predictions_and_the_classifier_makes_them(inputs, tmp_path):
    method = {"name": "afg", "generation_epochs": 1, "tukey": {"lambda": 0.5}, "init": "random"}
    job = compute(inputs, tmp_path / "run", {**method, "kd": {"on": "none"}})
    measured = json.loads((job.folder / "metrics.json").read_text())
    predictions = load_file(job.folder / "predictions.safetensors")
    classifier = load_file(job.folder / "classifier.safetensors")
    test = load_file(inputs["features"] / "test.safetensors")
    assert torch.equal(predictions["labels"], test["labels"])
    assert torch.equal(predictions["samples"], test["samples"])
    assert float(classifier["tukey"]) == 0.5
    logits = test["features"] ** 0.5 @ classifier["weight"].T + classifier["bias"]
    torch.testing.assert_close(predictions["logits"], logits)
    right = (predictions["logits"].argmax(1) == test["labels"]).double().mean()
    assert measured["test"]["accuracy"] == pytest.approx(float(right))
    assert measured["validation"]["n"] == len(predictions["validation_labels"]) == 120


def test_the_selection_score_leaves_out_classes_with_fewer_validation_images(inputs, tmp_path):
    file = inputs["features"] / "validation.safetensors"
    validation = load_file(file)
    kept = torch.ones(120, dtype=torch.bool)
    kept[:20] = kept[25] = False  # class 0 has no image, class 1 has 19
    save_file({name: tensor[kept] for name, tensor in validation.items()}, file)
    job = compute(inputs, tmp_path / "run", "joint")
    assert job.facts["classes_left_out_of_selection"] == [0, 1]
    measured = json.loads((job.folder / "metrics.json").read_text())["validation"]
    per_class = measured["per_class"]
    assert measured["selection_accuracy"] == pytest.approx(sum(per_class[2:]) / 4)


def test_without_validation_images_there_is_no_validation_score(inputs, tmp_path):
    file = inputs["features"] / "validation.safetensors"
    save_file({name: tensor[:0].clone() for name, tensor in load_file(file).items()}, file)
    job = compute(inputs, tmp_path / "run", {"name": "afg", "generation_epochs": 1})
    assert set(json.loads((job.folder / "metrics.json").read_text())) == {"test"}
    assert len(load_file(job.folder / "predictions.safetensors")["validation_logits"]) == 0


def test_a_loss_that_is_not_finite_is_one_line_that_names_the_key(inputs, tmp_path):
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) in epoch \d+; try a learning_rate.peak below"
    ):
        compute(inputs, tmp_path / "run", {"name": "crt", "learning_rate": {"peak": 1e30}})


@pytest.mark.parametrize("part", ["views", "test"])
@pytest.mark.parametrize(
    "method",
    [
        {"name": "afg", "init": "random", "kd": {"on": "none"}, "generation_epochs": 1},
        {"name": "afg", "tukey": {"map_back": True}, "generation_epochs": 1},
        {"name": "free_lunch", "iterations": 2},
        {"name": "tailcalibx", "epochs": 1},
    ],
    ids=["afg", "afg mapped back", "free_lunch", "tailcalibx"],
)
def test_negative_features_under_tukey_are_one_line_with_the_remedy_and_lambda_1_takes_them(
    method, part, inputs, tmp_path
):
    file = inputs["features"] / f"{part}.safetensors"
    known = load_file(file)
    known["features"][:, 0] = -1.0  # one dimension of eight
    save_file(known, file)

    def powered(power):
        return {**method, "tukey": {**method.get("tukey", {}), "lambda": power}}

    if part == "test" and "tukey" in method:  # its classifier sees features as they are
        assert compute(inputs, tmp_path / "run", powered(0.5)).facts
    else:
        numbers = f"{known['features'].numel():,}"
        line = (
            rf"^a-run: Tukey's ladder needs features >= 0, such as those behind a ReLU, "
            rf"and [\d,]+ of {numbers} numbers are negative: set tukey\.lambda to 1 instead of 0\.5$"
        )
        with pytest.raises(UserError, match=line):
            compute(inputs, tmp_path / "run", powered(0.5))
    compute(inputs, tmp_path / "other", powered(1.0))


def test_class_accuracy_is_a_share_of_each_classs_own_images():
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 1])]
    accuracy = class_accuracy(logits, torch.tensor([0, 0, 0, 1]), 3)
    torch.testing.assert_close(accuracy, torch.tensor([2 / 3, 1.0, torch.nan]), equal_nan=True)


@pytest.mark.parametrize(
    ("images", "counted"),
    [
        ((0, 3, 20, 20, 20, 20), (2, 3, 4, 5)),  # unused: what the largest classes left is not full
        ((20, 20, 20), (0, 1, 2)),
        ((50, 20, 8, 3, 1, 0), (0, 1, 2, 3, 4)),  # a held-out share
        ((0, 0, 0), ()),
    ],
)
def test_classes_count_in_selection_scores_by_their_validation_images(images, counted):
    labels = torch.repeat_interleave(torch.arange(len(images)), torch.tensor(images))
    assert selection_classes(labels, len(images)).nonzero().flatten().tolist() == list(counted)


def test_a_job_starts_without_pandas():
    """Hundreds of jobs of seconds: its import would add a tenth to the start of each."""
    code = "import sys, longtail.stage_two.fitting; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
