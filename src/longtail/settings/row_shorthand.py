"""Short ways of writing rows of tables, and what they stand for.

    rows:
      - {section: Ours, label: GLAG, stage_one: graloss, stage_two: afg}    # without an entry of `methods`
      - {section: Ours, label: [Baseline, GLAG], method: [CE, GLAG]}        # a row for each label
      - {section: Ours, label: [CE, GraLoss], stage_one: [ce, graloss], stage_two: crt}    # the same
      - {section: [Joint, cRT], stage_two: [joint, crt],                    # in each section a row for each
         label: [CE, GraLoss], stage_one: [ce, graloss]}                    # label
      - {section: Theirs, label: [BBN, SSD]}                                # rows that are only printed

`rows_in_full` writes them out, before anything is checked: one row after the other, each with its method's
name.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from longtail.errors import shown
from longtail.settings.shorthand import KINDS, MisplacedError, known

MOST = 1000  # rows that one stands for
Pair = tuple[str, str]  # a recipe and a classifier, by their names


def rows_in_full(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose rows stand one by one and name entries of `methods`, to which rows add theirs.

    A method that a row names by recipe and classifier is called as the row's `method` says; else as `methods`
    calls it; else by the row's label, where all rows of this label are one method; else RECIPE + CLASSIFIER.

    Args:
        settings: the data of a settings file, which stays as it is.

    Raises:
        MisplacedError: if a name is unknown, or the name of another method already.
    """
    tables, given = settings.get("tables"), settings.get("methods")
    if not isinstance(tables, dict) or not isinstance(given, dict | None):
        return dict(settings)
    methods = Methods(settings)
    written = {name: _one_by_one(name, table) for name, table in tables.items()}
    for where, row in _rows(written):
        if isinstance(row.get("method"), str) and (pair := methods.pair_of(where, row)):
            methods.add(f"{where}.method", row["method"], pair)
    labels = _labels(written, methods)
    named = {
        name: {**table, "rows": [_named(where, row, methods, labels) for where, row in table["rows"]]}
        if _has_rows(table)
        else table
        for name, table in written.items()
    }
    found = {"methods": methods.entries} if methods.entries else {}
    return {**settings, "tables": named, **found}


class Methods:
    """The entries of `methods`, and those that rows add.

    Attributes:
        entries: as they stand in the file, and after them those of rows.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.entries: dict[str, Any] = dict(settings.get("methods") or {})
        self._kinds = {kind: settings.get(kind) for kind in KINDS}
        self._names: dict[Pair, str] = {}
        for name in self.entries:
            if pair := self.pair(name):
                self._names.setdefault(pair, name)

    def pair(self, name: Any) -> Pair | None:
        """Recipe and classifier of an entry; None where there are none."""
        entry = self.entries.get(name) if isinstance(name, str) else None
        match entry:
            case {"stage_one": str(recipe), "stage_two": str(classifier)}:
                return recipe, classifier
        return None

    def pair_of(self, where: str, row: Mapping[str, Any]) -> Pair | None:
        """Recipe and classifier that a row names; None where it names none, or a recipe for `linear` alone.

        Raises:
            MisplacedError: if one of the two is missing, or no entry.
        """
        there = [kind for kind in KINDS if kind in row]
        for kind in there:
            if not isinstance(entries := self._kinds[kind], dict):
                raise MisplacedError(
                    kind, f"{shown(entries)} should be entries by their names, which rows name"
                )
            known(f"{where}.{kind}", row[kind], kind, entries)
        if not there or (there == ["stage_one"] and "linear" in row):
            return None
        if len(there) == 1:
            (missing,) = set(KINDS) - set(there)
            message = f"is missing; beside {there[0]} a row names an entry of {missing}"
            raise MisplacedError(f"{where}.{missing}", message)
        return row["stage_one"], row["stage_two"]

    def add(self, where: str, name: str, pair: Pair) -> str:
        """Give a pair a name, beside those that it has.

        Raises:
            MisplacedError: if it is the name of another pair.
        """
        if name in self.entries and self.pair(name) != pair:
            taken = " + ".join(self.pair(name) or ("another method",))
            message = f"{shown(name)} is {taken} already, not {' + '.join(pair)}; give this one another name"
            raise MisplacedError(where, message)
        self.entries.setdefault(name, dict(zip(KINDS, pair, strict=True)))
        self._names.setdefault(pair, name)
        return name

    def name(self, where: str, pair: Pair, label: str = "") -> str:
        """The name of a pair: the first that it has, else the label, else RECIPE + CLASSIFIER.

        Args:
            where: the key that an error is said of.
            pair: recipe and classifier.
            label: "" where the row's is not to be taken.
        """
        if pair in self._names:
            return self._names[pair]
        return self.add(where, label if label and label not in self.entries else " + ".join(pair), pair)


def _has_rows(table: Any) -> bool:
    return isinstance(table, dict) and isinstance(table.get("rows"), list)


def _one_by_one(name: str, table: Any) -> Any:
    """A table whose rows are pairs of a row's key in the file and a row that it stands for."""
    if not _has_rows(table):
        return table
    rows = []
    for index, row in enumerate(table["rows"]):
        where = f"tables.{name}.rows[{index}]"
        rows += [(where, one) for one in several(where, row)]
    return {**table, "rows": rows}


