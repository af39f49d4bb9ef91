"""Weights to begin with, in the plan: their content is who a run is, their path is not."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.runs import digest_cache as digests
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from longtail.settings.recipe import StageOneSettings
from longtail.settings.weight_file import WeightFile

SETTINGS = {
    "dataset": "digits",
    "imbalance": {"profile": "exponential", "ratios": [10]},
    "training": {"network": {"name": "resnet", "architecture": "resnet10"}},
    "stage_one": {
        "ce": {"loss": "logit_adjusted"},
        "unused": {"loss": "focal", "network": {"name": "resnet", "pretrained": "nowhere.pth"}},
    },
    "stage_two": {"joint": {}},
    "methods": {
        "CE": {"stage_one": "ce", "stage_two": "joint"},
        "U": {"stage_one": "unused", "stage_two": "joint"},
    },
    "tables": {"t": {"caption": "c", "rows": [{"section": "s", "label": "l", "method": "CE"}]}},
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """An empty project with two files of weights, of which a third is a copy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digests, "home", lambda here: tmp_path / ".longtail")
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"b")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "a.pth", tmp_path / "elsewhere/copy.safetensors")
    return tmp_path


def planned(pretrained=None, settings=SETTINGS, **more):
    settings = deepcopy(settings)
    if pretrained is not None:
        settings["training"]["network"]["pretrained"] = pretrained
    return plan(Params.read({**settings, **more}))


def runs(*given, **more):
    found = planned(*given, **more)
    return {step: set(found.runs(step)) for step in STEPS}


def test_no_weights_is_the_run_of_before_the_key():
    (run,) = planned().stage_one.values()
    assert run.settings.recipe.network.resolved(hashed=True) == {"name": "resnet", "architecture": "resnet10"}


def test_the_same_content_elsewhere_is_the_same_run_and_another_content_another():
    assert runs("a.pth") == runs("elsewhere/copy.safetensors") == runs(str(Path("a.pth").resolve()))
    assert runs("a.pth") == runs({"file": "a.pth"})
    for other in (None, "b.pth", "torchvision"):
        if other == "torchvision":
            settings = deepcopy(SETTINGS)
            settings["training"]["network"]["architecture"] = "resnet18"
            assert not runs(settings=settings)["stage_one"] & runs(other, settings=settings)["stage_one"]
            continue
        ours, theirs = runs("a.pth"), runs(other)
        assert ours["split"] == theirs["split"]
        for step in ("stage_one", "features", "stage_two"):
            assert len(ours[step]) == len(theirs[step]) == 1
            assert not ours[step] & theirs[step]


def test_new_content_under_the_same_path_is_another_run():
    before = runs("a.pth")
    Path("a.pth").write_bytes(b"c")
    assert runs("a.pth")["stage_one"] != before["stage_one"]


def test_a_run_on_balanced_data_of_a_method_in_no_table_is_known_by_the_content_too():
    settings = deepcopy(SETTINGS)
    network = {**settings["training"]["network"], "pretrained": "a.pth"}
    settings["stage_one"]["unused"].update(network=network, observers=["gradients"])
    balanced = {"method": "U", "per_class": 40, "rich_share": 0.4}
    settings["figures"] = {"gradient_distortion": {"table": "t", "balanced": balanced}}
    before = runs(settings=settings)["stage_one"]
    Path("a.pth").write_bytes(b"c")
    after = runs(settings=settings)["stage_one"]
    assert len(before) == len(after) == 2
    assert len(before & after) == 1  # CE, which begins at random


def test_two_entries_with_the_same_content_are_one_run():
    settings = deepcopy(SETTINGS)
    network = settings["training"]["network"]
    settings["stage_one"]["ce"]["network"] = {**network, "pretrained": "a.pth"}
    copied = {"loss": "logit_adjusted", "network": {**network, "pretrained": "elsewhere/copy.safetensors"}}
    settings["stage_one"]["copy"] = copied
    settings["methods"]["C"] = {"stage_one": "copy", "stage_two": "joint"}
    settings["tables"]["t"]["rows"].append({"section": "s", "label": "m", "method": "C"})
    assert len(planned(settings=settings).stage_one) == 1


