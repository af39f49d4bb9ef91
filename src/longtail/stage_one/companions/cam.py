"""Bag of tricks' images (Zhang et al. 2021): what a network sees of an object, moved, over its picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.data.augmentation import augment
from longtail.data.labelled_images import Part
from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.evaluation import predict
from longtail.stage_one.step_context import StepContext

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe

THRESHOLD = 0.75  # of a map's mean: what is at least this is foreground
DEGREES = 45
PERCENT = (80, 120)  # sizes of a rotated image
CHUNK = 1000  # images at once

ROTATED, SHIFTED, FLIPPED = range(3)


class Settings(BaseSettings):
    """Where the authors' code seems to do something else than it means to."""

    # what the map is of: the image itself; or, as the code, a copy that is cropped and flipped at random, so
    # that half of the maps are mirrored
    view: Literal["clean", "augmented"] = "clean"
    # of the foreground, about whose centre it turns and which stays inside: whole; or as the code has it,
    # where the second row and column that are not empty count as the last
    box: Literal["whole", "code"] = "whole"

    def refusal(self, recipe: "Recipe") -> str | None:
        """What of a recipe the companions cannot have; None where there is nothing such."""
        if not getattr(recipe.network.options, "stages", 0):
            return (
                f"network {recipe.network.name} has no maps with a weight for each class; take a ResNet, "
                "e.g. network: {name: resnet_cifar}"
            )
        return None


@dataclass(frozen=True)
class Moves:
    """What chance decided for B images.

    Attributes:
        kind: ROTATED, SHIFTED or FLIPPED, int64 (B,).
        degrees: counter-clockwise, float32 (B,); of rotated ones, as `size`.
        size: factor, float32 (B,).
        place: in [0, 1), where of all places for x and y a shifted box is put, float64 (B, 2).
    """

    kind: Tensor
    degrees: Tensor
    size: Tensor
    place: Tensor

    def __getitem__(self, rows: Tensor) -> "Moves":
        """Those of some images."""
        return Moves(self.kind[rows], self.degrees[rows], self.size[rows], self.place[rows])


def drawn(count: int, generator: torch.Generator) -> Moves:
    """Moves of so many images: each kind with a chance of 1/3, whole degrees and hundredths of the size."""
    kind = torch.randint(3, (count,), generator=generator)
    degrees = torch.randint(-DEGREES, DEGREES, (count,), generator=generator).float()
    size = torch.randint(*PERCENT, (count,), generator=generator) / 100
    return Moves(kind, degrees, size, torch.rand(count, 2, generator=generator, dtype=torch.float64))


def lacking(counts: Tensor) -> Tensor:
    """How many images each class gets, (C,): n_max + n_min - n_c, none where a class has none."""
    there = counts[counts > 0]
    return torch.where(counts > 0, there.max() + there.min() - counts, 0)


