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

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longtail.augmentation import augment, normalise
from longtail.datasets import DATASETS
from longtail.device import describe, device, resolve_precision, set_up
from longtail.errors import UserError
from longtail.job import Job
from longtail.networks.cosine import CosineHead
from longtail.params import FeaturesSettings
from longtail.parts import Part, read_counts, read_part
from longtail.random import generator
from longtail.settings import method_module

EVALUATION_BATCH = 1000


class Extractor:
    """A frozen network as a function from images to features and logits.

    Args:
        network: has `features(x)` and `head`; moved to the device.
        mean, std: per channel, for `longtail.augmentation.normalise`.
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

    def __call__(self, images: Tensor, batch_size: int = EVALUATION_BATCH) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C), float32 on the CPU, of images uint8 (N, C, H, W), in batches."""
        features, logits = [], []
        with torch.inference_mode():
            for batch in torch.split(images, batch_size):
                inputs = normalise(batch.to(self.where), self.mean, self.std)
                with torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    found = self.network.features(inputs)  # type: ignore[operator]
                features.append(found.float())
                logits.append(self.head(features[-1]).float())
        return torch.cat(features).cpu(), torch.cat(logits).cpu()

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
    dataset = DATASETS[settings.dataset]
    split, raw = job.inputs["split"], job.inputs["acquire"]
    parts = {name: read_part(split, raw, name) for name in ("train", "validation", "test")}
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
    extract = Extractor(network, dataset.mean, dataset.std, where, precision)

    made = max(1, settings.views)
    with job.progress(made + len(parts) + settings.whole, "pass") as progress:
        # Views come first: with `batchnorm: train` they move the statistics that clean features depend on.
        found = []
        for number in range(made):
            found.append(view(extract, training, number, settings))
            progress.to(number + 1, "views")
        views = {
            "features": torch.stack([features for features, _ in found]),
            "logits": torch.stack([logits for _, logits in found]),
            "labels": training.labels,
        }
        save_file(views, job.folder / "views.safetensors")
        for number, (name, part) in enumerate(parts.items()):
            save_file(_clean(extract, part, views), job.folder / f"{name}.safetensors")
            progress.to(made + number + 1, name)
        if settings.whole:
            complete = load_file(raw / "train.safetensors")
            whole = {"features": extract(complete["images"])[0], "labels": complete["labels"]}
            save_file(whole, job.folder / "whole.safetensors")
            progress.to(made + len(parts) + 1, "whole")
    save_file(_head(network), job.folder / "head.safetensors")
    job.facts.update(
        device=describe(where),
        precision=precision,
        dimensions=views["features"].shape[2],
        views=made if settings.views else "clean",
        batchnorm=settings.batchnorm,
    )


def view(
    extract: Extractor, training: Part, number: int, settings: FeaturesSettings
) -> tuple[Tensor, Tensor]:
    """Features (N, d) and logits (N, C) of one view of every training image, in the order of the images.

    Clean images for `views: 0`, else each with the training augmentation.
    """
    images = training.images.to(extract.where)
    if settings.views:
        images = augment(images, settings.augmentation, generator(settings.seed, "views", number))
    if settings.batchnorm == "eval":
        return extract(images)
    order = torch.randperm(len(images), generator=generator(settings.seed, "views", "order", number))
    extract.batchnorm_train(True)
    features, logits = extract(images[order], settings.batch_size)
    extract.batchnorm_train(False)
    back = order.argsort()
    return features[back], logits[back]


def _clean(extract: Extractor, part: Part, views: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features of images as they are; a part without an image (a split may have no validation) is 0 rows."""
    if len(part.labels):
        features, logits = extract(part.images)
    else:
        features, logits = views["features"][0, :0], views["logits"][0, :0]
    return {"features": features, "logits": logits, "labels": part.labels, "samples": part.samples}


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
