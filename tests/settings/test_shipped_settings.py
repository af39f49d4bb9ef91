"""The project's settings files mean what they meant: recorded digests of the runs that each one plans.

shipped_runs.json holds, for each file, the number of its runs, a digest of their steps and hashed settings,
and one of their steps and names without the digits of the identity. It says nothing of code, so a refactoring
leaves it as it is. Where settings are changed on purpose, put the new digests there; the test prints them.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from longtail.orchestration.planner import plan, settings_name
from longtail.runs.identity import canonical
from longtail.settings.params import Params
from longtail.settings.reading import parse
from tests.conftest import ROOT

RECORD = json.loads(Path(__file__).with_name("shipped_runs.json").read_text("utf-8"))
FILES = ["params.yaml", *sorted(file.name for file in (ROOT / "workflow/settings").rglob("*.yaml"))]


def source(name: str) -> Path:
    return ROOT / ("" if name == "params.yaml" else "workflow/settings") / name


def digest(data: Any) -> str:
    return sha256(canonical(data).encode()).hexdigest()


def planned_runs(name: str) -> dict[str, Any]:
    """What the record has of a settings file.

    Files of pictures and their lists are not here: a file that asks for them is planned on a dataset that is,
    and its `data` counts as it stands.
    """
    params = Params.load(source(name))
    data = params.data.resolved()
    if data["kind"] != "published":
        published = Params.model_fields["data"].default
        params = params.model_copy(update={"dataset": "digits", "data": published})
    runs = list(plan(params, source(name), ROOT).everything())
    settings = sorted([run.step, canonical(run.settings.resolved(hashed=True))] for run in runs)
    names = sorted([run.step, run.name.removesuffix(f"-{run.identity[:8]}")] for run in runs)
    return {"runs": len(runs), "settings": digest([data, settings]), "names": digest(names)}


def test_every_settings_file_of_the_project_is_in_the_record():
    assert sorted(RECORD) == sorted(FILES)
    assert all(
        source(name).is_file() for name in RECORD
    )  # none is in a folder below, where names could clash


@pytest.mark.parametrize("name", FILES)
def test_a_settings_file_plans_the_runs_of_the_record(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = Path("data/weights/ssp_inat.pth.tar")  # planning hashes the file, and reads nothing in it
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    found = planned_runs(name)
    print(json.dumps({name: found}, indent=2))
    assert found == RECORD[name]


def test_no_two_settings_files_publish_in_one_folder():
    files = list((ROOT / "workflow/settings").rglob("*.yaml"))
    assert len({settings_name(file) for file in files}) == len(files)


@pytest.mark.parametrize("name", FILES)
def test_settings_files_need_no_anchors(name):
    text = "\n".join(line.partition("#")[0] for line in source(name).read_text("utf-8").splitlines())
    assert "<<:" not in text
    assert not {word[0] for word in text.split() if len(word) > 1} & {"&", "*"}


def test_params_yaml_can_be_read_at_one_sitting():
    assert len((ROOT / "params.yaml").read_text("utf-8").splitlines()) < 450


@pytest.mark.parametrize("name", FILES)
def test_dvc_rewrites_a_settings_file_without_loss(name, tmp_path):
    """`dvc exp run -S KEY=VALUE` does so to params.yaml, and breaks long lines even within keys."""
    from dvc.utils.serialize import modify_yaml

    text = source(name).read_text("utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(text, "utf-8")
    with modify_yaml(file) as data:
        data["seeds"] = [7]
    rewritten = file.read_text("utf-8")
    assert parse(rewritten) == parse(text) | {"seeds": [7]}
    assert rewritten.count("# ") == text.count("# ")
