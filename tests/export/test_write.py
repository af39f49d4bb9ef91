"""Exported models predict what the run predicted, in torch and in onnxruntime; nothing half-written stays."""

import json
import math
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from longtail import cli
from longtail.errors import UserError
from longtail.export import onnx_session as onnx_model
from longtail.export import write as export
from longtail.export.agreement import TOLERANCE
from longtail.export.folder import Description
from longtail.export.front_matter import front_matter
from longtail.export.module import assembled, load_exported
from longtail.export.temperature import SOURCES, calibrated, negative_log_likelihood, temperature
from longtail.runs import store
from longtail.runs.code_identity import closure
from longtail.runs.lookup import named
from longtail.runs.steps import MODULES
from longtail.settings.split import Validation
from tests import finished_runs

# The forms of an exported graph, each with a run of it.
FORMS = {"plain": "joint", "centred": "ncm", "Tukey": "tukey", "cosine": "cosine"}
EXACT = ("joint", "crt", "tau_normalisation", "ncm", "lws", "afg", "cosine", "tukey")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs on digits, by what is special about them; the current folder is their project."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("project"))
    store.home.cache_clear()
    torch.set_num_threads(1)
    yield finished_runs.make()
    os.chdir(here)
    store.home.cache_clear()


@pytest.fixture(scope="module")
def exported(runs):
    """The exported folder of each form that a graph can have; each is made once."""

    @cache
    def made(form: str) -> Path:
        return export.export(runs[FORMS[form]])

    return made


@pytest.fixture(scope="module")
def joint(exported) -> Path:
    return exported("plain")


def test_images():
    return load_file(store.stored("acquire", "digits") / "test.safetensors")["images"]


test_images.__test__ = False  # type: ignore[attr-defined]


def logits_of_the_run(runs, kind: str) -> Tensor:
    return load_file(store.stored("stage_two", runs[kind]) / "predictions.safetensors")["logits"]


@pytest.mark.parametrize("kind", EXACT)
def test_a_model_has_the_logits_of_the_run(runs, kind):
    model, test = export.assemble(named(runs[kind]))
    expected = logits_of_the_run(runs, kind)
    probabilities, logits = assembled(model.description, model.tensors)(test.images)
    # A float32 run on the same kind of processor: to the last bits.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    scaled = F.softmax(expected.double() / model.description.temperature, 1).float()
    torch.testing.assert_close(probabilities, scaled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_model_has_the_logits_of_the_run_in_torch_and_in_onnxruntime(runs, exported, form):
    folder = exported(form)
    assert folder == Path("exported") / runs[FORMS[form]]
    expected = logits_of_the_run(runs, FORMS[form])
    model, description = load_exported(folder)
    probabilities, logits = model(test_images())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    scaled = F.softmax(expected.double() / description.temperature, 1).float()
    torch.testing.assert_close(probabilities, scaled, rtol=0, atol=1e-4)

    session = onnx_model.session((folder / "model.onnx").read_bytes(), "cpu")
    for batch in (1, 7, 500):  # the batch axis is free
        images = test_images()[:batch].numpy()
        found_p, found_l = session.run(["probabilities", "logits"], {"images": images})
        assert np.abs(found_p - probabilities[:batch].numpy()).max() < 1e-5
        assert np.abs(found_l - logits[:batch].numpy()).max() < 1e-4 * float(expected.abs().max())


def test_weights_of_places_are_part_of_an_exported_model(runs):
    folder = export.export(runs["bfr"])
    expected = logits_of_the_run(runs, "bfr")
    model, description = load_exported(folder)
    assert (description.network["pooling"], description.network["head"]) == ("bfr", "cosine")
    probabilities, logits = model(test_images())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    session = onnx_model.session((folder / "model.onnx").read_bytes(), "cpu")
    for batch in (1, 7, 500):
        images = test_images()[:batch].numpy()
        found_p, found_l = session.run(["probabilities", "logits"], {"images": images})
        assert np.abs(found_p - probabilities[:batch].numpy()).max() < 1e-4
        assert np.abs(found_l - logits[:batch].numpy()).max() < 1e-3 * float(expected.abs().max())
    plain = Description.model_validate(
        description.model_dump() | {"network": {**description.network, "pooling": "mean"}}
    )
    unweighted = assembled(plain, dict(model.state_dict()))(test_images())[1]
    assert (unweighted - logits).abs().max() > 1e-3  # the weights matter also where features are normalised


def test_every_classifier_is_of_a_form_that_is_exported(runs):
    """What the graph has beside the weights: how features are prepared for the linear classifier."""

    def form(kind: str) -> tuple[float, bool, bool]:
        description = export.assemble(named(runs[kind]))[0].description
        return description.tukey, description.center, description.normalise

    forms = {name: form(kind) for name, kind in FORMS.items()}
    assert len(set(forms.values())) == len(forms)
    assert {form(kind) for kind in EXACT} == set(forms.values())


def test_the_runs_are_of_the_kinds_they_are_named_for(runs):
    kinds = {name: export.assemble(named(runs[name]))[0].description for name in ("ncm", "tukey", "cosine")}
    assert kinds["ncm"].center
    assert kinds["ncm"].normalise
    assert kinds["tukey"].tukey == 0.5
    assert kinds["cosine"].normalise
    assert named(runs["moved"]).records["features"]["settings"]["batchnorm"] == "train"


def test_the_pass_that_moved_batch_normalisation_is_repeated(runs, monkeypatch):
    model, _ = export.assemble(named(runs["moved"]))
    assert model.checks["share"] < 1e-5
    monkeypatch.setattr(export, "_after_views", lambda run, settings, tensors: tensors)
    with pytest.raises(UserError, match="would not predict what the run predicted"):
        export.assemble(named(runs["moved"]))


def test_a_bfloat16_run_is_exported_in_float32_within_the_stated_tolerance(runs):
    model, _ = export.assemble(named(runs["half"]))
    assert model.checks["precision"] == "bf16"
    assert 0 < model.checks["share"] < TOLERANCE["bf16"]
    assert model.checks["same"] > 0.95


def test_float_images_are_what_uint8_ones_are(joint):
    model, _ = load_exported(joint)
    images = test_images()[:20]
    assert torch.equal(model(images)[1], model(images.float())[1])


def test_the_temperature_has_the_smallest_loss_of_all():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, 7, generator=generator)
    labels = torch.multinomial(F.softmax(logits / 2.5, 1), 1, generator=generator).squeeze(1)
    best = temperature(logits, labels)
    assert 2 < best < 3
    losses = [negative_log_likelihood(logits, labels, best * factor) for factor in (0.99, 1, 1.01)]
    assert min(losses) == losses[1]
    assert math.isclose(temperature(10 * logits, labels), 10 * best, rel_tol=1e-6)


