"""Wrong provenance, as it happens by accident: edits and mixtures are noticed before any use."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from longtail.data import catalogue, file_changes, manifest
from longtail.errors import UserError
from longtail.orchestration import execute
from longtail.orchestration.planner import settings_name
from longtail.publish.published_record import digests_of, is_current
from longtail.runs import lookup, store
from longtail.runs.identity import file_digest
from longtail.settings.acquire import AcquireSettings
from longtail.settings.data import FolderData


@pytest.fixture(autouse=True)
def in_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.home.cache_clear()
    yield
    store.home.cache_clear()


def finished(step: str, name: str, built_on: dict[str, str] | None = None, **files: str) -> Path:
    """A run in the store, with `files` as its outputs; its folder there."""
    folder = store.scratch(step, name) / "outputs"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / f"{file}.json").write_text(text)
    record = {
        "step": step,
        "run": name,
        "identity": name[-1] * 64,
        "outputs": {file.name: file_digest(file) for file in folder.iterdir()},
        "facts": {"device": "some processor", "precision": "float32"},
        **({"built_on": built_on} if built_on else {}),
    }
    (folder / "run.json").write_text(json.dumps(record))
    return store.keep(folder, step, name)


def linked(step: str, name: str) -> Path:
    folder = Path("results") / step / name
    store.link(store.stored(step, name), folder)
    return folder


def rewrite(file: Path, **changes: object) -> None:
    """Edit a JSON file as an editor does: in place, whatever its permissions."""
    file.chmod(0o644)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_edited_facts_of_a_record_are_not_printed():
    """An editor writes through the hard link, so the store's copy is edited with it; the digest is not."""
    finished("stage_two", "a", metrics="{}")
    folder = linked("stage_two", "a")
    rewrite(folder / "run.json", facts={"device": "NVIDIA H100"})
    with pytest.raises(UserError, match=r"run\.json: is not the record that the store keeps"):
        store.verify(folder, "a" * 64)
    assert lookup.find("stage_two", "a", "a" * 64) is None  # set aside, to be computed again


def test_an_output_that_is_edited_together_with_its_hash_is_noticed():
    finished("stage_two", "a", metrics='{"accuracy": 0.5}')
    folder = linked("stage_two", "a")
    (folder / "metrics.json").chmod(0o644)
    (folder / "metrics.json").write_text('{"accuracy": 0.999}')
    rewrite(folder / "run.json", outputs={"metrics.json": file_digest(folder / "metrics.json")})
    with pytest.raises(UserError, match=r"run\.json: is not the record that the store keeps"):
        store.verify(folder, "a" * 64)


def test_a_run_that_was_stored_before_digests_were_kept_is_trusted_at_first_sight():
    finished("stage_two", "a", metrics="{}")
    shutil.rmtree(store.home(Path.cwd()) / "records")
    folder = linked("stage_two", "a")
    store.verify(folder, "a" * 64)
    rewrite(folder / "run.json", seconds=1)
    with pytest.raises(UserError, match="is not the record that the store keeps"):
        store.verify(folder, "a" * 64)


def test_after_a_power_loss_an_empty_digest_is_no_edit():
    finished("stage_two", "a", metrics="{}")
    digest = store.home(Path.cwd()) / "records/stage_two/a"
    digest.write_text("")
    assert lookup.find("stage_two", "a", "a" * 64, {}) == store.stored("stage_two", "a")
    assert len(digest.read_text().strip()) == 64


def test_a_run_that_the_store_has_not_got_is_known_by_its_own_record():
    """As in a fresh clone after `dvc pull`."""
    finished("stage_two", "a", metrics="{}")
    folder = linked("stage_two", "a")
    shutil.rmtree(store.home(Path.cwd()) / "store")
    store.verify(folder, "a" * 64)


def test_a_strange_file_in_a_run_is_named():
    finished("stage_two", "a", metrics="{}")
    folder = linked("stage_two", "a")
    (folder / "notes.txt").write_text("better")
    with pytest.raises(UserError, match=r"notes\.txt: is no part of this run; delete it"):
        store.verify(folder, "a" * 64)
    store.link(store.stored("stage_two", "a"), folder)  # what the way out does
    store.verify(folder, "a" * 64)


def test_a_published_file_is_current_only_while_its_runs_are_the_ones_it_read():
    finished("stage_two", "a", metrics='{"accuracy": 0.5}')
    folder = linked("stage_two", "a")
    reference = {"identity": "a" * 64, "folder": str(folder)}
    read = digests_of({"runs": {"stage_two": {"a": reference}}})
    Path("table.csv").write_text("50.0\n")
    record = {"identity": "t", "outputs": {"table.csv": file_digest(Path("table.csv"))}, "read": read}
    Path("table.identity.json").write_text(json.dumps(record))
    assert is_current("table.identity.json", "t", ["table.csv"])
    shutil.rmtree(store.stored("stage_two", "a"))
    shutil.rmtree(folder)
    assert is_current("table.identity.json", "t", ["table.csv"])  # nothing here says otherwise
    finished("stage_two", "a", metrics='{"accuracy": 0.6}')  # the same run by another machine
    linked("stage_two", "a")
    assert not is_current("table.identity.json", "t", ["table.csv"])
    del record["read"]
    Path("table.identity.json").write_text(json.dumps(record))
    assert not is_current("table.identity.json", "t", ["table.csv"])


