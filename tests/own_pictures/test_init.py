"""Settings that `longtail init` writes are read and planned, and suit the folder that they are of."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail import cli
from longtail.data import catalogue as members
from longtail.groups import group
from longtail.orchestration.planner import plan
from longtail.own_pictures import figure as check_figure
from longtail.own_pictures import time_estimate as cost
from longtail.own_pictures.choices import LEAST, MOST, choose_groups, choose_schedule
from longtail.own_pictures.layout import layout
from longtail.own_pictures.time_estimate import Machine
from longtail.settings.params import Params
from tests.odd_pictures import class_folders, noise, unusable

CPU = Machine("CPU", gpu=False, cores=2, gmacs=40.0, decoding=0.0007)
GPU = Machine("a GPU", gpu=True, cores=16, gmacs=60_000.0, decoding=0.004)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(cost, "measured", lambda files, size: CPU)
    monkeypatch.setattr(check_figure, "write", lambda checked, file: file.touch())


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        cli.main(["init", *map(str, words)])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def made(capsys, root: Path, *words: object) -> Params:
    code, out, err = run(capsys, root, *words)
    assert (code, err) == (0, "")
    file = re.search(r"settings: (\S+),", out)
    assert file is not None
    assert f"snakemake --cores all --config params={file[1]}" in out
    assert "longtail predict results/" in out
    params = Params.load(file[1])
    planned = plan(params, file[1])
    assert len(planned.stage_one) == 2 * len(params.seeds)
    assert set(planned.tables) == {"comparison"}
    members.current(params.dataset, params.data)
    return params


# what a folder looks like


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["cat/1.jpg", "dog/1.jpg"], (".", None, None, "top")),
        (["beside.jpg", "cat/1.jpg", "dog/1.jpg"], (".", None, None, "top")),
        (["Train/cat/1.jpg", "VAL/cat/1.jpg", "test/cat/1.jpg"], ("Train", "VAL", "test", "top")),
        (["train/cat/1.jpg", "val/cat/1.jpg"], ("train", None, "val", "top")),
        (["training/cat/1.jpg", "testing/cat/1.jpg"], ("training", None, "testing", "top")),
        (["data/images/cat/1.jpg", "data/images/dog/2.jpg"], ("data/images", None, None, "top")),
        (["set/train/cat/1.jpg", "set/test/cat/2.jpg"], ("set/train", None, "set/test", "top")),
        (["train/cat/1.jpg", "test/1.jpg"], ("train", None, None, "top")),
        (["train/1.jpg", "car/1.jpg", "bus/1.jpg"], (".", None, None, "top")),
        (["pets/cat/1.jpg", "pets/dog/1.jpg", "wild/fox/1.jpg"], (".", None, None, "leaf")),
        (["cat/monday/1.jpg", "cat/friday/1.jpg", "dog/monday/1.jpg"], (".", None, None, "top")),
        (["cat/1.jpg", "cat/more/1.jpg", "dog/2.jpg"], (".", None, None, "top")),
        (["train/a/x/1.jpg", "train/b/y/1.jpg", "val/a/x/2.jpg"], ("train", None, "val", "leaf")),
        ([], (".", None, None, "top")),
        (["1.jpg"], (".", None, None, "top")),
    ],
)
def test_layouts_are_recognised(paths, expected):
    found = layout(paths)
    assert (found.train, found.validation, found.test, found.classes) == expected


# what is chosen


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=200))
def test_groups_are_settings_that_can_be_had(sizes):
    groups, why = choose_groups(sizes)
    assert why
    assert groups.few_below <= groups.many_above + 1


@given(st.lists(st.integers(1, 5000), min_size=6, max_size=200, unique=True))
def test_no_group_is_empty_where_classes_differ(sizes):
    groups, _ = choose_groups(sizes)
    found = [group(size, groups.many_above, groups.few_below) for size in sizes]
    assert min(found.count(name) for name in ("many", "medium", "few")) >= len(sizes) // 10


@given(st.lists(st.integers(1, 30), min_size=2, max_size=60))
def test_ties_leave_no_group_empty_where_there_are_three_sizes_and_a_tail_where_there_are_two(sizes):
    groups, _ = choose_groups(sizes)
    found = {group(size, groups.many_above, groups.few_below) for size in sizes}
    assert len(found) == min(3, len(set(sizes)))
    assert groups.few_below <= groups.many_above  # a page never says: medium (9 to 8)
    tail = [size for size in sizes if size <= groups.many_above and size < max(sizes)]
    assert bool(tail) == (len(set(sizes)) > 1)


@pytest.mark.parametrize(
    ("sizes", "borders"),
    [
        ([30, 20], (29, 21)),
        ([9, 8], (9, 9)),
        ([9, 9, 9, 9, 8, 8], (9, 9)),
        ([20, 20], (20, 20)),
        ([9, 9, 9, 9, 9, 8, 7], (8, 8)),
        ([40, 9, 9, 9, 9, 9, 9], (39, 10)),
        ([1, 2, 3, 4, 5, 6], (4, 3)),
    ],
)
def test_groups_are_cut_beside_ties(sizes, borders):
    groups, _ = choose_groups(sizes)
    assert (groups.many_above, groups.few_below) == borders


def test_the_literatures_groups_are_kept_where_they_fit():
    assert choose_groups([500, 300, 50, 60, 5, 7])[0].many_above == 100
    photos = [711, 206, 171, 106, 102, *range(94, 66, -1), 19]
    assert choose_groups(photos)[0].few_below > 20


@given(st.integers(20, 10**6), st.floats(1, 600), st.sampled_from([CPU, GPU]), st.integers(8, 3000))
def test_what_is_planned_fits_into_the_time_there_is(pictures, minutes, machine, side):
    found = choose_schedule(machine, pictures, pictures // 5, side, minutes)
    assert LEAST <= found.epochs <= MOST
    assert found.size <= max(32, side)
    assert found.epochs == LEAST or found.seconds <= 60 * minutes * 1.001


def test_more_time_is_a_better_network_and_a_gpu_a_larger_one():
    short, long = (choose_schedule(CPU, 2700, 600, 200, minutes) for minutes in (10, 600))
    assert cost.macs(short.architecture, short.size) < cost.macs(long.architecture, long.size)
    assert choose_schedule(GPU, 100_000, 10_000, 400, 600).architecture == "resnet50"
    assert choose_schedule(CPU, 500, 60, 200, 240).seeds == 3


# the file


def test_the_settings_are_read_and_planned(tmp_path, capsys):
    root = class_folders(tmp_path / "My Photos!", {"cat": 40, "dog": 20, "emu": 9})
    params = made(capsys, root)
    assert params.dataset == "my-photos"
    assert params.data.held_out.per_class == 3
    assert params.validation.source == "holdout"
    assert params.data.images.size == 32  # the pictures are 40 x 30
    text = Path("my-photos.yaml").read_text()
    assert "Expected: about" in text
    assert max(map(len, text.splitlines())) < 200


def test_parts_that_are_there_are_used(tmp_path, capsys):
    root = tmp_path / "parts"
    for seed, part in enumerate(("train", "val", "test")):
        class_folders(root / part, {"cat": 8, "dog": 5}, seed=seed)
    params = made(capsys, root)
    assert (params.data.train, params.data.validation, params.data.test) == ("train", "val", "test")
    assert params.data.held_out is None
    assert params.validation.source == "official"


def test_classes_of_few_pictures_give_a_share(tmp_path, capsys):
    params = made(capsys, class_folders(tmp_path / "few", {"cat": 40, "dog": 4, "emu": 2}))
    assert params.data.held_out.share == 0.2


def test_unusable_files_are_left_out_and_said_so(tmp_path, capsys):
    root = class_folders(tmp_path / "broken", {"cat": 10, "dog": 8})
    number = len(unusable(root / "cat", tmp_path / "outside"))
    params = made(capsys, root)
    assert params.data.broken == "skip"
    assert f"left out: {number} files of no use" in Path("broken.yaml").read_text()


@pytest.mark.parametrize(
    "name", ["yes", "a: b", "#x", "it's", "{y}", "caf\u00e9 \u732b", "new\nline", "<< z >>", "null"]
)
def test_folders_of_any_name_are_written_as_they_are(tmp_path, name, capsys):
    root = class_folders(tmp_path / name, {"cat": 6, "dog": 6})
    params = made(capsys, root, "--name", "mine")
    assert Path(params.data.root) == root


def test_a_name_and_a_file_may_be_given(tmp_path, capsys):
    root = class_folders(tmp_path / "x", {"cat": 6, "dog": 6})
    assert made(capsys, root, "--name", "other", "--to", "s.yaml").dataset == "other"
    assert Path("data/checked/other/report.md").is_file()


@pytest.mark.parametrize("name", ["digits", "Figures", "stage_one", "train"])
def test_a_folder_with_a_name_that_is_taken_gets_another(tmp_path, name, capsys):
    root = class_folders(tmp_path / name, {"cat": 6, "dog": 6})
    made(capsys, root)


def test_nothing_is_overwritten(tmp_path, capsys):
    root = class_folders(tmp_path / "mine", {"cat": 6, "dog": 6})
    Path("mine.yaml").write_text("x")
    code, out, err = run(capsys, root)
    assert (code, out) == (2, "")
    assert err == "mine.yaml: is there already; --to FILE writes another one, or move it away\n"
    assert Path("mine.yaml").read_text() == "x"


@pytest.mark.parametrize(
    ("sizes", "words", "said"),
    [
        ({}, [], "holds no picture"),
        ({"cat": 5}, [], "two are the least"),
        ({"cat": 5, "dog": 1}, [], "1 class (dog) with fewer than 2 usable pictures"),
        ({"train/cat": 5, "train/dog": 5, "val/cat": 1, "val/fox": 1}, [], "(fox) with no training picture"),
        ({"cat": 5, "dog": 5}, ["--minutes", "0"], "--minutes 0: should be above 0"),
        ({"cat": 5, "dog": 5}, ["--minutes", "nan"], "should be above 0"),
        ({"cat": 5, "dog": 5}, ["--name", "A b"], "--name A b: a name is made of"),
        ({"cat": 5, "dog": 5}, ["--name", "cifar100"], "--name cifar100"),
        ({"cat": 5, "dog": 5}, ["--to", "nowhere/s.yaml"], "cannot be written"),
        ({"cat": 5, "dog": 5}, ["--to", "figures.yaml"], "rename it"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, sizes, words, said, capsys):
    root = class_folders(tmp_path / "mine", sizes)
    root.mkdir(exist_ok=True)
    code, _, err = run(capsys, root, *words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert said in err
    assert not list(Path().glob("*.yaml"))
    assert not list(Path().glob(".*.yaml"))


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert "is not there" in run(capsys, tmp_path / "nowhere")[2]
    noise(1).save(tmp_path / "file.png")
    assert "is no folder" in run(capsys, tmp_path / "file.png")[2]


def test_this_machine_is_measured(tmp_path, monkeypatch):
    monkeypatch.undo()
    files = sorted(class_folders(tmp_path / "p", {"cat": 4}).glob("*/*"))
    (tmp_path / "p/cat/x.jpg").touch()
    found = cost.measured([*files, tmp_path / "p/cat/x.jpg"], 32)
    assert found.gmacs > 0
    assert 0 < found.decoding < 1
    assert found.cores == len(os.sched_getaffinity(0))


def test_the_photographs(shared, capsys):
    params = made(capsys, shared / "data/photos")
    assert params.data.held_out.per_class == 10
    assert params.groups.few_below > 20
    assert params.seeds == [0]
