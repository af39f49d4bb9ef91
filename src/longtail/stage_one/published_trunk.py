"""Stage one of a trunk that stays as it was published: its weights as a finished run; no image is read.

Of the head, which a new network has at random, nothing is used: the features' head is trained on them
(longtail.stage_two.linear_probe).
"""

import json
from collections.abc import Callable

from safetensors.torch import save_file

from longtail.data.labelled_images import read_counts, read_part
from longtail.device import describe, device, resolve_precision, set_up
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.frozen_features import PublishedTrunk
from longtail.settings.recipe import StageOneSettings
from longtail.stage_one.assembly import make_network

COLUMNS = "phase,epoch,step,learning_rate,progress,train_loss,train_accuracy,test_accuracy"


def write_published(job: Job) -> None:
    """Write the network with its published weights, a history without a row, and no metrics.

    Raises:
        UserError: if the weights are not to be had, or do not fit.
    """
    settings: StageOneSettings = job.settings
    trunk = settings.recipe
    assert isinstance(trunk, PublishedTrunk)
    where = device()
    set_up(where)
    split = job.inputs["split"]
    images = read_part(split, job.inputs["acquire"], "train", settings.images, job.pictures).images
    network = make_network(trunk, images.shape[1], len(read_counts(split)), settings.seed, "network")
    load: Callable[[], str | None] = getattr(network, "load_pretrained", lambda: None)
    if not (begun_with := load()):
        raise UserError(f"{job.run}: network {trunk.network.name} begins with no published weights")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, job.folder / "model.safetensors")
    (job.folder / "history.csv").write_text(f"{COLUMNS}\n", "utf-8")
    (job.folder / "metrics.json").write_text(json.dumps({}) + "\n", "utf-8")
    job.facts.update(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        precision=resolve_precision(settings.precision, where),
        device=describe(where),
        steps=0,
        epochs=0,
        pretrained=begun_with,
    )
