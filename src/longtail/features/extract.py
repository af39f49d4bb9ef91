"""Features: what stage one's frozen network makes of every image.

Writes train.safetensors (the clean training images), views.safetensors (their augmented views, which stage
two learns from), validation.safetensors and test.safetensors (always clean), all float32, and
head.safetensors (stage one's classifier, and whether it normalises features: a cosine head's does). If
asked, also whole.safetensors: features and labels of all training images that the dataset has, clean, the
images that the imbalance left out included.

`batchnorm: eval` leaves the network as stage one left it. `batchnorm: train` does what public code of this
field does that calls model.train() in stage two: batch normalisation takes the statistics of each batch of
training images while the views are made (batches of stage one's size, in a new random order every view),
its running statistics move on, and clean features are made with them afterwards. So features of training,
validation and test images then depend on that pass, and a training image's also on the batch it was in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longtail.data.augmentation import augment
from longtail.data.images import Images, cpu_batch, evaluation_batch, in_batches
from longtail.data.labelled_images import Part, read_counts, read_part, read_whole
from longtail.data.normalisation import mean_and_std, normalise
from longtail.device import describe, device, resolve_precision, set_up
from longtail.errors import UserError
from longtail.features.file import Shapes, writing
from longtail.features.threads import in_order
from longtail.random import generator
from longtail.runs.job import Job
from longtail.settings.classifier import FeaturesSettings
from longtail.settings.methods import method_module
from longtail.stage_one.networks.cosine import CosineHead

PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
CPU_BATCH = (
    16  # pictures; of 83 their activations leave the caches, and each takes one and a half times as long
)


class Extractor:
    """A frozen network as a function from images to features and logits.

    Args:
        network: has `features(x)` and `head`; moved to the device.
        mean, std: per channel, for `longtail.data.normalisation.normalise`.
        where: the device.
        precision: of the network; the head is computed in float32, so that logits are exactly what the
            head makes of the stored features.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        where: torch.device,
        precision: str,
    ) -> None:
        self.network = network.to(where).to(memory_format=torch.channels_last).eval()
        self.head = network.get_submodule("head")
        self.mean, self.std, self.where, self.precision = mean, std, where, precision

    def stream(self, images: Images, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, d) and logits (B, C), float32 on the CPU, of images uint8 (N, C, H, W), by batch.

        On the CPU batches of picture files are shared by as many threads as the process was given, a core
        each: what comes out does not depend on their number, as it would where they shared a batch.
        """
        size = batch_size or evaluation_batch(images)
        alone = self.where.type != "cpu" or isinstance(images, Tensor) or batch_size is not None
        if alone:
            yield from map(self._of, in_batches(images, size))
        else:
            yield from in_order(self._of, in_batches(images, cpu_batch(images)), torch.get_num_threads())

    def _of(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            inputs = normalise(batch.to(self.where), self.mean, self.std)
            with torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision == "bf16"):
                found = self.network.features(inputs).float()  # type: ignore[operator]
            logits = self.head(found).float()
        return found.cpu(), logits.cpu()

    def __call__(self, images: Images, batch_size: int | None = None) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C) of all."""
        features, logits = zip(*self.stream(images, batch_size), strict=True)
        return torch.cat(features), torch.cat(logits)

    def batchnorm_train(self, training: bool) -> None:
        """Whether batch normalisation takes batch statistics and moves its own; nothing else is touched."""
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(training)


