"""Classes of pictures by an exported model, with calibrated probabilities.

longtail predict MODEL IMAGES... [--top 3] [--format table|csv|json] [--device cpu]

Files that are no picture are named and left out; the others are predicted, in the order given.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from longtail.data.decode import NotAPicture, center, pixels, square
from longtail.errors import UserError
from longtail.export import onnx_session
from longtail.export.folder import ONNX, Description, opened, read
from longtail.export.picture_paths import listed

BATCH = 100  # pictures in memory at a time

Predictor = Callable[[NDArray[np.uint8]], NDArray[Any]]  # (N, C, H, W) to probabilities (N, classes)


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of a picture, the likeliest first.

    Attributes:
        image: as it was named.
        classes: (number in label order, name, probability).
    """

    image: str
    classes: list[tuple[int, str, float]]


def predict(model: str, images: Sequence[str], top: int, form: str, device: str) -> None:
    """Print the likeliest classes of pictures to standard output; ends with exit code 1 if any was left out.

    Args:
        model: an exported folder, or its model.safetensors or model.onnx.
        images: files, folders and patterns.
        top: how many classes a picture, at most.
        form: table, csv or json.
        device: cpu, cuda or cuda:N.

    Raises:
        UserError: if the model, the device or `top` is of no use.
    """
    if top < 1:
        raise UserError(f"--top {top}: should be at least 1")
    folder, file, description = opened(model)
    load = _of_onnx if file == ONNX else _of_torch
    predictor = load(folder, description, device)
    left_out: list[str] = []
    found = list(_predictions(predictor, description, images, top, left_out))
    PRINTERS[form](found, sys.stdout)
    sys.stdout.flush()
    if left_out:
        print(f"{len(left_out)} left out, {len(found)} predicted", file=sys.stderr)
        sys.exit(1)


def _of_torch(folder: Path, description: Description, device: str) -> Predictor:
    import torch

    from longtail.device import set_up
    from longtail.export.module import load_exported

    where = _torch_device(device)
    set_up(where)
    model = load_exported(folder)[0].to(where)

    def predictor(images: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images).to(where))[0].cpu().numpy())

    return predictor


def _torch_device(device: str) -> Any:
    import torch

    try:
        where = torch.device(device)
        if where.type == "cuda" and (where.index or 0) < torch.cuda.device_count():
            return where
    except RuntimeError:
        where = None
    if where is None or where.type != "cpu":
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise UserError(f"--device {device}: not here; there is {', '.join(there)}")
    return where


def _of_onnx(folder: Path, description: Description, device: str) -> Predictor:
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: an ONNX model runs on cpu or cuda")
    path = folder / ONNX
    session = onnx_session.session(read(folder, ONNX, description), device, path)
    return lambda images: onnx_session.probabilities(session, images, path)


def _predictions(
    predictor: Predictor, description: Description, images: Sequence[str], top: int, left_out: list[str]
) -> Iterator[Prediction]:
    """Predictions in the order given; what cannot be read is named and noted."""
    files = list(listed(images))
    with tqdm(total=len(files), unit="image", disable=None, dynamic_ncols=True, leave=False) as bar:

        def readable() -> Iterator[tuple[str, NDArray[np.uint8]]]:
            for file, trouble in files:
                try:
                    if trouble:
                        raise NotAPicture(trouble)
                    yield file, _seen(file, description)
                except NotAPicture as reason:
                    left_out.append(file)
                    bar.clear()
                    print(f"{shown(file)}: {reason}; left out", file=sys.stderr, flush=True)
                bar.update()

        waiting = readable()
        while batch := list(islice(waiting, BATCH)):
            found = predictor(np.stack([values for _, values in batch]))
            if found.shape != (len(batch), len(description.classes)):
                raise UserError("the model does not give a probability a class; export it again")
            for (file, _), row in zip(batch, found.astype(np.float64), strict=True):
                best = np.argsort(-row, kind="stable")[:top].tolist()
                yield Prediction(file, [(c, description.classes[c], float(row[c])) for c in best])


def _seen(file: str, description: Description) -> NDArray[np.uint8]:
    """A picture as the model was evaluated on pictures, uint8 (C, H, W)."""
    if description.crop is None:
        return pixels(file, description.channels, description.size)
    look = center(description.crop)
    seen = square(file, description.channels, description.size[0], look, description.interpolation)
    return np.ascontiguousarray(seen.transpose(2, 0, 1))


def shown(text: str) -> str:
    """A name as a terminal may see it: what does not print, such as a line break, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _table(predictions: list[Prediction], out: TextIO) -> None:
    """A line a picture: its name, then classes with their probability in percent."""
    rows = [
        [shown(found.image), *(f"{shown(name)} {share:.1%}" for _, name, share in found.classes)]
        for found in predictions
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        out.write(line.rstrip() + "\n")


def _csv(predictions: list[Prediction], out: TextIO) -> None:
    """A row a picture and class; label is the class's number."""
    import pandas as pd  # the other forms start without it

    _any_name(out)
    rows = [
        (found.image, rank, label, name, f"{share:.6f}")
        for found in predictions
        for rank, (label, name, share) in enumerate(found.classes, start=1)
    ]
    # object: a file's name need not be UTF-8
    table = pd.DataFrame(rows, columns=["image", "rank", "label", "class", "probability"], dtype=object)
    table.to_csv(out, index=False, lineterminator="\n")


def _json(predictions: list[Prediction], out: TextIO) -> None:
    """A list with an object a picture."""
    data = [
        {
            "image": found.image,
            "classes": [
                {"label": label, "class": name, "probability": round(share, 6)}
                for label, name, share in found.classes
            ],
        }
        for found in predictions
    ]
    out.write(json.dumps(data, indent=1) + "\n")


def _any_name(out: TextIO) -> None:
    """Let a file's name that is not UTF-8 out as it is."""
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="surrogateescape")


PRINTERS = {"table": _table, "csv": _csv, "json": _json}
