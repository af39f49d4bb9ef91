"""The check names every file that a training would stumble over, and every trap that would not be seen."""

import csv
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from longtail import cli
from longtail.data import catalogue as members
from longtail.data import file_changes, manifest
from longtail.errors import UserError
from longtail.own_pictures import figure as check_figure
from longtail.own_pictures import inspection
from longtail.settings.data import FolderData
from tests import odd_pictures
from tests.odd_pictures import class_folders, copied, noise, scenes

BASE = {
    "dataset": "mine",
    "imbalance": {"profile": "natural"},
    "stage_one": {"ce": {"loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}}}},
    "stage_two": {"joint": {}},
    "methods": {"CE": {"stage_one": "ce", "stage_two": "joint"}},
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Drawing takes a second; tests that look at the picture are marked by asking for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(check_figure, "write", lambda checked, file: file.touch())


@pytest.fixture
def drawn() -> None:
    """The picture is drawn."""


@pytest.fixture
def pictures(tmp_path) -> Path:
    return class_folders(tmp_path / "pictures", {"cat": 6, "dog": 4, "emu": 3})


def settings(root: Path, **other) -> str:
    """A settings file of a folder; its name."""
    data = {"kind": "folder", "root": str(root), **other.pop("data", {})}
    Path("mine.yaml").write_text(yaml.safe_dump({**BASE, "data": data, **other}, allow_unicode=True))
    return "mine.yaml"


def run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        cli.main([*map(str, words)])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def check(capsys, root: Path, **other) -> tuple[int, str, str]:
    return run(capsys, "check-data", "--params", settings(root, **other))


def entries() -> dict[str, manifest.Entry]:
    found = manifest.read("mine")
    assert found is not None
    return {entry.path: entry for entry in found}


def findings(kind: str | None = None) -> list[dict[str, str]]:
    with open("data/checked/mine/report.csv", newline="", errors="surrogateescape") as lines:
        return [row for row in csv.DictReader(lines) if kind in (None, row["kind"])]


def test_a_clean_folder_has_no_finding_but_empty_groups(pictures, capsys, drawn):
    code, out, err = check(capsys, pictures, groups={"many_above": 5, "few_below": 4})
    assert (code, err) == (0, "")
    assert "13 pictures (train 13) of 3 classes; 13 files read" in out
    assert "nothing to complain of" in out
    assert len(entries()) == 13
    for name in ("manifest.csv", "report.md", "report.csv", "report.png"):
        assert (Path("data/checked/mine") / name).stat().st_size
    assert not list(Path("data/checked/mine").glob(".*"))


def test_every_unusable_file_is_named_after_all_is_written_and_ends_with_2(pictures, tmp_path, capsys):
    expected = odd_pictures.unusable(pictures / "cat", tmp_path / "outside")
    code, _, err = check(capsys, pictures)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert f"mine: {len(expected)} files cannot be used" in err
    assert "data.broken: skip" in err
    broken = {Path(row["path"]).name: row["what"] for row in (*findings("broken"), *findings("heic"))}
    assert broken.keys() == expected.keys()
    for name, beginning in expected.items():
        assert broken[name].startswith(beginning), name
        assert entries()[f"cat/{name}"].trouble == broken[name]
        assert str(tmp_path) not in broken[name]
    assert Path("data/checked/mine/report.png").is_file()
    assert check(capsys, pictures, data={"broken": "skip"})[0] == 0


def test_skipped_files_are_left_out_of_the_members(pictures, tmp_path, capsys):
    expected = odd_pictures.unusable(pictures / "cat", tmp_path / "outside")
    check(capsys, pictures, data={"broken": "skip"})
    found = members.members("mine", FolderData(root=str(pictures), broken="skip"))
    assert sorted(found.left_out) == sorted(f"cat/{name}" for name in expected)
    assert [len([1 for _, label in found.parts["train"] if label == number]) for number in range(3)] == [
        6,
        4,
        3,
    ]


def test_odd_pictures_that_are_fine_are_read_and_their_kinds_counted(pictures, capsys):
    expected = odd_pictures.usable(pictures / "emu")
    code, _, err = check(capsys, pictures)
    assert (code, err) == (0, "")
    for name, (mode, kind, size) in expected.items():
        entry = entries()[f"emu/{name}"]
        assert (entry.mode, entry.format, (entry.width, entry.height)) == (mode, kind, size), name
    assert [row["path"] for row in findings("suffix")] == ["emu/png_named.jpg"]
    report = Path("data/checked/mine/report.md").read_text()
    for words in (
        "grey, 16 bits 2",
        "CMYK 1",
        "RGB with alpha 1",
        "palette 1",
        "black and white 1",
        "grey 1",
    ):
        assert words in report


def test_a_pipe_ends_nothing(pictures, capsys):
    os.mkfifo(pictures / "cat" / "pipe.jpg")
    assert check(capsys, pictures)[0] == 2
    assert findings("broken")[0]["what"] == "is no regular file"


def test_16_bits_of_colour_are_seen(tmp_path):
    (tmp_path / "deep.png").write_bytes(odd_pictures.png(2, 1, 16, 2, b"\0" + b"\1\2" * 6))
    assert inspection.inspect(os.path.realpath(tmp_path), "deep.png").entry.mode == "RGB;16"


def test_pictures_below_the_smallest_are_broken_by_the_settings_alone(pictures, capsys):
    odd_pictures.usable(pictures / "emu")
    assert check(capsys, pictures)[0] == 0
    code, out, err = check(capsys, pictures, data={"smallest": 20})
    assert code == 2
    assert "0 files read" in out
    assert "pixels, data.smallest is 20" in err
    assert {Path(row["path"]).name for row in findings("broken")} == {
        *("grey.jpg", "16_bit.png", "16_bit.tiff", "bits.png", "dot.png")
    }


def test_same_pictures_are_found_worst_first(tmp_path, capsys):
    root = tmp_path / "parts"
    class_folders(root / "train", {"cat": 4, "dog": 4}, seed=1)
    class_folders(root / "test", {"cat": 2, "dog": 2}, seed=2)
    shutil.copy(root / "train/cat/000.jpg", root / "train/cat/copy.jpg")
    shutil.copy(root / "train/cat/001.jpg", root / "train/dog/wrong.jpg")
    shutil.copy(root / "train/dog/001.jpg", root / "test/dog/leaked.jpg")
    shutil.copy(root / "train/dog/002.jpg", root / "test/cat/both.jpg")
    assert check(capsys, root, data={"train": "train", "test": "test"})[0] == 0
    same = [(row["kind"], row["path"], row["what"]) for row in findings() if row["same_as"]]
    assert [kind for kind, _, _ in same] == ["leak"] * 4 + ["conflict"] * 2 + ["duplicate"] * 2
    assert ("leak", "test/cat/both.jpg", "is train/dog/002.jpg, in another class too") in same
    assert ("conflict", "train/dog/wrong.jpg", "is train/cat/001.jpg") in same
    assert ("duplicate", "train/cat/copy.jpg", "is train/cat/000.jpg") in same


def near_rows() -> list[dict[str, str]]:
    with open("data/checked/mine/near_duplicates.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_nearly_same_pictures_are_found_worst_first(tmp_path, capsys):
    root = tmp_path / "parts"
    scenes(root / "train", {"cat": 4, "dog": 4})
    scenes(root / "test", {"cat": 1, "dog": 1})
    for name in ("cat", "dog"):  # of its own, not those of the training pictures
        noise(7 if name == "cat" else 8).resize((90, 90)).save(root / "test" / name / "000.png")
    copied(root / "train/cat/000.png", root / "train/cat/copy.jpg", quality=60)
    copied(root / "train/cat/001.png", root / "train/dog/wrong.jpg")
    copied(root / "train/dog/001.png", root / "test/dog/leaked.jpg")
    copied(root / "train/dog/002.png", root / "test/cat/both.jpg")
    shutil.copy(root / "train/dog/003.png", root / "train/dog/same.png")
    assert check(capsys, root, data={"train": "train", "test": "test"})[0] == 0
    rows = near_rows()
    assert [(row["group"], row["crosses"]) for row in rows[::2]] == [
        *(("1", "parts and classes"), ("2", "parts"), ("3", "classes"), ("4", ""), ("5", ""))
    ]
    assert [row["file"] for row in rows if row["group"] == "3"] == [
        "train/cat/001.png",
        "train/dog/wrong.jpg",
    ]
    assert {row["nearest"] for row in rows if row["group"] == "3"} == {
        "train/cat/001.png",
        "train/dog/wrong.jpg",
    }
    assert [row["same_content"] for row in rows if "dog/003" in row["file"] or "same" in row["file"]] == [
        "yes"
    ] * 2
    kinds = {
        kind: [row["path"] for row in findings(kind)]
        for kind in ("near leak", "near conflict", "near duplicate")
    }
    assert kinds["near conflict"] == ["train/cat/001.png", "train/dog/wrong.jpg"]
    assert kinds["near duplicate"] == ["train/cat/000.png", "train/cat/copy.jpg"]  # not the same file twice
    assert len(kinds["near leak"]) == 4
    page = Path("data/checked/mine/data_problems.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(rows)
    assert "(data_problems.html)" in Path("data/checked/mine/report.md").read_text()


def test_near_duplicates_that_a_holdout_parts_are_said_and_groups_keep_them_together(tmp_path, capsys):
    root = scenes(tmp_path / "bursts", {"cat": 6, "dog": 6})
    for name in ("cat", "dog"):
        for number in range(6):
            copied(root / name / f"{number:03d}.png", root / name / f"{number:03d}b.jpg")
    held = {"held_out": {"per_class": 3}}
    assert check(capsys, root, data=held, validation="holdout")[0] == 0
    assert findings("near leak")
    held["held_out"]["groups"] = "near_duplicates"
    assert check(capsys, root, data=held, validation="holdout")[0] == 0
    assert not findings("near leak")
    parts = {row["file"]: row["part"] for row in near_rows()}
    assert all(parts[f"cat/{n:03d}.png"] == parts[f"cat/{n:03d}b.jpg"] for n in range(6))
    assert sorted(parts.values()).count("test") == 4  # 2 are as near to 3 as 4 are
    report = Path("data/checked/mine/report.md").read_text()
    assert "| cat | 12 | 2 | 8 | few |" in report


def test_near_duplicates_are_not_looked_for_where_the_settings_say_so(tmp_path, capsys):
    root = scenes(tmp_path / "off", {"cat": 3, "dog": 3})
    copied(root / "cat/000.png", root / "cat/copy.jpg")
    check(capsys, root, data={"near_duplicates": None})
    assert not near_rows()
    check(capsys, root)
    assert [row["file"] for row in near_rows()] == ["cat/000.png", "cat/copy.jpg"]


def test_a_manifest_without_hashes_is_read_and_completed(pictures, capsys):
    check(capsys, pictures)
    file = Path("data/checked/mine/manifest.csv")
    whole = file.read_bytes()
    file.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in file.read_text().splitlines()))
    assert {entry.look for entry in entries().values()} == {""}
    assert "13 files read" in check(capsys, pictures)[1]
    assert file.read_bytes() == whole


def test_empty_files_are_not_the_same_picture(pictures, capsys):
    (pictures / "cat" / "a.jpg").touch()
    (pictures / "dog" / "b.jpg").touch()
    check(capsys, pictures)
    assert not findings("conflict")


def test_what_lies_around_the_pictures_is_reported(pictures, tmp_path, capsys):
    noise(99).save(pictures / "beside.png")
    (pictures / "nothing").mkdir()
    (pictures / "cat" / "notes.txt").write_text("x")
    (pictures / "cat" / "raw.CR2").write_text("x")
    (pictures / "cat" / ".hidden.jpg").write_text("x")
    (pictures / "linked").symlink_to(pictures / "cat")
    (pictures / "Dog").mkdir()
    noise(98).save(pictures / "Dog" / "1.jpg")
    noise(97).save(pictures / "Dog" / "2.jpg")
    code, out, _ = check(capsys, pictures)
    assert code == 0
    by_kind = {
        kind: [row["path"] for row in findings(kind)] for kind in ("beside", "empty", "ignored", "link")
    }
    assert by_kind == {
        "beside": ["beside.png"],
        "empty": ["nothing"],
        "ignored": ["cat/notes.txt", "cat/raw.CR2"],
        "link": ["linked"],
    }
    assert [row["path"] for row in findings("collision")] == ["Dog", "dog"]
    assert "pictures beside the class folders" in out


def test_names_that_differ_in_unicode_form_alone_collide(pictures, capsys):
    for form in ("\u00e9", "e\u0301"):
        noise(len(form)).save(pictures / "cat" / f"{form}.png")
    check(capsys, pictures)
    assert len(findings("collision")) == 2


def test_classes_with_too_few_pictures_are_named(tmp_path, capsys):
    root = class_folders(tmp_path / "few", {"many": 12, "one": 1, "two": 2, "three": 3})
    check(capsys, root, data={"held_out": {"per_class": 2}}, validation="holdout")
    found = {row["class"]: row["what"] for row in findings("too few")}
    assert found["one"].startswith("has 1 usable training picture; 2 are the least")
    assert "data.held_out takes 2" in found["two"]
    assert "none is left for validation" in found["three"]
    assert "many" not in found


def test_a_class_that_only_the_test_images_have_is_named(tmp_path, capsys):
    root = tmp_path / "parts"
    class_folders(root / "train", {"cat": 4, "dog": 4}, seed=1)
    class_folders(root / "test", {"cat": 2, "fox": 2}, seed=2)
    check(capsys, root, data={"train": "train", "test": "test"})
    found = {(row["class"], row["part"]) for row in findings("too few")}
    assert found == {("fox", "test"), ("dog", "test")}


def test_groups_without_a_class_are_named(pictures, capsys):
    check(capsys, pictures)
    assert [row["class"] for row in findings("group")] == ["many", "medium"]


def test_only_what_moved_is_read_again(pictures, capsys, monkeypatch):
    check(capsys, pictures)
    before = Path("data/checked/mine/manifest.csv").read_bytes()
    read: list[str] = []
    own = inspection.inspect
    monkeypatch.setattr(inspection, "inspect", lambda root, path: read.append(path) or own(root, path))
    assert "0 files read, 13 unchanged" in check(capsys, pictures)[1]
    os.utime(pictures / "cat/000.jpg", (1, 1))
    noise(500).save(pictures / "dog/new.png")
    (pictures / "emu/000.jpg").unlink()
    check(capsys, pictures)
    assert sorted(read) == ["cat/000.jpg", "dog/new.png"]
    assert Path("data/checked/mine/manifest.csv").read_bytes() != before
    (pictures / "dog/new.png").unlink()
    class_folders(pictures, {"cat": 6, "dog": 4, "emu": 3})
    check(capsys, pictures)
    assert Path("data/checked/mine/manifest.csv").read_bytes() == before


def test_a_file_that_cannot_be_opened_is_left_out_till_it_can(pictures, capsys, monkeypatch):
    """Of another user, or behind an error of a share; its size and time are known all the same."""

    def refused(content, algorithm):
        if content.name.endswith("cat/000.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(content, algorithm)

    real = inspection.file_digest
    monkeypatch.setattr(inspection, "file_digest", refused)
    skip = {"broken": "skip"}
    assert check(capsys, pictures, data=skip)[0] == 0
    assert entries()["cat/000.jpg"].trouble == "cannot be read (Permission denied)"
    members.current("mine", FolderData(root=str(pictures), broken="skip"))
    assert members.members("mine", FolderData(root=str(pictures), broken="skip")).left_out == ["cat/000.jpg"]
    monkeypatch.setattr(inspection, "file_digest", real)
    assert "1 file read, 12 unchanged" in check(capsys, pictures, data=skip)[1]
    assert not entries()["cat/000.jpg"].trouble


def test_a_class_whose_name_cannot_be_written_is_one_line(pictures, capsys):
    os.rename(pictures / "emu", os.fsencode(pictures) + b"/caf\xe9")
    check(capsys, pictures)
    with pytest.raises(UserError, match=r"its name is no UTF-8; rename its folder") as said:
        members.members("mine", FolderData(root=str(pictures)))
    assert "class 'caf\\udce9'" in str(said.value)


def test_groups_that_are_in_two_parts_of_a_table_are_said(pictures, capsys):
    rows = [
        ("cat/000.jpg", "cat", "train", "a"), ("cat/001.jpg", "cat", "test", "a"),
        ("cat/002.jpg", "cat", "test", ""), ("dog/000.jpg", "dog", "train", ""),
        ("dog/001.jpg", "dog", "train", "b"), ("dog/002.jpg", "dog", "test", "c"),
    ]  # fmt: skip
    lines = ["path,label,part,patient", *map(",".join, rows)]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    held = {"per_class": 1, "groups": "patient"}
    check(capsys, pictures, data={"kind": "csv", "file": "t.csv", "held_out": held})
    [found] = findings("group leak")
    assert (found["path"], found["part"]) == ("cat/001.jpg", "test")
    assert found["what"] == "is of a group of which are 1 in train, 1 in test"


def test_a_damaged_manifest_is_made_anew(pictures, capsys):
    check(capsys, pictures)
    file = Path("data/checked/mine/manifest.csv")
    before = file.read_bytes()
    file.write_text("path,what\n1,2\n")
    assert check(capsys, pictures)[0] == 0
    assert file.read_bytes() == before


def test_processes_and_one_process_find_the_same(pictures, tmp_path):
    odd_pictures.unusable(pictures / "cat", tmp_path / "outside")
    odd_pictures.usable(pictures / "dog")
    paths = sorted(file_changes.picture_files(pictures))
    root = os.path.realpath(pictures)
    alone = {path: inspection.inspect(root, path) for path in paths}
    assert {one.entry.path: one for one in inspection.inspect_all(root, paths, workers=2)} == alone


def test_a_file_that_ends_its_process_is_broken_and_the_rest_is_read(pictures, monkeypatch):
    own = inspection.inspect

    def inspect(root, path):
        if path in ("cat/001.jpg", "emu/002.jpg"):
            os._exit(1)  # as a decoder that reads where it must not
        return own(root, path)

    monkeypatch.setattr(inspection, "inspect", inspect)
    monkeypatch.setattr(inspection, "CHUNK", 2)
    forked = partial(ProcessPoolExecutor, mp_context=get_context("fork"))  # has the function above
    monkeypatch.setattr(inspection, "_pool", forked)
    paths = sorted(file_changes.picture_files(pictures))
    found = list(inspection.inspect_all(os.path.realpath(pictures), paths, workers=2))
    assert sorted(one.entry.path for one in found) == paths
    broken = {one.entry.path: one.entry.trouble for one in found if one.entry.trouble}
    said = "ends the process that decodes it"
    assert broken == {"cat/001.jpg": said, "emu/002.jpg": said}


def test_an_interrupted_check_goes_on_where_it_was(pictures, capsys, monkeypatch):
    own = inspection.inspect

    def inspect(root, path):
        if path == "dog/001.jpg":
            raise KeyboardInterrupt
        return own(root, path)

    monkeypatch.setattr(inspection, "inspect", inspect)
    assert check(capsys, pictures)[0] == 130
    monkeypatch.undo()
    os.chdir(pictures.parent / "here")
    assert "6 files read, 7 unchanged" in check(capsys, pictures)[1]


def test_a_check_writes_the_same_bytes_at_every_root(pictures, tmp_path, capsys):
    (pictures / "cat" / "empty.jpg").touch()
    check(capsys, pictures)
    first = {name: Path("data/checked/mine", name).read_bytes() for name in ("manifest.csv", "report.csv")}
    shutil.move(pictures, tmp_path / "elsewhere")
    check(capsys, tmp_path / "elsewhere")
    assert {name: Path("data/checked/mine", name).read_bytes() for name in first} == first


@pytest.mark.parametrize("root", ["nowhere", "mine.yaml"])
def test_a_root_that_is_no_folder_is_one_line(root, capsys):
    code, out, err = check(capsys, Path(root))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "set data.root" in err


def test_a_published_dataset_is_not_checked(capsys):
    Path("mine.yaml").write_text(yaml.safe_dump({**BASE, "dataset": "digits"}))
    code, _, err = run(capsys, "check-data", "--params", "mine.yaml")
    assert code == 2
    assert "published dataset" in err


def test_a_folder_without_a_picture_is_one_line(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    code, _, err = check(capsys, tmp_path / "none")
    assert code == 2
    assert "holds no picture" in err
    assert not Path("data").exists()


def test_names_of_any_kind_come_through(tmp_path, capsys, drawn):
    odd = ["$x^2$", "a|b", "<script>", "caf\u00e9", "a\nb", os.fsdecode(b"caf\xe9"), "_under*star_"]
    root = class_folders(tmp_path / "odd", dict.fromkeys(odd, 3))
    assert check(capsys, root)[0] == 0
    assert {Path(path).parent.name for path in entries()} == set(odd)
    report = Path("data/checked/mine/report.md").read_text()
    assert "<script>" not in report
    assert Image.open("data/checked/mine/report.png").width > 500


def test_the_photographs(shared, capsys, drawn):
    code, out, err = check(
        capsys, shared / "data/photos", data={"held_out": {"per_class": 10}}, validation="holdout"
    )
    assert (code, err) == (0, "")
    assert "3,340 pictures (train 3,340) of 34 classes" in out
    found = list(entries().values())
    assert sum(entry.mode == "L" for entry in found) == 198
    assert not any(entry.trouble for entry in found)
    sizes = np.bincount(
        [
            label
            for _, label in members.members("mine", FolderData(root=str(shared / "data/photos"))).parts[
                "train"
            ]
        ]
    )
    assert (sizes.min(), sizes.max()) == (31, 800)
