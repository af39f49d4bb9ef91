"""What is edited, replaced or deleted while a job waits or computes is noticed, or does no harm."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image

from longtail.errors import UserError
from longtail.orchestration import execute, publishing
from longtail.orchestration.plan import Plan
from longtail.orchestration.planner import plan
from longtail.own_pictures.check import check_data
from longtail.publish import make
from longtail.runs import lookup, store
from longtail.runs.identity import file_digest
from longtail.runs.steps import module_of
from longtail.settings.params import Params
from tests.tiny import TINY

LABELS = Path("labels.csv")
RIGHT = {f"{name}/{number}.png": name for name in ("cat", "dog", "eel") for number in range(8)}


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    yield
    store.home.cache_clear()


def write_labels(labels: dict[str, str]) -> None:
    LABELS.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in labels.items()))


def planned_pets() -> Plan:
    result = plan(Params.load("params.yaml"), "params.yaml")
    result.write()
    return result


@pytest.fixture
def pets():
    """A checked and planned dataset of 24 pictures, whose labels are in a CSV file."""
    for place, path in enumerate(RIGHT):
        Path("pictures", path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (10 * place, 0, 0)).save(Path("pictures", path))
    write_labels(RIGHT)
    settings = yaml.safe_load(TINY)
    settings |= {
        "dataset": "pets",
        "data": {
            "kind": "csv",
            "root": "pictures",
            "file": str(LABELS),
            "held_out": {"per_class": 2},
            "images": {"size": 8},
        },
        "imbalance": {"profile": "natural"},
        "validation": {"source": "holdout", "share": 0.2},
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    check_data("params.yaml")
    return planned_pets()


def test_labels_that_are_edited_before_the_dataset_is_acquired_are_not_taken_for_those_planned(pets):
    write_labels(RIGHT | {"dog/0.png": "cat"})
    with pytest.raises(UserError, match="pets: its files, lists or labels have changed since"):
        execute.execute("acquire", "pets")
    write_labels(RIGHT)
    execute.execute("acquire", "pets")
    store.verify(Path("data/raw/pets"), pets.acquire["pets"].identity)


def test_labels_that_are_edited_while_the_dataset_is_acquired_are_not_recorded(pets, monkeypatch):
    acquire = module_of("acquire")
    usual = acquire.compute

    def edited(job: Any) -> None:
        usual(job)
        write_labels(RIGHT | {"dog/0.png": "cat"})

    monkeypatch.setattr(acquire, "compute", edited)
    with pytest.raises(UserError, match="have changed since this was planned"):
        execute.execute("acquire", "pets")
    assert not Path("data/raw/pets/run.json").exists()


def test_a_picture_that_is_replaced_and_checked_is_not_seen_by_runs_on_the_one_before(pets):
    execute.execute("acquire", "pets")
    raw = Path("data/raw/pets")
    assert execute.checked_pictures(raw) == Path("pictures")
    Image.new("RGB", (12, 10), (0, 0, 250)).save("pictures/cat/0.png")
    check_data("params.yaml")
    with pytest.raises(UserError, match="pets: its files, lists or labels have changed"):
        execute.checked_pictures(raw)


def finished(
    folder: str, digit: str, inputs: dict[str, str] | None = None, built_on: Any = None, **files: str
) -> Path:
    """A run in a folder, with `files` as its outputs."""
    place = Path(folder)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(text)
    record = {
        "step": place.parent.name,
        "run": place.name,
        "identity": digit * 64,
        "outputs": {file.name: file_digest(file) for file in place.iterdir()},
        "inputs": {step: other * 64 for step, other in (inputs or {}).items()},
        "built_on": built_on or {},
        "seconds": 1,
    }
    (place / "run.json").write_text(json.dumps(record))
    return place


def digest_of(folder: Path) -> str:
    return store.outputs_digest(store.record(folder))


FEATURES = "results/features/f-aaaaaaaa"
CLASSIFIER = {
    "step": "stage_two",
    "run": "c-bbbbbbbb",
    "identity": "b" * 64,
    "settings": {},
    "code": "",
    "modules": [],
    "folder": "results/stage_two/c-bbbbbbbb",
    "gpus": 0,
    "inputs": {"features": {"run": "f-aaaaaaaa", "identity": "a" * 64, "folder": FEATURES}},
}


@pytest.mark.parametrize("then", ["replaced", "deleted"])
def test_a_run_is_bound_to_the_input_that_it_was_handed(monkeypatch, then):
    """Of another machine, by `dvc checkout`; or gone, by `dvc exp apply`."""
    handed = digest_of(finished(FEATURES, "a", test="of one machine"))

    def compute(job: Any) -> None:
        (job.folder / "metrics.json").write_text((job.inputs["features"] / "test").read_text())
        shutil.rmtree(FEATURES)
        if then == "replaced":
            finished(FEATURES, "a", test="of another machine")

    monkeypatch.setattr(execute, "settings_of_step", lambda *_: None)
    monkeypatch.setattr(execute, "module_of", lambda _: SimpleNamespace(compute=compute))
    made = store.record(execute.compute(CLASSIFIER))
    assert made["built_on"] == {"features": handed}
    if then == "replaced":
        assert "another computation" in lookup.mixed(
            {"stage_two": made, "features": store.record(Path(FEATURES))}
        )


def test_an_input_is_read_in_the_store_where_no_other_snakemake_clears_it(monkeypatch):
    kept = store.keep(finished("made/features/f-aaaaaaaa", "a", test="1"), "features", "f-aaaaaaaa")
    store.link(kept, Path(FEATURES))
    reference = CLASSIFIER["inputs"]["features"]  # type: ignore[index]
    assert lookup.locate("features", reference) == kept
    verify = store.verify

    def cleared(folder: Path, identity: str) -> Any:
        if folder == Path(FEATURES):
            shutil.rmtree(folder)
        return verify(folder, identity)

    monkeypatch.setattr(store, "verify", cleared)
    assert lookup.locate("features", reference) == kept
    finished(FEATURES, "a", test="1")  # of other files, as `dvc pull` brings them
    monkeypatch.setattr(store, "verify", verify)
    assert lookup.locate("features", reference) == kept.__class__(FEATURES)


def test_a_stored_run_that_is_replaced_while_it_is_verified_is_not_set_aside(monkeypatch):
    store.keep(finished("made/features/f-aaaaaaaa", "a", test="old"), "features", "f-aaaaaaaa")
    verify = store.verify

    def replaced(folder: Path, identity: str) -> Any:
        monkeypatch.setattr(store, "verify", verify)
        store.keep(finished("made/features/f-aaaaaaaa", "a", test="new"), "features", "f-aaaaaaaa")
        raise UserError("half of this, half of that")

    monkeypatch.setattr(store, "verify", replaced)
    lookup.find("features", "f-aaaaaaaa", "a" * 64)
    found = lookup.find("features", "f-aaaaaaaa", "a" * 64)
    assert found is not None
    assert (found / "test").read_text() == "new"
    assert [path.name for path in found.parent.iterdir()] == ["f-aaaaaaaa"]


def test_two_work_trees_with_other_files_of_a_dataset_do_not_accuse_each_other():
    """They share the store, in which a dataset's run has the dataset's name alone."""
    mine = finished("data/acquire/pets", "1", classes="cat, dog")
    store.keep(finished("other/acquire/pets", "2", classes="cat, dog, eel"), "acquire", "pets")
    store.verify(mine, "1" * 64)


def test_a_dataset_of_other_settings_in_the_place_of_one_is_not_to_be_deleted():
    """Two settings files with other data under one name, at work at once."""
    finished("data/raw/pets", "2", classes="cat, dog, eel")
    reference = {"run": "pets", "identity": "1" * 64, "folder": "data/raw/pets"}
    with pytest.raises(UserError, match="is of other settings with a dataset of this name now; type") as said:
        lookup.locate("acquire", reference)
    assert "delete" not in str(said.value)
    kept = store.keep(finished("made/acquire/pets", "1", classes="cat, dog"), "acquire", "pets")
    assert lookup.locate("acquire", reference) == kept  # where the store still has it


def test_a_model_is_put_together_from_the_runs_that_were_built_on_each_other():
    finished("data/raw/d", "1", t="t")
    finished("data/splits/s-22222222", "2", c="c")
    finished("results/stage_one/a-33333333", "3", model="of one machine")
    right = finished("results/demo/stage_one/a-33333333", "3", model="of another machine")
    built_on = {"stage_one": digest_of(right)}
    inputs = {"split": "2", "stage_one": "3", "acquire": "1"}
    features = finished("results/demo/features/f-44444444", "4", inputs, built_on, test="t")
    built_on = {"features": digest_of(features)}
    inputs = {"features": "4", "split": "2"}
    classifier = finished("results/demo/stage_two/y-55555555", "5", inputs, built_on, m="m")
    assert lookup.complete(classifier).folders["stage_one"] == right
    shutil.rmtree(right)
    with pytest.raises(UserError, match="another computation of a-33333333"):
        lookup.complete(classifier)


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_template_that_is_edited_makes_no_table_of_the_plan_before(monkeypatch, when):
    template = Path("table.html")
    template.write_text("one")
    planned = {
        "kind": "figures",
        "name": "curves",
        "identity": "c" * 64,
        "settings": {},
        "code": "",
        "modules": [],
        "files": {str(template): file_digest(template), "nowhere.csv": ""},
        "outputs": ["results/figures/curves.png"],
        "runs": {},
        "built_on": [],
        "context": {},
    }
    store.write_json(store.PLANNED / f"figures/curves-{'c' * 16}.json", planned)

    def draw(_: Any, folder: Path) -> None:
        (folder / "curves.png").write_text(template.read_text())
        if when == "while":
            template.write_text("two")

    monkeypatch.setitem(make.MAKERS, "figures", draw)
    if when == "before":
        template.write_text("two")
    with pytest.raises(UserError, match=r"curves: table\.html has changed since this was planned"):
        publishing.execute("figures", "curves", "c" * 16)
    assert not Path("results/figures/curves.png").exists()
    template.write_text("one")
    when = "no more"
    monkeypatch.setitem(make.MAKERS, "figures", draw)
    publishing.execute("figures", "curves", "c" * 16)
    assert Path("results/figures/curves.png").read_text() == "one"
