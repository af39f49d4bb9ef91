"""What a step may ask of the loop: streams, modules, random numbers, courses, something to do afterwards."""

import pytest
import torch
from torch import nn

from longtail.errors import UserError
from longtail.settings.recipe import Optimiser, Recipe
from longtail.settings.schedules import Length
from longtail.stage_one import graph, loop
from longtail.stage_one.loop import train
from longtail.stage_one.step import Outcome, Step, Stream
from longtail.stage_one.steps.supervised import Supervised

FAST = {"seed": 0, "precision": "float32"}
FEW = torch.full((3, 1, 6, 6), 7, dtype=torch.uint8)


def in_order(labels, generator, progress):
    return torch.arange(len(labels))


class Noting(Step):
    """Keeps what it is handed, and learns nothing."""

    def __init__(self, *further, draws=False):
        self.further, self.draws, self.seen = further, draws, []

    def streams(self, own):
        return [own, *self.further]

    def draw(self, size, generator):
        return torch.rand(size, 2, generator=generator), torch.randn((), generator=generator)

    def __call__(self, modules, batches, progress):
        self.seen.append(batches)
        return Outcome(0 * modules["network"](batches[0].images).sum(), torch.tensor(0))


def noted(make_phase, make_modules, step, **changes):
    phase = make_phase(length=Length(epochs=1), augment=lambda x, g: x, step=step, **changes)
    phase = type(phase)(**{**vars(phase), "streams": step.streams(phase.streams[0])})
    train(phase, make_modules(), **FAST)
    return step.seen


def test_a_stream_over_a_part_of_few_images_goes_round_and_round(make_phase, make_modules):
    further = Stream(sampler=in_order, images=FEW, labels=torch.tensor([4, 2, 0]))
    seen = noted(make_phase, make_modules, Noting(further))
    assert [len(batches[1].labels) for batches in seen] == [8] * 6 + [2]
    labels = torch.cat([batches[1].labels for batches in seen])
    assert labels.tolist() == ([4, 2, 0] * 17)[:50]
    assert all(torch.allclose(batches[1].images, torch.tensor(7 / 127.5 - 1)) for batches in seen)


def test_a_stream_without_a_sampler_is_the_first_streams_images_augmented_anew(make_phase, make_modules):
    again = Stream(sampler=None, augment=lambda images, generator: 255 - images)
    other = Stream(sampler=in_order, images=FEW, labels=torch.tensor([4, 2, 0]))
    for batches in noted(make_phase, make_modules, Noting(other, again)):
        assert torch.equal(batches[0].labels, batches[2].labels)
        assert torch.allclose(batches[2].images, -batches[0].images, atol=1e-6)


def test_a_stream_that_starts_later_has_no_batch_before(make_phase, make_modules):
    step = Noting(Stream(sampler=in_order, start=0.5))
    phase = make_phase(length=Length(epochs=4), step=step)
    phase = type(phase)(**{**vars(phase), "streams": step.streams(phase.streams[0])})
    train(phase, make_modules(), **FAST)
    assert [len(batches) for batches in step.seen] == [1] * 14 + [2] * 14


def test_a_stream_without_images_is_one_line(make_phase, make_modules):
    empty = Stream(sampler=in_order, images=FEW[:0], labels=torch.tensor([], dtype=torch.int64))
    with pytest.raises(UserError, match="no image to draw from"):
        noted(make_phase, make_modules, Noting(empty))