def test_logits_that_separate_perfectly_end_at_the_edge_of_the_range():
    assert math.isclose(temperature(5 * torch.eye(4), torch.arange(4)), 1e-3, rel_tol=1e-6)


def test_calibration_lowers_the_loss_on_the_images_it_was_fitted_to(runs):
    model, _ = export.assemble(named(runs["moved"]))
    fitted = model.predictions["validation_logits"], model.predictions["validation_labels"]
    assert negative_log_likelihood(*fitted, model.description.temperature) < negative_log_likelihood(
        *fitted, 1
    )


def test_a_classifier_that_has_seen_the_validation_images_is_not_calibrated(runs):
    model, _ = export.assemble(named(runs["whole"]))
    assert model.description.temperature == 1
    assert "not calibrated" in model.description.origin["calibration"]["how"]


def test_without_validation_images_the_temperature_is_1(runs):
    joint = named(runs["joint"])
    empty = {"validation_labels": torch.zeros(0, dtype=torch.int64), "validation_logits": torch.zeros(0, 10)}
    found = calibrated(joint, empty)
    assert found["temperature"] == 1
    assert "no validation image" in found["how"]


@pytest.mark.parametrize(
    ("logits", "said"),
    [(5 * torch.eye(10), "all predicted right"), (-5 * torch.eye(10), "no better than by chance")],
    ids=["perfect", "worse than chance"],
)
def test_where_the_fit_runs_to_its_bound_the_temperature_stays_1_with_a_warning(runs, logits, said, capsys):
    predictions = {"validation_labels": torch.arange(10), "validation_logits": logits}
    found = calibrated(named(runs["joint"]), predictions)
    assert found["temperature"] == 1
    assert said in found["how"]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {runs['joint']}: not calibrated")


@pytest.mark.parametrize("source", get_args(Validation.model_fields["source"].annotation))
def test_every_source_of_validation_images_has_words(source):
    assert source in SOURCES


