"""Splits: the published subset index for index, parts that never overlap, and what cannot be had."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from longtail.data.held_out import validation_words
from longtail.data.imbalance import exponential_counts
from longtail.data.labelled_images import read_counts, read_part
from longtail.data.split import compute, not_judged, split
from longtail.errors import UserError
from longtail.runs.job import Job
from longtail.settings.split import (
    ExponentialImbalance,
    NaturalImbalance,
    ParetoImbalance,
    SplitSettings,
    Validation,
)
from longtail.stage_two.classifier import selection_classes


def of_source(validation):
    """What goes with the source, of the keys that are given for any."""
    other = {"unused": ("share",), "holdout": ("per_class",)}.get(
        validation.get("source", "unused"), ("share", "per_class")
    )
    return {key: value for key, value in validation.items() if key not in other}


def settings(imbalance, seed=0, **validation):
    return SplitSettings(
        dataset="cifar100",
        imbalance=imbalance,
        subset_seed=seed,
        validation=Validation(**of_source(validation)),
    )


def ldam_drw(labels: np.ndarray, classes: int, ratio: float, seed: int) -> list[int]:
    """The published procedure, transcribed: numpy's global legacy generator, seeded once."""
    np.random.seed(seed)
    targets = np.array(labels, dtype=np.int64)
    largest = len(targets) / classes
    chosen: list[int] = []
    for index in range(classes):
        number = int(largest * ((1 / ratio) ** (index / (classes - 1.0))))
        where = np.where(targets == index)[0]
        np.random.shuffle(where)
        chosen.extend(where[:number])
    return chosen


@pytest.fixture(scope="module")
def labels():
    """Labels like CIFAR-100's: 500 of each of 100 classes in a mixed order."""
    return np.random.RandomState(7).permutation(np.repeat(np.arange(100), 500))


@pytest.mark.parametrize("ratio", [200, 100, 50, 10])
@pytest.mark.parametrize("seed", [0, 3])
def test_every_index_is_that_of_ldam_drw(labels, ratio, seed):
    chosen = split(labels, 100, settings(ExponentialImbalance(ratio=ratio), seed))
    assert chosen.train.tolist() == ldam_drw(labels, 100, ratio, seed)


def test_on_the_real_cifar_100_the_subset_of_ratio_10_is_the_one_that_is_known(shared, official_cifar100):
    known = np.load(shared / "data/cifar100/index.npz")["train_lt"]
    data = (official_cifar100 / "cifar-100-python/train").read_bytes()
    labels = np.array(pickle.loads(data, encoding="latin1")["fine_labels"])
    chosen = split(labels, 100, settings(ExponentialImbalance(ratio=10)))
    assert sorted(chosen.train.tolist()) == sorted(known.tolist())
    for ratio in (20, 50, 100, 200):
        assert set(split(labels, 100, settings(ExponentialImbalance(ratio=ratio))).train) <= set(
            known.tolist()
        )


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    ratio=st.floats(1, 50),
    source=st.sampled_from(["unused", "holdout", "test"]),
    seed=st.integers(0, 5),
)
def test_parts_never_overlap_and_every_class_keeps_an_image(sizes, ratio, source, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    wanted = settings(ExponentialImbalance(ratio=ratio), seed, source=source, per_class=4, share=0.3)
    plain = settings(ExponentialImbalance(ratio=ratio), seed, source="test")
    if not exponential_counts(len(sizes), min(sizes), ratio).all():
        with pytest.raises(UserError, match="leaves no training image for classes"):
            split(labels, len(sizes), wanted)
        return
    if source == "unused" and sum(sizes) == split(labels, len(sizes), plain).train.size:
        with pytest.raises(UserError, match="leaves no training image out"):
            split(labels, len(sizes), wanted)
        return
    chosen = split(labels, len(sizes), wanted)
    assert not set(chosen.train) & set(chosen.validation)
    assert len(set(chosen.train)) == len(chosen.train)
    if source == "unused":
        assert np.bincount(labels[chosen.validation], minlength=len(sizes)).max() <= 4
    if source == "holdout":
        kept = split(labels, len(sizes), plain)
        assert set(chosen.train) | set(chosen.validation) == set(kept.train)
        assert set(labels[chosen.train]) == set(labels[kept.train])


def test_validation_on_unused_images_leaves_the_training_set_as_it_is(labels):
    plain = split(labels, 100, settings(ExponentialImbalance(ratio=100), source="test"))
    chosen = split(labels, 100, settings(ExponentialImbalance(ratio=100)))
    assert (plain.train == chosen.train).all()
    counts = np.bincount(labels[chosen.validation], minlength=100)
    assert counts[0] == 0  # class 0 keeps all its images
    assert (counts[1:] == 20).all()


def test_natural_leaves_nothing_unused_and_says_the_way_out(labels):
    with pytest.raises(UserError, match="use validation: holdout"):
        split(labels, 100, settings(NaturalImbalance()))
    chosen = split(labels, 100, settings(NaturalImbalance(), source="holdout"))
    assert len(chosen.validation) == 5000


def test_a_holdout_sees_every_class_that_can_spare_an_image():
    labels = np.repeat(np.arange(4), [30, 4, 2, 1])
    chosen = split(labels, 4, settings(NaturalImbalance(), source="holdout", share=0.1))
    assert np.bincount(labels[chosen.validation], minlength=4).tolist() == [3, 1, 1, 0]
    assert np.bincount(labels[chosen.train], minlength=4).tolist() == [27, 3, 1, 1]


@pytest.mark.parametrize(("share", "said"), [(0.1, "10%"), (0.125, "12.5%"), (0.004, "0.4%")])
def test_the_share_of_a_holdout_is_said_as_it_is(share, said):
    validation = Validation(source="holdout", share=share)
    assert validation_words(validation) == f"holdout ({said} of the training set)"


def test_natural_is_the_official_order():
    labels = np.array([2, 0, 1, 0, 2, 1])
    assert split(labels, 3, settings(NaturalImbalance(), source="test")).train.tolist() == list(range(6))


def test_a_seed_that_numpy_does_not_take_is_one_line(labels):
    with pytest.raises(UserError, match=r"subset_seed: 4294967296 is above 4294967295"):
        split(labels, 100, settings(ExponentialImbalance(ratio=10), seed=2**32))


def write_raw(raw, train, test, names):
    raw.mkdir()
    for part, labels in (("train", train), ("test", test)):
        tensors = {
            "images": torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8),
            "labels": torch.tensor(labels),
        }
        save_file(tensors, raw / f"{part}.safetensors")
    (raw / "classes.json").write_text(json.dumps(names))


