"""Finished runs in trackers: what is written is read back by the tracker's own reader, from a local store."""

import ast
import csv
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longtail.cli import parser
from longtail.errors import UserError
from longtail.orchestration import execute
from longtail.runs.identity import file_digest
from longtail.runs.lookup import named
from longtail.settings.published import Groups
from longtail.tracking import logged as tracked
from longtail.tracking.log import TRACKERS, log
from longtail.tracking.logged import LoggedRun, logged
from tests.finished_runs import NETWORK, Project

WHY = "needs requirements-trackers.lock (make test-trackers installs it)"
TABLE = "section,method,mean\nAll,CE,71.20\nAll,A & B,\n"


class Trained(Project):
    """With a stage one that is trained, for an epoch."""

    def untrained(self, planned: dict[str, Any], settings: dict[str, Any]) -> None:
        execute.compute({**planned, "code": "", "modules": []})


@pytest.fixture(scope="module")
def name(tmp_path_factory) -> str:
    """A finished run in a folder of its own, which is the current one, and a published table beside it."""
    folder = tmp_path_factory.mktemp("tracked")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    project = Trained()
    features = project.features("tiny", NETWORK)
    run = project.classifier("tiny-crt", features, {"name": "crt", "epochs": 3})
    publish(folder / "results", "one")
    yield run
    patch.undo()


def publish(folder: Path, table: str) -> None:
    folder.mkdir(exist_ok=True)
    texts = {"csv": TABLE, "md": "| CE | 71.20 |\n", "tex": "CE", "html": "<p>CE</p>"}
    for suffix, text in texts.items():
        (folder / f"{table}.{suffix}").write_text(text)
    outputs = {f"{table}.{suffix}": file_digest(folder / f"{table}.{suffix}") for suffix in texts}
    record = {"identity": "0" * 64, "outputs": outputs, "read": {}}
    (folder / f"{table}.identity.json").write_text(json.dumps(record))


@pytest.fixture
def run(name) -> LoggedRun:
    return logged(named(name), Groups(many_above=60, few_below=20), {})


def history(name: str, step: str) -> list[dict[str, str]]:
    with (named(name).folders[step] / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_curves_are_those_of_history(name, run):
    for step in ("stage_one", "stage_two"):
        rows = history(name, step)
        assert rows
        for column in set(rows[0]) - {"phase", "epoch"}:
            told = run.curves.get(f"{step}/{column}", {})
            meant = {n: float(row[column]) for n, row in enumerate(rows, 1) if row[column] not in ("", "nan")}
            assert told == meant
    assert run.by_epoch()[1]["stage_one/train_loss"] == float(history(name, "stage_one")[0]["train_loss"])
    assert len(run.curves["stage_two/loss"]) == 3


def test_metrics_are_those_of_the_run_with_groups_by_the_borders_given(name, run):
    finished = named(name)
    test = finished.metrics()["test"]
    assert run.metrics["test/accuracy"] == test["accuracy"]
    counts = finished.counts()["train"].tolist()
    few = [share for share, count in zip(test["per_class"], counts, strict=True) if count < 20]
    assert 0 < len(few) < 10
    assert run.metrics["test/few"] == pytest.approx(math.fsum(few) / len(few))
    assert run.metrics["stage_one/seconds"] == finished.records["stage_one"]["seconds"]


def test_values_that_were_tried_are_no_epochs(name, monkeypatch):
    real = tracked.read_frame

    def grid(file: Path):
        found = real(file)
        return found.rename(columns={"epoch": "tau"}) if file.parent.name == name else found

    monkeypatch.setattr(tracked, "read_frame", grid)
    found = logged(named(name), Groups(), {}).curves
    assert "stage_one/train_loss" in found
    assert not [curve for curve in found if curve.startswith("stage_two/")]


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        ("split", {"validation": {"source": "test"}}),
        ("stage_one", {"recipe": {"step": {"name": "metasaug", "meta": "on"}}}),
    ],
)
def test_an_accuracy_by_which_nothing_may_be_chosen_is_not_told(name, run, step, settings):
    assert "validation/selection_accuracy" in run.metrics
    finished = named(name)
    records = {**finished.records, step: {**finished.records[step], "settings": settings}}
    if step == "split":
        records["split"]["settings"] = {**finished.records["split"]["settings"], **settings}
    told = logged(replace(finished, records=records), Groups(), {}).metrics
    assert "validation/selection_accuracy" not in told
    assert "validation/accuracy" in told


def test_settings_are_flat(run):
    assert run.settings["stage_one.recipe.network.depth"] == 8
    assert run.settings["stage_one.recipe.loss.gamma.form"] == "constant"
    assert run.settings["stage_two.method.epochs"] == 3
    assert run.settings["split.imbalance.ratio"] == 10.0