def several(where: str, row: Any) -> list[Any]:
    """The rows that one stands for: one for each of its labels, in each of its sections.

    Where `method`, `stage_one` or `stage_two` is a list, an item of it goes with each label; with several
    sections, an item of `stage_two` goes with each section. A row whose item is null has no such key.

    Args:
        where: the key of the row, for an error.
        row: as it stands in the file.

    Raises:
        MisplacedError: if lists that go together differ in length, or one has nothing to go with.
    """
    if not isinstance(row, dict):
        return [row]
    listed = ("section", "label", "method", *KINDS)
    lists = {key: row[key] for key in listed if isinstance(row.get(key), list)}
    by_section = {"section", "stage_two"} if "section" in lists else set()
    leads = {key: "section" if key in by_section else "label" for key in lists}
    for key, lead in leads.items():
        if lead not in lists:
            raise MisplacedError(f"{where}.{key}", f"is a list, and {lead} is none; they go together")
        if len(lists[key]) != len(lists[lead]) or not lists[key]:
            counts = f"has {len(lists[key])} items, {lead} has {len(lists[lead])}"
            raise MisplacedError(f"{where}.{key}", f"{counts}; they go together, one or more")
    if (number := prod(len(lists[lead]) for lead in ("section", "label") if lead in lists)) > MOST:
        raise MisplacedError(where, f"stands for {number:,} rows; {MOST:,} are the most of a table")
    rows = []
    for section, label in product(*(range(len(lists.get(lead, [""]))) for lead in ("section", "label"))):
        place = {"section": section, "label": label}
        own = {key: items[place[leads[key]]] for key, items in lists.items()}
        left_out = {key for key, value in own.items() if value is None}
        rows.append({key: value for key, value in {**row, **own}.items() if key not in left_out})
    return rows


def _rows(tables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The key and the data of every row that has keys."""
    for table in tables.values():
        for where, row in table["rows"] if _has_rows(table) else ():
            if isinstance(row, dict):
                yield where, row


def _labels(tables: Mapping[str, Any], methods: Methods) -> set[str]:
    """The labels of which all rows are one method."""
    meant: defaultdict[str, set[Pair]] = defaultdict(set)
    for where, row in _rows(tables):
        pair = methods.pair_of(where, row) or methods.pair(row.get("method"))
        if pair and isinstance(row.get("label"), str):
            meant[row["label"]].add(pair)
    return {label for label, pairs in meant.items() if len(pairs) == 1}


def _named(where: str, row: Any, methods: Methods, labels: set[str]) -> Any:
    """A row that names its methods; `linear` without a recipe is on the row's.

    Args:
        where: the row's key in the file.
        row: one row.
        methods: all of them; what the row adds is added there.
        labels: those that may become names.
    """
    if not isinstance(row, dict):
        return row
    pair, label = methods.pair_of(where, row), row.get("label")
    own = {key: value for key, value in row.items() if key not in KINDS}
    if pair and row.get("method") is None:
        own["method"] = methods.name(where, pair, label if isinstance(label, str) and label in labels else "")
    if isinstance(linear := row.get("linear"), dict):
        recipe = row.get("stage_one") or (methods.pair(row.get("method")) or [None])[0]
        whole = {**({"stage_one": recipe} if recipe else {}), **linear}
        if strange := sorted(set(whole) - set(KINDS)):
            raise MisplacedError(f"{where}.linear.{strange[0]}", f"unknown key; there are {', '.join(KINDS)}")
        if found := methods.pair_of(f"{where}.linear", whole):
            own["linear"] = methods.name(f"{where}.linear", found)
    return own
