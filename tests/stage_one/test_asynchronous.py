"""Dual-phase training (Asynchronous modelling): rich classes first, then the poor ones and a memory bank."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longtail.data import normalisation
from longtail.data.labelled_images import Part, read_part
from longtail.errors import UserError
from longtail.settings.recipe import Recipe
from longtail.stage_one import training
from longtail.stage_one.bank import choose_bank
from longtail.stage_one.batch import Batch
from longtail.stage_one.exemplars import herding
from longtail.stage_one.networks import resnet_cifar
from longtail.stage_one.phase_classes import phase_classes
from longtail.stage_one.steps.supervised import Supervised
from tests.stage_one.test_resume import KillError

from .conftest import COUNTS
from .test_phases import history
from .test_stage_one import RECIPE, files, run

NORMAL = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # of CIFAR-10
RICH = torch.tensor([True, True, False, False, False])  # more than 10 of 40, 20, 8, 3, 1
POOR = {
    "name": "poor",
    "sampler": "class_balanced",
    "schedule": {"epochs": 2},
    "learning_rate": {"peak": 0.02},
    "classes": "poor",
    "bank": {"per_class": 4},
    "retention": "graph_matching",
}
TWO_PHASES = {"classes": "rich", "rich": {"above": 10}, "then": [POOR]}


def without(*keys: str) -> dict:
    return {**TWO_PHASES, "then": [{key: item for key, item in POOR.items() if key not in keys}]}


def bank_of(folder: Path) -> list[tuple[int, int, int]]:
    with (folder / "bank.csv").open() as file:
        return [(int(row["label"]), int(row["rank"]), int(row["sample"])) for row in csv.DictReader(file)]


def recipe(**changes) -> Recipe:
    return Recipe.model_validate(RECIPE | changes)


def test_the_scopes_of_the_phases():
    counts = torch.tensor(COUNTS)
    first, second = (phase_classes(recipe(**TWO_PHASES).until(number), counts) for number in (0, 1))
    assert torch.equal(first.own, RICH)
    assert torch.equal(first.seen, RICH)
    assert torch.equal(second.own, ~RICH)
    assert second.seen.all()
    assert torch.equal(second.new, ~RICH)
    everything = phase_classes(recipe(), counts)
    assert everything.rich is None
    assert everything.own.all()
    labels = torch.tensor([0, 3, 0, 1, 4, 0])
    assert second.members(labels, torch.tensor([2, 0])).tolist() == [0, 1, 2, 4]


def test_the_first_phase_sees_and_answers_data_rich_classes_alone(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", **TWO_PHASES)
    first = tmp_path / "run/phase0/outputs"
    measured = json.loads((first / "metrics.json").read_text())
    assert measured["test"]["per_class"][2:] == [0, 0, 0]
    assert measured["rich"]["train"]["test"] == sum(measured["test"]["per_class"][:2]) / 2
    assert history(first)[-1]["step"] == str(3 * -(-60 // 16))  # 60 images of 72
    assert not (first / "bank.csv").exists()
    # what becomes of the data-poor classes' rows of the head in it is no matter to the second phase
    assert job.facts["epochs"] == 2


def test_the_second_phase_sees_data_poor_classes_and_the_bank_and_answers_all(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", **TWO_PHASES)
    rows = history(job.folder)
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        *(("train", str(epoch)) for epoch in (1, 2, 3)),
        *(("poor", str(epoch)) for epoch in (1, 2)),
    ]
    assert rows[-1]["step"] == str(2 * -(-(12 + 2 * 4) // 16))
    assert job.facts["exemplars"] == 8
    measured = json.loads((job.folder / "metrics.json").read_text())
    assert set(measured["rich"]) == {"train", "poor"}
    before = json.loads((tmp_path / "run/phase0/outputs/metrics.json").read_text())
    assert measured["rich"]["train"] == before["rich"]["train"]
    state, old = (
        load_file(folder / "model.safetensors") for folder in (job.folder, tmp_path / "run/phase0/outputs")
    )
    assert not torch.equal(state["conv.weight"], old["conv.weight"])


def test_the_bank_holds_the_herded_samples_of_the_first_phases_features(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", **TWO_PHASES)
    training = read_part(inputs["split"], inputs["acquire"], "train")
    network = resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5)
    network.load_state_dict(load_file(tmp_path / "run/phase0/outputs/model.safetensors"))
    network = network.eval().to(memory_format=torch.channels_last)
    expected = []
    for label in (0, 1):
        own = training.labels == label
        with torch.no_grad():
            features = network.features(normalisation.normalise(training.images[own], *NORMAL))
        chosen = herding.choose(features, 4, torch.Generator(), herding.Settings())
        samples = training.samples[own][chosen].tolist()
        expected += [(label, rank, sample) for rank, sample in enumerate(samples, 1)]
    assert bank_of(job.folder) == expected


def test_a_bank_of_more_than_a_class_has_holds_all_of_it():
    training = Part(
        torch.zeros(5, 1, 1, 1, dtype=torch.uint8), torch.tensor([1, 0, 1, 0, 0]), torch.arange(5)
    )
    phase = recipe(**TWO_PHASES).phases[1]
    left_out = torch.tensor([False, True, False, False, False])
    bank = choose_bank(phase, left_out, training, lambda images: images.float().flatten(1), 0)
    assert bank.tolist() == [0, 2]


def test_without_a_bank_nothing_of_the_data_rich_classes_is_seen(inputs, tmp_path):
    job = run(inputs, tmp_path / "run", **without("bank", "retention"))
    assert not (job.folder / "bank.csv").exists()
    assert history(job.folder)[-1]["step"] == "2"  # 12 images
    measured = json.loads((job.folder / "metrics.json").read_text())
    assert set(measured["rich"]) == {"train", "poor"}


def test_retention_holds_features_to_what_they_were(inputs, tmp_path):
    """The heavier the loss, the nearer the bank's features stay to the first phase's."""
    training = read_part(inputs["split"], inputs["acquire"], "train")
    rich = training.images[training.labels < 2]
    found = []
    for weight in (0.0, 3.0):
        then = [
            {
                **POOR,
                "learning_rate": {"peak": 0.005},
                "schedule": {"epochs": 10},
                "retention": {"name": "graph_matching", "weight": {"form": "constant", "a": weight}},
            }
        ]
        job = run(inputs, tmp_path / f"{weight}", **{**TWO_PHASES, "then": then})
        features = []
        for folder in (tmp_path / f"{weight}/phase0/outputs", job.folder):
            network = resnet_cifar.build(resnet_cifar.Settings(depth=8, width=4), 3, 5).eval()
            network.load_state_dict(load_file(folder / "model.safetensors"))
            with torch.no_grad():
                features.append(network.features(normalisation.normalise(rich, *NORMAL)))
        found.append(float((1 - torch.cosine_similarity(*features)).mean()))
    assert found[1] < found[0]


def test_without_weight_retention_is_no_retention(inputs, tmp_path):
    nothing = {"name": "graph_matching", "weight": {"form": "constant", "a": 0.0}}
    one = run(inputs, tmp_path / "one", **{**TWO_PHASES, "then": [{**POOR, "retention": nothing}]})
    other = run(inputs, tmp_path / "other", **without("retention"))
    a, b = (load_file(job.folder / "model.safetensors") for job in (one, other))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_the_loss_is_over_the_classes_seen_so_far():
    """Of logits and labels of those classes alone; the others get no gradient."""
    seen = torch.tensor([True, False, True, False, True])
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) @ weight.T

    class Loss(torch.nn.Module):
        def forward(self, logits, labels, progress):
            return torch.nn.functional.cross_entropy(logits, labels)

    images = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2, 4, 4, 0, 2])
    modules = torch.nn.ModuleDict({"network": Network(), "loss": Loss()})
    outcome = Supervised(seen=seen)(modules, [Batch(images, labels)], torch.tensor(0.0))
    logits = (images.flatten(1) @ weight.T)[:, [0, 2, 4]]
    torch.testing.assert_close(outcome.loss, torch.nn.functional.cross_entropy(logits, labels // 2))
    assert outcome.correct == (logits.argmax(1) == labels // 2).sum()
    outcome.loss.backward()
    assert weight.grad is not None
    assert not weight.grad[~seen].any()
    assert weight.grad[seen].any()


def test_rows_of_the_head_are_new_for_new_classes_and_kept_for_old_ones(inputs, tmp_path):
    still = {**POOR, "schedule": {"iterations": 1}, "learning_rate": {"peak": 1e-12}}
    job = run(inputs, tmp_path / "run", **{**TWO_PHASES, "then": [still]})
    old, now = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "run/phase0/outputs", job.folder)
    )
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(now[name][RICH], old[name][RICH])
        assert (now[name][~RICH] - old[name][~RICH]).abs().mean() > 0.02


@pytest.mark.parametrize("matching", ["aligned", "sinkhorn"])
@pytest.mark.parametrize("choice", ["herding", "nearest", "random"])
def test_every_choice_and_matching_runs_twice_to_the_same_bits(inputs, tmp_path, matching, choice):
    phase = {
        **POOR,
        "bank": {"per_class": 3, "choice": choice},
        "retention": {"name": "graph_matching", "matching": matching},
    }
    one, other = (
        run(inputs, tmp_path / place, **{**TWO_PHASES, "then": [phase]}) for place in ("one", "other")
    )
    assert files(one.folder) == files(other.folder)


def test_a_bank_is_of_what_was_seen_before_and_is_not_seen_now():
    """A third phase of the rich classes remembers the poor ones, and a second of the rich ones nobody."""
    again = {**POOR, "name": "again", "classes": "rich"}
    counts = torch.tensor(COUNTS)
    third = phase_classes(recipe(classes="rich", rich={"above": 10}, then=[POOR, again]), counts)
    assert torch.equal(third.left_out, ~RICH)
    assert recipe(classes="rich", rich={"above": 10}, then=[POOR, again]).out_of_scope() is None
    nobody = recipe(classes="rich", rich={"above": 10}, then=[again])
    assert nobody.out_of_scope() == "the bank of phase again is of classes that no phase before it has seen"
    assert not phase_classes(nobody, counts).left_out.any()


def test_poor_classes_first_have_no_accuracy_on_rich_ones_yet(inputs, tmp_path):
    phase = {**POOR, "classes": "rich"}
    job = run(inputs, tmp_path / "run", classes="poor", rich={"above": 10}, then=[phase])
    measured = json.loads((job.folder / "metrics.json").read_text())
    assert set(measured["rich"]) == {"poor"}
    assert "rich" not in json.loads((tmp_path / "run/phase0/outputs/metrics.json").read_text())
    assert {label for label, _, _ in bank_of(job.folder)} == {2, 3, 4}


def test_the_names_of_phases_stay_words(inputs, tmp_path):
    then = [{**POOR, "name": "007"}, {**POOR, "name": "1e5"}]
    job = run(inputs, tmp_path / "run", **{**TWO_PHASES, "then": then})
    assert list(dict.fromkeys(row["phase"] for row in history(job.folder))) == ["train", "007", "1e5"]
    assert history(job.folder)[:5] == history(tmp_path / "run/phase1/outputs")


def test_balanced_softmax_in_the_second_phase_has_the_phases_own_prior(inputs, tmp_path):
    phase = {**POOR, "loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 1.0}}}
    job = stage_one_job(inputs, tmp_path, **{**TWO_PHASES, "then": [phase]})
    prior = training.TrainingRun(job).modules["loss"].log_prior.exp()
    torch.testing.assert_close(prior, torch.tensor([4.0, 4, 8, 3, 1]) / 20)


def stage_one_job(inputs, place, **changes):
    from .test_stage_one import prepared

    return prepared(inputs, place / "run", **changes)


@pytest.mark.parametrize("above", [40, 0])
def test_a_border_that_parts_nothing_is_one_line(inputs, tmp_path, above):
    with pytest.raises(UserError, match=r"class is data-rich \(more than .* between these") as caught:
        run(inputs, tmp_path / "run", **{**TWO_PHASES, "rich": {"above": above}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("epochs", [2, 3, 4])
def test_killed_before_at_or_after_the_border_of_the_phases_it_ends_the_same(
    inputs, tmp_path, monkeypatch, epochs
):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    whole = run(inputs, tmp_path / "whole", **TWO_PHASES)
    report = training.TrainingRun.report

    def killed(self, row, state):
        report(self, row, state)
        if len(state.history) == epochs:
            raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingRun, "report", killed)
        with pytest.raises(KillError):
            run(inputs, tmp_path / "resumed", **TWO_PHASES)
    for left in (tmp_path / "resumed").rglob("outputs"):
        if not (left / "metrics.json").exists():
            left.rename(left.with_name("left"))
    resumed = run(inputs, tmp_path / "resumed", **TWO_PHASES)
    assert files(resumed.folder) == files(whole.folder)
