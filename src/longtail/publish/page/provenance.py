"""Every run behind the page: which it is, where and how it was computed, and what that took."""

from collections.abc import Iterable
from typing import Any

from longtail.publish.job import Cell
from longtail.publish.page.shown import EMPTY, Shown

STEPS = {"stage_one": "Stage one", "features": "Features", "stage_two": "Stage two"}
HEADS = ("seed", "seconds", "device", "precision", "torch", "environments", "commit", "identity")


def provenance(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """A table a step, each run once, in the order of the tables."""
    cells = list(cells)
    return [
        {"title": title, "heads": HEADS, "rows": rows}
        for step, title in STEPS.items()
        if (rows := list(_runs(step, cells).values()))
    ]


def _runs(step: str, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        record = cell.info[step]
        identity = str(record.get("identity"))
        if identity in found:
            continue
        facts, seconds = record.get("facts", {}), record.get("seconds")
        seed = record.get("settings", {}).get("seed")
        shared = f" ({facts['runs_at_once']} at once)" if "runs_at_once" in facts else ""
        found[identity] = {
            "name": str(record.get("run")),
            "cells": [
                EMPTY if seed is None else Shown(str(seed), float(seed)),
                EMPTY if seconds is None else Shown(f"{seconds:,.1f}{shared}", float(seconds)),
                Shown(cell.fact(step, "device")),
                Shown(cell.fact(step, "precision")),
                Shown(cell.package(step, "torch")),
                Shown("; ".join(facts.get("environments", []))),
                Shown(str(record.get("code", {}).get("commit") or "unknown")[:12]),
                Shown(identity),
            ],
        }
    return found
