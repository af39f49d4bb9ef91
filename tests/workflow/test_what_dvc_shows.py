"""What DVC shows of finished results, and settings files of one's own under DVC as params.yaml is."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.tiny import TINY
from tests.workflow.conftest import Project, shuffle_times

pytestmark = pytest.mark.workflow
PIPELINE = "pipelines/mine/dvc.yaml"
SNAKEMAKE = ("snakemake", "-n", "--config", "params=mine.yaml")
MINE = TINY.replace("alpha: 0.0", "alpha: 0.3").replace("models: {}", "models: {best: {table: table2}}")


def shown(project: Project, results: str) -> dict:
    """What the three commands show of the results of a settings file."""
    whole = json.loads(project.run("dvc", "metrics", "show", "--json"))
    metrics = whole[""]["data"][f"{results}/metrics.json"]["data"]
    runs = pd.read_csv(project.path / results / "runs.csv")
    tested = runs[(runs["split"] == "test") & (runs["method"] == "GLAG")]
    assert metrics["GLAG"]["exp10"]["accuracy"] == pytest.approx(tested["accuracy"].mean())
    assert set(metrics) >= {"CE", "cRT", "GraLoss", "GLAG"}

    out = project.run("dvc", "plots", "show", "--out", "shown")
    page = (project.path / "shown/index.html").read_text()
    assert "failed" not in out
    for words in (f"{results}_table2_csv", f"{results}_curves_csv"):
        assert words.replace("/", "_") in page
    assert '"recipe": "graloss"' in page
    assert '"title": "mean accuracy, %"' in page
    return metrics


def test_metrics_plots_and_experiments_of_params_yaml(project):
    metrics = shown(project, "results")
    table = pd.read_csv(project.path / "results/table2.csv").set_index("method")
    for method in ("CE", "GLAG"):
        assert 100 * metrics[method]["exp10"]["accuracy"] == pytest.approx(table["mean"][method], abs=0.01)
    rows = project.run("dvc", "exp", "show", "--csv").splitlines()
    assert "GLAG.exp10.accuracy" in rows[0].split(",")
    assert "stage_two.afg.alpha" in rows[0].split(",")
    assert f"{metrics['GLAG']['exp10']['accuracy']}"[:6] in rows[1]
    project.edit("params.yaml", "alpha: 0.0", "alpha: 0.1")
    project.run("dvc", "repro", "-q")
    changed = json.loads(project.run("dvc", "metrics", "diff", "--json"))["results/metrics.json"]
    assert {name.split(".")[0] for name in changed} <= {"GLAG", "sweeps/k/k2", "sweeps/k/GLAG"} | {
        name for name in json.loads((project.path / "results/metrics.json").read_text()) if "sweep" in name
    }


def test_own_settings_are_under_dvc_as_params_yaml_is(project, built, tmp_path):
    before = project.stored()
    (project.path / "mine.yaml").write_text(MINE)
    project.run("longtail", "pipeline", "--params", "mine.yaml")
    project.commit("settings")
    project.run("dvc", "repro", PIPELINE)
    made = project.stored()
    # the runs of params.yaml serve; AFG's is new, and the sweep's one point is that run
    assert sorted(run.split("/")[0] for run in made.keys() - before.keys()) == ["stage_two"]
    assert "Nothing to be done" in project.run(*SNAKEMAKE)
    assert "Running stage" not in project.run("dvc", "repro", PIPELINE)
    assert (project.path / "results/mine/models/best/model.onnx").is_file()
    project.commit("results")
    assert project.table() == built.table()
    shown(project, "results/mine")

    project.run("dvc", "push", "-q")
    subprocess.run(["git", "clone", "-q", str(project.path), str(tmp_path / "clone")], check=True)
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    shuffle_times(clone.path)
    assert "Nothing to be done" in clone.run(*SNAKEMAKE)
    clone.run("dvc", "repro", PIPELINE)
    assert clone.stored() == {}
    assert clone.git("status", "--porcelain") == ""

    table = (project.path / "results/mine/table2.csv").read_text()
    project.run("dvc", "exp", "run", "-q", "-n", "wider", "-S", "mine.yaml:stage_two.afg.k=3", PIPELINE)
    assert "k: 3" in (project.path / "mine.yaml").read_text()
    tried = (project.path / "results/mine/table2.csv").read_text()
    assert tried != table
    project.git("checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-f", "-q")
    assert (project.path / "results/mine/table2.csv").read_text() == table
    project.run("dvc", "exp", "apply", "-q", "wider")
    assert (project.path / "results/mine/table2.csv").read_text() == tried
    assert "wider" in project.run("dvc", "exp", "show", "--csv")
    assert Path(project.path / "dvc.lock").read_bytes() == (built.path / "dvc.lock").read_bytes()