def test_the_command_is_told_path_and_digest_and_always_the_path_of_now():
    told = []
    for path in ("a.pth", "elsewhere/copy.safetensors"):
        found = planned(path)
        found.write()
        (name,) = found.stage_one
        text = json.loads(Path(f".longtail/plan/stage_one/{name}.json").read_text())
        settings = StageOneSettings.model_validate(text["settings"])
        source = settings.recipe.network.options.pretrained
        assert isinstance(source, WeightFile)
        told.append((name, source.file, source.sha256))
    (first, second) = told
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("a.pth", "elsewhere/copy.safetensors")
    assert first[2] == second[2]
    assert len(first[2]) == 64


def test_features_and_what_is_taken_home_know_the_architecture_alone():
    for settings in (planned("a.pth"), planned()):
        (run,) = settings.features.values()
        assert run.settings.network.resolved()["pretrained"] is None


def test_every_phase_of_a_recipe_is_of_the_weights_it_began_with():
    settings = deepcopy(SETTINGS)
    phase = {"name": "b", "sampler": "instance", "schedule": {"epochs": 1}, "learning_rate": {"peak": 0.1}}
    settings["stage_one"]["ce"]["then"] = [phase]
    one, other = runs("a.pth", settings=settings), runs("b.pth", settings=settings)
    assert len(one["stage_one"]) == 2
    assert not one["stage_one"] & other["stage_one"]


def test_a_sweep_may_go_over_files_of_weights():
    sweep = {"method": "CE", "grid": {"stage_one.network.pretrained": ["a.pth", "b.pth"]}}
    names = runs("a.pth", sweeps={"w": sweep})["stage_one"]
    assert len(names) == 2
    assert runs("a.pth")["stage_one"] < names


@pytest.mark.parametrize(
    ("pretrained", "line"),
    [
        ("none.pth", "stage_one.ce.network.pretrained: none.pth: No such file or directory; it should name"),
        ("elsewhere", "stage_one.ce.network.pretrained: elsewhere: Is a directory; it should name"),
        (
            {"file": "a.pth", "sha256": "0" * 64},
            f"a.pth: has SHA-256 ca978112.*, and sha256 there says {'0' * 64}",
        ),
    ],
)
def test_a_file_that_is_not_there_or_not_the_one_is_one_line(pretrained, line):
    with pytest.raises(UserError, match=line) as error:
        planned(pretrained)
    assert "\n" not in str(error.value)


def test_a_published_checksum_may_stand_beside_the_path():
    (digest,) = (
        run.settings.recipe.network.options.pretrained.sha256 for run in planned("a.pth").stage_one.values()
    )
    assert runs({"file": "a.pth", "sha256": digest}) == runs("a.pth")


def test_what_no_table_shows_need_not_be_there():
    assert planned().stage_one  # `unused` names a file that is nowhere
    settings = deepcopy(SETTINGS)
    settings["tables"]["t"]["rows"][0]["method"] = "U"
    with pytest.raises(UserError, match=r"stage_one\.unused\.network\.pretrained: nowhere\.pth"):
        planned(settings=settings)


@pytest.mark.parametrize(
    ("network", "line"),
    [
        ({"pretrained": 5}, "training.network.pretrained: 5 is not the path of a file of weights"),
        ({"pretrained": {"path": "a"}}, "training.network.pretrained.path: unknown key"),
        (
            {"pretrained": {"file": "a", "sha256": "f"}},
            "training.network.pretrained.sha256: 'f': String should",
        ),
        ({"architecture": "resnet10", "pretrained": "torchvision"}, "torchvision has no weights of resnet10"),
    ],
)
def test_a_wrong_setting_names_its_key(network, line):
    settings = deepcopy(SETTINGS)
    settings["training"]["network"] |= network
    with pytest.raises(UserError) as error:
        Params.read(settings)
    assert line in str(error.value)
