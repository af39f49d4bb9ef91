"""How long a stage-two job takes from Python's start to its first step of training.

`python -m benchmarks.startup FOLDER` is such a job: AFG on features that FOLDER has, ended where the first
features of the first epoch are there.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rows import Goal, Row, compared
from benchmarks.side import OURS, Side

PART = "startup"
UNWANTED = ("torchvision", "matplotlib", "snakemake", "sklearn", "pandas", "torch._dynamo")


def prepare(folder: Path, divisor: int = 1) -> None:
    """What the steps `split` and `features` leave for stage two; a divisor makes all classes smaller."""
    from safetensors.torch import save_file
    from torch import Tensor

    from benchmarks import data
    from benchmarks.stage_two import feature_data

    counts = (data.cifar_counts() // divisor).clamp_min(1)
    known = feature_data(counts)
    rows = "".join(f"{label},{count}\n" for label, count in enumerate(counts.tolist()))
    (folder / "counts.csv").write_text(f"class,train\n{rows}", "utf-8")

    def part(features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = features @ known.head_weight.T + known.head_bias
        samples = labels.new_tensor(range(len(labels)))
        return {"features": features, "logits": logits, "labels": labels, "samples": samples}

    views = {"features": known.views, "logits": known.view_logits, "labels": known.labels}
    save_file(views, folder / "views.safetensors")
    save_file({"weight": known.head_weight, "bias": known.head_bias}, folder / "head.safetensors")
    save_file(part(known.clean, known.labels), folder / "train.safetensors")
    for name in ("validation", "test"):
        save_file(part(known.validation, known.validation_labels), folder / f"{name}.safetensors")


def job(folder: Path) -> None:
    """Start as the command `longtail` does, and stop at the first step."""
    from longtail import cli  # noqa: F401 - as the command's first import
    from longtail.runs.job import Job
    from longtail.runs.leases import lease
    from longtail.settings.classifier import StageTwoSettings

    settings = StageTwoSettings.model_validate({"method": {"name": "afg"}, "seed": 0})
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    with lease():
        from longtail.stage_two import fitting
        from longtail.stage_two.linear import LinearTraining

        def stop(training: LinearTraining, features: Any, *_: object) -> None:
            next(iter(features))
            loaded = [name for name in UNWANTED if name in sys.modules]
            (folder / "first_step.json").write_text(json.dumps(loaded))
            os._exit(0)

        # where all features of an epoch are made before it, its training begins in `epoch`
        setattr(LinearTraining, "train" if hasattr(LinearTraining, "train") else "epoch", stop)
        fitting.compute(
            Job(
                step="stage_two",
                run="benchmark",
                settings=settings,
                inputs={"features": folder, "split": folder},
                folder=outputs,
                scratch=outputs,
            )
        )
    sys.exit("stage two ended without a step")


def prepared(folder: str) -> object:
    """A target: the folder's files."""
    return lambda: prepare(Path(folder))


def rows(quick: bool) -> list[Row]:
    """The part's figures."""
    with tempfile.TemporaryDirectory() as name:
        with Side("benchmarks.startup:prepared", {}, {"folder": name}) as side:
            side.measure()
        words = [sys.executable, "-m", "benchmarks.startup", name]
        with Side("benchmarks.side:command", OURS, {"words": words, "folder": str(Path.cwd())}) as side:
            side.measure()
            samples = [side.measure() for _ in range(1 if quick else 7)]
        loaded = json.loads((Path(name) / "first_step.json").read_text())
    made = Row(
        PART,
        "a stage-two job, from Python's start to the first step",
        "s",
        goal=Goal("ours", 3.5, 1.0),
        note=f"imports {', '.join(loaded) or 'none of ' + ', '.join(UNWANTED)}; "
        f"on the clock {median(sample.wall for sample in samples):.1f} s",
        load=median(sample.load for sample in samples),
        peak_mb=max(sample.peak_mb for sample in samples),
    )
    return [compared(made, [sample.cpu for sample in samples])]


if __name__ == "__main__":
    job(Path(sys.argv[1]))
