"""Made-up finished runs of the five steps, for tests of tables and figures: shapes as in real ones."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from longtail.publish.job import Cell, PublishedJob
from longtail.settings.published import Groups, Table
from longtail.settings.recipe import Recipe

RECIPES = {
    "ce": {"loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}},
    "graloss": {"loss": {"name": "logit_adjusted", "gamma": {"form": "power", "a": 1.0, "b": 2.0}}},
}
METHODS = {
    "CE": {"stage_one": "ce", "stage_two": "joint"},
    "GraLoss": {"stage_one": "graloss", "stage_two": "joint"},
    "CE + cRT": {"stage_one": "ce", "stage_two": "crt"},
    "GLAG": {"stage_one": "graloss", "stage_two": "afg"},
}
# beside them, for figures: what they need is in no other made-up run
EXTRA = {"CE + tau": {"stage_one": "ce", "stage_two": "tau_normalisation"}}
TWO_PHASES = {"Asynchronous": {"stage_one": "asynchronous", "stage_two": "joint"}}
ROWS = [
    {"section": "End-to-end training", "label": "Cross-entropy", "method": "CE"},
    {"section": "End-to-end training", "label": "GraLoss", "method": "GraLoss"},
    {"section": "End-to-end training", "label": "Focal loss"},
    {"section": "End-to-end training", "label": "Logit adjustment"},
    {"section": "Decoupled training", "label": "cRT", "method": "CE + cRT", "printed": False},
    {"section": "Decoupled training", "label": "BBN"},
    {"section": "Data augmentation", "label": "GLAG", "method": "GLAG"},
]
GAIN = {"ce": 0.0, "graloss": 0.05, "joint": 0.0, "tau_normalisation": 0.06, "crt": 0.08, "afg": 0.12}
EPOCHS = 40
# Of each phase of a recipe (they share the epochs) what it measured of its gradients: the cosines of total
# and data-rich, total and data-poor, data-rich and data-poor; then standard deviation / mean of the norms of
# total, data-rich, data-poor. None: not defined.
Phases = dict[str, tuple[float | None, ...]]
GRADIENTS: dict[str, Phases] = {
    "ce": {"train": (0.93, 0.41, 0.05, 0.31, 0.35, 0.60)},
    "graloss": {"train": (0.35, 0.80, -0.28, 0.50, 0.30, 0.50)},
    "asynchronous": {
        "train": (1.0, None, None, 0.20, 0.20, None),
        "poor": (0.70, 0.70, -0.02, 0.30, 0.20, 0.20),
    },
}


def counts(ratio: float, classes: int = 100, largest: int = 500) -> list[int]:
    """The exponential profile."""
    return [int(largest * (1 / ratio) ** (label / (classes - 1))) for label in range(classes)]


def table(**changes: Any) -> Table:
    """Table 2 with a few rows."""
    block = {"caption": "Top-1 accuracy on CIFAR-100-LT", "printed": "table2", "rows": ROWS}
    return Table.model_validate(block | changes)


def job(folder: Path, settings: Any, kind: str = "table", **changes: Any) -> PublishedJob:
    """A job over made-up runs, which are written below the folder."""
    ratios, seeds = changes.pop("ratios", (100.0,)), changes.pop("seeds", (0, 1, 2))
    methods, facts = changes.pop("only", METHODS), changes.pop("facts", {})
    size = changes.pop("size", {})
    subsets = changes.pop("subsets", (0,))
    gradients = changes.pop("gradients", GRADIENTS)
    parts = METHODS | EXTRA | changes.get("methods", {})
    files = {name: changes.pop(name, name == "predictions") for name in ("predictions", "features")}
    known: dict[str, Any] = {
        "name": kind if kind != "table" else "table2",
        "kind": kind,
        "settings": settings,
        "dataset": "cifar100",
        "groups": Groups(),
        "validation": "unused training images (+20 a class for selection)",
        "cells": [
            cell(folder / "runs", method, parts[method], ratio, subset, seed, facts, size, files, gradients)
            for method in methods
            for ratio in ratios
            for subset in subsets
            for seed in seeds
        ],
        "recipes": {name: Recipe.model_validate(recipe) for name, recipe in RECIPES.items()},
        "methods": METHODS,
        "folder": folder / "published",
    }
    result = PublishedJob(**(known | changes))
    result.folder.mkdir(parents=True, exist_ok=True)
    return result


def cell(
    root: Path,
    method: str,
    parts: dict[str, str],
    ratio: float,
    subset: int,
    seed: int,
    facts: dict[str, Any],
    size: dict[str, int],
    files: dict[str, bool],
    gradients: dict[str, Phases],
) -> Cell:
    """One cell with its runs; `facts` replaces what its run.json says."""
    recipe, classifier = parts["stage_one"], parts["stage_two"]
    train = counts(ratio, **size)
    random = np.random.default_rng([seed, int(ratio), *method.encode(), *[subset] * (subset > 0)])
    runs = {
        "split": root / f"split-{ratio:g}-{subset}",
        "stage_one": root / f"{recipe}-{ratio:g}-{subset}-{seed}",
        "features": root / f"{recipe}-{ratio:g}-{subset}-{seed}-features",
        "stage_two": root / f"{method}-{ratio:g}-{subset}-{seed}",
    }
    for run in runs.values():
        run.mkdir(parents=True, exist_ok=True)
    _lines(runs["split"] / "counts.csv", [
        {"label": label, "name": f"class{label}", "train": n, "validation": 20, "test": 100}
        for label, n in enumerate(train)
    ])  # fmt: skip
    gain = GAIN.get(recipe, 0.0)
    _history(runs["stage_one"] / "history.csv", gain, gradients.get(recipe, {}), seed, random)
    gain += GAIN[classifier]
    (runs["stage_one"] / "metrics.json").write_text(json.dumps({"test": {}}), "utf-8")
    shares = 0.16 * np.log(np.array(train)) - 0.22 + gain * np.linspace(-0.6, 1.8, len(train))
    right = (100 * (shares + random.normal(0, 0.09, len(train)))).clip(0, 96).round()
    metrics = {
        "n": 100 * len(train),
        "accuracy": float(right.sum() / (100 * len(train))),
        "per_class": [float(value) / 100 for value in right],
        "per_class_n": [100] * len(train),
        "expected_calibration_error": float(random.uniform(0.1, 0.3)),
    }
    measured = {"test": metrics, "validation": {"selection_accuracy": metrics["accuracy"] + 0.03}}
    (runs["stage_two"] / "metrics.json").write_text(json.dumps(measured), "utf-8")
    if files["predictions"]:
        save_file(_predictions(right.astype(int), random), runs["stage_two"] / "predictions.safetensors")
    slope = {"joint": 0.2, "crt": -0.05}.get(classifier, 0.1)
    lengths = np.array(train, np.float32)[:, None] ** slope
    directions = _centres(len(train)) / np.linalg.norm(_centres(len(train)), axis=1, keepdims=True)
    tensors = {"weight": (lengths * directions).astype(np.float32)}
    tensors |= {"bias": np.zeros(len(train), np.float32), "tukey": np.array(1, np.float32)}
    if classifier == "tau_normalisation":
        _lines(runs["stage_two"] / "history.csv", [
            {"tau": tau / 10, "validation": 0.4 - (tau / 10 - 0.7) ** 2 / 9 + random.normal(0, 1e-3)}
            for tau in range(21)
        ])  # fmt: skip
    else:
        _lines(runs["stage_two"] / "history.csv", [{"epoch": 1, "validation": 0.4}])
    if files["features"]:
        _features(runs["features"], np.array(train), random)
    if classifier == "afg":
        tensors |= _confidences(np.array(train), random)
    save_file(tensors, runs["stage_two"] / "classifier.safetensors")
    info = {
        "facts": {"device": "NVIDIA H200", "precision": "bf16"} | facts.get(method, {}),
        "packages": {"torch": "2.14.1"},
        "settings": {"method": {"name": classifier}},
    }
    return Cell(method, f"exp{ratio:g}", ratio, subset, seed, runs, dict.fromkeys(runs, info))


def _predictions(right: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Logits by which so many of each class's 100 test images are right, in a shuffled order of images."""
    classes = len(right)
    labels = np.arange(classes).repeat(100)
    answers = np.where(np.tile(np.arange(100), classes) < right.repeat(100), labels, (labels + 1) % classes)
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), answers] = 3
    order = random.permutation(len(labels))
    return {"logits": logits[order], "labels": labels[order], "samples": order}


