"""ImageNet-LT, Places-LT and iNaturalist 2018 at full size: settings, lists, and what is planned of them.

The pictures are not here. Nor are two of the lists, those of the training images of ImageNet-LT and
iNaturalist: in their place stand lists of the same length with the published number of classes and, of
ImageNet-LT, of images a class.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from longtail.data import catalogue as members
from longtail.data.split import split
from longtail.orchestration.planner import plan
from longtail.runs.steps import STEPS
from longtail.settings.params import Params
from longtail.settings.split import SplitSettings
from tests.workflow.conftest import ROOT, Project, copy_sources

LISTS = {
    "imagenet-lt": ("ImageNet_LT_train.txt", "ImageNet_LT_val.txt", "ImageNet_LT_test.txt"),
    "places-lt": ("Places_LT_train.txt", "Places_LT_val.txt", "Places_LT_test.txt"),
    "inaturalist2018": ("iNaturalist18_train.txt", "iNaturalist18_val.txt"),
}
INATURALIST_CLASSES, INATURALIST_IMAGES = 8142, 437_513


@dataclass(frozen=True)
class Expected:
    """Of a settings file: its lists' images, its classes, groups of the training set, runs and tables."""

    images: dict[str, int]
    classes: int
    groups: tuple[int, int, int]
    runs: tuple[int, ...]  # acquire, split, stage_one, features, stage_two
    tables: list[str]
    jobs: dict[str, int]  # of the first table alone


EXPECTED = {
    "imagenet-lt": Expected(
        images={"train": 115_846, "validation": 20_000, "test": 50_000},
        classes=1000,
        groups=(385, 479, 136),
        runs=(1, 1, 16, 15, 48),
        tables=[
            "table3",
            "imagenet_lt_samplers",
            "imagenet_lt_classifiers",
            "imagenet_lt_components",
            "imagenet_lt_asynchronous",
        ],
        jobs={"acquire": 1, "split": 1, "stage_one": 8, "features": 8, "stage_two": 21, "tables": 1},
    ),
    "places-lt": Expected(
        images={"train": 62_500, "validation": 7_300, "test": 36_500},
        classes=365,
        groups=(131, 163, 71),
        runs=(1, 1, 9, 8, 22),
        tables=["places_lt", "places_lt_components", "places_lt_asynchronous"],
        jobs={"acquire": 1, "split": 1, "stage_one": 4, "features": 4, "stage_two": 11, "tables": 1},
    ),
    "inaturalist2018": Expected(
        images={"train": INATURALIST_IMAGES, "test": 24_426},
        classes=INATURALIST_CLASSES,
        groups=(0, 0, 0),  # of a list that is made up: nothing to hold it against
        runs=(1, 1, 13, 12, 27),
        tables=["table4", "inaturalist2018_components", "inaturalist2018_asynchronous"],
        jobs={"acquire": 1, "split": 1, "stage_one": 8, "features": 8, "stage_two": 16, "tables": 1},
    ),
}


def imagenet_lt(validation: str) -> str:
    """A training list with the published counts; a class's folder is that of its validation images."""
    rows = (line.split() for line in validation.splitlines())
    folders = {int(label): path.split("/")[1] for path, label in rows}
    counts = (ROOT / "src/longtail/data/counts/imagenet_lt.csv").read_text().split()[1:]
    return "".join(
        f"train/{folders[label]}/{folders[label]}_t{number}.JPEG {label}\n"
        for label, count in enumerate(map(int, counts))
        for number in range(count)
    )


def inaturalist() -> str:
    """A training list of iNaturalist's length: counts fall as a power of the rank, from 1,000 to 2."""
    shape = np.arange(1, INATURALIST_CLASSES + 1) ** -1.5
    low, high = 1.0, 1e9
    for _ in range(80):
        scale = (low + high) / 2
        counts = (scale * shape).clip(2, 1000).astype(int)
        low, high = (scale, high) if counts.sum() < INATURALIST_IMAGES else (low, scale)
    counts = (low * shape).clip(2, 1000).astype(int)
    counts[-(INATURALIST_IMAGES - counts.sum()) :] += 1  # what rounding has left
    return "".join(
        f"train_val2018/Plantae/{label}/{label:024x}{number:08x}.jpg {label}\n"
        for label, count in enumerate(counts.tolist())
        for number in range(count)
    )


