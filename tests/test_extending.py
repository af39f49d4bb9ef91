"""docs/how-to/add-a-method.md does what it says: its blocks, in a copy of the package, run on tiny data."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from longtail.settings.reading import parse

PAGE = "docs/how-to/add-a-method.md"
TINY = """\
dataset: digits
imbalance: {profile: exponential, ratios: [10]}
precision: float32
training:
  network: {name: resnet_cifar, depth: 8, width: 4}
  batch_size: 64
  schedule: {epochs: 1}
  learning_rate: {peak: 0.1}
  augmentation: {crop: 1, flip: false, autoaugment: none, cutout: 0}
  evaluate_every: 0
features: {views: 1}
"""
RUN = """\
import json, sys
from longtail.orchestration import execute, publishing
from longtail.orchestration.planner import plan
from longtail.settings.params import Params

planned = plan(Params.load("params.yaml"))
planned.write()
for one in planned.everything():
    execute.execute(one.step, one.name)
for item in planned.tables.values():
    publishing.execute(item.kind, item.name, item.identity[:16])
print(json.dumps({step: list(planned.runs(step)) for step in ("stage_one", "stage_two")}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, root) -> Path:
    """A copy of the package with the page's files in it, and params.yaml with the page's entries."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(root / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", (root / PAGE).read_text("utf-8"), re.DOTALL)
    settings = {**parse(TINY), "stage_two": {"joint": {}}}
    for language, text in blocks:
        if language == "python":
            file = folder / text.partition("\n")[0].removeprefix("# ")
            assert not (root / file.relative_to(folder)).exists(), f"{file} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.partition("\n")[2], "utf-8")
        else:
            for key, entries in parse(text).items():
                settings[key] = {**settings.get(key, {}), **entries}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def run(project: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_tests_pass(project):
    out = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "tests")
    assert "9 passed" in out


def test_the_pages_code_is_as_the_projects(project, root):
    for check in (["ruff", "check"], ["ruff", "format", "--check"]):
        run(project, "-m", *check, "--config", str(root / "pyproject.toml"), "src", "tests")


def test_the_pages_entries_run_and_stand_in_a_table(project):
    runs = json.loads(run(project, "-c", RUN).splitlines()[-1])
    assert [name.rpartition("-")[0] for name in runs["stage_one"]] == [
        "digits-exp10-poly-seed0",
        "digits-exp10-ce_inverse-seed0",
        "digits-exp10-ce_two_views-seed0",
        "digits-exp10-ce_mirrored.train-seed0",
        "digits-exp10-ce_mirrored-seed0",
    ]
    assert len(runs["stage_two"]) == 5 + 2  # five rows, and two points of the sweep
    with (project / "results/mine.csv").open(newline="", encoding="utf-8") as file:
        rows = {line["method"]: line for line in csv.DictReader(file)}
    assert list(rows) == ["Poly-1", "Inverse sampling", "Two views", "Mirrored", "Poly-1 + ridge"]
    assert all(0 < float(line["mean"]) < 100 for line in rows.values())
    ridge = rows["Poly-1 + ridge"]
    gain = float(ridge["mean"]) - float(rows["Poly-1"]["mean"])
    assert float(ridge["difference_to_it"]) == pytest.approx(gain, abs=0.011)
    assert float(ridge["interval_low"]) <= gain + 0.011
    assert ridge["interval_over"] == "test images"
    with (project / "results/sweeps/ridge_strength.csv").open(newline="", encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert [point["strength"] for point in points] == ["0.001", "0.1"]
    assert all(0 < float(point["validation"]) < 100 for point in points)