def _features(folder: Path, train: np.ndarray, random: np.random.Generator) -> None:
    """Features in which the classes are round clouds around corners of a cube, in three views."""
    views, labels = 3, np.arange(len(train))
    centres = _centres(len(train))
    dimensions = centres.shape[1]

    def around(classes: np.ndarray) -> np.ndarray:
        clouds = centres[classes] + random.normal(0, 0.6, (len(classes), dimensions))
        return clouds.clip(0).astype(np.float32)

    own, test = labels.repeat(train), labels.repeat(10)
    save_file({"features": around(test), "labels": test}, folder / "test.safetensors")
    save_file({"features": around(test), "labels": test}, folder / "validation.safetensors")
    save_file({"features": around(own), "labels": own}, folder / "train.safetensors")
    made = np.stack([around(own) for _ in range(views)])
    logits = np.zeros((*made.shape[:2], len(train)), np.float32)
    save_file({"features": made, "logits": logits, "labels": own}, folder / "views.safetensors")
    head = {"weight": np.zeros((len(train), dimensions), np.float32)}
    save_file({**head, "bias": np.zeros(len(train), np.float32)}, folder / "head.safetensors")


def _centres(classes: int) -> np.ndarray:
    """Where the features of each class lie."""
    return np.random.default_rng(0).uniform(2, 8, (classes, 8))


