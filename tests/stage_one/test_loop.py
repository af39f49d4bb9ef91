"""The one training loop: it is stochastic gradient descent, and methods need no case of their own in it."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.random import generator
from longtail.settings.recipe import Optimiser
from longtail.settings.schedules import Constant, LearningRate, Length
from longtail.stage_one.loop import Batch, train
from longtail.stage_one.losses import logit_adjusted
from longtail.stage_one.step import Outcome, Step, Stream

FAST = {"seed": 0, "precision": "float32"}


def weights(modules: nn.ModuleDict) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in modules.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_gradient_descent_with_momentum_written_out(make_phase, make_modules, nesterov):
    phase = make_phase(
        optimiser=Optimiser(momentum=0.9, weight_decay=0.01, nesterov=nesterov), augment=lambda x, g: x
    )
    modules, twin = make_modules(dropout=0.0), make_modules(dropout=0.0)
    train(phase, modules, **FAST)

    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    log_prior = (phase.labels.bincount() / len(phase.labels)).log()
    twin.train()
    for epoch in range(4):
        order = torch.randperm(50, generator=generator(0, "sampler", "train", epoch, 0))
        for number, start in enumerate(range(0, 50, 8)):
            chosen = order[start : start + 8]
            logits = twin["network"](phase.normalise(phase.images[chosen]))
            loss = F.cross_entropy(logits + (epoch / 4) ** 2 * log_prior, phase.labels[chosen])
            gradients = torch.autograd.grad(loss, list(twin.parameters()))
            rate = phase.learning_rate.at(7 * epoch + number, phase.length, 7)
            with torch.no_grad():
                for (name, p), gradient in zip(twin.named_parameters(), gradients, strict=True):
                    gradient = gradient + 0.01 * p
                    velocity[name] = 0.9 * velocity[name] + gradient
                    p -= rate * (gradient + 0.9 * velocity[name] if nesterov else velocity[name])
    for name, tensor in weights(twin).items():
        torch.testing.assert_close(weights(modules)[name], tensor, rtol=1e-4, atol=1e-5)


def test_it_learns_what_can_be_learnt(make_phase, make_modules):
    phase = make_phase(length=Length(epochs=30), augment=lambda x, g: x)
    state = train(phase, make_modules(dropout=0.0), **FAST)
    assert state.history[0]["train_accuracy"] < 0.7
    assert state.history[-1]["train_accuracy"] > 0.9
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"] / 4


def test_an_epoch_shows_every_image_once_also_those_of_the_last_smaller_batch(make_phase, make_modules):
    seen: list[Tensor] = []

    def step(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        seen.append(batches[0].images)
        return Outcome(modules["network"](batches[0].images).sum(), torch.zeros((), dtype=torch.int64))

    phase = make_phase(
        length=Length(epochs=1), step=step, augment=lambda x, g: x, learning_rate=LearningRate(peak=1e-9)
    )
    train(phase, make_modules(), **FAST)
    assert [len(batch) for batch in seen] == [8, 8, 8, 8, 8, 8, 2]
    found = {tuple(image.flatten().tolist()) for image in torch.cat(seen)}
    assert found == {tuple(image.flatten().tolist()) for image in phase.normalise(phase.images)}


def test_the_mean_loss_of_an_epoch_weighs_images_not_batches(make_phase, make_modules):
    def step(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        last = len(batches[0].labels) == 2
        right = torch.tensor(2 if last else 4)
        return Outcome(0 * modules["network"](batches[0].images).sum() + (11.0 if last else 1.0), right)

    state = train(make_phase(length=Length(epochs=1), step=step), make_modules(), **FAST)
    assert state.history[0]["train_loss"] == pytest.approx((48 * 1 + 2 * 11) / 50)
    assert state.history[0]["train_accuracy"] == pytest.approx((6 * 4 + 2) / 50)


@pytest.mark.parametrize(("iterations", "epochs"), [(1, 1), (7, 1), (8, 2), (20, 3), (21, 3)])
def test_iterations_end_exactly_there(make_phase, make_modules, iterations, epochs):
    steps = []

    def step(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        steps.append(len(batches[0].labels))
        return Outcome(modules["network"](batches[0].images).square().mean(), torch.tensor(0))

    phase = make_phase(length=Length(iterations=iterations), step=step)
    state = train(phase, make_modules(), **FAST)
    assert len(steps) == iterations == phase.steps == state.history[-1]["step"]
    assert len(state.history) == epochs == phase.epochs
    assert state.images == sum(steps)


@pytest.mark.parametrize("length", [Length(epochs=3), Length(iterations=17)])
@pytest.mark.parametrize("kind", ["epoch", "step"])
def test_progress_starts_at_nought_and_moves_by_epoch_or_by_step(make_phase, make_modules, length, kind):
    seen, samplers = [], []

    def sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        samplers.append(progress)
        return torch.randperm(len(labels), generator=generator)

    def step(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        assert progress.shape == ()
        seen.append(float(progress))
        return Outcome(modules["network"](batches[0].images).square().mean(), torch.tensor(0))

    phase = make_phase(length=length, step=step, progress=kind, streams=[Stream(sampler=sampler)])
    train(phase, make_modules(), **FAST)
    total = phase.steps
    expected = [i / total if kind == "step" else (i // 7) / 3 for i in range(total)]
    assert seen == pytest.approx(expected)
    assert samplers == pytest.approx(expected[::7])


def test_a_step_is_told_to_turn_when_its_streams_begin_also_where_progress_moves_by_steps(
    make_phase, make_modules
):
    class Late(Step):
        def turn(self, progress: float) -> bool:
            self.late = progress >= 0.4
            return self.late

        def __call__(self, modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
            assert len(batches) == 1 + self.late
            courses.append((self.late, float(progress)))
            return Outcome(modules["network"](batches[0].images).square().mean(), torch.tensor(0))

    courses: list[tuple[bool, float]] = []
    phase = make_phase()
    second = Stream(sampler=None, start=0.4)
    late = make_phase(length=Length(epochs=3), step=Late(), progress="step", streams=[*phase.streams, second])
    train(late, make_modules(), **FAST)
    assert [is_late for is_late, _ in courses] == [False] * 14 + [True] * 7
    assert courses[13][1] > 0.4  # the epoch had begun before


def test_history_tells_rate_and_strength_of_the_last_step_of_an_epoch(make_phase, make_modules):
    phase = make_phase(progress="step")
    history = train(phase, make_modules(), **FAST).history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["step"] for row in history] == [7, 14, 21, 28]
    assert [row["learning_rate"] for row in history] == [phase.rate_at(i) for i in (6, 13, 20, 27)]
    assert [row["gamma"] for row in history] == pytest.approx([(i / 28) ** 2 for i in (6, 13, 20, 27)])


def test_label_pairs_are_mixup_without_soft_labels(make_phase, make_modules):
    """Zhang et al. 2018: the loss of a mixed image is linear in its two labels."""

    def mixup(batch: Batch, generator: torch.Generator, shared: torch.Generator) -> Batch:
        order = torch.randperm(len(batch.labels), generator=generator)
        share = torch.rand(len(order), generator=generator)
        image_share = share[:, None, None, None]
        images = image_share * batch.images + (1 - image_share) * batch.images[order]
        return Batch(images, batch.labels, batch.labels[order], share)

    def soft(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        batch = batches[0]
        targets = batch.weight[:, None] * F.one_hot(batch.labels, 5)
        targets = targets + (1 - batch.weight)[:, None] * F.one_hot(batch.others, 5)
        logits = modules["network"](batch.images)
        return Outcome(F.cross_entropy(logits, targets), (logits.argmax(1) == batch.labels).sum())

    one, other = make_modules(), make_modules()
    one["loss"] = logit_adjusted.build(logit_adjusted.Settings(gamma=Constant(a=0)), torch.ones(5))
    pairs = train(make_phase(transforms=[mixup]), one, **FAST).history
    other_history = train(make_phase(transforms=[mixup], step=soft), other, **FAST).history
    for a, b in zip(pairs, other_history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)


def test_a_method_may_look_at_two_batches_a_step(make_phase, make_modules):
    """As BBN does (Zhou et al. 2020): one batch as the images come, one from the rare classes up."""

    def reversed_sampler(labels: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        chance = 1 / labels.bincount()[labels].double() ** 2
        return torch.multinomial(chance, len(labels), replacement=True, generator=generator)

    classes = torch.zeros(2, 5)

    def step(modules: nn.ModuleDict, batches: list[Batch], progress: Tensor) -> Outcome:
        loss = torch.zeros(())
        for number, (batch, share) in enumerate(zip(batches, (1 - progress, progress), strict=True)):
            classes[number] += batch.labels.bincount(minlength=5)
            loss = loss + share * F.cross_entropy(modules["network"](batch.images), batch.labels)
        return Outcome(loss, torch.tensor(0))

    phase = make_phase()
    two = make_phase(streams=[*phase.streams, Stream(sampler=reversed_sampler)], step=step)
    train(two, make_modules(), **FAST)
    assert classes[0].tolist() == (4 * phase.labels.bincount()).tolist()
    assert classes[1, 4] > classes[1, 0]


def test_a_phase_goes_on_from_the_history_of_the_one_before(make_phase, make_modules):
    modules = make_modules()
    first = make_phase(name="rich", length=Length(epochs=2))
    second = make_phase(name="poor", length=Length(epochs=1))
    told = []
    past = train(first, modules, **FAST).history
    history = train(second, modules, history=past, report=lambda row, _: told.append(row), **FAST).history
    assert [(row["phase"], row["epoch"]) for row in history] == [("rich", 1), ("rich", 2), ("poor", 1)]
    assert told == history
    assert past == history[:2]


def test_evaluation_is_in_eval_mode_every_so_many_epochs_and_after_the_last(make_phase, make_modules):
    modules, modes = make_modules(), []

    def evaluate() -> dict[str, float | None]:
        modes.append(modules["network"].training)
        return {"test_accuracy": 0.5}

    phase = make_phase(length=Length(epochs=5))
    history = train(phase, modules, evaluate=evaluate, evaluate_every=2, **FAST).history
    assert ["test_accuracy" in row for row in history] == [False, True, False, True, True]
    assert modes == [False] * 3
    history = train(phase, make_modules(), evaluate=evaluate, evaluate_every=0, **FAST).history
    assert ["test_accuracy" in row for row in history] == [False] * 4 + [True]


def test_evaluating_more_often_changes_nothing_of_the_training(make_phase, make_modules):
    found = []
    for every in (0, 1):
        modules = make_modules()
        train(
            make_phase(),
            modules,
            evaluate=lambda: {"x": float(torch.rand(()))},
            evaluate_every=every,
            **FAST,
        )
        found.append(weights(modules))
    assert equal(*found)


def test_a_seed_is_a_result_to_the_last_bit_and_leaves_the_global_generator_alone(make_phase, make_modules):
    found = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        modules, before = make_modules(), torch.random.get_rng_state()
        train(make_phase(), modules, seed=seed, precision="float32")
        assert torch.equal(before, torch.random.get_rng_state())
        found.append(weights(modules))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_network_never_of_loss_or_weights(
    make_phase, make_modules, precision, dtype
):
    modules = make_modules()
    seen = []
    modules["network"][0].register_forward_hook(lambda *args: seen.append(args[2].dtype))
    modules["loss"].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    train(make_phase(length=Length(iterations=1)), modules, seed=0, precision=precision)
    assert seen == [dtype, torch.float32]
    assert {p.dtype for p in modules.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_ends_the_training_with_one_line(make_phase, make_modules):
    phase = make_phase(learning_rate=LearningRate(peak=1e18))
    with pytest.raises(
        UserError, match=r"not finite at epoch \d.*learning_rate\.peak \(it is 1e\+18\)"
    ) as error:
        train(phase, make_modules(), **FAST)
    assert "\n" not in str(error.value)


def test_the_host_never_waits_for_the_device_inside_an_epoch(make_phase, make_modules, monkeypatch):
    """`.item()` in the step loop would make a GPU idle; so its uses must not grow with the steps."""
    waits = 0

    def counted(original):
        def call(*args, **kwargs):
            nonlocal waits
            waits += 1
            return original(*args, **kwargs)

        return call

    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(Tensor, name, counted(getattr(Tensor, name)))
    used = []
    for size in (25, 5):
        waits = 0
        train(make_phase(length=Length(epochs=1), batch_size=size), make_modules(), **FAST)
        used.append(waits)
    assert used[0] == used[1]


def test_rows_are_reported_as_they_come(make_phase, make_modules):
    rows = []
    state = train(make_phase(), make_modules(), report=lambda row, state: rows.append(copy.copy(row)), **FAST)
    assert rows == state.history
    assert math.isfinite(state.seconds)
    assert state.images == 200


def test_what_is_observed_changes_nothing_and_stands_in_its_epochs_row(make_phase, make_modules):
    from longtail.settings.rich_classes import Rich
    from longtail.stage_one.observers.gradients import Gradients, Settings

    class Network(nn.Module):
        def __init__(self, network: nn.Sequential) -> None:
            super().__init__()
            self.trunk, self.head = network[:-1], network[-1]

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.trunk(images))

    observer = Gradients(Settings(rich=Rich(above=10), every=2, batches=3), torch.tensor([24, 13, 7, 4, 2]))
    states, found = [], []
    for observers in ([], [observer]):
        modules = make_modules()  # with batch statistics and dropout
        modules["network"] = Network(modules["network"])
        states.append(train(make_phase(observers=observers), modules, **FAST))
        found.append(weights(modules))
    assert equal(*found)
    measured = [{key for key in row if key.startswith("gradient_")} for row in states[1].history]
    assert [len(keys) for keys in measured] == [18, 0, 18, 0]
    plain = [
        {key: value for key, value in row.items() if key not in measured[0]} for row in states[1].history
    ]
    assert plain == states[0].history
