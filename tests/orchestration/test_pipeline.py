"""The stages of DVC for a settings file: those of dvc.yaml, with what is the file's own in place."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from longtail import cli
from longtail.errors import UserError
from longtail.orchestration.pipeline import file_of, pipeline, remind, under_dvc, what_dvc_lacks
from longtail.orchestration.planner import plan
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from tests.conftest import ROOT
from tests.tiny import TINY

MODEL = TINY.replace("models: {}", "models: {best: {method: GLAG}}")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with the project's dvc.yaml and two settings files."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(TINY.replace("dataset: digits", "dataset: cifar100"))
    (tmp_path / "mine.yaml").write_text(MODEL)


def stages(name: str = "mine") -> dict[str, dict]:
    """The stages as DVC itself reads them, entries in place."""
    from dvc.repo import Repo

    if not Path(".dvc").is_dir():
        Repo.init(no_scm=True).close()
    with Repo() as repo:
        found = {}
        for stage in repo.stage.load_all(str(file_of(name))):
            outs = [out.def_path for out in stage.outs]
            params = {item.def_path: item.params for item in stage.params}
            deps = [item.def_path for item in stage.deps if item.def_path not in params]
            found[stage.name] = {
                "cmd": stage.cmd,
                "outs": outs,
                "deps": deps,
                "params": params,
                "wdir": Path(stage.wdir),
            }
        return found


def written(settings: str = "mine.yaml") -> str:
    cli.main(["pipeline", "--params", settings])
    return file_of(Path(settings).stem).read_text()


def test_every_file_that_the_settings_make_is_an_output_of_a_stage():
    written()
    planned = plan(Params.load("mine.yaml"), "mine.yaml")
    found = stages()
    outs = [out for stage in found.values() for out in stage["outs"]]
    assert len(set(outs)) == len(outs)
    made = [run.folder for step in STEPS for run in planned.runs(step).values()]
    made += [file for item in planned.published() for file in (*item.outputs, item.record)]
    for file in made:
        assert any(file == out or file.startswith(f"{out}/") for out in outs), file
    assert all(out.startswith(("results/mine/", "data/raw/digits")) for out in outs)


def test_a_stage_is_called_and_tracked_by_its_settings_file():
    written()
    main = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = stages()
    assert {name.partition("@")[0] for name in found} == set(main)
    for name, stage in found.items():
        key = name.partition("@")[0]
        own = main[key].get("do", main[key])
        assert stage["cmd"].startswith("snakemake --config params=mine.yaml -- "), name
        assert stage["wdir"].resolve() == Path.cwd()
        assert set(stage["params"]) >= {"mine.yaml"}
        keys = set(stage["params"]["mine.yaml"])
        written_there = set(yaml.safe_load(MODEL))
        assert keys >= set(own["params"]) & written_there
        checked = int(key == "acquire")  # of pictures, which are not there
        assert len(stage["deps"]) == len(own["deps"]) - checked, name
    assert found["stage_two"]["outs"] == ["results/mine/stage_two"]
    assert found["models@best"]["cmd"].endswith(" -- results/mine/models/best/model.safetensors")


def test_a_table_that_is_added_has_a_stage_by_itself():
    written()
    table = json.dumps({"caption": "c", "rows": [{"section": "s", "label": "l", "method": "CE"}]})
    Path("mine.yaml").write_text(MODEL.replace("tables:\n", f"tables:\n  more: {table}\n"))
    assert {"tables@table2", "tables@more"} <= set(stages())


def test_of_a_file_that_is_like_another_both_are_tracked():
    Path("like.yaml").write_text("like: mine.yaml\nseeds: [3]\nprecision: bf16\n")
    written("like.yaml")
    found = stages("like")
    assert set(found["stage_one"]["params"]["like.yaml"]) >= {"seeds", "precision"}
    assert "seeds" in found["stage_one"]["params"]["mine.yaml"]
    assert found["tables@table2"]["outs"][0].startswith("results/like/table2.")


def test_a_dataset_is_the_output_of_one_pipeline_alone():
    written()
    Path("other.yaml").write_text(MODEL)
    written("other.yaml")
    assert "acquire" in stages("mine")
    assert "acquire" not in stages("other")
    assert "data/raw/digits" in stages("other")["split"]["deps"]
    written("mine.yaml")  # its own is not another's
    assert "acquire" in stages("mine")


def test_blocks_that_are_not_there_have_no_stage():
    text = MODEL[: MODEL.index("figures:")]
    Path("bare.yaml").write_text(text)
    written("bare.yaml")
    found = stages("bare")
    assert not {"figures", "models@best", "sweeps@k"} & set(found)
    assert "results/bare/figures" not in found["report"]["deps"]


def test_the_tables_of_a_file_that_publishes_them_in_results_are_there():
    text = MODEL.replace("table2:", "mine2:").replace("  k: {method", "  mine_k: {method")
    Path("mine.yaml").write_text(text + "tables_in: results\n")
    written()
    assert stages()["tables@mine2"]["cmd"].endswith(" -- results/mine2.csv")
    assert stages()["sweeps@mine_k"]["cmd"].endswith(" -- results/sweeps/mine_k.csv")
    assert stages()["frame"]["outs"][0].startswith("results/mine/")


@pytest.mark.parametrize(
    ("file", "line"),
    [("params.yaml", "has its stages in dvc.yaml"), ("../outside.yaml", "lies outside")],
)
def test_settings_that_have_no_pipeline_of_their_own(file, line):
    if file != "params.yaml":
        Path(file).write_text(MODEL)
    params = Params.load(file)
    planned = plan(params, file)
    with pytest.raises(UserError, match=line):
        pipeline(params, planned)


def test_a_pipeline_that_is_not_of_its_settings_any_more_is_said(capsys):
    def said() -> str:
        params = Params.load("mine.yaml")
        remind(params, plan(params, "mine.yaml"))
        return capsys.readouterr().err

    assert said() == ""  # there is none
    written()
    capsys.readouterr()
    assert said() == ""
    Path("mine.yaml").write_text(MODEL.replace("models: {best: {method: GLAG}}\n", ""))
    assert said() == (
        "pipelines/mine/dvc.yaml: is not of these settings any more; `longtail pipeline --params mine.yaml` "
        "writes it anew\n"
    )


MERGED = b"stages:\n<<<<<<< ours\n  a: 1\n"
DAMAGED = {
    "not valid YAML: line 3: ": MERGED,
    "not valid YAML: maximum recursion": b"[" * 5000,
    "line 1 is not UTF-8": b"stages: \xff",
    "has no stages as DVC has them": b"",
    "has no stages as DVC has them; mend": b"stages: {acquire: 3}",
}


@pytest.mark.parametrize("file", ["dvc.yaml", "pipelines/old/dvc.yaml"])
@pytest.mark.parametrize("line", DAMAGED)
def test_damaged_stages_are_a_line_and_a_reminder_of_them_stops_nothing(file, line, capsys):
    written()
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_bytes(DAMAGED[line])
    params = Params.load("mine.yaml")
    planned = plan(params, "mine.yaml")
    with pytest.raises(UserError, match=f"^{file}: {line}"):
        pipeline(params, planned)
    capsys.readouterr()
    remind(params, planned)
    said = capsys.readouterr().err
    assert said.startswith("pipelines/mine/dvc.yaml: whether it is of these settings cannot be said (" + file)
    assert said.count("\n") == 1


def test_a_stage_without_a_command_is_a_line():
    Path("dvc.yaml").write_text("stages: {split: {deps: [], params: []}}")
    params = Params.load("mine.yaml")
    with pytest.raises(UserError, match=r"^dvc.yaml: stages.split needs cmd, deps and params"):
        pipeline(params, plan(params, "mine.yaml"))


def test_settings_outside_the_project_are_reminded_of_and_stop_nothing(capsys):
    written()
    Path("../mine.yaml").write_text(MODEL)
    capsys.readouterr()
    params = Params.load("../mine.yaml")
    remind(params, plan(params, "../mine.yaml"))
    assert "lies outside" in capsys.readouterr().err


def test_what_dvc_needs_is_said_in_order():
    assert what_dvc_lacks() == "DVC needs a repository: type `git init && dvc init` here first"
    subprocess.run(["git", "init", "-q"], check=True)
    assert what_dvc_lacks() == "DVC needs a repository: type `dvc init` here first"
    assert "`dvc init` here first; then `dvc repro pipelines/mine/dvc.yaml`" in under_dvc(Path("mine.yaml"))
    Path(".dvc").mkdir()
    assert what_dvc_lacks() == ""
    assert under_dvc(Path("mine.yaml")) == (
        "DVC: pipelines/mine/dvc.yaml has the stages. `dvc repro pipelines/mine/dvc.yaml` makes them; put "
        "both into git: `git add mine.yaml pipelines/mine`"
    )
    Path("dvc.yaml").unlink()
    assert "there is no dvc.yaml here" in under_dvc(Path("mine.yaml"))
