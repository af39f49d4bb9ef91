"""A page of made-up runs over real picture files, with names that try to act in it."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from longtail.data.file_names import packed
from longtail.publish.job import Cell
from longtail.publish.page import make
from tests import published_runs

HOSTILE = "<script>document.title='taken'</script>"
NAMES = (HOSTILE, '" onmouseover="alert(1)', "a & b", "</table><h1>", "日本語", "plain")
BOLD = "<b>"
FILE = "<img src=x onerror=alert(2)>/1.jpg"
SIZE = {"classes": len(NAMES), "largest": 150}


def cells(folder: Path, pictures: bool = True, **changes: Any) -> list[Cell]:
    """Finished runs of four methods on classes of hostile names, and the run of acquisition beside them."""
    made = published_runs.job(folder, published_runs.table(), size=SIZE, **changes).cells
    raw = folder / "raw"
    raw.mkdir()
    number = 100 * len(NAMES)
    files = [FILE, "grey.png", "gone.jpg", *(f"{BOLD}{place}.jpg" for place in range(3, number))]
    if pictures:
        root = folder / "pictures"
        (root / FILE).parent.mkdir(parents=True)
        colours = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
        Image.fromarray(colours).save(root / FILE)
        Image.fromarray(colours[..., 0]).save(root / "grey.png")
        for name in files[3:]:
            os.link(root / FILE, root / name)
        (root / files[5]).unlink()
        (root / files[5]).write_bytes(b"no picture")
        save_file({"names": packed(files)}, raw / "test.safetensors")
        settings: dict[str, Any] = {"files": {"kind": "folder", "root": str(root)}}
    else:
        import torch

        images = torch.arange(number, dtype=torch.int64).remainder(255).to(torch.uint8)
        save_file(
            {"images": images.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()}, raw / "test.safetensors"
        )
        settings = {"files": None}
    record = {"step": "acquire", "run": "raw", "identity": "0", "outputs": {}, "settings": settings}
    (raw / "run.json").write_text(json.dumps(record))
    for cell in made:
        _rename(cell.runs["split"] / "counts.csv")
    return [replace(cell, runs={**cell.runs, "acquire": raw}) for cell in made]


def _rename(file: Path) -> None:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row, name in zip(rows, NAMES, strict=True):
        row["name"] = name
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def planned(runs: list[Cell], **changes: Any) -> dict[str, Any]:
    """What the plan says of a page of one table, without figures and models."""
    rows = [{**row, "label": HOSTILE} if row["label"] == "cRT" else row for row in published_runs.ROWS]
    table = published_runs.table(rows=rows, against="Cross-entropy", caption=f"Accuracy {HOSTILE}")
    part = {
        "cells": [0, len(runs)],
        "tables": {"table2": table.resolved()},
        "dataset": "cifar100",
        "groups": {"many_above": 100, "few_below": 20},
        "validation": {"source": "unused"},
        "recipes": published_runs.RECIPES,
        "methods": published_runs.METHODS,
    }
    context = {
        "parts": [part],
        "figures": [],
        "models": [],
        "suspects": {"issues": "nowhere/label_issues.csv", "pairs": "nowhere/near_duplicates.csv"},
    }
    return {
        "folder": "results/photos",
        "settings": {"source": "photos.yaml"},
        "identity": "f" * 64,
        "outputs": ["results/photos/index.html"],
        "context": {**context, **changes},
    }


def page(folder: Path, runs: list[Cell], **changes: Any) -> Path:
    """The page, written into a folder that is there; the file."""
    view = make.view(planned(runs, **changes), runs, folder)
    file = folder / "index.html"
    file.write_bytes(make.rendered(view))
    return file
