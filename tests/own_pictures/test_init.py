"""Settings that `longtail init` writes are read and planned, and suit the folder that they are of."""

import os
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from longtail import cli
from longtail.data import catalogue as members
from longtail.data import manifest
from longtail.errors import UserError
from longtail.groups import group
from longtail.orchestration.planner import plan
from longtail.own_pictures import figure as check_figure
from longtail.own_pictures import init, place, weights
from longtail.own_pictures import time_estimate as cost
from longtail.own_pictures.choices import LEAST, MOST, choose_batch_size, choose_groups, choose_schedule
from longtail.own_pictures.layout import layout
from longtail.own_pictures.time_estimate import Machine
from longtail.settings.params import Params
from tests.conftest import ROOT
from tests.odd_pictures import HEIC, class_folders, copied, noise, scenes, unusable

CPU = Machine("CPU", gpu=False, cores=2, gmacs=40.0, decoding=0.0007)
GPU = Machine("a GPU", gpu=True, cores=16, gmacs=60_000.0, decoding=0.004)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "here/workflow/rules").mkdir(parents=True)
    for name in ("Snakefile", "workflow/rules/plan.smk"):
        (tmp_path / "here" / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(cost, "measured", lambda files, size: CPU)
    monkeypatch.setattr(cost, "forward_seconds", lambda network, size: 0.015)
    monkeypatch.setattr(weights, "_is_cached", lambda name: False)
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
    assert f"snakemake --cores all --config params={file[1]}\n" in out
    assert "longtail predict results/" in out
    params = Params.load(file[1])
    planned = plan(params, file[1])
    seeds = len(params.seeds)
    # heads share one published trunk; from random weights two recipes are trained
    trained = 2 * seeds if "--from-scratch" in words else 1 + seeds * ("tuned" in params.stage_one)
    assert len(planned.stage_one) == trained
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
        (
            [f"seg_{part}/seg_{part}/{c}/1.jpg" for part in ("train", "test") for c in "ab"]
            + ["seg_pred/seg_pred/1.jpg"],
            ("seg_train/seg_train", None, "seg_test/seg_test", "top"),
        ),
        (["train2017/cat/1.jpg", "val2017/cat/1.jpg"], ("train2017", None, "val2017", "top")),
        (["TrainImages/cat/1.jpg", "TestImages/cat/1.jpg"], ("TrainImages", None, "TestImages", "top")),
        (
            ["pets-train/cat/1.jpg", "pets-val/cat/1.jpg", "pets-test/cat/1.jpg"],
            ("pets-train", "pets-val", "pets-test", "top"),
        ),
        (["a_train/cat/1.jpg", "b_train/cat/1.jpg", "b_test/cat/1.jpg"], ("b_train", None, "b_test", "top")),
        (
            ["train/images/cat/1.jpg", "train/images/dog/1.jpg", "test/images/cat/1.jpg"],
            ("train/images", None, "test/images", "top"),
        ),
        (["train/cat/1.jpg", "train/dog/1.jpg", "unlabeled/1.jpg"], ("train", None, None, "top")),
        (["train_station/1.jpg", "test_tube/1.jpg", "car/1.jpg"], (".", None, None, "top")),
        (["train_vehicles/steam/1.jpg", "test_tubes/glass/1.jpg"], (".", None, None, "leaf")),
        (["a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg"], (".", None, None, "top")),
        ([], (".", None, None, "top")),
        (["1.jpg"], (".", None, None, "top")),
    ],
)
def test_layouts_are_recognised(paths, expected):
    found = layout(paths)
    assert (found.train, found.validation, found.test, found.classes) == expected


def test_what_is_left_out_is_known_with_its_number():
    named = [f"set/{part}/cat/1.jpg" for part in ("train", "test", "more")]
    found = layout(["set/train/dog/1.jpg", "set/pred/1.jpg", "x.jpg", *named])
    assert dict(found.left_out) == {
        ".": "1 picture beside the folders",
        "set/more": "1 picture",
        "set/pred": "1 picture in no class folder",
    }


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


@given(st.integers(2, 10**6), st.booleans())
def test_no_epoch_ends_with_a_batch_of_one_picture(pictures, gpu):
    size = choose_batch_size(pictures, gpu)
    assert 2 <= size <= pictures
    assert pictures % size != 1


