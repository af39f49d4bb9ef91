"""What `longtail init` chooses: groups, a network, its schedule, images held out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from longtail.groups import group
from longtail.own_pictures import time_estimate
from longtail.own_pictures.time_estimate import Machine
from longtail.own_pictures.weights import Weights
from longtail.settings.data import HeldOut
from longtail.settings.published import Groups

# Networks and sizes in pixels, the best first: the first that can be trained for long enough is taken.
LADDERS = {
    False: [("resnet18", 128), ("resnet18", 112), ("resnet10", 112), ("resnet10", 96), ("resnet10", 64)],
    True: [("resnet50", 224), ("resnet18", 224), ("resnet18", 160), ("resnet10", 128)],
}


LONG_ENOUGH = {False: 60, True: 90}  # epochs, without and with a GPU


MOST, LEAST = 200, 5  # epochs


LONG = 100  # epochs from which more augmentation helps, and three seeds tell more than more epochs


RECIPES = 2  # of stage one in the template


CLASSIFIERS = 6  # of stage two


HELD_OUT = 50  # test images of a class at most, where all classes give the same number


STEPS_AN_EPOCH = 50  # that the batch size leaves, or the network moves too seldom


@dataclass(frozen=True)
class Schedule:
    """How stage one is trained, and how long all takes.

    Attributes:
        architecture, size: of the network and its pictures.
        epochs: of each run.
        views: augmented views an image.
        seeds: that are run.
        seconds: of everything.
        epoch: seconds of one epoch of one run.
    """

    architecture: str
    size: int
    epochs: int
    views: int
    seeds: int
    seconds: float
    epoch: float


def choose_held_out(smallest: int) -> HeldOut:
    """The same number of each class where the smallest class has that many to give, a third of it."""
    if smallest >= 6:
        return HeldOut(per_class=min(HELD_OUT, smallest // 3))
    return HeldOut(share=0.2)


def choose_groups(sizes: Sequence[int]) -> tuple[Groups, str]:
    """The literature's borders of many, medium and few where they part these classes, else thirds by size.

    Borders lie between classes of different sizes, so that no group is empty where there are three sizes.
    Of two sizes the smaller is few, so that there is a tail; of one size no border says anything.

    Args:
        sizes: training pictures of each class.
    """
    usual = Groups()
    counts = Counter(group(size) for size in sizes)
    enough = max(2, len(sizes) / 10)
    if all(counts[name] >= enough for name in ("many", "medium", "few")):
        return usual, "the literature's borders"
    different = sorted(set(sizes))
    if len(different) == 1:
        groups, words = Groups(many_above=different[0], few_below=different[0]), "all classes are of one size"
    elif len(different) == 2:
        groups, words = _two_groups(*different), "the classes are of two sizes"
    else:
        groups, words = _thirds(sizes, different), "thirds of the classes by size"
    return groups, (
        f"{words}; the usual 100 and 20 would leave "
        f"{counts['many']}, {counts['medium']} and {counts['few']} classes in many, medium and few"
    )


def _two_groups(smaller: int, larger: int) -> Groups:
    """The smaller few and the larger many; neighbours few and medium, there being no number between."""
    if larger - smaller == 1:
        return Groups(many_above=larger, few_below=larger)
    return Groups(many_above=larger - 1, few_below=smaller + 1)


def _thirds(sizes: Sequence[int], different: Sequence[int]) -> Groups:
    """Cuts between different sizes, as near to a third and two thirds of the classes as they can be."""
    times = Counter(sizes)
    below = [0, *accumulate(times[size] for size in different)]  # classes smaller than each size
    places = range(1, len(different) - 1)
    few = min(places, key=lambda place: abs(below[place] - len(sizes) / 3))
    many = min(range(few + 1, len(different)), key=lambda place: abs(below[place] - len(sizes) * 2 / 3))
    return Groups(many_above=different[many - 1], few_below=different[few])


def choose_schedule(machine: Machine, pictures: int, others: int, side: float, minutes: float) -> Schedule:
    """The best network and size of the ladder that can be trained long enough in the time there is.

    Args:
        machine: as measured.
        pictures: to train on.
        others: validation and test images.
        side: median of the pictures' shorter sides in pixels; nothing is enlarged beyond it.
        minutes: for everything, on this machine.
    """
    views = 10 if machine.gpu else 4
    best: Schedule | None = None
    for architecture, wanted in LADDERS[machine.gpu]:
        size = max(32, min(wanted, int(side) // 16 * 16))
        for seeds in (3, 1):
            found = _schedule(machine, architecture, size, pictures, others, views, seeds, minutes)
            if found.epochs >= (LONG if seeds == 3 else LONG_ENOUGH[machine.gpu]):
                return found
            best = found
    assert best is not None
    return best


def _schedule(
    machine: Machine,
    architecture: str,
    size: int,
    pictures: int,
    others: int,
    views: int,
    seeds: int,
    minutes: float,
) -> Schedule:
    """As many epochs as fit, of one network; at least a few, though they take longer."""
    rounds = machine.rounds(RECIPES * seeds)
    epoch = machine.epoch(architecture, size, pictures)
    features = machine.passing(architecture, size, pictures * (views + 1) + others)
    evaluation = 10 * machine.passing(architecture, size, others)  # ten times during a training
    jobs = (2 + (2 * RECIPES + CLASSIFIERS) * seeds) * time_estimate.START
    fixed = (
        rounds * (features + evaluation)
        + jobs
        + machine.rounds(CLASSIFIERS * seeds) * time_estimate.STAGE_TWO
    )
    epochs = max(LEAST, min(MOST, int((60 * minutes - fixed) / (rounds * epoch))))
    return Schedule(architecture, size, epochs, views, seeds, fixed + rounds * epochs * epoch, epoch)


@dataclass(frozen=True)
class Heads:
    """What is trained on features of published weights, and how long all takes.

    Attributes:
        views: augmented views an image.
        seeds: of heads and classifiers.
        tuned: whether the network learns on in one recipe more.
        seconds: of everything.
    """

    views: int
    seeds: int
    tuned: bool
    seconds: float


METHODS = 9  # of the table on features of published weights
TUNED_EPOCHS = 3  # of the last stage, or of adapters
TUNED_COST = 1.3  # of a pass forward: gradients reach the last stage, or adapters, alone
FITTING = 1.6  # seconds of a core that a head or a classifier on features takes, AFG the longest
PUBLISHING = 60.0  # seconds of a core for table, figures, page, report and the exported model


def passes(pictures: int, others: int, views: int, machine: Machine) -> float:
    """How many pictures a core, or the GPU, has to see for all features."""
    seen = pictures * (views + 1) + others
    return float(seen) if machine.gpu else seen / machine.cores * machine.crowded


def choose_heads(
    machine: Machine, weights: Weights, pictures: int, others: int, methods: int, minutes: float
) -> Heads:
    """As many views as there is time for; fine-tuning beside where there is a GPU or time is left.

    Args:
        machine: as measured.
        weights: that the network begins with.
        pictures: to train on.
        others: validation and test images.
        methods: heads and classifiers of the table.
        minutes: for everything, on this machine.
    """
    each = weights.seconds + (machine.decoding / machine.cores if machine.gpu else machine.decoding)
    seeds = 3
    rest = 6 * time_estimate.START + (methods * seeds * FITTING + PUBLISHING) / machine.cores

    def seconds(views: int) -> float:
        return rest + passes(pictures, others, views, machine) * each

    views = next((views for views in (2, 1) if seconds(views) <= 60 * minutes), 0)
    views = views if machine.gpu else min(views, 1)
    tuning = seeds * TUNED_EPOCHS * pictures * each * TUNED_COST / (1 if machine.gpu else machine.cores)
    tuned = machine.gpu or seconds(views) + tuning <= 60 * minutes
    return Heads(views, seeds, tuned, seconds(views) + tuning * tuned)


def choose_batch_size(pictures: int, gpu: bool) -> int:
    """A power of two that leaves some fifty steps an epoch, from 16 to 64 on a CPU and to 256 on a GPU.

    A little more where an epoch would end with a batch of one picture, which batch normalisation refuses.
    """
    size = 16
    while size * 2 <= min(256 if gpu else 64, pictures / STEPS_AN_EPOCH):
        size *= 2
    size = max(2, min(size, pictures // 2))
    while pictures % size == 1:
        size += 1
    return size