def chosen(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Which images new ones are made of, indices (M,) by class: of its own, uniformly, with replacement."""
    counts = labels.bincount()
    classes = torch.arange(len(counts)).repeat_interleave(lacking(counts))
    # float64: a float32 product can round up to the class's size, which is the next class's first image
    within = torch.rand(len(classes), generator=generator, dtype=torch.float64) * counts[classes]
    return labels.argsort(stable=True)[(counts.cumsum(0) - counts)[classes] + within.long()]


def activation(maps: Tensor, weights: Tensor) -> Tensor:
    """Class activation maps (Zhou et al. 2016), sum_k w_k A_k from least to most, uint8 (B, h, w).

    Args:
        maps: A before pooling, (B, d, h, w).
        weights: w, the head's row of each image's class, (B, d); without bias.

    Returns:
        0 to 255, cut off to whole numbers; nought where a map is the same everywhere.
    """
    values = (maps * weights[:, :, None, None]).sum(1)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    spread = torch.where(high > low, high - low, 1)
    return ((values - low) / spread * 255).to(torch.uint8)


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps uint8 (B, h, w) to images' size: bilinear, centres of pixels at halves, rounded."""
    found = F.interpolate(maps[:, None].float(), (height, width), mode="bilinear", align_corners=False)
    return found[:, 0].round().to(torch.uint8)


def foreground(maps: Tensor) -> Tensor:
    """Where a map is at least 3/4 of its mean, bool (B, H, W); everywhere where it is nought."""
    values = maps.double()
    return values >= THRESHOLD * values.mean((1, 2), keepdim=True)


def edges(inside: Tensor, box: Literal["whole", "code"]) -> tuple[Tensor, Tensor]:
    """First and last of the columns or rows (B, n) in which there is foreground, int64 (B,)."""
    places = torch.arange(inside.shape[1]).expand(inside.shape)
    first = torch.where(inside, places, inside.shape[1]).amin(1)
    last = torch.where(inside, places, -1).amax(1)
    if box == "code":
        later = inside & (places > first[:, None])
        second = torch.where(later, places, inside.shape[1]).amin(1)
        last = torch.minimum(last, second)
    return first, last


def sources(moves: Moves, front: Tensor, box: Literal["whole", "code"]) -> Tensor:
    """Where the pixels of moved images come from: x and y of an image's pixels, (B, H, W, 2).

    Rotated ones turn and grow about the centre of the foreground's box; shifted ones go to any place, whole
    pixels away, at which the box is inside the image; flipped ones are mirrored.
    """
    _, height, width = front.shape
    left, right = edges(front.any(1), box)
    top, bottom = edges(front.any(2), box)
    x = torch.arange(width, dtype=torch.float32).expand(front.shape)
    y = torch.arange(height, dtype=torch.float32)[:, None].expand(front.shape)
    each = (slice(None), None, None)
    angle = moves.degrees.deg2rad()
    cos, sin = (angle.cos() / moves.size)[each], (angle.sin() / moves.size)[each]
    middle_x, middle_y = ((left + right) / 2)[each], ((top + bottom) / 2)[each]
    away_x, away_y = x - middle_x, y - middle_y
    rotated = torch.stack(
        [cos * away_x - sin * away_y + middle_x, sin * away_x + cos * away_y + middle_y], dim=3
    )
    places = torch.stack([width - (right - left), height - (bottom - top)], dim=1)
    shift = (moves.place * places).long() - torch.stack([left, top], dim=1)
    shifted = torch.stack([x, y], dim=3) - shift[:, None, None]
    flipped = torch.stack([width - 1 - x, y], dim=3)
    kind = moves.kind[:, None, None, None]
    return torch.where(kind == ROTATED, rotated, torch.where(kind == SHIFTED, shifted, flipped))


def pasted(images: Tensor, maps: Tensor, moves: Moves, box: Literal["whole", "code"] = "whole") -> Tensor:
    """Images with what is moved of their foreground over them.

    With the foreground F of an image I, and I' and F' what moves make of the two: I' where F or F', I
    elsewhere. Where a colour of I' is nought, as outside of I, I stays too.

    Args:
        images: I, uint8 (B, C, H, W).
        maps: by which F is found, uint8 (B, H, W).
        moves: of these images.
        box: see `Settings`.
    """
    _, _, height, width = images.shape
    front = foreground(maps)
    whole = torch.cat([images, (maps * front)[:, None]], dim=1).float()
    size = torch.tensor([width, height])
    grid = (2 * sources(moves, front, box) + 1) / size - 1
    found = F.grid_sample(whole, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = found.round().to(torch.uint8)
    new, map_of_new = moved[:, :-1], moved[:, -1]
    fronts = torch.where((moves.kind == FLIPPED)[:, None, None], front.flip(2), map_of_new > 0)
    return torch.where((front | fronts)[:, None] & (new != 0), new, images)


def make(settings: Settings, context: StepContext) -> Part:
    """As many images of each class as the largest and the smallest have, less its own.

    Each is made of an image that is drawn from its class, by the map of the network for its class.
    """
    network, training = context.network, context.training
    stages = len(network.stages)  # type: ignore[arg-type]
    images, labels = training.images, training.labels
    assert isinstance(images, Tensor)
    weight = network.get_submodule("head").get_parameter("weight").detach().float().cpu()

    def maps_of(seen: Tensor, rows: Tensor) -> Tensor:
        """The maps of images, as the network may be shown them, for the class of these training images."""
        found = predict(
            network,
            seen,
            context.prepare,
            context.device,
            context.precision,
            lambda batch: network.maps(batch, stages),  # type: ignore[operator]
        )
        return activation(found, weight[labels[rows]])

    of = chosen(labels, context.generator("companions", "images"))
    moves = drawn(len(of), context.generator("companions", "moves"))
    views = context.generator("companions", "views")
    small: Tensor | None = None
    if settings.view == "clean":
        small = torch.cat(
            [maps_of(images[rows], rows) for rows in torch.split(torch.arange(len(labels)), CHUNK)]
        )
    new = []
    for places in torch.split(torch.arange(len(of)), CHUNK):
        rows = of[places]
        if small is None:
            own = maps_of(augment(images[rows], context.recipe.augmentation, views), rows)
        else:
            own = small[rows]
        maps = resized(own, *images.shape[2:])
        new.append(pasted(images[rows], maps, moves[places], settings.box))
    return Part(torch.cat([images[:0], *new]), labels[of], training.samples[of])
