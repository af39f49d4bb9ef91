"""Who is in which part of a dataset of files: folders, published lists, tables; and when they changed."""

import json
import os
import shutil
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from longtail.data import catalogue as members
from longtail.data import file_changes, lists, manifest
from longtail.data.imbalance import published
from longtail.errors import UserError
from longtail.groups import group
from longtail.own_pictures.inspection import inspect
from longtail.settings.data import CsvData, FolderData, ListData
from tests.odd_pictures import class_folders, noise


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def pictures(tmp_path) -> Path:
    return class_folders(tmp_path / "pictures", {"dog": 3, "cat": 4})


def checked(data, dataset="mine") -> None:
    """As the check leaves a dataset."""
    root = members.root_of(data)
    found = members.files(data)
    read = [inspect(os.path.realpath(root), path) for path in found]
    manifest.write(dataset, [one.entry for one in read])
    file_changes.write_stats(
        dataset, root, [one.entry for one in read], {one.entry.path: one.stat for one in read}
    )


def refused(data, beginning: str, dataset="mine") -> str:
    with pytest.raises(UserError) as caught:
        members.members(dataset, data)
    assert beginning in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def text(name: str, content: str) -> str:
    Path(name).write_text(content)
    return name


# folders


def test_folders_are_classes_in_the_order_of_their_names(pictures):
    data = FolderData(root=str(pictures))
    checked(data)
    found = members.members("mine", data)
    assert found.classes == ["cat", "dog"]
    assert found.parts["train"][0] == ("cat/000.jpg", 0)
    assert Counter(label for _, label in found.parts["train"]) == {0: 4, 1: 3}


def test_top_and_leaf_folders_are_classes(tmp_path):
    class_folders(tmp_path / "deep", {"cat/monday": 2, "cat/friday": 1, "dog/monday": 2})
    top, leaf = (FolderData(root=str(tmp_path / "deep"), classes=kind) for kind in ("top", "leaf"))
    checked(top)
    assert members.members("mine", top).classes == ["cat", "dog"]
    assert members.members("mine", leaf).classes == ["cat/friday", "cat/monday", "dog/monday"]
    assert members.identity("mine", top) != members.identity("mine", leaf)


def test_a_picture_beside_the_class_folders_is_of_no_class(pictures):
    noise(99).save(pictures / "beside.png")
    data = FolderData(root=str(pictures))
    checked(data)
    assert "beside.png" not in dict(members.members("mine", data).parts["train"])


def test_test_pictures_below_the_training_folder_are_not_trained_on(tmp_path):
    class_folders(tmp_path / "all", {"cat": 3, "dog": 3, "test/cat": 1, "test/dog": 2})
    data = FolderData(root=str(tmp_path / "all"), test="./test")
    checked(data)
    found = members.members("mine", data)
    assert found.classes == ["cat", "dog"]
    assert [path for path, _ in found.parts["test"]] == [
        "test/cat/000.jpg",
        "test/dog/000.jpg",
        "test/dog/001.jpg",
    ]
    assert not any(path.startswith("test/") for path, _ in found.parts["train"])


@pytest.mark.parametrize("folder", ["/tmp", "..", "a/../../b", ""])
def test_a_part_outside_the_root_is_refused(pictures, folder):
    checked(FolderData(root=str(pictures)))
    refused(FolderData(root=str(pictures), test=folder), "data.test")


def test_two_parts_of_one_folder_are_refused(pictures):
    checked(FolderData(root=str(pictures)))
    refused(FolderData(root=str(pictures), test="./."), "is another part's folder too")


def test_a_part_that_is_not_there_is_one_line(pictures):
    with pytest.raises(UserError, match=r"is no folder; data\.train"):
        members.files(FolderData(root=str(pictures), test="nowhere"))


@pytest.mark.parametrize("sizes", [{}, {"cat": 3}])
def test_fewer_than_two_classes_are_refused(tmp_path, sizes):
    root = class_folders(tmp_path / "few", sizes)
    root.mkdir(exist_ok=True)
    checked(FolderData(root=str(root)))
    refused(FolderData(root=str(root)), "at least two are needed")


