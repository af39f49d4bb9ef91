"""Groups of pictures that look nearly alike: near_duplicates.csv, and what a report has to say of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longtail.data.lists import Named, some
from longtail.data.manifest import Entry, write_table
from longtail.data.near_duplicates import joined, near_pairs
from longtail.data.perceptual_hash import FLAT
from longtail.own_pictures.problems import Finding
from longtail.publish.data_problems import NEAR_FILE

COLUMNS = ("group", "crosses", "file", "part", "class", "nearest", "bits", "width", "height", "same_content")
# What a group crosses, worst first, and the kind of finding that it is.
CROSSES = {
    "parts and classes": "near leak",
    "parts": "near leak",
    "classes": "near conflict",
    "": "near duplicate",
}


@dataclass(frozen=True)
class Alike:
    """A picture of a group.

    Attributes:
        entry: of the manifest.
        part, label: where it belongs; the part as it is planned.
        nearest: path of the picture of the group that is most like it.
        bits: in which their hashes differ.
        same_content: whether a file of the group has the same bytes.
    """

    entry: Entry
    part: str
    label: str
    nearest: str
    bits: int
    same_content: bool


@dataclass(frozen=True)
class NearGroup:
    """Pictures of which each looks nearly like another one of them, by their paths.

    Attributes:
        crosses: a key of CROSSES.
        members: at least two.
    """

    crosses: str
    members: tuple[Alike, ...]


def find(
    entries: Iterable[Entry],
    parts: Mapping[str, Named],
    broken: Mapping[str, str],
    planned: Mapping[str, str],
    distance: int | None,
) -> list[NearGroup]:
    """All groups, those that cross parts or classes first, the larger first among these.

    Args:
        entries: of the manifest.
        parts: path and class name of every picture.
        broken: files that cannot be used.
        planned: the part of pictures that are held out, by path; of others it is the one that names them.
        distance: bits of 192; None: no group is looked for.
    """
    if distance is None:
        return []
    where = {path: (planned.get(path, part), name) for part, rows in parts.items() for path, name in rows}
    used = [
        entry
        for entry in entries
        if entry.path in where and entry.path not in broken and entry.look not in ("", FLAT)
    ]
    pairs, bits = near_pairs([entry.look for entry in used], distance)
    nearest: dict[int, tuple[int, int]] = {}
    for (one, other), differing in zip(pairs.tolist(), bits.tolist(), strict=True):
        for number, beside in ((one, other), (other, one)):
            nearest[number] = min(nearest.get(number, (distance + 1, 0)), (differing, beside))
    members: dict[int, list[int]] = defaultdict(list)
    tops = joined(len(used), pairs)
    for number in sorted(nearest):
        members[int(tops[number])].append(number)
    groups = [
        _group([used[n] for n in own], [nearest[n] for n in own], used, where) for own in members.values()
    ]
    order = list(CROSSES)
    return sorted(
        groups,
        key=lambda group: (order.index(group.crosses), -len(group.members), group.members[0].entry.path),
    )


def _group(
    own: Sequence[Entry],
    nearest: Sequence[tuple[int, int]],
    used: Sequence[Entry],
    where: Mapping[str, tuple[str, str]],
) -> NearGroup:
    contents = [entry.sha256 for entry in own]
    members = tuple(
        Alike(
            entry,
            *where[entry.path],
            nearest=used[beside].path,
            bits=bits,
            same_content=contents.count(entry.sha256) > 1,
        )
        for entry, (bits, beside) in zip(own, nearest, strict=True)
    )
    crossed = [
        word
        for word, values in (
            ("parts", {one.part for one in members}),
            ("classes", {one.label for one in members}),
        )
        if len(values) > 1
    ]
    return NearGroup(" and ".join(crossed), members)


def findings(groups: Sequence[NearGroup], first: int) -> list[Finding]:
    """What is found anew: a group whose pictures are all of the same bytes is a finding already.

    Args:
        groups: all.
        first: number of the first set.
    """
    found: list[Finding] = []
    number = first
    for group in groups:
        if len({one.entry.sha256 for one in group.members}) == 1:
            continue
        others = some(len(group.members) - 2, "other") if len(group.members) > 2 else ""
        for one in group.members:
            what = f"is nearly {one.nearest} ({some(one.bits, 'bit')} of 192 differ)"
            what += f", and {others} of this set" * bool(others)
            kind = CROSSES[group.crosses]
            found.append(Finding(kind, one.entry.path, one.part, one.label, what, number))
        number += 1
    return found


def write(groups: Sequence[NearGroup], folder: Path) -> None:
    """Write near_duplicates.csv: a row a picture, groups numbered from 1; without one a header alone."""
    rows = [
        (
            number,
            group.crosses,
            one.entry.path,
            one.part,
            one.label,
            one.nearest,
            one.bits,
            one.entry.width,
            one.entry.height,
            "yes" if one.same_content else "",
        )
        for number, group in enumerate(groups, 1)
        for one in group.members
    ]
    write_table(folder / NEAR_FILE, COLUMNS, rows)
