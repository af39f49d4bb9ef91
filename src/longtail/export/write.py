"""A model to take home: one finished run of stage two as safetensors, ONNX and a model card.

longtail export RUN [--to FOLDER] [--params FILE] [--license ID]

Any classifier of stage two can be exported: classifier.safetensors describes all of them. `batchnorm: train`
of the features moved the network's statistics and left no copy; the pass is repeated, and what comes
out has to be what the run predicted.
"""

import errno
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from collections import deque
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from longtail.data.images import in_batches
from longtail.data.labelled_images import Part, read_part
from longtail.data.normalisation import mean_and_std
from longtail.device import set_up
from longtail.errors import UserError
from longtail.export import onnx_session
from longtail.export.agreement import ONNX_TOLERANCE, TOLERANCE, agreement, answers, compare
from longtail.export.card import card
from longtail.export.folder import CARD, DESCRIPTION, ONNX, WEIGHTS, Description
from longtail.export.module import Exported, assembled
from longtail.export.temperature import calibrated
from longtail.features.extract import Extractor, view
from longtail.runs import store
from longtail.runs.identity import file_digest
from longtail.runs.lookup import Finished, named, pictures_root
from longtail.runs.record import git_commit
from longtail.settings.classifier import FeaturesSettings
from longtail.settings.methods import method_module
from longtail.settings.params import Params
from longtail.settings.published import LICENCE, Groups

EXPORTED = Path("exported")
USUAL = Groups()  # the field's borders, where no settings file gives others


@dataclass(frozen=True)
class AssembledModel:
    """An assembled model and what was found out about it.

    Attributes:
        description: model.json, without the hashes of files that are not written yet.
        tensors: the weights.
        run: where it is from.
        predictions: of the run: logits, labels, validation_logits, validation_labels.
        probabilities: float32 (test images, classes), its own.
        checks: how exactly the parts agree, for the card.
    """

    description: Description
    tensors: dict[str, Tensor]
    run: Finished
    predictions: dict[str, Tensor]
    probabilities: Tensor
    checks: dict[str, Any]


def export(
    given: str, to: str | None = None, settings: str | None = None, licence: str | None = None
) -> Path:
    """Export a finished run; the folder.

    Args:
        given: name of a run of stage two, or a beginning that only one has.
        to: the folder to write; exported/RUN by default. An exported model there is replaced.
        settings: the settings file whose `groups` the card has; None: the field's borders.
        licence: of the model, as model hubs name it; None: the card names none.

    Raises:
        UserError: if there is no such run, it is damaged, the folder is something else, a check fails, or
            the settings are of another dataset.
    """
    onnx_session.require("onnx", "onnxscript", "onnxruntime")
    if licence is not None and not re.match(LICENCE, licence):
        raise UserError(f"--license {licence}: is no name of a licence that hubs know, e.g. cc-by-4.0, mit")
    run = named(given)
    groups = _groups(run, settings)
    target = Path(to) if to else EXPORTED / run.name
    _refuse_another(target)
    set_up(torch.device("cpu"))
    with store.locked("export", sha256(str(target.resolve()).encode()).hexdigest()[:16]):
        try:
            _write(run, target, groups, licence)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(f"{error.filename or target}: {error.strerror or error}; see --to") from None
    print(f"{run.name}: exported to {target}", file=sys.stderr)
    print(f"to share it: hf upload USER/{run.name} {shlex.quote(str(target))}", file=sys.stderr)
    return target


def _groups(run: Finished, settings: str | None) -> Groups:
    """Many, medium and few as a settings file has them: no run knows them, being the same under any."""
    if settings is None:
        return USUAL
    params, own = Params.load(settings), run.records["features"]["settings"]["dataset"]
    if params.dataset != own:
        raise UserError(f"{settings}: is for {params.dataset}, but {run.name} is of {own}; name its settings")
    return params.groups