def test_a_test_class_without_a_training_picture_is_refused(tmp_path):
    class_folders(tmp_path / "p", {"train/cat": 2, "train/dog": 2, "test/fox": 1})
    data = FolderData(root=str(tmp_path / "p"), train="train", test="test")
    checked(data)
    refused(data, "class fox of the test pictures has no training picture")


def test_a_class_whose_pictures_are_all_broken_is_named(pictures):
    for file in (pictures / "dog").iterdir():
        file.write_text("no picture")
    data = FolderData(root=str(pictures), broken="skip")
    checked(data)
    refused(data, "no usable training picture of 1 class (dog)")
    assert "3 files cannot be used" in refused(FolderData(root=str(pictures)), "mine: ")


def test_what_was_never_checked_is_refused(pictures):
    assert "longtail check-data" in refused(FolderData(root=str(pictures)), "were not checked yet")


# identity and change


def test_the_same_folder_at_another_root_has_the_same_identity(pictures, tmp_path):
    data = FolderData(root=str(pictures))
    checked(data)
    before = members.identity("mine", data)
    shutil.copytree(pictures, tmp_path / "elsewhere")
    elsewhere = FolderData(root=str(tmp_path / "elsewhere"))
    members.current("mine", elsewhere)  # sizes are the same; nothing was read there
    assert members.identity("mine", elsewhere) == before
    checked(elsewhere)
    assert members.identity("mine", elsewhere) == before


def test_one_changed_byte_is_another_identity(pictures):
    data = FolderData(root=str(pictures))
    checked(data)
    before = members.identity("mine", data)
    noise(77).save(pictures / "cat/000.jpg")
    checked(data)
    assert members.identity("mine", data) != before


def test_what_the_smallest_size_leaves_out_is_part_of_the_identity(pictures):
    noise(5, 10, 8).save(pictures / "cat/small.png")
    data = FolderData(root=str(pictures))
    checked(data)
    plain = members.identity("mine", data)
    assert members.identity("mine", data.model_copy(update={"smallest": 8})) == plain
    larger = data.model_copy(update={"smallest": 9, "broken": "skip"})
    assert members.members("mine", larger).left_out == ["cat/small.png"]
    skipped = data.model_copy(update={"broken": "skip"})
    assert members.identity("mine", larger) != members.identity("mine", skipped)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda root: noise(9).save(root / "cat/new.png"), r"1 file is new since the check \(cat/new.png\)"),
        (lambda root: (root / "cat/000.jpg").unlink(), r"1 file is gone since the check \(cat/000.jpg\)"),
        (lambda root: os.utime(root / "dog/000.jpg", (5, 5)), r"1 file is changed since the check"),
        (lambda root: shutil.rmtree(root / "dog"), r"3 files are gone since the check"),
        (lambda root: (root / "cat").rename(root / "Cat"), r"8 files are new or gone .*\.\.\.\)"),
    ],
)
def test_a_folder_that_changed_after_the_check_is_one_line(pictures, edit, word):
    data = FolderData(root=str(pictures))
    checked(data)
    members.current("mine", data)
    assert members.changed("mine", data) == []
    edit(pictures)
    with pytest.raises(UserError, match=f"mine: {word}") as caught:
        members.current("mine", data)
    assert "longtail check-data" in str(caught.value)


def test_files_that_are_no_pictures_may_come_and_go(pictures):
    data = FolderData(root=str(pictures))
    checked(data)
    (pictures / "cat/notes.txt").touch()
    (pictures / ".DS_Store").touch()
    members.current("mine", data)


def test_every_file_is_hashed_once_where_this_machine_has_not_read_it(pictures, tmp_path):
    data = FolderData(root=str(pictures))
    checked(data)
    shutil.copytree(pictures, tmp_path / "copy")
    size = (tmp_path / "copy/cat/000.jpg").stat().st_size
    copy = FolderData(root=str(tmp_path / "copy"))
    assert members.changed("mine", copy) == []
    noise(3).save(tmp_path / "copy/cat/000.jpg")
    os.truncate(tmp_path / "copy/cat/000.jpg", size)
    assert members.changed("mine", copy) == ["cat/000.jpg"]


