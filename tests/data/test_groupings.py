"""What belongs together: sub-folders, a column, near-duplicates; a wrong name is one line."""

from pathlib import Path

import pytest

from longtail.data import catalogue, groupings, manifest
from longtail.data.perceptual_hash import FLAT
from longtail.errors import UserError
from longtail.settings.data import CsvData, FolderData, HeldOut, ListData

PATHS = ["cat/a/1.jpg", "cat/a/2.jpg", "cat/b/1.jpg", "cat/3.jpg", "cat/4.jpg", "dog/a/1.jpg"]
LOOKS = {"x": "0" * 48, "y": "0" * 47 + "f", "z": "f" * 48}


@pytest.fixture(autouse=True)
def _a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folder(**changes) -> FolderData:
    return FolderData(root="pictures", held_out=HeldOut(per_class=1, groups="folder"), **changes)


def checked(looks: dict[str, str]) -> None:
    manifest.write(
        "pets",
        [
            manifest.Entry(path, 1, f"{n}", 9, 9, "RGB", "", "PNG", look)
            for n, (path, look) in enumerate(looks.items())
        ],
    )


def test_sub_folders_are_groups_and_pictures_beside_them_are_for_themselves():
    assert groupings.of("pets", folder(), PATHS).tolist() == [0, 0, 2, 3, 4, 5]


def test_sub_folders_count_from_the_folder_of_the_part():
    paths = [f"train/{path}" for path in PATHS]
    assert groupings.of("pets", folder(train="train", test="test"), paths).tolist() == [0, 0, 2, 3, 4, 5]


def test_without_groups_there_are_none():
    assert groupings.of("pets", FolderData(root="pictures", held_out=HeldOut(per_class=1)), PATHS) is None
    assert groupings.of("pets", FolderData(root="pictures"), PATHS) is None


def table(column: str) -> CsvData:
    Path("pets.csv").write_text("path,label,patient\na.jpg,cat,7\nb.jpg,dog,7\nc.jpg,cat,\nd.jpg,cat,\n")
    return CsvData(root="pictures", file="pets.csv", held_out=HeldOut(per_class=1, groups=column))


def test_a_column_makes_groups_over_classes_and_an_empty_cell_makes_none():
    assert groupings.of("pets", table("patient"), ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]).tolist() == [
        0,
        0,
        2,
        3,
    ]


def test_a_column_that_is_not_there_is_one_line():
    with pytest.raises(
        UserError, match=r"groups: camera: pets.csv has no such column; there are patient, and"
    ):
        groupings.of("pets", table("camera"), ["a.jpg"])
    data = FolderData(root="pictures", held_out=HeldOut(per_class=1, groups="camera"))
    with pytest.raises(UserError, match=r"a column goes with data.kind: csv"):
        groupings.of("pets", data, PATHS)


def near(distance: int | None = 24) -> FolderData:
    held = HeldOut(per_class=1, groups="near_duplicates")
    return FolderData(root="pictures", held_out=held, near_duplicates=distance)


def test_flat_pictures_are_alike_where_they_are_the_same_and_make_other_runs():
    flat = [
        manifest.Entry(path, 1, digest, 9, 9, "RGB", "", "PNG", FLAT)
        for path, digest in (("a", "1"), ("b", "2"), ("c", "1"))
    ]
    manifest.write("pets", flat)
    assert groupings.of("pets", near(), ["a", "b", "c"]).tolist() == [0, 1, 0]
    copies = catalogue.identity("pets", near())
    manifest.write("pets", [entry._replace(sha256=str(n)) for n, entry in enumerate(flat)])
    assert groupings.of("pets", near(), ["a", "b", "c"]).tolist() == [0, 1, 2]
    assert catalogue.identity("pets", near()) != copies


def test_datasets_with_tiffs_are_others_than_before_these_were_turned_rightly():
    found = {}
    for kind in ("PNG", "TIFF"):
        entries = [manifest.Entry(f"{n}.x", 1, n, 9, 9, "RGB", "", kind, "0" * 48) for n in "ab"]
        manifest.write("pets", entries)
        found[kind] = catalogue.identity("pets", FolderData(root="pictures"))
    assert found["PNG"] != found["TIFF"]  # which the manifest's digest alone does not tell


def test_near_duplicates_are_groups_by_the_hashes_of_the_check():
    checked({**LOOKS, "white": FLAT, "black": FLAT})
    paths = ["z", "x", "white", "y", "black"]
    assert groupings.of("pets", near(), paths).tolist() == [0, 1, 2, 1, 4]
    assert groupings.of("pets", near(3), paths).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("before", [None, {"x": "", "y": ""}])
def test_near_duplicates_that_were_not_looked_for_are_one_line(before):
    if before:
        checked(before)
    with pytest.raises(UserError, match=r"were not compared yet; `longtail check-data`"):
        groupings.of("pets", near(), ["x", "y"])
    with pytest.raises(UserError, match=r"needs data.near_duplicates"):
        groupings.of("pets", near(None), ["x", "y"])


def test_what_decides_groups_is_in_the_identity_and_nothing_else_is():
    checked(LOOKS)
    plain = FolderData(root="pictures", held_out=HeldOut(per_class=1))
    before = catalogue.identity("pets", plain)
    assert catalogue.identity("pets", plain.model_copy(update={"near_duplicates": 3})) == before
    own = {catalogue.identity("pets", data) for data in (near(), near(3), folder())}
    assert len(own | {before}) == 4
    first = catalogue.identity("pets", near())
    checked({**LOOKS, "z": "e" * 48})
    assert catalogue.identity("pets", plain) == before
    assert catalogue.identity("pets", near()) != first


def test_published_lists_are_grouped_by_folders_without_a_check():
    data = ListData(root="pictures", train="a.txt", held_out=HeldOut(per_class=1, groups="folder"))
    assert groupings.of("pets", data, ["n1/1.jpg", "n1/2.jpg", "n2/1.jpg"]).tolist() == [0, 0, 2]
