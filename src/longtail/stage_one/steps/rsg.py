"""RSG's step (Wang et al. 2021): feature maps of rare classes with the variation of frequent ones.

Between two stages of the network, in training only; what is evaluated and exported is the network alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_one.batch import Batch
from longtail.stage_one.step import Outcome, Step
from longtail.stage_one.step_context import StepContext

if TYPE_CHECKING:
    from longtail.settings.recipe import Recipe


class Settings(BaseSettings):
    """Where the module sits, what it is made of, and when it generates."""

    stage: int = Field(2, ge=1, le=100)  # it sees the maps after this one [code]
    centres: int = Field(15, ge=1, le=10_000)  # of a class [code]
    hidden: int = Field(256, ge=1, le=100_000)  # channels of the contrastive net [code]
    head_share: float = Field(0.2, gt=0, lt=1)  # of the classes, by size: those that give variation [code]
    strength: float = Field(1.0, gt=0, le=1)  # on the number of new maps of an image [code]
    start: float = Field(0.8, ge=0, le=1)  # share of the phase without new maps [code]: 160 of 200
    centre_weight: float = Field(0.1, ge=0)  # of L_cesc [code]
    variation_weight: float = Field(0.01, ge=0)  # of L_mv [code]
    # vectors of L_mv: the channels of a place (the paper; ours), or what is side by side in memory (the code)
    rows: Literal["places", "memory"] = "places"

    def refusal(self, recipe: "Recipe") -> str | None:
        """What of a recipe the step cannot have; None where there is nothing such."""
        stages = getattr(recipe.network.options, "stages", 0)
        if self.stage >= stages:
            return f"network {recipe.network.name} has {stages} stages, and none after stage {self.stage}"
        return None


class ContrastiveNet(nn.Module):
    """Q: whether two maps are of one class, as two logits."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.linear = nn.Linear(hidden, 2)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Maps (n, d, H, W) of either image to logits (n, 2), float32: other classes, one class."""
        found = self.conv2(F.relu(self.conv1(torch.cat([one, other], dim=1)), inplace=True))
        logits: Tensor = self.linear(found.mean(dim=(2, 3)))
        return logits.float()


