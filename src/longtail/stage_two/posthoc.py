"""Post-hoc logit adjustment (Menon et al. 2021, eq. 9): stage one's logits minus tau log prior."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.classifier import FeatureData, Fitted, Report
from longtail.stage_two.selection import chosen


class Settings(BaseSettings):
    """A tau, or values from which the validation images choose."""

    tau: float | None = Field(1.0, ge=0)  # [paper] 1; null: chosen, as the paper's "tuned tau"
    # [ours] 0, 0.1, ..., 3
    grid: list[Annotated[float, Field(ge=0)]] = Field([i / 10 for i in range(31)], min_length=1)

    @property
    def selects(self) -> str:
        """What validation images choose."""
        return "tau" if self.tau is None else ""


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Shift stage one's bias; with tau chosen, the history is the curve of validation scores over tau.

    Raises:
        ValueError: if a class has no training image, whose log prior would be minus infinity; or if tau is
            to be chosen and there is no validation image.
    """
    counts = data.class_counts
    if empty := (counts == 0).nonzero().flatten().tolist():
        raise ValueError(f"classes {empty} have no training image: remove them or merge them")
    log_prior = (counts / counts.sum()).log()

    def classifier(tau: float) -> Fitted:
        bias = data.head_bias - tau * log_prior
        return Fitted(weight=data.head_weight, bias=bias, normalise=data.head_normalises)

    if settings.tau is not None:
        return classifier(settings.tau)
    tau, curve = chosen("tau", settings.grid, classifier, data)
    return replace(classifier(tau), history=curve, tensors={"tau": torch.tensor(tau)})
