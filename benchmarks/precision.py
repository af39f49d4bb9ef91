"""bf16 against float32: the paired difference in test accuracy of finished stage-one runs.

    python -m benchmarks.precision

reads the runs that workflow/settings/precision-float32.yaml and precision-bf16.yaml plan, which differ in
precision and nothing else, verifies them, pairs them by imbalance and seed, and writes
benchmarks/precision.json.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.orchestration.run import reference
from longtail.runs.lookup import locate
from longtail.settings.params import Params

SETTINGS = Path("workflow/settings")
OUT = Path(__file__).parent / "precision.json"
CONFIDENCE = 0.95


def accuracies(settings: Path, method: str) -> dict[str, float]:
    """Test accuracy in percent of each stage-one run of a method, by "imbalance, seed".

    Raises:
        UserError: if the settings have no such method, or a run is not there, or damaged.
    """
    tables = plan(Params.load(settings), settings).tables.values()
    cells = [cell for table in tables for cell in table.cells if cell.method == method]
    if not cells:
        raise UserError(f"{settings}: no table has the method {method!r}")
    found = {}
    for cell in cells:
        folder = locate("stage_one", reference(cell.runs["stage_one"]))
        measured = json.loads((folder / "metrics.json").read_text("utf-8"))
        found[f"{cell.imbalance}, seed {cell.seed}"] = 100 * measured["test"]["accuracy"]
    return found


def paired(one: dict[str, float], other: dict[str, float]) -> dict[str, Any]:
    """Differences other - one of equal keys, with mean, standard deviation and Student's interval.

    Raises:
        UserError: if the keys differ or there are fewer than two.
    """
    if set(one) != set(other) or len(one) < 2:
        raise UserError(f"needs the same runs on both sides, two at least: {sorted(one)} and {sorted(other)}")
    differences = {key: other[key] - one[key] for key in one}
    n = len(differences)
    mean = math.fsum(differences.values()) / n
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in differences.values()) / (n - 1))
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return {
        "pairs": n,
        "differences": differences,
        "mean_difference": mean,
        "standard_deviation": deviation,
        "interval": [mean - half, mean + half],
        "confidence": CONFIDENCE,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--float32", type=Path, default=SETTINGS / "precision-float32.yaml", metavar="FILE")
    parser.add_argument("--bf16", type=Path, default=SETTINGS / "precision-bf16.yaml", metavar="FILE")
    parser.add_argument("--method", default="GraLoss")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args(argv)
    try:
        float32 = accuracies(options.float32, options.method)
        bf16 = accuracies(options.bf16, options.method)
        found = paired(float32, bf16)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    for key, difference in found["differences"].items():
        print(f"{key}: float32 {float32[key]:.2f} %, bf16 {bf16[key]:.2f} %, difference {difference:+.2f}")
    low, high = found["interval"]
    print(
        f"mean difference {found['mean_difference']:+.3f} points, standard deviation "
        f"{found['standard_deviation']:.3f}, n = {found['pairs']}, 95 % interval [{low:+.3f}, {high:+.3f}]"
    )
    result = {
        "method": options.method,
        "measure": "test accuracy, %",
        "float32": float32,
        "bf16": bf16,
        **found,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
