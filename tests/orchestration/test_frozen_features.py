"""Recipes of `freeze: features` in the plan: one trunk, one features run, a head a recipe and seed."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from longtail.errors import UserError
from longtail.orchestration import preprocessing
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.own_pictures.check import check_data
from longtail.settings.data import Pictures
from longtail.settings.known_weights import EMBEDDED_WEIGHTS
from longtail.settings.params import Params
from tests.odd_pictures import class_folders

RATE = {"peak": 0.01}
TAUGHT = {"name": "distillation", "teacher": {"stage_one": "la", "stage_two": "joint"}}
SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "imbalance": {"profile": "exponential", "ratios": [10]},
    "seeds": [0, 1],
    "training": {
        "network": {
            "name": "timm_model",
            "architecture": "tf_efficientnet_lite0",
            "pretrained": "efficientnet_lite0",
        },
        "schedule": {"epochs": 5},
    },
    "stage_one": {
        "ce": {
            "freeze": "features",
            "loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}},
        },
        "la": {
            "freeze": "features",
            "loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 1.0}},
        },
        "graloss": {
            "freeze": "features",
            "loss": "logit_adjusted",
            "sampler": "square_root",
            "schedule": {"epochs": 7},
            "batch_size": 32,
            "learning_rate": RATE,
        },
    },
    "features": {"views": 1},
    "stage_two": {"joint": {}, "crt": {}, "afg": {}},
    "tables": {
        "t": {
            "caption": "c",
            "rows": [
                {
                    "section": "s",
                    "label": f"{recipe} {classifier}",
                    "stage_one": recipe,
                    "stage_two": classifier,
                }
                for recipe in ("ce", "la", "graloss")
                for classifier in ("joint", "crt", "afg")
            ],
        }
    },
}


def planned(**changes: Any) -> Plan:
    return plan(Params.read({**deepcopy(SETTINGS), **changes}))


def changed(recipe: str, **keys: Any) -> dict[str, Any]:
    recipes = deepcopy(SETTINGS["stage_one"])
    recipes[recipe] |= keys
    return {"stage_one": recipes}


def test_three_losses_and_two_seeds_share_one_trunk_and_one_features_run():
    found = planned()
    [trunk], [features] = found.stage_one.values(), found.features.values()
    heads = [name for name in found.stage_two if "-head-" in name]
    assert len(heads) == 3 * 2
    assert len(found.stage_two) == 3 * 2 + 9 * 2
    assert trunk.settings.resolved()["recipe"] == {
        "network": SETTINGS["training"]["network"]
        | {"head": "linear", "scale": 30.0, "adapters": None, "image_size": None}
    }
    for run in found.stage_two.values():
        above = {at.step: at.name for at in run.inputs}
        assert above["features"] == features.name
        if "-head-" in run.name:
            assert set(above) == {"features", "split"}
            assert "longtail.stage_one.losses.logit_adjusted" in run.modules
        else:
            recipe, seed = run.name.split("-")[2], run.name.split("-seed")[1][0]
            assert above["stage_two"].startswith(f"digits-exp10-{recipe}-head-seed{seed}-")


@pytest.mark.parametrize(
    "keys",
    [
        {"loss": "focal"},
        {"schedule": {"epochs": 50}},
        {"learning_rate": {"peak": 0.5}},
        {"sampler": "class_balanced"},
        {"batch_size": 64},
        {"optimiser": {"weight_decay": 0.0}},
        {"progress": "step"},
    ],
)
def test_what_trains_a_head_makes_another_head_and_the_same_features(keys):
    before, after = planned(), planned(**changed("la", **keys))
    assert list(after.features) == list(before.features)
    assert list(after.stage_one) == list(before.stage_one)
    others = set(after.stage_two) - set(before.stage_two)
    assert {name.split("-")[2] for name in others} == {"la"}
    assert len(others) == 2 + 3 * 2


def test_what_the_network_sees_makes_other_features_and_leaves_the_trunk():
    before = planned()
    for after in (planned(features={"views": 2}), planned(**changed("la", augmentation={"flip": False}))):
        assert list(after.stage_one) == list(before.stage_one)
        assert set(after.features) != set(before.features)


def test_a_head_has_what_the_recipe_says():
    found = planned()
    head = next(run for name, run in found.stage_two.items() if "graloss-head-seed0" in name)
    method = head.settings.resolved()["method"]
    assert method["name"] == "linear_probe"
    assert (method["epochs"], method["batch_size"], method["sampler"]) == (7, 32, {"name": "square_root"})
    assert method["learning_rate"]["peak"] == 0.01
    assert method["loss"]["gamma"] == {"form": "power", "a": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"network": {"name": "resnet_cifar"}}, "needs published weights: give the network `pretrained`"),
        (
            {
                "network": {
                    "name": "resnet",
                    "architecture": "resnet18",
                    "pretrained": "torchvision",
                    "head": "cosine",
                }
            },
            "trains a linear head",
        ),
        (
            {"step": TAUGHT},
            "takes no step distillation",
        ),
        ({"weight_average": {"decay": 0.9}}, "averages no weights"),
        ({"transforms": [{"name": "mixup"}]}, "mixes no images"),
        ({"observers": ["gradients"]}, "has no observers"),
        ({"schedule": {"iterations": 5}}, "needs a schedule in epochs"),
        ({"optimiser": {"nesterov": True}}, "leave optimiser.nesterov out"),
        ({"optimiser": {"trunk_rate": 0.1}}, "has no trunk to train"),
        ({"shards": 2}, "trains in one process"),
        ({"classes": "rich"}, "sees all classes"),
        (
            {
                "then": [
                    {"name": "b", "sampler": "instance", "schedule": {"epochs": 1}, "learning_rate": RATE}
                ]
            },
            "leave `then` out",
        ),
    ],
)
def test_what_a_head_cannot_have_is_one_line(keys, line):
    with pytest.raises(UserError, match=rf"params.yaml: stage_one.ce: freeze: features .*{line}"):
        planned(**changed("ce", **keys))


def test_a_later_phase_is_told_to_freeze_the_trunk():
    phase = {
        "name": "b",
        "sampler": "instance",
        "schedule": {"epochs": 1},
        "learning_rate": RATE,
        "freeze": "features",
    }
    with pytest.raises(UserError, match=r"stage_one\.ce: freeze: features is for a whole recipe"):
        planned(**changed("ce", freeze="none", then=[phase]))


def test_a_teacher_on_frozen_features_needs_its_classifier():
    def taught(**teacher: str) -> Plan:
        step = {"name": "distillation", "teacher": teacher}
        settings = deepcopy(SETTINGS)
        settings["stage_one"]["student"] = {"loss": "focal", "network": "resnet_cifar", "step": step}
        row = {"section": "s", "label": "student", "stage_one": "student", "stage_two": "joint"}
        settings["tables"]["t"]["rows"].append(row)
        return plan(Params.read(settings))

    with pytest.raises(
        UserError, match=r"head of 'la' is trained on frozen features, .*; name stage_two too"
    ):
        taught(stage_one="la")
    found = taught(stage_one="la", stage_two="joint")
    runs = [run for name, run in found.stage_one.items() if "student" in name]
    assert len(runs) == 2
    assert {key: run.name.rpartition("-")[0] for key, run in runs[0].further.items()} == {
        "teacher.0.stage_one": "digits-exp10-tf_efficientnet_lite0-published",
        "teacher.0.stage_two": "digits-exp10-la-joint-seed0",
    }


def test_planning_them_imports_no_torch():
    code = (
        "import json, sys\n"
        "from longtail.orchestration.planner import plan\n"
        "from longtail.settings.params import Params\n"
        "plan(Params.read(json.loads(sys.argv[1])))\n"
        "assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(SETTINGS)], check=True)


class TestPreprocessing:
    """Of picture files, in the settings of every run that sees them."""

    @pytest.fixture(autouse=True)
    def _pictures(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        preprocessing._of_timm.cache_clear()
        class_folders(tmp_path / "pictures", {"cat": 6, "dog": 5})

    def looks(self, network: dict[str, Any] | None = None, **images: Any) -> dict[str, Any]:
        data = {"kind": "folder", "root": "pictures", "images": images, "held_out": {"per_class": 1}}
        settings = {
            **deepcopy(SETTINGS),
            "dataset": "pets",
            "data": data,
            "imbalance": {"profile": "natural"},
        }
        settings["training"]["network"] = network or settings["training"]["network"]
        Path("pets.yaml").write_text(json.dumps(settings))
        check_data("pets.yaml")
        found = plan(Params.load("pets.yaml"))
        [trunk], [features] = found.stage_one.values(), found.features.values()
        assert trunk.settings.images == features.settings.images
        return features.settings.images.resolved()

    def test_it_is_that_of_the_weights(self):
        found = self.looks()
        assert found == {"channels": 3, **EMBEDDED_WEIGHTS.preprocessing()}

    def test_what_the_settings_say_counts_for_more(self):
        found = self.looks(size=160, mean=[0.1, 0.2, 0.3])
        assert (found["size"], found["mean"]) == (160, [0.1, 0.2, 0.3])
        assert (found["interpolation"], found["std"]) == ("bicubic", [0.5, 0.5, 0.5])

    def test_timm_is_asked_once_about_its_own_weights(self, monkeypatch):
        network = {
            "name": "timm_model",
            "architecture": "vit_base_patch16_clip_224.openai",
            "pretrained": True,
        }
        asked = self.looks(network)
        assert asked["interpolation"] == "bicubic"
        assert asked["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
        assert asked["center"] == 0.9
        preprocessing._of_timm.cache_clear()
        monkeypatch.setattr(preprocessing.subprocess, "run", None)  # what is remembered is not asked again
        assert self.looks(network) == asked

    def test_a_teacher_that_sees_pictures_by_weights_of_its_own_is_one_line(self):
        student = {"network": {"name": "resnet", "architecture": "resnet18"}, "loss": "focal", "step": TAUGHT}
        settings = {
            **deepcopy(SETTINGS),
            "dataset": "pets",
            "data": {"kind": "folder", "root": "pictures", "images": {}, "held_out": {"per_class": 1}},
            "imbalance": {"profile": "natural"},
        }
        settings["stage_one"]["student"] = student
        row = {"section": "s", "label": "student", "stage_one": "student", "stage_two": "joint"}
        settings["tables"]["t"]["rows"] += [row]
        Path("pets.yaml").write_text(json.dumps(settings))
        check_data("pets.yaml")
        with pytest.raises(
            UserError,
            match=r"stage_one.student and its teacher, la, see pictures with another inter.* std each",
        ):
            plan(Params.load("pets.yaml"))
        weights = EMBEDDED_WEIGHTS.preprocessing()
        settings["data"]["images"] = {key: weights[key] for key in ("size", "center", "interpolation")}
        settings["data"]["images"] |= {"mean": [0.4] * 3, "std": [0.2] * 3}
        Path("pets.yaml").write_text(json.dumps(settings))
        assert any("-student-" in name for name in plan(Params.load("pets.yaml")).stage_one)

    def test_weights_that_say_nothing_leave_the_settings_as_they_are(self):
        torch.save({"a": torch.zeros(1)}, "weights.pth")
        found = self.looks(
            {"name": "resnet", "architecture": "resnet18", "pretrained": "weights.pth"}, size=64
        )
        assert found == Pictures(size=64).resolved()
