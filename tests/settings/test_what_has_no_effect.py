"""Settings that would do nothing, or fail hours later, are refused when they are read."""

import pytest
import yaml
from pydantic import ValidationError

from longtail.errors import UserError
from longtail.settings.classifier import Classifier
from longtail.settings.params import Params
from longtail.settings.recipe import Optimiser, Recipe
from longtail.settings.schedules import Exponential, StepDecay
from longtail.settings.split import Validation
from longtail.stage_two import linear_probe
from tests.tiny import TINY

CE = {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (
            {"schedule": {"epochs": 60}, "learning_rate": {"peak": 0.1, "warmup": 61}},
            "phase train: warmup 61 is longer than the schedule, 60 epochs",
        ),
        (
            {
                "schedule": {"epochs": 160},
                "learning_rate": {"peak": 0.1, "decay": {"form": "step", "at": [80, 160], "factors": [1, 0]}},
            },
            "phase train: decay at 160 is not before the end of the schedule, 160 epochs",
        ),
        (
            {"then": [{"name": "late", "sampler": "instance", "schedule": {"iterations": 9},
                       "learning_rate": {"peak": 1, "warmup": 10}}]},
            "phase late: warmup 10 is longer than the schedule, 9 iterations",
        ),
        (
            {"learning_rate": {"peak": 0.1, "start": 0.01}},
            "phase train: start 0.01 is where a warm-up begins; set warmup, or leave start out",
        ),
        ({"network": {"name": "resnet_cifar", "scale": 16.0}}, "scale is of a cosine head"),
        ({"loss": {"name": "class_balanced", "gamma": 2.0}}, "gamma 2 is of the focal loss; set base: focal"),
        (
            {"loss": "class_balanced", "transforms": ["minority_cutmix"], "shards": 2},
            "minority_cutmix: shards share no loss that divides by weights",
        ),
        (
            {"network": {"name": "resnet", "pretrained": "torchvision"}, "freeze": "features",
             "frozen_batchnorm": "train"},
            "has no batch statistics to take; leave frozen_batchnorm out",
        ),
    ],
)  # fmt: skip
def test_a_recipe(recipe, line):
    with pytest.raises(ValidationError, match=line):
        Recipe.model_validate({"loss": CE, **recipe})


ADAPTED = {
    "name": "timm_model",
    "architecture": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "pretrained": True,
    "adapters": {"form": "lora"},
}
DEFERRED = {"name": "class_balanced", "start": 0.8}
HEAD = {"name": "head", "sampler": "instance", "schedule": {"epochs": 2}, "learning_rate": {"peak": 0.1}}


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (
            {"loss": {"name": "ldam", "reweight": {}}, "network": {"name": "resnet_cifar", "head": "cosine"},
             "schedule": {"epochs": 4}},
            "phase train: start 0.8 of loss ldam is never reached: the last of 4 epochs begins at 0.75; set",
        ),
        (
            {"loss": {**DEFERRED, "start": 0.999}, "schedule": {"epochs": 200}},
            "start 0.999 of loss class_balanced is never reached: the last of 200 epochs begins at 0.995",
        ),
        (
            {"step": "rsg", "schedule": {"epochs": 2}},
            "start 0.8 of step rsg is never reached: the last of 2 epochs begins at 0.5",
        ),
        ({"network": ADAPTED, "freeze": "trunk"}, "freeze: trunk leaves adapters as they begin"),
        ({"freeze": "all_but_adapters"}, "freeze: all_but_adapters needs a network with adapters"),
        ({"loss": DEFERRED, "schedule": {"epochs": 5}}, None),
        ({"loss": DEFERRED, "schedule": {"epochs": 1}, "progress": "step"}, None),
        ({"step": {"name": "rsg", "start": 1.0}, "schedule": {"epochs": 2}}, None),
        ({"network": ADAPTED, "freeze": "all_but_adapters"}, None),
        ({"network": ADAPTED, "freeze": "all_but_adapters", "then": [{**HEAD, "freeze": "trunk"}]}, None),
    ],
)  # fmt: skip
def test_what_would_never_come_to_be_is_refused_in_settings(recipe, line):
    said = Recipe.model_validate({"loss": CE, "learning_rate": {"peak": 0.1}, **recipe}).in_vain()
    assert said is None if line is None else line in str(said)


def test_a_settings_file_with_such_a_recipe_is_one_line():
    settings = yaml.safe_load(TINY)
    name = next(iter(settings["stage_one"]))
    settings["stage_one"][name] = {"loss": {"name": "class_balanced", "start": 0.999}}
    with pytest.raises(
        UserError, match=rf"stage_one\.{name}: phase train: start 0.999 of loss class_balanced"
    ):
        Params.read(settings)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (
            {"name": "crt", "epochs": 30, "learning_rate": {"peak": 0.1, "warmup": 50}},
            "learning_rate of crt: warmup 50 is longer than the schedule, 30 epochs",
        ),
        (
            {"name": "afg", "generation_epochs": 40,
             "learning_rate": {"peak": 0.1, "decay": {"form": "step", "at": [40], "factors": [0.1]}}},
            "learning_rate of afg: decay at 40 is not before the end of the schedule, 40 epochs",
        ),
        (
            {"name": "lws", "learning_rate": {"peak": 0.1, "start": 0.01}},
            "learning_rate of lws: start 0.01 is where a warm-up begins",
        ),
    ],
)  # fmt: skip
def test_a_classifier(method, line):
    with pytest.raises(ValidationError, match=line):
        Classifier.model_validate({"method": method})


@pytest.mark.parametrize("loss", ["ldam", "difficulty_margin"])
def test_a_loss_of_scaled_cosines_over_a_linear_probe(loss):
    with pytest.raises(ValidationError, match="the classifier here is linear"):
        linear_probe.Settings.model_validate({"loss": loss})


def test_what_has_no_number():
    with pytest.raises(ValidationError, match="nesterov: true needs a momentum above 0"):
        Optimiser(nesterov=True, momentum=0)
    with pytest.raises(ValidationError, match="less than or equal to 80"):
        Exponential(form="exponential", b=1000.0)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        StepDecay(form="step", at=[1], factors=[-0.1])


@pytest.mark.parametrize(
    ("validation", "line"),
    [
        ({"source": "holdout", "per_class": 5}, "per_class goes with source unused, not with holdout"),
        ({"source": "unused", "share": 0.2}, "share goes with source holdout, not with unused"),
        ({"source": "test", "per_class": 5}, "per_class goes with source unused, not with test"),
    ],
)
def test_keys_of_another_source_of_validation_images(validation, line):
    with pytest.raises(ValidationError, match=line):
        Validation.model_validate(validation)
