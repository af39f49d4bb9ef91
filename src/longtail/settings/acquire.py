"""What acquisition reads."""

from longtail.settings.base import Settings
from longtail.settings.data import Files


class AcquireSettings(Settings):
    """Everything that acquisition reads."""

    dataset: str
    root: str | None = None
    download: bool = True
    files: Files | None = None  # where the dataset is none of the published ones
