"""Replaying a captured step is the same training as taking every step as it comes."""

import threading
import time
from contextlib import nullcontext, suppress

import pytest
import torch

from longtail.settings.recipe import Optimiser
from longtail.settings.schedules import LearningRate, Length
from longtail.stage_one import graph, loop, resuming
from longtail.stage_one.loop import train
from longtail.stage_one.steps.supervised import Supervised
from tests.stand_in import stand_in

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FAST = {"seed": 0, "precision": "float32"}


def mixed(batch, generator, shared=None):
    weight = torch.rand((), generator=generator).to(batch.images.device)
    other = torch.randperm(len(batch.labels), generator=generator).to(batch.images.device)
    images = weight * batch.images + (1 - weight) * batch.images[other]
    return loop.Batch(images, batch.labels, batch.labels[other], weight)


def trained(phase, modules):
    state = train(phase, modules, **FAST)
    return state.history, {name: tensor.cpu() for name, tensor in modules.state_dict().items()}


def same(one, other):
    return one[0] == other[0] and all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


class Recorder:
    """Stands for CUDA's capture where there is none: keeps the work, on its fixed tensors, and repeats it."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, work):
        self.captured += 1

        def replay():
            self.replayed += 1
            work()

        return replay


@pytest.mark.parametrize("transforms", [(), (mixed,)])
def test_steps_on_fixed_addresses_are_the_same_steps(make_phase, make_modules, monkeypatch, transforms):
    """Seven steps an epoch, the last of another shape; each shape is recorded once."""
    phase = make_phase(length=Length(epochs=5), transforms=transforms)
    expected = trained(phase, make_modules(dropout=0.0))
    recorder = Recorder()
    whole = loop.Steps.__init__

    def replayed(self, *arguments):
        whole(self, *arguments)
        self.take = graph.Replayed(self.take, recorder, fits=lambda step: step() is None)

    monkeypatch.setattr(loop.Steps, "__init__", replayed)
    assert same(trained(phase, make_modules(dropout=0.0)), expected)
    assert recorder.captured == 2
    assert recorder.replayed == (5 * 6 - graph.WARM_UP) + (5 - graph.WARM_UP)


def test_a_capture_begins_when_all_others_stand_still_and_they_go_on_after_it():
    gate, log = graph.Gate(), []
    others, captured, enough = threading.Barrier(3), threading.Event(), threading.Event()

    def step(name):
        with gate.at_work():
            others.wait()
            while not enough.is_set():
                gate.pass_by()
                log.append((name, captured.is_set()))
                time.sleep(0.001)

    threads = [threading.Thread(target=step, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    others.wait()
    for _ in range(5):
        with gate.at_work(), gate.alone():
            before = len(log)
            time.sleep(0.02)
            assert len(log) == before
    captured.set()
    wait_until = time.monotonic() + 30
    while {("a", True), ("b", True)} - set(log):
        assert time.monotonic() < wait_until
        time.sleep(0.001)
    enough.set()
    for thread in threads:
        thread.join()
    with gate.alone():  # also of a thread that is not at work
        pass


def test_captures_of_several_threads_come_one_after_the_other():
    gate, at_once, most = graph.Gate(), [0], [0]

    def capture():
        with gate.at_work():
            for _ in range(20):
                gate.pass_by()
                with gate.alone():
                    at_once[0] += 1
                    most[0] = max(most[0], at_once[0])
                    time.sleep(0.0005)
                    at_once[0] -= 1

    threads = [threading.Thread(target=capture) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == [1]


def test_a_training_that_fails_does_not_keep_others_from_capturing():
    gate = graph.Gate()

    def fail():
        with suppress(ValueError), gate.at_work():
            raise ValueError

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    with gate.alone():
        pass


def test_a_cpu_and_a_step_that_cannot_be_recorded_run_as_they_are(make_phase, make_modules):
    phase, modules = make_phase(), make_modules()
    steps = loop.Steps(phase, modules, *resuming.make_optimiser(phase, modules, {}), "float32")
    assert not isinstance(steps.take, graph.Replayed)


@pytest.fixture(
    params=[pytest.param("gpu", marks=[pytest.mark.gpu, needs_gpu]), "stand-in"],
)
def device(request):
    """A GPU, and its stand-in on every machine."""
    with nullcontext() if request.param == "gpu" else stand_in():
        yield


class Eager(Supervised):
    capturable = False


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("transforms", [(), (mixed,)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_cuda_graph_is_the_same_training(make_phase, make_modules, transforms, momentum):
    changes = {
        "images": make_phase().images.cuda(),
        "length": Length(epochs=6),
        "transforms": transforms,
        "optimiser": Optimiser(momentum=momentum),
        "learning_rate": LearningRate(peak=0.05, warmup=2),
    }
    eager = trained(make_phase(**changes, step=Eager()), make_modules(dropout=0.0).cuda())
    assert same(trained(make_phase(**changes), make_modules(dropout=0.0).cuda()), eager)
