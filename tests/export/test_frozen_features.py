"""Published trunks from pictures to a model: features made once, heads and classifiers, ONNX, prediction.

A vision transformer has features of both signs; its weights are random and of the right shape. The weights of
EfficientNet-Lite0 are real.
"""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from longtail.data import picture_loader
from longtail.errors import UserError
from longtail.export.folder import opened
from longtail.export.predict import _of_onnx, _of_torch, _seen
from longtail.orchestration import execute, publishing
from longtail.orchestration.planner import plan
from longtail.own_pictures.check import check_data
from longtail.settings.params import Params
from longtail.stage_one.networks.timm_model import Settings, build

COUNTS = {"cat": 22, "dog": 14, "eel": 9}
SIZE = 32
VIT = {"name": "timm_model", "architecture": "vit_tiny_patch16_224", "image_size": SIZE}
CE = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}
LA = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 1.0}}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "joint": {},
    "crt": {"epochs": 2},
    "lws": {"epochs": 2},
    "tau_normalisation": {"tau": None},
    "ncm": {},
    "posthoc": {},
    "afg": {"generation_epochs": 2, "k": 1},
    "los": {"epochs": 2},
    "mislas": {"epochs": 2},
    "whole": {"epochs": 2},
}


def settings(weights: Path) -> dict[str, Any]:
    vit = {**VIT, "pretrained": str(weights)}
    lite0 = {
        "name": "timm_model",
        "architecture": "tf_efficientnet_lite0",
        "pretrained": "efficientnet_lite0",
    }
    rows = [("vit", name) for name in CLASSIFIERS] + [
        ("vit_la", "joint"),
        ("lite0", "joint"),
        ("lite0", "afg"),
    ]
    rows += [("adapters", "joint")]
    frozen = {"freeze": "features", "schedule": {"epochs": 3}, "learning_rate": {"peak": 0.05}}
    return {
        "dataset": "pets",
        "data": {
            "kind": "folder",
            "root": "pictures",
            "images": {"size": SIZE},
            "held_out": {"per_class": 3},
        },
        "imbalance": {"profile": "natural"},
        "validation": {"source": "holdout", "share": 0.2},
        "precision": "float32",
        "training": {
            "batch_size": 8,
            "augmentation": {"crop": 0, "flip": True, "autoaugment": "none", "cutout": 0},
        },
        "stage_one": {
            "vit": {**frozen, "network": vit, "loss": CE},
            "vit_la": {**frozen, "network": vit, "loss": LA},
            "lite0": {**frozen, "network": lite0, "loss": CE},
            "adapters": {
                "network": {**vit, "adapters": {"form": "adaptformer"}, "head": "cosine", "scale": 25.0},
                "freeze": "all_but_adapters",
                "head_start": "class_means",
                "loss": LA,
                "schedule": {"epochs": 1},
                "learning_rate": {"peak": 0.01},
            },
        },
        "features": {"views": 0},
        "stage_two": CLASSIFIERS,
        "tables": {
            "comparison": {
                "caption": "Pets",
                "rows": [
                    {"section": "s", "label": f"{recipe} {name}", "stage_one": recipe, "stage_two": name}
                    for recipe, name in rows
                ],
            }
        },
        "models": {
            "lite0": {"method": "lite0 afg"},
            "vit": {"method": "vit crt"},
        },
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished workflow in a folder of its own: the plan, and how often each run decoded a picture."""
    folder = tmp_path_factory.mktemp("frozen")
    random = np.random.RandomState(0)
    for place, (name, count) in enumerate(COUNTS.items()):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(count):
            values = random.randint(0, 90, (40, 48, 3))
            values[:, :, place] += 120
            Image.fromarray(values.astype(np.uint8)).save(folder / f"pictures/{name}/{number}.png")
    torch.manual_seed(1)
    options = {key: value for key, value in VIT.items() if key != "name"}
    save_file(build(Settings(**options), 3, 3).backbone.state_dict(), folder / "vit.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(Path(__file__).parents[2] / "workflow", folder / "workflow")
        Path("pets.yaml").write_text(json.dumps(settings(folder / "vit.safetensors")))
        check_data("pets.yaml")
        found = plan(Params.load("pets.yaml"), "pets.yaml")
        found.write()
        read: Counter[tuple[str, str]] = Counter()
        decode = picture_loader.square
        for run in found.everything():

            def counted(file: Path, *rest: Any, run: str = run.name) -> Any:
                read[run, f"{file.parent.name}/{file.name}"] += 1
                return decode(file, *rest)

            patch.setattr(picture_loader, "square", counted)
            execute.execute(run.step, run.name)
        patch.setattr(picture_loader, "square", decode)
        for item in (*found.tables.values(), *found.models.values(), *found.frame.values()):
            publishing.execute(item.kind, item.name, item.identity[:16])
        yield found, read


def run_of(found, step: str, words: str):
    [run] = [run for name, run in getattr(found, step).items() if words in name]
    return run


def test_trunks_read_no_picture_and_features_each_one_once(project):
    found, read = project
    trunks = [run.name for run in found.stage_one.values() if "published" in run.name]
    assert len(trunks) == 2
    for run in found.features.values():
        if "published" not in run.name:
            continue
        counts = [number for (name, _), number in read.items() if name == run.name]
        whole = run.settings.whole
        assert len(counts) == sum(COUNTS.values())
        assert set(counts) <= ({1, 2} if whole else {1})
    assert not [name for name, _ in read if name in trunks or name in found.stage_two]


def test_a_trunk_is_the_file_and_its_run_says_so(project):
    found, _ = project
    run = run_of(found, "stage_one", "vit_tiny_patch16_224-published")
    record = json.loads(Path(run.record).read_text())
    assert record["facts"]["pretrained"].endswith(
        record["settings"]["recipe"]["network"]["pretrained"]["sha256"]
    )
    assert record["settings"]["recipe"].keys() == {"network"}
    trunk, file = load_file(f"{run.folder}/model.safetensors"), load_file("vit.safetensors")
    assert all(torch.equal(trunk[f"backbone.{name}"], tensor) for name, tensor in file.items())


def test_features_of_a_transformer_have_both_signs_and_everything_builds_on_them(project):
    found, _ = project
    run = next(run for run in found.features.values() if "vit_tiny" in run.name and not run.settings.whole)
    clean = load_file(f"{run.folder}/train.safetensors")
    views = load_file(f"{run.folder}/views.safetensors")
    assert clean["features"].min() < 0 < clean["features"].max()
    assert torch.equal(views["features"], clean["features"].unsqueeze(0))  # views: 0
    accuracies = json.loads(Path(run_of(found, "stage_two", "vit-afg").folder, "metrics.json").read_text())
    assert accuracies["test"]["n"] == 9


def test_classifiers_build_on_the_head(project):
    found, _ = project
    [above] = [run for run in run_of(found, "stage_two", "vit-joint").inputs if run.step == "stage_two"]
    head = load_file(f"{above.folder}/classifier.safetensors")
    joint = load_file(f"{run_of(found, 'stage_two', 'vit-joint').folder}/classifier.safetensors")
    lws = load_file(f"{run_of(found, 'stage_two', 'vit-lws').folder}/classifier.safetensors")
    posthoc = load_file(f"{run_of(found, 'stage_two', 'vit-posthoc').folder}/classifier.safetensors")
    assert torch.equal(joint["weight"], head["weight"])
    assert torch.equal(posthoc["weight"], head["weight"])
    torch.testing.assert_close(lws["weight"], lws["scale"].unsqueeze(1) * head["weight"])


def test_tukeys_powers_of_negative_features_are_refused_in_one_line(project, monkeypatch):
    changed = settings(Path("vit.safetensors"))
    changed["stage_two"]["afg"] |= {"tukey": {"lambda": 0.5}, "init": "random", "kd": {"on": "none"}}
    found = plan(Params.read(changed, "pets.yaml"), "pets.yaml")
    found.write()
    run = run_of(found, "stage_two", "vit-afg")
    with pytest.raises(
        UserError, match=r"vit-afg-seed0-\w+: Tukey's ladder needs features >= 0, .* set tukey.lambda to 1"
    ):
        execute.execute("stage_two", run.name)


def test_fine_tuning_by_adapters_moves_nothing_but_adapters_and_head(project):
    found, _ = project
    run = run_of(found, "stage_one", "adapters")
    model, file = load_file(f"{run.folder}/model.safetensors"), load_file("vit.safetensors")
    kept = {name.replace(".inner.", "."): tensor for name, tensor in model.items()}
    assert all(torch.equal(kept[f"backbone.{name}"], tensor) for name, tensor in file.items())
    assert any(model[name].any() for name in model if name.endswith("adapter.up.weight"))


def test_frozen_and_fine_tuned_stand_in_one_table_and_one_frame(project):
    table = Path("results/pets/comparison.csv").read_text()
    assert "adapters joint" in table
    assert "lite0 afg" in table
    frame = pd.read_csv("results/pets/runs.csv")
    measured = len(CLASSIFIERS) + 4 - 1  # `whole` has learnt from validation images
    assert (frame["split"] == "validation").sum() == measured
    assert frame["selection_accuracy"].notna().sum() == measured


def test_an_exported_model_records_its_preprocessing_and_predicts_with_it(project):
    folder, _, description = opened("results/pets/models/lite0")
    assert description.interpolation == "bicubic"
    assert (description.mean, description.std) == ([0.5] * 3, [0.5] * 3)
    assert description.size == (SIZE, SIZE)  # as the settings say, not the weights
    assert description.crop == 0.875
    pictures = [f"pictures/{name}/{number}.png" for name in COUNTS for number in range(3)]
    seen = np.stack([_seen(picture, description) for picture in pictures])
    first = Image.open(pictures[0]).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(6.5, 2.5, 41.5, 37.5))
    np.testing.assert_array_equal(seen[0], np.asarray(first).transpose(2, 0, 1))
    by_torch, by_onnx = (load(folder, description, "cpu")(seen) for load in (_of_torch, _of_onnx))
    np.testing.assert_allclose(by_torch, by_onnx, atol=1e-3)


@pytest.mark.parametrize(("model", "weights"), [("lite0", "Apache-2.0"), ("vit", "vit.safetensors, SHA-256")])
def test_the_card_names_weights_and_head(project, model, weights):
    card = Path(f"results/pets/models/{model}/README.md").read_text()
    assert weights in card
    assert "not trained; its head on frozen features for 3 epochs with loss logit_adjusted" in card
    assert "| head | pets-natural-" in card
