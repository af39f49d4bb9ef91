"""Labels that were flipped are found, by class, and a class that is too small to be judged says so."""

import csv
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longtail.errors import UserError
from longtail.publish import data_problems, label_issues, out_of_fold
from longtail.publish.label_issues import FeaturePictures
from longtail.random import generator

SIZES = [120, 60, 30, 20, 12, 4, 1]  # the last two have fewer pictures than folds
FLIPPED = [6, 4, 3, 2, 1]


def clusters(sizes: list[int], seed: int = 0, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 24 dimensions around a centre a class, four standard deviations apart, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 4 * np.eye(24)[: len(sizes)]
    features = centres[labels] + spread * random.normal(size=(len(labels), 24))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def pictures(features: torch.Tensor, labels: torch.Tensor, classes: int) -> FeaturePictures:
    number = len(labels)
    return FeaturePictures(
        features=features,
        labels=labels,
        part=["test" if place % 5 == 0 else "train" for place in range(number)],
        sample=list(range(number)),
        file=[f"{place}.jpg" for place in range(number)],
        names=[f"c{label}" for label in range(classes)],
        groups=torch.arange(number),
    )


def flipped(labels: torch.Tensor, numbers: list[int]) -> tuple[torch.Tensor, set[int]]:
    """Labels of which so many of each class are those of the next judged class; and which they are."""
    wrong = labels.clone()
    places = set()
    for label, number in enumerate(numbers):
        own = (labels == label).nonzero().flatten()[:number]
        wrong[own] = (label + 1) % len(numbers)
        places |= set(own.tolist())
    return wrong, places


@pytest.fixture(scope="module")
def found() -> tuple[label_issues.LabelIssues, set[int]]:
    features, labels = clusters(SIZES)
    wrong, places = flipped(labels, FLIPPED)
    return label_issues.find(pictures(features, wrong, len(SIZES))), places


def test_flipped_labels_are_found_and_little_else(found):
    issues, places = found
    suspected = set(issues.suspects["sample"])
    assert len(places) == 16
    assert len(suspected & places) / len(places) >= 0.9
    assert len(suspected & places) / len(suspected) >= 0.8


def test_what_is_suggested_is_the_class_that_it_was(found):
    issues, places = found
    rows = issues.suspects[issues.suspects["sample"].isin(places)]
    _, labels = clusters(SIZES)
    true = [f"c{labels[sample]}" for sample in rows["sample"]]
    assert np.mean(rows["suggested"] == true) >= 0.9
    assert (rows["self_confidence"] < rows["suggested_confidence"]).all()


def test_clean_labels_of_classes_far_apart_are_not_suspected():
    features, labels = clusters([40, 20, 10, 5], spread=0.2)
    issues = label_issues.find(pictures(features, labels, 4))
    assert len(issues.suspects) == 0
    assert issues.classes["note"].tolist() == [""] * 4


def test_suspects_stand_by_class_the_least_believed_first(found):
    issues, _ = found
    for name, own in issues.suspects.groupby("class", sort=False):
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
        assert own["self_confidence"].is_monotonic_increasing
        row = issues.classes.set_index("class").loc[name]
        assert row["suspects"] == len(own)
        assert row["share"] == len(own) / row["pictures"]
    assert issues.suspects["class"].tolist() == sorted(issues.suspects["class"])
    assert issues.classes["pictures"].sum() == sum(SIZES)


def test_classes_with_fewer_pictures_than_folds_are_not_judged_and_say_so(found):
    issues, _ = found
    notes = issues.classes.set_index("class")["note"]
    assert notes["c5"] == "not judged: 4 of the 5 pictures that it takes"
    assert notes["c6"] == "not judged: 1 of the 5 pictures that it takes"
    assert not set(issues.suspects["class"]) & {"c5", "c6"}
    assert not set(issues.suspects["suggested"]) & {"c5", "c6"}


def test_nothing_is_suspected_where_no_two_classes_are_large_enough():
    features, labels = clusters([9, 3, 2])
    issues = label_issues.find(pictures(features, labels, 3))
    assert len(issues.suspects) == 0
    assert issues.classes["note"].tolist()[0] == "not judged: no other class has 5 pictures"
    assert issues.judged == 0


def test_a_class_of_which_more_than_a_fifth_is_suspected_says_so():
    features, labels = clusters([60, 40, 10])
    wrong, _ = flipped(labels, [6, 0, 0])
    wrong[wrong == 1] = torch.where(torch.arange(46) < 6, 2, 1)  # six of another class among ten
    issues = label_issues.find(pictures(features, wrong, 3))
    row = issues.classes.set_index("class").loc["c2"]
    assert row["suspects"] > 0.2 * row["pictures"]
    assert row["note"].startswith(f"more than a fifth of {row['pictures']} suspected")
    assert set(issues.suspects[issues.suspects["class"] == "c2"]["note"]) == {row["note"]}


def test_each_fold_holds_a_fifth_of_every_class():
    _, labels = clusters(SIZES[:5])
    folds = out_of_fold.folds(labels, torch.arange(len(labels)), 3)
    assert (torch.bincount(folds) - len(labels) / 5).abs().max() < 1
    for label, size in enumerate(SIZES[:5]):
        held = torch.bincount(folds[labels == label], minlength=5)
        assert held.max() - held.min() <= 1
        assert held.sum() == size


def dealt(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """The folds of pictures that are each for themselves: a random order, dealt out in turns."""
    found, first = torch.empty_like(labels), 0
    for label in range(int(labels.max()) + 1):
        own = (labels == label).nonzero().flatten()
        order = torch.randperm(len(own), generator=generator(seed, "folds", label))
        found[own[order]] = (torch.arange(len(own)) + first) % 5
        first += len(own)
    return found


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_pictures_without_groups_are_dealt_out_in_turns(sizes, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    if len(labels):
        assert torch.equal(out_of_fold.folds(labels, torch.arange(len(labels)), seed), dealt(labels, seed))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=80))
def test_no_group_of_a_class_is_parted_and_folds_stay_as_even_as_groups_allow(said):
    labels, groups = torch.tensor(said).T
    found = out_of_fold.folds(labels, groups, 0)
    for label, group in set(said):
        assert len(found[(labels == label) & (groups == group)].unique()) == 1
    for label in set(labels.tolist()):
        held = torch.bincount(found[labels == label], minlength=5)
        largest = torch.bincount(groups[labels == label]).max()
        assert held.max() - held.min() <= largest


def test_a_wrong_label_that_a_whole_burst_shares_is_found():
    """Copies in other folds would vouch for it."""
    features, labels = clusters([60, 40, 30])
    burst = torch.arange(4)  # four pictures of class 0, one the copy of the other, all labelled 1
    features[burst] = features[0] + 0.01 * features[burst]
    wrong = labels.clone()
    wrong[burst] = 1
    shown = pictures(features, wrong, 3)
    apart = set(label_issues.find(shown).suspects["sample"])
    groups = shown.groups.clone()
    groups[burst] = 0
    together = set(label_issues.find(replace(shown, groups=groups)).suspects["sample"])
    assert set(burst.tolist()) <= together
    assert len(apart & set(burst.tolist())) < 4


def test_a_class_of_too_few_groups_is_not_judged_and_says_so():
    features, labels = clusters([30, 20, 10])
    shown = pictures(features, labels, 3)
    groups = torch.where(labels == 2, shown.groups % 4, shown.groups)
    issues = label_issues.find(replace(shown, groups=groups))
    assert issues.judged == 2
    assert issues.classes["note"].tolist() == [
        *("", ""),
        "not judged: 4 of the 5 groups of pictures that it takes",
    ]


def test_no_picture_is_judged_by_a_classifier_that_has_seen_it():
    """With features that name each picture, a classifier that has seen it would believe any label."""
    labels = torch.arange(2).repeat(20)
    chances = out_of_fold.out_of_fold(torch.eye(40), labels, torch.arange(40), 0)
    assert chances.gather(1, labels[:, None]).max() < 0.6
    assert torch.allclose(chances.sum(1), torch.ones(40))
    assert torch.equal(chances, out_of_fold.out_of_fold(torch.eye(40), labels, torch.arange(40), 0))


def test_the_lists_hold_what_was_found(found, tmp_path):
    issues, _ = found
    label_issues.write(issues, tmp_path)
    with (tmp_path / "label_issues.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == issues.suspects["file"].tolist()
    assert list(rows[0]) == [
        *("file", "part", "sample", "class", "suggested", "self_confidence", "suggested_confidence"),
        *("rank", "note"),
    ]
    assert all(0 <= float(row["self_confidence"]) <= 1 for row in rows)
    with (tmp_path / "label_issues_by_class.csv").open(newline="") as lines:
        assert [row["class"] for row in csv.DictReader(lines)] == [f"c{n}" for n in range(7)]


class Tags(HTMLParser):
    """The tags of a page with their attributes and their own text; all but void ones are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "img"):
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag):
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data):
        if self.open:
            self.found[self.open[-1]][2].append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.found if name == tag]

    def texts(self, tag: str) -> list[str]:
        return ["".join(text) for name, _, text in self.found if name == tag]


def test_the_page_is_one_valid_file_with_a_thumbnail_and_its_words_for_each_suspect(found, tmp_path):
    issues, _ = found
    root = tmp_path / "pictures"
    root.mkdir()
    for name in issues.suspects["file"]:
        Image.new("RGB", (400, 300), (200, 30, 30)).save(root / name)
    data_problems.write("pets", root, issues, tmp_path)
    page = Tags((tmp_path / "data_problems.html").read_text("utf-8"))
    images = page.all("img")
    assert 0 < len(images) <= len(issues.suspects)
    for image in images:
        assert str(image["src"]).startswith("data:image/jpeg;base64,")
        assert ".jpg, labelled c" in str(image["alt"])
    assert {"c0", "c5"} <= set(page.texts("h3"))
    linked = [value for _, own, _ in page.found for key, value in own.items() if key in ("href", "src")]
    assert all(str(value).startswith(("#", "data:")) for value in linked)
    assert {"#near", "#labels"} == {one["href"] for one in page.all("a")} | {"#near"}
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    data_problems.write("pets", None, issues, tmp_path)
    assert not Tags((tmp_path / "data_problems.html").read_text("utf-8")).all("img")


def test_names_of_any_kind_stand_on_the_page_as_text(tmp_path):
    features, labels = clusters([60, 40])
    wrong, _ = flipped(labels, [6, 4])
    odd = pictures(features, wrong, 2)
    odd.names[:] = ["<script>x</script>", "a\udcff\nb"]
    odd.file[:] = [f"<b>{place}\udcff.jpg" for place in range(100)]
    data_problems.write("pets", None, label_issues.find(odd), tmp_path)
    page = Tags((tmp_path / "data_problems.html").read_text("utf-8"))
    assert not page.all("script")
    assert set(page.texts("h3")) == {"<script>x</script>", "a\\udcff\\nb"}


def test_near_duplicates_without_their_columns_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = data_problems.near_file("pets")
    file.parent.mkdir(parents=True)
    file.write_text("group,crosses,file,part,class\n1,,a.jpg,train,cat\n")
    with pytest.raises(UserError, match=r"near_duplicates.csv: has no column bits.*check the pictures again"):
        data_problems.write("pets", None, None, tmp_path)


@pytest.mark.parametrize("bits", ["", "many", "1.5", "-2", "9" * 5000])
def test_near_duplicates_without_a_number_of_bits_are_one_line(tmp_path, monkeypatch, bits):
    monkeypatch.chdir(tmp_path)
    file = data_problems.near_file("pets")
    file.parent.mkdir(parents=True)
    head = ",".join(data_problems.NEAR_COLUMNS)
    file.write_text(f"{head}\n1,,a.jpg,train,cat,,9,9,1\n1,,b.jpg,train,cat,{bits},9,9,\n")
    with pytest.raises(UserError, match=r"near_duplicates.csv: bits '.*check the pictures again"):
        data_problems.write("pets", None, None, tmp_path)


def test_a_page_of_many_suspects_shows_some_and_counts_the_rest(tmp_path):
    features, labels = clusters([60] * 12)
    wrong, _ = flipped(labels, [12] * 12)
    issues = label_issues.find(pictures(features, wrong, 12))
    data_problems.write("pets", None, issues, tmp_path)
    page = Tags((tmp_path / "data_problems.html").read_text("utf-8"))
    shown = len(page.all("figure"))
    assert shown == sum(min(data_problems.SUSPECTS, number) for number in issues.classes["suspects"])
    left = [text for text in page.texts("p") if text.endswith("more in label_issues.csv")]
    assert sum(int(text.split()[1]) for text in left) == len(issues.suspects) - shown
