"""The stages of DVC for a settings file: those of dvc.yaml, with what is the file's own in place."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from longtail import cli
from longtail.data import manifest
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
        keys, written_there = set(stage["params"]["mine.yaml"]), set(yaml.safe_load(MODEL))
        published = "models" in own["params"]  # what is published depends on all of the file, which [] means
        assert keys == (set() if published else set(own["params"]) & written_there)
        checked = int(key == "acquire")  # of pictures, which are not there
        assert len(stage["deps"]) == len(own["deps"]) - checked, name
    assert found["stage_two"]["outs"] == ["results/mine/stage_two"]
    assert found["models@best"]["cmd"].endswith(" -- results/mine/models/best/model.safetensors")


def test_a_table_that_is_added_has_a_stage_by_itself():
    written()
    table = json.dumps({"caption": "c", "rows": [{"section": "s", "label": "l", "method": "CE"}]})
    Path("mine.yaml").write_text(MODEL.replace("tables:\n", f"tables:\n  more: {table}\n"))
    assert {"tables@table2", "tables@more"} <= set(stages())


def test_a_key_that_is_added_makes_what_is_published_anew(tmp_path):
    """DVC, with Snakemake replaced by a command that makes nothing new."""
    from dvc.repo import Repo

    written()
    Repo.init(no_scm=True).close()
    file = file_of("mine")
    stages = yaml.safe_load(file.read_text())["stages"]
    one = {**stages["report"], "cmd": "mkdir -p results/mine && touch results/mine/report.html", "deps": []}
    one["outs"] = ["results/mine/report.html"]
    file.write_text(yaml.safe_dump({"stages": {"report": one}}))
    with Repo() as repo:
        repo.reproduce(str(file))
        assert repo.status([str(file)]) == {}
        Path("mine.yaml").write_text(MODEL + "license: MIT\n")
        assert list(repo.status([str(file)])) == [f"{file}:report"]


def test_files_that_settings_name_by_path_are_dependencies_of_what_reads_them(tmp_path):
    for name in ("a.pth", "counts.txt"):
        Path(name).write_text("5\n3\n")
    settings = yaml.safe_load(MODEL)
    network = {"name": "resnet", "architecture": "resnet10", "pretrained": "a.pth"}
    settings["stage_one"]["ce"]["network"] = network
    settings["figures"]["class_counts"] = {
        "datasets": [{"label": "Ours", "numbers": str(tmp_path / "counts.txt")}]
    }
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    written()
    found = stages()
    assert "a.pth" in found["stage_one"]["deps"]
    assert "counts.txt" in found["figures"]["deps"]


@pytest.mark.parametrize("checked", [False, True])
def test_published_lists_are_dependencies_and_their_check_where_there_was_one(checked):
    Path("lists").mkdir()
    for part in ("train", "test"):
        Path(f"lists/{part}.txt").write_text("a/0.jpg 0\nb/0.jpg 1\n")
    settings = yaml.safe_load(MODEL)
    data = {
        "kind": "list",
        "root": "pictures",
        "train": "lists/train.txt",
        "test": str(Path("lists/test.txt").resolve()),
    }
    settings |= {"dataset": "places", "data": data, "imbalance": {"profile": "natural"}}
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    if checked:
        Path("pictures").mkdir()
        manifest.write("places", [])
    written()
    deps = stages()["acquire"]["deps"]
    assert {"lists/train.txt", "lists/test.txt"} <= set(deps)
    assert ("data/checked/places" in deps) == checked


def test_stages_with_outputs_of_those_of_another_file_are_refused():
    text = MODEL.replace("table2:", "mine2:").replace("  k: {method", "  mine_k: {method")
    Path("mine.yaml").write_text(text + "tables_in: results\n")
    written()
    Path("other.yaml").write_text(text + "tables_in: results\n")
    params = Params.load("other.yaml")
    with pytest.raises(UserError, match=r"other\.yaml: mine2 in results is a table of mine\.yaml too"):
        pipeline(params, plan(params, "other.yaml"))
    Path("other.yaml").write_text(text)  # publishes in results/other
    written("other.yaml")
    Path("below").mkdir()
    Path("below/other.yaml").write_text(text)
    params = Params.load("below/other.yaml")
    with pytest.raises(UserError, match=r"pipelines/other/dvc\.yaml: has the stages of other\.yaml; rename"):
        pipeline(params, plan(params, "below/other.yaml"))
    Path("other.yaml").unlink()
    written("below/other.yaml")


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