def test_the_card_has_the_groups_of_the_settings_that_are_named(runs, capsys):
    text = {
        **{"dataset": "digits", "imbalance": {"profile": "exponential", "ratios": [10]}},
        **{"groups": {"many_above": 60, "few_below": 31}, "stage_one": {}, "stage_two": {}},
    }
    Path("own.yaml").write_text(json.dumps(text))
    cli.main(["export", runs["joint"], "--to", "grouped", "--params", "own.yaml"])
    card = Path("grouped/README.md").read_text()
    assert "| many (> 60) |" in card
    assert "| few (< 31) |" in card
    Path("own.yaml").write_text(json.dumps({**text, "dataset": "cifar10"}))
    with pytest.raises(SystemExit) as end:
        cli.main(["export", runs["joint"], "--to", "other", "--params", "own.yaml"])
    assert end.value.code == 2
    assert "own.yaml: is for cifar10, but" in capsys.readouterr().err
    assert not Path("other").exists()


def test_the_card_has_every_class_the_calibration_and_the_data_hash(runs, joint):
    card = (joint / "README.md").read_text()
    record = named(runs["joint"]).records
    metrics = json.loads((store.stored("stage_two", runs["joint"]) / "metrics.json").read_text())["test"]
    counts = (store.stored("split", record["split"]["run"]) / "counts.csv").read_text().splitlines()[1:]
    for line, accuracy in zip(counts, metrics["per_class"], strict=True):
        label, name, train, _, test = line.split(",")
        assert f"| {label} | {name} | {train} | {test} | {100 * accuracy:.1f} % |" in card
    description = json.loads((joint / "model.json").read_text())
    assert f"T = {description['temperature']:.4f}, fitted to 184 validation images" in card
    assert f"{metrics['expected_calibration_error']:.1%}".replace("%", " %") in card
    assert record["acquire"]["identity"] in card
    assert record["acquire"]["outputs"]["train.safetensors"] in card
    assert description["sha256"]["model.onnx"] in card
    assert "<<" not in card


def head_of(card: Path) -> dict:
    """The YAML at the head of a card."""
    before, head, _ = card.read_text().split("---\n", 2)
    assert before == ""
    return yaml.safe_load(head)