def test_random_numbers_are_of_the_step_and_the_same_again(make_phase, make_modules):
    seen = [noted(make_phase, make_modules, Noting(draws=True)) for _ in range(2)]
    drawn = [[batches[0].drawn for batches in one] for one in seen]
    assert [len(numbers[0]) for numbers in drawn[0]] == [8] * 6 + [2]
    assert all(numbers[1].shape == () for numbers in drawn[0])
    for one, other in zip(*drawn, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(drawn[0][0][0], drawn[0][1][0])
    (whole,) = (noted(make_phase, make_modules, Noting()),)
    assert all(batches[0].drawn == () for batches in whole)


class Averaging(Supervised):
    """Keeps a moving average of the weights and learns a scale of the loss; halfway its course changes."""

    def __init__(self):
        super().__init__()
        self.late, self.turns = False, []

    def modules(self):
        scale, average = nn.Linear(1, 1, bias=False), nn.Linear(96, 5)
        for module in (scale, average):
            for parameter in module.parameters():
                nn.init.constant_(parameter, 1.0)
        return {"scale": scale, "average": average.requires_grad_(False)}

    def turn(self, progress):
        self.late = progress >= 0.5
        self.turns.append(progress)
        return self.late

    def __call__(self, modules, batches, progress):
        outcome = super().__call__(modules, batches, progress)
        factor = modules["scale"].weight.sum() if self.late else 1.0
        return outcome._replace(loss=factor * outcome.loss)

    def after(self, modules):
        own = modules["network"][-1]
        for name, tensor in modules["average"].named_parameters():
            tensor.lerp_(own.get_parameter(name), 0.1)


def with_step(make_modules, step):
    modules = make_modules(dropout=0.0)
    return nn.ModuleDict({**modules, **step.modules()})


def test_modules_of_a_step_learn_are_kept_and_follow_the_optimiser(make_phase, make_modules):
    step = Averaging()
    modules = with_step(make_modules, step)
    expected, weights = torch.ones(5, 96), []
    phase = make_phase(step=step, optimiser=Optimiser(momentum=0.0, weight_decay=0.0))

    def follow(row, state):
        weights.append(modules["average"].weight.clone())

    average = Averaging.after

    class Followed(Averaging):
        def after(self, modules):
            nonlocal expected
            expected = expected + 0.1 * (modules["network"][-1].weight - expected)
            average(self, modules)

    phase = make_phase(step=Followed(), optimiser=Optimiser(momentum=0.0, weight_decay=0.0))
    train(phase, modules, report=follow, **FAST)
    assert torch.allclose(modules["average"].weight, expected, atol=1e-6)
    assert float(modules["scale"].weight.detach()) != 1.0
    assert torch.equal(weights[-1], modules["average"].weight)


def test_a_killed_training_goes_on_with_the_modules_of_its_step(
    make_phase, make_modules, tmp_path, monkeypatch
):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")
    whole, part = (with_step(make_modules, Averaging()) for _ in range(2))
    train(make_phase(step=Averaging()), whole, **FAST)

    def kill(row, state):
        if state.epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make_phase(step=Averaging()), part, path=path, report=kill, **FAST)
    resumed = with_step(make_modules, Averaging())
    train(make_phase(step=Averaging()), resumed, path=path, **FAST)
    state = whole.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resumed.state_dict().items())


def test_each_course_is_recorded_on_its_own(make_phase, make_modules, monkeypatch):
    expected = with_step(make_modules, Averaging())
    train(make_phase(step=Averaging(), length=Length(epochs=8)), expected, **FAST)
    captured = []

    def recorder(work):
        captured.append(work)
        return work

    whole = loop.Steps.__init__

    def replayed(self, *arguments):
        whole(self, *arguments)
        self.take = graph.Replayed(self.take, recorder, fits=lambda step: step() is None)

    monkeypatch.setattr(loop.Steps, "__init__", replayed)
    found, step = with_step(make_modules, Averaging()), Averaging()
    train(make_phase(step=step, length=Length(epochs=8)), found, **FAST)
    state = expected.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    assert len(captured) == 2 * 2  # two courses, each of whole batches and a rest
    assert step.turns[:8] == [0.0] * 7 + [1 / 8]


def test_what_a_step_does_not_take_is_one_line():
    recipe = {
        "loss": {"name": "logit_adjusted", "gamma": {"form": "constant", "a": 0.0}},
        "step": "two_streams",
        "network": "bbn",
    }
    assert Recipe.model_validate(recipe).step.options.second.name == "reversed"
    for key, value, word in (
        ("transforms", ["mixup"], "transforms"),
        ("freeze", "trunk", "freeze"),
        ("classes", "rich", "classes"),
    ):
        with pytest.raises(ValueError, match=f"step two_streams .phase train. takes no {word}"):
            Recipe.model_validate({**recipe, key: value})


def test_the_usual_step_is_not_hashed():
    loss = {"name": "focal", "gamma": 1.0}
    written = Recipe.model_validate({"loss": loss, "step": "supervised"})
    assert "step" not in written.resolved(hashed=True)
    assert written.resolved()["step"] == {"name": "supervised"}
    other = Recipe.model_validate({"loss": loss, "step": "two_streams", "network": "bbn"})
    assert other.resolved(hashed=True)["step"]["weight"] == {"form": "power", "a": 1.0, "b": 2.0}