MADE = {WEIGHTS, ONNX, DESCRIPTION, CARD, "choice.csv", "model.identity.json"}  # the last two by a workflow


def _refuse_another(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target}: is no folder; name another with --to")
    there = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
    if there and DESCRIPTION not in there:
        raise UserError(f"{target}: is there and no exported model; name another folder with --to")
    if strange := [name for name in there if name not in MADE]:
        raise UserError(
            f"{target}: holds {strange[0]}, which would be deleted; name another folder with --to"
        )


def _write(run: Finished, target: Path, groups: Groups, licence: str | None) -> None:
    """Write the folder under a temporary name and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (target.with_name(f".{target.name}.{word}") for word in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)  # of a killed export
    shutil.rmtree(old, ignore_errors=True)
    model, test = assemble(run)
    partial.mkdir()
    try:
        _fill(partial, model, test, groups, licence)
        if target.exists():
            target.rename(old)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_model(run: Finished, folder: Path, groups: Groups = USUAL, licence: str | None = None) -> None:
    """Write the four files of an exported model into a folder that is there.

    Raises:
        UserError: as `export`.
    """
    onnx_session.require("onnx", "onnxscript", "onnxruntime")
    set_up(torch.device("cpu"))
    model, test = assemble(run)
    _fill(folder, model, test, groups, licence)


def assemble(run: Finished) -> tuple[AssembledModel, Part]:
    """Put the model together, calibrate it, and hold it against the run's own predictions; the test images.

    Raises:
        UserError: if it does not predict what the run predicted.
    """
    settings = FeaturesSettings.model_validate(run.records["features"]["settings"])
    mean, std = mean_and_std(settings.dataset, settings.images)
    test = _read(run, "test", settings)
    classifier = load_file(run.folders["stage_two"] / "classifier.safetensors")
    predictions = load_file(run.folders["stage_two"] / "predictions.safetensors")
    tensors = {f"network.{name}": tensor for name, tensor in _backbone(run, settings).items()}
    for name in ("weight", "bias", "center"):
        if name in classifier:
            tensors[name] = classifier[name].contiguous()
    calibration = calibrated(run, predictions)
    description = Description(
        name=run.name,
        identity=run.records["stage_two"]["identity"],
        network=settings.network.resolved(),
        classes=run.counts()["name"].tolist(),
        channels=test.images.shape[1],
        size=test.images.shape[2:],
        crop=settings.images.center if settings.images else None,
        interpolation=settings.images.interpolation if settings.images else "bilinear",
        mean=list(mean),
        std=list(std),
        dimensions=classifier["weight"].shape[1],
        tukey=float(classifier["tukey"]),
        center="center" in classifier,
        normalise="normalise" in classifier,
        temperature=calibration["temperature"],
        sha256={},
        origin=_origin(run, calibration),
    )
    precision = run.records["features"]["facts"]["precision"]
    probabilities, logits = answers(assembled(description, tensors), test.images)
    checks = agreement(logits, predictions["logits"], precision)
    if checks["share"] > TOLERANCE[precision]:
        raise UserError(
            f"{run.name}: the exported model would not predict what the run predicted (logits differ by "
            f"{checks['share']:.2g} of the largest, {TOLERANCE[precision]:g} is allowed); make the run again "
            "on this machine and export that"
        )
    return AssembledModel(description, tensors, run, predictions, probabilities, checks), test


def _read(run: Finished, part: Literal["train", "test"], settings: FeaturesSettings) -> Part:
    raw = run.folders["acquire"]
    return read_part(run.folders["split"], raw, part, settings.images, pictures_root(raw))


def _backbone(run: Finished, settings: FeaturesSettings) -> dict[str, Tensor]:
    """The network's tensors without its head, as they were when features of test images were made."""
    tensors = load_file(run.folders["stage_one"] / "model.safetensors")
    if settings.batchnorm == "train":
        tensors = _after_views(run, settings, tensors)
    return {
        name: tensor.detach().contiguous() for name, tensor in tensors.items() if not name.startswith("head.")
    }


