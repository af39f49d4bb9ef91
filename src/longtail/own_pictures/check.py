"""`longtail check-data`: read every picture of a dataset of files once, and say what is wrong with it.

Writes data/checked/DATASET/manifest.csv, which every later step builds on, report.md, report.csv and
report.png. Files whose size and time have not moved since the last check are not read again, but for those
that were of no use: the trouble may have been the machine's.
"""

import os
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from longtail.data import file_changes, groupings, manifest
from longtail.data.catalogue import files, root_of, troubles, unusable
from longtail.data.check_command import remember
from longtail.data.lists import Named, named, some
from longtail.errors import UserError
from longtail.own_pictures import figure, near_duplicates, report
from longtail.own_pictures.checked import Checked
from longtail.own_pictures.inspection import inspect_all
from longtail.own_pictures.layout import one_line
from longtail.own_pictures.planned_parts import planned_parts
from longtail.own_pictures.problems import KINDS, Demands, Finding, by_weight, find, heic_files
from longtail.publish import data_problems
from longtail.runs.progress import Progress
from longtail.settings.data import ListData, PublishedData
from longtail.settings.params import Params

SHOWN_CLASSES = 40  # that a terminal is told


def check_data(file: str) -> None:
    """Check the dataset of a settings file and write what was found.

    Raises:
        UserError: if the dataset is a published one, a folder or list is not there, or, after all is
            written, files cannot be used and `data.broken` is `stop`.
    """
    params = Params.load(file)
    if isinstance(params.data, PublishedData):
        raise UserError(
            f"{file}: {params.dataset} is a published dataset, whose checksums `acquire` verifies; "
            "check-data is for data.kind: folder, list or csv"
        )
    demands = Demands(
        params.data,
        params.validation,
        params.groups,
        natural=params.imbalance.profile == "natural",
        subset_seed=params.subset_seed[0],
    )
    checked = check(params.dataset, demands)
    remember(params.dataset, file)
    write(checked)
    print(summary(checked))
    if checked.broken and params.data.broken == "stop":
        raise UserError(unusable(params.dataset, checked.broken))


def check(dataset: str, demands: Demands) -> Checked:
    """Read what is new, and find what there is to say; writes the manifest.

    Raises:
        UserError: if a folder, list or table is not there or cannot be read, or there is no picture at all.
    """
    started = time.monotonic()
    data = demands.data
    root = root_of(data)
    if not (found := files(data)):
        heic = (
            f"{some(number, 'file')} in HEIC, which is not read; convert them to JPEG"
            if (number := heic_files(root))
            else "data.root and data.kind say where to look"
        )
        raise UserError(f"{root}: holds no picture that data names; {heic}")
    try:
        before = manifest.read(dataset) or []
    except UserError:  # damaged: read all again
        before = []
    hashed = data.near_duplicates is not None
    entries = {
        entry.path: entry
        for entry in file_changes.unmoved(dataset, root, before, found)
        if not entry.trouble and (entry.look or not hashed)
    }
    looks = {entry.path: entry for entry in before if entry.look}
    missing = sorted(found.keys() - entries.keys())
    with Progress(f"checking {dataset}", len(missing), "file") as progress:
        try:
            for number, (entry, stat) in enumerate(inspect_all(os.path.realpath(root), missing), 1):
                known = looks.get(entry.path)
                if known is not None and known.sha256 == entry.sha256:  # another Pillow may see another bit
                    entry = entry._replace(look=known.look)
                entries[entry.path], found[entry.path] = entry, stat
                progress.to(number)
        except KeyboardInterrupt:  # what was read need not be read again; the rest stays as it was known
            earlier = {entry.path: entry for entry in before if entry.path in found}
            manifest.write(dataset, (earlier | entries).values())
            file_changes.write_stats(dataset, root, entries.values(), found)
            raise
    manifest.write(dataset, entries.values())
    file_changes.write_stats(dataset, root, entries.values(), found)
    listed = sorted(entries.values(), key=manifest.BY_PATH)
    parts = named(data, listed)
    used = {path for rows in parts.values() for path, _ in rows}
    broken = {path: why for path, why in sorted(troubles(listed, data).items()) if path in used}
    findings = find(demands, listed, parts, broken, root)
    near, planned = _near(dataset, demands, listed, parts, broken, findings)
    return Checked(
        dataset,
        demands,
        listed,
        parts,
        broken,
        findings,
        near,
        planned,
        len(missing),
        time.monotonic() - started,
    )


