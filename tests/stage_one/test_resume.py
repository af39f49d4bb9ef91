"""A training that was killed goes on to the same result, to the last bit."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from longtail.errors import UserError
from longtail.settings.recipe import Optimiser
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_one import checkpoint
from longtail.stage_one.loop import Batch, train
from longtail.stage_one.losses.logit_adjusted import Settings, build
from longtail.stage_one.phase import Phase, State
from longtail.stage_one.step import Outcome, Stream
from longtail.stage_one.steps.supervised import Supervised

STEPS = LearningRate.model_validate(
    {"peak": 0.05, "warmup": 1, "decay": {"form": "step", "at": [2, 3], "factors": [0.1, 0.01]}}
)
MANNERS = {
    "cosine, epochs": {},
    "steps, epochs": {"learning_rate": STEPS},
    "cosine, iterations, progress by step": {"length": Length(iterations=25), "progress": "step"},
    "steps, iterations": {
        "length": Length(iterations=25),
        "learning_rate": LearningRate.model_validate(
            {"peak": 0.05, "warmup": 5, "decay": {"form": "step", "at": [12], "factors": [0.1]}}
        ),
    },
    "no momentum": {"optimiser": Optimiser(momentum=0.0)},
    "nesterov": {"optimiser": Optimiser(nesterov=True)},
}


class KillError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(autouse=True)
def _checkpoint_after_every_epoch(monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "0")


def run(phase: Phase, modules: nn.ModuleDict, path: Path | None, **more: object) -> State:
    def evaluate() -> dict[str, float | None]:
        return {"test_accuracy": float(next(iter(modules.parameters())).detach().sum())}

    return train(
        phase, modules, seed=0, precision="float32", path=path, evaluate=evaluate, evaluate_every=2, **more
    )


def interrupted_after(epochs: int) -> Callable[[object, State], None]:
    def report(row: object, state: State) -> None:
        if len(state.history) == epochs:
            raise KillError

    return report


def assert_same(one: nn.ModuleDict, other: nn.ModuleDict) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
@pytest.mark.parametrize("manner", MANNERS)
def test_interrupted_after_any_epoch_it_ends_as_if_nothing_had_been(
    make_phase, make_modules, tmp_path, manner, epochs
):
    phase, path = make_phase(**MANNERS[manner]), tmp_path / "checkpoint.safetensors"
    whole, killed, resumed = make_modules(), make_modules(), make_modules()
    expected = run(phase, whole, None)
    with pytest.raises(KillError):
        run(phase, killed, path, report=interrupted_after(epochs))
    trained = []
    found = run(phase, resumed, path, report=lambda row, state: trained.append(row))
    assert_same(resumed, whole)
    assert found.history == expected.history
    assert found.images == expected.images
    assert trained == expected.history  # the curves of the part before the kill are drawn again


@pytest.mark.parametrize("times", [[3], [2, 2, 2]])
def test_interrupted_inside_epochs_it_begins_the_epoch_again(make_phase, make_modules, tmp_path, times):
    path = tmp_path / "checkpoint.safetensors"
    whole = make_modules()
    expected = run(make_phase(), whole, None)
    for epochs in times:
        left = 7 * epochs - 3

        def step(modules: nn.ModuleDict, batches: list, progress: Tensor):
            nonlocal left
            left -= 1
            if left < 0:
                raise KillError
            return Supervised()(modules, batches, progress)

        with pytest.raises(KillError):
            run(make_phase(step=step), make_modules(), path)
    resumed = make_modules()
    assert run(make_phase(), resumed, path).history == expected.history
    assert_same(resumed, whole)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_later_phase_resumes_with_the_history_before_it(make_phase, make_modules, tmp_path, epochs):
    path = tmp_path / "checkpoint.safetensors"
    phase = make_phase(name="poor", learning_rate=STEPS)
    past = [{"phase": "rich", "epoch": 1, "train_loss": 2.0}]
    whole, resumed = make_modules(), make_modules()
    expected = run(phase, whole, None, history=past)
    with pytest.raises(KillError):
        run(phase, make_modules(), path, report=interrupted_after(1 + epochs), history=past)
    assert run(phase, resumed, path, history=past).history == expected.history
    assert expected.history[0] == past[0]
    assert_same(resumed, whole)


def test_a_finished_training_is_not_trained_again(make_phase, make_modules, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    whole, again = make_modules(), make_modules()
    expected = run(make_phase(), whole, path)

    def step(*_: object):
        raise AssertionError("trained again")

    assert run(make_phase(step=step), again, path).history == expected.history
    assert_same(again, whole)


def damage_in_the_middle(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], damage_in_the_middle, lambda data: b"x" * 500],
    ids=["empty", "half", "one bit", "something else"],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_training_starts_anew(
    make_phase, make_modules, tmp_path, capsys, damage
):
    path = tmp_path / "checkpoint.safetensors"
    whole, resumed = make_modules(), make_modules()
    expected = run(make_phase(), whole, None)
    with pytest.raises(KillError):
        run(make_phase(), make_modules(), path, report=interrupted_after(2))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    capsys.readouterr()
    assert run(make_phase(), resumed, path).history == expected.history
    assert_same(resumed, whole)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: checkpoint damaged")
    assert line.endswith("training starts anew")
    assert path.with_name(f"unused-{path.name}").read_bytes() == damaged


def test_a_checkpoint_that_cannot_be_opened_for_the_moment_stays(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.write(path, {"a": torch.ones(3)}, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            checkpoint.read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert checkpoint.read(path)


def test_a_checkpoint_on_a_disk_that_fails_for_the_moment_stays(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.write(path, {"a": torch.ones(3)}, {"epoch": 1})

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(checkpoint, "safe_open", fails)
        with pytest.raises(OSError, match="Input/output error"):
            checkpoint.read(path)
    assert checkpoint.read(path)


def test_a_checkpoint_of_another_processor_is_gone_on_from_and_both_are_named(
    make_phase, make_modules, tmp_path, capsys
):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KillError):
        run(make_phase(), make_modules(), path, report=interrupted_after(2), environment="H200, bf16")
    resumed, whole = make_modules(), make_modules()
    state = run(make_phase(), resumed, path, environment="CPU, float32")
    assert state.environments == ["H200, bf16", "CPU, float32"]
    assert "goes on from H200, bf16 on CPU, float32: no longer bit-repeatable" in capsys.readouterr().err
    assert run(make_phase(), whole, None).history == state.history  # here both were one processor
    assert_same(resumed, whole)


def test_a_strict_resume_mixes_in_no_checkpoint_of_another_processor(
    make_phase, make_modules, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LONGTAIL_RESUME", "strict")
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KillError):
        run(make_phase(), make_modules(), path, report=interrupted_after(2), environment="H200, bf16")
    resumed, whole = make_modules(), make_modules()
    state = run(make_phase(), resumed, path, environment="CPU, float32")
    assert state.environments == ["CPU, float32"]
    run(make_phase(), whole, None)
    assert_same(resumed, whole)
    assert "of another environment (H200, bf16, here CPU, float32)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("LONGTAIL_RESUME", "Strict", "should be strict, or not be set"),
        ("LONGTAIL_CHECKPOINT_SECONDS", "nan", "should be a number of seconds"),
        ("LONGTAIL_CHECKPOINT_SECONDS", "-1", "should be a number of seconds"),
        ("LONGTAIL_CHECKPOINT_SECONDS", "soon", "should be a number of seconds"),
    ],
)
def test_a_variable_that_means_nothing_is_one_line_before_the_first_step(
    make_phase, make_modules, tmp_path, monkeypatch, variable, value, line
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{variable}={value}: {line}"):
        run(make_phase(), make_modules(), tmp_path / "checkpoint.safetensors")


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.write(path, {"a": torch.ones(3)}, {"epoch": 1})
    monkeypatch.setattr(checkpoint.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write(path, {"a": torch.zeros(3)}, {"epoch": 2})
    tensors, state = checkpoint.read(path)
    assert state == {"epoch": 1}
    assert torch.equal(tensors["a"], torch.ones(3))


def test_a_checkpoint_of_other_code_is_not_read(make_phase, make_modules, tmp_path, capfd):
    """Adopted code has the names of the code before it, whose checkpoint may hold something else."""
    path = tmp_path / "checkpoint.safetensors"
    whole, resumed = make_modules(), make_modules()
    tensors = {f"modules.{name}": tensor for name, tensor in resumed.state_dict().items()}
    state = {"phase": 0, "epoch": 1, "history": [], "images": 8, "seconds": 1.0, "environment": ""}
    checkpoint.write(path, tensors, state)
    assert run(make_phase(), resumed, path).history == run(make_phase(), whole, None).history
    assert "checkpoint of other code" in capfd.readouterr().err


def test_checkpoints_are_no_more_frequent_than_asked(make_phase, make_modules, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CHECKPOINT_SECONDS", "1e9")
    written = []
    monkeypatch.setattr(checkpoint, "write", lambda path, tensors, state: written.append(state["epoch"]))
    run(make_phase(), make_modules(), tmp_path / "checkpoint.safetensors")
    assert written == [4]  # the last epoch's: making the outputs may be what is killed


def small_training(folder: Path, step: Callable[..., Outcome]) -> nn.ModuleDict:
    """Five epochs of four steps, with a checkpoint after every epoch."""
    torch.set_num_threads(1)
    labels = torch.arange(32) % 4
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        images = torch.randint(0, 256, (32, 1, 6, 6), dtype=torch.uint8)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 4)
        )
    modules = nn.ModuleDict({"network": network, "loss": build(Settings(), labels.bincount())})
    phase = Phase(
        name="train",
        images=images,
        labels=labels,
        streams=[
            Stream(sampler=lambda labels, generator, _: torch.randperm(len(labels), generator=generator))
        ],
        augment=lambda images, _: images,
        normalise=lambda images: images / 255,
        step=step,
        batch_size=8,
        length=Length(epochs=5),
        learning_rate=LearningRate(peak=0.1),
        optimiser=Optimiser(),
        progress="step",
    )
    train(phase, modules, seed=0, precision="float32", path=folder / "checkpoint.safetensors")
    return modules


class Counting(Supervised):
    """The supervised step; before each one `then` is told its number."""

    def __init__(self, then: Callable[[int], None]) -> None:
        super().__init__()
        self.then, self.numbers = then, itertools.count(1)

    def __call__(self, modules: nn.ModuleDict, batches: Sequence[Batch], progress: Tensor) -> Outcome:
        self.then(next(self.numbers))
        return super().__call__(modules, batches, progress)


def hang_in_the_fourth_epoch(folder: Path) -> None:
    """What this file does as a program."""

    def then(number: int) -> None:
        if number == 3 * 4 + 3:
            (folder / "inside").touch()
            time.sleep(60)

    small_training(folder, Counting(then))


def test_sigkill_in_the_middle_of_an_epoch(tmp_path):
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path)])
    (tmp_path / "whole").mkdir()
    whole = small_training(tmp_path / "whole", Supervised())
    deadline = time.monotonic() + 60
    while not (tmp_path / "inside").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    steps: list[int] = []
    resumed = small_training(tmp_path, Counting(steps.append))
    assert len(steps) == 2 * 4  # three of the five epochs were kept
    assert_same(resumed, whole)


if __name__ == "__main__":
    hang_in_the_fourth_epoch(Path(sys.argv[1]))
