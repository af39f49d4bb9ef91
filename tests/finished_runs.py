"""Finished runs on handwritten digits, made by the steps themselves in seconds; stage one is not trained."""

from typing import Any

import torch
from safetensors.torch import save_file

from longtail.orchestration import execute as run
from longtail.runs import store
from longtail.runs.identity import digest, file_digest
from longtail.runs.steps import settings_of_step
from longtail.settings.recipe import Recipe
from longtail.stage_one.networks.resnet_cifar import build

NETWORK = {"name": "resnet_cifar", "depth": 8, "width": 4}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "joint": {},
    "crt": {"epochs": 2},
    "tau_normalisation": {"tau": 0.7},
    "ncm": {},
    "lws": {"epochs": 2},
    "afg": {"generation_epochs": 2, "alpha": 0.0, "k": 2},
}


class Project:
    """A folder with a store of finished runs; the current folder while they are made and read."""

    def __init__(self) -> None:
        self.raw = self.compute("acquire", "digits", {"dataset": "digits", "root": None, "download": False})
        split = {
            "dataset": "digits",
            "imbalance": {"profile": "exponential", "ratio": 10.0},
            "validation": {"source": "unused", "per_class": 20},
            "subset_seed": 0,
        }
        self.split = self.compute("split", "digits-exp10", split, acquire=self.raw)

    def compute(
        self, step: str, label: str, settings: dict[str, Any], **inputs: dict[str, str]
    ) -> dict[str, str]:
        """Compute a run into the store; what later steps refer to it by."""
        told = {at: reference["identity"] for at, reference in inputs.items()}
        identity = digest([step, label, settings, told])
        name = label if step == "acquire" else f"{label}-{identity[:8]}"
        resolved = settings_of_step(step, settings).resolved()
        planned = {"step": step, "run": name, "identity": identity, "settings": resolved, "inputs": inputs}
        if step == "stage_one":
            self.untrained(planned, resolved)
        else:
            run.compute({**planned, "code": "", "modules": []})
        return {"run": name, "identity": identity, "folder": f"results/{step}/{name}"}

    def untrained(self, planned: dict[str, Any], settings: dict[str, Any]) -> None:
        """Stage one's network as it is drawn, with batch normalisation that is not the identity."""
        recipe = Recipe.model_validate(settings["recipe"])
        torch.manual_seed(settings["seed"])
        network = build(recipe.network.options, 1, 10)  # type: ignore[arg-type]
        for name, tensor in network.state_dict().items():
            if "running" in name:
                tensor.uniform_(0.2, 0.6)
        folder = store.scratch("stage_one", planned["run"])
        folder.mkdir(parents=True)
        save_file(network.state_dict(), folder / "model.safetensors")
        record = {
            **{key: planned[key] for key in ("step", "run", "identity", "settings")},
            "inputs": {at: reference["identity"] for at, reference in planned["inputs"].items()},
            "outputs": {"model.safetensors": file_digest(folder / "model.safetensors")},
            "code": {"commit": None},
            "packages": {},
            "facts": {"epochs": 0, "device": "none", "precision": "float32"},
        }
        store.write_json(folder / "run.json", record)
        store.keep(folder, "stage_one", planned["run"])

    def features(self, label: str, network: dict[str, Any], **changes: Any) -> dict[str, str]:
        """Features of an untrained network."""
        recipe = {
            "network": network,
            "loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}},
            "schedule": {"epochs": 1},
            "learning_rate": {"peak": 0.1},
            "augmentation": {"crop": 1, "flip": False, "autoaugment": "none", "cutout": 0},
        }
        inputs = {"acquire": self.raw, "split": self.split}
        settings = {"dataset": "digits", "recipe": recipe, "seed": 0, "precision": "float32"}
        trained = self.compute("stage_one", label, settings, **inputs)
        extraction = {
            "dataset": "digits",
            "views": 1,
            "network": network,
            "augmentation": recipe["augmentation"],
            "batch_size": 64,
            "seed": 0,
            "precision": "float32",
            **changes,
        }
        return self.compute("features", label, extraction, **inputs, stage_one=trained)

    def classifier(self, label: str, features: dict[str, str], method: dict[str, Any]) -> str:
        """The name of a run of stage two."""
        made = self.compute(
            "stage_two", label, {"method": method, "seed": 0}, features=features, split=self.split
        )
        return made["run"]


def make() -> dict[str, str]:
    """Runs of stage two in the current folder: their names by what is special about them."""
    project = Project()
    linear = project.features("linear", NETWORK)
    runs = {
        method: project.classifier(f"linear-{method}", linear, {"name": method, **settings})
        for method, settings in CLASSIFIERS.items()
    }
    runs["tukey"] = project.classifier("linear-tukey", linear, {"name": "free_lunch"})
    cosine = project.features("cosine", {**NETWORK, "head": "cosine", "scale": 16.0})
    runs["cosine"] = project.classifier("cosine-joint", cosine, {"name": "joint"})
    pooled = project.features("bfr", {**NETWORK, "head": "cosine", "scale": 32.0, "pooling": "bfr"})
    runs["bfr"] = project.classifier("bfr-joint", pooled, {"name": "joint"})
    moved = project.features("moved", NETWORK, batchnorm="train")
    runs["moved"] = project.classifier("moved-crt", moved, {"name": "crt", "epochs": 1})
    half = project.features("half", NETWORK, precision="bf16")
    runs["half"] = project.classifier("half-joint", half, {"name": "joint"})
    whole = project.features("whole", NETWORK, whole=True)
    runs["whole"] = project.classifier("whole-whole", whole, {"name": "whole", "epochs": 1})
    return runs