def compute(job: Job) -> None:
    """Extract the features of the training, validation and test images."""
    settings: FeaturesSettings = job.settings
    where = device()
    set_up(where)
    split, raw = job.inputs["split"], job.inputs["acquire"]
    parts = {name: read_part(split, raw, name, settings.images, job.pictures) for name in PARTS}
    training = parts["train"]
    module = method_module("networks", settings.network.name)
    channels, classes = training.images.shape[1], len(read_counts(split))
    network = module.build(settings.network.options, channels, classes)
    file = job.inputs["stage_one"] / "model.safetensors"
    try:
        network.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: does not fit network {settings.network.name}: {reason}") from None
    precision = resolve_precision(settings.precision, where)
    extract = Extractor(network, *mean_and_std(settings.dataset, settings.images), where, precision)
    head = _head(network)
    dimensions = head["weight"].shape[1]

    made = max(1, settings.views)
    with job.progress(made + len(parts) + settings.whole, "pass") as progress:
        # Views come first: with `batchnorm: train` they move the statistics that clean features depend on.
        count = len(training.labels)
        shapes: Shapes = {
            "features": ((made, count, dimensions), torch.float32),
            "logits": ((made, count, classes), torch.float32),
            "labels": ((count,), torch.int64),
        }
        with writing(job.folder / "views.safetensors", shapes) as views:
            views.put("labels", 0, training.labels)
            for number in range(made):
                for first, features, logits in view(extract, training, number, settings):
                    views.put("features", number * count + first, features)
                    views.put("logits", number * count + first, logits)
                    progress.to(number, f"views {(first + len(features)) / max(1, count):.0%}")
                progress.to(number + 1, "views")
        for number, (name, part) in enumerate(parts.items()):
            count = len(part.labels)
            shapes = {
                "features": ((count, dimensions), torch.float32),
                "logits": ((count, classes), torch.float32),
                "labels": ((count,), torch.int64),
                "samples": ((count,), torch.int64),
            }
            clean = clean_view(job.folder, settings) if name == "train" else None
            for share in _write_clean(extract, part, job.folder / f"{name}.safetensors", shapes, clean):
                progress.to(made + number, f"{name} {share:.0%}")
            progress.to(made + number + 1, name)
        if settings.whole:
            whole = read_whole(raw, settings.images, job.pictures)
            count = len(whole.labels)
            shapes = {
                "features": ((count, dimensions), torch.float32),
                "labels": ((count,), torch.int64),
            }
            for share in _write_clean(extract, whole, job.folder / "whole.safetensors", shapes):
                progress.to(made + len(parts), f"whole {share:.0%}")
            progress.to(made + len(parts) + 1, "whole")
    save_file(head, job.folder / "head.safetensors")
    job.facts.update(
        device=describe(where),
        precision=precision,
        dimensions=dimensions,
        views=made if settings.views else "clean",
        batchnorm=settings.batchnorm,
    )


def view(
    extract: Extractor, training: Part, number: int, settings: FeaturesSettings
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Features (n, d) and logits (n, C) of one view of every training image, piece by piece.

    Clean images for `views: 0`, else each with the training augmentation.

    Yields:
        The place of the piece's first image in the order of the images, features and logits.
    """
    images = training.images.to(extract.where)
    if settings.views:
        images = augment(images, settings.augmentation, generator(settings.seed, "views", number))
    if settings.batchnorm == "eval":
        first = 0
        for features, logits in extract.stream(images):
            yield first, features, logits
            first += len(features)
        return
    order = torch.randperm(len(images), generator=generator(settings.seed, "views", "order", number))
    extract.batchnorm_train(True)
    features, logits = extract(images[order], settings.batch_size)
    extract.batchnorm_train(False)
    back = order.argsort()
    yield 0, features[back], logits[back]


def clean_view(folder: Path, settings: FeaturesSettings) -> tuple[Tensor, Tensor] | None:
    """Features (N, d) and logits (N, C) of the training images where the clean ones are the one view."""
    if settings.views or settings.batchnorm == "train":
        return None
    views = load_file(folder / "views.safetensors")
    return views["features"][0], views["logits"][0]


def _write_clean(
    extract: Extractor,
    part: Part,
    file: Path,
    shapes: Shapes,
    found: tuple[Tensor, Tensor] | None = None,
) -> Iterator[float]:
    """Features of images as they are, and what else `shapes` has; a split may have no validation image.

    `found` has their features and logits where they are known already.

    Yields:
        The share of the images that is done.
    """
    with writing(file, shapes) as out:
        for name, values in (("labels", part.labels), ("samples", part.samples)):
            if name in shapes:
                out.put(name, 0, values)
        first = 0
        for features, logits in [found] if found else extract.stream(part.images):
            out.put("features", first, features)
            if "logits" in shapes:
                out.put("logits", first, logits)
            first += len(features)
            yield first / max(1, len(part.labels))


def _head(network: nn.Module) -> dict[str, Tensor]:
    """Weight (C, d) and bias (C,) of the classifier; a bias of 0 where it has none.

    A cosine head is those of a classifier of normalised features, which the key `normalise` says.
    """
    head = network.get_submodule("head")
    if isinstance(head, CosineHead):
        weight = head.linear().detach().cpu()
        return {"weight": weight, "bias": weight.new_zeros(len(weight)), "normalise": torch.tensor(True)}
    weight = network.get_parameter("head.weight").detach().cpu().contiguous()
    bias = head.bias.detach().cpu() if isinstance(head.bias, Tensor) else weight.new_zeros(len(weight))
    return {"weight": weight, "bias": bias}