def _after_views(run: Finished, settings: FeaturesSettings, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network after the pass over the training images that moved its running statistics."""
    print(f"{run.name}: repeating the pass that moved batch normalisation", file=sys.stderr, flush=True)
    training = _read(run, "train", settings)
    network = method_module("networks", settings.network.name).build(
        settings.network.options, training.images.shape[1], len(run.counts())
    )
    network.load_state_dict(tensors)
    precision = run.records["features"]["facts"]["precision"]
    normal = mean_and_std(settings.dataset, settings.images)
    extract = Extractor(network, *normal, torch.device("cpu"), precision)
    for number in range(max(1, settings.views)):
        deque(view(extract, training, number, settings), maxlen=0)  # for what it does to the network
    return dict(network.state_dict())


def _origin(run: Finished, calibration: dict[str, Any]) -> dict[str, Any]:
    records = run.records
    return {
        "dataset": records["features"]["settings"]["dataset"],
        "data": {"identity": records["acquire"]["identity"], **records["acquire"]["outputs"]},
        "runs": {step: {"run": r["run"], "identity": r["identity"]} for step, r in records.items()},
        "calibration": calibration,
        "commit": {step: records[step]["code"]["commit"] for step in ("stage_one", "stage_two")},
        "exported_at": git_commit(),
        "packages": {**records["stage_two"]["packages"], **_versions()},
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")}


def _fill(folder: Path, model: AssembledModel, test: Part, groups: Groups, licence: str | None) -> None:
    """Write all four files; the description last but for the card, which tells of it."""
    weights = save(model.tensors, metadata={"format": "pt"})  # one key: their order is not fixed
    (folder / WEIGHTS).write_bytes(weights)
    module = assembled(model.description, model.tensors)
    # A batch of several: of one, torch.export takes the size for fixed.
    graph = to_onnx(module, in_batches(test.images[:2], 2)[0], model.description)
    (folder / ONNX).write_bytes(graph)
    checks = {**model.checks, "onnx": compare(graph, model.probabilities, test.images)}
    if not checks["onnx"] <= ONNX_TOLERANCE:
        raise UserError(
            f"{model.description.name}: onnxruntime gives other probabilities than torch (by "
            f"{checks['onnx']:.2g}, {ONNX_TOLERANCE:g} is allowed); install the versions of requirements.lock"
        )
    digests = {name: file_digest(folder / name) for name in (WEIGHTS, ONNX)}
    origin = {**model.description.origin, "checks": checks}
    description = model.description.model_copy(update={"sha256": digests, "origin": origin})
    store.write_json(folder / DESCRIPTION, description.resolved())
    told = model.run.records, model.run.metrics(), model.run.counts(), model.predictions
    page = card(description, *told, groups, licence)
    store.write_text(folder / CARD, page)
    for name in (WEIGHTS, ONNX, DESCRIPTION, CARD):
        os.chmod(folder / name, 0o644)


def to_onnx(model: Exported, images: Tensor, description: Description) -> bytes:
    """The model as ONNX: `images` uint8 (N, C, H, W) to `probabilities` and `logits`, (N, classes).

    By torch's exporter over torch.export, which is kept up; the older one, by tracing, is deprecated.
    """
    import onnx

    said = StringIO()
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(said):
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    graph = program.model_proto
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input):
        del part.metadata_props[:]  # paths of the sources on this machine
    for part in (*graph.graph.output, *graph.graph.initializer):
        del part.metadata_props[:]
    onnx.helper.set_model_props(
        graph,
        {
            "name": description.name,
            "classes": json.dumps(description.classes),
            "temperature": repr(description.temperature),
        },
    )
    onnx.checker.check_model(graph, full_check=True)
    content = BytesIO()
    onnx.save_model(graph, content)
    return content.getvalue()