def _history(file: Path, gain: float, gradients: Phases, seed: int, random: np.random.Generator) -> None:
    rows = []
    [own] = random.spawn(1)
    names = list(gradients) or ["train"]
    for epoch in range(1, EPOCHS + 1):
        progress = epoch / EPOCHS
        measured = epoch % 5 == 0
        phase = names[(epoch - 1) * len(names) // EPOCHS]
        values = gradients.get(phase)
        rows.append({
            "phase": phase,
            "epoch": epoch, "step": 85 * epoch, "learning_rate": 0.1, "gamma": progress**2,
            **(_gradients(values, progress, own, seed, empty=epoch % 4 != 1) if values else {}),
            "train_loss": 3.6 - 2.2 * progress - gain + random.normal(0, 0.04),
            "train_accuracy": 0.1 + 0.5 * progress,
            "test_accuracy": 0.1 + (0.3 + gain) * progress + random.normal(0, 0.01) if measured else "",
            "validation_accuracy": "",
        })  # fmt: skip
    _lines(file, rows)


def _gradients(
    values: tuple[float | None, ...], progress: float, random: np.random.Generator, seed: int, empty: bool
) -> dict[str, float | str]:
    """An epoch's columns on gradients, empty where they are not measured.

    Cosines drift by 0.05 over the epochs. A seed more puts the total's 0.04 nearer to data-rich and 0.04
    farther from data-poor; the values are those of seed 1. Norms of the head vary more than the backbone's.
    """
    columns: dict[str, float | str] = {}
    for part, more in (("backbone", 1.0), ("head", 1.2)):
        turns = {"total_rich": seed - 1, "total_poor": 1 - seed, "rich_poor": 0}
        for (pair, turn), cosine in zip(turns.items(), values[:3], strict=True):
            change = 0.05 * (progress - 0.5) + 0.04 * turn + random.normal(0, 0.01)
            undefined = empty or cosine is None
            columns[f"gradient_{part}_cosine_{pair}"] = "" if undefined else min(1.0, cosine + change)
        more *= random.normal(1, 0.03)
        norms = {"total": 2.0, "rich": 1.8, "poor": 0.6}
        for (term, norm), share in zip(norms.items(), values[3:], strict=True):
            undefined = empty or share is None
            columns[f"gradient_{part}_norm_{term}"] = "" if undefined else norm
            columns[f"gradient_{part}_variance_{term}"] = "" if undefined else (more * share * norm) ** 2
    return columns


def _confidences(train: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    moves = random.choice([-1, 0, 1], (EPOCHS, len(train)), p=[0.3, 0.3, 0.4])
    drift = np.where(train < 20, 0.01, -0.004) + 0.05 * moves
    path = np.concatenate([np.full((1, len(train)), 0.4), 0.4 + drift.cumsum(0)]).clip(0, 1)
    tail = train <= 100
    return {"confidences": np.where(tail, path, np.nan).astype(np.float32), "tail": tail}


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