def test_tensorboard(name, run):
    pytest.importorskip("tensorboard", reason=WHY)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time replaces the first
        log([name], "tensorboard", "events", ["results/one.csv"])
    found = EventAccumulator(f"events/{name}", size_guidance={"scalars": 0})
    found.Reload()
    for curve, values in run.curves.items():
        told = {event.step: event.value for event in found.Scalars(curve)}
        assert told == pytest.approx(values, rel=1e-6)  # kept as float32
        assert len(found.Scalars(curve)) == len(values)
    assert found.Scalars("test/accuracy")[0].value == pytest.approx(run.metrics["test/accuracy"])
    text = found.Tensors("table/one/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "| CE | 71.20 |\n"
    assert b"stage_two.method.epochs" in b"".join(
        file.read_bytes() for file in Path("events", name).iterdir()
    )


def test_mlflow(name, run):
    pytest.importorskip("mlflow", reason=WHY)
    from mlflow import MlflowClient

    for _ in range(2):
        log([name], "mlflow", "flow", ["results/one.md"])
    client = MlflowClient(f"sqlite:///{Path('flow/mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name("longtail-digits")
    [told] = client.search_runs([experiment.experiment_id])
    assert told.info.run_name == name
    assert told.info.status == "FINISHED"
    assert told.data.tags["longtail.identity"] == run.identity
    assert told.data.params == {key: str(value) for key, value in run.settings.items()}
    for metric in ("test/accuracy", "test/mean_class_accuracy", "stage_two/seconds"):
        assert told.data.metrics[metric] == run.metrics[metric]
    for curve, values in run.curves.items():
        points = client.get_metric_history(told.info.run_id, curve)
        assert {point.step: point.value for point in points} == values
    assert {Path(one.path).name for one in client.list_artifacts(told.info.run_id, "tables")} == {
        "one.csv",
        "one.html",
    }


def records(content: bytes) -> Iterator[bytes]:
    """What stands in a .wandb file, LevelDB's log: blocks of 32 KiB, pieces with heads of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last piece of one
            yield whole
            whole = b""


def test_wandb_offline(name, run):
    wandb = pytest.importorskip("wandb", reason=WHY)
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(2):
        log([name], "wandb", "bias", ["results/one.csv"])
    wandb.teardown()  # its own process writes; the end of a command waits for it in the same way
    [folder] = Path("bias/wandb").glob("offline-run-*")
    [file] = folder.glob("*.wandb")
    config, rows = {}, {}
    for data in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        told = [*record.run.config.update, *record.config.update]
        config |= {item.key: json.loads(item.value_json) for item in told}
        row = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
        }
        if "_step" in row:
            rows.setdefault(row["_step"], {}).update(row)
    assert {key: config.get(key) for key in run.settings} == run.settings
    for curve, values in run.curves.items():
        assert {step: row[curve] for step, row in rows.items() if curve in row} == values
    [table] = (folder / "files/media/table").rglob("*.json")
    assert json.loads(table.read_text())["data"][1] == ["All", "A & B", ""]


def test_trackio(name, run, monkeypatch):
    pytest.importorskip("trackio", reason=WHY)
    monkeypatch.setenv("TRACKIO_DIR", "")
    for _ in range(2):
        log([name], "trackio", "io", ["results/one.csv"])
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("longtail-digits") == [name]
    rows = SQLiteStorage.get_logs("longtail-digits", name)
    for curve, values in run.curves.items():
        assert {row["step"]: row[curve] for row in rows if curve in row} == values
    assert [row["test/accuracy"] for row in rows if "test/accuracy" in row] == [run.metrics["test/accuracy"]]
    config = SQLiteStorage.get_run_config("longtail-digits", name)
    assert config["stage_one.recipe.network.depth"] == 8


def test_a_damaged_run_is_refused(name):
    file = named(name).folders["stage_one"] / "history.csv"
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(good.replace(b"1", b"2"))
    try:
        with pytest.raises(UserError, match=r"history\.csv: is not what run\.json says"):
            log([name], installed(), "nowhere")
    finally:
        file.write_bytes(good)
    assert not Path("nowhere").exists()


def installed() -> str:
    """A tracker that is here."""
    pytest.importorskip("tensorboard", reason=WHY)
    return "tensorboard"


def test_a_table_that_was_edited_is_refused(name):
    publish(Path("results"), "two")
    Path("results/two.csv").write_text(TABLE.replace("71", "99"))
    with pytest.raises(UserError, match=r"--table results/two\.csv: is not what was made"):
        log([name], installed(), "nowhere", ["results/two.csv"])
    with pytest.raises(UserError, match=r"--table results/none\.csv: no table is published there"):
        log([name], installed(), "nowhere", ["results/none.csv"])
    assert not Path("nowhere").exists()


def test_two_tables_of_one_name_are_refused_and_two_files_of_one_table_are_not(name, monkeypatch):
    monkeypatch.setattr("longtail.tracking.log.find_spec", lambda name: True)
    publish(Path("results/other"), "one")
    tables = ["results/one.csv", "results/one.md", "results/other/one.csv"]
    with pytest.raises(UserError) as caught:
        log([name], "tensorboard", "nowhere", tables)
    assert str(caught.value) == (
        "--table results/other/one.csv: results/one.csv has the name one too; leave one of them out"
    )


@pytest.mark.parametrize("tracker", TRACKERS)
def test_without_its_package_a_line_says_what_to_install(tracker, monkeypatch):
    monkeypatch.setattr("longtail.tracking.log.find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        log(["any"], tracker)
    assert str(caught.value) == (
        f"--to {tracker}: the package {tracker} is not installed; `pip install {tracker}` does it"
    )


def test_every_tracker_is_a_module_with_write_and_a_choice_of_the_command(root):
    for tracker in TRACKERS:
        tree = ast.parse((root / f"src/longtail/tracking/{tracker}.py").read_text())
        [write] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "write"]
        assert [argument.arg for argument in write.args.args] == ["run", "place"]
        assert parser().parse_args(["log", "RUN", "--to", tracker]).to == tracker
    with pytest.raises(SystemExit):
        parser().parse_args(["log", "RUN", "--to", "paper"])
