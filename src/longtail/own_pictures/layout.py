"""How a user's folder of pictures is laid out: which folders are parts, which are classes."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

NAMES = {
    "train": {"train", "training", "trainset", "train_set"},
    "validation": {"val", "valid", "validation", "dev", "eval"},
    "test": {"test", "testing", "testset", "test_set"},
}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a dataset are, and why it looks so.

    Attributes:
        train, validation, test: folders of class folders, below the root; None: there is none.
        classes: as `data.classes`: a class is a folder of the first level, or every folder with pictures.
        parts_why, classes_why: for the comments of a settings file.
    """

    train: str
    validation: str | None
    test: str | None
    classes: Literal["top", "leaf"]
    parts_why: str
    classes_why: str


def layout(paths: Collection[str]) -> Layout:
    """The layout of pictures by their paths below a root.

    Folders named train, val, test (or alike, in any case) are parts where train and another one hold class
    folders, or there are no others; one without class folders is left out. A folder that holds all the rest
    is gone into. Where no picture lies in a folder of the first level itself, its sub-folders are the
    classes, unless several have sub-folders of the same names: these are sessions, cameras, years.
    """
    above = ""
    while True:
        inner = _below(paths, above)
        parts = _parts(inner)
        if parts or len(inner) != 1 or not all("/" in rest for rests in inner.values() for rest in rests):
            break
        above += next(iter(inner)) + "/"
    if parts:
        found = {part: above + name for part, name in parts.items()}
        rests = [rest for name in parts.values() for rest in inner[name]]
        why = f"found by their names: {', '.join(found.values())}"
        if ignored := sorted(inner.keys() - set(parts.values())):
            why += f"; left out: {', '.join(ignored[:5])}{' ...' if len(ignored) > 5 else ''}"
        if "test" not in found and "validation" in found:
            found["test"] = found.pop("validation")
            why += "; the validation pictures are the test images, there being no others (as for ImageNet)"
    else:
        found = {"train": above.rstrip("/") or "."}
        rests = [f"{name}/{rest}" for name, own in inner.items() for rest in own]
        why = "no folders named train and val or test: all pictures are one set"
    classes, classes_why = _classes(rests)
    return Layout(
        found["train"], found.get("validation"), found.get("test"), classes, _line(why), _line(classes_why)
    )


def _line(text: str) -> str:
    """Text of one line, as a comment has to be, whatever folders are called."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _below(paths: Collection[str], above: str) -> dict[str, list[str]]:
    """What lies in each folder below another one; pictures beside the folders do not count."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if path.startswith(above):
            name, slash, rest = path[len(above) :].partition("/")
            if slash:
                found[name].append(rest)
    return found


def _parts(inner: dict[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, rests in sorted(inner.items()):
        for part, names in NAMES.items():
            if name.lower() in names and part not in found and any("/" in rest for rest in rests):
                found[part] = name
    others = [name for name in inner if not any(name.lower() in names for names in NAMES.values())]
    return found if "train" in found and (len(found) > 1 or (len(inner) > 1 and not others)) else {}


def _classes(rests: Collection[str]) -> tuple[Literal["top", "leaf"], str]:
    direct = any(rest.count("/") == 1 for rest in rests)
    deeper: dict[str, set[str]] = defaultdict(set)
    for rest in rests:
        words = rest.split("/")
        if len(words) > 2:
            deeper[words[1]].add(words[0])
    if not deeper:
        return "top", "a folder a class"
    if direct:
        return "top", "a folder of the first level a class, sub-folders included: pictures lie in both"
    if any(len(tops) > 1 for tops in deeper.values()):
        again = next(name for name, tops in deeper.items() if len(tops) > 1)
        return "top", f"a folder of the first level a class: sub-folders such as {again} are in several"
    return "leaf", "every folder that holds pictures a class: those of the first level hold folders alone"
