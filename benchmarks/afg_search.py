"""AFG's open keys, searched on validation images: moved alone from the defaults and together, several seeds.

    python -m benchmarks.afg_search [SETTINGS]

reads the features that SETTINGS (workflow/settings/cifar100-200-epochs.yaml) plan for GLAG, and those of
MiSLAS, which are made with the batch's statistics in place of the running ones ("shifted"), and writes
benchmarks/afg_search.csv. The score is the mean accuracy of the classes with a full number of validation
images; the test set is not read. The seeds are stage two's: stage one, the subset and the validation images
are the same in every row.
"""

import csv
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from longtail.device import set_up
from longtail.orchestration.planner import plan
from longtail.orchestration.run import reference
from longtail.runs.lookup import locate
from longtail.settings.params import Params
from longtail.stage_two.afg import Settings, fit
from longtail.stage_two.classifier import FeatureData, selection_score
from longtail.stage_two.fitting import read_features

SETTINGS = Path("workflow/settings/cifar100-200-epochs.yaml")
METHOD, SHIFTED = "GLAG", "GraLoss + MiSLAS"
SEEDS = (0, 1, 2)
OUT = Path(__file__).with_suffix(".csv")
SCRATCH = {"init": "random", "learning_rate": {"peak": 0.1}, "kd": {"on": "real"}}
FASTER = {"learning_rate": {"peak": 0.03}, "batch_size": 512}
FIXED = {"confidence": {"update": "fixed"}}
TRIED: dict[str, Mapping[str, Any]] = {
    "default": {},
    "k 1": {"k": 1},
    "k 3": {"k": 3},
    "alpha 0.1": {"alpha": 0.1},
    "tail_max 20": {"tail_max": 20},
    "tail_max 499": {"tail_max": 499},
    "covariance neighbours": {"covariance": "neighbours"},
    "weight_size log_count": {"weight_size": "log_count"},
    "confidence 0.2": {"confidence": {"initial": 0.2}},
    "confidence 0.6": {"confidence": {"initial": 0.6}},
    "confidence 0 fixed": {"confidence": {"initial": 0.0, "update": "fixed"}},
    "confidence 0.4 fixed": {"confidence": {"update": "fixed"}},
    "confidence step 0.02": {"confidence": {"step": 0.02}},
    "confidence step 0.1": {"confidence": {"step": 0.1}},
    "confidence baseline stage_one": {"confidence": {"baseline": "stage_one"}},
    "kd none": {"kd": {"on": "none"}},
    "kd real": {"kd": {"on": "real"}},
    "kd convex": {"kd": {"mixing": "convex"}},
    "kd temperature 2": {"kd": {"temperature": 2.0}},
    "rate 0.003": {"learning_rate": {"peak": 0.003}},
    "rate 0.03": {"learning_rate": {"peak": 0.03}},
    "rate 0.1": {"learning_rate": {"peak": 0.1}},
    "batch 512": {"batch_size": 512},
    "random start, rate 0.1, kd real": SCRATCH,
    "the same, lambda 0.5": {**SCRATCH, "tukey": {"lambda": 0.5}},
    "rate 0.03, batch 512": FASTER,
    "confidence 0.6 fixed": {"confidence": {"initial": 0.6, "update": "fixed"}},
    "rate 0.03, batch 512, confidence 0.4 fixed": {**FASTER, **FIXED},
    "kd gamma constant 0.5": {"kd": {"gamma": {"form": "constant", "a": 0.5}}},
    "kd gamma constant 1": {"kd": {"gamma": {"form": "constant", "a": 1.0}}},
    "kd gamma twice as strong": {"kd": {"gamma": {"form": "power", "a": 2.0, "b": 2.0}}},
    "lambda 0.25, mapped back": {"tukey": {"lambda": 0.25, "map_back": True}},
    "lambda 0.5, mapped back": {"tukey": {"lambda": 0.5, "map_back": True}},
    "lambda 0.75, mapped back": {"tukey": {"lambda": 0.75, "map_back": True}},
    "shifted": {},
    "shifted, kd none": {"kd": {"on": "none"}},
    "shifted, rate 0.03, batch 512": FASTER,
    "shifted, rate 0.03, batch 512, confidence 0.4 fixed": {**FASTER, **FIXED},
}


def features(settings: Path, method: str) -> FeatureData:
    """Those of the method's first run."""
    cells = [cell for table in plan(Params.load(settings), settings).tables.values() for cell in table.cells]
    runs = next(cell.runs for cell in cells if cell.method == method)
    folder, split = (locate(step, reference(runs[step])) for step in ("features", "split"))
    return read_features(folder, split)


def score(data: FeatureData, options: Mapping[str, Any], seed: int) -> float:
    """Validation score in percent after the last epoch."""
    fitted = fit(data, Settings.model_validate(options), seed, lambda done, total, note: None)
    found = selection_score(fitted.logits(data.validation), data.validation_labels, len(data.class_counts))
    return 100 * found


def main() -> None:
    """Search, and write a row a setting, the best mean first."""
    set_up(torch.device("cpu"))
    settings = Path(sys.argv[1]) if len(sys.argv) > 1 else SETTINGS
    running, shifted, found = features(settings, METHOD), features(settings, SHIFTED), {}
    for name, options in TRIED.items():
        data = shifted if name.startswith("shifted") else running
        scores = [score(data, options, seed) for seed in SEEDS]
        found[name] = [statistics.mean(scores), statistics.stdev(scores), *scores]
        print(f"{name:52s} {found[name][0]:.2f} ± {found[name][1]:.2f}", flush=True)
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["setting", "mean", "standard_deviation", *(f"seed_{seed}" for seed in SEEDS)])
        for name in sorted(found, key=lambda name: -found[name][0]):
            writer.writerow([name, *(f"{value:.3f}" for value in found[name])])


if __name__ == "__main__":
    main()
