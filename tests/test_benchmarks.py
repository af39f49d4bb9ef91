"""The benchmarks on tiny sizes: that they still run, compare what they say, and know what is equal."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import (
    augmentation,
    data,
    demo,
    generation,
    gpu,
    gpu_targets,
    loader,
    observers,
    photographs,
    recipes,
    rows,
    stage_two,
    startup,
    training,
    workflow,
)
from benchmarks.precision import paired
from benchmarks.side import OURS, Sample, Side, SideError, at_once, interleaved
from longtail.errors import UserError
from longtail.orchestration.planner import plan
from longtail.random import generator
from longtail.settings.params import Params
from longtail.settings.phases import phases
from longtail.settings.reading import parse
from longtail.stage_one.networks.extension import COMPILERS


def test_sides_are_measured_in_turns_and_their_warm_up_is_not_counted(tmp_path):
    def append(letter: str) -> Side:
        options = {"words": ["sh", "-c", f"printf {letter} >> turns"], "folder": str(tmp_path)}
        return Side("benchmarks.side:command", {}, options)

    with append("a") as one, append("b") as other:
        found = interleaved({"one": one, "other": other}, 2)
    assert (tmp_path / "turns").read_text() == "ababab"
    assert {name: len(samples) for name, samples in found.items()} == {"one": 2, "other": 2}


def test_training_is_measured_on_both_sides_and_against_the_peak():
    def sample(found: dict) -> Sample:
        return Sample(cpu=1.0, wall=1.0, load=1.0, peak_mb=1.0, found=found)

    ours = training.ours(steps=1, evaluated=2, batch=2)()
    assert ours["images"] == 2
    assert ours["flops"] == pytest.approx(412.3e6, rel=0.001)  # He et al.'s ResNet-32, forward and backward
    peers, peak = training.peers(steps=1, evaluated=2, batch=2)(), training.peak(64)()
    table = training.figures([sample(ours)], [sample(peers)], [sample(peak)])
    speed, whole, share = table[:3]
    assert speed.ours == pytest.approx(1 / ours["train"])
    assert whole.ratio == pytest.approx(
        200
        * (10_847 * peers["train"] + 10_000 * peers["evaluate"])
        / (200 * 10_847 * ours["train"] + 10 * 11_980 * ours["evaluate"])
    )
    assert share.ours == pytest.approx(100 * ours["flops"] / ours["train"] / peak["flops"])


def test_fused_batch_normalisation_is_measured_against_ours_without():
    def sample(seconds: float) -> Sample:
        return Sample(cpu=1.0, wall=1.0, load=1.0, peak_mb=1.0, found={"train": seconds})

    row = training.fused_figure([sample(0.3), sample(0.4)], [sample(0.25), sample(0.2)], "")
    assert (row.ours, row.peers, row.ratio) == pytest.approx((4.5, (1 / 0.3 + 1 / 0.4) / 2, 1.6))
    assert training.fused_figure([], [], "not built").note == "not built"
    with pytest.raises(RuntimeError, match="cannot be used"):
        training.Ours("bf16", fused=True)


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler")
def test_the_extension_is_built_in_a_folder_of_the_benchmark(tmp_path):
    why_not = training.not_built(str(tmp_path))
    (built,) = tmp_path.glob("*/*.so")
    assert why_not == "" or f"{built}: not used" in why_not


def test_where_the_extension_cannot_be_built_the_row_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    why_not = training.not_built(str(tmp_path))
    assert why_not.startswith("not built (CXX: ")
    assert training.fused_figure([], [], why_not).note == why_not


def test_what_gradients_cost_is_the_time_beyond_an_unobserved_training():
    def sample(found: dict) -> Sample:
        return Sample(cpu=1.0, wall=1.0, load=1.0, peak_mb=1.0, found=found)

    plain, observed = (observers.training(every, steps=2, batch=4)() for every in (0, 1))
    (row,) = observers.figures([sample(plain)], [sample(observed)])
    assert row.ours == pytest.approx(100 * (observed["seconds"] / plain["seconds"] - 1))


def test_a_side_has_its_own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    words = ["sh", "-c", "env > seen"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    seen = {}
    for name, environment in (("ours", OURS), ("theirs", {})):
        folder = tmp_path / name
        folder.mkdir()
        with Side("benchmarks.side:command", environment, {"words": words, "folder": str(folder)}) as side:
            assert at_once([side])[0].wall > 0
        seen[name] = dict(
            line.split("=", 1) for line in (folder / "seen").read_text().splitlines() if "=" in line
        )
    assert "OMP_NUM_THREADS" not in seen["theirs"]
    assert not {"MALLOC_ARENA_MAX", "PYTHONDONTWRITEBYTECODE"} & seen["ours"].keys()
    assert seen["ours"]["OMP_NUM_THREADS"] == "1"


def test_a_side_that_fails_says_why():
    with pytest.raises(SideError, match="no_such_thing"), Side("benchmarks.rows:no_such_thing", {}) as side:
        side.measure()


def test_a_ratio_is_the_median_of_paired_ratios():
    row = rows.Row("part", "name", "s", goal=rows.Goal("ratio", 2, 4))
    found = rows.compared(row, [1.0, 2.0, 1.0], [3.0, 4.0, 9.0])
    assert (found.ratio, found.spread, found.verdict) == (3.0, (2.0, 9.0), "met")
    fast = rows.compared(row, [6.0], [3.0], higher_is_better=True)
    assert fast.ratio == 2.0
    assert rows.Goal("ours", 10, 5).verdict(12) == "missed"
    assert rows.Goal("ours", 10, 5).verdict(4) == "aim"
    assert "3x (2-9)" in rows.table([found])


def test_every_recipe_of_table_2_is_measured_beside_cross_entropy():
    found = recipes.recipes()
    assert next(iter(found)) == recipes.PLAIN
    assert {"bbn", "bag_of_tricks", "m2m", "rsg", "metasaug", "ssd_features", "ssd", "dive"} < set(found)
    tricks = recipes.shorter(found["bag_of_tricks"], 6)
    lengths = [phase.schedule.epochs for phase in phases(tricks)]
    assert lengths == [8, 2, 1]  # 48, 12 and 6: all phases alike
    assert tricks.loss == found["bag_of_tricks"].loss


def test_a_recipe_that_is_built_on_others_is_measured_without_them():
    seconds = [recipes.training(name, images=400, epochs=60)()["seconds"] for name in ("ce_plain", "ssd")]
    assert min(seconds) > 0

    def samples(*found: float) -> list[Sample]:
        return [Sample(cpu=1.0, wall=1.0, load=1.0, peak_mb=1.0, found={"seconds": own}) for own in found]

    row = recipes.figure("ssd", samples(2.0, 2.0, 4.0), samples(3.0, 4.0, 4.0), fused=True)
    assert (row.ours, row.runs["ours"]) == (1.5, [1.5, 2.0, 1.0])


def test_latest_json_keeps_the_parts_that_were_not_measured_again(tmp_path):
    file = tmp_path / "latest.json"
    rows.write(file, {"cpu": "a"}, [rows.Row("one", "x", "s", 1.0), rows.Row("two", "y", "s", 2.0)], "c1")
    rows.write(file, {"cpu": "b"}, [rows.Row("two", "y", "s", 3.0), rows.Row("two", "z", "s", 4.0)], "c2")
    assert origins(file) == {"one": ("a", "c1", [1.0]), "two": ("b", "c2", [3.0, 4.0])}
    rows.write(file, {"cpu": "a"}, [rows.Row("two", "z", "s", 5.0)], "c3")
    assert origins(file) == {"one": ("a", "c1", [1.0]), "two": ("a", "c3", [5.0])}


def origins(file: Path) -> dict[str, tuple[str, str, list[float]]]:
    found = json.loads(file.read_text())["parts"]
    return {
        name: (part["hardware"]["cpu"], part["commit"], [row["ours"] for row in part["rows"]])
        for name, part in found.items()
    }


def test_figures_of_a_gpu_stay_where_a_machine_without_one_measures(tmp_path):
    file, absent = tmp_path / "latest.json", rows.Row("gpu", "x", "", note="not measured (no GPU)")
    for machine, row, kept in (
        ("a", absent, ("a", None)),
        ("b", absent, ("b", None)),
        ("c", rows.Row("gpu", "x", "s", 2.0), ("c", 2.0)),
        ("a", absent, ("c", 2.0)),
        ("d", rows.Row("gpu", "x", "s", 3.0), ("d", 3.0)),
    ):
        rows.write(file, {"cpu": machine}, [row], f"commit of {machine}")
        assert origins(file) == {"gpu": (kept[0], f"commit of {kept[0]}", [kept[1]])}


def test_a_page_shows_the_figures_between_its_marks(tmp_path):
    page, file = tmp_path / "page.md", tmp_path / "figures.json"
    row = rows.compared(rows.Row("part", "name", "s", goal=rows.Goal("ours", 10, 5)), [8.0], [16.0])
    alone = rows.compared(rows.Row("part", "alone", "s"), [3.0, 2.0, 4.0])
    machine = {"cpu": "CPU", "cores": 2, "memory_gb": 8, "gpu": None, "cpu_flags": ["avx2"]}
    machine |= {"precision": "float32", "torch": "2.14"}
    rows.write(file, machine, [row, alone, rows.Row("part", "other", "", note="not measured (no GPU)")], "c1")
    page.write_text(f"before\n{rows.BEGIN}\nold\n{rows.END}\nafter\n")
    for _ in range(2):
        rows.document(page, json.loads(file.read_text()))
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "| part: name | 8 s | 16 s | 2x (2-2) | <= 10 (5) | met |  |" in lines
    assert "| part: alone | 3 s (2-4) |  |  |  |  |  |" in lines
    assert "| part: other | not measured (no GPU) |  |  |  |  |  |" in lines
    assert "| all | CPU (avx2), 2 cores, 8 GB, GPU: none; float32, torch 2.14 | c1 |" in lines
    assert "old" not in lines
    rows.write(file, machine | {"gpu": "H"}, [rows.Row("gpu", "x", "s", 2.0)], "c2")
    rows.document(page, json.loads(file.read_text()))
    first, second = page.read_text().splitlines()[-4:-2]
    assert first.startswith("| part | CPU (avx2), 2 cores, 8 GB, GPU: none;")
    assert second == "| gpu | CPU (avx2), 2 cores, 8 GB, GPU: H; float32, torch 2.14 | c2 |"


def test_the_page_has_the_figures_of_latest_json(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(rows.PAGE.read_text("utf-8"), "utf-8")
    rows.document(page, json.loads(rows.LATEST.read_text("utf-8")))
    assert page.read_text("utf-8") == rows.PAGE.read_text("utf-8")


def test_the_sizes_are_those_of_the_data_sets():
    assert int(data.cifar_counts().sum()) == 10_847
    counts = data.imagenet_counts()
    assert (int(counts.max()), int(counts.min()), len(counts)) == (1280, 5, 1000)
    assert abs(int(counts.sum()) - 115_846) < 10


def test_draws_by_the_rules_of_tailcalib_are_the_gaussian_they_define():
    """Whitened by the exact mean and covariance, draws have mean 0 and covariance 1 but for chance."""
    for own in generation.agreement(dimensions=8, number=4000)().values():  # tailcalib's too where it is
        assert generation.agree(own, 8)


def test_another_covariance_does_not_agree():
    assert not generation.agree({"mean": 1.0, "variance": 1.0, "covariance": 2.0})
    assert not generation.agree({"mean": 3.0, "variance": 1.0, "covariance": 1.0})


def test_the_rules_of_tailcalib_fill_every_class():
    labels = data.labels_of(torch.tensor([9, 4, 2]))
    drawn, wanted = generation.like_tailcalib(data.features(labels, 4), labels, 2, 0.1, generator(0))
    assert wanted.bincount().tolist() == [0, 5, 7]
    assert drawn.shape == (12, 4)


def test_stage_two_measures_both_sides_of_a_small_fit():
    assert stage_two.ours(epochs=1, divisor=50)() is None
    assert stage_two.peers(sources=2, trained=256)()["epoch"] > 0


def test_augmentation_and_a_gpus_targets_run():
    assert augmentation.ours("full", 4)() is None
    assert augmentation.peers("full", 4)() is None
    assert gpu.ours(epochs=1, runs=2, steps=1, batch=2)().keys() == {"runs"}


def test_what_a_gpu_is_measured_by_runs_on_a_cpu():
    assert gpu_targets.epoch(1, "float32", every=1, images=4, batch=2)()["precision"] == "float32"
    assert gpu_targets.features(images=3)()["speed"] > 0
    assert gpu_targets.afg(epochs=1, divisor=50)()["fit"] > 0
    counts = data.imagenet_counts(0.01)
    assert gpu_targets.generation(0.01, 4)()["features"] == int((counts.max() - counts).sum())


def test_photographs_are_made_from_a_seed_and_loaded_on_both_sides(tmp_path):
    for name in ("one", "two"):
        photographs.write(tmp_path / name, 12)
    one, two = (sorted((tmp_path / name).rglob("*.jpg")) for name in ("one", "two"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    assert len({file.read_bytes() for file in one}) == 12
    with Image.open(one[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (300, 212))
    assert 8_000 < one[0].stat().st_size < 30_000  # noise alone has 60 kB, a gradient 4 kB
    folder = str(tmp_path / "one")
    for kind in loader.NAMES:
        assert loader.ours(folder, kind, 3)() is None
        assert loader.peers(folder, kind, 3)() is None
    for given in (folder, ""):
        measure = gpu_targets.photographs(1, given, batch=2, architecture="resnet10", size=32)
        assert measure()["speed"] > 0


def test_the_profiler_counts_what_a_step_more_launches():
    """On a CPU there is no kernel of a device, and no step is replayed: ResNet-32 has 31 convolutions."""
    found = gpu_targets.launches(epochs=1, images=4, batch=2)()
    assert found == {"kernels": 0, "launches": 0, "waits": 0, "convolutions": 31}


class Known(Side):
    """A side that has measured already."""

    def __init__(self, target, environment, options=None):
        self.name, self.options = target.removeprefix("benchmarks.gpu_targets:"), options or {}

    def measure(self):
        options = self.options
        seconds = {"bf16": 0.5, "float32": 1.0}.get(options.get("precision"), 0.85)
        found = {
            "epoch": {"epoch": 1.02 if options.get("every") else seconds},
            "launches": {"kernels": 286, "launches": 5, "waits": 0.01, "convolutions": 0},
            "features": {"speed": 5e4},
            "afg": {"fit": options.get("epochs")},
            "generation": {"epoch": 3},
            "photographs": {"speed": 900 if options.get("folder") else 1000},
        }
        return Sample(cpu=1.0, wall=1.0, load=1.0, peak_mb=1.0, found=found[self.name])

    def __exit__(self, *_):
        pass


def test_a_gpus_rows_are_made_of_what_its_targets_find(monkeypatch):
    """Four measured batches in an epoch of 85 steps of 10 ms that takes 170 ms more are 4.25 steps each."""
    monkeypatch.setattr(gpu, "Side", Known)
    bf16, added, cost, kernels, host, features, fit, generated, pictures = gpu.parts(quick=True)
    assert (bf16.ours, bf16.ratio) == (500, 2)
    assert [added.ours, cost.ours] == pytest.approx([20, 4.25])
    assert (kernels.ours, host.ours, features.ours, fit.ours, generated.ours) == (286, 5, 5e4, 40, 3)
    assert host.note == "waits of the host: 0.01 a step"
    assert pictures.ratio == 0.9
    assert pictures.note.endswith("300 x 212 that the benchmark makes")


def test_without_a_gpu_every_row_of_it_says_so():
    found = gpu.rows(quick=True)
    assert len({row.name for row in found}) == len(found) == 12
    assert {row.note for row in found} == {"not measured (no GPU)"}


def test_startup_reaches_the_first_step(tmp_path, root):
    startup.prepare(tmp_path, divisor=50)
    words = [sys.executable, "-m", "benchmarks.startup", str(tmp_path)]
    with Side("benchmarks.side:command", OURS, {"words": words, "folder": str(root)}) as side:
        side.measure()
    assert "torchvision" not in json.loads((tmp_path / "first_step.json").read_text())


def test_a_cold_dry_run_has_nothing_of_the_one_before(tmp_path):
    words = ["sh", "-c", "ls -A >> seen; mkdir -p .longtail/plan .snakemake/log kept"]
    with Side("benchmarks.side:command", {}, {"words": words, "folder": str(tmp_path)}) as side:
        for _ in range(2):
            workflow.cold(side, tmp_path)
    assert (tmp_path / "seen").read_text().split() == ["seen", "kept", "seen"]


def test_the_demo_is_measured_on_the_clock_and_by_its_processor_seconds():
    def sample(wall: float, cpu: float) -> Sample:
        return Sample(cpu=cpu, wall=wall, load=1.0, peak_mb=1.0, found={})

    rounds = [[sample(50, 70), sample(2, 1)], [sample(70, 90), sample(4, 3)], [sample(30, 60), sample(1, 1)]]
    found = demo.figures(rounds)
    assert [(row.ours, row.clock, row.verdict) for row in found] == [
        (50, "wall", "met"),
        (70, "cpu", ""),
        (2, "wall", "met"),
        (1, "cpu", ""),
    ]
    assert found[0].runs == {"ours": [50, 70, 30]}


def test_a_quick_demo_makes_what_the_demo_makes_of_one_seed(root):
    small, whole = (
        plan(Params.read(settings), root=root)
        for settings in (demo.small(), parse((root / demo.SETTINGS).read_text("utf-8")))
    )
    assert 3 * len(small.stage_two) == len(whole.stage_two) == 12
    assert small.figures.keys() == whole.figures.keys()
    assert {run.settings.recipe.schedule.epochs for run in small.stage_one.values()} == {1}


def test_precision_is_compared_in_pairs():
    found = paired({"a": 40.0, "b": 42.0, "c": 41.0}, {"b": 42.5, "a": 40.1, "c": 40.7})
    assert found["mean_difference"] == pytest.approx(0.1)
    assert found["standard_deviation"] == pytest.approx(0.4)
    half = 4.302653 * 0.4 / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert found["interval"] == pytest.approx([0.1 - half, 0.1 + half], abs=1e-5)
    with pytest.raises(UserError, match="same runs"):
        paired({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})