def _near(
    dataset: str,
    demands: Demands,
    entries: list[manifest.Entry],
    parts: Mapping[str, Named],
    broken: dict[str, str],
    findings: list[Finding],
) -> tuple[list[near_duplicates.NearGroup], dict[str, str] | None]:
    """Groups of near-duplicates and the planned parts of all pictures; adds to the findings."""
    distance = demands.data.near_duplicates
    if demands.data.held_out and demands.data.held_out.groups not in (None, groupings.NEAR):
        findings += _group_leaks(dataset, demands, parts, broken)
    groups = near_duplicates.find(entries, parts, broken, {}, distance)
    held = demands.data.held_out
    planned = None
    if groups or (held and held.groups):
        try:
            planned = planned_parts(dataset, demands, parts, broken)
        except UserError as error:
            if held and held.groups:
                findings.append(Finding("too few", "", "train", "", str(error)))
        else:
            groups = near_duplicates.find(entries, parts, broken, planned, distance)
    first = max((one.same_as for one in findings), default=0) + 1
    findings += near_duplicates.findings(groups, first)
    findings.sort(key=by_weight)
    return groups, planned if held and held.groups else None


def _group_leaks(
    dataset: str, demands: Demands, parts: Mapping[str, Named], broken: Mapping[str, str]
) -> list[Finding]:
    """Groups, by a folder or a column, that are in two of the parts that a dataset names; a finding each."""
    usable = [(path, part, name) for part, rows in parts.items() for path, name in rows if path not in broken]
    groups = groupings.of(dataset, demands.data, [path for path, _, _ in usable])
    members: dict[int, list[tuple[str, str, str]]] = {}
    for group, row in zip([] if groups is None else groups.tolist(), usable, strict=False):
        members.setdefault(group, []).append(row)
    found = []
    for rows in members.values():
        seen = Counter(part for _, part, _ in rows)
        if len(seen) > 1:
            where = ", ".join(f"{count:,} in {part}" for part, count in seen.items())
            found.append(Finding("group leak", *rows[-1], f"is of a group of which are {where}"))
    return found


def write(checked: Checked) -> None:
    """Write report.md, report.csv, report.png, near_duplicates.csv and data_problems.html."""
    folder = manifest.file_of(checked.dataset).parent
    report.write(checked, folder)
    near_duplicates.write(checked.near, folder)
    data_problems.write(checked.dataset, root_of(checked.demands.data), None, folder)
    figure.write(checked, folder / "report.png")


def summary(checked: Checked, taken: Sequence[str] = (), absolute: bool = False) -> str:
    """What a terminal is told: totals, classes with their pictures, what was found, where to read on.

    Args:
        checked: what was found.
        taken: what was taken for what, a line each.
        absolute: whether paths are, for someone who stands in another folder.
    """
    folder = manifest.file_of(checked.dataset).parent
    folder = folder.resolve() if absolute else folder
    classes = {name for _, name in checked.parts["train"]}
    totals = ", ".join(f"{part} {len(rows):,}" for part, rows in checked.parts.items())
    reused = len(checked.entries) - checked.read
    lines = [
        f"{checked.dataset}: {some(sum(map(len, checked.parts.values())), 'picture')} ({totals}) of "
        f"{some(len(classes), 'class')}; {some(checked.read, 'file')} read"
        + (f", {reused:,} unchanged since the last check" if reused else "")
        + f", {checked.seconds:.1f} s"
    ]
    lines += [f"  {one}" for one in taken]
    lines += _classes(Counter(name for _, name in checked.parts["train"]))
    counts = Counter(one.kind for one in checked.findings)
    lines += [f"  {counts[kind]:>7,}  {what}" for kind, (what, _) in KINDS.items() if counts[kind]]
    if not counts:
        lines.append("  nothing to complain of")
    if isinstance(checked.demands.data, ListData):
        lines.append(f"  the lists are checked against the pictures of {checked.demands.data.root}")
    return "\n".join([*lines, f"report: {folder / 'report.md'}; picture: {folder / 'report.png'}"])


def _classes(counts: Counter[str]) -> list[str]:
    """The classes with their training pictures, the largest first; of many those at both ends."""
    named = [
        f"{one_line(name)} {count:,}"
        for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    ]
    if len(named) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        named[half:-half] = [f"... {len(named) - 2 * half:,} more ..."]
    # a name is not broken over lines
    text = ", ".join(named).replace(" ", "\0").replace(",\0", ", ")
    lines = textwrap.wrap(
        f"training pictures: {text}",
        108,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for number, line in enumerate(lines)]