def compute_split(tmp_path, wanted):
    folder = tmp_path / "split"
    folder.mkdir()
    job = Job("split", "x", wanted, {"acquire": tmp_path / "raw"}, folder, folder)
    compute(job)
    return job


def test_a_class_without_an_image_is_named(tmp_path):
    write_raw(tmp_path / "raw", [0, 0, 2], [0, 1, 2], ["cat", "dog", "eel"])
    with pytest.raises(UserError, match=r"no training image of dog; remove these classes or merge them"):
        compute_split(tmp_path, settings(NaturalImbalance(), source="test"))


@pytest.mark.parametrize(("source", "without"), [("unused", ["cat"]), ("holdout", ["eel"]), ("test", [])])
def test_classes_that_selection_cannot_see_are_recorded(tmp_path, source, without):
    # Of 10 images a class, ratio 10 keeps 10, 3 and 1; 7 are left of the second class and 9 of the third.
    write_raw(tmp_path / "raw", [0, 1, 2] * 10, [0, 1, 2], ["cat", "dog", "eel"])
    wanted = settings(ExponentialImbalance(ratio=10), source=source, per_class=8, share=0.3)
    assert compute_split(tmp_path, wanted).facts["without_validation"] == without


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8).filter(any))
def test_classes_that_are_recorded_are_those_that_selection_leaves_out(images):
    labels = torch.arange(len(images)).repeat_interleave(torch.tensor(images))
    left_out = ~selection_classes(labels, len(images))
    assert not_judged(np.array(images)) == left_out.nonzero().flatten().tolist()


def test_the_table_of_counts_says_what_is_in_the_parts(tmp_path):
    write_raw(tmp_path / "raw", [0, 1] * 8, [0, 1, 1], ["cat, big", "dog"])
    compute_split(tmp_path, settings(ExponentialImbalance(ratio=4), per_class=3))
    expected = b'label,name,train,validation,test\n0,"cat, big",8,0,1\n1,dog,2,3,2\n'
    assert (tmp_path / "split/counts.csv").read_bytes() == expected


def test_pareto_splits_are_as_large_as_their_formula_says(labels):
    chosen = split(labels, 100, settings(ParetoImbalance(alpha=6, smallest=5), source="test"))
    counts = np.bincount(labels[chosen.train], minlength=100)
    assert (counts[0], counts[-1]) == (500, 5)


@pytest.mark.parametrize("source", ["unused", "holdout", "test"])
def test_what_is_written_reads_back_as_the_images_of_each_part(tmp_path, source):
    raw, folder = tmp_path / "raw", tmp_path / "split"
    raw.mkdir()
    folder.mkdir()
    for part, count in (("train", 60), ("test", 12)):
        images = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
        if part == "test":
            images = images + 100
        save_file({"images": images, "labels": torch.arange(count) % 3}, raw / f"{part}.safetensors")
    (raw / "classes.json").write_text('["a", "b", "c"]')
    wanted = settings(ExponentialImbalance(ratio=4), source=source, per_class=2)
    job = Job("split", "x", wanted, {"acquire": raw}, folder, folder)
    compute(job)
    train, test = (read_part(folder, raw, part) for part in ("train", "test"))
    validation = read_part(folder, raw, "validation")
    for part, offset in ((train, 0), (test, 100), (validation, 100 if source == "test" else 0)):
        assert (part.images[:, 0, 0, 0].long() == part.samples + offset).all()
        assert (part.labels == part.samples % 3).all()
    assert read_counts(folder).tolist() == torch.bincount(train.labels).tolist()
    assert job.facts["totals"]["train"] == len(train.labels)
    # twice the same
    again = tmp_path / "again"
    again.mkdir()
    compute(Job("split", "x", wanted, {"acquire": raw}, again, again))
    for file in folder.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
