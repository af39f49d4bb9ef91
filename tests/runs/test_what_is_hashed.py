"""Places that influence a number: an edit of one changes the identity of what it influences, and no other."""

import os
import shutil
from pathlib import Path

import pytest

from longtail.runs import code_identity
from longtail.runs.code_identity import code_digest

ROOM = "longtail.stage_one"
TRAINED = (
    f"{ROOM}.training",
    f"{ROOM}.networks.resnet_cifar",
    f"{ROOM}.losses.ldam",
    f"{ROOM}.samplers.class_balanced",
    f"{ROOM}.transforms.remix",
)
COMPUTED = {
    "split": ("longtail.data.split", "longtail.data:counts/imagenet_lt.csv"),
    "stage_one": TRAINED,
    "pictures": (TRAINED[0], "longtail.data.picture_loader", "longtail.data.decode", *TRAINED[1:]),
    "features": ("longtail.features.extract", f"{ROOM}.networks.resnet_cifar"),
    "stage_two": ("longtail.stage_two.fitting", "longtail.stage_two.afg"),
    "table": ("longtail.publish.tables.make",),
    "figure": ("longtail.publish.figures.drawing", "longtail.publish.figures.reliability"),
    "model": ("longtail.publish.best_model",),
}
SEEN = {"stage_one", "pictures", "features", "model"}  # what looks at images
MEASURED = {"stage_one", "pictures", "stage_two", "table", "figure", "model"}
# file, what stands there, what is put in its place, what has another identity then
PLACES = [
    ("data/imbalance.py", "int(largest * factor", "round(largest * factor", {"split"}),
    ("data/split.py", "state.shuffle(indices)", "state.shuffle(indices[:])", {"split"}),
    ("data/counts/imagenet_lt.csv", "1280", "1281", {"split"}),
    ("data/normalisation.py", "(255 * spread)", "(256 * spread)", SEEN),
    ("data/labelled_images.py", "labels, samples)", "samples, labels)", None),
    ("data/augmentation.py", "side // 2", "side // 3", SEEN),
    ("data/operations.py", "MAGNITUDES = 10", "MAGNITUDES = 11", SEEN),
    ("data/picture_loader.py", "AHEAD = 4", "AHEAD = 5", {"pictures"}),
    ("data/decode.py", "ORIENTATION, SIDEWAYS = 0x0112", "ORIENTATION, SIDEWAYS = 0x0113", {"pictures"}),
    ("random.py", 'digest[:4], "big"', 'digest[:4], "little"', None),
    ("device.py", '"OMP_NUM_THREADS": "1"', '"OMP_NUM_THREADS": "2"', None),
    ("metrics.py", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 20", MEASURED),
    ("groups.py", "count > many_above", "count >= many_above", MEASURED),
    ("settings/phases.py", '"freeze"', '"frozen"', {"stage_one", "pictures", "table", "model"}),
    ("settings/schedules.py", "progress**self.b", "progress**(self.b + 1)", None),
    ("settings/rich_classes.py", "count > rich.above", "count >= rich.above", {"stage_one", "pictures"}),
    ("stage_one/losses/ldam.py", "** -0.25", "** -0.5", {"stage_one", "pictures"}),
    ("stage_one/losses/effective_number.py", "(1 - beta) /", "(2 - beta) /", {"stage_one", "pictures"}),
    ("stage_one/transforms/mixup.py", "self.alpha, self.alpha", "1.0, 1.0", {"stage_one", "pictures"}),
    ("stage_one/samplers/class_balanced.py", "counts > 0", "counts > 1", {"stage_one", "pictures"}),
    ("stage_one/resuming.py", "momentum=phase", "dampening=phase", {"stage_one", "pictures"}),
    ("features/extract.py", "max(1, settings.views)", "max(2, settings.views)", {"features", "model"}),
    ("stage_two/classifier.py", "TUKEY_OFFSET = 1e-6", "TUKEY_OFFSET = 1e-5", {"stage_two", "model"}),
    ("stage_two/generator.py", "larger = class_counts >", "larger = class_counts >=", {"stage_two"}),
    ("data/held_out.py", '"unused": f"unused', '"unused": f"other', {"table", "figure", "model"}),
    ("publish/bootstrap.py", "RESAMPLES = ", "RESAMPLES = 1 + ", {"table"}),
    ("publish/figures/drawing.py", '"#0072B2"', '"#0072B3"', {"figure"}),
    ("export/temperature.py", "HALVINGS = 80", "HALVINGS = 20", {"model"}),
    # what only orders and reports
    ("stage_one/launch.py", "RESTARTS = 3", "RESTARTS = 4", set()),
    ("runs/store.py", "0o444", "0o644", set()),
    ("orchestration/execute.py", "USES_DEVICE", "WITH_DEVICE", set()),
    ("settings/params.py", "names a seed twice", "has a seed twice", set()),
    ("cli.py", "usage", "use", set()),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory, root) -> Path:
    """A copy of the package to edit."""
    folder = tmp_path_factory.mktemp("copy") / "longtail"
    shutil.copytree(root / "src/longtail", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def digests() -> dict[str, str]:
    return {what: code_digest(modules) for what, modules in COMPUTED.items()}


@pytest.mark.parametrize(("file", "old", "new", "expected"), PLACES, ids=[place[0] for place in PLACES])
def test_an_edit_changes_what_it_influences_and_nothing_else(copied, monkeypatch, file, old, new, expected):
    monkeypatch.setattr(code_identity, "PACKAGE", copied)
    before = digests()
    path = copied / file
    text = path.read_text("utf-8")
    later = path.stat().st_mtime + 1  # a clock may tick more slowly than this test
    path.write_text(text.replace(old, new, 1), "utf-8")
    os.utime(path, (later, later))
    try:
        after = digests()
    finally:
        path.write_text(text, "utf-8")
        os.utime(path, (later + 1, later + 1))
    changed = {what for what in COMPUTED if after[what] != before[what]}
    if expected is not None:
        assert changed == expected
    else:  # what nearly everything is computed with
        assert {"stage_one", "stage_two"} <= changed
    assert bool(changed) == (old in text and expected != set())
