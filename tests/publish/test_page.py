"""The page: what it says of errors, and that it is one safe file whatever classes and files are called."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.publish import published_record
from longtail.publish.page import make
from longtail.publish.page.answers import answers, interval, pooled
from longtail.publish.page.choice import choices
from longtail.publish.page.errors import CONFUSIONS, WORST, confusions, least_accurate, worst
from longtail.publish.page.pictures import SIDE, Gallery
from longtail.publish.page.suspects import label_issues, near_duplicates
from longtail.settings.params import Params
from tests import published_pages, published_runs
from tests.published_pages import BOLD, FILE, HOSTILE, NAMES

# two runs over four images: image 0 is wrong twice, 1 once and very sure, 2 is right, 3 wrong differently
FOUND = pd.DataFrame(
    [
        (0, 0, 1, 0.6), (1, 0, 2, 0.9), (2, 1, 1, 1.0), (3, 2, 0, 0.7),
        (0, 0, 1, 0.8), (1, 0, 0, 0.9), (2, 1, 1, 1.0), (3, 2, 1, 0.5),
    ],
    columns=["sample", "label", "predicted", "confidence"],
)  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page; complains where tags do not close in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(file.read_text("utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return published_pages.cells(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory) -> Path:
    return published_pages.page(tmp_path_factory.mktemp("page"), runs)


def test_pairs_of_classes_are_counted_over_all_answers_the_most_frequent_first():
    assert confusions(FOUND).values.tolist() == [
        [0, 1, 2, 2 / 4],
        [2, 0, 1, 1 / 2],
        [2, 1, 1, 1 / 2],
        [0, 2, 1, 1 / 4],
    ]


def test_the_least_accurate_class_comes_first():
    found = least_accurate(FOUND)
    assert found.values.tolist() == [[2, 1, 0.0], [0, 2, 0.25], [1, 1, 1.0]]


def test_the_worst_image_is_the_one_that_every_run_is_sure_and_wrong_of():
    found = worst(FOUND)
    assert found["sample"].tolist() == [0, 3, 1]  # 0.7, 0.6 and 0.45 in the mean of both runs
    assert found["predicted"].tolist() == [1, 0, 2]
    assert found["confidence"].tolist() == pytest.approx([0.7, 0.7, 0.9])
    assert found[["wrong", "runs"]].values.tolist() == [[2, 2], [2, 2], [1, 2]]


def test_no_wrong_answer_is_no_worst_image():
    right = FOUND.assign(predicted=FOUND["label"])
    assert worst(right).empty
    assert confusions(right).empty


def test_confidence_is_the_softmax_of_the_answer(runs):
    cell = runs[0]
    found = answers(cell)
    told = cell.predictions()
    order = np.argsort(told["samples"])
    z = told["logits"][order].astype(float)
    assert found.samples.tolist() == sorted(told["samples"])
    assert found.predicted.tolist() == z.argmax(1).tolist()
    slow = [np.exp(row.max()) / np.exp(row).sum() for row in z]
    assert found.confidence == pytest.approx(slow)
    assert pooled(runs[:2])["sample"].tolist() == [*found.samples] * 2


def test_the_interval_of_an_accuracy_is_the_binomial_one_nearly(runs):
    cell = runs[0]
    right = answers(cell).right
    low, high = interval([cell])
    spread = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    assert (low, high) == pytest.approx((right.mean() - spread, right.mean() + spread), abs=0.005)


def test_the_method_that_validation_images_choose_is_marked_and_looked_at(runs, made, tmp_path):
    view = make.view(published_pages.planned(runs), runs, tmp_path)
    measured = {
        method: np.mean([cell.validation() for cell in runs if cell.method == method])
        for method in published_runs.METHODS
    }
    best = max(measured, key=lambda method: measured[method])
    [chosen] = view["chosen"]
    assert chosen["is"].method == best == "CE + cRT"
    assert chosen["is"].by_validation
    [table] = view["tables"]
    [part] = table["at"]
    assert [row["label"] for row in part["rows"] if row["best"]] == [HOSTILE]
    right = np.concatenate([answers(cell).right for cell in runs if cell.method == best])
    assert chosen["accuracy"].key == pytest.approx(100 * right.mean())


def test_of_two_rows_with_one_label_the_chosen_one_alone_is_marked_and_named_with_its_section(runs, tmp_path):
    methods = dict.fromkeys(cell.method for cell in runs)
    rows = [{"section": f"on {method}", "label": "tau", "method": method} for method in methods]
    plan = published_pages.planned(runs)
    plan["context"]["parts"][0]["tables"]["table2"] = published_runs.table(rows=rows).resolved()
    [chosen] = make.view(plan, runs, tmp_path)["chosen"]
    assert chosen["is"].label == "on CE + cRT: tau"
    text = make.rendered(make.view(plan, runs, tmp_path)).decode()
    assert "<strong>on CE + cRT: tau</strong> is the best of 4 methods" in text
    assert re.findall(r'<th scope="row">([^<]*) <span class="tag">chosen', text) == ["on CE + cRT: tau"]


def test_without_validation_images_nothing_is_chosen_and_the_page_says_so(runs, tmp_path):
    blind = []
    for cell in runs:
        folder = tmp_path / cell.runs["stage_two"].name
        folder.mkdir()
        for name in ("predictions.safetensors", "classifier.safetensors", "history.csv"):
            (folder / name).write_bytes((cell.runs["stage_two"] / name).read_bytes())
        test = {"test": cell.metrics()["test"]}
        (folder / "metrics.json").write_text(json.dumps(test))
        blind.append(type(cell)(**{**vars(cell), "runs": {**cell.runs, "stage_two": folder}}))
    file = published_pages.page(tmp_path, blind)
    text = " ".join(data for _, data in Page(file).texts)
    assert "There are no validation images to choose by" in text
    assert "best by validation" not in text


def test_test_images_that_stand_in_for_validation_choose_nothing_either(runs, tmp_path):
    split = {"settings": {"validation": {"source": "test"}}}
    habit = [replace(cell, info={**cell.info, "split": {**cell.info["split"], **split}}) for cell in runs]
    text = " ".join(data for _, data in Page(published_pages.page(tmp_path, habit)).texts)
    assert "There are no validation images to choose by" in text
    assert "best by validation" not in text
    assert "Test images chose nothing" not in text


def test_a_table_of_printed_rows_alone_leaves_the_page_to_the_others(runs, tmp_path):
    planned = published_pages.planned(runs)
    own, sweep = planned["context"]["parts"][0], {**planned["context"]["parts"][0], "cells": [0, len(runs)]}
    theirs = published_runs.table(rows=[{"section": "End-to-end training", "label": "Focal loss"}])
    own["tables"] = {"theirs": theirs.resolved()}
    planned["context"]["parts"] = [
        {**own, "cells": [0, 0]},
        sweep | {"tables": {"table2": published_runs.table().resolved()}},
    ]
    [chosen] = make.view(planned, runs, tmp_path)["chosen"]
    assert chosen["is"].table == "table2"
    assert chosen["is"].by_validation


def test_differences_to_the_row_before_are_headed_so(runs, made, tmp_path):
    planned = published_pages.planned(runs)
    planned["context"]["parts"][0]["tables"]["table2"]["against"] = "previous"
    [table] = make.view(planned, runs, tmp_path)["tables"]
    [at] = table["at"]
    place = at["heads"].index("difference to the row before")
    shown = {row["label"]: row["cells"][place].text for row in at["rows"] if row["cells"][place].text}
    assert list(shown) == ["GraLoss", HOSTILE, "GLAG"]
    assert any("each row is compared with the row before it" in note for note in table["notes"])
    assert "difference to Cross-entropy" in made.read_text("utf-8")


def test_names_of_classes_and_files_are_text_and_nothing_else(made):
    page = Page(made)
    assert [len(page.of(tag)) for tag in ("script", "h1", "b")] == [1, 1, 0]
    assert all(item["src"].startswith("data:") for item in page.of("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    texts = [data for _, data in page.texts]
    for name in (*NAMES, BOLD):
        assert any(name in text for text in texts), name


def test_a_policy_lets_nothing_act_but_the_script_that_it_names(made):
    page = Page(made)
    [policy] = [item["content"] for item in page.of("meta") if "http-equiv" in item]
    for tag in ("script", "style"):
        [text] = [data for name, data in page.texts if name == tag]
        assert make._hash(text) in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_nothing_is_loaded_from_anywhere(made):
    page = Page(made)
    for _, attributes in page.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert re.match("data:|#", attributes[name])
    assert "url(" not in made.read_text("utf-8")
    assert "@import" not in made.read_text("utf-8")


def test_a_screen_reader_finds_its_way(made):
    page = Page(made)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [len(page.of(name)) for name in ("header", "nav", "main", "footer")] == [1] * 4
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(item.get("scope") in ("col", "row") for item in page.of("th"))
    assert all(item.get("alt") for item in page.of("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("aria-labelledby", ids[0]) in ids for _, attributes in page.tags)
    for item in page.of("a"):
        assert item["href"].removeprefix("#") in ids


def test_every_row_of_a_table_has_as_many_cells_as_its_head(made):
    text = made.read_text("utf-8")
    for table in re.findall("<table.*?</table>", text, re.DOTALL):
        numbers = {len(re.findall("<t[hd][ >]", row)) for row in re.findall("<tr.*?</tr>", table, re.DOTALL)}
        assert len(numbers) == 1


def test_the_same_runs_give_the_same_bytes(runs, made, tmp_path):
    assert published_pages.page(tmp_path, runs).read_bytes() == made.read_bytes()


def test_pictures_are_made_small_and_what_cannot_be_read_has_none(runs):
    gallery = Gallery(runs[0].runs["acquire"])
    first, grey, gone = (gallery.tested(sample) for sample in range(3))
    assert (first.width, first.height) == (grey.width, grey.height) == (SIDE, SIDE * 3 // 4)
    assert first.uri.startswith("data:image/jpeg;base64,")
    assert len(first.uri) < 40_000  # noise, which compresses worst
    assert gone is None
    assert gallery.tested(5) is None
    assert gallery.of_path("../../etc/passwd") is None
    assert gallery.name(0) == FILE


def test_a_page_made_where_the_pictures_are_not_says_so(tmp_path):
    runs = published_pages.cells(tmp_path, seeds=(0,))
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    file = published_pages.page(tmp_path, runs)
    assert "No pictures where this page was made" in file.read_text("utf-8")
    assert not Page(file).of("img")


def test_images_of_arrays_are_shown_with_their_pixels(tmp_path):
    runs = published_pages.cells(tmp_path, pictures=False, seeds=(0,))
    page = Page(published_pages.page(tmp_path, runs))
    images = page.of("img")
    assert 0 < len(images) <= WORST
    assert all(item["src"].startswith("data:image/png") and item["class"] == "coarse" for item in images)
    assert not [item for item in page.of("h2") if item["id"] == "data"]


def test_lists_are_cut_and_the_page_says_how_much_is_left_out(made, runs):
    view = make.view(published_pages.planned(runs), runs, made.parent)
    [found] = view["errors"]
    wrong = {sample for cell in found["is"].cells for sample in answers(cell).samples[~answers(cell).right]}
    assert len(found["worst"]) == WORST
    assert found["worst_left"] == len(wrong) - WORST > 0
    assert len(found["confusions"]) + found["confusions_left"] <= len(NAMES) * (len(NAMES) - 1)
    assert len(found["confusions"]) <= CONFUSIONS


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def issue(file: str, given: str, confidence: float) -> dict[str, object]:
    names = ("file", "class", "suggested", "self_confidence")
    return dict(zip(names, (file, given, "other", confidence), strict=True))


def test_suspect_labels_are_the_least_likely_ones_and_few_of_a_class(runs, tmp_path):
    rows = [issue(f"{place}.jpg", "a", place / 100) for place in range(20)]
    file = write(tmp_path / "label_issues.csv", [*rows, issue(FILE, HOSTILE, 0.5)])
    found = label_issues(file, Gallery(runs[0].runs["acquire"]))
    assert found["number"] == 21
    assert [one["file"] for one in found["shown"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", FILE]
    assert found["left"] == 16
    assert found["shown"][-1]["image"] is not None


def test_near_duplicates_are_shown_by_group_those_that_cross_parts_first(runs, tmp_path):
    rows = [
        {"group": 1, "crosses": "parts", "file": FILE, "part": "test", "class": HOSTILE},
        {"group": 1, "crosses": "parts", "file": "grey.png", "part": "train", "class": "plain"},
        *(
            {"group": 2, "crosses": "", "file": f"{i}.jpg", "part": "train", "class": "plain"}
            for i in range(9)
        ),
    ]
    file = write(tmp_path / "near_duplicates.csv", rows)
    found = near_duplicates(file, Gallery(runs[0].runs["acquire"]))
    assert (found["number"], found["parts"], found["classes"]) == (2, 1, 0)
    assert [len(group["pictures"]) for group in found["shown"]] == [2, 4]
    assert found["shown"][1]["left"] == 5
    file = published_pages.page(
        tmp_path, runs, suspects={"issues": str(tmp_path / "label_issues.csv"), "pairs": str(file)}
    )
    assert "Group 1, in several parts" in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("file,class\na,b\n", "has no column suggested"),
        ("file,class,suggested,self_confidence\na,b,c,2\n", "'2' is no probability"),
        ("file,class,suggested,self_confidence\na,b,c,x\n", "'x' is no probability"),
        ("", "has no column file"),
    ],
)
def test_a_csv_of_another_form_is_one_line(runs, tmp_path, text, wrong):
    file = tmp_path / "label_issues.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=wrong):
        label_issues(file, Gallery(runs[0].runs["acquire"]))


def test_a_check_that_was_not_made_is_nothing(runs, tmp_path):
    gallery = Gallery(runs[0].runs["acquire"])
    assert label_issues(tmp_path / "label_issues.csv", gallery) is None
    assert near_duplicates(tmp_path / "near_duplicates.csv", gallery) is None


def test_a_model_of_one_method_is_chosen_by_nobody(runs, tmp_path):
    view = make.view(published_pages.planned(runs), runs, tmp_path)
    assert view["tables"]
    model = {"name": "mine", "folder": str(tmp_path), "table": None, "among": ["CE + cRT"]}
    [chosen] = choices([model], [], runs)
    assert (chosen.method, chosen.by_validation, chosen.model) == ("CE + cRT", False, "mine")


def demo(root: Path, **changes) -> Params:
    params = Params.load(root / "workflow/settings/demo.yaml")
    return params.model_copy(update=changes)


def test_the_page_is_planned_over_all_runs_figures_and_models(root):
    found = plan(demo(root), "workflow/settings/demo.yaml", root)
    page = found.page["index"]
    assert page.outputs == ["results/demo/index.html"]
    assert page.record == "results/demo/index.identity.json"
    assert {cell.runs["stage_two"].name for cell in page.cells} == set(found.stage_two)
    assert list(page.built_on) == [*found.figures.values(), *found.models.values()]
    assert page in found.report["report"].built_on
    assert "results/demo/index.html" in found.files


def test_the_page_is_another_one_with_another_caption_or_seed(root):
    def identity(**changes) -> str:
        return plan(demo(root, **changes), "workflow/settings/demo.yaml", root).page["index"].identity

    table = demo(root).tables["table2"]
    same = identity()
    assert same == identity()
    assert same != identity(seeds=[5])
    assert same != identity(tables={"table2": table.model_copy(update={"caption": "Another"})}, figures={})


def test_what_the_page_reads_is_recorded_and_keeps_it_current_no_longer_than_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("figure.identity.json", "issues.csv", "index.html"):
        Path(name).write_text(name)
    planned = {
        "runs": {},
        "built_on": [{"record": "figure.identity.json", "identity": "1", "outputs": []}],
        "context": {"files": ["issues.csv", "absent.csv"]},
    }
    read = published_record.digests_of(planned)
    assert set(read) == {"figure.identity.json", "issues.csv"}
    digest = published_record.file_digest(Path("index.html"))
    Path("index.identity.json").write_text(
        json.dumps({"identity": "2", "outputs": {"index.html": digest}, "read": read})
    )
    item = ("index.identity.json", "2", ["index.html"])
    assert published_record.is_current(*item)
    Path("issues.csv").write_text("another")
    assert not published_record.is_current(*item)