def test_runs_of_two_machines_are_not_mixed():
    old = finished("stage_one", "a", model="of one machine")
    built_on = {"stage_one": store.outputs_digest(store.record(old))}
    finished("features", "b", built_on, features="of that model")
    planned = {"inputs": {"stage_one": {"run": "a", "folder": "results/stage_one/a"}}}
    assert lookup.find("features", "b", "b" * 64, lookup.input_records(planned)) is not None
    shutil.rmtree(old)
    new = finished("stage_one", "a", model="of another machine")
    assert lookup.find("features", "b", "b" * 64, lookup.input_records(planned)) is None
    records = {"stage_one": store.record(new), "features": store.record(store.stored("features", "b"))}
    assert lookup.mixed(records) == (
        "b (features) was computed from another computation of a than the one that is here "
        "(float32 on some processor)"
    )
    records["stage_one"]["facts"] |= {"precision": "bf16", "batch_norm": "fused 1a2b3c4d"}
    assert lookup.mixed(records).endswith("(bf16, batch_norm fused 1a2b3c4d on some processor)")
    shutil.rmtree(new)
    finished("stage_one", "a", model="of one machine")
    assert lookup.find("features", "b", "b" * 64, lookup.input_records(planned)) is not None


@pytest.fixture
def pictures(tmp_path):
    """A checked dataset of two pictures, and its finished acquisition."""
    root = tmp_path / "pictures"
    for name, colour in (("dark", 10), ("light", 200)):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(root / name / "0.bmp")
    stats = file_changes.picture_files(root)
    rows = [
        manifest.Entry(path, size, file_digest(root / path), 8, 8, "RGB", "", "BMP")
        for path, (size, _) in stats.items()
    ]
    manifest.write("pets", rows)
    file_changes.write_stats("pets", root, rows, stats)
    settings = AcquireSettings(dataset="pets", files=FolderData(root=str(root), held_out={"per_class": 1}))
    raw = Path("data/raw/pets")
    raw.mkdir(parents=True)
    identity = catalogue.identity("pets", settings.files)
    record = {"step": "acquire", "run": "pets", "identity": identity, "outputs": {}}
    (raw / "run.json").write_text(json.dumps({**record, "settings": settings.resolved()}))
    return SimpleNamespace(root=root, raw=raw, settings=settings, identity=identity)


def moved(pictures, elsewhere: Path) -> None:
    """Say that the pictures lie elsewhere, as another data.root does."""
    files = {**pictures.settings.resolved()["files"], "root": str(elsewhere)}
    settings = {**pictures.settings.resolved(), "files": files}
    planned = {"step": "acquire", "run": "pets", "identity": pictures.identity, "inputs": {}, "folder": "x"}
    planned |= {"settings": settings, "code": "c" * 64, "modules": []}
    store.write_json(store.PLANNED / "acquire/pets.json", planned)


def test_pictures_of_the_same_sizes_under_another_root_are_compared_by_content(pictures, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(pictures.root, elsewhere)
    moved(pictures, elsewhere)
    assert execute.checked_pictures(pictures.raw) == elsewhere
    other = tmp_path / "other"
    shutil.copytree(pictures.root, other)
    (other / "dark/0.bmp").write_bytes((pictures.root / "light/0.bmp").read_bytes())
    moved(pictures, other)
    with pytest.raises(UserError, match=r"pets: .*other/dark/0\.bmp is not the file that was checked"):
        execute.checked_pictures(pictures.raw)


def test_pictures_in_a_new_clone_are_compared_by_content(pictures):
    """The manifest comes with the clone; what this machine has read of the files does not."""
    shutil.rmtree(store.home(Path.cwd()) / "checked")
    light = (pictures.root / "light/0.bmp").read_bytes()
    (pictures.root / "dark/0.bmp").write_bytes(light)
    with pytest.raises(UserError, match="is not the file that was checked"):
        execute.checked_pictures(pictures.raw)


def test_a_params_yaml_of_another_folder_publishes_in_a_folder_of_its_own(tmp_path):
    assert settings_name(Path("params.yaml"), tmp_path) == ""
    assert settings_name(tmp_path / "params.yaml", tmp_path) == ""
    assert settings_name(Path("/elsewhere/params.yaml"), tmp_path) == "params"