def test_links_out_of_the_root_are_known(pictures, tmp_path):
    home = os.path.realpath(pictures)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.jpg").touch()
    (pictures / "cat/in.jpg").symlink_to("../dog/000.jpg")
    (pictures / "cat/out.jpg").symlink_to(tmp_path / "outside/x.jpg")
    (pictures / "linked").symlink_to(tmp_path / "outside")
    assert not members.leaves(home, "cat/000.jpg")
    assert not members.leaves(home, "cat/in.jpg")
    assert members.leaves(home, "cat/out.jpg")
    assert members.leaves(home, "linked/x.jpg")


def test_a_root_that_is_a_link_is_the_folder_that_it_leads_to(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures)
    data = FolderData(root=str(tmp_path / "link"))
    checked(data)
    members.current("mine", data)
    assert members.changed("mine", data) == []


# lists


def listed(root: Path, train: str = "cat/000.jpg 0\ndog/000.jpg 1\n", **other: str) -> ListData:
    files = {part: text(f"{part}.txt", content) for part, content in {"train": train, **other}.items()}
    return ListData(root=str(root), **files)


def test_lists_need_no_check_and_are_known_by_their_content(pictures, tmp_path):
    data = listed(pictures, test="cat/001.jpg 0\n")
    found = members.members("mine", data)
    assert found.classes == ["0", "1"]
    assert found.parts == {"train": [("cat/000.jpg", 0), ("dog/000.jpg", 1)], "test": [("cat/001.jpg", 0)]}
    before = members.identity("mine", data)
    assert members.identity("mine", data.model_copy(update={"root": str(tmp_path)})) == before
    members.current("mine", data)
    assert members.identity("mine", listed(pictures, test="cat/002.jpg 0\n")) != before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/etc/passwd 1", "leaves data.root"),
        ("../a.jpg 1", "leaves data.root"),
        ("a/../../b.jpg 1", "leaves data.root"),
        ("a.jpg", "is not `path label`"),
        ("a.jpg cat", "is not `path label`"),
        ("a.jpg -1", "is not `path label`"),
        ("a.jpg 1.0", "is not `path label`"),
        ("a.jpg 9999999999", "is not `path label`"),
        ("1", "is not `path label`"),
    ],
)
def test_a_wrong_line_of_a_list_is_named_by_its_number(pictures, line, said):
    assert said in refused(listed(pictures, f"ok.jpg 0\n\n{line}\n"), "train.txt:3: ")


def test_labels_with_gaps_are_refused(pictures):
    refused(listed(pictures, "a.jpg 0\nb.jpg 2\nc.jpg 5\n"), "there is no 1 (3 labels of 6 missing)")


def test_a_label_that_training_has_not_is_refused(pictures):
    refused(listed(pictures, test="x.jpg 7\n"), "test.txt: label 7 is not in the training list")


@pytest.mark.parametrize("again", ["cat/000.jpg 0\n", "./cat/000.jpg 0\n", "cat//000.jpg 0\n"])
def test_a_picture_in_two_parts_is_refused_however_it_is_written(pictures, again):
    refused(listed(pictures, test=again), "cat/000.jpg is named twice, in train and test")


def test_an_empty_list_is_refused(pictures):
    refused(listed(pictures, "\n \n"), "names no picture")


def test_spaces_tabs_marks_and_odd_names_are_read(pictures):
    lines = "\ufeffa b/c d.jpg 0\r\ncat\t1\r\né\u2028猫.jpg  2\r\n\r\n"
    found = members.members("mine", listed(pictures, lines)).parts["train"]
    assert found == [("a b/c d.jpg", 0), ("cat", 1), ("é\u2028猫.jpg", 2)]


