"""The memory bank of a phase: exemplars of classes that it leaves out.

They are some images of each, chosen by the features of the network as the phase before has left it.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from longtail.data.images import Images
from longtail.data.labelled_images import Part
from longtail.random import generator
from longtail.settings.methods import method_module
from longtail.settings.phase import PhaseSettings


def choose_bank(
    phase: PhaseSettings,
    left_out: Tensor,
    training: Part,
    features: Callable[[Images], Tensor],
    seed: int,
) -> Tensor:
    """The exemplars of a phase: indices of training images, by class and then by rank; none without a bank.

    Args:
        phase: whose `bank` says how many, and by what they are chosen.
        left_out: classes that the bank stands for, bool (C,).
        training: all training images.
        features: images uint8 (n, C, H, W) to features (n, d), of the network as the phase finds it.
        seed: of the run.
    """
    if phase.bank is None:
        return torch.empty(0, dtype=torch.int64)
    method = phase.bank.choice
    choose = method_module("exemplars", method.name).choose
    found = []
    for label in left_out.nonzero().flatten().tolist():
        images = (training.labels == label).nonzero().flatten()
        key = generator(seed, "exemplars", phase.name, label)
        chosen = choose(features(training.images[images]), phase.bank.per_class, key, method.options)
        found.append(images[chosen])
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def write_bank(path: Path, bank: Tensor, training: Part) -> None:
    """The bank as CSV: class, rank from 1 and sample number (as in train.csv) of each exemplar."""
    chosen = pd.DataFrame({"label": training.labels[bank].numpy(), "sample": training.samples[bank].numpy()})
    chosen.insert(1, "rank", chosen.groupby("label").cumcount() + 1)
    chosen.to_csv(path, index=False, lineterminator="\n")
