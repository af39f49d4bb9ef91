"""ImageNet-LT, scaled down: its 1,000 classes, a sixteenth of its training images, pictures of a few pixels.

A picture is three stripes whose colours are the three digits of its class, with noise: what a small network
learns in a minute.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.workflow.conftest import ROOT

CLASSES, SIDE = 1000, 24
DIVISOR = 16
# Ten colours that JPEG keeps apart.
COLOURS = np.array(
    [
        (230, 30, 30), (30, 180, 40), (40, 60, 230), (240, 220, 40), (20, 20, 20),
        (245, 245, 245), (200, 40, 210), (40, 210, 220), (250, 140, 20), (120, 70, 30),
    ],
    dtype=np.float32,
)  # fmt: skip

# The project's own settings file, with what is smaller put in its place. Group thresholds are the field's,
# divided as the counts are.
SETTINGS = """\
like: {base}
data:
  root: pictures
  train: lists/train.txt
  validation: lists/validation.txt
  test: lists/test.txt
  images: {{size: 24, center: 1.0}}
groups: {{many_above: 6, few_below: 2}}
precision: float32
training:
  batch_size: 64
  shards: 2
  schedule: {{epochs: 2}}
  learning_rate: {{peak: 0.1, warmup: 1}}
  evaluate_every: 0
stage_one:
  r10_ce: &small
    network: {{name: resnet_cifar, depth: 8, width: 16}}
    augmentation:
      {{resized_crop: {{scale: [0.6, 1]}}, flip: true, jitter: {{}}, crop: 0, autoaugment: none, cutout: 0}}
    observers: []
  r10_graloss: *small
features: {{views: 1}}
stage_two:
  crt: {{epochs: 2, batch_size: 128}}
  lws: {{epochs: 2, batch_size: 128}}
  afg: {{generation_epochs: 2, tail_max: 6}}
methods:
  R10 tau: {{stage_one: r10_ce, stage_two: tau_normalisation}}
tables:
  scaled:
    caption: ImageNet-LT scaled down
    columns: [accuracy, many, medium, few]
    against: CE
    rows:
      - {{section: Scaled, label: CE, method: R10 CE}}
      - {{section: Scaled, label: cRT, method: R10 cRT}}
      - {{section: Scaled, label: LWS, method: R10 LWS}}
      - {{section: Scaled, label: tau, method: R10 tau}}
      - {{section: Scaled, label: GraLoss, method: R10 GraLoss}}
      - {{section: Scaled, label: GLAG, method: R10 GLAG}}
figures:
  class_counts: {{table: scaled}}
  calibrated_distribution: {{table: scaled}}   # of a class with one image
"""


def counts() -> list[int]:
    """Training images a class: the published ones over 16, at least one."""
    published = (ROOT / "src/longtail/data/counts/imagenet_lt.csv").read_text().split()[1:]
    return [max(1, int(count) // DIVISOR) for count in published]


def picture(label: int, random: np.random.Generator) -> Image.Image:
    """A picture of a class, SIDE x SIDE pixels."""
    digits = [label // 100, label // 10 % 10, label % 10]
    stripes = np.repeat(COLOURS[digits], SIDE // 3, axis=0)
    pixels = np.repeat(stripes[:, None], SIDE, axis=1)
    pixels = pixels * random.uniform(0.8, 1.1) + random.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path) -> None:
    """Pictures, the three lists and scaled.yaml, below a folder."""
    parts = {"train": counts(), "validation": [1] * CLASSES, "test": [2] * CLASSES}
    random = np.random.default_rng(0)
    (folder / "lists").mkdir()
    for part, numbers in parts.items():
        lines = []
        for label, number in enumerate(numbers):
            below = folder / "pictures" / part / f"n{label:08d}"
            below.mkdir(parents=True)
            for index in range(number):
                picture(label, random).save(below / f"{index}.JPEG", quality=90)
                lines.append(f"{part}/n{label:08d}/{index}.JPEG {label}\n")
        (folder / "lists" / f"{part}.txt").write_text("".join(lines))
    base = "workflow/settings/imagenet-lt.yaml"
    (folder / "scaled.yaml").write_text(SETTINGS.format(base=base))