def test_class_names_that_several_classes_have_go_with_their_labels(pictures):
    data = listed(pictures, "a.jpg 0\nb.jpg 1\nc.jpg 2\n")
    named = data.model_copy(update={"names": text("names.txt", "crane\ncat\ncrane\n")})
    assert members.members("mine", named).classes == ["crane (0)", "cat", "crane (2)"]
    short = data.model_copy(update={"names": text("names.txt", "crane\ncat\n")})
    refused(short, "has 2 names, the lists have 3 classes")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_list_that_cannot_be_read_is_one_line(pictures, content):
    data = listed(pictures)
    Path("train.txt").unlink()
    if content is not None:
        Path("train.txt").write_bytes(content)
    refused(data, "train.txt: ")


def test_checked_lists_are_held_against_the_pictures(pictures):
    data = listed(pictures)
    checked(data)
    members.current("mine", data)
    (pictures / "cat/000.jpg").write_text("changed")
    with pytest.raises(UserError, match="1 file is changed"):
        members.current("mine", data)


def test_a_smallest_size_of_lists_needs_a_check(pictures):
    refused(listed(pictures).model_copy(update={"smallest": 5}), "were not checked yet")


# tables


def tabled(root: Path, content: str) -> CsvData:
    data = CsvData(root=str(root), file=text("t.csv", content))
    manifest.write("mine", [])
    return data


def test_a_table_names_parts_and_classes(pictures):
    content = '\ufefflabel,path,part,who\r\n"a, b",cat/000.jpg,,x\r\n'
    content += "dog,dog/000.jpg,train,\r\ndog,dog/001.jpg,test,\r\n"
    data = tabled(pictures, content)
    checked(data)
    found = members.members("mine", data)
    assert found.classes == ["a, b", "dog"]
    assert found.parts == {"train": [("cat/000.jpg", 0), ("dog/000.jpg", 1)], "test": [("dog/001.jpg", 1)]}
    before = members.identity("mine", data)
    assert members.identity("mine", tabled(pictures, content.replace(",x", ",y"))) != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,class\na.jpg,x\n", "needs the columns path and label"),
        ("path;label\na.jpg;x\n", "not path;label; part them by ',' instead of ';'"),
        ("path,label\na.jpg,x,y\n", "t.csv:2: has more cells than the first line; quote those with commas"),
        ("", "needs the columns path and label"),
        ("path,label\n", "at least two are needed"),
        ("path,label,part\na.jpg,x,val\n", "t.csv:2: part 'val' is none of train, validation, test"),
        ("path,label\na.jpg,\n", "t.csv:2: has no label"),
        ("path,label\na.jpg\n", "t.csv:2: has no label"),
        ('path,label\n"b\nc.jpg",x\n../a.jpg,x\n', "t.csv:4: '../a.jpg' leaves data.root"),
        ("path,label\n/a.jpg,x\n", "leaves data.root"),
        ("path,label\n,x\n", "t.csv:2: has no path"),
        ("path,label,part\na.jpg,x,train\na.jpg,y,test\n", "a.jpg is named twice, in train and test"),
        ("path,label\na.jpg,x\nb.jpg,y\n", "a.jpg was not there at the check"),
        ("path,label\n" + "x" * 200_000 + ",y\n", "is not a CSV"),
    ],
)
def test_a_wrong_table_is_one_line(pictures, content, said):
    refused(tabled(pictures, content), said)


@pytest.mark.parametrize("path", ["cat\\000.jpg", ".\\cat\\000.jpg", "./cat\\000.jpg", "cat\\\\000.jpg"])
def test_paths_of_windows_are_understood(pictures, path):
    assert lists.named(tabled(pictures, f"path,label\n{path},cat\n"), []) == {
        "train": [("cat/000.jpg", "cat")]
    }
    assert lists.named(listed(pictures, f"{path} 0\n"), []) == {"train": [("cat/000.jpg", "0")]}


