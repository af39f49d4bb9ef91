"""`longtail suspects` goes from a finished run of features to lists that name each of its pictures once."""

import csv
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from longtail import cli
from longtail.publish.label_issues import read_pictures
from longtail.runs.lookup import named_features
from tests.finished_runs import NETWORK, Project


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("suspects")
        patch.chdir(folder)
        Project().features("linear", NETWORK)
        yield folder


def run(capsys, *words: str) -> tuple[int, str]:
    try:
        cli.main(list(words))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


def test_all_pictures_of_a_run_are_judged_once(place):
    finished = named_features("linear")
    found = read_pictures(*(finished.folders[step] for step in ("features", "split", "acquire")))
    totals = finished.records["split"]["facts"]["totals"]
    assert {part: found.part.count(part) for part in totals} == totals
    named = {
        ("test" if part == "test" else "train", one)
        for part, one in zip(found.part, found.sample, strict=True)
    }
    assert len(named) == len(found.part) == len(found.features) == len(found.labels)
    assert set(found.file) == {""}  # the digits are no files
    assert len(found.names) == 10


def test_groups_that_acquisition_keeps_are_read_and_all_other_pictures_are_for_themselves(place, tmp_path):
    finished = named_features("linear")
    features, split, raw = (finished.folders[step] for step in ("features", "split", "acquire"))
    alone = read_pictures(features, split, raw)
    assert len(set(alone.groups.tolist())) == len(alone.groups)
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    tensors = load_file(copy / "train.safetensors")
    groups = torch.arange(len(tensors["labels"])) // 3
    save_file(tensors | {"groups": groups}, copy / "train.safetensors")
    found = read_pictures(features, split, copy)
    own = torch.tensor([part != "test" for part in found.part])
    assert torch.equal(found.groups[own], groups[torch.tensor(found.sample)[own]])
    tested = found.groups[~own].tolist()
    assert len(set(tested)) == len(tested)
    assert not set(tested) & set(groups.tolist())


def test_a_finished_run_of_features_gives_two_lists_and_a_page(place, capsys):
    code, err = run(capsys, "suspects", "linear")
    assert code == 0
    assert "suspected of" in err
    (folder,) = (place / "suspects").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        *("label_issues.csv", "label_issues_by_class.csv", "data_problems.html")
    }
    with (folder / "label_issues_by_class.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    with (folder / "label_issues.csv").open(newline="") as lines:
        assert sum(int(row["suspects"]) for row in rows) == len(list(csv.DictReader(lines)))
    first = (folder / "label_issues.csv").read_bytes()
    assert run(capsys, "suspects", "linear")[0] == 0  # over its own files
    assert (folder / "label_issues.csv").read_bytes() == first


def test_what_is_no_run_or_no_place_is_one_line(place, capsys):
    code, err = run(capsys, "suspects", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    assert "no finished run of features begins so; there are linear-" in err
    (place / "full").mkdir(exist_ok=True)
    (place / "full" / "notes.txt").touch()
    code, err = run(capsys, "suspects", "linear", "--to", "full")
    assert (code, err) == (2, "--to full: is there and holds other files; name a new folder\n")