def test_the_head_of_the_card_is_as_model_hubs_have_it(runs, joint):
    """The keys and the form of https://huggingface.co/docs/hub/model-cards."""
    head = head_of(joint / "README.md")
    assert set(head) == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    assert head["pipeline_tag"] == "image-classification"
    assert all(isinstance(tag, str) for tag in head["tags"])
    [model] = head["model-index"]
    assert model["name"] == runs["joint"]
    [result] = model["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    told = {metric["type"]: metric["value"] for metric in result["metrics"]}
    test = named(runs["joint"]).metrics()["test"]
    assert told["accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
    assert told["mean_class_accuracy"] == pytest.approx(test["mean_class_accuracy"], abs=1e-6)
    assert all(0 <= value <= 1 for value in told.values())


def test_a_published_dataset_and_a_licence_are_named_where_they_are_known():
    head = yaml.safe_load(front_matter("n: 1", "cifar100", {"accuracy": 0.5, "few": None}, "cc-by-4.0")[4:-4])
    assert head["license"] == "cc-by-4.0"
    assert head["datasets"] == ["uoft-cs/cifar100"]
    [result] = head["model-index"][0]["results"]
    assert head["model-index"][0]["name"] == "n: 1"
    assert result["dataset"]["type"] == "uoft-cs/cifar100"
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy"]


def test_the_reader_of_a_model_hub_reads_the_card(runs, joint):
    hub = pytest.importorskip(
        "huggingface_hub", reason="needs requirements-trackers.lock (make test-trackers)"
    )
    card = hub.ModelCard.load(joint / "README.md")
    test = named(runs["joint"]).metrics()["test"]
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found["accuracy"].metric_value == pytest.approx(test["accuracy"], abs=1e-6)
    assert found["accuracy"].dataset_split == "test"
    assert found["accuracy"].task_type == card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "longtail"
    assert card.text.lstrip().startswith(f"# {runs['joint']}")


@pytest.mark.parametrize("licence", ["", "CC BY", "a\nb: c", "-"])
def test_a_licence_that_is_no_name_of_one_is_refused(runs, licence):
    with pytest.raises(UserError, match="--license"):
        export.export(runs["joint"], "licensed", licence=licence)
    assert not Path("licensed").exists()


def test_the_cards_own_examples_run(joint, monkeypatch, capsys):
    blocks = (joint / "README.md").read_text().split("```python\n")[1:]
    monkeypatch.chdir(joint)
    for block in blocks:
        exec(block.split("```")[0], {})
    assert capsys.readouterr().out.strip() in map(str, range(10))


def test_exports_of_one_run_are_the_same_bytes_and_name_no_folder_of_this_machine(runs, joint):
    again = export.export(runs["joint"], "again")
    assert again == Path("again")
    for name in ("model.safetensors", "model.onnx", "model.json"):
        content = (joint / name).read_bytes()
        assert content == (again / name).read_bytes()
        assert str(finished_runs.__file__).encode().rsplit(b"/tests", 1)[0] not in content
        assert sys.prefix.encode() not in content


def test_a_beginning_is_enough_and_an_ambiguous_one_lists_the_candidates(runs):
    assert named(runs["ncm"][:-3]).name == runs["ncm"]
    assert named(f"results/stage_two/{runs['ncm']}/").name == runs["ncm"]
    with pytest.raises(UserError) as ambiguous:
        named("linear-")
    assert runs["crt"] in str(ambiguous.value)
    assert runs["lws"] in str(ambiguous.value)
    with pytest.raises(UserError) as unknown:
        named("cifar")
    assert "no finished run" in str(unknown.value)
    assert runs["cosine"] in str(unknown.value)
    for caught in (ambiguous, unknown):
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "..", "nothing", "*"])
def test_an_unknown_run_is_one_line_and_exit_code_2(runs, given, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["export", given])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("step", ["stage_one", "stage_two"])
def test_a_run_edited_by_hand_is_one_line_with_a_way_out(runs, step):
    source = named(runs["tau_normalisation"]).folders[step]
    place = Path("results") / step / source.name
    place.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    damaged = place / ("model.safetensors" if step == "stage_one" else "classifier.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x7f")
    if step == "stage_one":  # the undamaged copy in the store serves
        assert named(runs["tau_normalisation"]).folders[step] == source
    else:
        with pytest.raises(UserError, match="dvc checkout") as caught:
            named(runs["tau_normalisation"])
        assert str(damaged) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_a_run_is_built_on_may_be_gone(runs, monkeypatch):
    monkeypatch.setattr("longtail.runs.lookup._standing", lambda step, real=store.stored: _but_features(step))
    with pytest.raises(UserError, match="features run that it is built on"):
        named(runs["joint"])


def _but_features(step: str) -> list[Path]:
    return [] if step == "features" else sorted(store.stored(step, "-").parent.glob("[!.]*"))


def test_a_folder_of_something_else_is_left_alone(runs):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="no exported model"):
        export.export(runs["joint"], "mine")
    assert [file.name for file in Path("mine").iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_what_was_there_and_nothing_half_written(runs, joint, monkeypatch):
    target = Path(shutil.copytree(joint, "kept"))
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "compare", lambda *_: 0.5)
    with pytest.raises(UserError, match="onnxruntime gives other probabilities") as caught:
        export.export(runs["crt"], "kept")
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert not list(Path().glob(".kept*"))


def test_a_missing_package_is_one_line(runs, monkeypatch):
    find = onnx_model.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_model.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(UserError, match=r"onnxruntime: not installed; .pip install onnxruntime. or"):
        export.export(runs["joint"])


def test_no_run_and_no_table_depends_on_how_models_are_exported():
    published = ("longtail.publish.tables.make", "longtail.publish.figures.drawing")
    assert not [
        name for name in closure((*MODULES.values(), *published)) if name.startswith("longtail.export.")
    ]


def test_a_description_names_what_it_is_made_of(joint):
    description = Description.model_validate(json.loads((joint / "model.json").read_text()))
    assert description.classes == [str(digit) for digit in range(10)]
    assert (description.channels, description.size) == (1, (8, 8))
    assert description.origin["runs"]["stage_two"]["run"] == description.name


def test_a_folder_that_holds_something_else_too_is_left_alone(runs, joint, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(joint, folder)
    (folder / "thesis.tex").write_text("years")
    with pytest.raises(SystemExit):
        cli.main(["export", runs["joint"], "--to", str(folder)])
    assert (
        "holds thesis.tex, which would be deleted; name another folder with --to" in capsys.readouterr().err
    )
    assert (folder / "thesis.tex").read_text() == "years"
