"""A dataset of picture files through acquisition, split and parts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from longtail.data import acquire, file_changes, holding_out, manifest, split
from longtail.data import catalogue as members
from longtail.data import held_out as counted
from longtail.data.file_names import packed, unpacked
from longtail.data.labelled_images import read_part, read_whole
from longtail.errors import UserError
from longtail.runs.identity import file_digest
from longtail.runs.lookup import pictures_root
from longtail.runs.store import TOLD
from longtail.settings.acquire import AcquireSettings
from longtail.settings.data import FolderData, HeldOut, Pictures
from longtail.settings.split import SplitSettings

COUNTS = {"cat": 9, "dog": 6, "eel": 4}


@pytest.fixture(autouse=True)
def _a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    root = tmp_path / "pictures"
    for level, (name, count) in enumerate(COUNTS.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (12, 10), (60 * level, 10 * number, 0)).save(root / name / f"{number}.png")
    return root


def checked(root: Path, trouble: dict[str, str] | None = None) -> None:
    """A manifest as a check writes it."""
    stats = file_changes.picture_files(root)
    rows = [
        manifest.Entry(
            path, size, file_digest(root / path), 12, 10, "RGB", (trouble or {}).get(path, ""), "PNG"
        )
        for path, (size, _) in stats.items()
    ]
    manifest.write("pets", rows)
    file_changes.write_stats("pets", root, rows, stats)


@pytest.fixture
def acquired(tmp_path, pictures) -> Callable[..., Path]:
    def make(**changes) -> Path:
        if not manifest.file_of("pets").exists():
            checked(pictures)
        data = {"root": str(pictures), "held_out": {"per_class": 2}, **changes}
        settings = AcquireSettings(dataset="pets", files=FolderData(**data))
        folder = tmp_path / "data/raw/pets"
        folder.mkdir(parents=True, exist_ok=True)
        acquire.compute(SimpleNamespace(settings=settings, folder=folder, facts={}))
        outputs = {file.name: "" for file in folder.glob("*.safetensors")}
        record = {"identity": "0", "outputs": outputs, "settings": settings.resolved()}
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    return make


def divided(raw: Path, place: Path, **changes) -> Path:
    place.mkdir()
    given = {"dataset": "pets", "imbalance": {"profile": "natural"}, "validation": {"source": "holdout"}}
    settings = SplitSettings.model_validate({**given, **changes})
    split.compute(SimpleNamespace(settings=settings, folder=place, inputs={"acquire": raw}, facts={}))
    return place


def test_pictures_stay_where_they_are_and_are_found_by_name_and_label(acquired, tmp_path):
    raw = acquired()
    assert json.loads((raw / "classes.json").read_text()) == list(COUNTS)
    parts = {part: load_file(raw / f"{part}.safetensors") for part in ("train", "test")}
    assert parts["train"]["labels"].bincount().tolist() == [7, 4, 2]
    assert parts["test"]["labels"].bincount().tolist() == [2, 2, 2]
    names = [unpacked(part["names"]) for part in parts.values()]
    assert sorted(names[0] + names[1]) == sorted(f"{c}/{n}.png" for c in COUNTS for n in range(COUNTS[c]))
    folder = divided(raw, tmp_path / "split")
    for name in ("train", "validation", "test"):
        part = read_part(folder, raw, name, Pictures(size=8), pictures_root(raw))
        for batch, labels in zip(part.images.split(3), part.labels.split(3), strict=True):
            assert (batch[:, 0, 0, 0] // 60).tolist() == labels.tolist()


def test_what_is_held_out_is_chosen_by_a_seed(acquired):
    def test_names(**changes):
        return unpacked(load_file(acquired(**changes) / "test.safetensors")["names"])

    assert test_names() == test_names()
    assert test_names() != test_names(held_out={"per_class": 2, "seed": 1})
    assert len(test_names(held_out={"share": 0.34})) == 3 + 2 + 1


@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.floats(0.01, 0.49))
def test_a_share_leaves_and_takes_some_of_every_class(counts, share):
    rows = [(f"{label}/{n}", label) for label, count in enumerate(counts) for n in range(count)]
    train, test = holding_out.held_out("pets", rows, len(counts), HeldOut(share=share))
    assert sorted(train + test) == sorted(rows)
    for label in range(len(counts)):
        assert any(other == label for _, other in train)
        assert any(other == label for _, other in test)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 8), st.integers(0, 9))
def test_untested_classes_stay_whole_and_the_others_give_what_they_gave(counts, per_class, seed):
    rows = [(f"{label}/{n}", label) for label, count in enumerate(counts) for n in range(count)]
    held = HeldOut(per_class=per_class, seed=seed, untested=True)
    if max(counts) <= per_class:
        with pytest.raises(UserError, match="leaves no class to test"):
            holding_out.held_out("pets", rows, len(counts), held)
        return
    train, test = holding_out.held_out("pets", rows, len(counts), held)
    found = [sum(other == label for _, other in test) for label in range(len(counts))]
    assert found == [per_class if count > per_class else 0 for count in counts]
    assert found == [counted.tested(count, held) for count in counts]
    assert sorted(train + test) == sorted(rows)
    if min(counts) > per_class:
        plain = held.model_copy(update={"untested": False})
        assert (train, test) == holding_out.held_out("pets", rows, len(counts), plain)


def test_a_key_that_was_added_changes_no_identity():
    assert HeldOut(per_class=2).resolved(hashed=True) == {"per_class": 2, "share": None, "seed": 0}


@pytest.mark.parametrize(
    ("held", "said"),
    [(None, "pets: has no test images"), ({"per_class": 4}, "takes 4 images of every class, but one has 4")],
)
def test_test_images_that_cannot_be_had(acquired, held, said):
    with pytest.raises(UserError, match=said):
        acquired(held_out=held)


def test_the_datasets_own_folders_are_its_parts(acquired, pictures, tmp_path):
    for part, number in (("train", 3), ("val", 2), ("test", 1)):
        for name in COUNTS:
            (pictures / part / name).mkdir(parents=True)
            for picture in range(number):
                (pictures / name / f"{picture}.png").rename(pictures / part / name / f"{part}{picture}.png")
                Image.new("RGB", (9, 9), (1, 2, picture)).save(pictures / name / f"{picture}.png")
    raw = acquired(train="train", validation="val", test="test", held_out=None)
    assert {p.stem for p in raw.glob("*.safetensors")} == {"train", "validation", "test"}
    folder = divided(raw, tmp_path / "split", validation={"source": "official"})
    validation = read_part(folder, raw, "validation", Pictures(size=8), pictures_root(raw))
    assert validation.labels.bincount().tolist() == [2, 2, 2]
    assert all("val/" in validation.images.names[row] for row in validation.images.rows)
    with (folder / "validation.csv").open() as rows:
        assert {row["source"] for row in csv.DictReader(rows)} == {"validation"}


def test_validation_images_that_are_missing_are_said(acquired, tmp_path):
    with pytest.raises(UserError, match=r"validation: official: pets has no validation images"):
        divided(acquired(), tmp_path / "split", validation={"source": "official"})


@pytest.mark.parametrize("what", ["changed", "removed", "linked out"])
def test_a_file_that_is_not_what_was_checked_is_named(acquired, pictures, tmp_path, what):
    checked(pictures)
    file = pictures / "dog/3.png"
    if what == "changed":
        file.write_bytes(file.read_bytes() + b" ")
    elif what == "removed":
        file.unlink()
    else:
        elsewhere = tmp_path / "elsewhere.png"
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
        checked(pictures)
    with pytest.raises(UserError, match=r"dog/3.png (is not what was checked|is not there)|check"):
        acquired()


def test_on_another_machine_contents_are_compared(acquired, pictures):
    checked(pictures)
    file_changes._stats_file("pets").unlink()
    acquired()
    file_changes._stats_file("pets").unlink()
    file = pictures / "cat/1.png"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)  # of the same size
    with pytest.raises(UserError, match=r"cat/1.png is not what was checked"):
        acquired()


def test_broken_files_are_left_out_or_stop(acquired, pictures):
    checked(pictures, {"cat/0.png": "is empty"})
    with pytest.raises(UserError, match=r"cat/0.png is empty"):
        acquired()
    raw = acquired(broken="skip")
    names = [unpacked(load_file(raw / f"{part}.safetensors")["names"]) for part in ("train", "test")]
    assert "cat/0.png" not in names[0] + names[1]


def test_pictures_that_have_moved_are_found_where_the_plan_says(acquired, pictures, tmp_path):
    raw = acquired()
    folder = divided(raw, tmp_path / "split")
    pictures.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="to where they are now"):
        read_part(folder, raw, "train", Pictures(size=8), pictures_root(raw))
    told = Path(".longtail/plan/acquire/pets.json")
    told.parent.mkdir(parents=True)
    planned = {**dict.fromkeys(TOLD["runs"]), "settings": {"files": {"root": str(tmp_path / "moved")}}}
    told.write_text(json.dumps({**planned, "identity": "of another dataset of this name"}))
    with pytest.raises(UserError, match="to where they are now"):
        read_part(folder, raw, "train", Pictures(size=8), pictures_root(raw))
    told.write_text(json.dumps({**planned, "identity": "0"}))
    assert len(read_part(folder, raw, "train", Pictures(size=8), pictures_root(raw)).images.split(4)[0]) == 4


def test_the_whole_training_set_is_every_training_picture(acquired):
    raw = acquired()
    whole = read_whole(raw, Pictures(size=8), pictures_root(raw))
    assert len(whole.labels) == 13
    assert torch.equal(whole.samples, torch.arange(13))


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), max_size=5))
def test_names_are_kept_whatever_they_are(names):
    names = [name.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for name in names]
    assert unpacked(packed(names)) == names
    assert unpacked(packed(["a\udcff.jpg"])) == ["a\udcff.jpg"]  # a file's name that is not UTF-8


def test_published_counts_are_an_imbalance(tmp_path):
    from longtail.data.imbalance import counts, published
    from longtail.settings.split import CountsImbalance

    wanted = published("imagenet_lt")
    assert (len(wanted), wanted.sum(), wanted.max(), wanted.min()) == (1000, 115_846, 1280, 5)
    available = np.full(1000, 1300)
    assert (counts(CountsImbalance(counts="imagenet_lt"), available) == wanted).all()
    with pytest.raises(UserError, match="asks for 1280 images of class 86, which has 1245"):
        counts(CountsImbalance(counts="imagenet_lt"), np.minimum(available, 1245))
    with pytest.raises(UserError, match="is of 1000 classes, the dataset has 10"):
        counts(CountsImbalance(counts="imagenet_lt"), available[:10])


def test_the_choice_of_test_images_is_the_one_that_identities_stand_for():
    """Another choice under the same identity would mix two datasets: count members.CHOICE up then."""
    rows = [(f"{label}/{n}", label) for label in range(3) for n in range(9)]
    _, test = holding_out.held_out("pets", rows, 3, HeldOut(per_class=2, seed=5))
    assert members.CHOICE == 1
    assert [path for path, _ in test] == ["0/3", "0/6", "1/0", "1/6", "2/1", "2/7"]
