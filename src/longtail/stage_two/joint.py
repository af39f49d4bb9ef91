"""Stage one's own classifier, as it is: the "joint" rows of Decoupling (Kang et al. 2020)."""

from longtail.settings.base import Settings as BaseSettings
from longtail.stage_two.classifier import FeatureData, Fitted, Report


class Settings(BaseSettings):
    """Nothing is trained, so there is nothing to set."""


def fit(data: FeatureData, settings: Settings, seed: int, progress: Report) -> Fitted:
    """Stage one's weight and bias, for normalised features where its head is a cosine."""
    return Fitted(weight=data.head_weight, bias=data.head_bias, normalise=data.head_normalises)