@pytest.mark.parametrize("path", ["C:\\a.jpg", "d:/a.jpg"])
def test_a_drive_of_windows_is_named(pictures, path):
    refused(tabled(pictures, f"path,label\n{path},x\n"), "names a drive of Windows")


def test_the_systems_own_folders_are_passed_over(pictures):
    before = members.files(FolderData(root=str(pictures)))
    for name in ("@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "#recycle", "lost+found"):
        (pictures / "cat" / name).mkdir()
        noise(1).save(pictures / "cat" / name / "a.jpg")
    assert members.files(FolderData(root=str(pictures))) == before


def test_a_table_that_is_not_utf8_is_one_line(pictures):
    data = tabled(pictures, "x")
    Path("t.csv").write_bytes(b"path,label\ncaf\xe9.jpg,x\n")
    refused(data, "is not a CSV file in UTF-8")


def test_a_listed_file_that_is_not_there_is_broken_and_named(pictures):
    data = tabled(pictures, "path,label\ncat/000.jpg,cat\ndog/000.jpg,dog\ndog/nowhere.jpg,dog\n")
    checked(data)
    members.current("mine", data)
    refused(data, "dog/nowhere.jpg there is no such file")
    assert members.members("mine", data.model_copy(update={"broken": "skip"})).left_out == ["dog/nowhere.jpg"]


# published lists, at their full size


def groups(counts) -> tuple[int, int, int]:
    found = Counter(group(count) for count in counts)
    return found["many"], found["medium"], found["few"]


def test_places_lt_has_its_published_totals_and_groups(shared, tmp_path):
    lists = shared / "data/lists"
    data = ListData(
        root=str(tmp_path),
        train=str(lists / "Places_LT_train.txt"),
        validation=str(lists / "Places_LT_val.txt"),
        test=str(lists / "Places_LT_test.txt"),
    )
    found = members.members("places", data)
    members.identity("places", data)
    assert {part: len(rows) for part, rows in found.parts.items()} == {
        "train": 62_500,
        "validation": 7_300,
        "test": 36_500,
    }
    counts = np.bincount([label for _, label in found.parts["train"]])
    assert (len(counts), counts.max(), counts.min()) == (365, 4_980, 5)
    assert groups(counts) == (131, 163, 71)


def test_imagenet_lt_has_its_published_counts_and_groups(shared):
    counts = published("imagenet_lt")
    assert (len(counts), counts.sum(), counts.max(), counts.min()) == (1000, 115_846, 1280, 5)
    assert groups(counts) == (385, 479, 136)
    told = json.loads((shared / "data/lists/ImageNet_LT_train_counts.json").read_text())
    assert counts.tolist() == told


@pytest.mark.parametrize(
    ("name", "pictures", "classes"),
    [
        ("ImageNet_LT_val", 20_000, 1000),
        ("ImageNet_LT_test", 50_000, 1000),
        ("iNaturalist18_val", 24_426, 8142),
    ],
)
def test_published_lists_are_read_at_full_size(shared, name, pictures, classes):
    rows = lists.read_list(str(shared / f"data/lists/{name}.txt"))
    assert len(rows) == len(dict(rows)) == pictures
    assert {label for _, label in rows} == set(range(classes))


def test_no_photograph_is_opened_to_see_that_none_has_changed(shared):
    data = FolderData(root=str(shared / "data/photos"))
    found = members.files(data)
    assert len(found) == 3_340
    entries = [
        manifest.Entry(path, stat[0], sha256(path.encode()).hexdigest(), 1, 1, "RGB", "")
        for path, stat in found.items()
    ]
    manifest.write("photos", entries)
    file_changes.write_stats("photos", members.root_of(data), entries, found)
    opened: list[str] | None = []

    def watch(event: str, details: tuple) -> None:  # hooks cannot be taken away again
        if opened is not None and event == "open":
            opened.append(str(details[0]))

    sys.addaudithook(watch)
    members.current("photos", data)
    seen, opened = opened, None
    assert any("photos" in path for path in seen)  # what the check wrote
    assert not [path for path in seen if path.startswith(data.root)]
