"""tau-normalisation: Decoupling (Kang et al. 2020), section 4.2. Stage one's weights, w_c / ||w_c||^tau.

tau = 0 leaves the weights as they are, tau = 1 makes them equally long; the bias is dropped.
"""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.classifier import FeatureData, Fitted, Report
from longtail.stage_two.selection import chosen


class Settings(BaseSettings):
    """A tau, or values from which the validation images choose."""

    tau: float | None = Field(None, ge=0)  # [paper] null: chosen; Bag of tricks on CIFAR has 1
    # [code] 0, 0.1, ..., 2
    grid: list[Annotated[float, Field(ge=0)]] = Field([i / 10 for i in range(21)], min_length=1)

    @property
    def selects(self) -> str:
        """What validation images choose."""
        return "tau" if self.tau is None else ""


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Scale stage one's weights; the history is the curve of validation scores over tau.

    A weight of length 0 stays 0.

    Raises:
        ValueError: if tau is to be chosen and there is no validation image.
    """
    lengths = data.head_weight.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def classifier(tau: float) -> Fitted:
        weight = data.head_weight / lengths**tau
        bias = torch.zeros_like(data.head_bias)
        return Fitted(weight=weight, bias=bias, normalise=data.head_normalises)

    if settings.tau is not None:
        return classifier(settings.tau)
    tau, curve = chosen("tau", settings.grid, classifier, data)
    return replace(classifier(tau), history=curve, tensors={"tau": torch.tensor(tau)})