def test_more_time_is_a_better_network_and_a_gpu_a_larger_one():
    short, long = (choose_schedule(CPU, 2700, 600, 200, minutes) for minutes in (10, 600))
    assert cost.macs(short.architecture, short.size) < cost.macs(long.architecture, long.size)
    assert choose_schedule(GPU, 100_000, 10_000, 400, 600).architecture == "resnet50"
    assert choose_schedule(CPU, 500, 60, 200, 240).seeds == 3


# the file


def test_the_settings_are_read_and_planned(tmp_path, capsys):
    root = class_folders(tmp_path / "My Photos!", {"cat": 40, "dog": 20, "emu": 9})
    params = made(capsys, root, "--from-scratch")
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


def test_the_check_of_another_collection_of_the_name_is_not_overwritten(tmp_path, capsys):
    made(capsys, class_folders(tmp_path / "a/mine", {"cat": 6, "dog": 6}))
    before = Path("data/checked/mine/manifest.csv").read_bytes()
    other = class_folders(tmp_path / "b/mine", {"emu": 6, "fox": 6}, seed=3)
    code, _, err = run(capsys, other, "--to", "b.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"mine: is the name of the pictures in {tmp_path}/a/mine; --name NAME gives these")
    assert Path("data/checked/mine/manifest.csv").read_bytes() == before
    assert made(capsys, other, "--to", "b.yaml", "--name", "others").dataset == "others"


def bursts(root: Path) -> Path:
    """A class of six scenes, one of four that are in it twice, and one of a single scene, twice."""
    scenes(root, {"cat": 6, "dog": 4, "eel": 1})
    for number in range(4):
        copied(root / f"dog/{number:03d}.png", root / f"dog/{number:03d}b.jpg")
    copied(root / "eel/000.png", root / "eel/copy.jpg")
    return root


def test_a_class_of_copies_alone_is_said_and_may_stay_untested(tmp_path, capsys):
    root = bursts(tmp_path / "mine")
    code, out, _ = run(capsys, root)
    assert code == 0
    line = (
        "near-duplicates are not kept on one side, so that copies of training pictures may be tested: else "
    )
    line += "1 class (eel) would have none, which --untested allows"
    assert f"test pictures: {line}" in out
    assert f"# {line}" in Path("mine.yaml").read_text()
    assert Params.load("mine.yaml").data.held_out.groups is None
    Path("mine.yaml").unlink()
    params = made(capsys, root, "--untested")
    assert (params.data.held_out.groups, params.data.held_out.untested) == ("near_duplicates", True)
    assert "copies of training pictures" not in Path("mine.yaml").read_text()


def test_weights_in_a_file_are_found_from_where_one_stands(tmp_path, capsys, monkeypatch):
    root = class_folders(tmp_path / "mine", {"cat": 6, "dog": 6})
    asked = []
    monkeypatch.setattr(init, "choose_weights", lambda weights, *_: asked.append(weights))
    stood = tmp_path / "elsewhere"
    stood.mkdir()
    monkeypatch.setattr(init, "project", lambda: tmp_path / "here")
    monkeypatch.chdir(stood)
    run(capsys, root, "--weights", "resnet50=w.safetensors")
    assert asked == [f"resnet50={stood}/w.safetensors"]


def test_nothing_is_overwritten(tmp_path, capsys):
    root = class_folders(tmp_path / "mine", {"cat": 6, "dog": 6})
    Path("mine.yaml").write_text("x")
    code, out, err = run(capsys, root)
    assert (code, out) == (2, "")
    assert err == "mine.yaml: is there already; --to FILE writes another one, or move it away\n"
    assert Path("mine.yaml").read_text() == "x"


def test_a_file_that_appears_while_pictures_are_looked_at_is_not_overwritten(tmp_path, capsys, monkeypatch):
    def measured(files, size):
        Path("mine.yaml").write_text("of another process")
        return CPU

    monkeypatch.setattr(cost, "measured", measured)
    code, _, err = run(capsys, class_folders(tmp_path / "mine", {"cat": 6, "dog": 6}))
    assert code == 2
    assert err.endswith("mine.yaml: is there already; --to FILE writes another one, or move it away\n")
    assert Path("mine.yaml").read_text() == "of another process"


@pytest.mark.parametrize(
    ("sizes", "words", "said"),
    [
        ({}, [], "holds no picture"),
        ({"cat": 5}, [], "at least two are needed"),
        ({"cat": 5, "dog": 1}, [], "1 class (dog) with fewer than 2 usable pictures"),
        ({"train/cat": 5, "train/dog": 5, "val/cat": 1, "val/fox": 1}, [], "(fox) with no training picture"),
        ({"cat": 5, "dog": 5}, ["--minutes", "0"], "--minutes 0: should be above 0"),
        ({"cat": 5, "dog": 5}, ["--minutes", "nan"], "should be above 0"),
        (
            {"cat": 5, "dog": 5},
            ["--minutes", "inf", "--from-scratch"],
            "--minutes inf: should be above 0 and",
        ),
        ({"cat": 5, "dog": 5}, ["--minutes", "1e308", "--from-scratch"], "should be above 0 and finite"),
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


# what the terminal is told


def test_classes_with_counts_and_what_was_taken_for_what_are_told(tmp_path, capsys):
    root = tmp_path / "intel"
    for seed, part in enumerate(("train", "test")):
        class_folders(root / f"seg_{part}/seg_{part}", {"sea": 6 - seed, "ice": 5 - seed}, seed=seed)
    class_folders(root, {"seg_pred/seg_pred": 3}, seed=5)
    noise(77).save(root / "beside.png")
    (root / "__MACOSX").mkdir()
    noise(78).save(root / "__MACOSX/a.jpg")
    (root / "seg_train/seg_train/ice/@eaDir").mkdir()
    noise(79).save(root / "seg_train/seg_train/ice/@eaDir/SYNOPHOTO.jpg")
    code, out, _ = run(capsys, root)
    assert code == 0
    assert "intel: 20 pictures (train 11, test 9) of 2 classes" in out
    assert "  parts: found by their names (train in seg_train/seg_train, test in seg_test/seg_test)\n" in out
    assert "  classes: a folder a class\n" in out
    left_out = (
        ". (1 picture beside the folders), seg_pred (3 pictures), __MACOSX (1 file of the system's own)"
    )
    assert f"  left out: {left_out}\n" in out
    assert "  training pictures: sea 6, ice 5\n" in out
    assert "1  folders of the system's own\n" in out
    assert f"# left out: {left_out}\n" in Path("intel.yaml").read_text()
    params = Params.load("intel.yaml")
    assert (params.data.train, params.data.test) == ("seg_train/seg_train", "seg_test/seg_test")


def test_kaggles_unlabelled_test_folder_is_told(tmp_path, capsys):
    root = class_folders(tmp_path / "k", {"train/cat": 6, "train/dog": 5})
    class_folders(root, {"test": 4}, seed=3)
    assert "left out: test (4 pictures in no class folder)" in run(capsys, root)[1]


def test_of_many_classes_those_at_both_ends_are_told(tmp_path, capsys):
    root = class_folders(tmp_path / "many", {f"c{number:02d}": 2 for number in range(45)})
    out = run(capsys, root)[1]
    assert "c00 2, c01 2" in out
    assert "... 5 more ..." in out
    assert "c44 2" in out
    assert max(map(len, out.splitlines())) < 120


def test_heic_is_told_with_its_number_and_the_remedy(tmp_path, capsys):
    root = class_folders(tmp_path / "phone", {"cat": 6, "dog": 6})
    (root / "cat/by_suffix.HEIC").write_bytes(HEIC)
    (root / "cat/by_content.jpg").write_bytes(HEIC)
    out = run(capsys, root)[1]
    assert "2  pictures in HEIC, which is not read: convert them to JPEG\n" in out
    assert "magick mogrify" in Path("data/checked/phone/report.md").read_text()
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.heic").write_bytes(HEIC)
    assert "1 file in HEIC, which is not read; convert them to JPEG" in run(capsys, tmp_path / "only")[2]


def test_names_in_letters_that_the_font_lacks_are_no_noise(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(cost, "measured", lambda files, size: CPU)
    monkeypatch.setattr(cost, "forward_seconds", lambda network, size: 0.015)
    monkeypatch.setattr(weights, "_is_cached", lambda name: False)
    root = class_folders(tmp_path / "pets", {"\u732b": 6, "\u0915\u0941\u0924\u094d\u0924\u093e": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, err = run(capsys, root)
    assert (code, err) == (0, "")
    assert "\u732b 6" in out


@pytest.mark.parametrize("name", ["2024", "1e3", "0x10", "1.5", "null", "true", "0o17", "12-30"])
def test_a_name_that_yaml_reads_as_something_else_is_quoted(tmp_path, name, capsys):
    root = class_folders(tmp_path / name, {f"{name}/cat": 6, f"{name}/dog": 5})
    params = made(capsys, root)
    assert params.dataset == name
    assert params.data.train == name


# one picture a class


def test_classes_of_one_picture_are_trained_on_untested_if_one_says_so(tmp_path, capsys):
    root = class_folders(tmp_path / "birds", {"heron": 30, "owl": 9, "dodo": 1})
    code, _, err = run(capsys, root)
    assert code == 2
    assert "1 class (dodo) with fewer than 2 usable pictures" in err
    assert "or train on them untested by --untested" in err
    params = made(capsys, root, "--untested")
    assert params.data.held_out.untested
    assert params.data.held_out.per_class == 3
    assert "1 class of one picture can only be trained on" in Path("birds.yaml").read_text()
    told = Path("data/checked/birds/report.csv").read_text()
    assert "has 1 usable training picture: trained on, not tested" in told


def test_without_a_class_of_one_picture_untested_changes_nothing(tmp_path, capsys):
    params = made(capsys, class_folders(tmp_path / "b", {"heron": 8, "owl": 6}), "--untested")
    assert not params.data.held_out.untested
    assert "untested" not in Path("b.yaml").read_text()


def test_where_all_classes_have_one_picture_nothing_can_be_tested(tmp_path, capsys):
    code, _, err = run(capsys, class_folders(tmp_path / "b", {"heron": 1, "owl": 1}), "--untested")
    assert (code, err.count("\n")) == (2, 1)
    assert "no class has a second picture" in err


# a table


def table(file: Path, root: Path, *, part: bool = False, windows: bool = False) -> Path:
    rows = ["path,label" + ",part" * part]
    for number, picture in enumerate(sorted(root.rglob("*.jpg"))):
        path = str(picture.relative_to(root)).replace("/", "\\" if windows else "/")
        rows.append(f"{path},{picture.parent.name}" + f",{('train', 'test')[number % 3 == 0]}" * part)
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize("windows", [False, True])
def test_a_table_can_be_the_start(tmp_path, windows, capsys):
    root = class_folders(tmp_path / "pictures", {"a b/cat": 8, "a b/dog": 6})
    params = made(capsys, table(root / "Birds.csv", root, windows=windows))
    assert params.dataset == "birds"
    assert (params.data.kind, params.data.root) == ("csv", str(root))
    assert params.data.held_out.per_class == 2
    assert manifest.read("birds")[0].path == "a b/cat/000.jpg"


def test_the_root_of_a_table_may_be_another_and_its_parts_are_used(tmp_path, capsys):
    root = class_folders(tmp_path / "pictures", {"cat": 8, "dog": 6})
    params = made(capsys, table(tmp_path / "t.csv", root, part=True), "--root", root)
    assert params.data.root == str(root)
    assert params.data.held_out is None
    assert "columns path and label; parts: by the column part" in Path("t.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("path,label\nC:\\pics\\a.jpg,cat\n", [], "t.csv:2: 'C:\\\\pics\\\\a.jpg' names a drive of Windows"),
        ("path,label\n..\\a.jpg,cat\n", [], "leaves data.root"),
        ("\\\\server\\a.jpg,cat\n", [], "needs the columns path and label"),
        ("path,label\n\\\\server\\a.jpg,cat\n", [], "leaves data.root"),
        ("image,class\na.jpg,cat\n", [], "not image, class; rename them in its first line"),
        ("path,label\na.jpg,cat\n", ["--root", "nowhere"], "--root nowhere: is no folder"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(tmp_path, content, words, said, capsys):
    (tmp_path / "t.csv").write_text(content)
    code, _, err = run(capsys, tmp_path / "t.csv", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_root_goes_with_a_table_alone(tmp_path, capsys):
    root = class_folders(tmp_path / "x", {"cat": 6, "dog": 6})
    assert "goes with a CSV file" in run(capsys, root, "--root", root)[2]


# what to type next


def test_from_another_folder_the_commands_begin_with_cd_and_paths_are_whole(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "mine", {"cat": 6, "dog": 6})
    project = tmp_path / "here"
    monkeypatch.setattr(place, "PACKAGE", project / "src/longtail")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "mine")
    assert (code, err) == (0, "")
    steps = [line.strip() for line in out.split("Next:\n")[1].splitlines()]
    assert steps[0] == f"cd {project}"
    assert steps[1].endswith("snakemake --cores all --config params=mine.yaml")
    assert f"settings: {project / 'mine.yaml'}," in out
    assert f"report: {project / 'data/checked/mine/report.md'};" in out
    assert Params.load(project / "mine.yaml").data.root == str(tmp_path / "mine")
    assert not (tmp_path / "data").exists()
    monkeypatch.chdir(tmp_path)
    out = run(capsys, "mine", "--to", "own.yaml")[1]
    assert f"params={tmp_path / 'own.yaml'}" in out
    assert (tmp_path / "own.yaml").is_file()


def test_where_there_is_no_workflow_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(place, "PACKAGE", tmp_path / "site-packages/longtail/x")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, class_folders(tmp_path / "mine", {"cat": 6, "dog": 6}))
    assert (code, err.count("\n")) == (2, 1)
    assert "has no Snakefile" in err


def test_commands_hold_for_names_with_spaces_and_without_the_environment_on_the_path(
    tmp_path, monkeypatch, capsys
):
    root = class_folders(tmp_path / "x", {"cat": 6, "dog": 6})
    monkeypatch.setenv("PATH", "/nowhere")
    Path("my settings").mkdir()
    out = run(capsys, root, "--to", "my settings/own.yaml")[1]
    first, second = [shlex.split(line) for line in out.split("Next:\n")[1].splitlines()[:2]]
    assert first == [str(Path(sys.executable).with_name("snakemake")), *first[1:]]
    assert first[1:] == ["--cores", "all", "--config", "params=my settings/own.yaml"]
    assert second[2:] == ["results/own/models/best", "PICTURES"]


@pytest.mark.parametrize("file", ["2024", "a: b.yaml", "a #b.yaml", "x.json"])
def test_a_settings_file_that_snakemake_would_read_as_something_else_is_refused(tmp_path, file, capsys):
    root = class_folders(tmp_path / "x", {"cat": 6, "dog": 6})
    code, _, err = run(capsys, root, "--to", file)
    assert code == 2
    assert err == f"--to {file}: should end in .yaml and hold no ': ' and no '#'\n"


@pytest.mark.parametrize("file", ["my pictures.yaml", "a'b.yaml", "{run}.yaml", "$HOME.yaml", "-x.yaml"])
def test_a_settings_file_whose_results_no_command_could_name_is_refused(tmp_path, file, capsys):
    root = class_folders(tmp_path / "x", {"cat": 6, "dog": 6})
    code, _, err = run(capsys, root, f"--to={file}")
    assert code == 2
    assert err == f"--to {file}: the name of a settings file is made of letters, digits, '_', '.', '-'\n"


def test_every_hint_at_a_check_names_the_settings_file(tmp_path, capsys):
    root = class_folders(tmp_path / "mine", {"cat": 6, "dog": 6})
    made(capsys, root, "--to", "other.yaml")
    params = Params.load("other.yaml")
    said = "`longtail check-data --params other.yaml`"
    noise(7).save(root / "cat/new.png")
    for file in ("other.yaml", None):
        with pytest.raises(UserError, match=re.escape(said)):
            members.current("mine", params.data, file)
    manifest.file_of("mine").write_text("damaged")
    with pytest.raises(UserError, match=re.escape(said)):
        members.identity("mine", params.data)
    Path("data/checked/mine/manifest.csv").unlink()
    with pytest.raises(UserError, match=re.escape(said)):
        plan(params, "other.yaml")


def test_this_machine_is_measured(tmp_path, monkeypatch):
    monkeypatch.undo()
    files = sorted(class_folders(tmp_path / "p", {"cat": 4}).glob("*/*"))
    (tmp_path / "p/cat/x.jpg").touch()
    found = cost.measured([*files, tmp_path / "p/cat/x.jpg"], 32)
    assert found.gmacs > 0
    assert 0 < found.decoding < 1
    assert found.cores == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("words", "seeds"), [((), [0, 1, 2]), (("--from-scratch",), [0])])
def test_the_photographs(words, seeds, shared, capsys):
    params = made(capsys, shared / "data/photos", *words)
    assert params.data.held_out.per_class == 10
    assert params.groups.few_below > 20
    assert params.seeds == seeds


# weights


def test_heads_on_published_weights_are_planned_on_one_pass_over_the_pictures(tmp_path, capsys):
    root = class_folders(tmp_path / "birds", {"heron": 40, "owl": 20, "wren": 9})
    params = made(capsys, root)
    assert {recipe.freeze for name, recipe in params.stage_one.items() if name != "tuned"} == {"features"}
    assert params.stage_one["ce"].network.options.pretrained == "efficientnet_lite0"
    runs = plan(params, "birds.yaml")
    assert sum("published" in name for name in runs.features) == len(runs.features) - 3  # of the tuned ones
    assert len({run.identity for run in runs.features.values() if "published" in run.name}) == 1
    assert {row.label for row in params.tables["comparison"].rows} >= {"cRT", "Linear head", "GraLoss"}
    out = Path("birds.yaml").read_text()
    assert "licence: Apache-2.0" in out
    assert "in the environment, no network is needed" in out


def test_little_time_leaves_fine_tuning_and_views_out(tmp_path, capsys):
    root = class_folders(tmp_path / "birds", {"heron": 40, "owl": 20, "wren": 9})
    params = made(capsys, root, "--minutes", "0.1", "--to", "short.yaml")
    assert "tuned" not in params.stage_one
    assert params.features.views == 0


def test_from_scratch_and_weights_exclude_each_other(tmp_path, capsys):
    root = class_folders(tmp_path / "birds", {"heron": 40, "owl": 20})
    code, out, err = run(capsys, root, "--from-scratch", "--weights", "torchvision")
    assert (code, out) == (2, "")
    assert err == "--from-scratch begins with random weights; leave --weights out, or --from-scratch\n"


def test_where_there_are_no_weights_training_begins_from_scratch_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "_is_embedded", lambda: False)
    monkeypatch.setattr(weights, "_hub_answers", lambda: False)
    root = class_folders(tmp_path / "birds", {"heron": 12, "owl": 9})
    code, out, err = run(capsys, root)
    assert (code, err) == (0, "")
    assert "weights: random, no published weights are here, and no network to have them from\n" in out
    assert Params.load("birds.yaml").stage_one["ce"].network.options.pretrained is None


# DVC


def test_stages_of_dvc_are_written_and_what_dvc_needs_is_said(capsys, tmp_path):
    """There is no git repository here, and `init` does not fail for it."""
    shutil.copy(ROOT / "dvc.yaml", ".")
    code, out, err = run(capsys, class_folders(tmp_path / "birds", {"heron": 12, "owl": 9, "wren": 8}))
    assert (code, err) == (0, "")
    line = out.splitlines()[-1]
    assert line.startswith("DVC: pipelines/birds/dvc.yaml has the stages. ")
    assert "type `git init && dvc init` here first; then `dvc repro pipelines/birds/dvc.yaml` makes" in line
    stages = yaml.safe_load(Path("pipelines/birds/dvc.yaml").read_text())["stages"]
    assert stages["acquire"]["outs"] == [{"data/raw/birds": {"persist": True}}]
    assert stages["acquire"]["deps"] == ["src/longtail/data", "src/longtail/device.py", "data/checked/birds"]
    assert stages["acquire"]["params"] == [{"birds.yaml": ["dataset", "data"]}]
    assert stages["models"]["foreach"] == "${models}"


def test_settings_that_lie_outside_the_project_have_no_stages(capsys, tmp_path):
    shutil.copy(ROOT / "dvc.yaml", ".")
    words = ("--to", tmp_path / "elsewhere.yaml")
    code, out, err = run(capsys, class_folders(tmp_path / "birds", {"heron": 12, "owl": 9}), *words)
    assert (code, err) == (0, "")
    assert "lies outside" in out.splitlines()[-1]
    assert not Path("pipelines").exists()
