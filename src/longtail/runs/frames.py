"""CSV files of finished runs as pandas frames."""

from pathlib import Path

import pandas as pd

TEXT = ("name", "phase")  # columns of words; a class may be called NA, null or 7


def read_frame(file: Path) -> pd.DataFrame:
    """A CSV file of a run: words as they stand there, all else as numbers.

    Every float is the one that was written; an empty cell of numbers is nan.
    """
    return pd.read_csv(file, converters=dict.fromkeys(TEXT, str))