@pytest.fixture(scope="module")
def large(shared, tmp_path_factory) -> Project:
    """The project with all lists of the three settings files, and empty roots."""
    project = Project(tmp_path_factory.mktemp("large"))
    copy_sources(project.path)
    project.git("init", "-q")
    lists = project.path / "data/lists"
    lists.mkdir(parents=True)
    for name in sum(LISTS.values(), ()):
        published = shared / "data/lists" / name
        if published.is_file():
            (lists / name).write_bytes(published.read_bytes())
    (lists / "ImageNet_LT_train.txt").write_text(imagenet_lt((lists / "ImageNet_LT_val.txt").read_text()))
    (lists / "iNaturalist18_train.txt").write_text(inaturalist())
    for root in ("imagenet", "places365", "inaturalist"):
        (project.path / "data/raw" / root).mkdir(parents=True)
    weights = project.path / "data/weights/ssp_inat.pth.tar"  # planning hashes it, and reads nothing in it
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    return project


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_are_read_at_full_size(large, monkeypatch, name):
    monkeypatch.chdir(large.path)
    expected = EXPECTED[name]
    params = Params.load(f"workflow/settings/{name}.yaml")
    start = time.perf_counter()
    found = members.members(params.dataset, params.data)
    read = time.perf_counter()
    labels = np.array([label for _, label in found.parts["train"]])
    settings = SplitSettings(
        dataset=params.dataset, imbalance=params.imbalance.profiles()[0], validation=params.validation
    )
    chosen = split(labels, len(found.classes), settings)
    print(f"{name}: lists read in {read - start:.1f} s, split in {time.perf_counter() - read:.1f} s")
    assert {part: len(rows) for part, rows in found.parts.items()} == expected.images
    assert len(found.classes) == expected.classes
    counts = np.bincount(labels[chosen.train], minlength=expected.classes)
    if params.validation.source == "official":
        assert len(chosen.train) == expected.images["train"]
        assert ((counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum(), (counts < 20).sum()) == (
            expected.groups
        )
    else:  # a share of every class, and none is emptied
        assert len(chosen.train) + len(chosen.validation) == expected.images["train"]
        assert counts.min() == 1
        assert len(set(labels[chosen.validation])) == expected.classes


@pytest.mark.parametrize("name", LISTS)
def test_runs_and_tables_of_the_settings_file(large, monkeypatch, name):
    monkeypatch.chdir(large.path)
    source = f"workflow/settings/{name}.yaml"
    start = time.perf_counter()
    planned = plan(Params.load(source), source)
    print(f"{name}: planned in {time.perf_counter() - start:.1f} s")
    assert tuple(len(planned.runs(step)) for step in STEPS) == EXPECTED[name].runs
    assert list(planned.tables) == EXPECTED[name].tables
    assert [item.outputs[0] for item in planned.tables.values()] == [
        f"results/{table}.csv" for table in EXPECTED[name].tables
    ]
    assert {item.folder for item in planned.figures.values()} == {f"results/{name}/figures"}
    phases = Counter(run.settings.recipe.phases[-1].name for run in planned.stage_one.values())
    assert phases["poor"] == 3  # two phases with bank and retention, without the one, without both


def test_a_file_of_ones_own_with_other_paths_and_devices_plans_the_same_runs(large, monkeypatch):
    """The example of docs/how-to/large-datasets.md: paths and the number of GPUs change no result."""
    monkeypatch.chdir(large.path)
    page = (ROOT / "docs/how-to/large-datasets.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert "/data/lists/ImageNet_LT_train.txt" in example
    moved = large.path / "moved.txt"
    moved.write_bytes((large.path / "data/lists/ImageNet_LT_train.txt").read_bytes())
    mine = large.path / "mine.yaml"
    mine.write_text(example.replace("/data/lists/ImageNet_LT_train.txt", str(moved)))
    own = plan(Params.load("mine.yaml"), "mine.yaml")
    source = "workflow/settings/imagenet-lt.yaml"
    published = plan(Params.load(source), source)
    assert {step: set(own.runs(step)) for step in STEPS} == {
        step: set(published.runs(step)) for step in STEPS
    }
    assert {run.settings.recipe.devices for run in own.stage_one.values()} == {1, 4}


@pytest.mark.parametrize("name", LISTS)
def test_a_dry_run_of_one_table_in_results(large, name):
    """`snakemake -n --config params=... -- results/table3.csv`, with every list at full size."""
    table, jobs = EXPECTED[name].tables[0], EXPECTED[name].jobs
    source = f"params=workflow/settings/{name}.yaml"
    start = time.perf_counter()
    out = large.run("snakemake", "-n", "--config", source, "--", f"results/{table}.csv")
    print(f"{name}: dry run in {time.perf_counter() - start:.1f} s")
    found = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", out, re.MULTILINE)}
    assert found == {**jobs, "total": sum(jobs.values())}


def test_without_the_lists_one_line_says_where_to_get_them(tmp_path):
    project = Project(tmp_path)
    copy_sources(project.path)
    project.git("init", "-q")
    code, out = project.status("snakemake", "-n", "--config", "params=workflow/settings/imagenet-lt.yaml")
    assert code == 2
    assert "data/lists/ImageNet_LT_train.txt: cannot be read" in out
    assert "docs/how-to/large-datasets.md says where to get it" in out


def test_prune_spares_the_runs_of_a_dataset_whose_lists_are_not_here(tmp_path):
    project = Project(tmp_path)
    copy_sources(project.path)
    project.git("init", "-q")
    store = project.path / ".longtail/store/stage_two"
    for run in ("imagenet_lt-natural-r10_ce-crt-seed0-00000000", "digits-exp25-ce-crt-seed0-00000000"):
        (store / run).mkdir(parents=True)
    out = project.run("longtail", "prune", "--yes")
    assert "imagenet-lt.yaml: cannot be planned here, so all runs of imagenet_lt stay" in out
    assert [folder.name[:11] for folder in store.iterdir()] == ["imagenet_lt"]