class RareClassGenerator(nn.Module):
    """Centres m of each class, how an image is assigned to them, and the nets T and Q (sections 3.1 to 3.3).

    Convolutions are drawn from He et al.'s normal distribution (fan in), linear maps from the standard one;
    offsets of convolutions and of Q's last layer are 0, those of the assignment 1, centres 0.

    Args:
        classes: C.
        channels: d of the maps.
        settings: numbers of centres and channels.
    """

    def __init__(self, classes: int, channels: int, settings: Settings) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(classes, settings.centres, channels))
        self.weight = nn.Parameter(torch.randn(classes, settings.centres, channels))
        self.offset = nn.Parameter(torch.ones(classes, settings.centres))
        self.transformation = nn.Conv2d(channels, channels, 3, padding=1)
        self.contrast = ContrastiveNet(channels, settings.hidden)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def of_class(self, table: Tensor, labels: Tensor) -> Tensor:
        """Rows of a table (C, ...) for labels (B,)."""
        return F.embedding(labels, table.flatten(1)).view(len(labels), *table.shape[1:])

    def assignment(self, maps: Tensor, labels: Tensor) -> Tensor:
        """g (B, K): softmax over the centres of an image's class, of its mean map."""
        pooled = maps.mean(dim=(2, 3))
        scores = (self.of_class(self.weight, labels) * pooled[:, None]).sum(dim=2)
        return (scores + self.of_class(self.offset, labels)).softmax(dim=1)

    def spread(self, maps: Tensor, labels: Tensor, assignment: Tensor) -> Tensor:
        """Mean over images of sum_k g_k ||V - m_k||^2, over channels and places; m is a constant map.

        ||V - m||^2 = ||V||^2 - 2 m . sum V + (H W) ||m||^2, so that no map is held for each centre.
        """
        centres = self.of_class(self.centres, labels)
        places = maps.shape[2] * maps.shape[3]
        squared = maps.square().sum(dim=(1, 2, 3))[:, None] + places * centres.square().sum(dim=2)
        squared = squared - 2 * (centres * maps.sum(dim=(2, 3))[:, None]).sum(dim=2)
        return (assignment * squared).sum() / len(labels)

    def alike(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of Q on pairs, the i-th images of both halves; an odd last image is in none."""
        half = len(labels) // 2
        one, other = slice(0, half), slice(half, 2 * half)
        logits = self.contrast(maps[one], maps[other])
        same = (labels[one] == labels[other]).long()
        return F.cross_entropy(logits, same, reduction="sum") / max(half, 1)

    def nearest(self, labels: Tensor, assignment: Tensor) -> Tensor:
        """The centre that g is largest for, as maps (B, d, 1, 1)."""
        chosen = F.one_hot(assignment.argmax(dim=1), assignment.shape[1])[..., None]
        return (self.of_class(self.centres, labels) * chosen).sum(dim=1)[..., None, None]


class RareClasses(Step):
    """Wang et al. 2021, with V the maps without gradient, h an image of a head class, r of another:

        L_cesc  = mean_i sum_k g_ik ||V_i - m_ik||^2 + [progress < start] CE(Q(V_i, V_j), same class)
        new map = V_r + T(v), v = V_h - m_h, with the label of r
        L_mv    = CE(Q(V_h, T(v)), other class) + mean over pairs of the sum over rows of
                  | ||T(v)|| - ||v|| | + d - cos(V_r - m_r, T(v))
        loss    = L(all maps) + centre_weight L_cesc + variation_weight L_mv

    From `start` on new maps and labels follow those of the batch through the rest of the network, and Q stays
    as it is. The stages before the maps learn from the batch alone, as V has no gradient.

    Args:
        generator: the module.
        settings: stage, start and weights.
        is_head: which classes give variation, bool (C,), on the device.
    """

    def __init__(self, generator: RareClassGenerator, settings: Settings, is_head: Tensor) -> None:
        self._generator, self._settings, self._is_head = generator, settings, is_head
        self._generates = settings.start == 0

    def modules(self) -> Mapping[str, nn.Module]:
        """What learns beside the network."""
        return {"rsg": self._generator}

    def turn(self, progress: float) -> bool:
        """Whether there are new maps."""
        self._generates = progress >= self._settings.start
        self.capturable = not self._generates  # how many depends on the labels of the batch
        return self._generates

    def pairs(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images of head classes and of the others that make one new map each, as indices (P,) of a batch.

        Of the H and the R of them all of the fewer ones meet as many of the others, and as often as there are
        others left: floor(strength H / R) times, or floor(strength R / H), but once at least.
        """
        of_head = self._is_head[labels]
        head, rare = of_head.nonzero().flatten(), (~of_head).nonzero().flatten()
        more_heads = len(head) >= len(rare)
        few, many = (rare, head) if more_heads else (head, rare)
        if not len(few):
            return few, few
        times = max(1, int(self._settings.strength * len(many) / len(few)))
        few, many = few.repeat(times), many[: times * len(few)]
        return (many, few) if more_heads else (few, many)

    def as_rows(self, maps: Tensor) -> Tensor:
        """Vectors of maps (P, d, H, W) that are held together: (P H W, d)."""
        if self._settings.rows == "places":
            maps = maps.permute(0, 2, 3, 1)
        return maps.reshape(-1, self._generator.centres.shape[2])

    def variation(self, head: Tensor, before: Tensor, after: Tensor, residual: Tensor) -> Tensor:
        """L_mv of P pairs: V_h, v, T(v) and V_r - m_r, each (P, d, H, W)."""
        logits: Tensor = self._generator.contrast(head, after)
        one, other, third = (self.as_rows(maps) for maps in (before, after, residual))
        longer: Tensor = torch.linalg.vector_norm(other, dim=1) - torch.linalg.vector_norm(one, dim=1)
        turned: Tensor = (one.shape[1] - F.cosine_similarity(third, other, dim=1)).sum()
        apart = F.cross_entropy(logits, torch.zeros_like(logits[:, 0]).long())
        return apart + (longer.abs().sum() + turned) / len(head)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        """The loss of the batch and of its new maps; right is what the network says of the batch."""
        (batch,) = batches
        settings, network, generator = self._settings, modules["network"], self._generator
        maps: Tensor = network.maps(batch.images, settings.stage)  # type: ignore[operator]
        generator.contrast.requires_grad_(not self._generates)
        seen, labels = maps.detach().float(), batch.labels
        assignment = generator.assignment(seen, labels)
        further = settings.centre_weight * generator.spread(seen, labels, assignment)
        if not self._generates:
            further = further + settings.centre_weight * generator.alike(seen, labels)
        elif len((found := self.pairs(labels))[0]):
            head, rare = found
            residuals = seen - generator.nearest(labels, assignment)
            before = residuals[head]
            after = generator.transformation(before).float()
            further = further + settings.variation_weight * self.variation(
                seen[head], before, after, residuals[rare]
            )
            maps = torch.cat([maps, (seen[rare] + after).to(maps.dtype)])
            labels = torch.cat([labels, labels[rare]])
        features = network.features_of(maps, settings.stage)  # type: ignore[operator]
        logits = network.get_submodule("head")(features).float()
        own = logits.detach()[: len(batch.labels)]
        correct = (own.argmax(dim=1) == batch.labels).sum()
        return Outcome(modules["loss"](logits, labels, progress) + further, correct)


def head_classes(class_counts: Tensor, share: float) -> Tensor:
    """The largest classes, floor(share C) of them, equal ones in label order: bool (C,) of counts (C,).

    Raises:
        ValueError: if that is no class.
    """
    number = int(share * len(class_counts) + 1e-9)  # 0.29 * 100 is 28.999...
    if not number:
        raise ValueError(f"head_share {share:g} of {len(class_counts)} classes is none; make it larger")
    found = torch.zeros(len(class_counts), dtype=torch.bool)
    found[class_counts.argsort(descending=True, stable=True)[:number]] = True
    return found


def channels_after(network: nn.Module, stage: int, channels: int, device: torch.device) -> int:
    """Channels of the maps after a stage."""
    was = network.training
    with torch.no_grad():
        maps: Tensor = network.eval().maps(torch.zeros(1, channels, 32, 32, device=device), stage)  # type: ignore[operator]
    network.train(was)
    return maps.shape[1]


def build(settings: Settings, context: StepContext) -> RareClasses:
    """The step with its module."""
    channels = context.training.images.shape[1]
    wide = channels_after(context.network, settings.stage, channels, context.device)
    is_head = head_classes(context.class_counts, settings.head_share).to(context.device)

    def make() -> RareClassGenerator:
        return RareClassGenerator(len(is_head), wide, settings)

    generator = context.seeded(make, "rsg")
    assert isinstance(generator, RareClassGenerator)
    return RareClasses(generator, settings, is_head)
