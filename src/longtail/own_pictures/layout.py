"""How a user's folder of pictures is laid out: which folders are parts, which classes, what is neither."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from longtail.data.lists import some

NAMES = {
    "train": {"train", "training", "trainset", "train_set"},
    "validation": {"val", "valid", "validation", "dev", "eval"},
    "test": {"test", "testing", "testset", "test_set"},
}
# Folders beside train whose pictures have no label: they are neither parts nor classes.
UNLABELLED = {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "inference"}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

Inner = dict[str, list[str]]  # of a folder: by the name of each folder in it, the pictures' paths below that


@dataclass(frozen=True)
class Layout:
    """Where the parts of a dataset are, and why it looks so.

    Attributes:
        train, validation, test: folders of class folders, below the root; None: there is none.
        classes: as `data.classes`: a class is a folder of the first level, or every folder with pictures.
        parts_why, classes_why: for the comments of a settings file, and for the terminal.
        left_out: pictures of no part, by the folder that holds them, with the reason.
    """

    train: str
    validation: str | None
    test: str | None
    classes: Literal["top", "leaf"]
    parts_why: str
    classes_why: str
    left_out: Mapping[str, str]


def layout(paths: Collection[str]) -> Layout:
    """The layout of pictures by their paths below a root.

    Folders are parts whose names are train, val, test or alike, in any case, or begin or end with such a
    word (seg_train, val2017), where train and another one hold class folders, or there are no others; one
    without class folders is left out. Names that only begin or end so have to hold the same classes. A folder
    that holds all the rest is gone into. Where no picture lies in a folder of the first level itself, its
    sub-folders are the classes, unless several have sub-folders of the same names: these are sessions,
    cameras, years.
    """
    above = ""
    while True:
        inner = _below(paths, above)
        parts = _parts(inner)
        if parts or len(inner) != 1 or not all("/" in rest for rests in inner.values() for rest in rests):
            break
        above += next(iter(inner)) + "/"
    if parts:
        found = {part: above + folder for part, folder in parts.items()}
        rests = [rest for folder in parts.values() for rest in _of_folder(inner, folder)]
        why = "found by their names"
        if "test" not in found and "validation" in found:
            found["test"] = found.pop("validation")
            why += "; the validation pictures are the test images, there being no others (as for ImageNet)"
    else:
        found = {"train": above.rstrip("/") or "."}
        rests = [f"{name}/{rest}" for name, own in inner.items() for rest in own]
        why = "no folders named train and val or test: all pictures are one set"
    classes, classes_why = _classes(rests)
    return Layout(
        found["train"],
        found.get("validation"),
        found.get("test"),
        classes,
        one_line(why),
        one_line(classes_why),
        _left_out(paths, found.values()),
    )


def one_line(text: str) -> str:
    """Text of one line, as a comment has to be, whatever folders are called."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _below(paths: Collection[str], above: str) -> Inner:
    """What lies in each folder below another one; pictures beside the folders do not count."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if path.startswith(above):
            name, slash, rest = path[len(above) :].partition("/")
            if slash:
                found[name].append(rest)
    return found


def _of_folder(inner: Inner, folder: str) -> list[str]:
    name, _, deeper = folder.partition("/")
    prefix = deeper + "/" if deeper else ""
    return [rest.removeprefix(prefix) for rest in inner[name] if rest.startswith(prefix)]


def _part_of(name: str) -> tuple[str, str] | None:
    """The part that a folder is named for, and what else its name says: seg_train is train, of seg."""
    for part, names in NAMES.items():
        if name.lower() in names:
            return part, ""
    words = [word.lower() for word in WORD.findall(name)]
    for place in (0, -1) if words else ():
        for part, names in NAMES.items():
            if words[place] in names:
                return part, " ".join(words[:place] if place else words[1:]) or "a number"
    return None


def _is_unlabelled(name: str) -> bool:
    words = [word.lower() for word in WORD.findall(name)]
    return bool(words) and (words[0] in UNLABELLED or words[-1] in UNLABELLED)


def _parts(inner: Inner) -> dict[str, str]:
    """The folder of each part, which may be one in a folder; none where there are no parts."""
    named: dict[str, dict[str, str]] = defaultdict(dict)  # by part and what else a name says: the folder
    for name, rests in sorted(inner.items()):
        if (said := _part_of(name)) and any("/" in rest for rest in rests):
            named[said[0]].setdefault(said[1], name)
    if not named["train"]:
        return {}
    beside = {more: sum(more in named[part] for part in NAMES) for more in named["train"]}
    own = max(beside, key=lambda more: (beside[more], more == "", len(inner[named["train"][more]])))
    found = {}
    for part in NAMES:
        if own in named[part] or len(named[part]) == 1:
            found[part] = named[part].get(own) or next(iter(named[part].values()))
    folders = _gone_into(inner, found)
    classes = {part: set(_tops(_of_folder(inner, folder))) for part, folder in folders.items()}
    others = [name for name in inner if not _part_of(name) and not _is_unlabelled(name)]
    for part in list(folders):
        if part != "train" and _part_of(found[part]) != (part, "") and not classes[part] & classes["train"]:
            others.append(folders.pop(part))
    return folders if len(folders) > 1 or (len(inner) > 1 and not others) else {}


def _gone_into(inner: Inner, parts: Mapping[str, str]) -> dict[str, str]:
    """Parts of which all class folders lie in one folder more: seg_train/seg_train, train/images."""
    found = dict(parts)
    common: set[str] = set()
    for part in NAMES:  # train first: what it is gone into by, the others may be too
        while part in found:
            tops = _tops(_of_folder(inner, found[part]))
            if len(tops) != 1 or not all("/" in rest for rest in next(iter(tops.values()))):
                break
            name = next(iter(tops))
            same = name == found[part].split("/")[-1] or (_part_of(name) or ("",))[0] == part
            if part != "train" and not same and name not in common:
                break
            common.add(name)
            found[part] += f"/{name}"
    return found


def _tops(rests: Collection[str]) -> Inner:
    return _below(rests, "")


def _left_out(paths: Collection[str], parts: Collection[str]) -> dict[str, str]:
    """What lies in no folder of a part: by the folder of the first level that is no part's, how much."""
    if "." in parts:
        return {}
    found: Counter[str] = Counter()
    labelled: set[str] = set()
    for path in paths:
        if any(path.startswith(f"{part}/") for part in parts):
            continue
        above = path.split("/")[:-1]
        depth = 1
        while depth < len(above) and any(part.startswith("/".join(above[:depth]) + "/") for part in parts):
            depth += 1
        folder = "/".join(above[:depth])
        found[folder] += 1
        if len(above) > depth:
            labelled.add(folder)
    return {
        folder or ".": some(number, "picture")
        + (" beside the folders" if not folder else "" if folder in labelled else " in no class folder")
        for folder, number in sorted(found.items())
    }


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
