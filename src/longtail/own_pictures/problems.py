"""What a check has to say about a dataset of picture files, worst first."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longtail.data.decode import NOT_READ
from longtail.data.file_changes import SUFFIXES, SYSTEM, is_passed_over
from longtail.data.held_out import tested, trained
from longtail.data.lists import Named, folders, some
from longtail.data.manifest import Entry
from longtail.groups import group, group_words
from longtail.settings.data import Files, FolderData
from longtail.settings.published import Groups
from longtail.settings.split import Validation

# Worst first: kind, what a reader is told, what to do about it.
KINDS = {
    "broken": ("files that cannot be used", "mend or remove them, or set data.broken: skip"),
    "heic": (
        "pictures in HEIC, which is not read: convert them to JPEG",
        "e.g. by `magick mogrify -format jpg FILES`; till then they are left out or, named .jpg, broken",
    ),
    "leak": ("pictures that are in two parts", "remove it from training: what was trained on tests nothing"),
    "conflict": ("pictures that are in two classes", "remove it from the class that is wrong"),
    "near leak": (
        "pictures that are nearly the same in two parts",
        "data.held_out.groups: near_duplicates keeps them on one side; where the dataset names its own test "
        "images, remove them from training",
    ),
    "group leak": (
        "groups of data.held_out.groups that are in two parts",
        "the dataset names these parts itself: move the pictures of a group to one side",
    ),
    "near conflict": (
        "pictures that are nearly the same in two classes",
        "look at them: one class may be wrong, or the two differ in colour or detail",
    ),
    "too few": ("classes with too few pictures", "add pictures, merge classes, or hold fewer out"),
    "group": ("groups without a class", "set groups so that each has classes, or its column is empty"),
    "duplicate": (
        "pictures that are in a class twice",
        "remove the copies: one may be held out to test what learnt from the other",
    ),
    "near duplicate": (
        "pictures that are nearly the same in a class",
        "nothing, where data.held_out.groups: near_duplicates keeps them on one side; else remove copies",
    ),
    "empty": ("class folders without a picture", "remove the folder, or add its pictures"),
    "beside": ("pictures beside the class folders", "move them into a class; they are left out"),
    "link": ("links to folders", "they are not followed; copy the folder, or set data.root to where it is"),
    "collision": (
        "names that differ in case or accents' form alone",
        "rename: some disks hold one of them only",
    ),
    "suffix": ("files of another format than their name says", "nothing: they are read by their content"),
    "system": ("folders of the system's own", "nothing: they are passed over"),
    "ignored": ("files whose suffix is no picture's", "nothing: they are left out"),
}
HEIC = {".heic", ".heif", ".hif", ".heics", ".heifs"}
# What may be in a file of each suffix; MPO is a JPEG with a second picture behind it.
FORMATS_OF = {suffix: {"JPEG", "MPO"} for suffix in (".jpg", ".jpeg", ".jpe", ".jfif")}
FORMATS_OF |= {
    suffix: {suffix[1:].upper()} for suffix in (".png", ".webp", ".bmp", ".gif", ".avif", ".ico", ".tga")
}
FORMATS_OF |= {".tif": {"TIFF"}, ".tiff": {"TIFF"}, ".ppm": {"PPM"}, ".pgm": {"PPM"}}
FORMATS_OF |= {".jp2": {"JPEG2000"}, ".j2k": {"JPEG2000"}}


@dataclass(frozen=True)
class Finding:
    """One thing that was found; a row of report.csv.

    Attributes:
        kind: a key of KINDS.
        path: of the file or folder, below the root; "" where a class or group as a whole is meant.
        part, label: where it belongs, by name; "" where nowhere.
        what: in words.
        same_as: number of the set of same or nearly same pictures, from 1; 0 where it is in none.
    """

    kind: str
    path: str
    part: str
    label: str
    what: str
    same_as: int = 0


@dataclass(frozen=True)
class Demands:
    """What the settings want of every class.

    Attributes:
        data: of the settings.
        validation: of the settings.
        groups: many, medium, few.
        natural: whether the training images stay as many as they are.
        subset_seed: of the settings; which pictures a holdout takes.
    """

    data: Files
    validation: Validation
    groups: Groups
    natural: bool
    subset_seed: int = 0


def find(
    demands: Demands,
    entries: Sequence[Entry],
    parts: Mapping[str, Named],
    broken: Mapping[str, str],
    root: Path,
) -> list[Finding]:
    """All findings, worst first, and in the order of their paths.

    Args:
        demands: what the settings want.
        entries: of the manifest.
        parts: path and class name of every picture, that cannot be used ones included.
        broken: why files cannot be used.
        root: folder of the pictures, which is looked at for what is no picture.
    """
    where = {path: (part, name) for part, rows in parts.items() for path, name in rows}
    found = [
        Finding("heic" if broken[path] == NOT_READ else "broken", path, *where[path], broken[path])
        for path in sorted(broken)
        if path in where
    ]
    found += _same(entries, where, broken)
    found += _too_few(demands, parts, broken)
    found += _collisions(entries, parts)
    found += [
        Finding("suffix", entry.path, *where[entry.path], f"is {entry.format}")
        for entry in entries
        if entry.path in where and not _suits(entry)
    ]
    if isinstance(demands.data, FolderData):
        beside = (entry.path for entry in entries if entry.path not in where)
        found += [Finding("beside", path, "", "", "is in no class folder") for path in beside]
        found += _around(demands.data, root, parts)
    return sorted(found, key=by_weight)


def by_weight(one: Finding) -> tuple[int, int, str, str]:
    """The order of findings: worst first, sets together, then by path."""
    return list(KINDS).index(one.kind), one.same_as, one.path, one.label


def _same(
    entries: Iterable[Entry], where: Mapping[str, tuple[str, str]], broken: Mapping[str, str]
) -> list[Finding]:
    by_content: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.path in where and entry.path not in broken:
            by_content[entry.sha256].append(entry.path)
    order = list(KINDS)
    sets = [(_kind(paths, where), sorted(paths)) for paths in by_content.values() if len(paths) > 1]
    found: list[Finding] = []
    for number, (kind, paths) in enumerate(sorted(sets, key=lambda one: (order.index(one[0]), one[1])), 1):
        for path in paths:
            others = [other for other in paths if other != path]
            what = f"is {others[0]}" + (f" and {some(len(others) - 1, 'other')}" if len(others) > 1 else "")
            if kind == "leak" and len({where[path][1] for path in paths}) > 1:
                what += ", in another class too"
            found.append(Finding(kind, path, *where[path], what, number))
    return found


def _kind(paths: Iterable[str], where: Mapping[str, tuple[str, str]]) -> str:
    if len({where[path][0] for path in paths}) > 1:
        return "leak"
    return "conflict" if len({where[path][1] for path in paths}) > 1 else "duplicate"


def _too_few(demands: Demands, parts: Mapping[str, Named], broken: Mapping[str, str]) -> list[Finding]:
    usable = {
        part: Counter(name for path, name in rows if path not in broken) for part, rows in parts.items()
    }
    classes = sorted({name for _, name in parts["train"]})
    held = None if "test" in parts else demands.data.held_out
    found = []
    for name in classes:
        count = usable["train"][name]
        taken = tested(count, held)
        if count == 1 and ("test" in parts or (held and held.untested)):
            words = "tested" if "test" in parts else "not tested"
            found.append(("train", name, f"has 1 usable training picture: trained on, {words}"))
        elif count < 2:
            found.append(("train", name, f"has {some(count, 'usable training picture')}; 2 are the least"))
        elif taken >= count:
            found.append(
                (
                    "train",
                    name,
                    f"has {count}, of which data.held_out takes {taken}: none is left to train on",
                )
            )
        elif demands.validation.source == "holdout" and count - taken < 2:
            found.append(("train", name, f"has {count}: {taken} for testing, none is left for validation"))
        found += [
            (part, name, f"has no {part} picture")
            for part in usable
            if part != "train" and not usable[part][name]
        ]
    known = set(classes)
    for part, counts in usable.items():
        strange = sorted(counts.keys() - known)
        found += [(part, name, "has no training picture: the workflow will stop") for name in strange]
    result = [Finding("too few", "", *one) for one in found]
    if demands.natural:
        sizes = [trained(usable["train"][name], held, demands.validation) for name in classes]
        grouped = Counter(group(size, demands.groups.many_above, demands.groups.few_below) for size in sizes)
        result += [
            Finding("group", "", "train", name, f"no class is {words}")
            for name, words in group_words(demands.groups.many_above, demands.groups.few_below).items()
            if not grouped[name]
        ]
    return result


def _collisions(entries: Iterable[Entry], parts: Mapping[str, Named]) -> list[Finding]:
    names: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        above = ""
        for word in entry.path.split("/"):
            above = f"{above}/{word}" if above else word
            names[_folded(above)].add(above)
    for rows in parts.values():
        for _, name in rows:
            names[_folded(name)].add(name)
    return [
        Finding(
            "collision",
            path,
            "",
            "",
            f"differs from {' and '.join(sorted(alike - {path}))} in case or form alone",
        )
        for alike in names.values()
        if len(alike) > 1
        for path in sorted(alike)
    ]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _suits(entry: Entry) -> bool:
    formats = FORMATS_OF.get(os.path.splitext(entry.path)[1].lower())
    return formats is None or not entry.format or entry.format in formats


def _around(data: FolderData, root: Path, parts: Mapping[str, Named]) -> list[Finding]:
    """What lies below the folders of the parts and is no picture: links, other files, empty class folders."""
    own = folders(data)
    holding = {part: {name for _, name in rows} for part, rows in parts.items()}
    found = []
    for part, folder in own.items():
        top = root / folder
        for above, inner, names in os.walk(top):
            below = os.path.relpath(above, top)
            prefix = os.path.relpath(above, root)
            prefix = "" if prefix == "." else f"{prefix}/"
            for name in sorted(name for name in inner if name.lower() in SYSTEM):
                found.append(
                    Finding("system", prefix + name, part, "", f"holds {files_of(os.path.join(above, name))}")
                )
            inner[:] = sorted(
                name
                for name in inner
                if not is_passed_over(name)
                and os.path.normpath(os.path.join(folder, below, name)) not in own.values()
            )
            for name in [name for name in inner if os.path.islink(os.path.join(above, name))]:
                found.append(Finding("link", prefix + name, part, "", "is a link to a folder"))
            for name in sorted(names):
                suffix = os.path.splitext(name)[1]
                if name[0] != "." and suffix.lower() not in SUFFIXES:
                    kind = "heic" if suffix.lower() in HEIC else "ignored"
                    found.append(Finding(kind, prefix + name, part, "", suffix or "no suffix"))
            is_class = below.count("/") == 0 if data.classes == "top" else not inner
            if below != "." and is_class and below not in holding[part]:
                found.append(Finding("empty", prefix.rstrip("/"), part, below, "holds no picture"))
    return found


def heic_files(root: Path) -> int:
    """How many files below a folder are HEIC by their suffix."""
    return sum(
        os.path.splitext(name)[1].lower() in HEIC and name[0] != "."
        for _, _, names in os.walk(root)
        for name in names
    )


def files_of(folder: str | Path) -> str:
    """How many files a folder holds, in words."""
    return some(sum(len(names) for _, _, names in os.walk(folder)), "file")
