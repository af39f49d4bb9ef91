"""A manifest is read as it was written, and says of a file exactly what is true of it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.data import file_changes, manifest
from longtail.data.manifest import Entry
from longtail.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
# whatever a file may be called: any bytes but these two
NAMES = (TEXTS.map(os.fsencode) | st.binary()).map(
    lambda name: os.fsdecode(name.replace(b"\0", b"").replace(b"/", b"")) or "x"
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.builds(
    Entry,
    path=PATHS,
    bytes=st.integers(0, 2**60),
    sha256=st.sampled_from(["", "0" * 64, "ab" * 32]),
    width=st.integers(0, 10**6),
    height=st.integers(0, 10**6),
    mode=st.sampled_from(["", "RGB", "I;16"]),
    trouble=TEXTS,
    format=st.sampled_from(["", "JPEG"]),
)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@given(entries=st.lists(ENTRIES, unique_by=lambda entry: entry.path))
def test_what_is_written_is_read(tmp_path_factory, entries):
    os.chdir(tmp_path_factory.mktemp("round"))
    manifest.write("mine", reversed(entries))
    assert manifest.read("mine") == sorted(entries, key=manifest.BY_PATH)


def test_a_name_that_is_not_utf8_is_read_as_it_was():
    entry = Entry(os.fsdecode(b"caf\xe9/a.jpg"), 1, "00", 1, 1, "RGB", "", "JPEG")
    manifest.write("mine", [entry])
    assert manifest.read("mine") == [entry]


@given(entries=st.lists(ENTRIES, unique_by=lambda entry: entry.path), seed=st.randoms())
def test_the_digest_is_of_paths_contents_and_usability_alone(entries, seed):
    digest = manifest.digest(entries)
    shuffled = list(entries)
    seed.shuffle(shuffled)
    assert manifest.digest(shuffled) == digest
    other = [entry._replace(bytes=1, width=2, height=3, mode="L", format="PNG") for entry in entries]
    assert manifest.digest(other) == digest
    said = [entry._replace(trouble="other words" if entry.trouble else "") for entry in entries]
    assert manifest.digest(said) == digest
    for number, entry in enumerate(entries):
        for edit in (
            {"path": entry.path + "x"},
            {"sha256": "ff" * 32},
            {"trouble": "" if entry.trouble else "x"},
        ):
            edited = [*entries[:number], entry._replace(**edit), *entries[number + 1 :]]
            assert manifest.digest(edited) != digest


def test_no_manifest_is_none_and_no_error():
    assert manifest.read("mine") is None


@pytest.mark.parametrize(
    "text",
    ["", "path\n", "path,bytes,sha256,width,height,mode,trouble,format\na,b,c,d,e,f,g,h\n", "\0", "a\n" * 3],
)
def test_what_is_no_manifest_is_one_line_with_the_way_out(text):
    manifest.write("mine", [])
    manifest.file_of("mine").write_text(text)
    with pytest.raises(UserError, match=r"is not a manifest.*check-data.* writes it anew"):
        manifest.read("mine")


def test_writing_leaves_no_other_file():
    manifest.write("mine", [])
    assert [file.name for file in Path("data/checked/mine").iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize("path", ["", "/a.jpg", "../a.jpg", "a/../b.jpg", "a/..", "a\0b"])
def test_paths_that_leave_the_root_are_known(path):
    assert not manifest.inside(path)


@pytest.mark.parametrize("path", ["a.jpg", "./a.jpg", "a/b c/d..jpg", "...jpg", "a//b.jpg", "é/猫.png"])
def test_paths_that_stay_inside_are_known(path):
    assert manifest.inside(path)


@pytest.mark.parametrize("given", [".", "photos", "./photos", "photos/", "ABSOLUTE"])
@pytest.mark.parametrize("below", [".", "train", "train/deep"])
def test_paths_are_below_the_root_however_it_is_written(given, below, tmp_path, monkeypatch):
    top = tmp_path / "photos"
    (top / "train/deep/cat").mkdir(parents=True)
    for name in ("a.jpg", "B.PNG", "c.txt", ".d.jpg"):
        (top / "train/deep/cat" / name).write_text(name)
    (top / "train/deep/.hidden").mkdir()
    (top / "train/deep/.hidden/e.jpg").touch()
    (top / "train/loop").symlink_to(top)
    if given == ".":
        monkeypatch.chdir(top)
    root = tmp_path / "photos" if given == "ABSOLUTE" else Path(given)
    found = file_changes.picture_files(root, below)
    assert sorted(found) == ["train/deep/cat/B.PNG", "train/deep/cat/a.jpg"]
    assert found["train/deep/cat/a.jpg"][0] == 5


def stamped(root: Path, names: str) -> tuple[list[Entry], file_changes.Stats]:
    """Files of one letter each, known to the manifest and to this machine."""
    for name in names:
        (root / f"{name}.jpg").write_text(name)
    found = file_changes.picture_files(root)
    entries = [Entry(path, stat[0], path[0] * 64, 1, 1, "RGB", "") for path, stat in found.items()]
    file_changes.write_stats("mine", root, entries, found)
    return entries, found


def test_changes_are_told_apart(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    entries, _ = stamped(root, "abcd")
    assert file_changes.changes("mine", root, entries, file_changes.picture_files(root)) == {}
    (root / "a.jpg").write_text("longer")
    os.utime(root / "b.jpg", (1, 1))
    (root / "c.jpg").unlink()
    (root / "e.jpg").write_text("e")
    now = file_changes.picture_files(root)
    expected = {"a.jpg": "changed", "b.jpg": "changed", "c.jpg": "gone", "e.jpg": "new"}
    assert file_changes.changes("mine", root, entries, now) == expected
    assert [entry.path for entry in file_changes.unmoved("mine", root, entries, now)] == ["d.jpg"]


def test_another_machines_manifest_does_not_pass_for_what_this_one_read(tmp_path):
    """A colleague changed a.jpg, size as before, and git brought the manifest without the picture."""
    root = tmp_path / "root"
    root.mkdir()
    entries, found = stamped(root, "ab")
    theirs = [entry._replace(sha256="f" * 64) if entry.path == "a.jpg" else entry for entry in entries]
    assert file_changes.changes("mine", root, theirs, found) == {"a.jpg": "changed"}
    assert [entry.path for entry in file_changes.unmoved("mine", root, theirs, found)] == ["b.jpg"]


def test_on_a_machine_that_read_nothing_sizes_count(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    entries, found = stamped(root, "ab")
    (tmp_path / ".longtail/checked/mine.json").unlink()
    later = {path: (size, time + 1) for path, (size, time) in found.items()}
    assert file_changes.changes("mine", root, entries, later) == {}
    assert file_changes.unmoved("mine", root, entries, later) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"root": 1}', '{"root": "x", "files": 3}'])
def test_a_damaged_memory_of_sizes_and_times_is_none(text, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    entries, found = stamped(root, "ab")
    (tmp_path / ".longtail/checked/mine.json").write_text(text)
    assert file_changes.unmoved("mine", root, entries, found) == []
    assert file_changes.changes("mine", root, entries, found) == {}
